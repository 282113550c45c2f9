"""Codebooks in GGUF files, by names that the user gives: read, or refused by name."""

import contextlib
import json
import re
import struct

import numpy as np
import pytest
from helpers import codecs_of_2026 as reference
from helpers import gguf_files
from helpers.checkpoint_files import MIMI_PORT, mimi, numbers, refused
from helpers.checkpoint_files import write as safetensors_file
from helpers.gguf_files import assembled, text, write
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import cli, export
from rvq_np.checkpoints import front_end, load, load_as, parts
from rvq_np.errors import CheckpointError, ParameterError
from rvq_np.files import gguf

pytestmark = pytest.mark.quick
BOOKS = [numbers(q, 5, 4) for q in range(3)]
FILE = {f"vq.q{q}.codebook": book for q, book in enumerate(BOOKS)}
NAMES = {"vq.q{}.codebook": "centroids.{}"}
# Of a port of Qwen3-TTS to ggml, as its converter has them.
QWEN = {
    "tok_enc.vq_semantic.{}.codebook": "quantizer.semantic_residual_vector_quantizer.layers.{}"
    ".codebook.embed_sum",
    "tok_enc.vq_semantic.{}.usage": "quantizer.semantic_residual_vector_quantizer.layers.{}"
    ".codebook.cluster_usage",
    "tok_enc.vq_semantic.input_proj.weight": "quantizer.semantic_residual_vector_quantizer"
    ".input_proj.weight",
    "tok_enc.vq_semantic.output_proj.weight": "quantizer.semantic_residual_vector_quantizer"
    ".output_proj.weight",
}
QWEN |= {old.replace("semantic", "acoustic"): new.replace("semantic", "acoustic")
         for old, new in QWEN.items()}  # fmt: skip


def of_port(folder):
    """Return a GGUF file of such a port, and the same quantizer from safetensors."""
    tensors, _, _ = mimi(*MIMI_PORT)
    tensors = {name: each for name, each in tensors.items() if not name.endswith("initialized")}
    theirs = {}
    for old, new in QWEN.items():
        for q in range(2):
            if new.replace("{}", str(q)) in tensors:
                theirs[old.replace("{}", str(q))] = tensors[new.replace("{}", str(q))]
    assert len(theirs) == len(tensors)
    beside = {"tok_enc.blk.0.attn_norm.weight": np.ones(4)}
    return write(folder, theirs | beside), load(safetensors_file(folder, tensors))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("align", [32, 64])
def test_each_float_type_is_read_exactly(kind, align, tmp_path):
    path = write(tmp_path, FILE, kind, align=align)
    quantizer = load(path, names=NAMES)
    for stage, book in zip(quantizer, BOOKS, strict=True):
        np.testing.assert_array_equal(stage.codebook, book)
    assert quantizer.dtype == (np.float64 if kind == "F64" else np.float32)


@pytest.mark.parametrize("name", ["onerec", "moss_audio, rvq", "dualcodec, acoustic", "funcodec"])
def test_a_file_with_the_names_of_a_family_needs_no_map(name, tmp_path):
    case = reference.CASES[name]()
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    expected = load(safetensors_file(tmp_path, case.tensors), part=case.part)
    path = write(tmp_path, case.tensors)
    assert load_as(path, part=case.part) == (case.family, expected)


def test_the_names_of_a_port_of_qwen3_tts(tmp_path):
    path, expected = of_port(tmp_path)
    assert load(path, names=QWEN) == expected
    assert str(front_end(path, names=QWEN)) == "latents of the mimi encoder"
    assert parts(path, names=QWEN) == ()


def test_codewords_that_a_converter_divided_are_taken_as_they_are(tmp_path):
    _, expected = of_port(tmp_path)
    theirs, names = {}, {}
    for name, part in zip(("semantic", "acoustic"), expected.parts, strict=True):
        own = f"q.{name}_residual_vector_quantizer"
        names |= {f"{name[0]}.{{}}.embed": f"{own}.layers.{{}}.codebook.embed"}
        for way, linear in zip(("input_proj", "output_proj"), part.maps(), strict=True):
            theirs[f"{name[0]}.{way}.w"] = linear.weight
            names[f"{name[0]}.{way}.w"] = f"{own}.{way}.weight"
        for q, stage in enumerate(part):
            theirs[f"{name[0]}.{q}.embed"] = stage.codebook
    assert load_as(write(tmp_path, theirs), names=names) == ("mimi", expected)


