"""ONNX graphs written here, run by onnxruntime: the same codes up to near-ties, and vectors."""

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import quantizers, regret
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage, export
from rvq_np.errors import ParameterError
from rvq_np.files import kinds

onnxruntime.set_default_logger_severity(3)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng, outputs, inputs):
    return Linear(normal(rng, outputs, inputs) / inputs**0.5, 0.1 * normal(rng, outputs))


def books(rng, n_q, size, dim):
    return Codebooks([0.7**q * normal(rng, size, dim) for q in range(n_q)])


def dac(rng, sizes=(64, 32, 32), strides=(1, 1, 1)):
    return Codebooks(
        [
            Stage(normal(rng, size, 4), linear(rng, 4, 12), linear(rng, 12, 4), "cosine", stride)
            for size, stride in zip(sizes, strides, strict=True)
        ]
    )


def mimi(rng):
    return Parallel(
        [
            Projected(books(rng, n_q, 32, 6), linear(rng, 6, 10), linear(rng, 10, 6))
            for n_q in (1, 3)
        ]
    )


MADE = {
    "plain": lambda rng: books(rng, 4, 64, 8),
    "sizes": lambda rng: Codebooks([normal(rng, size, 8) for size in (7, 64, 1)]),
    "dac": dac,
    "snac": lambda rng: dac(rng, strides=(4, 2, 1)),
    "mimi": mimi,
    "mimi, prefix": lambda rng: mimi(rng)[:1],
    "grouped": lambda rng: Grouped([books(rng, 2, 16, 3), books(rng, 3, 16, 5)]),
    "grouped, projected": lambda rng: Grouped(
        [Projected(books(rng, 2, 16, 3), linear(rng, 3, 4), linear(rng, 4, 3)) for _ in range(2)]
    ),
    "zero codewords": lambda rng: Codebooks(
        [Stage(normal(rng, 9, 4) * (np.arange(9) > 2)[:, None], metric="cosine")]
    ),
    "shared": lambda rng: Codebooks([Stage(normal(rng, 16, 4))] * 4),
}


class Session:
    def __init__(self, folder, quantizer, part, **options):
        self.path = folder / f"{part}.onnx"
        export.onnx(self.path, quantizer, part, **options)
        self.run = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"]).run
        self.quantizer = quantizer

    def encode(self, x):
        codes = self.run(None, {"x": x})
        return codes if self.quantizer.block > 1 else codes[0]

    def decode(self, codes):
        if self.quantizer.block > 1:
            named = {f"codes_{q}": np.int64(each) for q, each in enumerate(codes)}
        else:
            named = {"codes": np.int64(codes)}
        return self.run(None, named)[0]


def flat(codes):
    return [np.asarray(each).reshape(-1) for each in codes]


def assert_encodes(session, x, quantizer):
    codes = session.encode(x)
    expected = rvq_np.encode(x, quantizer)
    for mine, other in zip(expected, codes, strict=True):
        assert mine.shape == other.shape
    regret.assert_nearest(x.reshape(-1, x.shape[2]), flat(codes), quantizer)
    same = np.mean([np.mean(a == b) for a, b in zip(flat(codes), flat(expected), strict=True)])
    assert same > 0.99


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (2, 9), (3, 100)])
def test_a_graph_encodes_as_the_quantizer(name, batch, time, rng, tmp_path):
    quantizer = MADE[name](rng)
    session = Session(tmp_path, quantizer, "encode")
    assert_encodes(session, normal(rng, batch, time * quantizer.block, quantizer.dim), quantizer)


