"""Tests for pytest: the conformance kit on CuPy arrays, as `running` runs them.

``RVQ_BENCH_GPU_SHAPE``: a shape of a block, ``8x1``, to search with, else the default;
``RVQ_BENCH_GPU_EXAMPLES``: examples per property; ``RVQ_BENCH_GPU_DRY``: on the emulated GPU.
"""

import os

from hypothesis import HealthCheck, settings

if os.environ.get("RVQ_BENCH_GPU_DRY"):
    from .stub import standing_in

    _held = standing_in()
    _held.__enter__()  # for as long as the process lives

import cupy
import numpy as np

import rvq_np
from rvq_np.kernels.cuda import launch
from rvq_np.testing import backend_tests, rvq_tests

settings.register_profile(
    "gpu",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=int(os.environ.get("RVQ_BENCH_GPU_EXAMPLES", "25")),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("gpu")

shape = os.environ.get("RVQ_BENCH_GPU_SHAPE", "")
if shape:
    launch.SHAPES = (tuple(map(int, shape.split("x"))),)


def _encode(x, codebooks):
    return rvq_np.encode(cupy.asarray(x), codebooks).get()


def _decode(codes, codebooks):
    return rvq_np.decode(cupy.asarray(codes), codebooks).get()


TestFloat32 = rvq_tests(encode=_encode, decode=_decode)
TestFloat64 = rvq_tests(encode=_encode, decode=_decode, dtype=np.float64)
if not shape:
    TestArrays = backend_tests(
        put=cupy.asarray, get=cupy.asnumpy, dtypes=("float16", "float32", "float64")
    )
