"""Settings all tests share: reproducible Hypothesis runs, no deadline on a shared machine."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from rvq_np.kernels import compiled, host

# Or NumPy would serve the first small calls, that is, most tests.
assert host.load() is compiled

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


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)
