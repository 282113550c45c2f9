"""Quantizers made of several, and stages with strides: what they mean, on every path."""

import pickle

import array_api_strict
import numpy as np
import pytest
from helpers import paths, quantizers, regret
from hypothesis import given

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Normalized, Parallel, Projected, Stage
from rvq_np.codec import core, tally
from rvq_np.errors import (
    BackendError,
    CodeRangeError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    ShapeError,
)


def tiny_blocks():
    return paths.patched((core, "NUMBERS", 1))


def in_array_api(device):
    """Return encode and decode through array-api-strict; what comes back lives on the device."""
    xp, where = array_api_strict, array_api_strict.Device(device)

    def there(array):
        return xp.asarray(np.asarray(array), device=where)

    def back(result):
        if isinstance(result, list):
            return [back(each) for each in result]
        assert result.device == where
        return np.from_dlpack(result)

    def decode(codes, quantizer):
        codes = [there(each) for each in codes] if isinstance(codes, list) else there(codes)
        return back(rvq_np.decode(codes, quantizer))

    return {"encode": lambda x, q: back(rvq_np.encode(there(x), q)), "decode": decode}


WAYS = {
    "compiled": paths.inside(),
    "tiny tiles": paths.inside(paths.tiny_tiles, tiny_blocks),
    "plain NumPy": paths.inside(paths.without_numba),
    "plain NumPy in small blocks": paths.inside(
        paths.without_numba, paths.small_blocks, tiny_blocks
    ),
    "array API": in_array_api("CPU_DEVICE"),
    "array API, another device": in_array_api("device1"),
    "array API without float64": in_array_api("no_float64"),
}
ways = pytest.mark.parametrize("way", WAYS)


def agrees(way, x, quantizer):
    """Both directions are what they mean, for all stages and for every prefix of them."""
    frames = [[float(n) for n in row] for row in x]
    expected = quantizers.encode(frames, quantizer)
    codes = WAYS[way]["encode"](x, quantizer)
    assert [stage.tolist() for stage in codes] == expected
    assert all(stage.dtype == np.int32 for stage in codes)
    strided = quantizer.block > 1
    assert isinstance(codes, list) == strided
    for n in range(1 if strided else 0, quantizer.n_q + 1):
        some = codes[:n]
        decoded = WAYS[way]["decode"](some, quantizer)
        np.testing.assert_array_equal(
            decoded.reshape(len(x), quantizer.dim),
            np.float32(quantizers.decode(expected[:n], quantizer, len(x))).reshape(decoded.shape),
        )
        assert decoded.dtype == np.float32
        if n:
            same = WAYS[way]["encode"](x, quantizer[:n])
            assert [stage.tolist() for stage in same] == expected[:n]


@ways
@given(case=quantizers.cases())
def test_codes_and_vectors_are_what_they_mean(way, case):
    agrees(way, *case)


@ways
@given(case=quantizers.cases(strides=(1, 2, 4)))
def test_stages_may_share_codes_among_frames(way, case):
    agrees(way, *case)


@given(case=quantizers.cases(strides=(1, 3)))
def test_strides_need_be_no_powers_of_two(case):
    agrees("compiled", *case)


@given(case=quantizers.cases())
def test_n_q_is_a_prefix(case):
    x, quantizer = case
    codes = rvq_np.encode(x, quantizer)
    for n in range(1, quantizer.n_q + 1):
        np.testing.assert_array_equal(rvq_np.encode(x, quantizer, n), codes[:n])
        np.testing.assert_array_equal(
            rvq_np.decode(codes[:n], quantizer[:n]), rvq_np.decode(codes[:n], quantizer)
        )


@given(case=quantizers.cases())
def test_out_takes_what_is_returned(case):
    x, quantizer = case
    codes, vectors = np.full((quantizer.n_q, len(x)), -1, np.int32), np.full_like(x, 7)
    assert rvq_np.encode(x, quantizer, out=codes) is codes
    np.testing.assert_array_equal(codes, rvq_np.encode(x, quantizer))
    assert rvq_np.decode(codes, quantizer, out=vectors) is vectors
    np.testing.assert_array_equal(vectors, rvq_np.decode(codes, quantizer))


