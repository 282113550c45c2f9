"""The families of 2026: codes and vectors of their own arithmetic, written by hand in helpers.

Where a package runs here, tests/peers/test_checkpoints_of_2026.py compares with that.
"""

import json
import re

import numpy as np
import pytest
from helpers import codecs_of_2026 as reference
from helpers import regret
from helpers.checkpoint_files import write

import rvq_np
from rvq_np import checkpoints
from rvq_np.errors import CheckpointError, ParameterError, PartsError

pytestmark = pytest.mark.quick
cases = pytest.mark.parametrize("name", reference.CASES)


@pytest.fixture
def case(name):
    return reference.CASES[name]()


def saved(case, folder, tensors=None):
    if case.config:
        (folder / "config.json").write_text(json.dumps(case.config))
    return write(folder, case.tensors | case.beside if tensors is None else tensors)


@cases
def test_codes_and_vectors_are_those_of_the_family(case, rng, tmp_path):
    family, quantizer = checkpoints.load_as(saved(case, tmp_path), part=case.part)
    assert family == case.family
    assert quantizer.dim == case.dim
    assert quantizer.dtype == np.float32
    x = rng.standard_normal((300, case.dim)).astype(np.float32)
    expected = reference.encode(case, x)
    codes = rvq_np.encode(x, quantizer)
    assert codes.shape == expected.shape
    assert (codes != expected).any(axis=0).mean() < 0.01  # near-ties after maps in float32
    regret.assert_nearest(x, list(codes), quantizer)
    for n in range(1, len(codes) + 1):
        decoded = rvq_np.decode(expected[:n], quantizer)
        np.testing.assert_allclose(decoded, reference.decode(case, expected[:n]), atol=2e-5)


@cases
def test_a_file_says_its_family_or_is_asked(case, tmp_path):
    path = saved(case, tmp_path)
    found = checkpoints.load(path, part=case.part).fingerprint
    assert checkpoints.load(path, case.family, part=case.part).fingerprint == found
    bare = saved(case, tmp_path, case.tensors)
    if case.family != "higgs_audio":  # whose network tells it from ESPnet
        assert checkpoints.load_as(bare, part=case.part)[0] == case.family
    assert checkpoints.load(bare, part=case.part).fingerprint == found


@cases
def test_no_other_family_drops_what_it_does_not_know(case, rng, tmp_path):
    """Asked for another family, a file has the same codes or is refused."""
    path = saved(case, tmp_path)
    x = rng.standard_normal((50, case.dim)).astype(np.float32)
    expected = rvq_np.encode(x, checkpoints.load(path, part=case.part))
    for family in checkpoints.families():
        try:
            quantizer = checkpoints.load(path, family, part=case.part)
        except (CheckpointError, ParameterError):
            continue
        if quantizer.dim == case.dim:
            codes = rvq_np.encode(x, quantizer)
            same = len(codes) == len(expected) and np.array_equal(codes, expected)
            assert same or (family, case.family) == ("mimi", "qwen3_tts"), family


@cases
def test_a_missing_tensor_is_named(case, tmp_path):
    needed = [
        name for name in case.tensors
        if not name.endswith(("inited", "initialized", "cluster_size", "_avg", ".bias", "variance"))
    ]  # fmt: skip
    for gone in needed:
        some = {name: value for name, value in case.tensors.items() if name != gone}
        path = saved(case, tmp_path, some)
        message = None
        try:
            quantizer = checkpoints.load(path, part=case.part)
        except (CheckpointError, ParameterError) as error:
            message = str(error)
        if message is not None:
            assert "model.safetensors" in message
        else:  # one of the last stages, or of another part, or maps that may be absent
            whole = checkpoints.load(saved(case, tmp_path, case.tensors), part=case.part)
            n_q = min(quantizer.n_q, whole.n_q)
            assert (
                quantizer[:n_q] == whole[:n_q] or quantizer == whole or case.family == "moss_audio"
            ), gone


FLAGS = ("inited", "initialized", "_initialized")
FLAGGED = {"funcodec", "higgs_audio", "mimo_audio", "nemo", "qwen3_tts", "qwen3_tts_25hz",
           "wavtokenizer", "xy_tokenizer"}  # fmt: skip


