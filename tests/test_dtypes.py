"""Types of numbers: byte order never matters, bfloat16 is served, a long double is refused."""

import io

import ml_dtypes
import numpy as np
import pytest

import rvq_np
from rvq_np import (
    Codebooks,
    Grouped,
    Linear,
    Normalized,
    Parallel,
    Projected,
    ResidualVectorQuantizer,
    Stage,
    StreamEncoder,
    bitstream,
    codec,
    train,
)
from rvq_np.errors import DtypeError, StateError

RNG = np.random.default_rng(5)
BOOKS = RNG.standard_normal((3, 12, 6)).astype(np.float32)
CODES = RNG.integers(0, 12, (3, 40)).astype(np.int32)
MAPS = (
    Linear(RNG.standard_normal((4, 6)).astype(np.float32), np.ones(4, np.float32)),
    Linear(RNG.standard_normal((6, 4)).astype(np.float32), np.ones(6, np.float32)),
)
STRIDED = Codebooks([Stage(BOOKS[0], stride=4), Stage(BOOKS[1], stride=2), Stage(BOOKS[2])])


def fitted(x, **options):
    return ResidualVectorQuantizer(6, 6, 2, 8, kmeans_iters=3, rng=0).fit(x, **options)


def trained(x):
    rvq = ResidualVectorQuantizer(6, 6, 2, 8, kmeans_iters=3, rng=0)
    result = rvq(x, 50)
    return [*result, *rvq.state_dict().values()]


def streamed(x):
    stream = StreamEncoder(STRIDED)
    return [code for part in (x[:10], x[10:]) for code in stream.push(part)]


# What takes vectors (40, 6): each returns an array, or a list of them.
VECTORS = {
    "encode": lambda x: rvq_np.encode(x, BOOKS),
    "encode, codebooks in float64": lambda x: rvq_np.encode(x, BOOKS.astype(np.float64)),
    "encode, several axes": lambda x: rvq_np.encode(x.reshape(4, 10, 6), BOOKS),
    "encode, every other number": lambda x: rvq_np.encode(x[::2, ::-1], BOOKS),
    "encode, beams": lambda x: rvq_np.encode(x, BOOKS, beam_size=4),
    "encode, into out": lambda x: rvq_np.encode(x, BOOKS, out=np.empty((3, 40), np.int32)),
    "encode, strides": lambda x: rvq_np.encode(x, STRIDED),
    "encode, maps": lambda x: rvq_np.encode(x, Codebooks([Stage(BOOKS[0, :, :4], *MAPS)] * 2)),
    "encode, cosine": lambda x: rvq_np.encode(x, Codebooks([Stage(BOOKS[0], metric="cosine")])),
    "encode, projected": lambda x: rvq_np.encode(x, Projected(BOOKS[..., :4], *MAPS)),
    "encode, parallel": lambda x: rvq_np.encode(x, Parallel([BOOKS[:1], STRIDED])),
    "encode, normalized": lambda x: rvq_np.encode(x, Normalized([BOOKS[:1], BOOKS[1:2]])),
    "encode, grouped": lambda x: rvq_np.encode(x, Grouped([BOOKS[..., :2], BOOKS[..., 2:]])),
    "tally": lambda x: [a for each in codec.tally(x, CODES, BOOKS) for a in each],
    "stream": streamed,
    "class": trained,
    "class, encode": lambda x: fitted(drawn((40, 6), "f4")).encode(x.reshape(4, 6, 10), 1),
    "class, fit": lambda x: list(fitted(x).state_dict().values()),
    "class, fit (B, D, T)": lambda x: list(fitted(x.reshape(4, 6, 10)).state_dict().values()),
    "kmeans": lambda x: list(train.kmeans(x, 5, 3, 0).made_of()[:3]),
    "kmeans, start": lambda x: list(train.kmeans(x, 5, 3, 0, start=x[:5]).made_of()[:3]),
}  # fmt: skip
# What takes the numbers of a model.
MODELS = {
    "codebooks": lambda b: [rvq_np.decode(CODES, b), rvq_np.encode(BOOKS[0], b)],
    "stage": lambda b: [Stage(b[0]).codebook],
    "linear": lambda b: [*Linear(b[0], b[0, :, 0]).made_of()],
    "state": lambda b: [*train.CodebookState(b[0], b[0], abs(b[0, :, 0]), True).made_of()[:3]],
    "projected": lambda b: [
        rvq_np.decode(CODES, Projected(b[..., :4], Linear(b[0, :4], b[0, :4, 0]),
                                       Linear(b[0, :6, :4], b[0, :6, 0])))],
}  # fmt: skip
each_use = pytest.mark.parametrize(
    ("use", "shape"),
    [(use, (40, 6)) for use in VECTORS.values()] + [(use, BOOKS.shape) for use in MODELS.values()],
    ids=[*VECTORS, *MODELS],
)