@pytest.mark.parametrize("name", MADE)
def test_a_graph_decodes_as_the_quantizer(name, rng, tmp_path):
    quantizer = MADE[name](rng)
    x = normal(rng, 2, 11 * quantizer.block, quantizer.dim)
    codes = rvq_np.encode(x, quantizer)
    decoded = Session(tmp_path, quantizer, "decode").decode(codes)
    assert decoded.shape == x.shape
    assert decoded.dtype == np.float32
    regret.assert_decodes(decoded.reshape(-1, quantizer.dim), flat(codes), quantizer)
    if isinstance(quantizer, Codebooks) and name != "dac" and name != "snac":
        np.testing.assert_array_equal(decoded, rvq_np.decode(codes, quantizer))  # bit for bit


@pytest.mark.parametrize("name", ["plain", "dac", "snac", "mimi", "grouped"])
def test_a_dropped_code_adds_nothing(name, rng, tmp_path):
    quantizer = MADE[name](rng)
    codes = rvq_np.encode(normal(rng, 2, 30 * quantizer.block, quantizer.dim), quantizer)
    if quantizer.block == 1:
        codes = np.where(rng.random(codes.shape) < 0.6, -1, codes)
        assert (codes < 0).all(axis=0).any()
    else:
        codes = [np.where(rng.random(each.shape) < 0.6, -1, each) for each in codes]
    decoded = Session(tmp_path, quantizer, "decode").decode(codes)
    np.testing.assert_allclose(decoded, rvq_np.decode(codes, quantizer), atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "snac", "mimi"])
def test_channels_may_come_first(name, rng, tmp_path):
    quantizer = MADE[name](rng)
    x = normal(rng, 2, 3 * quantizer.block, quantizer.dim)
    last = Session(tmp_path, quantizer, "encode").encode(x)
    first = Session(tmp_path, quantizer, "encode", channels_first=True).encode(
        np.ascontiguousarray(x.swapaxes(1, 2))
    )
    for a, b in zip(last, first, strict=True):
        np.testing.assert_array_equal(a, b)
    there = Session(tmp_path, quantizer, "decode").decode(last)
    back = Session(tmp_path, quantizer, "decode", channels_first=True).decode(last)
    np.testing.assert_array_equal(there, back.swapaxes(1, 2))


@pytest.mark.parametrize("name", ["plain", "dac", "mimi"])
def test_half_precision_is_half_as_large_and_nearly_as_good(name, rng, tmp_path):
    quantizer = MADE[name](rng)
    codes = rvq_np.encode(normal(rng, 2, 50, quantizer.dim), quantizer)
    whole = Session(tmp_path, quantizer, "decode")
    expected, size = whole.decode(codes), whole.path.stat().st_size
    half = Session(tmp_path, quantizer, "decode", dtype="float16")
    decoded = half.decode(codes)
    assert decoded.dtype == np.float16
    np.testing.assert_allclose(decoded, expected, rtol=2e-3, atol=8e-3)
    assert half.path.stat().st_size < size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(quantizer=quantizers.quantizers(strides=(1, 2)), seed=st.integers(0, 9))
def test_any_quantizer_has_a_graph(quantizer, seed, tmp_path):
    rng = np.random.default_rng(seed)
    x = normal(rng, 2, 3 * quantizer.block, quantizer.dim)
    codes = Session(tmp_path, quantizer, "encode").encode(x)
    regret.assert_nearest(x.reshape(-1, quantizer.dim), flat(codes), quantizer)
    decoded = Session(tmp_path, quantizer, "decode").decode(codes)
    regret.assert_decodes(decoded.reshape(-1, quantizer.dim), flat(codes), quantizer)


def test_whole_numbers_have_the_defined_codes_ties_included(rng, tmp_path):
    codewords = rng.integers(-3, 4, (3, 30, 4)).astype(np.float32)
    x = rng.integers(-6, 7, (1, 400, 4)).astype(np.float32)
    codes = Session(tmp_path, Codebooks(codewords), "encode").encode(x)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, codewords))