def test_names_are_for_safetensors_and_archives_as_well(tmp_path):
    expected = load(write(tmp_path, FILE), names=NAMES)
    assert load(safetensors_file(tmp_path, FILE), names=NAMES) == expected
    np.savez(tmp_path / "a.npz", **FILE)
    assert load(tmp_path / "a.npz", names=NAMES) == expected


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_quantized_codebook_is_refused_by_name_and_type(kind, tmp_path):
    path = write(tmp_path, FILE | {"vq.q1.codebook": (np.ones((8, 32)), kind)})
    message = f"'vq.q1.codebook' in .* has type {kind}; expected floats. Tensors that are quantized"
    with pytest.raises(CheckpointError, match=message):
        load(path, names=NAMES)


def test_a_quantized_tensor_of_the_network_is_passed_over(tmp_path):
    beside = {"enc.conv.weight": (np.ones((2, 64)), "Q4_0")}
    assert load(write(tmp_path, beside | FILE), names=NAMES).n_q == 3


@pytest.mark.parametrize("name", ["vq.in_proj.weight", "vq.q0.scale", "vq.norm"])
def test_a_tensor_beside_those_that_are_named_must_be_named(name, tmp_path):
    path = write(tmp_path, FILE | {name: np.ones((4, 4))})
    with pytest.raises(CheckpointError, match=f"has '{re.escape(name)}' beside tensors that names"):
        load(path, names=NAMES)
    assert load(path, names=NAMES | {name: None}).n_q == 3


def test_a_map_that_the_family_does_not_have_is_refused(tmp_path):
    path = write(tmp_path, FILE | {"vq.in.weight": np.ones((4, 4))})
    with pytest.raises(CheckpointError, match=r"'norm\.weight' beside its codebooks"):
        load(path, names=NAMES | {"vq.in.weight": "norm.weight"})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"vq.q{}.codebok": "centroids.{}"}, "no tensor of this name; similar: 'vq.q0.codebook'"),
        ({"vq.q{}.codebook": "centroids.0"}, "as many {} in the name"),
        ({"vq.q0.codebook": "centroids.0", "vq.q1.codebook": "centroids.0"},
         "gives 'centroids.0' to both 'vq.q0.codebook' and 'vq.q1.codebook'"),
        ({"vq.q{}.codebook": "centroids.{}", "vq.q0.codebook": "a"}, "two names for 'vq.q0"),
        ({"vq.q0.codebook": "vq.q1.codebook"}, "has a tensor of that name already"),
        ({"vq.q{}.codebook": 3}, "a dictionary of names"),
        ({3: "centroids.0"}, "a dictionary of names"),
        ("centroids", "names"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(names, message, tmp_path):
    path = write(tmp_path, FILE)
    with pytest.raises((ParameterError, CheckpointError), match=re.escape(message)):
        load(path, names=names)


def test_without_names_the_message_says_that_there_may_be_some(tmp_path):
    with pytest.raises(CheckpointError, match="Pass names= for names of its own"):
        load(write(tmp_path, FILE))


def test_names_are_refused_where_arrays_have_none(tmp_path):
    export.faiss(tmp_path / "a.faissindex", np.stack(BOOKS))
    with pytest.raises(ParameterError, match="of family faiss, whose arrays have no names"):
        load(tmp_path / "a.faissindex", names=NAMES)


def info_of(name, kind=0, offset=0, shape=(4, 5)):
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def with_infos(*infos, size=400):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), 0) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(size)


