"""Small quantizers of the class, and batches for them."""

import numpy as np

from rvq_np import ResidualVectorQuantizer

RATE = 50  # vectors per second


def small(**options):
    arguments = {"dimension": 6, "codebook_dim": 6, "n_q": 3, "bins": 8, "rng": 0}
    return ResidualVectorQuantizer(**{**arguments, **options})


def trained(**options):
    rvq = small(**options)
    rvq(batch(seed=7, b=4, t=60), RATE)
    return rvq.eval()


def batch(seed=1, b=2, t=20, d=6, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((b, d, t)).astype(dtype)


def same_state(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one.keys() | other.keys())