@cases
def test_a_stage_that_was_never_initialized_is_refused(case, tmp_path):
    if case.family == "qwen3_tts":
        books = [name.rpartition(".")[0] for name in case.tensors if name.endswith("_usage")]
        case.tensors |= {f"{book}.initialized": np.ones(1, np.float32) for book in books}
    flags = [name for name in case.tensors if name.rpartition(".")[2] in FLAGS]
    assert bool(flags) == (case.family in FLAGGED)
    for flag in flags:
        path = saved(case, tmp_path, case.tensors | {flag: np.zeros_like(case.tensors[flag])})
        if case.part is None or flag.startswith(case.part):
            message = f"{re.escape(flag.rpartition('.')[0])} was never initialized"
            with pytest.raises(CheckpointError, match=message):
                checkpoints.load(path, part=case.part)
        else:
            assert checkpoints.load(path, part=case.part)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("qwen3_tts, encoder", ("encoder", "decoder")),
     ("dualcodec, semantic", ("semantic", "acoustic"))],
)  # fmt: skip
def test_parts_are_listed_and_asked_for(case, parts, tmp_path):
    path = saved(case, tmp_path)
    assert checkpoints.parts(path) == parts
    with pytest.raises(PartsError, match=rf"{case.family} has 2 quantizers: '{parts[0]}'"):
        checkpoints.load(path)
    with pytest.raises(ParameterError, match=r"no part 'both'; expected one of"):
        checkpoints.load(path, part="both")


def test_the_encoder_of_qwen_is_cut_to_the_stages_that_are_used(tmp_path):
    case = reference.qwen3_tts("encoder")
    for used in (0, 7, "4", True, 2.0):
        case.config = {"encoder_valid_num_quantizers": used}
        with pytest.raises(CheckpointError, match=r"encoder_valid_num_quantizers is .*1 to 6"):
            checkpoints.load(saved(case, tmp_path), part="encoder")


def test_the_setting_of_the_quantizer_wins_over_that_of_the_model(tmp_path):
    """Each moss loads by the nested setting, whatever the outer one is."""
    case = reference.moss_audio("rvq")
    case.config = {"quantizer_type": "rlfq", "quantizer_kwargs": {"quantizer_type": "rvq"}}
    quantizer = checkpoints.load(saved(case, tmp_path))
    case.config = {"quantizer_type": "rvq"}
    assert quantizer.fingerprint == checkpoints.load(saved(case, tmp_path)).fingerprint


@pytest.mark.parametrize("config", [{}, {"quantizer_type": "vq"}, {"quantizer_kwargs": {}}])
def test_a_moss_without_its_metric_is_refused(config, tmp_path):
    case = reference.moss_audio("rlfq")
    case.config = config
    with pytest.raises(CheckpointError, match=r"quantizer_type is .*Put config\.json beside"):
        checkpoints.load(saved(case, tmp_path))


def test_a_moss_is_no_dac(tmp_path):
    """What loaded as one before, without its outer maps."""
    path = saved(reference.moss_audio("rlfq"), tmp_path)
    with pytest.raises(CheckpointError, match=r"input_proj.* beside its codebooks"):
        checkpoints.load(path, "dac")
    path = saved(reference.moss_audio("rvq", maps=()), tmp_path)
    with pytest.raises(CheckpointError, match="has quantizer_type 'rvq'"):
        checkpoints.load(path, "dac")


def test_maps_that_do_not_fit_are_refused(tmp_path):
    case = reference.moss_audio("rlfq", maps=("output_proj",))
    case.tensors |= reference.Maker(0).map("quantizer.output_proj", 9, 6, "new")[0]
    with pytest.raises(CheckpointError, match=r"takes vectors of 6 numbers and .* returns 9"):
        checkpoints.load(saved(case, tmp_path))


@pytest.mark.parametrize(
    ("name", "tensor", "shape", "message"),
    [
        ("spectrostream", "embedding", (4, 5), "of none of the families"),
        ("funcodec", "quantizer.rq.model.embed", (5, 4), r"expected \(stages, codewords"),
        ("wavtokenizer", "encoder_model.quantizer.codebook.embed", (1, 5, 4), r"\(codewords, dim"),
        ("audiodec", "quantizer.codebook.layers.1.embed", (4, 12), "lengths"),
        ("onerec", "centroids.1", (4,), "shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(case, tensor, shape, message, tmp_path):
    case.tensors[tensor] = np.ones(shape, np.float32)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(saved(case, tmp_path))


@pytest.mark.parametrize("key", ["codec_range", "q0_ds_ratio"])
def test_settings_of_funcodec_that_change_codes_are_refused(key, tmp_path):
    case = reference.funcodec()
    case.config = {"quantizer_conf": {key: 2}}
    with pytest.raises(CheckpointError, match=f"has {key} 2"):
        checkpoints.load(saved(case, tmp_path))


def test_groups_of_nemo_take_turns(tmp_path):
    one, two = reference.nemo().tensors, reference.nemo().tensors
    both = {
        name.replace("codebooks", f"rvqs.{group}.codebooks"): value + group
        for group, some in enumerate((one, two)) for name, value in some.items()
    }  # fmt: skip
    quantizer = checkpoints.load(write(tmp_path, both))
    assert quantizer.order == (0, 1) * 3
    np.testing.assert_array_equal(
        quantizer.parts[1].stages[2].codebook, two["vector_quantizer.codebooks.2.codes"] + 1
    )
