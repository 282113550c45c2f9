"""Indexes written here, read back by Faiss: the same codes, vectors and answers as its own."""

import faiss
import numpy as np
import pytest

import rvq_np
from rvq_np import Codebooks, Grouped, checkpoints, export

NORMS = ("none", "float", "qint8")
faiss.omp_set_num_threads(1)


def clustered(rng, rows, dim):
    centers = rng.standard_normal((20, dim))
    return (centers[rng.integers(0, 20, rows)] + 0.3 * rng.standard_normal((rows, dim))).astype(
        "f4"
    )


def books_of(rq):
    sizes = [1 << int(each) for each in faiss.vector_to_array(rq.nbits)]
    values = faiss.vector_to_array(rq.codebooks).reshape(-1, rq.d)
    return Codebooks(np.split(values, np.cumsum(sizes)[:-1]))


@pytest.fixture
def x(rng):
    return clustered(rng, 700, 16)


@pytest.mark.parametrize("norms", NORMS)
def test_an_index_has_the_codes_and_answers_of_one_that_faiss_built(norms, x, rng, tmp_path):
    kind = {"none": "RQ3x4", "float": "RQ3x4_Nfloat", "qint8": "RQ3x4_Nqint8"}[norms]
    theirs = faiss.index_factory(16, kind)
    theirs.rq.max_beam_size = 1
    theirs.train(x)
    theirs.add(x)
    books = books_of(theirs.rq)
    export.faiss(tmp_path / "a.faissindex", books, rvq_np.encode(x, books), norms)
    mine = faiss.read_index(str(tmp_path / "a.faissindex"))
    assert type(mine) is faiss.IndexResidualQuantizer
    assert (mine.ntotal, mine.code_size) == (700, theirs.code_size)
    ours, their_own = (
        faiss.vector_to_array(each.codes).reshape(700, -1) for each in (mine, theirs)
    )
    if norms == "float":  # a sum in another order
        np.testing.assert_array_equal(ours[:, :1], their_own[:, :1])
    else:  # and a norm that may be a step apart
        scale = mine.rq.norm_max - mine.rq.norm_min
        assert (ours != their_own).any(axis=1).mean() <= (0.02 if norms == "qint8" else 0)
        assert norms == "none" or scale > 0
    np.testing.assert_allclose(mine.reconstruct_n(0, 700), theirs.reconstruct_n(0, 700), atol=1e-6)
    queries = clustered(rng, 50, 16)
    if norms == "qint8":  # the scale of theirs is that of its training
        theirs.rq.norm_min, theirs.rq.norm_max = mine.rq.norm_min, mine.rq.norm_max
        theirs.reset()
        theirs.add(x)
    assert_same_answers(mine, theirs, queries)


def assert_same_answers(mine, theirs, queries, k=10):
    (d1, i1), (d2, i2) = mine.search(queries, k), theirs.search(queries, k)
    np.testing.assert_allclose(d1, d2, rtol=1e-4, atol=1e-3)
    same = i1 == i2
    close = np.abs(d1 - d2) < 1e-3
    assert same.mean() > 0.9  # others are ties of equal codes
    assert close[~same].all()


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("sizes", [(16, 16), (5, 16, 9), (1, 3), (256, 700)])
def test_answers_are_the_nearest_decoded_vectors(norms, sizes, x, rng, tmp_path):
    """Of sizes that are no powers of two as well: what fills them up is in no answer."""
    books = Codebooks([0.5**q * clustered(rng, size, 16) for q, size in enumerate(sizes)])
    codes = rvq_np.encode(x, books)
    export.faiss(tmp_path / "a.faissindex", books, codes, norms)
    index = faiss.read_index(str(tmp_path / "a.faissindex"))
    decoded = rvq_np.decode(codes, books)
    np.testing.assert_array_equal(index.reconstruct_n(0, len(x)), decoded)
    queries = clustered(rng, 40, 16)
    distances = np.square(queries[:, None] - decoded[None].astype("f8")).sum(axis=2)
    _, found = index.search(queries, 5)
    best = np.sort(distances, axis=1)[:, :5]
    reached = np.sort(np.take_along_axis(distances, found, axis=1), axis=1)
    step = (index.rq.norm_max - index.rq.norm_min) / 256 if norms == "qint8" else 0
    assert (reached <= best + 1e-3 + step).all()
    loaded = checkpoints.load(tmp_path / "a.faissindex")
    assert loaded.n_q == len(sizes)


