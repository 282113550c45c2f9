"""The shipped kit: our own code passes it, and each of a list of faults does not."""

import functools
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest
from helpers import faulty, faulty_training, paths
from hypothesis import Phase, settings

import rvq_np
from rvq_np import bitstream, codec, grad
from rvq_np.errors import BitstreamError, ParameterError
from rvq_np.testing import (
    backend_tests,
    container_tests,
    gradient_tests,
    rvq_tests,
    training_tests,
)

RATE = 50
TYPES = ("float16", "float32", "float64")

settings.register_profile(  # for what must fail: no shrinking, and the seed of every run is one
    "fault", settings.get_profile("rvq_np"), phases=[Phase.generate], max_examples=150
)


# Ours ----------------------------------------------------------------------------------------


def quantizer_of(codebooks, **options):
    """Return a quantizer that holds these codewords and will not replace them."""
    n_q, bins, dim = codebooks.shape
    rvq = rvq_np.ResidualVectorQuantizer(
        dim, dim, n_q, bins, threshold_ema_dead_code=0, rng=0, **options
    )
    state = rvq.state_dict()
    for stage, codewords in enumerate(codebooks):
        name = f"vq.layers.{stage}._codebook."
        state[name + "embed"] = state[name + "embed_avg"] = codewords
        state[name + "inited"] = np.ones(1, np.float32)
    rvq.load_state_dict(state)
    return rvq


def value_and_gradients(x, codebooks, weight, cotangent):
    rvq = quantizer_of(codebooks, commitment_weight=weight)
    result, vjp = grad.quantize_vjp(x, rvq, RATE)
    return result.quantized, result.codes, result.penalty, vjp(cotangent, penalty=1.0).x


def codebook_loss_gradient(x, codebooks):
    _, vjp = grad.quantize_vjp(x, quantizer_of(codebooks), RATE)
    return vjp(quantization_loss=1.0).x


OURS = {
    "value_and_gradients": value_and_gradients,
    "codebook_loss_gradient": codebook_loss_gradient,
}
STRICT = {"put": array_api_strict.asarray, "get": np.from_dlpack}

TestNumPyArrays = backend_tests(put=np.array, get=np.asarray, dtypes=TYPES)
TestStrictArrays = backend_tests(**STRICT)
TestGradients = gradient_tests(**OURS)
TestGradientsFloat64 = gradient_tests(**OURS, dtype=np.float64)
TestGradientsByHand = gradient_tests(
    value_and_gradients=faulty.gradients(), codebook_loss_gradient=lambda x, books: 0 * x
)
TestTraining = training_tests(make=faulty_training.Ours, dimension=3)
TestContainer = container_tests(**faulty.container(), error=ValueError)
TestBitstream = container_tests(write=bitstream.write, read=bitstream.read, error=BitstreamError)
TestBitstreamPacked = pytest.mark.slow(
    container_tests(
        write=functools.partial(bitstream.write, compress=False),
        read=bitstream.read,
        error=BitstreamError,
    )
)


# Faults --------------------------------------------------------------------------------------


def noticed(factory, name, **arguments):
    """Assert that this property of the kit, and not a crash beside it, fails."""
    settings.load_profile("fault")  # a factory's @given takes the profile it is made under
    try:
        tests = factory(**arguments)()
        with pytest.raises(AssertionError):
            getattr(tests, f"test_{name}")()
    finally:
        settings.load_profile("rvq_np")


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("last on a tie", "codes_on_whole_numbers_are_those_of_the_definition"),
        ("no last stage", "codes_on_whole_numbers_are_those_of_the_definition"),
        ("float codes", "codes_on_whole_numbers_are_those_of_the_definition"),
        ("half precision", "codes_of_ordinary_vectors_are_those_of_the_definition"),
        ("float32 sums", "codes_near_ties_are_those_of_the_definition"),
        ("float64 sums, not settled", "codes_near_ties_are_those_of_the_definition"),
        ("residual not rounded", "the_residual_is_rounded_after_each_stage"),
        ("a clamp at 1e-4", "codes_beside_norms_far_apart_are_those_of_the_definition"),
        ("float32 sums", "codes_that_hang_on_what_rounding_lost_are_those_of_the_definition"),
        ("looks ahead", "a_prefix_of_the_codes_is_the_answer_of_fewer_stages"),
        ("stages ignored", "a_prefix_of_the_codes_is_the_answer_of_fewer_stages"),
        ("depends on the batch", "any_split_of_the_batch_gives_the_same_codes"),
        ("in place", "what_goes_in_is_left_alone"),
        ("a code for no vectors", "no_vectors_have_no_codes"),
    ],
)
def test_a_faulty_encode_is_noticed(fault, name):
    noticed(rvq_tests, name, encode=faulty.ENCODERS[fault], decode=rvq_np.decode)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("no last stage", "decode_adds_up_the_named_codewords"),
        ("another order", "decode_adds_up_the_named_codewords"),
        ("zeros for missing stages", "a_prefix_of_the_codes_decodes_to_the_first_codewords"),
        ("codewords made unit length", "codewords_of_one_stage_come_back_unchanged"),
    ],
)
def test_a_faulty_decode_is_noticed(fault, name):
    noticed(rvq_tests, name, encode=rvq_np.encode, decode=faulty.DECODERS[fault])


