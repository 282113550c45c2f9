"""What the shipped kit finds on other packages: ``python -m conformance``, in `tests`, writes it.

Each package is driven by its own classes on a CPU, in float32, with the codebooks that the kit
draws put in place of its own.  Written are ``docs/conformance.json``, which the tests compare
with, ``docs/batches.json``, whether codes depend on the batch, and ``docs/conformance.md``, which
is made of both.  Hypothesis is derandomized: the same versions give the same file.  The counts of
frames in the second also depend on the processor.
"""
