"""Encode under pytest-benchmark: ``pytest bench --benchmark-only``.

The question: how many vectors a second, beside the rivals, at three sizes and fixed threads? The
check that a contestant computes the same codes also warms it, so no compilation is timed. Smaller
than ``python -m bench``, and contestants do not take turns: compare versions of rvq_np with it,
take ratios to rivals from there.
"""

import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("threadpoolctl")

import rvq_np

from . import peers, problems
from .threads import cores, fixed_threads

# SWIG's types, as Faiss is imported on Python 3.12 and later; nothing of ours.
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
@pytest.mark.parametrize("name", peers.CONTESTANTS)
def test_encode(benchmark, name, size, threads):
    problem = PROBLEMS[size]
    x, codebooks = problem.data()
    try:
        contestant = peers.CONTESTANTS[name](codebooks)
    except ImportError as error:
        pytest.skip(str(error))
    peers.agreement(contestant, x, rvq_np.encode(x, codebooks))
    benchmark.group = f"encode, {problem.label}, threads={threads}"
    iterations = 30 if problem.rows == 1 else 1
    benchmark.pedantic(contestant.run, (x,), rounds=ROUNDS, iterations=iterations)
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
