"""Files of sound: every form that recorders write, other rates, and what needs a library."""

import struct
import sys
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.errors import InputFileError
from rvq_np.files import wav

BOOKS = np.random.default_rng(0).standard_normal((2, 16, 8)).astype(np.float32)
VALUES = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, -0.125])
GUID = bytes.fromhex("0000000000001000800000aa00389b71")


def riff(values, form, bits, channels=1, extensible=False, rate=8000, before=b""):
    """Return a WAV file, written from the documents of the format and by none of its writers."""
    if form == 3:
        data = np.asarray(values, f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = np.asarray(np.asarray(values) * 128 + 128).clip(0, 255).astype("u1").tobytes()
    else:
        whole = (np.asarray(values) * 2.0 ** (bits - 1)).astype(np.int64).reshape(-1)
        data = b"".join(int(each).to_bytes(8, "little", signed=True)[: bits // 8] for each in whole)
    align = channels * bits // 8
    tag = 0xFFFE if extensible else form
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)
    if extensible:
        fmt += struct.pack("<HHI", 22, bits, 0) + form.to_bytes(2, "little") + GUID[2:]
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


FORMS = {
    "8 bits": (1, 8, False), "16 bits": (1, 16, False), "24 bits": (1, 24, False),
    "32 bits": (1, 32, False), "float": (3, 32, False), "double": (3, 64, False),
    "extensible 16 bits": (1, 16, True), "extensible 24 bits": (1, 24, True),
    "extensible 32 bits": (1, 32, True), "extensible float": (3, 32, True),
}  # fmt: skip


@pytest.fixture(params=["scipy", "soundfile"])
def library(request, monkeypatch):
    """Read with one of both libraries only."""
    if request.param == "soundfile":
        pytest.importorskip("soundfile")
    else:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    return request.param


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_forms_that_recorders_write_are_read(form, channels, library, tmp_path):
    tag, bits, extensible = FORMS[form]
    both = np.repeat(VALUES, channels)
    if channels == 2:
        both[1::2] = 0
    (tmp_path / "x.wav").write_bytes(riff(both, tag, bits, channels, extensible))
    samples, rate = wav.read(tmp_path / "x.wav")
    assert rate == 8000
    assert samples.dtype == np.float64
    np.testing.assert_array_equal(samples, VALUES / channels)
    assert wav.length(tmp_path / "x.wav") == (len(VALUES), 8000)
    with wav.opened(tmp_path / "x.wav") as sound:
        parts = [sound.read(3) for _ in range(4)]
    assert [len(part) for part in parts] == [3, 3, 1, 0]
    np.testing.assert_array_equal(np.concatenate(parts), samples)


def test_other_chunks_and_loud_floats_are_no_trouble(library, tmp_path):
    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    content = riff([0.5, 3.5, -2.0], 3, 32, before=note)
    (tmp_path / "x.wav").write_bytes(content)
    np.testing.assert_array_equal(wav.read(tmp_path / "x.wav")[0], [0.5, 3.5, -2.0])


def test_what_needs_a_library_says_which(tmp_path, monkeypatch):
    for name in ("soundfile", "scipy", "scipy.io", "scipy.signal"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "x.wav"
    for form in ("8 bits", "16 bits", "24 bits", "32 bits"):  # by the standard library
        tag, bits, _ = FORMS[form]
        path.write_bytes(riff(VALUES, tag, bits))
        np.testing.assert_array_equal(wav.read(path)[0], VALUES)
    path.write_bytes(riff(VALUES, 3, 32))
    with pytest.raises(InputFileError, match=r"pip install 'rvq-np\[audio\]'") as caught:
        wav.read(path)
    assert f"{str(path)!r} is a WAV file that needs a library" in str(caught.value)
    (tmp_path / "x.flac").write_bytes(b"fLaC" + bytes(60))
    with pytest.raises(InputFileError, match="is a FLAC file that needs a library"):
        wav.read(tmp_path / "x.flac")
    path.write_bytes(riff(VALUES, 1, 16))
    with pytest.raises(InputFileError, match=r"has 8000 samples per second, and resampling"):
        wav.opened(path, 16000).__enter__()


def test_the_demo_needs_no_library_of_sounds(tmp_path, monkeypatch):
    """The first line of the README installs none."""
    from rvq_np import demo

    for name in ("soundfile", "scipy", "scipy.io", "scipy.signal"):
        monkeypatch.setitem(sys.modules, name, None)
    assert [len(clip.samples) > 16000 for clip in demo.shipped_clips("heldout")] == [True, True]
    (tmp_path / "x.wav").write_bytes(riff(np.tile(VALUES, 100), 1, 24, rate=44100))
    assert len(demo.load_clip(str(tmp_path / "x.wav")).samples) == 254  # 700 at 16000 Hz


def test_flac_is_read_where_soundfile_is(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "x.flac", VALUES, 44100, subtype="PCM_24")
    samples, rate = wav.read(tmp_path / "x.flac")
    assert rate == 44100
    np.testing.assert_allclose(samples, VALUES.clip(-1, 1), atol=2**-22)


def test_wav_in_large_files_of_other_forms_is_read_where_soundfile_is(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for form in ("RF64", "WAVEX"):
        soundfile.write(tmp_path / "x.wav", VALUES, 8000, subtype="PCM_16", format=form)
        np.testing.assert_allclose(wav.read(tmp_path / "x.wav")[0], VALUES, atol=2**-14)


@given(st.data())
def test_damaged_sounds_are_the_documented_error(tmp_path_factory, data):
    form = data.draw(st.sampled_from(sorted(FORMS)))
    content = bytearray(riff(np.tile(VALUES, 9), *FORMS[form][:2], extensible=FORMS[form][2]))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path_factory.mktemp("damaged") / "x.wav"
    path.write_bytes(bytes(content))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "soundfile", None)
        try:
            samples, rate = wav.read(path)
        except (InputFileError, MemoryError):
            return
    assert len(samples) >= 1
    assert rate >= 0


# The command line.


@pytest.fixture
def files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    front = rvq_np.FrontEnd("samples", 8, 8000)
    checkpoints.save("m.safetensors", BOOKS, front_end=front)
    return tmp_path


def run(line, status=0):
    assert cli.main(line.split()) == status


def test_a_sound_of_any_name_and_form_is_encoded(files):
    tone = np.round(np.sin(np.arange(400) / 5) * 2**14) / 2**15
    expected = rvq_np.encode(tone.astype(np.float32).reshape(-1, 8), BOOKS)
    for name, form in (
        ("x.wav", "16 bits"), ("X.WAV", "16 bits"), ("x.wave", "float"), ("noending", "24 bits"),
        ("x.npy", "extensible 16 bits"), ("x.flac", "extensible float"),
    ):  # fmt: skip
        tag, bits, extensible = FORMS[form]
        (files / name).write_bytes(riff(tone, tag, bits, extensible=extensible))
        run(f"encode {name} -m m.safetensors -o c.rvq")
        content = bitstream.read("c.rvq")
        np.testing.assert_array_equal(content.codes, expected)
        assert content.frame_rate == Fraction(8000, 8)
    run("decode c.rvq -m m.safetensors -o Y.WAV")
    with wave.open("Y.WAV") as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 400)


def test_another_rate_is_refused_or_resampled_never_taken_for_the_models(files, capsys):
    time = np.arange(44100) / 44100
    wav.write("x.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 44100)
    run("encode x.wav -m m.safetensors -o c.rvq", status=1)
    err = capsys.readouterr().err
    assert "'x.wav' has 44100 samples per second; the model is for 8000. Pass --resample" in err
    assert err.count("\n") == 1
    assert not Path("c.rvq").exists()
    run("encode x.wav -m m.safetensors -o c.npy --resample")
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000) / 2
    with wav.opened("x.wav", 8000) as sound:
        assert (sound.rate, sound.count) == (8000, 8000)
        np.testing.assert_allclose(sound.read(8000)[100:-100], tone[100:-100], atol=2e-3)
    assert np.load("c.npy").shape == (2, 1000)
    # A model that is for no certain rate takes any, and keeps it.
    checkpoints.save("any.safetensors", BOOKS, front_end=rvq_np.FrontEnd("samples", 8))
    run("encode x.wav -m any.safetensors -o c.rvq")
    assert bitstream.read("c.rvq").frame_rate == Fraction(44100, 8)
    run("decode c.rvq -m any.safetensors -o y.wav")
    assert wav.read("y.wav")[1] == 44100
    run("decode c.rvq -m m.safetensors -o z.wav", status=1)
    assert "44100 samples; the model is for 8000" in capsys.readouterr().err


def test_a_sound_is_resampled_once_and_its_length_is_known_before(files, monkeypatch):
    from scipy import signal

    real, calls = signal.resample_poly, []
    monkeypatch.setattr(signal, "resample_poly", lambda *given: calls.append(1) or real(*given))
    for length in (0, 1, 2, 1001):
        for rate, to in ((44100, 8000), (8000, 44100), (11025, 8000), (16000, 8000)):
            wav.write("x.wav", np.zeros(length), rate)
            with wav.opened("x.wav", to) as sound:
                assert not calls
                assert len(sound.read(1 << 20)) == sound.count
            calls.clear()
    wav.write("x.wav", np.zeros(5000), 16000)
    monkeypatch.setattr(cli.files, "ROWS", 24)
    run("encode x.wav -m m.safetensors -o c.npy --resample")
    assert len(calls) == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_fit_takes_archives(save, files, rng):
    for shape in ((100, 6), (3, 6, 40)):
        x = rng.standard_normal(shape).astype(np.float32)
        save("x.npz", x)
        np.save("x.npy", x)
        for kind in ("npz", "npy"):
            run(f"fit x.{kind} -o {kind}.safetensors --n-q 2 --bins 4 --iterations 2")
        assert Path("npz.safetensors").read_bytes() == Path("npy.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["samples", "mdct"])
def test_fit_takes_sounds(kind, files, rng):
    samples = np.round(rng.uniform(-1, 1, 3003) * 2**14) / 2**15
    wav.write("x.WAV", samples, 16000)
    run(f"fit x.WAV -o m.safetensors --front-end {kind} --dim 12 --n-q 2 --bins 4 --iterations 2")
    rvq = rvq_np.ResidualVectorQuantizer.load("m.safetensors")
    assert rvq.front_end == rvq_np.FrontEnd(kind, 12, 16000)
    if kind == "samples":
        x = np.append(samples, np.zeros(9)).reshape(-1, 12)
    else:
        x = rvq_np.frontend.mdct.forward(samples, 12)
    np.save("x.npy", x.astype(np.float32))
    run(f"fit x.npy -o n.safetensors --front-end {kind} --sample-rate 16000 "
        "--n-q 2 --bins 4 --iterations 2")  # fmt: skip
    assert Path("m.safetensors").read_bytes() == Path("n.safetensors").read_bytes()
    run(f"fit x.WAV -o r.safetensors --front-end {kind} --sample-rate 8000 --n-q 1 --bins 4 "
        "--iterations 1")  # fmt: skip
    front = rvq_np.ResidualVectorQuantizer.load("r.safetensors").front_end
    assert front == rvq_np.FrontEnd(kind, 64, 8000)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fit x.wav -o o.safetensors --front-end embeddings", "expected samples or mdct"),
        ("fit x.wav -o o.safetensors --dim 0", "dim is 0; expected a whole number"),
        ("fit x.wav -o o.safetensors --sample-rate 0", "fit: --sample-rate is 0; expected"),
        ("fit none.wav -o o.safetensors", "'none.wav' has no samples"),
        ("fit x.npy -o o.safetensors --dim 6", "holds vectors of dimension 5, and --dim is 6"),
        ("fit x.npy -o o.safetensors --front-end spectra", "--front-end is 'spectra'; expected"),
        ("fit x.npy -o o.safetensors --front-end latents", "--front-end is 'latents'; expected"),
        ("fit two.npz -o o.safetensors", "'two.npz' holds 2 arrays"),
    ],
)
def test_what_fit_cannot_take_is_one_line(line, said, files, capsys):
    wav.write("x.wav", np.zeros(300), 8000)
    wav.write("none.wav", np.zeros(0), 8000)
    np.save("x.npy", np.ones((40, 5), np.float32))
    np.savez("two.npz", a=np.ones((4, 5)), b=np.ones((4, 5)))
    run(line, status=1)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("o.safetensors").exists()
