"""Encode under pytest-benchmark: ``pytest bench --benchmark-only``.

How many vectors per second, compared with the baselines, at three sizes and fixed threads? The
check that an implementation computes the same codes also warms it up, so no compilation is timed.
Smaller than ``python -m bench``, and implementations do not take turns: use it to compare versions
of rvq_np, and ``python -m bench`` for ratios to baselines.
"""

import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("threadpoolctl")

import rvq_np

from . import peers, problems
from .threads import cores, fixed_threads

# From SWIG's types, when Faiss is imported on Python 3.12 and later; not from rvq_np.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .*[Ss]wig:DeprecationWarning")

PROBLEMS = {
    "batch": problems.BATCH._replace(rows=4096),
    "frame": problems.FRAME,
    "narrow": problems.NARROW._replace(rows=4096),
}
ROUNDS = 3


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request):
    if request.param > cores():
        pytest.skip(f"{cores()} cores")
    with fixed_threads(request.param):
        yield request.param


@pytest.mark.parametrize("size", PROBLEMS)
@pytest.mark.parametrize("name", peers.IMPLEMENTATIONS)
def test_encode(benchmark, name, size, threads):
    problem = PROBLEMS[size]
    x, codebooks = problem.data()
    try:
        implementation = peers.IMPLEMENTATIONS[name](codebooks)
    except ImportError as error:
        pytest.skip(str(error))
    peers.agreement(implementation, x, rvq_np.encode(x, codebooks))
    benchmark.group = f"encode, {problem.label}, threads={threads}"
    iterations = 30 if problem.rows == 1 else 1
    benchmark.pedantic(implementation.run, (x,), rounds=ROUNDS, iterations=iterations)
    if benchmark.enabled:
        each = benchmark.stats.stats.median
        benchmark.extra_info["vectors_per_second"] = problem.rows / each
        benchmark.extra_info["gflops"] = problem.flops / each / 1e9


def test_sgemm(benchmark, threads):
    """The roofline the others are measured against."""
    sgemm = peers.Sgemm()
    benchmark.group = f"sgemm, threads={threads}"
    benchmark.pedantic(sgemm, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.enabled:
        benchmark.extra_info["gflops"] = sgemm.flops / benchmark.stats.stats.median / 1e9
