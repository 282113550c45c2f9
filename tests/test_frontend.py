"""A model knows what its vectors are: the record, the transforms in parts, and the command line."""

import json
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoint_files import ORIGINAL, stack, write
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import rvq_np
from rvq_np import FrontEnd, bitstream, checkpoints, cli
from rvq_np.errors import CheckpointError, ModelFileError, ParameterError, PartsError
from rvq_np.files import safetensors, wav
from rvq_np.frontend import Analysis, Synthesis, mdct

DATA = Path(__file__).parent / "data"
BOOKS = np.random.default_rng(0).standard_normal((2, 16, 8)).astype(np.float32)
ALL = (
    FrontEnd("samples", 8), FrontEnd("samples", 8, 16000), FrontEnd("mdct", 8, 44100),
    FrontEnd("latents", of="encodec"), FrontEnd("embeddings"), FrontEnd("embeddings", of="e5"),
)  # fmt: skip


def quantizer(front_end=None):
    rvq = rvq_np.ResidualVectorQuantizer(8, 8, n_q=2, bins=4, rng=0)
    rvq.front_end = front_end
    return rvq


# The value.


@pytest.mark.quick
@pytest.mark.parametrize("front", ALL)
def test_a_record_comes_back_from_every_file(front, tmp_path):
    assert FrontEnd.from_dict(json.loads(json.dumps(front.as_dict()))) == front
    quantizer(front).save(tmp_path / "class")
    loaded = rvq_np.ResidualVectorQuantizer.load(tmp_path / "class")
    assert loaded.front_end == front
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "class").read_bytes()
    assert pickle.loads(pickle.dumps(loaded)).front_end == front
    checkpoints.save(tmp_path / "codebooks", BOOKS, front_end=front)
    assert checkpoints.front_end(tmp_path / "codebooks") == front
    assert checkpoints.load(tmp_path / "codebooks").n_q == 2


@pytest.mark.quick
def test_files_from_before_are_read_and_have_an_unknown_one(tmp_path):
    """Written by the release before there were front ends, and the same bytes today."""
    loaded = rvq_np.ResidualVectorQuantizer.load(DATA / "models" / "class-2026-11.safetensors")
    assert loaded.front_end is None
    loaded.save(tmp_path / "class")
    before = DATA / "models" / "class-2026-11.safetensors"
    assert (tmp_path / "class").read_bytes() == before.read_bytes()
    before = DATA / "models" / "codebooks-2026-11.safetensors"
    assert checkpoints.front_end(before) is None
    checkpoints.save(tmp_path / "codebooks", checkpoints.load(before))
    assert (tmp_path / "codebooks").read_bytes() == before.read_bytes()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cepstrum", 8), "kind is 'cepstrum'; expected one of samples, mdct, latents, embeddings"),
        (([], 8), r"kind is \[\]"),
        (("samples",), "dim is None; expected a whole number"),
        (("mdct", 0), "dim is 0"),
        (("mdct", 8.5), "dim is 8.5"),
        (("mdct", 8, 0), "rate is 0"),
        (("mdct", 8, None, "x"), "of is 'x'; expected None for mdct"),
        (("latents",), "of is None; expected the name of the encoder"),
        (("latents", 8, None, "dac"), "dim is 8; expected None for latents"),
        (("embeddings", None, 5), "rate is 5; expected None for embeddings"),
        (("embeddings", None, None, 5), "of is 5; expected a name"),
    ],
)
def test_a_front_end_that_cannot_be_is_refused(arguments, said):
    with pytest.raises(ParameterError, match=f"FrontEnd: {said}"):
        FrontEnd(*arguments)


@pytest.mark.quick
@pytest.mark.parametrize("value", [FrontEnd("mdct", 64), "mdct", {"kind": "mdct", "dim": 8}])
def test_a_model_takes_a_front_end_of_its_dimension_only(value, tmp_path):
    rvq = quantizer()
    with pytest.raises(ParameterError, match=r"ResidualVectorQuantizer: front_end is .*; expected"):
        rvq.front_end = value
    assert rvq.front_end is None
    with pytest.raises(ParameterError, match=r"save: front_end is .*; expected"):
        checkpoints.save(tmp_path / "m", BOOKS, front_end=value)
    assert not (tmp_path / "m").exists()


LIES = ([], "mdct", {}, {"kind": "mdct"}, {"kind": 3}, {"kind": "mdct", "dim": 8, "hop": 4},
        {"kind": "mdct", "dim": "8"}, {"kind": "samples", "dim": 2**70},
        {"kind": "mdct", "dim": 64})  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_refused(lie, tmp_path):
    rvq = quantizer()
    path = tmp_path / "class"
    safetensors.save(path, rvq.state_dict(), rvq.config.as_dict(), lie)
    with pytest.raises(ModelFileError, match=r"contradicts itself: (FrontEnd: |.* front_end is)"):
        rvq_np.ResidualVectorQuantizer.load(path)
    checkpoints.save(path, BOOKS)
    tensors, about = checkpoints.rvq_np.written(rvq.codebooks, None)
    about = json.dumps({**json.loads(about), "front_end": lie})
    safetensors.write(path, tensors, {safetensors.KEY: about})
    with pytest.raises(CheckpointError, match=r"inconsistent metadata: (FrontEnd: |it records)"):
        checkpoints.front_end(path)