def results(use, x):
    found = use(x)
    return found if isinstance(found, list) else [found]


def same(use, ours, theirs):
    for one, other in zip(results(use, ours), results(use, theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def drawn(shape, dtype):
    return np.random.default_rng(8).standard_normal(shape).astype(dtype)


@each_use
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_byte_order_never_matters(use, shape, dtype):
    x = drawn(shape, dtype)
    foreign = x.astype(x.dtype.newbyteorder("S"))
    assert not foreign.dtype.isnative
    same(use, foreign, x)


@pytest.mark.parametrize("quantizer", [BOOKS, STRIDED, BOOKS.astype(np.float64)])
def test_vectors_beyond_float32_are_served_in_any_byte_order(quantizer):
    """1e39 fits float64 only: its residuals are computed in float64."""
    x = drawn((40, 6), "f8") * 1e39
    expected, found = (rvq_np.encode(each, quantizer) for each in (x, x.astype(">f8")))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "i8"])
@pytest.mark.parametrize("strided", [False, True])
def test_codes_of_any_byte_order_mean_the_same(dtype, strided):
    """Decoded, counted, written to a file, and by the class."""
    codes = CODES.astype(dtype)
    foreign = codes.astype(codes.dtype.newbyteorder("S"))
    if strided:
        given = [
            list(each)
            for each in (
                (codes[0, :10], codes[1, :20], codes[2]),
                (foreign[0, :10], foreign[1, :20], foreign[2]),
            )
        ]
        np.testing.assert_array_equal(*(rvq_np.decode(each, STRIDED) for each in given))
        return
    x, rvq = drawn((40, 6), "f4"), ResidualVectorQuantizer(6, 6, 3, 12, kmeans_init=False, rng=0)
    np.testing.assert_array_equal(rvq_np.decode(foreign, BOOKS), rvq_np.decode(codes, BOOKS))
    np.testing.assert_array_equal(rvq.decode(foreign), rvq.decode(codes))
    np.testing.assert_array_equal(
        codec.tally(x, foreign, BOOKS)[1], codec.tally(x, codes, BOOKS)[1]
    )
    file = io.BytesIO()
    bitstream.write(file, foreign, sizes=(12,) * 3)
    np.testing.assert_array_equal(bitstream.read(file).codes, codes)


def test_a_state_in_any_byte_order_is_the_same_state():
    state = fitted(drawn((40, 6), "f4")).state_dict()
    rvq = ResidualVectorQuantizer(6, 6, 2, 8)
    rvq.load_state_dict({name: each.astype(">f8") for name, each in state.items()})
    for name, each in rvq.state_dict().items():
        np.testing.assert_array_equal(each, state[name])
    assert rvq_np.warmup(np.dtype(">f4")) == rvq_np.warmup(np.dtype("<f4"))


@each_use
def test_bfloat16_is_taken_for_the_numbers_it_holds(use, shape):
    narrow = drawn(shape, ml_dtypes.bfloat16)
    for one, other in zip(
        results(use, narrow), results(use, narrow.astype(np.float32)), strict=True
    ):
        if one.dtype == ml_dtypes.bfloat16:  # vectors come back in the type of the input
            other = other.astype(ml_dtypes.bfloat16)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_state_of_bfloat16_is_served():
    state = fitted(drawn((40, 6), "f4")).state_dict()
    rvq = ResidualVectorQuantizer(6, 6, 2, 8)
    narrow = {name: each.astype(ml_dtypes.bfloat16) for name, each in state.items()}
    rvq.load_state_dict(narrow)
    for name, each in rvq.state_dict().items():
        np.testing.assert_array_equal(each, narrow[name].astype(np.float32))


@each_use
@pytest.mark.parametrize("dtype", [np.longdouble, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn])
def test_other_floats_are_refused_by_name(use, shape, dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("a long double is a float64 here")
    with pytest.raises(DtypeError, match=f"dtype {np.dtype(dtype)}|start are no numbers"):
        use(drawn(shape, dtype))


def test_a_state_of_long_doubles_is_refused():
    if np.dtype(np.longdouble) == np.float64:
        pytest.skip("a long double is a float64 here")
    rvq = ResidualVectorQuantizer(6, 6, 2, 8)
    state = {name: each.astype(np.longdouble) for name, each in rvq.state_dict().items()}
    with pytest.raises(StateError, match=r"inited has dtype float\d+, expected float32"):
        rvq.load_state_dict(state)
