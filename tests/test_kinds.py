"""What a file is: recognized by its content, in the message of whoever expected another kind."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.errors import BitstreamError, CheckpointError, ModelFileError
from rvq_np.files import kinds, wav

FAISS = Path(__file__).parent / "data" / "faiss"
BOOKS = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)


def torch_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, x=np.ones((3, 4), np.float32))
    return file.getvalue()


def written(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def floats():
    """A WAV file of float samples in an extensible header, by the format's own documents."""
    fmt = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 32000, 4, 32, 22, 32, 4)
    fmt += bytes.fromhex("0300000000001000800000aa00389b71")
    data = np.linspace(-1, 1, 50, dtype="<f4").tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


CONTENTS = {
    "wav": (floats(), "a WAV file"),
    "flac": (b"fLaC\0\0\0\x22" + bytes(60), "a FLAC file"),
    "ogg": (b"OggS\0\2" + bytes(60), "an Ogg file"),
    "mp3": (b"ID3\4\0" + bytes(60), "an MP3 file"),
    "aiff": (b"FORM\0\0\0\x40AIFFCOMM" + bytes(60), "an AIFF file"),
    "npy": (written(lambda f: np.save(f, np.ones((3, 4)))), "an .npy file"),
    "npz": (npz(), "an .npz archive"),
    "zip": (b"PK\5\6" + bytes(18), "a zip archive"),
    "rvq": (written(lambda f: bitstream.write(f, np.zeros((2, 3), int), sizes=(8, 8))),
            "an .rvq file of codes"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle"),
    "pickle in zip": (torch_zip(), "a pickle in a zip archive, as torch.save writes it"),
    "json": (json.dumps({"a": [1, 2]}, indent=1).encode(), "a JSON file"),
    "csv": (b"stage_0,stage_1\n1,2\n3,4\n", "a CSV file"),
    "text": ("these are not vectors, é\n".encode()[:-1], "a text file"),
    "empty": (b"", "an empty file"),
    "faiss": ((FAISS / "IVF4-RQ3x3.faissindex").read_bytes(),
              "a Faiss index of kind IndexIVFResidualQuantizer"),
    "parquet": (b"PAR1" + bytes(20) + b"PAR1", "a Parquet file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(60), "an ONNX graph"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(16), "a GGUF file"),
    "c header": (b"/* a, b */\n#define A 1\n", "C source"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(30), "a PNG picture"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.save("m.safetensors", BOOKS)
    for name, (content, _) in CONTENTS.items():
        Path(f"{name} file").write_bytes(content)
    return tmp_path


@pytest.mark.quick
@pytest.mark.parametrize("name", CONTENTS)
def test_the_content_tells_the_kind(name, folder):
    found = kinds.of(f"{name} file")
    assert found.said == CONTENTS[name][1]
    assert found.name == name.split()[0]
    assert kinds.of("m.safetensors").name == "safetensors"


@pytest.mark.quick
@pytest.mark.parametrize("begin", range(4))
def test_a_text_is_one_wherever_what_is_looked_at_ends(begin, folder):
    content = b"x" * begin + "\U0001d11e".encode() * kinds.HEAD  # four bytes each
    Path("long").write_bytes(content)
    assert kinds.of("long").name == "text"
    Path("cut").write_bytes(content[: kinds.HEAD // 2 + begin + 1])  # the file itself ends in one
    assert kinds.of("cut") == kinds.UNKNOWN


@pytest.mark.quick
def test_what_is_no_regular_file_is_not_opened(folder):
    os.mkfifo("pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    for name in ("pipe", "socket"):
        assert kinds.of(name) == kinds.Kind(name, f"a {name}")
    assert kinds.of("/dev/null").name == "device"
    assert kinds.of(".").name == "folder"
    for name in ("nothing", "a\0b"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            kinds.of(name)


@given(st.binary(max_size=200), st.sampled_from([b"", *(each for each, _ in CONTENTS.values())]))
def test_any_bytes_have_a_kind(content, before):
    """Also where a known beginning is cut."""
    for whole in (content, before[: len(content)] + content):
        assert isinstance(kinds.of_bytes(whole, len(whole)), kinds.Kind)


COMMANDS = {  # what each reads, and what it says it reads
    "info {}": ("rvq npz pickle gguf", "info reads models and .rvq files"),
    "encode {} -m m.safetensors -o o.npy": (
        "npy npz wav csv parquet",
        "encode reads vectors: .npy, .npz, .csv",
    ),
    "fit {} -o o.safetensors": ("npy npz wav csv parquet", "fit reads vectors: .npy, .npz, .csv"),
    "decode {} -m m.safetensors -o o.npy": (
        "rvq npy npz csv parquet",
        "decode reads codes: .rvq, .npy",
    ),
    "verify {}": ("rvq", "verify reads .rvq files"),
    "info m.safetensors --codes {}": ("rvq npy npz csv parquet", "info --codes reads codes"),
    "encode x.npy -m {} -o o.npy": ("npz pickle gguf", "encode needs a model: a file of rvq_np"),
    "decode x.npy -m {} -o o.npy": ("npz pickle gguf", "decode needs a model: a file of rvq_np"),
    "convert {} -o o.safetensors": ("npz pickle gguf", "convert needs a model: a file of rvq_np"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_file_of_another_kind_is_named_as_what_it_is(line, folder, capsys):
    np.save("x.npy", np.zeros((3, 4), np.float32))
    read, reads = COMMANDS[line]
    os.mkfifo("pipe file")
    before = sorted(os.listdir())
    capsys.readouterr()
    for name, said in [(name, said) for name, (_, said) in CONTENTS.items()] + [("pipe", "a pipe")]:
        sounds = "npy" in read and "wav" in read and name.split()[0] in kinds.SOUNDS
        served = name == "faiss" and ("-m {}" in line or line.startswith(("info {", "convert")))
        if name.split()[0] in read.split() or name == "empty" or sounds or served:
            continue
        status = cli.main([each.format(f"{name} file") for each in line.split()])
        out, err = capsys.readouterr()
        assert (status, out) == (1, "")
        assert err == f"rvq-np: error: '{name} file' is {said}; {err.partition('; ')[2]}"
        assert reads in err
        assert err.count("\n") == 1
    assert sorted(os.listdir()) == before


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(set(CONTENTS) - {"empty", "faiss"}))
def test_the_library_names_it_as_well(name, folder):
    said = CONTENTS[name][1]
    with pytest.raises(ModelFileError, match=f"'{name} file' is {said}, not a readable safetens"):
        rvq_np.ResidualVectorQuantizer.load(f"{name} file")
    if name == "npz":  # which may be a checkpoint
        with pytest.raises(CheckpointError, match="has 1 tensors, such as 'x', and is of none"):
            checkpoints.load(f"{name} file")
    elif name == "gguf":
        with pytest.raises(CheckpointError, match="has 0 tensors, such as none, and is of none"):
            checkpoints.load(f"{name} file")
    elif "pickle" not in name:
        with pytest.raises(CheckpointError, match=f"'{name} file' is {said}, not a safetensors"):
            checkpoints.load(f"{name} file")
    else:
        with pytest.raises(CheckpointError, match="is a pickle, which can run code"):
            checkpoints.load(f"{name} file")
    if name != "rvq":
        with pytest.raises(BitstreamError, match=f"'{name} file' is {said}, not an .rvq file"):
            bitstream.read(f"{name} file")


@pytest.mark.quick
def test_a_pipe_is_no_model(folder):
    os.mkfifo("pipe")
    with pytest.raises(ModelFileError, match="'pipe' is a pipe"):
        rvq_np.ResidualVectorQuantizer.load("pipe")
    with pytest.raises(CheckpointError, match="'pipe' is a pipe; expected a regular file"):
        checkpoints.load("pipe")
    with pytest.raises(BitstreamError, match="'pipe' is a pipe"):
        bitstream.read("pipe")


# Faiss: tests/data/faiss/make.py wrote these with Faiss itself, and extracted their quantizers.


@pytest.mark.quick
@pytest.mark.parametrize("name", ["IDMap-RQ3x3", "RCQ3x3"])
def test_a_faiss_index_with_the_same_quantizer_is_served(name):
    family, found = checkpoints.load_as(FAISS / f"{name}.faissindex")
    expected = checkpoints.load(FAISS / f"{name}-inner.faissindex")
    assert family == "faiss"
    assert found == expected
    assert found.sizes == (8, 8, 8)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["PCA4-RQ3x3", "OPQ4-RQ3x3"])
def test_the_quantizer_behind_a_map_is_the_one_within(name):
    found = checkpoints.load(FAISS / f"{name}.faissindex")
    inner = checkpoints.load(FAISS / f"{name}-inner.faissindex")
    assert isinstance(found, rvq_np.Projected)
    assert found.parts == (inner,)


@pytest.mark.quick
def test_the_quantizer_behind_inverted_lists_has_their_centroids_in_front():
    found = checkpoints.load(FAISS / "IVF4-RQ3x3.faissindex")
    inner = checkpoints.load(FAISS / "IVF4-RQ3x3-inner.faissindex")
    assert found.sizes == (4, 8, 8, 8)
    assert found.stages[1:] == inner.stages


@pytest.mark.quick
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (b"IRfs", "IndexResidualQuantizerFastScan"),
        (b"IxF2", "IndexFlatL2"),
        (b"IwPQ", "IndexIVFPQ"),
    ],
)
def test_another_faiss_index_is_named_with_what_to_do(code, kind, tmp_path, capsys):
    content = bytearray((FAISS / "RCQ3x3.faissindex").read_bytes())
    content[:4] = code
    path = tmp_path / "other.faissindex"
    path.write_bytes(content)
    message = f"is a Faiss index of kind {kind}; expected a residual or additive quantizer"
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path)
    assert "write the plain index it was made of" in str(caught.value)
    assert cli.main(["info", str(path)]) == 1
    err = capsys.readouterr().err
    assert f"is a Faiss index of kind {kind}; " in err
    assert err.count("\n") == 1


@pytest.mark.quick
def test_what_is_behind_a_map_that_cannot_be_undone_comes_with_the_lines_that_take_it_out(tmp_path):
    content = bytearray((FAISS / "PCA4-RQ3x3.faissindex").read_bytes())
    content[content.index(b"Pcam") : content.index(b"Pcam") + 4] = b"VNrm"
    (tmp_path / "normed").write_bytes(content)
    with pytest.raises(CheckpointError, match="behind a transform of kind 'VNrm'; ") as caught:
        checkpoints.load(tmp_path / "normed")
    assert "index = faiss.read_index(PATH)" in str(caught.value)
    assert "faiss.write_index(" in str(caught.value)


@pytest.mark.quick
def test_a_faiss_index_of_a_kind_to_come_is_a_faiss_index(tmp_path):
    content = bytearray((FAISS / "IVF4-RQ3x3.faissindex").read_bytes())
    content[:4] = b"IxZ9"
    (tmp_path / "new").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="is a Faiss index of kind 'IxZ9'; expected"):
        checkpoints.load(tmp_path / "new")
    wrapped = bytearray((FAISS / "IDMap-RQ3x3.faissindex").read_bytes())
    wrapped[37:41] = b"IxF2"
    (tmp_path / "wrapped").write_bytes(bytes(wrapped))
    with pytest.raises(CheckpointError, match="kind IndexIDMap, around one of kind IndexFlatL2"):
        checkpoints.load(tmp_path / "wrapped")


@pytest.mark.quick
def test_a_name_in_large_letters_is_the_same_ending(folder, capsys):
    np.save("X.NPY", np.zeros((3, 4), np.float32))
    os.rename("X.NPY.npy", "X.NPY") if os.path.exists("X.NPY.npy") else None
    np.savez("y.npz", np.zeros((3, 4), np.float32))
    os.rename("y.npz", "Y.NPZ")
    for source in ("X.NPY", "Y.NPZ"):
        for target in ("out.RVQ", "out.Npy"):
            assert cli.main(["encode", source, "-m", "m.safetensors", "-o", target]) == 0
    assert kinds.of("out.RVQ").name == "rvq"
    assert kinds.of("out.Npy").name == "npy"
    assert cli.main(["decode", "out.RVQ", "-m", "m.safetensors", "-o", "back.NPY"]) == 0
    assert kinds.of("back.NPY").name == "npy"
    capsys.readouterr()
    assert cli.main(["info", "out.RVQ"]) == 0
    assert "codebook size        8" in capsys.readouterr().out
    wav.write("clip.wav", np.zeros(3), 8000)  # a name says nothing against the content
    os.rename("clip.wav", "clip.npy")
    assert kinds.of("clip.npy").name == "wav"
