"""The command line on files of codes: `.rvq` in and out, archives, sounds, what `info` tells."""

import io
import os
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from helpers import paths

import rvq_np
from rvq_np import Codebooks, Stage, bitstream, checkpoints, cli
from rvq_np.files import wav


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def files(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    books = Codebooks(normal(rng, 3, 16, 6))
    strided = Codebooks([Stage(normal(rng, 9, 6), stride=stride) for stride in (4, 2, 1)])
    checkpoints.save("m.safetensors", books, front_end=rvq_np.FrontEnd("samples", 6))
    checkpoints.save("s.safetensors", strided)
    checkpoints.save("other.safetensors", normal(rng, 3, 16, 6))
    np.save("x.npy", normal(rng, 100, 6))
    np.save("bdt.npy", normal(rng, 3, 6, 20))
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    return tmp_path


def run(line, status=0):
    assert cli.main(line.split()) == status


def model(name):
    return checkpoints.load(f"{name}.safetensors")


def frames(x):
    return x if x.ndim == 2 else x.transpose(0, 2, 1)


@pytest.mark.parametrize("name", ["m", "s"])
@pytest.mark.parametrize("vectors", ["x", "bdt"])
def test_codes_go_to_a_container_and_back(name, vectors, files):
    run(f"encode {vectors}.npy -m {name}.safetensors -o c.rvq --frame-rate 44100/512")
    run(f"decode c.rvq -m {name}.safetensors -o y.npy")
    x = np.load(f"{vectors}.npy")
    expected = rvq_np.encode(frames(x), model(name))
    content = bitstream.read("c.rvq", codebooks=model(name))
    assert content.frame_rate == Fraction(44100, 512)
    for found, stage in zip(content.codes, expected, strict=True):
        np.testing.assert_array_equal(found, stage)
    y = np.load("y.npy")
    assert y.shape == x.shape
    np.testing.assert_array_equal(frames(y), rvq_np.decode(expected, model(name)))


def test_fewer_stages_and_no_frames(files):
    run("encode x.npy -m m.safetensors -o c.rvq --n-q 2")
    run("decode c.rvq -m m.safetensors -o y.npy")
    expected = rvq_np.encode(np.load("x.npy"), model("m"), n_q=2)
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(expected, model("m")))
    np.save("none.npy", np.empty((0, 6), np.float32))
    for name in ("m", "s"):
        run(f"encode none.npy -m {name}.safetensors -o c.rvq")
        run(f"decode c.rvq -m {name}.safetensors -o y.npy")
        assert np.load("y.npy").shape == (0, 6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_with_one_array_is_read_in_pieces(save, order, files):
    for name in ("x", "bdt"):
        x = np.load(f"{name}.npy")
        save("x.npz", np.asarray(x, order=order))
        run("encode x.npz -m m.safetensors -o c.npy")
        np.testing.assert_array_equal(np.load("c.npy"), rvq_np.encode(frames(x), model("m")))


def test_files_larger_than_memory_come_in_pieces(files, rng, monkeypatch):
    monkeypatch.setattr(cli.files, "ROWS", 1000)
    np.savez("long.npz", normal(rng, 60000, 6))
    np.save("wide.npy", normal(rng, 4, 6, 15000))
    for source in ("long.npz", "wide.npy"):
        run(f"encode {source} -m m.safetensors -o c.rvq")
        with paths.traced_memory() as peak:
            run(f"encode {source} -m m.safetensors -o c.npy")
            run("decode c.npy -m m.safetensors -o y.npy")
        assert peak[0] < os.path.getsize(source) / 2


@pytest.fixture
def sound(files, rng):
    samples = np.sin(np.arange(1003) / 5) / 2
    wav.write("x.wav", samples, 8000)
    return np.round(samples * 32768) / 32768


def test_a_sound_is_vectors_of_neighbouring_samples(sound):
    run("encode x.wav -m m.safetensors -o c.rvq")
    x = np.zeros(168 * 6, np.float32)
    x[:1003] = sound
    content = bitstream.read("c.rvq")
    assert content.frame_rate == Fraction(8000, 6)
    np.testing.assert_array_equal(content.codes, rvq_np.encode(x.reshape(-1, 6), model("m")))
    run("decode c.rvq -m m.safetensors -o y.wav")
    samples, rate = wav.read("y.wav")
    assert rate == 8000
    expected = rvq_np.decode(content.codes, model("m")).reshape(-1)
    np.testing.assert_allclose(samples, np.clip(expected, -1, 1), atol=2 / 32768)


def test_info_tells_what_a_container_holds(files, capsys):
    codes = np.stack([np.zeros(1000, int), np.arange(1000) % 8, np.full(1000, -1)])
    bitstream.write("c.rvq", codes, sizes=[16, 8, 16], frame_rate=50)
    run("info c.rvq")
    lines = capsys.readouterr().out.splitlines()
    reported = dict(line.split(None, 1) for line in lines[:8] if "  " in line)
    assert reported["stages"] == "3"
    assert "frames               1000 in 1 chunks" in lines
    assert "frame rate           50 per second (50)" in lines
    assert "duration             20.000 s" in lines
    assert "bandwidth            0.55 kb/s" in lines
    assert "fingerprint          none: codebooks unknown" in lines
    first, second, third = (line.split() for line in lines[-3:])
    assert first[:5] == ["0", "16", "0.0%", "4.000", "0.000"]
    assert second[:6] == ["1", "8", "0.0%", "3.000", "3.000", "3.00"]
    assert third[:5] == ["2", "16", "100.0%", "4.000", "0.000"]
    assert first[6] == "█" and second[6] == "█" * 8  # noqa: PT018
    assert float(first[5]) < 1  # constant codes cost little


def test_info_counts_the_codewords_of_a_model_in_a_container(files, capsys):
    run("encode x.npy -m m.safetensors -o c.rvq")
    run("encode x.npy -m m.safetensors -o c.npy")
    capsys.readouterr()
    tables = []
    for name in ("c.rvq", "c.npy"):
        run(f"info m.safetensors --codes {name}")
        tables.append(capsys.readouterr().out.partition(f"codeword usage in {name}:")[2])
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == 5


def test_info_of_stages_too_large_to_count(files, capsys):
    bitstream.write("c.rvq", np.full((1, 10), 2**31 - 2), sizes=[2**31 - 1])
    with paths.traced_memory() as peak:
        run("info c.rvq")
    assert peak[0] < 1 << 20
    assert capsys.readouterr().out.splitlines()[-1].split()[4] == "-"


def test_info_of_strides_and_streams(files, capsys):
    run("encode bdt.npy -m s.safetensors -o c.rvq")
    run("info c.rvq")
    out = capsys.readouterr().out
    assert "frames per code      4, 2, 1\n" in out
    assert "streams              3\n" in out
    assert f"bits per frame       {np.log2(9) * 1.75:g} as codes" in out
    assert "bandwidth" not in out


def test_verify_reads_everything(files, capsys):
    run("encode x.npy -m m.safetensors -o c.rvq")
    run("verify c.rvq")
    run("verify c.rvq -m m.safetensors")
    assert (
        capsys.readouterr().out == 2 * "c.rvq: 1 chunk, 3 stages, 100 frames: all checksums match\n"
    )
    content = bytearray((files / "c.rvq").read_bytes())
    content[-60] ^= 4
    (files / "bad.rvq").write_bytes(bytes(content))
    run("verify bad.rvq", status=1)
    assert "does not match: the file is damaged" in capsys.readouterr().err
    run("verify c.rvq -m other.safetensors", status=1)
    assert "are of other codebooks" in capsys.readouterr().err


def archive(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


def changed(content, at, to=255):
    return content[:at] + bytes([to]) + content[at + 1 :]


def of_a_later_version(content):
    return changed(content, content.rindex(b"PK\x01\x02") + 6, 200)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("decode c.rvq -m other.safetensors -o y.npy", "the codes are of other codebooks"),
        ("decode x.npy.rvq -m m.safetensors -o y.npy", "there is no file"),
        ("decode bad.rvq -m m.safetensors -o y.npy", "begins with b'RIFF"),
        ("decode c.rvq -m m.safetensors -o y.wav", "holds one stream with a known frame rate"),
        ("info bad.rvq", "begins with b'RIFF"),
        ("verify none.rvq", "there is no file"),
        ("encode x.npy -m m.safetensors -o c2.rvq --frame-rate fast", "--frame-rate is 'fast'"),
        ("encode x.npy -m m.safetensors -o c2.rvq --frame-rate 1/0", "--frame-rate is '1/0'"),
        (
            "encode x.npy -m m.safetensors -o c2.rvq --frame-rate -3",
            "frame_rate must be positive, got -3",
        ),
        ("encode odd.npy -m s.safetensors -o c2.rvq", "multiple of 4"),
        ("encode two.npz -m m.safetensors -o c2.rvq", "'two.npz' holds 2 arrays"),
        (
            "encode text.npz -m m.safetensors -o c2.rvq",
            "'text.npz' is a text file; encode reads",
        ),
        ("encode empty.npz -m m.safetensors -o c2.rvq", "'empty.npz' is not a readable .npz"),
        ("encode foreign.npz -m m.safetensors -o c2.rvq", "'foreign.npz' is not a readable .npz"),
        ("encode cut.npz -m m.safetensors -o c2.rvq", "'cut.npz' is not a readable .npz"),
        ("encode flipped.npz -m m.safetensors -o c2.rvq", "Bad CRC-32"),
        ("encode turned.npz -m m.safetensors -o c2.rvq", "Bad CRC-32"),
        ("decode later.npz -m s.safetensors -o y.npy", "'later.npz' is not an .npz file of codes"),
        ("encode none.npz -m m.safetensors -o c2.rvq", "there is no file 'none.npz'"),
        ("encode bad.wav -m m.safetensors -o c2.rvq", "'bad.wav' is not a PCM WAV file"),
        ("encode none.wav -m m.safetensors -o c2.rvq", "there is no file 'none.wav'"),
        ("encode x.npy -m m.safetensors -o no/c2.rvq", "there is no folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(line, message, files, capsys):
    run("encode x.npy -m m.safetensors -o c.rvq")
    np.save("odd.npy", np.ones((6, 6), np.float32))
    np.savez("two.npz", x=np.ones((4, 6)), y=np.ones((4, 6)))
    header = io.BytesIO()
    np.save(header, np.ones((50, 6), np.float32))
    turned = io.BytesIO()
    np.save(turned, np.asfortranarray(np.ones((50, 6), np.float32)))
    for name, content in {
        "bad.rvq": b"RIFF" + bytes(80), "bad.wav": b"RIFF" + bytes(80), "text.npz": b"text",
        "empty.npz": archive(), "foreign.npz": archive(note=b"hello"),
        "cut.npz": archive(x=header.getvalue()[:-100]),
        "flipped.npz": changed(archive(x=header.getvalue()), 400),
        "turned.npz": changed(archive(x=turned.getvalue()), 400),
        "later.npz": of_a_later_version(archive(stage_0=header.getvalue())),
    }.items():  # fmt: skip
        (files / name).write_bytes(content)
    before = sorted(os.listdir(files))
    capsys.readouterr()
    run(line, status=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rvq-np: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(os.listdir(files)) == before


@pytest.mark.slow
def test_bench_measures_what_is_asked_for(capsys):
    run("bench --dim 4 --codewords 8 --stages 2 --rows 64")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 stages of 8 codewords, dimension 4; ")
    assert lines[1].startswith("kernels: compiled; screening passes: ")
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "encode 64 vectors", "encode one vector", "decode 64 vectors",
        "NumPy: product and argmin, 64",
    ]  # fmt: skip
    with paths.without_numba():
        run("bench --dim 4 --codewords 8 --stages 2 --rows 64")
    run("bench --rows 0", status=1)
    assert "bench: --rows is 0; expected an integer >= 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6\0), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, {}), }",
        b"{'descr': [[]], 'fortran_order': False, 'shape': (2, 6), }",
        b"((((((",
    ],
)
def test_headers_that_numpy_cannot_parse_are_one_line(header, files, capsys):
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(48)
    (files / "bad.npy").write_bytes(content)
    (files / "bad.npz").write_bytes(archive(x=content))
    for name in ("bad.npy", "bad.npz"):
        run(f"encode {name} -m m.safetensors -o c.rvq", status=1)
        err = capsys.readouterr().err
        assert f"'{name}' is not a readable" in err
        assert err.count("\n") == 1


def test_streams_that_no_array_can_hold_are_one_line(files, capsys):
    """No stream of so many frames takes no space in a file of codes."""
    codes = np.empty((3, 0, 1 << 40), np.int32)
    bitstream.write("c.rvq", codes, codebooks=model("m"), chunk_frames=1 << 40)
    run("decode c.rvq -m m.safetensors -o y.npy")
    assert np.load("y.npy").shape == (0, 6, 1 << 40)
    codes = np.empty((3, 1 << 20, 0, 1 << 39), np.int32)
    bitstream.write("c.rvq", codes, codebooks=model("m"), chunk_frames=1 << 40)
    run("decode c.rvq -m m.safetensors -o z.npy", status=1)
    assert "'z.npy' cannot be written: an array of shape" in capsys.readouterr().err


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_with_damaged_data_is_one_line(save, order, files, rng, capsys):
    """Its header is whole, and the checksum of its data wrong only at their end."""
    save("x.npz", np.asarray(normal(rng, 4000, 6), order=order))
    content = bytearray((files / "x.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (files / "x.npz").write_bytes(bytes(content))
    run("encode x.npz -m m.safetensors -o c.npy", status=1)
    err = capsys.readouterr().err
    assert "'x.npz' is not a readable .npz file (" in err
    assert err.count("\n") == 1
    assert not (files / "c.npy").exists()


@pytest.mark.parametrize("claim", [2**20, 2**31, 2**32 - 1])
def test_a_sound_is_as_long_as_its_file_whatever_it_claims(claim, sound, files):
    """As recorders and ffmpeg write it where they cannot go back: the codes are no silence."""
    content = bytearray((files / "x.wav").read_bytes())
    run("encode x.wav -m m.safetensors -o c.rvq")
    expected = bitstream.read("c.rvq")
    content[40:44] = claim.to_bytes(4, "little")
    (files / "x.wav").write_bytes(bytes(content))
    run("encode x.wav -m m.safetensors -o c.rvq")
    np.testing.assert_array_equal(bitstream.read("c.rvq").codes, expected.codes)
    assert wav.length("x.wav") == (1003, 8000)
    assert len(wav.read("x.wav")[0]) == 1003


def test_a_sound_with_a_chunk_beyond_its_end_is_one_line(sound, files, capsys):
    content = bytearray((files / "x.wav").read_bytes())
    content[16:20] = (2**32 - 1).to_bytes(4, "little")
    (files / "x.wav").write_bytes(bytes(content))
    run("encode x.wav -m m.safetensors -o c.rvq", status=1)
    err = capsys.readouterr().err
    assert "'x.wav' is not a PCM WAV file (" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("size", ["dim", "codewords", "stages", "rows"])
def test_sizes_that_no_array_can_have_are_one_line(size, capsys):
    run(f"bench --{size} {10**20}", status=1)
    err = capsys.readouterr().err
    assert "bench: sizes are too large for an array" in err
    assert err.count("\n") == 1
