"""Implementations of encoding: from codebooks (Q, K, D) float32 to an `Implementation`.

Each is written as a user of its library would write it. What depends only on the codebooks is
computed before; the timed part is from vectors in a NumPy array to codes in the form that the
library returns.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch
from rvq_np.kernels.plain import engine as plain

from .problems import Mapped

AGREEMENT = 0.99  # share of first codes that must equal ours: float32 sums may lose near-ties


class Implementation(NamedTuple):
    """``run(x)`` is what is timed; ``codes(run(x))`` are codes (Q, N) to compare."""

    run: Callable[[np.ndarray], Any]
    codes: Callable[[Any], np.ndarray]


def ours(codebooks: np.ndarray) -> Implementation:
    """`rvq_np.encode` with its defaults."""
    books = rvq_np.Codebooks(codebooks)
    dispatch.load()  # otherwise NumPy is used for the first small calls of the process
    return Implementation(lambda x: rvq_np.encode(x, books), np.asarray)


def ours_without_numba(codebooks: np.ndarray) -> Implementation:
    """`rvq_np.encode` without Numba: the same codes from NumPy."""
    books = rvq_np.Codebooks(codebooks)
    dispatch.load()

    def run(x):
        compiled, dispatch.kernels = dispatch.kernels, plain
        try:
            return rvq_np.encode(x, books)
        finally:
            dispatch.kernels = compiled

    return Implementation(run, np.asarray)


def numpy_loop(codebooks: np.ndarray) -> Implementation:
    """The simplest NumPy code: a matrix product and an argmin per stage.

    Many rows are split into blocks, so that the products fit into memory.
    """
    halves = 0.5 * np.square(codebooks).sum(axis=-1)
    block = 16384

    def run(x):
        codes = np.empty((len(codebooks), len(x)), np.int32)
        for start in range(0, len(x), block):
            residual = x[start : start + block].copy()
            for book, half, found in zip(codebooks, halves, codes, strict=True):
                code = np.argmin(half - residual @ book.T, axis=1)
                residual -= book[code]
                found[start : start + block] = code
        return codes

    return Implementation(run, np.asarray)


def torch_encodec(codebooks: np.ndarray) -> Implementation:
    """EnCodec's formula in torch (``encodec/quantization/core_vq.py``)."""
    import torch

    codes_of = encodec_formula(torch.from_numpy(codebooks))

    @torch.inference_mode()
    def run(x):
        return codes_of(torch.from_numpy(x))

    return Implementation(run, lambda codes: codes.numpy())


def encodec_formula(books: Any) -> Callable[[Any], Any]:
    """Return a function of vectors (N, D) that gives codes (Q, N); `books` (Q, K, D): tensors."""
    import torch

    stages = books.unbind(0)

    def codes_of(residual):
        codes = []
        for book in stages:
            embed = book.t()
            squares = residual.pow(2).sum(1, keepdim=True)
            distance = -(squares - 2 * residual @ embed + embed.pow(2).sum(0, keepdim=True))
            code = distance.max(dim=-1).indices
            residual = residual - torch.nn.functional.embedding(code, book)
            codes.append(code)
        return torch.stack(codes)

    return codes_of


def faiss_residual(codebooks: np.ndarray, beam: int = 1, tables: bool = False) -> Implementation:
    """Faiss's ResidualQuantizer. Its codes come bit-packed; unpacking is not timed.

    `tables` has it compute with products of codewords instead of residuals (``use_beam_LUT``).
    """
    import faiss

    quantizer, n_bits = faiss_quantizer(codebooks)
    quantizer.max_beam_size = beam
    if tables:
        quantizer.use_beam_LUT = 1
        quantizer.compute_codebook_tables()

    def codes(packed):
        return faiss.unpack_bitstrings(packed, len(codebooks), n_bits).T

    return Implementation(quantizer.compute_codes, codes)