def test_faiss_never_chooses_what_fills_a_codebook_up(x, rng, tmp_path):
    books = Codebooks([clustered(rng, 9, 16), 0.5 * clustered(rng, 5, 16)])
    export.faiss(tmp_path / "a.faissindex", books)
    index = faiss.read_index(str(tmp_path / "a.faissindex"))
    assert index.is_trained
    assert index.ntotal == 0
    index.rq.max_beam_size = 1
    index.add(1000 * x)
    packed = faiss.vector_to_array(index.codes).reshape(700, -1).astype(int)
    codes = [packed[:, 0] & 15, (packed[:, 0] >> 4) & 7]
    np.testing.assert_array_equal(codes, rvq_np.encode(1000 * x, books))


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("grouped", [False, True])
def test_inverted_lists_hold_what_the_first_stage_leaves(norms, grouped, x, rng, tmp_path):
    lists = clustered(rng, 7, 16)
    member = rvq_np.encode(x, lists[None])
    rest = x - lists[member[0]]
    if grouped:
        books = Grouped([0.5 * clustered(rng, 32, 8).reshape(2, 16, 8) for _ in range(2)])
    else:
        books = Codebooks(0.5 * clustered(rng, 48, 16).reshape(3, 16, 16))
    codes = np.concatenate([member, rvq_np.encode(rest, books)])
    export.faiss(tmp_path / "a.faissindex", books, codes, norms, lists)
    index = faiss.read_index(str(tmp_path / "a.faissindex"))
    kind = faiss.IndexIVFProductResidualQuantizer if grouped else faiss.IndexIVFResidualQuantizer
    assert type(index) is kind
    index.nprobe = 7
    decoded = lists[member[0]] + rvq_np.decode(codes[1:], books)
    index.make_direct_map()
    np.testing.assert_allclose(index.reconstruct_n(0, len(x)), decoded, atol=1e-5)
    queries = clustered(rng, 30, 16)
    distances = np.square(queries[:, None] - decoded[None].astype("f8")).sum(axis=2)
    _, found = index.search(queries, 5)
    reached = np.sort(np.take_along_axis(distances, found, axis=1), axis=1)
    aq = index.prq if grouped else index.rq
    step = (aq.norm_max - aq.norm_min) / 256 if norms == "qint8" else 0
    assert (reached <= np.sort(distances, axis=1)[:, :5] + 1e-3 + step).all()


def test_inverted_lists_answer_as_those_that_faiss_filled(x, rng, tmp_path):
    theirs = faiss.index_factory(16, "IVF6,RQ3x4_Nqint8")
    theirs.rq.max_beam_size = 1
    theirs.train(x)
    theirs.add(x)
    lists = theirs.quantizer.reconstruct_n(0, 6)
    books = books_of(theirs.rq)
    codes = rvq_np.encode(x, Codebooks([lists, *books]))
    export.faiss(tmp_path / "a.faissindex", books, codes, "qint8", lists)
    mine = faiss.read_index(str(tmp_path / "a.faissindex"))
    theirs.reset()
    theirs.rq.norm_min, theirs.rq.norm_max = mine.rq.norm_min, mine.rq.norm_max
    theirs.add(x)
    for index in (mine, theirs):
        index.nprobe = 3
    assert_same_answers(mine, theirs, clustered(rng, 50, 16))


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("shares", [(2, 2, 2, 2), (3, 3), (3, 2)])
def test_groups_are_a_product_residual_quantizer(norms, shares, x, rng, tmp_path):
    width = 16 // len(shares)
    books = Grouped([clustered(rng, 12 * n, width).reshape(n, 12, width) for n in shares])
    codes = rvq_np.encode(x, books)
    export.faiss(tmp_path / "a.faissindex", books, codes, norms)
    index = faiss.read_index(str(tmp_path / "a.faissindex"))
    assert type(index) is faiss.IndexProductResidualQuantizer
    np.testing.assert_array_equal(index.reconstruct_n(0, len(x)), rvq_np.decode(codes, books))
    decoded = rvq_np.decode(codes, books)
    queries = clustered(rng, 30, 16)
    distances = np.square(queries[:, None] - decoded[None].astype("f8")).sum(axis=2)
    _, found = index.search(queries, 5)
    reached = np.sort(np.take_along_axis(distances, found, axis=1), axis=1)
    step = (index.prq.norm_max - index.prq.norm_min) / 256 if norms == "qint8" else 0
    assert (reached <= np.sort(distances, axis=1)[:, :5] + 1e-3 + step).all()


def test_vectors_can_be_added_by_faiss_afterwards(x, rng, tmp_path):
    books = Codebooks(clustered(rng, 48, 16).reshape(3, 16, 16))
    export.faiss(tmp_path / "a.faissindex", books, rvq_np.encode(x[:500], books))
    index = faiss.read_index(str(tmp_path / "a.faissindex"))
    index.add(x[500:])
    assert index.ntotal == 700
    assert index.search(x[:5], 3)[1].max() < 700
