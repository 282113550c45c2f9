"""Faiss indexes of all kinds, as Faiss writes them: served with its vectors, or refused by kind."""

import faiss
import numpy as np
import pytest
from helpers import regret

import rvq_np
from rvq_np import Codebooks, Grouped, Projected, checkpoints
from rvq_np.errors import CheckpointError

faiss.omp_set_num_threads(1)


@pytest.fixture
def x(rng):
    return (rng.standard_normal((900, 8)) @ rng.standard_normal((8, 8)) + 1).astype(np.float32)


def quantizers_of(index):
    """Return the additive quantizers within an index that search by a beam."""
    while True:
        index = faiss.downcast_index(index)
        if hasattr(index, "rq"):
            return [index.rq]
        if hasattr(index, "prq"):
            return [index.prq.subquantizer(n) for n in range(index.prq.nsplits)]
        inner = getattr(index, "index", None)
        if inner is None:
            inner = getattr(index, "base_index", None)
        if inner is None:
            return []
        index = inner


def made(kind, x, tmp_path):
    index = faiss.index_factory(8, kind)
    for each in quantizers_of(index):
        faiss.downcast_AdditiveQuantizer(each).max_beam_size = 1
    index.train(x)
    (index.add_with_ids(x[:9], np.arange(9) + 70) if "IDMap" in kind else index.add(x[:9]))
    faiss.write_index(index, str(tmp_path / "a.faissindex"))
    family, quantizer = checkpoints.load_as(tmp_path / "a.faissindex")
    assert family == "faiss"
    return index, quantizer


@pytest.mark.parametrize(
    ("kind", "type_", "n_q"),
    [
        ("IDMap,RQ3x4", Codebooks, 3),
        ("IDMap2,RQ3x4_Nqint8", Codebooks, 3),
        ("RQ3x4,RFlat", Codebooks, 3),
        ("PCA5,RQ3x4", Projected, 3),
        ("PCAR5,RQ3x4_Nfloat", Projected, 3),
        ("OPQ2_4,RQ3x4", Projected, 3),
        ("RR8,RQ3x4", Projected, 3),
        ("IDMap,PCA5,RQ3x4", Codebooks, 3),
    ],
)
def test_wrappers_encode_and_decode_as_faiss(kind, type_, n_q, x, tmp_path):
    index, quantizer = made(kind, x, tmp_path)
    assert isinstance(quantizer, Projected if "PCA5" in kind else type_)
    assert (quantizer.n_q, quantizer.dim) == (n_q, 8)
    inner = faiss.downcast_index(index.index if "IDMap" in kind else index)
    inner = faiss.downcast_index(inner.base_index) if "RFlat" in kind else inner
    theirs = inner.sa_decode(inner.sa_encode(x))
    codes = rvq_np.encode(x, quantizer)
    mine = rvq_np.decode(codes, quantizer)
    same = np.isclose(mine, theirs, atol=1e-4).all(axis=1)
    assert same.mean() > 0.99  # other codes at near-ties
    regret.assert_nearest(x, list(codes), quantizer)


@pytest.mark.parametrize("kind", ["PRQ2x3x4", "PRQ4x2x4_Nqint8"])
def test_a_product_residual_quantizer_is_grouped(kind, x, tmp_path):
    index, quantizer = made(kind, x, tmp_path)
    assert type(quantizer) is Grouped
    theirs = index.sa_decode(index.sa_encode(x))
    mine = rvq_np.decode(rvq_np.encode(x, quantizer), quantizer)
    assert np.isclose(mine, theirs, atol=1e-4).all(axis=1).mean() > 0.98