def test_a_tolerance_lets_rounding_pass_and_no_more():
    """float32 sums pass where float32 holds the squares; a lost stage fails at any tolerance."""
    ordinary = "test_codes_of_ordinary_vectors_are_those_of_the_definition"
    rounded = {"encode": faulty.ENCODERS["float32 sums"], "decode": rvq_np.decode}
    getattr(rvq_tests(**rounded, tolerance=4)(), ordinary)()
    coarse = {"encode": faulty.ENCODERS["half precision"], "decode": rvq_np.decode}
    noticed(rvq_tests, ordinary.removeprefix("test_"), **coarse, tolerance=4)
    for name in ("codes_on_whole_numbers_are_those_of_the_definition", ordinary[5:]):
        lost = {"encode": faulty.ENCODERS["no last stage"], "decode": rvq_np.decode}
        noticed(rvq_tests, name, **lost, tolerance=1000)
    decode = "decode_adds_up_the_named_codewords"
    other = {"encode": rvq_np.encode, "decode": faulty.DECODERS["another order"]}
    getattr(rvq_tests(**other, tolerance=4)(), f"test_{decode}")()
    lost = {"encode": rvq_np.encode, "decode": faulty.DECODERS["no last stage"]}
    noticed(rvq_tests, decode, **lost, tolerance=1000)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("times the stages", "quantized_passes_its_gradient_on_unchanged"),
        ("straight-through forgotten", "quantized_passes_its_gradient_on_unchanged"),
        ("x + (codewords - x)", "quantized_is_exactly_what_the_codes_decode_to"),
        ("a sum for the mean", "the_penalty_is_the_mean_of_the_commitment_losses"),
        ("codebook loss to the encoder", "the_gradient_of_the_penalty_is_its_slope"),
        ("residual not detached", "the_gradient_of_the_penalty_is_its_slope"),
        ("residual not detached", "the_commitment_loss_reaches_every_stage"),
        ("two stages at most", "the_commitment_loss_reaches_every_stage"),
        ("a square root", "a_vector_that_is_a_codeword_has_a_finite_gradient"),
    ],
)
def test_a_faulty_gradient_is_noticed(fault, name):
    noticed(gradient_tests, name, value_and_gradients=faulty.GRADIENTS[fault])


def test_a_codebook_loss_that_pulls_the_encoder_is_noticed():
    noticed(
        gradient_tests, "the_codebook_loss_leaves_the_encoder_alone",
        value_and_gradients=value_and_gradients,
        codebook_loss_gradient=lambda x, books: rvq_np.decode(rvq_np.encode(x, books), books) - x,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "name"),
    faulty_training.KILLED_BY.items(),
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_faulty_training_is_noticed(fault, name):
    noticed(training_tests, name, make=fault, dimension=3)


@pytest.mark.parametrize(
    "fault", ["MaskIgnored", "EvalTrains", "SumsNotTimesCounts", "NanSpreads", "SaveForgetsCounts"]
)
def test_the_state_machine_alone_notices(fault):
    noticed(training_tests, "any_order_of_steps", make=getattr(faulty_training, fault), dimension=3)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("ten bits a code", "codes_come_back"),
        ("zero for dropped", "a_dropped_code_is_not_code_zero"),
        ("all stages always", "the_first_stages_can_be_read_alone"),
        ("the time of day", "the_same_codes_are_the_same_bytes"),
        ("as many frames as there are", "a_file_cut_short_gives_what_was_asked_for_or_an_error"),
        ("no checksum", "a_flipped_bit_gives_the_same_codes_or_an_error"),
        ("ten bits a code", "a_code_that_names_no_codeword_is_not_written_as_another"),
    ],
)
def test_a_faulty_container_is_noticed(fault, name):
    noticed(container_tests, name, **faulty.CONTAINERS[fault], error=ValueError)


@pytest.mark.parametrize(
    ("fault", "name", "error"),
    [
        ("appends", "the_same_codes_are_the_same_bytes", ValueError),  # `read` refuses two files
        ("another exception", "random_bytes_are_an_error", ValueError),
        ("a pickle", "random_bytes_are_an_error", Exception),
    ],
)
def test_a_container_that_raises_what_it_did_not_declare_is_noticed(fault, name, error):
    settings.load_profile("fault")
    try:
        tests = container_tests(**faulty.CONTAINERS[fault], error=faulty.Damaged)()
        with pytest.raises(error):
            getattr(tests, f"test_{name}")()
    finally:
        settings.load_profile("rvq_np")


def elsewhere(function):
    """Return codec.encode or decode with a fault: results are NumPy's, whatever went in."""
    return lambda x, *rest, **named: np.asarray(np.from_dlpack(function(x, *rest, **named)))


def in_place(x, *rest):
    codes = codec_encode(x, *rest)
    if codes.size and x.flags.writeable:
        x *= 0
    return codes