NESTED = struct.pack("<IQ", 9, 1) * 9
DAMAGED = {
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), r"version 1; expected one of \(2, 3\)"),
    "only the mark": (b"GGUF", "ends in its version"),
    "more tensors than bytes": (assembled(FILE, count=1 << 60), "tensor"),
    "more values than bytes": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "the name of a value"),
    "a text beyond the end": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62), "expected 46116",
    ),
    "no text": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2) + b"\xff\xff" + bytes(9),
        "is no text",
    ),
    "an unknown value": (
        assembled(FILE, about=[text("a") + struct.pack("<I", 13)]), "value 'a' has type 13",
    ),
    "a long array": (
        assembled(FILE, about=[text("a") + struct.pack("<IIQ", 9, 4, 1 << 50)]), "value 'a'",
    ),
    "a long array of texts": (
        assembled(FILE, about=[text("a") + struct.pack("<IIQ", 9, 8, 1 << 50)]), "value 'a'",
    ),
    "arrays in arrays": (
        assembled(FILE, about=[text("a") + struct.pack("<I", 9) + NESTED]), "arrays in one another",
    ),
    "a value twice": (
        assembled(FILE, about=[text("a") + struct.pack("<II", 4, 1)] * 2), "value 'a' twice",
    ),
    "alignment": (assembled(FILE, about=[text("general.alignment") + struct.pack("<II", 4, 24)]),
                  "alignment 24; expected a power of two"),
    "an unknown type": (with_infos(info_of("a", 99)), "tensor 'a' has type 99"),
    "too many axes": (with_infos(info_of("a", shape=(1,) * 5)), "tensor 'a' has 5 axes"),
    "beyond the end": (with_infos(info_of("a", offset=1 << 40)), "tensor 'a' is F32"),
    "a huge shape": (with_infos(info_of("a", shape=(1 << 40, 1 << 40))), "tensor 'a' is F32"),
    "overlap": (with_infos(info_of("a"), info_of("b", offset=32)), "'b' overlaps 'a'"),
    "one name twice": (with_infos(info_of("a"), info_of("a", offset=96)), "tensor 'a' twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_name(case, tmp_path):
    content, message = DAMAGED[case]
    (tmp_path / "a.gguf").write_bytes(content)
    refused(tmp_path / "a.gguf", message)


def test_a_file_that_ends_anywhere_is_refused(tmp_path):
    whole = assembled(FILE)
    path = tmp_path / "a.gguf"
    for size in range(0, len(whole) - 16, 31):  # the last bytes pad
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"a\.gguf"):
            load(path, names=NAMES)


@given(data=st.data())
def test_a_mutated_file_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    content = bytearray(assembled(FILE))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError, ParameterError):  # anything else is a defect
        assert load(path, names=NAMES).n_q >= 1


def test_metadata_are_read_and_arrays_passed_over(tmp_path):
    entries, about = gguf.read_header(write(tmp_path, FILE))
    assert list(entries) == list(FILE)
    assert entries["vq.q0.codebook"].shape == (5, 4)
    assert about == {
        "general.architecture": "codec", "codec.n_q": 3, "codec.rate": 12.5, "codec.causal": True,
        "tokens": None, "nested": None, "levels": None,
    }  # fmt: skip


# The command line.


def run(capsys, *arguments):
    code = cli.main([str(each) for each in arguments])
    return code, capsys.readouterr()


def test_info_lists_the_tensors_of_a_file(capsys, tmp_path):
    beside = {"enc.conv.weight": (np.ones((2, 64)), "Q4_0"), "bad\nname": np.ones(1)}
    code, said = run(capsys, "info", write(tmp_path, FILE | beside))
    assert code == 0
    assert "kind                 GGUF" in said.out
    assert "family               not recognised; --names" in said.out
    assert "codec.n_q = 3" in said.out
    assert "F32       5 x 4                 vq.q0.codebook" in said.out
    assert "Q4_0      2 x 64                enc.conv.weight" in said.out
    assert "'bad\\nname'" in said.out


def test_info_says_of_which_family_the_names_are(capsys, tmp_path):
    assert "onerec" in run(capsys, "info", write(tmp_path, {"centroids.0": BOOKS[0]}))[1].out
    case = reference.CASES["dualcodec, acoustic"]()
    _, said = run(capsys, "info", write(tmp_path, case.tensors | case.beside))
    assert "family               dualcodec, with the parts semantic, acoustic" in said.out


def test_commands_read_a_file_with_names(capsys, tmp_path):
    path = write(tmp_path, FILE)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    given = ("--names", tmp_path / "names.json")
    code, said = run(capsys, "info", path, *given)
    assert code == 0
    assert "stages               3" in said.out
    code, _ = run(capsys, "convert", path, *given, "-o", tmp_path / "small.safetensors")
    assert code == 0
    assert load(tmp_path / "small.safetensors") == load(path, names=NAMES)
    x = np.float32(BOOKS[0])
    np.save(tmp_path / "x.npy", x)
    code, _ = run(
        capsys, "encode", tmp_path / "x.npy", "-m", path, *given, "-o", tmp_path / "c.npy"
    )
    assert code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy")[0], np.arange(5))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not valid JSON"), ("[1]", "a dictionary of names"), ("\0\1", "reads a JSON file")],
)
def test_a_map_that_is_none_is_refused(content, message, capsys, tmp_path):
    path = write(tmp_path, FILE)
    (tmp_path / "names.json").write_text(content)
    code, said = run(capsys, "info", path, "--names", tmp_path / "names.json")
    assert code == 1
    assert message in said.err


def test_every_type_of_the_tests_is_one_of_the_reader():
    assert {gguf.TYPES[each]: each for each in gguf_files.TYPES.values()} == gguf_files.TYPES