@given(quantizer=quantizers.quantizers(strides=(1, 2)))
def test_sizes_and_names_follow_the_stages(quantizer):
    assert len(quantizer) == quantizer.n_q == len(quantizer.sizes) == len(list(quantizer))
    assert quantizer.sizes == tuple(stage.size for stage in quantizer)
    assert quantizer.strides == tuple(stage.stride for stage in quantizer)
    assert repr(quantizer).startswith(type(quantizer).__name__)
    prints = {quantizer[:n].fingerprint for n in range(1, quantizer.n_q + 1)}
    assert len(prints) == quantizer.n_q
    again = pickle.loads(pickle.dumps(quantizer))
    assert again.fingerprint == quantizer.fingerprint


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def between(rng, dim, width, n_q=2, size=9):
    return Projected(
        normal(rng, n_q, size, width),
        Linear(normal(rng, width, dim) / dim**0.5, normal(rng, width)),
        Linear(normal(rng, dim, width) / width**0.5, normal(rng, dim)),
    )


def test_how_quantizers_are_composed_is_in_the_fingerprint(rng):
    books, more = Codebooks(normal(rng, 2, 5, 4)), Codebooks(normal(rng, 2, 5, 4))
    eye, none = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
    stages = books.stages
    each = [
        books, Projected(books, Linear(eye, none), Linear(eye, none)),
        Projected(books, Linear(eye, none), Linear(eye, none + 1)),
        Projected(books, Linear(eye, none), Linear(2 * eye, none)),
        Parallel([books]), Parallel([books, more]), Parallel([more, books]),
        Grouped([books]), Grouped([books, more]), Grouped([books, more])[:3],
        Codebooks([Stage(one.codebook, stride=2) for one in stages]),
        Codebooks([Stage(one.codebook, stride=4) for one in stages]),
        Codebooks([Stage(one.codebook, metric="cosine") for one in stages]),
        Normalized(stages), Normalized(stages)[:1], Parallel([books[:1], books[1:]]),
    ]  # fmt: skip
    assert len({one.fingerprint for one in each}) == len(each)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 5, 6), (0, 6), (2, 0, 6)])
def test_shapes_and_types_are_kept(shape, dtype, rng):
    for quantizer in (
        between(rng, 6, 3), Parallel([between(rng, 6, 3), normal(rng, 1, 4, 6)]),
        Grouped([normal(rng, 2, 4, 4), between(rng, 2, 3)]),
        Normalized([normal(rng, 1, 4, 6), normal(rng, 1, 3, 6)]),
    ):  # fmt: skip
        x = rng.standard_normal(shape).astype(dtype)
        codes = rvq_np.encode(x, quantizer)
        assert codes.shape == (quantizer.n_q, *shape[:-1])
        assert codes.dtype == np.int32
        decoded = rvq_np.decode(codes, quantizer)
        assert decoded.shape == shape
        assert decoded.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_means_are_those_of_the_wider_type(dtype, rng):
    """A half is widened before frames are added: sums of 40000 and more are no halves."""
    codewords = np.float32([[30000.0], [40000.0], [60000.0]])
    quantizer = Codebooks([Stage(codewords, stride=2), Stage(codewords / 1000)])
    x = np.array([[40000], [40000], [60000], [58000]]).astype(dtype)
    codes = rvq_np.encode(x, quantizer)
    assert codes[0].tolist() == [1, 2]


def test_means_are_searched_by_the_metric_of_their_stage(rng):
    """Lengths of codewords differ: by distance there would be other codes."""
    codewords = normal(rng, 20, 4) * rng.choice([0.2, 1, 8], (20, 1)).astype(np.float32)
    quantizer = Codebooks([Stage(codewords, metric="cosine", stride=2)])
    x = normal(rng, 300, 4)
    means = (x[::2] + x[1::2]) / 2
    codes = rvq_np.encode(x, quantizer)
    regret.assert_nearest(x, codes, quantizer)
    assert (rvq_np.encode(means, codewords[None]) != codes[0]).mean() > 0.1


def test_a_mean_is_divided_once():
    """Times a third it would be another number, and the codeword beside it the nearest."""
    sums = np.float32([n for n in range(1, 60) if np.float32(n) / 3 != n * np.float32(1 / 3)])
    assert len(sums) > 5
    for total in sums:
        codewords = np.float32([[total * np.float32(1 / 3)], [total / np.float32(3)]])
        frames = np.float32([[total], [0], [0]])
        assert rvq_np.encode(frames, Codebooks([Stage(codewords, stride=3)]))[0].tolist() == [1]