def test_a_vector_of_zeros_has_the_codeword_of_zeros_by_cosine(rng, tmp_path):
    codewords = normal(rng, 5, 4)
    codewords[3] = 0
    quantizer = Codebooks([Stage(codewords, metric="cosine")])
    x = np.concatenate([np.zeros((1, 1, 4), np.float32), normal(rng, 1, 9, 4)], axis=1)
    codes = Session(tmp_path, quantizer, "encode").encode(x)
    assert codes[0, 0, 0] == 3
    np.testing.assert_array_equal(codes, rvq_np.encode(x, quantizer))


def test_a_codebook_is_stored_once(rng, tmp_path):
    big = Codebooks([Stage(normal(rng, 512, 32))] * 6)
    for part in ("encode", "decode"):
        size = Session(tmp_path, big, part).path.stat().st_size
        assert size < 1.3 * 512 * 32 * 4


def test_a_graph_says_what_it_is(rng, tmp_path):
    quantizer = MADE["mimi"](rng)
    model = onnx.load(Session(tmp_path, quantizer, "encode").path)
    onnx.checker.check_model(model, full_check=True)
    assert model.metadata_props[0].value == quantizer.fingerprint
    assert {node.domain for node in model.graph.node} == {""}


def test_a_code_out_of_range_is_refused_by_the_runtime(rng, tmp_path):
    session = Session(tmp_path, MADE["plain"](rng), "decode")
    with pytest.raises(Exception, match="out of data bounds"):
        session.decode(np.full((4, 1, 2), 64))


def test_frames_that_are_no_whole_blocks_are_refused_by_the_runtime(rng, tmp_path):
    session = Session(tmp_path, MADE["snac"](rng), "encode")
    with pytest.raises(Exception, match="Reshape"):
        session.encode(normal(rng, 1, 7, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "both"}, "part is 'both'"),
        ({"dtype": "float64"}, "dtype 'float64'; expected"),
        ({"dtype": "float16"}, "'float16' for decoding"),
    ],
)
def test_unknown_options_are_refused(options, message, rng, tmp_path):
    with pytest.raises(ParameterError, match=message):
        export.onnx(tmp_path / "a.onnx", MADE["plain"](rng), **options)


@pytest.mark.parametrize(
    ("quantizer", "options", "message"),
    [
        (np.full((1, 2, 2), 1e5, np.float32), {"part": "decode", "dtype": "float16"}, "float16"),
        (np.full((1, 2, 2), 1e300), {}, "beyond float32"),
        (np.full((1, 2, 2), 1e20, np.float32), {}, "a squared norm has numbers beyond float32"),
        (Grouped([np.ones((1, 2, 2)), np.ones((1, 2, 2))])[:1], {"part": "decode"}, "a group"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(quantizer, options, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        export.onnx(tmp_path / "a.onnx", quantizer, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["encode", "decode"])
@pytest.mark.parametrize("name", MADE)
def test_a_graph_has_nothing_that_its_results_do_not_need(name, part, rng, tmp_path):
    export.onnx(tmp_path / "a.onnx", MADE[name](rng), part)
    assert kinds.of(tmp_path / "a.onnx").name == "onnx"
    graph = onnx.load(tmp_path / "a.onnx").graph
    used = {each for node in graph.node for each in node.input}
    results = {each.name for each in graph.output}
    assert {each.name for each in graph.initializer} <= used
    assert all(used.intersection(node.output) or results & set(node.output) for node in graph.node)


def test_directions_of_residuals_are_decoded_and_their_encoder_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    quantizer = rvq_np.Normalized([normal(rng, 1, 8, 4), normal(rng, 1, 6, 4)])
    with pytest.raises(
        ParameterError, match=r"export\.onnx: cannot hold the encoder of Normalized"
    ):
        export.onnx(tmp_path / "m.onnx", quantizer)
    export.onnx(tmp_path / "m.onnx", quantizer, part="decode")
    codes = np.int64([[[1, 7]], [[5, 0]]])
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"codes": codes})
    np.testing.assert_array_equal(found, rvq_np.decode(codes, quantizer))
