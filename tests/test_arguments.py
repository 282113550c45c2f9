"""Arguments that cannot be: named, before any work, in the name of the call that was made."""

import inspect
import io
import json
from decimal import Decimal
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest

import rvq_np
from rvq_np import (
    Codebooks,
    ResidualVectorQuantizer,
    StreamEncoder,
    bitstream,
    checkpoints,
    codec,
    export,
    semantic_ids,
    testing,
    train,
)
from rvq_np.config import Config
from rvq_np.errors import ParameterError, RvqError
from rvq_np.testing.batches import batch_drifts

X = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
BOOKS = Codebooks(X[:8].reshape(1, 8, 4))
CODES = rvq_np.encode(X, BOOKS)
STATE = train.kmeans(X, 4, 1, 0)
RNG = np.random.default_rng(0)


def rvq(**options):
    return ResidualVectorQuantizer(4, 4, n_q=1, bins=4, rng=0, **options)


def container():
    file = io.BytesIO()
    bitstream.write(file, CODES, sizes=(8,))
    return file


TALLY = {"counts": np.ones(4), "sums": np.ones((4, 4))}
CALLS = {
    "ema": (train.ema, {"state": STATE, **TALLY, "decay": 0.5, "epsilon": 1e-5}),
    "expire": (train.expire, {"state": STATE, "vectors": lambda n: np.ones((n, 4)),
                              "threshold": 2, "relative": 0.1}),
    "step": (train.step, {"states": [STATE], "decay": 0.5, "epsilon": 1e-5, "threshold": 2,
                          "draw": lambda stage, n: np.ones((n, 4)), "relative": None,
                          "counts": [np.ones(4)], "sums": [np.ones((4, 4))]}),
    "kmeans": (train.kmeans, {"x": X, "size": 4, "iterations": 1, "rng": 0, "epsilon": 1e-5,
                              "start": None}),
    "fit": (train.fit, {"x": X, "n_q": 1, "size": 4, "iterations": 1, "rng": 0, "epsilon": 1e-5,
                        "rows_per_codeword": None, "tolerance": 1e-4, "callback": None,
                        "checkpoint": None, "projections": None, "refine": False,
                        "start": None, "freeze": (), "hold": 0.9, "persist": None,
                        "spherical": False, "normalize_residuals": False}),
    "rvq.fit": (lambda **given: rvq().fit(**given),
                {"x": X, "iterations": 1, "rows_per_codeword": 9, "tolerance": 0, "callback": None,
                 "checkpoint": None, "progress": False, "refine": False, "start": None,
                 "freeze": (), "hold": 0.9, "persist": None, "spherical": False,
                 "normalize_residuals": False}),
    "rvq.freeze": (lambda stages: rvq(kmeans_init=False).freeze(stages), {"stages": [0]}),
    "rvq.encode": (lambda **given: rvq(kmeans_init=False).encode(**given),
                   {"x": X, "sample_rate": 50, "bandwidth": 1, "st": 0, "beam_size": 1,
                    "n_q": None}),
    "rvq": (lambda **given: rvq()(**given),
            {"x": X, "sample_rate": 50, "bandwidth": None, "mask": None, "n_q": 1}),
    "initialize": (train.initialize, {"states": [STATE], "x": X, "n_q": 1, "iterations": 1,
                                      "rng": 0, "projections": None, "epsilon": 1e-5}),
    "draw_stages": (train.draw_stages, {"groups": 3, "n_q": 2, "dropout": 0.5, "rng": RNG}),
    "sample_rows": (train.sample_rows, {"n_rows": 3, "count": 2, "rng": RNG}),
    "fresh": (train.fresh, {"config": Config(4, 4, 1, 4), "rng": RNG}),
    "from_state_dict": (train.from_state_dict, {"given": train.state_dict([STATE]),
                                                "config": Config(4, 4, 1, 4)}),
    "AllReduce": (train.AllReduce, {"function": np.copy, "rank": 0, "size": 1}),
    "encode": (codec.encode, {"x": X, "codebooks": BOOKS, "n_q": 1, "beam_size": 1, "out": None,
                              "threads": None}),
    "decode": (codec.decode, {"codes": CODES, "codebooks": BOOKS, "out": None, "threads": None}),
    "tally": (codec.tally, {"x": X, "codes": CODES, "codebooks": BOOKS, "exact": False}),
    "warmup": (lambda dtype: codec.warmup(dtype), {"dtype": np.float32}),
    "StreamEncoder": (StreamEncoder, {"codebooks": BOOKS, "n_q": 1, "beam_size": 1, "threads": 1}),
    "write": (bitstream.write, {"path": io.BytesIO(), "codes": CODES, "sizes": (8,),
                                "frame_rate": 75, "codebooks": None, "strides": None,
                                "chunk_frames": None, "compress": False}),
    "read": (lambda **given: bitstream.read(**{"path": container(), **given}),
             {"n_q": 1, "start": 0, "stop": 10, "codebooks": None}),
    "Reader.codes": (lambda stage: bitstream.Reader(container()).codes(stage), {"stage": 0}),
    "append": (lambda **given: bitstream.append(**{"target": container(), **given}),
               {"codes": CODES, "chunk_frames": None, "compress": False}),
    "state_dict": (checkpoints.state_dict, {"quantizer": BOOKS, "family": "encodec",
                                            "counts": None}),
    "rvq.load_state_dict": (lambda state: rvq().load_state_dict(state),
                            {"state": rvq().state_dict()}),
    "rvq.decode": (lambda **given: rvq(kmeans_init=False).decode(**given),
                   {"codes": CODES % 4, "st": 0, "n_q": 1}),
    "ResidualVectorQuantizer": (ResidualVectorQuantizer, {
        "dimension": 4, "codebook_dim": 4, "n_q": 1, "bins": 4, "decay": 0.9, "kmeans_init": True,
        "kmeans_iters": 1, "threshold_ema_dead_code": 2, "quantizer_dropout": False, "rng": 0,
        "commitment_weight": 1, "epsilon": 1e-5, "relative_threshold": None, "all_reduce": None,
    }),
    "rvq_tests": (testing.rvq_tests, {"encode": print, "decode": print, "dtype": np.float32,
                                      "tolerance": 1.0, "range": None, "dropped": False}),
    "backend_tests": (testing.backend_tests, {"put": print, "get": print, "device": print,
                                              "dtypes": ("float32",), "later": False}),
    "container_tests": (testing.container_tests, {"write": print, "read": print, "drops": True,
                                                  "error": ValueError}),
    "gradient_tests": (testing.gradient_tests, {"value_and_gradients": print, "tolerance": None,
                                                "codebook_loss_gradient": None,
                                                "dtype": np.float64}),
    "batch_drifts": (batch_drifts, {
        "encode": lambda batch: [np.zeros((1, len(each)), int) for each in batch],
        "signals": [X[0], X[1, :2]], "latents": None, "quantizer": None, "variants": None,
    }),
    "batch_invariance_tests": (testing.batch_invariance_tests, {
        "encode": print, "signals": [X[0], X[1, :2]], "latents": None, "quantizer": None,
        "variants": None, "tolerance": 0.1,
    }),
    "training_tests": (testing.training_tests, {"make": object, "dimension": 3, "masked": True}),
}  # fmt: skip
NOTHING = object()
PATHS = {  # beside what can be a path but names no file
    "load": checkpoints.load,
    "save": lambda path: checkpoints.save(path, BOOKS),
    "export.faiss": lambda path: export.faiss(path, BOOKS),
    "export.onnx": lambda path: export.onnx(path, BOOKS),
    "export.npz": lambda path: export.npz(path, BOOKS),
    "export.c_header": lambda path: export.c_header(path, BOOKS),
    "export.codes": lambda path: export.codes(path, np.zeros((2, 3), int), "candle"),
    "rvq.load": ResidualVectorQuantizer.load,
    "rvq.save": lambda path: rvq().save(path),
}
BAD = [-7, 1.5, [1], NOTHING, np.ones(3), float("nan"), (), {}]


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, (_, given) in CALLS.items() for name in given]
)
def test_no_argument_ends_in_an_error_that_was_not_raised_on_purpose(call, name):
    function, given = CALLS[call]
    function(**given)
    refused = 0
    for bad in BAD:
        try:
            function(**{**given, name: bad})
        except RvqError:
            refused += 1
    assert refused >= 3