def test_a_mean_is_a_sum_before_it_is_divided(rng):
    """The sum of thirds is another number, and the codeword beside it the nearest."""
    frames = normal(rng, 500, 3, 1)
    mean = (frames[:, 0] + frames[:, 1] + frames[:, 2]) / np.float32(3)
    third = frames / np.float32(3)
    other = third[:, 0] + third[:, 1] + third[:, 2]
    apart = np.flatnonzero(mean[:, 0] != other[:, 0])[:20]
    assert len(apart) == 20
    for n in apart:
        codewords = np.stack([other[n], mean[n]])
        assert rvq_np.encode(frames[n], Codebooks([Stage(codewords, stride=3)]))[0].tolist() == [1]


def test_float64_is_kept_where_there_is_any(rng):
    wide = Codebooks([Stage(rng.standard_normal((9, 3)), stride=2), Stage(np.ones((2, 3)))])
    x = rng.standard_normal((4, 3))
    assert rvq_np.decode(rvq_np.encode(x, wide), wide).dtype == np.float64
    # What float32 takes for the same vector.
    near = Codebooks([Stage(np.array([[1.0], [1.0 + 1e-12]]), stride=2)])
    x = np.array([[1.0 + 1e-12]] * 2)
    assert rvq_np.encode(x, near)[0].tolist() == [1]
    maps = Linear(np.eye(1), np.zeros(1)), Linear(np.eye(1), np.zeros(1))
    assert rvq_np.encode(x, Projected(near.alone[0], *maps)).tolist() == [[1, 1]]


def test_a_map_is_rounded_once_whatever_rows_are_beside(rng):
    quantizer = between(rng, 70, 45, n_q=1, size=200)
    x = normal(rng, 300, 70)
    whole = quantizer.into(x)[0]
    wide = x.astype(np.float64) @ quantizer.project_in.weight.T.astype(np.float64)
    wide += quantizer.project_in.bias
    np.testing.assert_allclose(whole, wide, rtol=6e-8, atol=1e-12)
    for n in (0, 1, 7, 299):
        np.testing.assert_array_equal(quantizer.into(x[n : n + 1])[0][0], whole[n])
    with paths.threads(2):
        np.testing.assert_array_equal(quantizer.into(x)[0], whole)


def test_a_beam_finds_no_worse_codes_of_each_part(rng):
    quantizer = Grouped([normal(rng, 3, 8, 4), normal(rng, 3, 8, 5)])
    x = normal(rng, 200, 9)
    errors = [
        np.square(rvq_np.decode(rvq_np.encode(x, quantizer, beam_size=n), quantizer) - x).sum()
        for n in (1, 8)
    ]
    assert errors[1] < 0.99 * errors[0]


def test_memory_does_not_grow_with_the_rows(rng):
    quantizer = Parallel([between(rng, 64, 32), between(rng, 64, 32)])
    x = normal(rng, 60000, 64)
    rvq_np.encode(x[:20000], quantizer)
    with paths.traced_memory() as peak:
        codes = rvq_np.encode(x, quantizer)
    assert peak[0] - 2 * codes.nbytes < 32 << 20


def test_a_projected_quantizer_is_right_up_to_rounding(rng):
    """Against the map and the search apart, in float64, with the judge of `regret`."""
    quantizer = between(rng, 12, 7, n_q=3, size=30)
    x = normal(rng, 200, 12)
    mapped = (x @ quantizer.project_in.weight.T.astype(np.float64)) + quantizer.project_in.bias
    codes = rvq_np.encode(x, quantizer)
    regret.assert_nearest(mapped.astype(np.float32), codes, quantizer.parts[0])
    inner = rvq_np.decode(codes, quantizer.parts[0]).astype(np.float64)
    expected = (
        inner @ quantizer.project_out.weight.T.astype(np.float64) + quantizer.project_out.bias
    )
    np.testing.assert_allclose(rvq_np.decode(codes, quantizer), expected, rtol=1e-6, atol=1e-6)


STRIDED = Codebooks([Stage(np.eye(2, dtype=np.float32), stride=4),
                     Stage(np.eye(2, dtype=np.float32), stride=2)])  # fmt: skip
