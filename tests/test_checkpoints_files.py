"""Checkpoints as files: directories, shards, damaged headers, and what of a file is read."""

import functools
import json
import os
import re
import struct

import numpy as np
import pytest
from helpers import paths
from helpers.checkpoint_files import (
    EMBED,
    FORMS,
    ORIGINAL,
    assembled,
    assert_holds,
    book,
    forms,
    headed,
    load_or_refuse,
    numbers,
    refused,
    stack,
    write,
)
from helpers.codecs_of_2026 import REFERENCED
from hypothesis import example, given
from hypothesis import strategies as st

from rvq_np import checkpoints
from rvq_np.errors import CheckpointError, ParameterError
from rvq_np.files import safetensors

pytestmark = pytest.mark.quick


# Directories and shards.


def sharded(folder, parts, index="model.safetensors.index.json"):
    places = {}
    for number, tensors in enumerate(parts):
        name = f"model-{number}.safetensors"
        write(folder, tensors, name)
        places |= dict.fromkeys(tensors, name)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / index


def halves():
    """Return the tensors of an EnCodec in two parts, a stage torn apart, and all of them."""
    tensors, stages = stack(ORIGINAL)
    names = sorted(tensors)
    return [{each: tensors[each] for each in names[start::2]} for start in (0, 1)], stages


def test_shards_are_one_checkpoint(tmp_path):
    parts, stages = halves()
    index = sharded(tmp_path, parts)
    write(tmp_path, {"other": np.ones(3)}, "unrelated.safetensors")
    assert_holds(checkpoints.load(index), stages)
    assert_holds(checkpoints.load(tmp_path), stages)


