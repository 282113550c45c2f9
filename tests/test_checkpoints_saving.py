"""Codebooks on their way out: files of ours, and the names of other families."""

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import paths, quantizers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage, checkpoints, cli
from rvq_np.errors import CheckpointError, ModelFileError, ParameterError, ShapeError


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def between(rng, dim, width, n_q=2, size=9):
    return Projected(
        normal(rng, n_q, size, width),
        Linear(normal(rng, width, dim), normal(rng, width)),
        Linear(normal(rng, dim, width), normal(rng, dim)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


@given(quantizer=quantizers.quantizers(strides=(1, 2)))
def test_any_quantizer_comes_back(quantizer, folder):
    path = folder / "any.safetensors"
    for n in range(1, quantizer.n_q + 1):
        some = quantizer[:n]
        checkpoints.save(path, some)
        family, loaded = checkpoints.load_as(path)
        assert family == "rvq_np"
        assert loaded.fingerprint == some.fingerprint
        assert type(loaded) is type(some)
        x = np.ones((quantizer.block, quantizer.dim), np.float32)
        codes = rvq_np.encode(x, loaded)
        assert [stage.tolist() for stage in codes] == [
            stage.tolist() for stage in rvq_np.encode(x, some)
        ]
        again = folder / "again.safetensors"
        checkpoints.save(again, loaded)
        assert again.read_bytes() == path.read_bytes()  # the same bytes for the same values


def test_numbers_come_back_as_they_were(rng, tmp_path):
    codewords = np.float32([[0.1, -0.0], [65520.0, 1e-8], [3.4e38, 1e-45]])
    for values in (codewords, codewords.astype(np.float64) * 1e200, rng.standard_normal((4, 3))):
        checkpoints.save(tmp_path / "a.safetensors", Codebooks([values]))
        loaded = checkpoints.load(tmp_path / "a.safetensors").stages[0].codebook
        assert loaded.dtype == values.dtype
        assert loaded.tobytes() == values.tobytes()


def test_what_half_precision_holds_takes_half_the_space(rng, tmp_path):
    halves = rng.standard_normal((3, 64, 32)).astype(np.float16)
    checkpoints.save(tmp_path / "half.safetensors", halves)
    checkpoints.save(tmp_path / "whole.safetensors", halves.astype(np.float32) + 1e-5)
    half, whole = (os.path.getsize(tmp_path / f"{name}.safetensors") for name in ("half", "whole"))
    assert half < 0.6 * whole
    loaded = checkpoints.load(tmp_path / "half.safetensors")
    np.testing.assert_array_equal(loaded.stages[1].codebook, halves[1].astype(np.float32))


def test_a_shared_codebook_is_stored_once_and_stays_one(rng, tmp_path):
    stage = Stage(normal(rng, 64, 32))
    checkpoints.save(tmp_path / "a.safetensors", Codebooks([stage] * 8))
    loaded = checkpoints.load(tmp_path / "a.safetensors")
    assert os.path.getsize(tmp_path / "a.safetensors") < 1.2 * stage.codebook.nbytes
    assert len({id(each) for each in loaded.stages}) == 1


def test_fewer_stages_are_a_smaller_file(rng, tmp_path):
    both = Parallel([between(rng, 8, 4, 1, 64), between(rng, 8, 4, 7, 64)])
    sizes = []
    for n in (1, 4, 8):
        checkpoints.save(tmp_path / "a.safetensors", both[:n])
        sizes.append(len(load_file(tmp_path / "a.safetensors")))
    assert sizes == [1 + 4, 4 + 8, 8 + 8]


def change(path, **about):
    """Rewrite what the metadata say."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        reported = json.loads(file.metadata()["rvq_np"])
    save_file(load_file(path), path, {"rvq_np": json.dumps({**reported, **about})})


PLAN = {"stages": [{"words": "rvq_np.stages.0.words"}]}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"version": 2}, "format version 2; this release reads 1"),
        ({"codebooks": 3}, "inconsistent metadata"),
        ({"codebooks": {}}, "inconsistent metadata"),
        ({"codebooks": {"stages": []}}, "inconsistent metadata: .*no stage"),
        ({"codebooks": {"stages": [3]}}, "inconsistent metadata"),
        ({"codebooks": {"stages": [{"words": "rvq_np.nothing"}]}}, "no tensor 'rvq_np.nothing'"),
        ({"codebooks": {"stages": [{"words": ["a"]}]}}, "inconsistent metadata"),
        ({"codebooks": {"stages": [{**PLAN["stages"][0], "stride": -1}]}}, "stride is -1"),
        ({"codebooks": {"stages": [{**PLAN["stages"][0], "metric": 1}]}}, "metric is 1"),
        ({"codebooks": {"stages": [{**PLAN["stages"][0], "maps": [["a"]]}]}}, "inconsistent"),
        ({"codebooks": {"parallel": [PLAN]}}, "inconsistent metadata: KeyError.'levels'"),
        ({"codebooks": {"parallel": [PLAN], "levels": 2}}, "got 2 stages; expected 1 to 1"),
        ({"codebooks": {"parallel": [PLAN], "levels": "1"}}, "got '1' stages; expected 1 to 1"),
        ({"codebooks": {"parallel": [PLAN], "grouped": [PLAN], "levels": 1}}, "inconsistent"),
        ({"codebooks": {"projected": [PLAN], "levels": 1}}, "inconsistent metadata: KeyError"),
    ],
)
def test_metadata_that_cannot_be_are_refused(about, message, rng, tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, normal(rng, 1, 4, 3))
    assert load_file(path).keys() == {"rvq_np.stages.0.words"}
    change(path, **about)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path)
    assert "a.safetensors" in str(caught.value)


@given(data=st.data())
def test_a_mutated_file_loads_or_is_a_checkpoint_error(data, folder):
    path = folder / "mutated.safetensors"
    checkpoints.save(path, between(np.random.default_rng(0), 3, 2))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    loaded = None
    with contextlib.suppress(CheckpointError):  # anything else is a defect
        loaded = checkpoints.load(path)
    assert loaded is None or loaded.n_q >= 1


def test_tensors_of_ours_without_metadata_are_refused(rng, tmp_path):
    save_file({"rvq_np.stages.0.words": normal(rng, 4, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="of the format of rvq_np, but not its metadata"):
        checkpoints.load(tmp_path / "a.safetensors")


def test_the_class_says_what_loads_codebooks(rng, tmp_path):
    checkpoints.save(tmp_path / "a.safetensors", normal(rng, 2, 4, 3))
    with pytest.raises(ModelFileError, match=r"codebooks.*rvq_np\.checkpoints\.load"):
        rvq_np.ResidualVectorQuantizer.load(tmp_path / "a.safetensors")


def test_a_failed_write_leaves_the_old_file(rng, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, normal(rng, 2, 4, 3))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with paths.patched((os, "replace", full)), pytest.raises(OSError, match="No space"):
        checkpoints.save(path, normal(rng, 2, 4, 3))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


# Back to other families: the modules themselves take them in tests/peers/test_export.py.


@pytest.mark.parametrize("family", ["encodec", "espnet", "vector_quantize_pytorch"])
def test_what_is_handed_back_loads_here_as_well(family, rng, tmp_path):
    books = Codebooks(normal(rng, 3, 8, 4))
    counts = [rng.integers(0, 9, 8) for _ in range(3)]
    checkpoints.save(tmp_path / "a.safetensors", books, family, counts=counts)
    found, loaded = checkpoints.load_as(tmp_path / "a.safetensors")
    assert found == family.replace("espnet", "encodec")  # which it cannot be reported from
    assert loaded.fingerprint == books.fingerprint
    tensors = checkpoints.state_dict(books, family, counts=counts)
    (sums,) = [value for name, value in tensors.items() if name.endswith("2._codebook.embed_avg")]
    np.testing.assert_array_equal(
        sums.reshape(8, 4), books.stages[2].codebook * np.float32(counts[2])[:, None]
    )


def test_a_quantizer_trained_here_keeps_its_counts(rng):
    trained = rvq_np.ResidualVectorQuantizer(4, 3, 2, 8, rng=0)
    trained(normal(rng, 500, 4), 50)
    state = trained.state_dict()
    counts = [state[f"vq.layers.{n}._codebook.cluster_size"] for n in range(2)]
    tensors = checkpoints.state_dict(trained.codebooks, "espnet", counts=counts)
    assert tensors.keys() == state.keys()
    for name, value in tensors.items():
        if not name.endswith("embed_avg"):  # which is kept apart from the codewords in training
            np.testing.assert_array_equal(value, state[name])


COSINE = Codebooks([Stage(2 * np.eye(3, dtype=np.float32), metric="cosine")])
MAPPED = Codebooks(
    [Stage(np.eye(2, dtype=np.float32), Linear(np.ones((2, 3)), np.zeros(2)),
           Linear(np.ones((3, 2)), np.zeros(3)))]
)  # fmt: skip


@pytest.mark.parametrize(
    ("quantizer", "family", "message"),
    [
        (COSINE, "encodec", "encodec cannot hold Stage.*by cosine.*at stage 0; expected metric"),
        (COSINE, "espnet", "espnet cannot hold"),
        (COSINE, "vector_quantize_pytorch", "stage 0 have norms from 2 to 2; expected norm 1"),
        (MAPPED, "encodec", "encodec has no projections; expected stages without"),
        (MAPPED, "vector_quantize_pytorch", "cannot hold.*stages have no projections"),
        (Codebooks([np.ones((2, 3)), np.ones((3, 3))]), "encodec", "the same codebook size"),
        (Parallel([np.ones((2, 4, 3))]), "espnet", "cannot hold Parallel.*parts one by one"),
        (Parallel([np.ones((2, 4, 3))]), "vector_quantize_pytorch", "cannot hold Parallel"),
        (Codebooks([Stage(np.ones((4, 3)), stride=2)]), "encodec", "every 2 frames"),
        (Grouped([np.ones((2, 4, 3)), np.ones((2, 4, 3))])[:1], "vector_quantize_pytorch",
         r"groups have \[1, 0\] stages; expected the same"),
        (np.ones((2, 4, 3)), "mimi", "family is 'mimi'; expected one of encodec, espnet, vector"),
        (np.ones((2, 4, 3)), "nothing", "family is 'nothing'; expected one of"),
    ],
)  # fmt: skip
def test_what_a_family_cannot_hold_is_refused(quantizer, family, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        checkpoints.save(tmp_path / "a.safetensors", quantizer, family)
    assert os.listdir(tmp_path) == []


def test_counts_are_one_array_a_stage():
    with pytest.raises(ShapeError, match=r"shapes \[\(4,\)\]; expected one array per stage"):
        checkpoints.state_dict(np.ones((2, 4, 3)), "encodec", counts=[np.ones(4)])


# The command line.


def run(folder, line, status=0):
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert cli.main(line.split()) == status
    finally:
        os.chdir(before)


STRIDED = Codebooks([Stage(np.float32([[0, 0], [4, 4], [1, 3]]), stride=4),
                     Stage(np.float32([[0, 0], [1, 1]]), stride=2)])  # fmt: skip


@pytest.fixture
def files(tmp_path, rng):
    two = Parallel([between(rng, 6, 3, 1, 8), between(rng, 6, 3, 3, 8)])
    checkpoints.save(tmp_path / "two.safetensors", two)
    checkpoints.save(tmp_path / "strided.safetensors", STRIDED)
    np.save(tmp_path / "x.npy", normal(rng, 100, 6))
    np.save(tmp_path / "bdt.npy", normal(rng, 3, 6, 10))
    np.save(tmp_path / "s.npy", 3 * normal(rng, 24, 2))
    np.save(tmp_path / "sbdt.npy", 3 * normal(rng, 2, 2, 8))
    return tmp_path


@pytest.mark.parametrize(("vectors", "axes"), [("x", (0, 1)), ("bdt", (0, 2, 1))])
def test_vectors_and_codes_of_a_checkpoint(vectors, axes, files):
    run(files, f"encode {vectors}.npy -m two.safetensors -o c.npy --n-q 3")
    run(files, "decode c.npy -m two.safetensors -o y.npy")
    quantizer = checkpoints.load(files / "two.safetensors")
    x, codes, y = (np.load(files / f"{name}.npy") for name in (vectors, "c", "y"))
    np.testing.assert_array_equal(codes, rvq_np.encode(x.transpose(axes), quantizer, 3))
    np.testing.assert_array_equal(y.transpose(axes), rvq_np.decode(codes, quantizer))


@pytest.mark.parametrize(("vectors", "axes"), [("s", (0, 1)), ("sbdt", (0, 2, 1))])
@pytest.mark.parametrize("rows", [7, 1 << 16])
def test_codes_of_stages_with_strides_are_an_archive(vectors, axes, rows, files, monkeypatch):
    monkeypatch.setattr(cli.files, "ROWS", rows)
    run(files, f"encode {vectors}.npy -m strided.safetensors -o c.npz")
    run(files, "decode c.npz -m strided.safetensors -o y.npy")
    x, y = np.load(files / f"{vectors}.npy"), np.load(files / "y.npy")
    expected = rvq_np.encode(x.transpose(axes), STRIDED)
    with np.load(files / "c.npz") as codes:
        assert codes.files == ["level_0", "level_1"]
        for n, stage in enumerate(expected):
            np.testing.assert_array_equal(codes[f"level_{n}"], stage)
    np.testing.assert_array_equal(y.transpose(axes), rvq_np.decode(expected, STRIDED))


def test_no_frames_are_no_codes_of_stages_with_strides(files):
    np.save(files / "none.npy", np.empty((0, 2), np.float32))
    run(files, "encode none.npy -m strided.safetensors -o c.npz")
    run(files, "decode c.npz -m strided.safetensors -o y.npy")
    assert np.load(files / "y.npy").shape == (0, 2)


def test_info_says_what_a_checkpoint_is(files, capsys):
    run(files, "info two.safetensors")
    out = capsys.readouterr().out
    assert "family               rvq_np\n" in out
    assert "stages               4\n" in out
    assert "bits per vector      12 (3 per stage)\n" in out
    assert (
        "quantizer            Parallel(Projected(Codebooks(1 stage, 8 codewords of 3), for" in out
    )
    assert out.splitlines()[-1].split() == ["3", "8", "3", "euclidean", "no", "1"]
    run(files, "encode s.npy -m strided.safetensors -o c.npz")
    run(files, "info strided.safetensors --codes c.npz")
    out = capsys.readouterr().out
    assert "codebook size        2 to 3\n" in out
    assert f"bits per vector      {np.log2(3) / 4 + 1 / 2:g}\n" in out
    assert "frames per code      4, 2\n" in out
    assert "codeword usage in c.npz:" in out
    run(files, "encode x.npy -m two.safetensors -o c.npy")
    run(files, "info two.safetensors --codes c.npy")
    assert "codeword usage in c.npy:" in capsys.readouterr().out


def test_convert_keeps_what_is_asked_for(files, capsys):
    run(files, "convert two.safetensors -o three.safetensors --n-q 3")
    out = capsys.readouterr().out
    size = os.path.getsize(files / "three.safetensors")
    assert out.splitlines()[1] == f"three.safetensors: {size:,} bytes, rvq_np format"
    whole = checkpoints.load(files / "two.safetensors")
    assert checkpoints.load(files / "three.safetensors").fingerprint == whole[:3].fingerprint


def test_convert_hands_a_trained_model_back(files, capsys):
    run(files, "fit s.npy -o m.safetensors --n-q 2 --bins 4")
    run(files, "convert m.safetensors -o e.safetensors --to encodec")
    run(files, "convert m.safetensors -o ours.safetensors")
    assert "bytes, rvq_np format" in capsys.readouterr().out
    trained = rvq_np.ResidualVectorQuantizer.load(files / "m.safetensors")
    for name in ("e", "ours"):
        loaded = checkpoints.load(files / f"{name}.safetensors")
        assert loaded.fingerprint == trained.codebooks.fingerprint
    sizes = load_file(files / "e.safetensors")["vq.layers.1._codebook.cluster_size"]
    np.testing.assert_array_equal(sizes, trained.state_dict()["vq.layers.1._codebook.cluster_size"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "encode s.npy -m strided.safetensors -o c.npy",
            "'c.npy' cannot hold codes of stages with strides",
        ),
        ("encode s.npy -m strided.safetensors -o c.npz --beam-size 2", "beam_size other than 1"),
        ("encode x.npy -m two.safetensors -o c.npy --n-q 5", "n_q is 5; expected 1 to 4"),
        ("encode x.npy -m two.safetensors --family snail -o c.npy", "family is 'snail'; expected"),
        ("decode x.npy -m strided.safetensors -o y.npy", "'x.npy' is not an .npz file of codes"),
        ("decode other.npz -m strided.safetensors -o y.npy", "is not an .npz file of codes"),
        ("decode none.npz -m strided.safetensors -o y.npy", "there is no file 'none.npz'"),
        ("info strided.safetensors --codes x.npy", "is not an .npz file of codes"),
        ("convert none.safetensors -o a.safetensors", "there is no file"),
        ("convert two.safetensors -o no/a.safetensors", "there is no folder"),
        ("convert two.safetensors -o a.safetensors --to snail", "family is 'snail'; expected one"),
        ("convert two.safetensors -o a.faissindex --to faiss", "an index cannot hold Parallel"),
        ("convert two.safetensors -o a.safetensors --norms float", "are for --to faiss"),
        ("convert two.safetensors -o a.safetensors --to encodec", "cannot hold Parallel"),
        ("convert two.safetensors -o a.safetensors --n-q 0", "n_q is 0; expected 1 to 4"),
    ],
)
def test_what_cannot_be_done_is_one_line(line, message, files, capsys):
    np.savez(files / "other.npz", x=np.ones(3))
    before = sorted(os.listdir(files))
    capsys.readouterr()
    run(files, line, status=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert sorted(os.listdir(files)) == before


def test_a_checkpoint_is_read_without_numba_or_torch(files):
    """What a small machine runs: neither is asked for where only `convert` and `info` run."""
    code = (
        "import sys; from rvq_np import cli; cli.main(['info', 'two.safetensors']); "
        "print(sorted({'numba', 'torch', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=files, env=environment,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
