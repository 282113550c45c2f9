"""The demo on the speech that ships: each stage adds, and the top is intelligible."""

import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pystoi import stoi

import rvq_np
from rvq_np import demo
from rvq_np.cli import main
from rvq_np.demo import mdct
from rvq_np.errors import InputFileError
from rvq_np.files import wav

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """The whole demo, run once: folder, what it printed, its stages."""
    import contextlib
    import io

    folder, printed = tmp_path_factory.mktemp("demo") / "out", io.StringIO()
    with contextlib.redirect_stdout(printed):
        stages = demo.run(out=str(folder), progress=False)
    return folder, printed.getvalue(), stages


def samples_of(path):
    samples, rate = wav.read(path)
    assert rate == 16000
    return samples


@pytest.mark.slow
def test_every_stage_adds_to_the_held_out_signal(spoken):
    stages = spoken[2]
    assert [stage.n_q for stage in stages] == list(range(1, 9))
    assert [stage.kbps for stage in stages] == [2.5 * n for n in range(1, 9)]
    for clip in range(2):
        assert all(one.snr[clip] + 0.3 < two.snr[clip] for one, two in pairwise(stages))
    assert min(stages[-1].snr) > 15
    assert all(stage.utilisation > 0.95 for stage in stages)


def test_the_top_bitrate_is_intelligible_and_more_so_than_the_lowest(spoken):
    """Short-time objective intelligibility (Taal et al. 2011) of the files as they were written."""
    folder = spoken[0]
    for clip in ("reader-0890", "cards-002"):
        original = samples_of(folder / f"{clip}-original.wav")
        low = samples_of(folder / f"{clip}-2.5-kbps.wav")
        top = samples_of(folder / f"{clip}-20-kbps.wav")
        assert len(original) == len(low) == len(top)
        assert stoi(original, top, 16000) > 0.9
        assert stoi(original, low, 16000) < stoi(original, top, 16000) - 0.1


def test_the_table_and_the_files_are_all_there(spoken):
    folder, printed, stages = spoken
    rows = [line.split() for line in printed.splitlines()]
    for stage in stages:
        row = next(row for row in rows if row[:1] == [str(stage.n_q)])
        assert row[1] == f"{stage.kbps:.1f}"
        assert row[2] == f"{stage.snr[0]:.1f}"
    assert "SNR reader-0890" in printed
    assert "codewords used" in printed
    assert "x real time" in printed
    assert len(list(folder.glob("*.wav"))) == 18
    for picture in ("rate-distortion.png", "spectrograms.png"):
        assert (folder / picture).read_bytes().startswith(PNG)
    page = folder / "index.html"
    assert printed.splitlines()[-1] == f"Open {page} in a browser to listen and compare."
    content = page.read_text("utf-8")
    assert content.count("<audio ") == 18
    for stage in stages:
        assert f"<b>{stage.kbps:g} kb/s</b> <span>SNR {stage.snr[0]:.1f} dB</span>" in content
        assert f"<td>{stage.n_q}</td><td>{stage.kbps:.1f}</td>" in content


def test_the_table_tells_what_the_files_hold(spoken):
    folder, _, stages = spoken
    original = samples_of(folder / "reader-0890-original.wav")
    for stage in stages:
        name = f"reader-0890-{stage.kbps:g}-kbps.wav"
        measured = demo.signal_to_noise(original, samples_of(folder / name))
        assert measured == pytest.approx(stage.snr[1], abs=0.1)  # 16 bits


def test_held_out_clips_are_not_among_those_trained_on():
    training, heldout = (demo.shipped_clips(kind) for kind in ("train", "heldout"))
    assert len(training) == 8
    assert len(heldout) == 2
    assert not {clip.name for clip in training} & {clip.name for clip in heldout}
    for clip in heldout:
        for other in training:
            length = min(len(clip.samples), len(other.samples))
            assert not np.array_equal(clip.samples[:length], other.samples[:length])


def test_the_recordings_terms_are_beside_them():
    from pathlib import Path

    terms = Path(demo.__file__).parent / "data" / "LICENSE.txt"
    assert "Redistribution and use" in terms.read_text()