@pytest.mark.parametrize("call", CALLS)
def test_the_table_of_calls_names_every_argument(call):
    function, given = CALLS[call]
    of = {"rvq.fit": ResidualVectorQuantizer.fit, "rvq.encode": ResidualVectorQuantizer.encode,
          "rvq.decode": ResidualVectorQuantizer.decode, "rvq": ResidualVectorQuantizer.forward,
          "read": bitstream.read, "append": bitstream.append}  # fmt: skip
    found = set(inspect.signature(of.get(call, function)).parameters)
    ours = {"same", "states", "projections"} if call == "from_state_dict" else set()
    assert found - set(given) - ours <= {"self", "given", "target", "path"}


@pytest.mark.parametrize("call", PATHS)
def test_what_is_no_path_is_refused_by_name(call):
    for bad in (-7, 1.5, None, True, [1], NOTHING, np.ones(3), float("nan"), (), {}):
        name = call.removeprefix("rvq.")
        with pytest.raises(ParameterError, match=rf"^{name}: path is .* the path"):
            PATHS[call](bad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checkpoints.load("a", 3), "load: family is 3; expected one of audiocraft, "),
        (lambda: checkpoints.load("a", part=3), "load: part is 3; expected a str"),
        (lambda: checkpoints.save("a", BOOKS, 3), "state_dict: family is 3; expected one of enc"),
        (lambda: checkpoints.state_dict(BOOKS, "encodec", counts="a"),
         "state_dict: counts is 'a'; expected one array of numbers a stage"),
        (lambda: rvq(kmeans_init="a"), "ResidualVectorQuantizer: kmeans_init is 'a'; expected Tr"),
        (lambda: testing.rvq_tests(encode=3, decode=print), "rvq_tests: encode is 3; expected a f"),
        (lambda: testing.rvq_tests(encode=print, decode=print, dtype="a"),
         "rvq_tests: dtype is 'a'; expected float32 or float64"),
        (lambda: testing.backend_tests(put=print, get=print, dtypes="float32"),
         "backend_tests: dtypes is 'float32'; expected a tuple of some of bfloat16, float16"),
        (lambda: testing.container_tests(write=print, read=print, error=3),
         "container_tests: error is 3; expected a class of exceptions"),
        (lambda: testing.training_tests(make=object, dimension=0),
         "training_tests: dimension is 0; expected a whole number >= 1"),
        (lambda: train.fit(X, 0, 4, 1, 0), "fit: n_q is 0; expected a whole number >= 1"),
        (lambda: train.fit(X, 1, 0, 1, 0), "fit: size is 0; expected a whole number from 1,"),
        (lambda: train.fit(X, 1, 4, -1, 0), "fit: iterations is -1; expected a whole number >= 0"),
        (lambda: rvq().fit(X, tolerance="a"), "fit: tolerance is 'a'; expected a finite number"),
        (lambda: rvq().fit(X, rows_per_codeword="a"), "fit: rows_per_codeword is 'a'; expected"),
        (lambda: rvq().fit(X, callback=3), "fit: callback is 3; expected a function"),
        (lambda: rvq().fit(X, checkpoint=3), "fit: checkpoint is 3; expected the path of a file"),
        (lambda: train.fit(X, 1, 4, 1, "a"), "fit: rng is 'a'"),
        (lambda: train.fit(X, 2, 4, 1, 0, projections=[None]), "fit: projections is a list of 1; "),
        (lambda: train.fit(X, 1, 4, 1, 0, projections=[3]), r"fit: projections\[0\] is a int; exp"),
        (lambda: train.kmeans(X, 4, "a", 0), "kmeans: iterations is 'a'; expected a whole number"),
        (lambda: train.ema(STATE, *TALLY.values(), decay=2),
         "ema: decay is 2; expected a finite number from 0 to 1"),
        (lambda: train.expire(STATE, 3, 1), "expire: vectors is 3; expected a function"),
        (lambda: train.expire(STATE, len, True, relative=-1), "expire: relative is -1; expected a"),
        (lambda: train.draw_stages(3, True, 0, RNG), "draw_stages: n_q is True; expected a whole"),
        (lambda: rvq().encode(X, -1), "encode: sample_rate is -1; expected a positive number"),
        (lambda: rvq().encode(X, 50, "a"), "encode: bandwidth is 'a'; expected kb/s from 0"),
        (lambda: rvq()(X, 0), "forward: sample_rate is 0; expected a positive number"),
        (lambda: rvq()(X, bandwidth=1),
         "forward: got bandwidth=1 and no sample_rate; expected both"),
        (lambda: rvq().encode(X, 50, 1, n_q=1),
         "encode: got bandwidth=1 and n_q=1; expected one of them"),
        (lambda: rvq().get_bandwidth_per_quantizer(0), "get_bandwidth_per_quantizer: sample_rate"),
        (lambda: rvq().get_num_quantizers_for_bandwidth(1, -1),
         "get_num_quantizers_for_bandwidth: bandwidth is -1"),
        (lambda: rvq(epsilon=-1), "ResidualVectorQuantizer: epsilon is -1"),
        (lambda: bitstream.Reader(3), "read: path is 3; expected a path or a binary file"),
        (lambda: bitstream.append(None, CODES), "append: target is None; expected a path or a bin"),
    ],
)  # fmt: skip
def test_messages_name_the_call_and_the_argument(call, message):
    with pytest.raises(ParameterError, match=message):
        call()