PLAIN = np.ones((2, 3, 2), np.float32)
LINEAR = Linear(np.ones((2, 3), np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Projected(PLAIN, LINEAR, LINEAR), ShapeError, r"Projected: .*\(2, 3\).*expected"),
        (lambda: Parallel([]), ShapeError, "Parallel: got no part"),
        (lambda: Grouped(3), ShapeError, "Grouped: got a int; expected a list"),
        (lambda: Grouped(Codebooks(PLAIN)), ShapeError, "Grouped: got a Codebooks; expected a"),
        (lambda: Parallel([PLAIN, PLAIN[..., :1]]), ShapeError, r"lengths \[1, 2\]; expected one"),
        (lambda: Parallel([PLAIN, PLAIN])[1:], LevelsError, r"slice\(1, None, None\) is not the"),
        (lambda: Parallel([PLAIN, PLAIN])[:0], LevelsError, "is not the first of its 4 stages"),
        (lambda: Parallel([PLAIN, PLAIN])[4], IndexError, "Parallel: there is no stage 4"),
        (lambda: Parallel([PLAIN, PLAIN], 5), LevelsError, "Parallel: n_q is 5; expected 1 to 4"),
        (lambda: Grouped([PLAIN], 1.5), LevelsError, "Grouped: n_q is 1.5; expected a whole"),
        (lambda: Projected(PLAIN, np.ones((2, 3)), LINEAR), ParameterError,
         "Projected: project_in is a ndarray; expected a Linear"),
        (lambda: Stage(PLAIN[0], stride=0), ParameterError, "stride is 0; expected a whole number"),
        (lambda: Stage(PLAIN[0], stride=1.5), ParameterError, "stride is 1.5"),
        (lambda: rvq_np.encode(np.ones((6, 2)), STRIDED), ShapeError, r"\(6, 2\).*multiple of 4"),
        (lambda: rvq_np.encode(np.ones(2), STRIDED), ShapeError, r"expected \(\.\.\., T, 2\)"),
        (lambda: rvq_np.encode(np.ones((4, 2)), STRIDED, beam_size=2), ParameterError, "beam_size"),
        (lambda: rvq_np.encode(np.ones((4, 2)), STRIDED, out=np.ones((2, 4), np.int32)),
         ParameterError, "out= are not supported"),
        (lambda: rvq_np.encode(np.full((4, 2), np.nan), STRIDED), NonFiniteError, "holds nan"),
        (lambda: rvq_np.encode(np.full((4, 2), 1e38, np.float32), STRIDED), NonFiniteError, "over"),
        (lambda: rvq_np.encode(np.ones((4, 2), int), Grouped([PLAIN])), DtypeError, "floating"),
        (lambda: rvq_np.decode(np.ones((2, 4), int), STRIDED), LevelsError, "a ndarray; expected"),
        (lambda: rvq_np.decode([], STRIDED), LevelsError, "a list; expected a list of 1 to 2"),
        (lambda: rvq_np.decode([np.ones(1, int)] * 3, STRIDED), LevelsError, "3 stages; expected"),
        (lambda: rvq_np.decode([np.ones(1, int), np.ones(3, int)], STRIDED), ShapeError,
         r"stage 1 have shape \(3,\), its stride is 2; expected"),
        (lambda: rvq_np.decode([np.ones(1)], STRIDED), DtypeError, "stage 0 have dtype float64"),
        (lambda: rvq_np.decode([np.array(1)], STRIDED), ShapeError, "stage 0 have shape"),
        (lambda: rvq_np.decode([[1]], STRIDED), BackendError, "list"),
        (lambda: rvq_np.decode([np.array([0]), np.array([1, 2])], STRIDED), CodeRangeError,
         r"code 2 at \(1, 1\) names no codeword; expected 0 to 1 at stage 1"),
        (lambda: rvq_np.decode([np.array([0])], STRIDED, out=np.ones((4, 2))), ParameterError,
         "out= is not supported"),
        (lambda: rvq_np.decode(np.full((3, 1), 3), Parallel([PLAIN, PLAIN])), CodeRangeError,
         r"code 3 at \(0, 0\)"),
        (lambda: tally(np.ones((4, 2)), np.zeros((2, 4), int), STRIDED), ParameterError, "strides"),
        (lambda: tally(np.ones((4, 2)), np.zeros((2, 4), int), Grouped([PLAIN])), ParameterError,
         "tally: got Grouped"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_vectors_that_a_map_would_overflow_are_refused():
    large = Linear(np.full((2, 3), 1e30, np.float32), np.zeros(2, np.float32))
    back = Linear(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    quantizer = Projected(PLAIN, large, back)
    assert rvq_np.encode(np.full((1, 3), 1e7, np.float32), quantizer).shape == (2, 1)
    with pytest.raises(NonFiniteError, match="overflow"):
        rvq_np.encode(np.full((1, 3), 1e9, np.float32), quantizer)
    whole = rvq_np.encode(np.full((1, 3), 1e9), quantizer)  # float64 holds it
    assert whole.shape == (2, 1)