def faiss_quantizer(codebooks: np.ndarray) -> tuple[Any, int]:
    """Return a Faiss ResidualQuantizer that holds `codebooks`, and its bits per code."""
    import faiss

    n_q, size, dim = codebooks.shape
    n_bits = size.bit_length() - 1
    if size != 1 << n_bits:
        raise ValueError(
            f"a codebook has {size} codewords; expected a power of two, as Faiss requires."
        )
    quantizer = faiss.ResidualQuantizer(dim, n_q, n_bits)
    faiss.copy_array_to_vector(codebooks.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.max_beam_size = 1
    return quantizer, n_bits


def vector_quantize_pytorch(codebooks: np.ndarray) -> Implementation:
    """The ResidualVQ of vector-quantize-pytorch in eval mode, which always decodes as well."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    n_q, size, dim = codebooks.shape
    quantizer = ResidualVQ(dim=dim, num_quantizers=n_q, codebook_size=size).eval()
    for layer, book in zip(quantizer.layers, codebooks, strict=True):
        layer._codebook.embed.data.copy_(torch.from_numpy(book)[None])

    @torch.inference_mode()
    def run(x):
        return quantizer(torch.from_numpy(x))[1]

    return Implementation(run, lambda codes: codes.numpy().T)


def dac_ours(stages: list[Mapped]) -> Implementation:
    """`rvq_np.encode` with projections; by cosine if a `Stage` can, else see `problems.mapped`."""
    cosine = {"metric": "cosine"} if "metric" in signature(rvq_np.Stage).parameters else {}
    books = rvq_np.Codebooks(
        rvq_np.Stage(
            each.codebook,
            rvq_np.Linear(each.weight_in, each.bias_in),
            rvq_np.Linear(each.weight_out, each.bias_out),
            **cosine,
        )
        for each in stages
    )
    dispatch.load()
    return Implementation(lambda x: rvq_np.encode(x, books), np.asarray)


def dac_torch(stages: list[Mapped]) -> Implementation:
    """DAC's ResidualVectorQuantize in eval mode (``dac/nn/quantize.py``), weight norm folded.

    Without its losses. Like the original it normalizes the codewords in each call and returns the
    decoded vectors, too.
    """
    import torch
    from torch.nn.functional import embedding, normalize

    class Stage(torch.nn.Module):
        def __init__(self, stage):
            super().__init__()
            width, dim = stage.weight_in.shape
            self.in_proj = torch.nn.Conv1d(dim, width, kernel_size=1)
            self.out_proj = torch.nn.Conv1d(width, dim, kernel_size=1)
            self.codebook = torch.nn.Embedding(*stage.codebook.shape)
            for own, given in (
                (self.in_proj.weight, stage.weight_in[:, :, None]),
                (self.in_proj.bias, stage.bias_in),
                (self.out_proj.weight, stage.weight_out[:, :, None]),
                (self.out_proj.bias, stage.bias_out),
                (self.codebook.weight, stage.codebook),
            ):
                own.data.copy_(torch.from_numpy(given))

        def forward(self, z):
            latents = self.in_proj(z)
            rows = normalize(latents.transpose(1, 2).reshape(-1, latents.shape[1]))
            codewords = normalize(self.codebook.weight)
            distance = (
                rows.pow(2).sum(1, keepdim=True)
                - 2 * rows @ codewords.t()
                + codewords.pow(2).sum(1, keepdim=True).t()
            )
            code = (-distance).max(1)[1].reshape(z.shape[0], z.shape[2])
            chosen = embedding(code, self.codebook.weight).transpose(1, 2)
            chosen = latents + (chosen - latents)
            return self.out_proj(chosen), code

    quantizers = torch.nn.ModuleList(map(Stage, stages)).eval()

    @torch.inference_mode()
    def run(x):
        residual = torch.from_numpy(x).t()[None]
        quantized, codes = 0.0, []
        for quantizer in quantizers:
            found, code = quantizer(residual)
            quantized = quantized + found
            residual = residual - found
            codes.append(code)
        return torch.stack(codes, dim=1), quantized

    return Implementation(run, lambda result: result[0][0].numpy())


IMPLEMENTATIONS: dict[str, Callable[[np.ndarray], Implementation]] = {
    "rvq_np": ours,
    "rvq_np without Numba": ours_without_numba,
    "NumPy matmul + argmin": numpy_loop,
    "Faiss ResidualQuantizer": faiss_residual,
    "torch, EnCodec's formula": torch_encodec,
    "vector-quantize-pytorch": vector_quantize_pytorch,
}


def agreement(
    implementation: Implementation, x: np.ndarray, expected: np.ndarray
) -> tuple[float, float]:
    """Return the share of codes equal to `expected` (Q, N): at the first stage, and at all.

    Raises ValueError where the first is below `AGREEMENT`: then the implementation computes
    something else. Later stages are only reported: a near-tie lost early changes all later codes.
    """
    codes = implementation.codes(implementation.run(x))
    if codes.shape != expected.shape:
        raise ValueError(f"codes have shape {codes.shape}; expected {expected.shape}")
    same = codes == expected
    first = float(same[0].mean())
    if first < AGREEMENT:
        raise ValueError(
            f"only {first:.2%} of the first codes equal ours; expected {AGREEMENT:.0%}"
        )
    return first, float(same.mean())


class Sgemm:
    """The usual roofline: one square matrix product in float32, by NumPy's BLAS."""

    name = "sgemm alone"

    def __init__(self, side: int = 4096):
        rng = np.random.default_rng(2)
        self.a, self.b = rng.standard_normal((2, side, side), dtype=np.float32)
        self.out = np.empty((side, side), np.float32)
        self.flops = 2 * side**3

    def __call__(self) -> None:
        np.matmul(self.a, self.b, out=self.out)
