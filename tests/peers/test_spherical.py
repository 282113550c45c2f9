"""Spherical k-means beside Faiss's, normalised residuals beside a loop in torch."""

import faiss
import numpy as np
import torch

import rvq_np
from rvq_np import train


def embeddings(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((40, 16))
    x = centres[rng.integers(0, 40, n)] + 0.5 * rng.standard_normal((n, 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def closeness(x, codewords):
    """Return the mean cosine of vectors of length one to their nearest codeword."""
    return float((x @ codewords.T).max(axis=1).mean())


def test_codewords_are_as_near_in_direction_as_those_of_faiss():
    x, new = embeddings(4000, 0), embeddings(1000, 1)
    theirs = faiss.Kmeans(16, 32, niter=25, spherical=True, seed=1, verbose=False)
    theirs.train(x)
    (stage,) = train.codebooks_of(train.fit(x, 1, 32, 25, 0, spherical=True))
    np.testing.assert_allclose(np.linalg.norm(theirs.centroids, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(stage.codebook, axis=1), 1, rtol=1e-5)
    for some in (x, new):
        assert closeness(some, stage.codebook) > closeness(some, theirs.centroids) - 0.01
    _, found = theirs.index.search(new, 1)
    same = rvq_np.Codebooks([rvq_np.Stage(theirs.centroids, metric="cosine")])
    np.testing.assert_array_equal(rvq_np.encode(new, same)[0], found[:, 0])


def test_codes_are_those_of_residuals_that_torch_normalizes():
    """As TorchEasyRec and GRID walk through their layers."""
    x, new = embeddings(4000, 0), 3 * embeddings(500, 1)
    books = train.codebooks_of(train.fit(x, 3, 32, 20, 0, normalize_residuals=True))
    residual, total = torch.from_numpy(new), torch.zeros(new.shape)
    for stage, codes in zip(books, rvq_np.encode(new, books), strict=True):
        residual = torch.nn.functional.normalize(residual, dim=-1)
        codewords = torch.tensor(stage.codebook)
        chosen = torch.cdist(residual, codewords).argmin(dim=1)
        np.testing.assert_array_equal(chosen.numpy(), codes)
        residual = residual - codewords[chosen]
        total = total + codewords[chosen]
    decoded = rvq_np.decode(rvq_np.encode(new, books), books)
    np.testing.assert_array_equal(decoded, total.numpy())