def test_nothing_is_done_before_all_arguments_are_known_to_be_good():
    """Not even a number is drawn."""
    quantizer = rvq()
    books, generator = quantizer.codebooks, quantizer._rng
    before = generator.bit_generator.state
    for bad in ({"tolerance": "a"}, {"callback": 3}, {"checkpoint": 3}, {"iterations": "a"}):
        with pytest.raises(ParameterError):
            quantizer.fit(X, **bad)
    assert generator.bit_generator.state == before
    assert quantizer.codebooks is books


def test_any_real_number_is_a_number():
    codes = rvq(kmeans_init=False).encode(X, 50, 0.1)
    for rate, spent in ((Fraction(50), Fraction(1, 10)), (np.array(50), np.float32(0.1))):
        np.testing.assert_array_equal(rvq(kmeans_init=False).encode(X, rate, spent), codes)
    states = train.fit(X, 1, 4, 2, 0, tolerance=0.5)
    for tolerance in (Fraction(1, 2), np.array(0.5), np.float16(0.5)):
        again = train.fit(X, np.int64(1), np.array(4), np.uint8(2), 0, tolerance=tolerance)
        assert again == states


class Scalar:
    """A scalar of a framework: a 0-d array of its own type, with a type that NumPy has not."""

    shape = ()

    def __init__(self, value, dtype):
        self.value, self.dtype = value, dtype

    def __float__(self):
        return float(self.value)

    def __index__(self):
        return int(self.value)

    def __bool__(self):
        return bool(self.value)

    def __repr__(self):
        return f"Scalar({self.value!r}, {self.dtype!r})"


