"""The processors that kernels can be compiled for, the most capable of a machine first."""

from typing import NamedTuple

V2 = ("cx16", "popcnt", "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "fxsr", "mmx", "sahf")
V3 = (*V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
VNNI = (*V4, "avx512vnni")
V3_VNNI = (*V3, "avxvnni")


class Target(NamedTuple):
    """A kind of processor, as LLVM and as `entry.c` know it."""

    machine: str  # as `platform.machine` says it
    cpu: str
    features: tuple[str, ...]
    check: str  # the C expression that says whether a processor is of this kind


def _x86(cpu: str, features: tuple[str, ...], *needed: str, more: str = "1") -> Target:
    """`more`: a macro of `entry.c` for what C compilers do not know by name."""
    check = " && ".join([*(f'__builtin_cpu_supports("{each}")' for each in needed), more])
    return Target("x86_64", cpu, features, check)


_AVX2 = ("avx2", "fma", "bmi", "bmi2")
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
TARGETS = {
    "x86-64-v4+vnni": _x86("x86-64-v4", VNNI, *_AVX512, "avx512vnni"),
    "x86-64-v4": _x86("x86-64-v4", V4, *_AVX512),
    "x86-64-v3+vnni": _x86("x86-64-v3", V3_VNNI, *_AVX2, more="HAS_AVXVNNI"),
    "x86-64-v3": _x86("x86-64-v3", V3, *_AVX2),
    "x86-64-v2": _x86("x86-64-v2", V2, "sse4.2", "popcnt"),
    "aarch64+dotprod": Target("aarch64", "generic", ("neon", "dotprod"), "HAS_DOTPROD"),
    "aarch64": Target("aarch64", "generic", ("neon",), "1"),
}