def by_memory(x, *rest):
    """Read the memory of `x` from its start, whatever its strides."""
    start = x if x.base is None or x.ndim != 2 else x.base.ravel()[: x.size].reshape(x.shape)
    return codec_encode(start, *rest)


def low_bits(codes, *rest):
    return codec_decode(codes % 16 if str(codes.dtype).endswith(".int8") else codes, *rest)


codec_encode, codec_decode = codec.encode, codec.decode
NUMPY = {"put": np.array, "get": np.asarray}


@pytest.mark.parametrize(
    ("place", "fault", "name", "library"),
    [
        ("encode", elsewhere(codec_encode), "codes_of_whole_numbers_are_those_of_numpy", STRICT),
        ("decode", elsewhere(codec_decode), "vectors_of_any_shape_are_those_of_numpy", STRICT),
        ("encode", elsewhere(codec_encode), "nothing_in_gives_nothing_out", STRICT),
        ("encode", in_place, "what_goes_in_is_left_alone_and_results_are_their_own", NUMPY),
        ("encode", by_memory, "any_layout_gives_the_same_codes", NUMPY),
        ("decode", low_bits, "codes_of_any_integer_type_decode", STRICT),
    ],
    ids=["kind of codes", "kind of vectors", "kind of nothing", "in place", "strides", "int8"],
)
def test_a_faulty_backend_is_noticed(place, fault, name, library):
    with paths.patched((codec, place, fault)):
        noticed(backend_tests, name, **library)


def test_a_right_implementation_that_is_slow_passes():
    """Hypothesis gives a property 200 ms by default: a loaded machine is no defect."""
    code = """
import time
import numpy as np
from hypothesis import settings
settings.register_profile("users", max_examples=2, deadline=200)  # ms, Hypothesis's own
settings.load_profile("users")
import rvq_np
from rvq_np.testing import backend_tests, rvq_tests

def slow(function):
    def call(*arguments):
        time.sleep(0.3)
        return function(*arguments)
    return call

tests = rvq_tests(encode=slow(rvq_np.encode), decode=slow(rvq_np.decode))
tests().test_codewords_of_one_stage_come_back_unchanged()
backend_tests(put=slow(np.array), get=np.asarray)().test_nothing_in_gives_nothing_out()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_property_of_the_kit_is_without_a_deadline():
    for tests in (
        rvq_tests(encode=print, decode=print, dropped=True), backend_tests(put=print, get=print),
        container_tests(write=print, read=print, error=ValueError),
        training_tests(make=print, dimension=3), gradient_tests(value_and_gradients=print),
    ):  # fmt: skip
        for name, each in vars(tests).items():
            if name.startswith("test_") and hasattr(each, "hypothesis"):
                assert each._hypothesis_internal_use_settings.deadline is None, name


RANGE = (2.0**-50, 2.0**50)  # as in docs/conformance.md


def codes_of(name):
    return [each for each in vars(rvq_tests(encode=print, decode=print))
            if each.startswith("test_codes_") and name in each]  # fmt: skip


@pytest.mark.parametrize("name", codes_of("those_of_the_definition"))
def test_textbook_float32_code_passes_in_the_range_it_is_stated_for(name):
    """At 1e19 its squares overflow, at 1e-22 they underflow: two properties failed."""
    textbook = {"encode": faulty.ENCODERS["float32 sums"], "decode": rvq_np.decode}
    getattr(rvq_tests(**textbook, tolerance=4, range=RANGE)(), name)()


def test_outside_of_its_range_it_fails_and_inside_faults_are_noticed():
    textbook = {"encode": faulty.ENCODERS["float32 sums"], "decode": rvq_np.decode}
    noticed(rvq_tests, "codes_beside_norms_far_apart_are_those_of_the_definition", **textbook,
            tolerance=4)  # fmt: skip
    lost = {"encode": faulty.ENCODERS["no last stage"], "decode": rvq_np.decode}
    noticed(rvq_tests, "codes_of_ordinary_vectors_are_those_of_the_definition", **lost,
            tolerance=1000, range=RANGE)  # fmt: skip
    for bad in ((2, 4), (1e-3, 0.5), (-1, 1), (float("nan"), 1), 3, (0.5,), (0.5, 1, 2)):
        with pytest.raises(ParameterError, match="rvq_tests: range is "):
            rvq_tests(encode=print, decode=print, range=bad)


@pytest.mark.parametrize(
    ("missing", "name"),
    [("hypothesis", "rvq_tests"), ("hypothesis", "strategies"), ("pytest", "training_tests")],
)
def test_without_the_extra_the_kit_says_what_to_install(missing, name):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError("No module named " + name, name={missing!r})
sys.meta_path.insert(0, Refuse())
from rvq_np.testing import oracle
from rvq_np.errors import RvqError
try:
    from rvq_np.testing import {name}
except ImportError as error:
    assert isinstance(error, RvqError)
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert f"rvq_np.testing.{name} needs {missing}, which is not installed. Run pip" in said