@pytest.mark.parametrize("kind", ["IVF5,RQ3x4", "IVF5,RQ3x4_Nqint8", "IVF5,LSQ3x4"])
def test_inverted_lists_are_a_first_stage(kind, x, tmp_path):
    index, quantizer = made(kind, x, tmp_path)
    assert quantizer.sizes == (5, 16, 16, 16)
    np.testing.assert_array_equal(quantizer.stages[0].codebook, index.quantizer.reconstruct_n(0, 5))
    codes = rvq_np.encode(x[:9], quantizer)
    _, lists = index.quantizer.search(x[:9], 1)
    np.testing.assert_array_equal(codes[0], lists[:, 0])
    if "RQ" in kind.replace("LSQ", ""):
        index.make_direct_map()
        theirs = index.reconstruct_n(0, 9)
        np.testing.assert_allclose(rvq_np.decode(codes, quantizer), theirs, atol=1e-4)


def test_lists_of_vectors_themselves_are_no_stage(x, tmp_path):
    index = faiss.index_factory(8, "IVF5,RQ3x4")
    index.by_residual = False
    index.train(x)
    faiss.write_index(index, str(tmp_path / "a.faissindex"))
    assert checkpoints.load(tmp_path / "a.faissindex").sizes == (16, 16, 16)


def test_a_residual_coarse_quantizer_is_its_stages(x, tmp_path):
    coarse = faiss.ResidualCoarseQuantizer(8, 2, 3)
    coarse.train(x)
    index = faiss.IndexIVFResidualQuantizer(coarse, 8, 64, 3, 4)
    index.train(x)
    faiss.write_index(index, str(tmp_path / "a.faissindex"))
    quantizer = checkpoints.load(tmp_path / "a.faissindex")
    assert quantizer.sizes == (8, 8, 16, 16, 16)
    faiss.write_index(coarse, str(tmp_path / "b.faissindex"))
    assert checkpoints.load(tmp_path / "b.faissindex") == quantizer[:2]


@pytest.mark.parametrize("kind", ["LSQ3x4", "PLSQ2x3x4"])
def test_local_search_quantizers_decode_as_faiss(kind, x, tmp_path):
    index, quantizer = made(kind, x, tmp_path)
    packed = index.sa_encode(x)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : 4 * quantizer.n_q]
    codes = (bits.reshape(len(x), -1, 4) << np.arange(4)).sum(axis=2).T.astype(np.int64)
    if isinstance(quantizer, Grouped):  # theirs has the stages of a split together
        codes = codes.reshape(2, 3, -1).swapaxes(0, 1).reshape(6, -1)
    np.testing.assert_allclose(rvq_np.decode(codes, quantizer), index.sa_decode(packed), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Flat", "of kind IndexFlatL2; expected a residual or additive"),
        ("PQ4x4", "of kind IndexPQ; expected"),
        ("SQ8", "of kind IndexScalarQuantizer"),
        ("IVF5,PQ4x4", "of kind IndexIVFPQ"),
        ("HNSW8", "of kind IndexHNSWFlat"),
        ("IDMap,Flat", "of kind IndexIDMap, around one of kind IndexFlatL2; expected"),
        ("L2norm,RQ3x4", "behind a transform of kind 'VNrm'; .*index.index"),
        ("RQ3x4fs_Nrq2x4", "IndexResidualQuantizerFastScan.*write the plain index"),
        ("IVF5_HNSW8,RQ3x4", "lists are chosen by one of kind IndexHNSWFlat"),
        ("IVF5,PRQ2x3x4", "a product quantizer within inverted lists"),
        ("PCAW5,RQ3x4", "that is not orthonormal"),
    ],
)
def test_other_kinds_are_refused_by_name(kind, message, x, tmp_path):
    index = faiss.index_factory(8, kind)
    index.train(x)
    index.add(x[:3]) if "IDMap" not in kind else index.add_with_ids(x[:3], np.arange(3))
    faiss.write_index(index, str(tmp_path / "a.faissindex"))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(tmp_path / "a.faissindex")
    assert "a.faissindex" in str(caught.value)


def test_lists_chosen_by_inner_product_are_refused(x, tmp_path):
    index = faiss.index_factory(8, "IVF5,RQ3x4", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    faiss.write_index(index, str(tmp_path / "a.faissindex"))
    with pytest.raises(CheckpointError, match="chosen by inner product"):
        checkpoints.load(tmp_path / "a.faissindex")