def test_a_directory_with_one_file_of_any_name(tmp_path):
    tensors, stages = stack(ORIGINAL)
    write(tmp_path, tensors, "encodec.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "config.json").write_text("{}")
    assert_holds(checkpoints.load(tmp_path), stages)
    assert_holds(checkpoints.load(str(tmp_path / "encodec.safetensors")), stages)


def test_a_directory_with_several_files_wants_a_name(tmp_path):
    tensors, stages = stack(ORIGINAL)
    write(tmp_path, tensors, "a.safetensors")
    write(tmp_path, {"x": np.ones(2)}, "b.safetensors")
    refused(tmp_path, "has 2 files .*Pass the path of the file")
    write(tmp_path, tensors)
    assert_holds(checkpoints.load(tmp_path), stages)


def test_a_directory_without_weights_names_the_pickles_in_it(tmp_path):
    refused(tmp_path, "has 0 files")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(tmp_path, r"not opened: \['pytorch_model.bin'\]")


@pytest.mark.parametrize(
    "name",
    ["../model-0.safetensors", "/etc/passwd", "sub/model-0.safetensors", "..", ".", "", "sub",
     "missing.safetensors", "a\0b", "x" * 400, "..\\model-0.safetensors", "\ud800"],
)  # fmt: skip
def test_a_shard_is_a_file_beside_the_index(name, tmp_path):
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    parts, _ = halves()
    index = sharded(folder, parts)
    for place in (tmp_path, folder / "sub"):
        write(place, parts[0], "model-0.safetensors")
    reported = json.loads(index.read_text())
    reported["weight_map"][min(parts[0])] = name
    index.write_text(json.dumps(reported))
    refused(index, "names the shard .*; expected a file beside it")


@pytest.mark.parametrize("content", ['{"weight_map": []}', "{}", '{"weight_map": "a"}'])
def test_an_index_wants_a_map(content, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    refused(path, "has no 'weight_map'")


@pytest.mark.parametrize("content", ["", "[]", "{", '"a"', "\xff", "[" * 100000])
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_json_beside_the_weights_that_is_none_is_refused(content, name, tmp_path):
    tensors, _ = stack(ORIGINAL)
    write(tmp_path, tensors)
    (tmp_path / name).write_text(content, encoding="latin-1")
    refused(tmp_path, "is not valid JSON|JSON that is not an object", file=name)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    parts, _ = halves()
    name = min(parts[1])
    refused(sharded(tmp_path, [{**parts[0], name: parts[1][name]}, parts[1]]), name, file="model-0")


def test_a_tensor_that_the_index_has_and_no_shard_is_refused(tmp_path):
    """Or a checkpoint that lost its last shard would be one with fewer stages."""
    tensors, _ = stack(ORIGINAL)
    last = ORIGINAL.format(2) + ".embed"
    index = sharded(tmp_path, [tensors])
    write(tmp_path, {k: v for k, v in tensors.items() if k != last}, "model-0.safetensors")
    refused(index, "no shard has", tensor=last)


def test_no_file_is_the_builtin_error(tmp_path):
    for name in ("nothing.safetensors", "nothing", "nothing.pth", "a\0b"):
        with pytest.raises(FileNotFoundError, match="there is no file or directory"):
            checkpoints.load(tmp_path / name)


def test_a_family_that_is_none_is_a_parameter_error(tmp_path):
    with pytest.raises(
        ParameterError, match="family is 'wavenet'; expected one of audiocraft, audiodec, dac, "
    ):
        checkpoints.load(tmp_path / "whatever", "wavenet")
    assert checkpoints.families() == sorted(
        {family for family, _ in FORMS.values()}
        | {"audiocraft", "faiss", "rvq_np", "snac", *REFERENCED}
    )


@forms
def test_a_family_it_is_not_of_is_refused(form, tmp_path):
    family, make = FORMS[form]
    path = write(tmp_path, make()[0])
    alike = {family}
    if family in ("encodec", "espnet", "speechtokenizer") and "port" not in form:
        alike = {  # the names are the same
            "audiocraft", "encodec", "espnet", "higgs_audio", "mimo_audio", "speechtokenizer"
        }  # fmt: skip
    if "hificodec" in form:
        alike = {family}
    if family == "xcodec":
        alike |= {"higgs_audio"}
    for other in set(checkpoints.families()) - alike:
        refused(
            path,
            "expected one|is not |has no tensor|vq_strides of|format of rvq_np|beside its code",
            family=other,
        )


def test_unknown_tensors_are_of_no_family_and_all_are_named(tmp_path):
    names = ["lstm.weight", "q.codebook.0.embed_sum", "zz.bias", "a.bias", "b.bias"]
    path = write(tmp_path, {name: np.ones(2) for name in names})
    refused(path, "5 tensors, such as 'q.codebook.0.embed_sum', 'a.bias'")
    refused(path, ", ".join(checkpoints.families()))
    refused(path, "is not of family dac|has 0 quantizers", family="dac")


def test_a_file_without_tensors(tmp_path):
    refused(write(tmp_path, {}), "0 tensors, such as none")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl"])
def test_a_pickle_is_refused_unread_with_the_code_that_converts_it(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x80\x04\x95never")
    refused(path, "is a pickle, which can run code")
    refused(path, "is a pickle", family="encodec")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    code = re.sub("^    ", "", str(caught.value).partition("\n")[2], flags=re.MULTILINE)
    compile(code, "conversion", "exec")
    assert f"torch.load('weights{suffix}', map_location='cpu', weights_only=True)" in code


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04" + bytes(300), "is a zip archive, not a safetensors file"),
     (b"\x80\x04pickle" * 30, "is a pickle, which can run code"),
     (b"\xff" * 64, "truncated, or not a safetensors file"),
     (b"\x89HDF\r\n\x1a\n" * 9, "is an HDF5 file, not a safetensors file"),
     (b"", "truncated, or not a safetensors file"),
     (b"{}", "is a JSON file, not a safetensors file"),
     (bytes(7), "truncated, or not a safetensors file")],
)  # fmt: skip
def test_what_is_no_safetensors_is_refused(content, said, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, said)


@functools.cache
def small():
    """Return a small valid file: two stages of three codewords of two numbers."""
    tensors = {
        **book("vq.layers.0._codebook", numbers(1, 3, 2)),
        **book("vq.layers.1._codebook", numbers(2, 3, 2)),
    }
    return assembled(tensors)


def test_truncated_anywhere_it_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    for length in range(len(small())):
        path.write_bytes(small()[:length])
        refused(path, "truncated, or not a safetensors file|bytes of data|is not valid JSON")
    path.write_bytes(small())
    checkpoints.load(path)


@pytest.mark.parametrize("claim", [3, 100, 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_header_longer_than_the_file_costs_nothing(claim, tmp_path):
    path = tmp_path / "claim.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + b"{}")
    with paths.traced_memory() as peak:
        refused(path, f"bytes, but a header of {claim} bytes:")
    assert peak[0] < 1 << 20


def test_a_huge_header_is_not_read_even_if_the_file_is_as_large(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 200 << 20))
    os.truncate(path, 300 << 20)  # sparse: takes no space
    with paths.traced_memory() as peak:
        refused(path, "but a header of")
    assert peak[0] < 1 << 20


_SHAPED = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_offsets": [0, 23]}, "at bytes 0 to 23; expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [24, 0]}, "at bytes 24 to 0; expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [1 << 40, (1 << 40) + 24]}, "expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [10**30, 10**30 + 24]}, "expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [-24, 0]}, "expected a known dtype"),
        ({"data_offsets": [0, 24, 48]}, "expected a known dtype"),
        ({"data_offsets": []}, "expected a known dtype"),
        ({"data_offsets": 24}, "expected a known dtype"),
        ({"data_offsets": None}, "expected a known dtype"),
        ({"data_offsets": "ab"}, "expected a known dtype"),
        ({"data_offsets": ["0", "24"]}, "expected a known dtype"),
        ({"data_offsets": [0.0, 24.0]}, "expected a known dtype"),
        ({"data_offsets": [float("nan"), 24]}, "expected a known dtype"),
        ({"data_offsets": [False, 24]}, "expected a known dtype"),
        ({"data_offsets": {"a": 0, "b": 24}}, "expected a known dtype"),
        ({"shape": [3, -2]}, "expected a known dtype"),
        ({"shape": [-3, -2]}, "expected a known dtype"),
        ({"shape": [3.0, 2]}, "expected a known dtype"),
        ({"shape": [6.0], "data_offsets": [1, 0]}, "expected a known dtype"),
        ({"shape": [True, 6]}, "expected a known dtype"),
        ({"shape": "32"}, "expected a known dtype"),
        ({"shape": None}, "expected a known dtype"),
        ({"shape": 6}, "expected a known dtype"),
        ({"shape": [[3, 2]]}, "expected a known dtype"),
        ({"shape": [10**40, 10**40]}, r"expected 40{80} bytes within the 24 bytes"),
        ({"shape": [1] * 65 + [3, 2]}, "expected a known dtype"),
        ({"shape": [1] * 62 + [3, 2]}, "shape"),
        ({"shape": [0, 2], "data_offsets": [0, 0]}, "is empty"),
        ({"shape": [0, 10**30], "data_offsets": [0, 0]}, "is empty"),
        ({"dtype": "F33"}, "expected a known dtype"),
        ({"dtype": "f32"}, "expected a known dtype"),
        ({"dtype": ["F32"]}, "expected a known dtype"),
        ({"dtype": None}, "expected a known dtype"),
        ({"dtype": "I32"}, "has type I32; expected floats"),
        ({"dtype": "F8_E4M3", "shape": [24]}, "has type F8_E4M3; expected floats"),
    ],
    ids=str,
)
def test_a_tensor_that_cannot_be_is_refused_by_name(changes, message, tmp_path):
    def change(header):
        header[EMBED] = {**header[EMBED], **changes}

    path = write(tmp_path, {EMBED: numbers(1, 3, 2)}, change=change)
    refused(path, message, tensor=EMBED.removesuffix(".embed"))


