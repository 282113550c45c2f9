"""`QuantizedResult` and `Usage`: what a user can do with what comes back."""

import numpy as np
import pytest

from rvq_np import QuantizedResult, ResidualVectorQuantizer, train
from rvq_np.train import Usage


def result(rng, **options):
    rvq = ResidualVectorQuantizer(4, 4, n_q=2, bins=8, kmeans_init=False, rng=0, **options)
    return rvq(rng.standard_normal((3, 4, 5)).astype(np.float32), 50)


def test_results_compare_by_their_arrays(rng):
    """`==` raised ValueError: the truth of an array is ambiguous."""
    found = result(rng)
    same = QuantizedResult(*(np.array(each) for each in found))
    assert found == found
    assert found == same
    for n, each in enumerate(found):
        other = list(found)
        other[n] = np.array(each) + np.ones((), each.dtype)
        assert found != QuantizedResult(*other)
    assert found != QuantizedResult(*found, np.float32(0))
    assert found != tuple(found)
    assert found != QuantizedResult(found.quantized, found.codes[:1], *found[2:])
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


def test_results_unpack_like_the_tuple_of_espnet(rng):
    found = result(rng)
    quantized, codes, bandwidth, penalty = found
    assert (quantized is found.quantized, codes is found[1]) == (True, True)
    assert (bandwidth, penalty) == (found.bandwidth, found.penalty)


def test_usage_has_names(rng):
    rvq = ResidualVectorQuantizer(4, 4, n_q=2, bins=8, rng=0)
    rvq.fit(rng.standard_normal((100, 4)).astype(np.float32), iterations=1)
    for each in rvq.usage:
        utilisation, perplexity = each
        assert isinstance(each, Usage)
        assert (each.utilisation, each.perplexity) == (utilisation, perplexity)
    assert train.usage(np.zeros(3)) == (0.0, 0.0)