KINDS = {
    "Fraction": lambda v: Fraction(v), "Decimal": lambda v: Decimal(v), "float": float,
    "float64": np.float64, "0-d array": lambda v: np.array(float(v)),
    "0-d array of objects": lambda v: np.array(Fraction(v)),
    "a framework's": lambda v: Scalar(v, "torch.float64"),
    "array API": lambda v: array_api_strict.asarray(float(v)),
    "longdouble": lambda v: np.longdouble(v), "float32": np.float32,
}  # fmt: skip
WHOLE = {
    "int64": np.int64, "uint8": np.uint8, "0-d array": lambda v: np.array(v, np.int16),
    "a framework's": lambda v: Scalar(v, "torch.int64"), "array API": array_api_strict.asarray,
}  # fmt: skip
NO_NUMBERS = [
    "1", b"1", np.array("1"), np.str_("1"), 1j, np.complex64(1), np.array(1j), np.ones(1),
    np.datetime64(1, "s"), Scalar(1, "torch.complex64"), Decimal("NaN"), np.float32("nan"), None,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_number_argument_takes_any_real_number(kind):
    quantizer = rvq(kmeans_init=False)
    np.testing.assert_array_equal(
        quantizer.encode(X, kind(50), kind("0.125")), quantizer.encode(X, 50, 0.125)
    )
    assert quantizer.eval()(X, kind(50), kind("0.125")).bandwidth == np.float32(0.1)
    assert quantizer.get_bandwidth_per_quantizer(kind(50)) == 0.1
    assert quantizer.get_num_quantizers_for_bandwidth(kind(50), kind(0.125)) == 1
    given = {"decay": 0.5, "threshold_ema_dead_code": 0.25, "quantizer_dropout": 0.5,
             "commitment_weight": 2.5, "epsilon": 0.125, "relative_threshold": 0.25}  # fmt: skip
    config = Config(4, 4, 1, 4, **{name: kind(each) for name, each in given.items()})
    assert config == Config(4, 4, 1, 4, **given)
    assert {type(each) for each in config.as_dict().values()} == {int, bool, float}
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()
    assert train.ema(STATE, *TALLY.values(), decay=kind(0.5), epsilon=kind(0.25)) == train.ema(
        STATE, *TALLY.values(), decay=0.5, epsilon=0.25
    )
    assert train.fit(X, 1, 4, 2, 0, tolerance=kind(0.5)) == train.fit(X, 1, 4, 2, 0, tolerance=0.5)
    file = io.BytesIO()
    bitstream.write(file, CODES, sizes=(8,), frame_rate=kind("86.125"))
    assert bitstream.read(file).frame_rate == Fraction("86.125")


@pytest.mark.parametrize("kind", WHOLE.values(), ids=WHOLE)
def test_every_whole_argument_takes_any_whole_number(kind):
    config = Config(kind(4), kind(4), kind(1), kind(8), kmeans_iters=kind(3))
    assert config == Config(4, 4, 1, 8, kmeans_iters=3)
    assert set(map(type, config.as_dict().values())) <= {int, bool, float, type(None)}
    assert rvq_np.encode(X, BOOKS, kind(1), beam_size=kind(2), threads=kind(1)).shape == (1, 50)
    assert rvq_np.decode(CODES, BOOKS, threads=kind(1)).shape == X.shape
    assert rvq_np.Parallel([BOOKS], n_q=kind(1)).n_q == 1
    assert rvq_np.Stage(X, stride=kind(2)) == rvq_np.Stage(X, stride=2)
    assert StreamEncoder(BOOKS, kind(1), kind(1), threads=kind(1)).push(X).shape == (1, 50)
    quantizer = rvq(kmeans_init=False)
    assert quantizer.encode(X, 50, st=kind(0), beam_size=kind(1)).shape == (1, 50)
    assert quantizer.decode(CODES % 4, st=kind(0)).shape == X.shape
    assert train.AllReduce(np.copy, kind(0), kind(1)).size == 1
    assert train.fit(X, kind(1), kind(4), kind(2), kind(0)) == train.fit(X, 1, 4, 2, 0)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_real_number_is_refused_by_name(value):
    if value is not None:
        with pytest.raises(ParameterError, match="encode: sample_rate is "):
            rvq().encode(X, value)
    with pytest.raises(ParameterError, match="ResidualVectorQuantizer: decay is "):
        rvq(decay=value)
    with pytest.raises(ParameterError, match="ema: decay is "):
        train.ema(STATE, *TALLY.values(), decay=value)
    if value is not None:
        with pytest.raises(ParameterError, match="encode: bandwidth is "):
            rvq().encode(X, 50, value)


@pytest.mark.parametrize("value", ["False", "no", 2, np.ones(2), None])
def test_whether_to_begin_with_kmeans_is_a_truth_value(value):
    with pytest.raises(ParameterError, match="ResidualVectorQuantizer: kmeans_init is "):
        rvq(kmeans_init=value)
    assert rvq(kmeans_init=np.bool_(False)).config.kmeans_init is False


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_bandwidth_that_was_reported_buys_the_same_stages_again(dtype):
    """Of vectors of float32 it is a float32, and may be rounded down below the stages it is of."""
    lost = 0
    for rate in np.linspace(10, 100, 37):
        for bins in (3, 1000):
            quantizer = ResidualVectorQuantizer(2, 2, 8, bins, kmeans_init=False, rng=0).eval()
            for n in range(1, 9):
                exact = n * quantizer.get_bandwidth_per_quantizer(rate)
                result = quantizer(np.ones((1, 2), dtype), rate, exact)
                spent = np.asarray(result.bandwidth).astype(dtype)
                assert len(result.codes) == n
                lost += float(spent) < exact * (1 - 1e-9)
                assert quantizer.get_num_quantizers_for_bandwidth(rate, spent) == n
                narrow = np.float32(rate)
                assert quantizer.get_num_quantizers_for_bandwidth(narrow, exact) == n
    assert lost > 100 or dtype is np.float64


@pytest.mark.parametrize("sizes", [(8.5,), ("8",), (True,), 8.0 * np.ones(1)])
def test_sizes_of_a_file_are_not_rounded_to_whole_numbers(sizes):
    """8.5 was written as 8."""
    with pytest.raises(ParameterError, match="write: sizes, strides and batch must be sequences"):
        bitstream.write(io.BytesIO(), CODES, sizes=sizes)


def test_what_a_file_returns_every_call_takes():
    """A frame rate that was read is the sample rate of codes and the frame rate of a file."""
    file, again = io.BytesIO(), io.BytesIO()
    bitstream.write(file, CODES, sizes=(8,), frame_rate=(11025, 128))
    content = bitstream.read(file)
    quantizer = ResidualVectorQuantizer(4, 4, 1, 8, kmeans_init=False, rng=0).eval()
    result = quantizer(X, content.frame_rate)
    codes = quantizer.encode(X, content.frame_rate, bandwidth=result.bandwidth)
    np.testing.assert_array_equal(codes, result.codes)
    assert quantizer.decode(content.codes).shape == X.shape
    bitstream.write(again, content.codes, sizes=content.sizes, strides=content.strides,
                    frame_rate=content.frame_rate)  # fmt: skip
    assert again.getvalue() == file.getvalue()


def test_reading_takes_the_same_arguments_from_a_path_and_a_reader():
    ours = inspect.signature(bitstream.Reader.read).parameters
    theirs = inspect.signature(bitstream.read).parameters
    assert list(ours)[1:] == [name for name in theirs if name not in ("path", "codebooks")]
    for name in ("n_q", "start", "stop"):
        assert (ours[name].kind, ours[name].default) == (theirs[name].kind, theirs[name].default)


def test_what_holds_codes_is_taken_where_codes_are(tmp_path):
    rvq = rvq_np.ResidualVectorQuantizer(4, 4, 2, 8, rng=0).fit(X).eval()
    result = rvq(X, 50)
    books, path = rvq.codebooks, tmp_path / "codes.rvq"
    bitstream.write(path, result, codebooks=books, frame_rate=Fraction(44100, 512))
    content = bitstream.read(path)
    np.testing.assert_array_equal(content.codes, result.codes)
    for held in (content, result):
        np.testing.assert_array_equal(rvq.decode(held), rvq.decode(result.codes))
        np.testing.assert_array_equal(rvq_np.decode(held, books), rvq.decode(result.codes))
        counts, sums = codec.tally(X, held, books)
        expected = codec.tally(X, result.codes, books)
        np.testing.assert_array_equal(counts, expected[0])
        np.testing.assert_array_equal(sums, expected[1])
    bitstream.write(tmp_path / "again.rvq", content)  # sizes and frame rate are in it
    again = bitstream.read(tmp_path / "again.rvq")
    assert (again.sizes, again.frame_rate) == ((8, 8), Fraction(44100, 512))
    np.testing.assert_array_equal(again.codes, result.codes)
    assert semantic_ids.to_tokens(held) == semantic_ids.to_tokens(result.codes)
    written = []
    for number, codes in enumerate((held, result, result.codes)):
        places = [tmp_path / f"{number}{ending}" for ending in (".npy", ".faissindex")]
        export.codes(places[0], codes, "codec.cpp")
        export.faiss(places[1], books, codes)
        written.append([place.read_bytes() for place in places])
    assert written[0] == written[1] == written[2]