@pytest.mark.quick
def test_the_families_name_their_encoder():
    found = {}
    for path in sorted((DATA / "checkpoints").glob("*.safetensors")):
        family, _, front = checkpoints.load_whole(path)
        found.setdefault(family, set()).add(None if front is None else str(front))
    assert found.pop("vector_quantize_pytorch") == {None}  # which is for vectors of any kind
    assert found.pop("espnet") == {None, "latents of the espnet encoder"}  # alone, or whole
    assert found.pop("encodec") >= {"latents of the encodec encoder"}
    assert {"dac", "mimi", "speechtokenizer", "xcodec"} <= set(found)
    assert all(said == {f"latents of the {family} encoder"} for family, said in found.items())
    assert checkpoints.front_end(DATA / "checkpoints" / "faiss.faissindex") is None


@pytest.mark.quick
def test_vectors_that_are_no_latents_of_one_encoder_are_not_called_so(tmp_path):
    save_file({"centroids.0": BOOKS[0]}, tmp_path / "items")
    assert str(checkpoints.front_end(tmp_path / "items", "onerec")) == "embeddings of items"
    tensors = {
        f"{home}quantizers.0.{name}": value
        for home in ("semantic_vq.", "dac.quantizer.")
        for name, value in (
            ("codebook.weight", BOOKS[0]),
            ("in_proj.weight", np.ones((BOOKS.shape[2], 5), np.float32)),
            ("out_proj.weight", np.ones((5, BOOKS.shape[2]), np.float32)),
        )
    }
    save_file(tensors, tmp_path / "dual")
    assert checkpoints.load_as(tmp_path / "dual", part="acoustic")[0] == "dualcodec"
    assert checkpoints.front_end(tmp_path / "dual", part="acoustic") is None
    with pytest.raises(PartsError, match="has 2 quantizers"):
        checkpoints.front_end(tmp_path / "dual")


# The transforms in parts.


@given(st.integers(0, 90), st.sampled_from([1, 4, 7]), st.sampled_from(["samples", "mdct"]),
       st.data())  # fmt: skip
def test_parts_of_any_size_are_the_whole(length, dim, kind, data):
    samples = np.random.default_rng(length).uniform(-1, 1, length)
    front = FrontEnd(kind, dim)
    frames = front.vectors(length)
    padded = np.zeros(frames * dim)
    padded[:length] = samples
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=4)))
    analyze, synthesize = Analysis(front), Synthesis(front)
    parts = [analyze(each) for each in np.split(padded, [cut * dim for cut in cuts])]
    x = np.concatenate(parts)
    assert x.dtype == np.float32
    whole = mdct.forward(samples, dim) if kind == "mdct" else padded.reshape(-1, dim)
    np.testing.assert_allclose(x, whole, atol=1e-6)
    back = np.concatenate([synthesize(part) for part in np.split(x, cuts)])
    assert len(back) == front.samples(frames)
    np.testing.assert_allclose(back[:length], samples, atol=2e-6)
    np.testing.assert_allclose(back[length:], 0, atol=2e-6)


# The command line.


