"""Builds CUDA source for this machine's processor and launches it on NumPy arrays.

No evidence for a GPU, see `gpu.hpp`.
"""

import ctypes
import functools
import hashlib
import os
import re
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
BUILT = HERE.parents[2] / "build" / "emulated"
FLAGS = os.environ.get("RVQ_EMULATED_FLAGS", "").split()  # such as -fsanitize=undefined
SIGNATURE = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(([^)]*)\)'
)
SCALARS = {
    "int": (np.int32, ctypes.c_int32), "i64": (np.int64, ctypes.c_int64),
    "float": (np.float32, ctypes.c_float), "double": (np.float64, ctypes.c_double),
}  # fmt: skip
POINTERS = {
    "int*": np.int32, "i64*": np.int64, "u16*": np.uint16, "u64*": np.uint64,
    "float*": np.float32, "double*": np.float64,
}  # fmt: skip


class Module:
    """The kernels of one source, compiled with some macros."""

    def __init__(self, source, options=()):
        macros = dict(option[2:].partition("=")[::2] for option in options if option[:2] == "-D")
        self.parameters = {}
        wrappers = []
        for name, text in SIGNATURE.findall(source):
            kinds, names = _parameters(text, macros)
            self.parameters[name] = kinds
            wrappers.append(
                f'extern "C" const char* launch_{name}(unsigned gpu_x, unsigned gpu_y, '
                f"unsigned gpu_n, size_t gpu_s, unsigned gpu_i, {text}) {{ "
                "return gpu::launch(gpu_x, gpu_y, gpu_n, gpu_s, gpu_i, "
                f"[&] {{ {name}({', '.join(names)}); }}); }}"
            )
        text = "\n".join(['#include "gpu.hpp"', source, *wrappers])
        self.library = ctypes.CDLL(
            str(_built(text, tuple(f"-D{k}={v}" for k, v in macros.items())))
        )

    def launch(self, name, blocks, threads, arguments, shared=0, seed=0):
        kinds = self.parameters[name]
        assert len(arguments) == len(kinds), f"{name} takes {kinds}"
        given = []
        for value, kind in zip(arguments, kinds, strict=True):
            if kind in POINTERS:
                assert value.dtype == POINTERS[kind], f"{name}: {value.dtype} for {kind}"
                if name != "encode" or value is not arguments[-2]:  # codes: columns of an array
                    assert value.flags.c_contiguous
                given.append(ctypes.c_void_p(value.ctypes.data))
            else:
                expected, passed = SCALARS[kind]
                assert type(value) is expected, f"{name}: {type(value)} for {kind}"
                given.append(passed(value))
        counts = (*map(ctypes.c_uint, (*blocks, threads)), ctypes.c_size_t(shared))
        function = getattr(self.library, f"launch_{name}")
        function.restype = ctypes.c_char_p
        problem = function(*counts, ctypes.c_uint(seed), *given).decode()
        if problem:
            raise RuntimeError(f"emulated GPU: {name}: {problem}")


def _parameters(text, macros):
    kinds, names = [], []
    for each in text.split(","):
        kind, name = each.replace("const ", "").rsplit(maxsplit=1)
        kind = kind.strip()
        base = kind.rstrip("*")
        kinds.append(macros.get(base, base) + kind[len(base) :])
        names.append(name)
    return kinds, names


@functools.cache
def _built(text, macros):
    header = (HERE / "gpu.hpp").read_text()
    name = hashlib.sha256("\n".join([header, text, *macros, *FLAGS]).encode()).hexdigest()[:20]
    path = BUILT / f"{name}.so"
    if not path.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        unique = BUILT / f"{name}.{np.random.default_rng().integers(1 << 60)}"
        command = [
            "g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off", *FLAGS,
            *macros, f"-I{HERE}", "-x", "c++", "-", "-o", str(unique),
        ]  # fmt: skip
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr[:4000]
        unique.replace(path)
    return path
