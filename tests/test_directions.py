"""Spherical k-means, and stages that quantize the direction of what is left: for semantic IDs."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from test_dropped import in_library

import rvq_np
from rvq_np import Codebooks, Linear, Normalized, Parallel, Stage, checkpoints, export, train
from rvq_np import semantic_ids as ids
from rvq_np.errors import LevelsError, ParameterError, ShapeError

SIZES = (16, 8, 12)


def rows(n, seed=0, dim=6):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def fitted(spherical, normalize, x=None, **options):
    states = train.fit(
        rows(900) if x is None else x, 3, SIZES, 15, 0, spherical=spherical,
        normalize_residuals=normalize, **options,
    )  # fmt: skip
    return train.codebooks_of(states)


def by_hand(x, stages, spherical, normalize):
    """Codes as Faiss and TorchEasyRec define them, in float64."""
    left, codes = x.astype(np.float64), []
    for stage in stages:
        if normalize:
            left = left / np.linalg.norm(left, axis=1, keepdims=True)
        codewords = stage.codebook.astype(np.float64)
        if spherical:
            codes.append((left @ codewords.T).argmax(axis=1))
        else:
            codes.append(np.square(left[:, None] - codewords[None]).sum(axis=2).argmin(axis=1))
        left = left - codewords[codes[-1]]
    return np.array(codes)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("spherical", [False, True])
def test_codes_are_those_of_the_definition_however_many_rows_and_whatever_their_order(
    spherical, normalize
):
    books = fitted(spherical, normalize)
    x = 30 * rows(400, seed=1)
    codes = rvq_np.encode(x, books)
    np.testing.assert_array_equal(codes, by_hand(x, books, spherical, normalize))
    assert isinstance(books, Normalized if normalize else Codebooks)
    assert {stage.metric for stage in books} == {"cosine" if spherical else "euclidean"}
    lengths = np.concatenate([np.linalg.norm(stage.codebook, axis=1) for stage in books])
    if spherical:
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    else:
        assert np.abs(lengths - 1).max() > 0.1
    for some in (slice(0, 1), slice(7, 50)):
        np.testing.assert_array_equal(rvq_np.encode(x[some], books), codes[:, some])
    np.testing.assert_array_equal(rvq_np.encode(np.asfortranarray(x), books), codes)
    np.testing.assert_array_equal(rvq_np.encode(x, books[:2]), codes[:2])
    np.testing.assert_array_equal(rvq_np.encode(x.astype(np.float64), books), codes)
    total = sum(stage.codebook[row] for stage, row in zip(books, codes, strict=True))
    np.testing.assert_array_equal(rvq_np.decode(codes, books), total)
    if normalize or spherical:  # the first stage sees directions only
        np.testing.assert_array_equal(rvq_np.encode(x / 1024, books[:1]), codes[:1])


def test_fitted_codebooks_are_where_kmeans_ends():
    """Each codeword is the mean of the directions that chose it, divided by its length."""
    x = rows(2000, seed=3)
    states = train.fit(x, 1, 16, 200, 0, spherical=True, tolerance=0.0)
    (stage,) = train.codebooks_of(states)
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    codes = rvq_np.encode(x, Codebooks([stage]))[0]
    for k in range(16):
        mean = directions[codes == k].mean(axis=0)
        assert stage.codebook[k] @ mean / np.linalg.norm(mean) > 0.9999


def test_codewords_are_means_of_directions_in_every_stage():
    x = rows(2000, seed=3)
    states = train.fit(x, 3, 8, 300, 0, normalize_residuals=True, tolerance=0.0)
    books = train.codebooks_of(states)
    for stage, (searched, codes) in zip(
        books, rvq_np.codec.core.directions(x, books, 3), strict=True
    ):
        np.testing.assert_allclose(np.linalg.norm(searched, axis=1), 1, rtol=1e-6)
        for k in range(8):
            mean = searched[codes == k].mean(axis=0)
            np.testing.assert_allclose(stage.codebook[k], mean, atol=2e-3)


def test_normalized_residuals_keep_later_stages_in_use():
    """Lengths differ by a factor of 1000: plain stages spend their codes on the long vectors."""
    rng = np.random.default_rng(0)
    x = rows(3000) * 10.0 ** rng.uniform(0, 3, (3000, 1)).astype(np.float32)
    distinct = [
        len(np.unique(rvq_np.encode(x, fitted(False, normalize, x)).T, axis=0))
        for normalize in (False, True)
    ]
    assert distinct[1] > 2 * distinct[0]


def test_memory_maps_interruptions_and_sizes_make_no_difference(tmp_path):
    x = rows(700)
    np.save(tmp_path / "x.npy", x)
    expected = fitted(True, True, x)
    assert fitted(True, True, np.load(tmp_path / "x.npy", mmap_mode="r")) == expected

    class Stopped(Exception):
        pass

    def stop(info):
        if info.stage == 2:
            raise Stopped

    path = tmp_path / "resume"
    with pytest.raises(Stopped):
        fitted(True, True, x, callback=stop, checkpoint=path)
    with pytest.raises(rvq_np.errors.StateError, match="resume file of another fit"):
        fitted(True, False, x, checkpoint=path)
    assert fitted(True, True, x, checkpoint=path) == expected


def test_vectors_of_zeros_and_of_any_size_have_codes():
    books = fitted(False, True)
    x = rows(50, seed=2)
    codes = rvq_np.encode(x, books)
    np.testing.assert_array_equal(rvq_np.encode(np.zeros((2, 6), np.float32), books)[:, 0].shape, 3)
    for factor in (2.0**-120, 2.0**100):
        np.testing.assert_array_equal(rvq_np.encode(x * np.float32(factor), books), codes)
    wide = x.astype(np.float64)
    for factor in (2.0**-900, 2.0**600):  # squares of these are beyond float64
        np.testing.assert_array_equal(rvq_np.encode(wide * factor, books), codes)
    assert rvq_np.encode(np.empty((0, 6), np.float32), books).shape == (3, 0)


def test_they_are_values_and_are_saved():
    books = fitted(True, True)
    for other in (pickle.loads(pickle.dumps(books)), copy.deepcopy(books)):
        assert other == books
    assert books != Normalized(books.parts[:2])
    assert books[:2] == Normalized(books.parts, 2)
    assert books.fingerprint != Parallel(books.parts).fingerprint
    states = train.fit(rows(900), 3, SIZES, 15, 0, spherical=True)
    again = pickle.loads(pickle.dumps(states))
    assert again == states
    assert train.codebooks_of(again) == train.codebooks_of(states)
    plain = train.CodebookState(*states[0].made_of()[:4])
    assert plain != states[0]


def test_files_hold_them(tmp_path):
    for spherical, normalize in ((True, False), (False, True), (True, True)):
        books = fitted(spherical, normalize)
        for first in (books, books[:2]):
            checkpoints.save(tmp_path / "m.safetensors", first)
            loaded = checkpoints.load(tmp_path / "m.safetensors")
            np.testing.assert_array_equal(
                rvq_np.encode(rows(40), loaded), rvq_np.encode(rows(40), first)
            )
            assert loaded.fingerprint == first.fingerprint
            assert len(getattr(loaded, "parts", loaded)) == first.n_q  # and no more is stored


def test_dropped_codes_add_nothing():
    books = fitted(False, True)
    codes = rvq_np.encode(rows(9), books)
    codes[1] = -1
    expected = books[0].codebook[codes[0]] + books[2].codebook[codes[2]]
    np.testing.assert_allclose(rvq_np.decode(codes, books), expected, rtol=1e-6)


def test_semantic_ids_are_unique_and_move_within_the_last_stage():
    x = rows(300, seed=4)
    books = fitted(False, True)
    codes = rvq_np.encode(x, books)
    found = ids.candidates(x, books, 4)
    np.testing.assert_array_equal(found.codes[0], codes)
    np.testing.assert_array_equal(found.codes[3, :2], codes[:2])
    assert (np.diff(found.distances, axis=0) >= 0).all()
    last = list(rvq_np.codec.core.directions(x, books, 3))[-1][0]
    expected = np.sort(np.square(last[:, None] - books[2].codebook[None]).sum(axis=2), axis=1)
    np.testing.assert_allclose(found.distances, expected[:, :4].T, rtol=1e-4)
    unique = ids.assign(x, books)
    placed = unique.codes[:, unique.codes[0] >= 0]
    assert len(np.unique(placed.T, axis=0)) == placed.shape[1]
    assert len(unique.unplaced) < 30
    np.testing.assert_array_equal(unique.codes[:2][:, unique.codes[0] >= 0],
                                  codes[:2][:, unique.codes[0] >= 0])  # fmt: skip


def test_the_command_writes_ids_of_either_kind(tmp_path, monkeypatch):
    from rvq_np import cli

    monkeypatch.chdir(tmp_path)
    np.save("items.npy", rows(200))
    line = "ids items.npy -o ids.csv --sizes 8,8,32 --suffix --spherical --normalize-residuals"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rvq_np.FewVectorsWarning)
        assert cli.main(line.split()) == 0
    books = checkpoints.load("ids.csv.codebooks.safetensors")
    assert isinstance(books, Normalized)
    assert {stage.metric for stage in books} == {"cosine"}
    assert ids.files.read("ids.csv").manifest["options"]["normalize_residuals"] is True
    np.save("more.npy", rows(20, seed=5))
    line = "ids more.npy -o more.csv --suffix -m ids.csv.codebooks.safetensors"
    assert cli.main(line.split()) == 0
    np.testing.assert_array_equal(
        ids.files.read("more.csv").codes[:3], rvq_np.encode(np.load("more.npy"), books)
    )


def test_what_cannot_be_is_named(tmp_path):
    x, books = rows(300), fitted(True, True)

    def refused(message, call, *arguments, error=ParameterError, **options):
        with pytest.raises(error, match=message):
            call(*arguments, **options)

    for name in ("spherical", "normalize_residuals"):
        refused(f"fit: {name} is asked for, and refine", train.fit, x, 2, 8, 2, 0, refine=True,
                **{name: True})  # fmt: skip
        refused(f"fit: {name} is asked for, and start", train.fit, x, 2, 8, 2, 0,
                start=np.zeros((2, 8, 6)), **{name: True})  # fmt: skip
        refused(f"fit: {name} is 3; expected True or False", train.fit, x, 2, 8, 2, 0, **{name: 3})
        rvq = rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, rng=0)
        before = rvq.codebooks
        refused(f"fit: {name} is asked for, but the state dict.*train.fit", rvq.fit, x,
                **{name: True})  # fmt: skip
        assert rvq.codebooks is before
    refused("encode: beam_size is 4 for Normalized.*expected 1", rvq_np.encode, x, books,
            beam_size=4)  # fmt: skip
    refused("got Normalized", rvq_np.codec.tally, x, rvq_np.encode(x, books), books)
    refused("export.c_header: cannot hold Normalized", export.c_header, tmp_path / "m.h", books)
    refused("export.faiss: .*Normalized", export.faiss, tmp_path / "m.index", books)
    states = train.fit(x, 1, 8, 2, 0, spherical=True)
    refused("ema: got a state of fit with spherical", train.ema, states[0], np.ones(8),
            np.ones((8, 6)), 0.9)  # fmt: skip
    refused("expire: got a state of fit", train.expire, states[0], rows, 2)
    refused("initialize: got a state of fit", train.initialize, states, x, 1, 2, 0)
    two = np.zeros((2, 4, 6), np.float32)
    refused(r"Normalized: parts\[1\] is Codebooks\(2 stages", Normalized, [two[:1], two])
    strided = Stage(two[0], stride=2)
    refused(r"Normalized: parts\[0\] is .*expected one stage, without", Normalized, [strided])
    refused("Normalized: got a Codebooks", Normalized, Codebooks(two), error=ShapeError)
    refused("Normalized: got no part", Normalized, [], error=ShapeError)
    refused("vectors of lengths", Normalized, [two[:1], np.zeros((1, 4, 5))], error=ShapeError)
    refused("Normalized: n_q is 3", Normalized, [two[:1]], 3, error=LevelsError)


def test_stages_may_project():
    rng = np.random.default_rng(0)
    into = Linear(rng.standard_normal((2, 6)), np.zeros(2))
    out = Linear(rng.standard_normal((6, 2)), np.zeros(6))
    stages = [Stage(rng.standard_normal((5, 2)), into, out) for _ in range(2)]
    codes = rvq_np.encode(rows(20).astype(np.float64), Normalized(stages))
    left = rows(20).astype(np.float64)
    for stage, row in zip(stages, codes, strict=True):
        left /= np.linalg.norm(left, axis=1, keepdims=True)
        distances = np.square((left @ into.weight.T)[:, None] - stage.codebook[None]).sum(axis=2)
        np.testing.assert_array_equal(row, distances.argmin(axis=1))
        left = left - stage.codebook[row] @ out.weight.T


@pytest.mark.parametrize("name", ["plain", "array API", "cupy"])
def test_every_library_finds_the_same_codes(name):
    books, x = fitted(True, True), 5 * rows(60, seed=6)
    expected = rvq_np.encode(x, books)
    with in_library(name) as (put, get):
        codes = rvq_np.encode(put(x), books)
        np.testing.assert_array_equal(get(codes), expected)
        np.testing.assert_array_equal(
            get(rvq_np.decode(codes, books)), rvq_np.decode(expected, books)
        )
