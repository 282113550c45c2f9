"""Settings all tests share: reproducible Hypothesis runs, no deadline, what runs by default."""

import collections
import os
import time

# Tests run in parallel already; those that are about threads ask for them (`helpers.paths`).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("RVQ_NP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from rvq_np.kernels import dispatch, tables
from rvq_np.kernels.compiled import engine as compiled

# Or NumPy would serve the first small calls, that is, most tests.
assert dispatch.load() is compiled

settings.register_profile(
    "rvq_np",
    deadline=None,
    derandomize=True,  # a red run is red again; other seeds: --hypothesis-profile=search
    max_examples=60,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.register_profile(  # of `python -m faults`, to which any failing example will do
    "faults", settings.get_profile("rvq_np"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("rvq_np")

MANY = 500  # tests that are worth compiling all kernels first
PATIENCE = 300  # seconds to wait for another worker's kernels


def pytest_configure(config):
    """Leave slow tests out, unless ``-m`` or the name of a file asks for them."""
    if not config.option.markexpr and not any(".py" in each for each in config.args):
        config.option.markexpr = "not slow"


@pytest.fixture(scope="session", autouse=True)
def _kernels_compiled_once(request, tmp_path_factory):
    """Share the compiling among workers: without this, each would compile every kernel.

    One compiles for float32, another for float64; then all find both in Numba's cache.
    """
    worker = getattr(request.config, "workerinput", {"workercount": 1})
    if worker["workercount"] < 2 or len(request.session.items) < MANY:
        return
    shared = tmp_path_factory.getbasetemp().parent
    dtypes = ("float32", "float64")
    mine = int(worker["workerid"].removeprefix("gw"))
    if mine < len(dtypes):
        dispatch.warm(np.dtype(dtypes[mine]))
        (shared / f"compiled-{dtypes[mine]}").touch()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if all((shared / f"compiled-{dtype}").exists() for dtype in dtypes):
            return
        time.sleep(0.1)


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)


@pytest.fixture
def tables_made(monkeypatch):
    """Count the stages whose codewords are made ready for a search."""
    made = collections.Counter()
    real = tables.search_tables

    def counted(stage, *others):
        made[stage.fingerprint] += 1
        return real(stage, *others)

    monkeypatch.setattr(tables, "search_tables", counted)
    return made