@pytest.fixture
def files(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    wav.write("x.wav", rng.uniform(-0.5, 0.5, 1003), 16000)
    np.save("x.npy", rng.standard_normal((50, 8)).astype(np.float32))
    checkpoints.save("unknown.safetensors", BOOKS)
    for front in ("samples", "mdct"):
        checkpoints.save(f"{front}.safetensors", BOOKS, front_end=FrontEnd(front, 8, 16000))
    checkpoints.save("e5.safetensors", BOOKS, front_end=FrontEnd("embeddings", of="e5"))
    write(tmp_path, stack(ORIGINAL)[0], "encodec.safetensors")
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    return tmp_path


def run(line, *more, status=0):
    assert cli.main([*line.split(), *more]) == status


def samples_of(path="x.wav"):
    return wav.read(path)[0]


def test_a_sound_becomes_the_vectors_of_the_model_and_back(files):
    for kind, x in (
        ("mdct", mdct.forward(samples_of(), 8)),
        ("samples", np.append(samples_of(), np.zeros(5)).reshape(-1, 8).astype(np.float32)),
    ):
        run(f"encode x.wav -m {kind}.safetensors -o c.rvq")
        expected = rvq_np.encode(x, BOOKS)
        content = bitstream.read("c.rvq")
        np.testing.assert_array_equal(content.codes, expected)
        assert content.frame_rate == Fraction(16000, 8)
        y = rvq_np.decode(expected, BOOKS)
        y = mdct.inverse(y, 1008) if kind == "mdct" else y.reshape(-1)
        run(f"encode x.wav -m {kind}.safetensors -o c.npy")
        for codes in ("c.rvq", "c.npy"):  # which does not hold the rate: the model does
            run(f"decode {codes} -m {kind}.safetensors -o y.wav")
            found, rate = wav.read("y.wav")
            assert rate == 16000
            np.testing.assert_allclose(found, np.clip(y, -1, 1), atol=2 / 32768)


ENCODE, DECODE = "encode x.wav -m {} -o o.rvq", "decode c.npy -m {} -o o.wav"


@pytest.mark.parametrize("line", [ENCODE, DECODE])
def test_what_cannot_be_applied_is_refused_with_what_is_missing(line, files, capsys):
    np.save("c.npy", np.zeros((2, 5), int))
    part = "encoder" if line == ENCODE else "decoder"
    for model, said in (
        ("unknown.safetensors", "does not record what its vectors are"),
        ("encodec.safetensors", f"latents of the encodec encoder. rvq_np has no encodec {part}"),
        ("e5.safetensors", "embeddings of e5. They come from e5, not from sound"),
    ):
        run(line.format(model), status=1)
        err = capsys.readouterr().err
        assert said in err
        assert repr(model) in err
        assert ".npy" in err
        assert err.count("\n") == 1
        assert not list(files.glob("o.*"))


def test_an_unknown_front_end_can_be_named(files, capsys):
    for kind in ("samples", "mdct"):
        run(f"encode x.wav -m unknown.safetensors --front-end {kind} -o named.npy")
        run(f"encode x.wav -m {kind}.safetensors -o known.npy")
        assert Path("named.npy").read_bytes() == Path("known.npy").read_bytes()
        run(f"encode x.wav -m {kind}.safetensors --front-end {kind} -o known.npy")
        run(f"encode x.wav -m {kind}.safetensors -o c.rvq")
        run(f"decode c.rvq -m unknown.safetensors --front-end {kind} -o named.wav")
        run(f"decode c.rvq -m {kind}.safetensors -o known.wav")
        assert Path("named.wav").read_bytes() == Path("known.wav").read_bytes()
        other = {"samples": "mdct", "mdct": "samples"}[kind]
        capsys.readouterr()
        run(f"encode x.wav -m {kind}.safetensors --front-end {other} -o no.npy", status=1)
        err = capsys.readouterr().err
        assert f"--front-end is {other}, but the vectors of '{kind}.safetensors' are" in err
    run("decode c.rvq -m encodec.safetensors --front-end mdct -o no.wav", status=1)


def test_vectors_from_arrays_need_no_front_end(files):
    for model in ("unknown", "samples", "mdct", "e5"):
        run(f"encode x.npy -m {model}.safetensors -o c.rvq")
        run(f"decode c.rvq -m {model}.safetensors -o y.npy")
        expected = rvq_np.decode(rvq_np.encode(np.load("x.npy"), BOOKS), BOOKS)
        np.testing.assert_array_equal(np.load("y.npy"), expected)


def test_convert_keeps_it_and_info_tells_it(files, capsys):
    for model, said in (
        ("mdct.safetensors", "MDCT of sound, 8 samples per vector, 16000 Hz"),
        ("encodec.safetensors", "latents of the encodec encoder"),
        ("unknown.safetensors", "unknown"),
    ):
        run(f"convert {model} -o small.safetensors")
        for each in (model, "small.safetensors"):
            capsys.readouterr()
            run(f"info {each}")
            assert f"front end            {said}\n" in capsys.readouterr().out


def test_fit_records_what_it_is_named(files):
    for named, front in (
        ("embeddings", FrontEnd("embeddings")),
        ("embeddings of e5", FrontEnd("embeddings", of="e5")),
        ("latents of dac", FrontEnd("latents", of="dac")),
        ("latents of the dac encoder", FrontEnd("latents", of="dac")),
        ("mdct", FrontEnd("mdct", 8)),
    ):
        run("fit x.npy -o o.safetensors --n-q 1 --bins 4 --iterations 1 --front-end", named)
        assert rvq_np.ResidualVectorQuantizer.load("o.safetensors").front_end == front


def test_codes_at_another_rate_are_not_those_of_the_model(files, capsys):
    run("encode x.npy -m mdct.safetensors -o c.rvq --frame-rate 75")
    run("decode c.rvq -m mdct.safetensors -o y.wav", status=1)
    assert "75 vectors per second, which is 600 samples; the model is for 16000" in (
        capsys.readouterr().err
    )
    bitstream.write("odd.rvq", np.zeros((2, 5), int), codebooks=BOOKS, frame_rate=(1, 3))
    run("decode odd.rvq -m unknown.safetensors --front-end samples -o y.wav", status=1)
    assert "holds one stream with a known frame rate" in capsys.readouterr().err
    assert not Path("y.wav").exists()


def test_no_samples_are_no_vectors(files):
    wav.write("none.wav", np.zeros(0), 16000)
    for kind in ("samples", "mdct"):
        run(f"encode none.wav -m {kind}.safetensors -o c.rvq")
        run(f"decode c.rvq -m {kind}.safetensors -o y.wav")
        assert wav.length("y.wav") == (0, 16000)