def test_it_does_the_same_to_a_recording_of_the_users(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "STAGES", 2)
    monkeypatch.setattr(demo, "CODEWORDS", 32)
    sound = 0.3 * np.sin(np.arange(44100) * 0.05)
    with wave.open(str(tmp_path / "mine.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(3)
        file.setframerate(44100)
        values = np.repeat((sound * 2**23).astype("<i4"), 2)
        file.writeframes(values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--wav", "mine.wav", "-o", "heard"]) == 0
    out, err = capsys.readouterr()
    assert "SNR mine" in out
    assert err == ""
    names = sorted(path.name for path in (tmp_path / "heard").glob("*.wav"))
    assert names == ["mine-1.25-kbps.wav", "mine-2.5-kbps.wav",
                     "mine-original.wav"]  # fmt: skip
    back = samples_of(tmp_path / "heard" / "mine-original.wav")
    np.testing.assert_allclose(
        back[2000:14000], 0.3 * np.sin(np.arange(16000) * 0.05 * 44.1 / 16)[2000:14000], atol=1e-3
    )


def test_without_matplotlib_there_are_files_but_no_pictures(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(demo, "STAGES", 1)
    monkeypatch.setattr(demo, "CODEWORDS", 4)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    demo.run(out=str(tmp_path / "out"))
    assert "For plots as PNG files, install matplotlib" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").read_text("utf-8").count("<audio ") == 4
    assert not list((tmp_path / "out").glob("*.png"))
    assert len(list((tmp_path / "out").glob("*.wav"))) == 4


@given(st.integers(0, 400), st.sampled_from([1, 8, 64]), st.integers(0, 2**32 - 1))
def test_the_transform_is_invertible(length, dim, seed):
    samples = np.random.default_rng(seed).uniform(-1, 1, length)
    vectors = mdct.forward(samples, dim)
    assert vectors.shape == (-(-length // dim) + 1, dim)
    np.testing.assert_allclose(mdct.inverse(vectors, length), samples, atol=2e-6)


def test_the_transform_is_that_of_its_formula():
    samples, dim = np.random.default_rng(0).standard_normal(40), 8
    padded = np.concatenate([np.zeros(dim), samples, np.zeros(dim)])
    vectors = mdct.forward(samples, dim)
    for t in range(6):
        for k in range(dim):
            total = sum(
                np.sin(np.pi * (n + 0.5) / (2 * dim)) * padded[t * dim + n]
                * np.cos(np.pi / dim * (n + 0.5 + dim / 2) * (k + 0.5))
                for n in range(2 * dim)
            )  # fmt: skip
            assert vectors[t, k] == pytest.approx(np.sqrt(2 / dim) * total, abs=1e-5)


def test_an_offset_is_a_later_start():
    samples = np.random.default_rng(0).standard_normal(50)
    late = mdct.forward(np.concatenate([np.zeros(3), samples]), 8)
    np.testing.assert_allclose(mdct.forward(samples, 8, offset=3), late, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_any_width_are_read(width, tmp_path):
    values = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])
    raw = (values * 2.0 ** (8 * width - 1)).astype(np.int64)
    content = b"".join(
        int(each + 128).to_bytes(1, "little")
        if width == 1
        else int(each).to_bytes(width, "little", signed=True)
        for each in raw
    )
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(content)
    samples, rate = wav.read(tmp_path / "x.wav")
    assert rate == 8000
    np.testing.assert_array_equal(samples, values)


def test_what_was_written_is_read_back_and_loud_samples_are_clipped(tmp_path):
    wav.write(tmp_path / "x.wav", np.array([0.5, 1.7, -1.7, 1 / 32768]), 16000)
    samples, _ = wav.read(tmp_path / "x.wav")
    np.testing.assert_array_equal(samples, [0.5, 32767 / 32768, -1, 1 / 32768])


def test_wav_files_without_sound_are_refused(tmp_path):
    wav.write(tmp_path / "empty.wav", np.empty(0), 16000)
    with pytest.raises(InputFileError, match=r"'.*empty.wav' has no samples"):
        wav.read(tmp_path / "empty.wav")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "empty.wav").read_bytes()[:20])
    with pytest.raises(InputFileError, match="is not a PCM WAV file"):
        wav.read(tmp_path / "cut.wav")


def test_silence_is_quantized_too(tmp_path):
    assert demo.signal_to_noise(np.zeros(5), np.zeros(5)) == float("inf")
    assert demo.signal_to_noise(np.zeros(5), np.ones(5)) < -100


@pytest.mark.parametrize(("rate", "to"), [(8000, 16000), (44100, 16000), (16000, 16000)])
def test_resampling_keeps_a_tone(rate, to):
    time = np.arange(rate) / rate
    tone = wav.resample(np.sin(2 * np.pi * 440 * time), rate, to)
    assert len(tone) == to
    expected = np.sin(2 * np.pi * 440 * np.arange(to) / to)
    np.testing.assert_allclose(tone, expected, atol=1e-9)


@pytest.mark.parametrize("clip", [0, 1])
def test_the_model_does_the_same_from_the_command_line(clip, spoken, tmp_path):
    """16 dB and not 4: the model knows that its vectors are an MDCT."""
    folder, _, stages = spoken
    original = sorted(folder.glob("*-original.wav"))[clip]
    model = folder / "model.safetensors"
    codes, decoded = tmp_path / "c.rvq", tmp_path / "y.wav"
    assert main(["encode", str(original), "-m", str(model), "-o", str(codes)]) == 0
    assert main(["decode", str(codes), "-m", str(model), "-o", str(decoded)]) == 0
    samples = samples_of(original)
    measured = demo.signal_to_noise(samples, samples_of(decoded)[: len(samples)])
    assert measured > 15
    assert measured == pytest.approx(stages[-1].snr[clip], abs=0.1)


def test_a_recording_uses_the_model_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "STAGES", 2)
    monkeypatch.setattr(demo, "CODEWORDS", 32)
    monkeypatch.chdir(tmp_path)
    wav.write("mine.wav", 0.3 * np.sin(np.arange(8000) * 0.05), 16000)
    assert main(["demo", "--wav", "mine.wav", "-o", "heard"]) == 0
    assert "Training 2 stages" in capsys.readouterr().out
    content = (tmp_path / "heard" / "model.safetensors").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(demo, "train", lambda *_, **__: pytest.fail("it trained again"))
        assert main(["demo", "--wav", "mine.wav", "-o", "heard"]) == 0
    out = capsys.readouterr().out
    assert "Using the model heard/model.safetensors, trained before" in out
    assert "SNR mine" in out
    assert (tmp_path / "heard" / "model.safetensors").read_bytes() == content
    other = rvq_np.ResidualVectorQuantizer.load("heard/model.safetensors")
    for front in (None, rvq_np.FrontEnd("samples", 64, 16000)):  # of the same sizes
        other.front_end = front
        other.save("heard/model.safetensors")
        assert demo._trained(Path("heard/model.safetensors")) is None
    kept = (tmp_path / "heard" / "model.safetensors").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(demo, "train", lambda *_, **__: pytest.fail("it trained"))
        for line in (["demo", "-o", "heard"], ["demo", "--wav", "mine.wav", "-o", "heard"]):
            assert main(line) == 1
            assert "heard/model.safetensors' is no model of the demo" in capsys.readouterr().err
    assert (tmp_path / "heard" / "model.safetensors").read_bytes() == kept
    other.front_end = demo.FRONT_END
    other.save("heard/model.safetensors")
    monkeypatch.setattr(demo, "STAGES", 1)  # a model of another demo is none of this one
    assert main(["demo", "--wav", "mine.wav", "-o", "heard"]) == 0
    assert "Training 1 stages" in capsys.readouterr().out


def test_a_folder_that_cannot_be_is_said_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "train", lambda *_, **__: pytest.fail("it trained"))
    (tmp_path / "file").write_bytes(b"kept")
    assert main(["demo", "-o", str(tmp_path / "file")]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err
    assert err.count("\n") == 1


def test_the_page_shows_what_the_demo_prints(spoken):
    """docs/speech.md; other processors add up in another order, hence the tolerance."""
    from pathlib import Path

    _, printed, stages = spoken
    page = (Path(rvq_np.__file__).parents[1] / "docs" / "speech.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " dB |" in line]
    found = {row[0]: [float(each.split()[0]) for each in row[2:]] for row in rows}
    assert list(found) == ["1", "2", "4", "8", "8, `beam_size=8`"]
    for stage in stages:
        if str(stage.n_q) in found:
            assert found[str(stage.n_q)] == pytest.approx(stage.snr, abs=0.15)
    beam = next(line for line in printed.splitlines() if line.startswith("with beam_size=8"))
    best = [float(each.split()[0]) for each in beam.partition(": ")[2].split(", ")]
    assert found["8, `beam_size=8`"] == pytest.approx(best, abs=0.15)
    assert [f"`{name}`" for name in ("cards-002", "reader-0890")] == [
        each.strip() for each in next(
            line for line in page.splitlines() if line.startswith("| stages")
        ).strip("|").split("|")[2:]
    ]  # fmt: skip
    order = [name for name in printed.split() if name in ("cards-002", "reader-0890")]
    assert order[-2:] == ["cards-002", "reader-0890"]
