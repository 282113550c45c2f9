"""What the shipped kit finds on other packages: ``python -m conformance``, in `tests`, writes it.

Each package is driven by its own classes on a CPU, in float32, with the codebooks that the kit
draws put in place of its own.  Written are ``docs/conformance.json``, which the tests compare
with, and ``docs/conformance.md``, which is made of it.  Hypothesis is derandomized: the same
versions give the same file.
"""