@pytest.mark.parametrize("reported", [None, 5, "F32", [], {}, {"dtype": "F32"}, [_SHAPED], True])
def test_a_header_that_is_none_is_refused_by_name(reported, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(headed(json.dumps({EMBED: reported}).encode(), bytes(24)))
    refused(path, "expected a known dtype, shape and data_offsets", tensor=EMBED)


def test_tensors_that_overlap_are_refused(tmp_path):
    def change(header):
        header["b"]["data_offsets"] = [20, 44]

    codewords = numbers(1, 3, 2)
    path = write(tmp_path, {EMBED: codewords, "b": codewords, "c": codewords}, change=change)
    refused(path, f"'b' overlaps '{EMBED}'")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"3", b'{"a": 1', b"{'a': 1}", b"\xff\xfe", b"[" * 200000,
     b'{"a": ' * 100000, b'{"vq": ' + b"9" * 5000 + b"}"],
    ids=lambda header: str(header[:9]),
)  # fmt: skip
def test_a_header_that_is_no_json_object_is_refused(header, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(headed(header, bytes(24)))
    refused(path, "is not valid JSON|holds JSON that is not an object")


# What is read.


def test_nothing_but_the_tensors_of_the_quantizer_is_read(tmp_path, monkeypatch):
    """Not a byte of what lies between them: 50 MB, of which no more than the codewords are held."""
    tensors, stages = stack(ORIGINAL, 2)
    first, second = (
        {name: value for name, value in tensors.items() if f".{stage}." in name} for stage in (0, 1)
    )
    big = np.zeros(50 << 18, np.float32)
    path = write(tmp_path, {**first, "decoder.weight": big, **second})
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    spans = []
    builtin = open

    class Watched:
        def __init__(self, *arguments):
            self.file = builtin(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, place):
            return self.file.seek(place)

        def read(self, size):
            spans.append((self.file.tell(), size))
            return self.file.read(size)

    monkeypatch.setattr(safetensors, "open", Watched, raising=False)
    with paths.traced_memory() as peak:
        codebooks = checkpoints.load(path)
    assert_holds(codebooks, stages)
    assert peak[0] < 2 << 20
    assert spans[:2] == [(0, 8), (8, start - 8)]
    expected = {
        (
            start + reported["data_offsets"][0],
            reported["data_offsets"][1] - reported["data_offsets"][0],
        )
        for name, reported in header.items()
        if name.endswith((".embed", ".inited"))
    }
    assert set(spans[2:]) == expected
    assert len(spans[2:]) == len(expected)


@given(data=st.data())
def test_a_mutated_file_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    content = bytearray(small())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(content) - 1)))
        change = data.draw(st.sampled_from(["set", "digit", "insert", "delete", "copy"]))
        if change == "set":
            content[where] = data.draw(st.integers(0, 255))
        elif change == "digit":
            content[where] = data.draw(st.sampled_from(b'0123456789-.eE,:[]{}"'))
        elif change == "insert":
            content[where:where] = data.draw(st.binary(max_size=9))
        elif change == "delete":
            del content[where : where + data.draw(st.integers(1, 9))]
        else:
            other = data.draw(st.integers(0, len(content) - 1))
            content[where : where + 8] = content[other : other + 8]
        if not content:
            break
    load_or_refuse(tmp_path_factory, bytes(content))


def keys(value):
    return st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | keys(inner),
    max_leaves=8,
)


sizes = st.integers(-2, 9) | st.integers() | anything


reported = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "BOOL", "I32"]) | anything,
        "shape": st.lists(sizes, max_size=4) | anything,
        "data_offsets": st.lists(sizes, min_size=2, max_size=2) | anything,
    }
)


names = st.text() | st.sampled_from(
    [
        EMBED,
        "vq.layers.1._codebook.embed",
        "vq.layers.0._codebook.inited",
        "vq.layers.0.project_in.weight",
        "layers.0.codebook.embed",
        "layers.0._codebook.initted",
        "quantizers.0.codebook.weight",
        "quantizers.0.in_proj.weight_v",
        "quantizers.0.in_proj.weight",
        "__metadata__",
    ]
)


@given(header=st.dictionaries(names, reported | anything, max_size=4), data=st.binary(max_size=40))
@example(header={EMBED: {"dtype": "F32", "shape": [1.0], "data_offsets": [1, 0]}}, data=bytes(9))
@example(header={EMBED: {"dtype": "F32", "shape": [], "data_offsets": ["a", "b"]}}, data=bytes(9))
def test_any_header_loads_or_is_a_checkpoint_error(header, data, tmp_path_factory):
    load_or_refuse(tmp_path_factory, headed(json.dumps(header).encode(), data))
