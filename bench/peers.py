"""The contestants for encoding: each takes codebooks (Q, K, D) float32 and gives a `Contestant`.

Each is written as a user of its library would write it. Whatever depends on the codebooks alone
is done beforehand; what is timed starts with vectors in a NumPy array and ends with codes in
whatever form the library hands out.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np.kernels import host, plain

from .problems import Mapped

AGREEMENT = 0.99  # share of first codes that must be ours: float32 may lose a near-tie, no more


class Contestant(NamedTuple):
    """``run(x)`` is what is timed; ``codes(run(x))`` are codes (Q, N) to compare."""

    run: Callable[[np.ndarray], Any]
    codes: Callable[[Any], np.ndarray]


def ours(codebooks: np.ndarray) -> Contestant:
    """`rvq_np.encode` as it comes."""
    books = rvq_np.Codebooks(codebooks)
    host.load()  # or NumPy would serve the first small calls of the process
    return Contestant(lambda x: rvq_np.encode(x, books), np.asarray)


def ours_without_numba(codebooks: np.ndarray) -> Contestant:
    """`rvq_np.encode` on a machine that has no Numba: the same codes from NumPy."""
    books = rvq_np.Codebooks(codebooks)
    host.load()

    def run(x):
        compiled, host.kernels = host.kernels, plain
        try:
            return rvq_np.encode(x, books)
        finally:
            host.kernels = compiled

    return Contestant(run, np.asarray)


def numpy_loop(codebooks: np.ndarray) -> Contestant:
    """What one writes in NumPy in five minutes: a matrix product and an argmin per stage.

    Many rows come in blocks, as one does when the products do not fit into memory.
    """
    halves = 0.5 * np.square(codebooks).sum(axis=-1)
    block = 16384

    def run(x):
        codes = np.empty((len(codebooks), len(x)), np.int32)
        for start in range(0, len(x), block):
            residual = x[start : start + block].copy()
            for words, half, found in zip(codebooks, halves, codes, strict=True):
                code = np.argmin(half - residual @ words.T, axis=1)
                residual -= words[code]
                found[start : start + block] = code
        return codes

    return Contestant(run, np.asarray)


def torch_encodec(codebooks: np.ndarray) -> Contestant:
    """EnCodec's formula in torch (``encodec/quantization/core_vq.py``)."""
    import torch

    codes_of = encodec_formula(torch.from_numpy(codebooks))

    @torch.inference_mode()
    def run(x):
        return codes_of(torch.from_numpy(x))

    return Contestant(run, lambda codes: codes.numpy())


def encodec_formula(books: Any) -> Callable[[Any], Any]:
    """Return a function of vectors (N, D) that gives codes (Q, N); `books` (Q, K, D): tensors."""
    import torch

    levels = books.unbind(0)

    def codes_of(residual):
        codes = []
        for words in levels:
            embed = words.t()
            squares = residual.pow(2).sum(1, keepdim=True)
            distance = -(squares - 2 * residual @ embed + embed.pow(2).sum(0, keepdim=True))
            code = distance.max(dim=-1).indices
            residual = residual - torch.nn.functional.embedding(code, words)
            codes.append(code)
        return torch.stack(codes)

    return codes_of


def faiss_residual(codebooks: np.ndarray, beam: int = 1, tables: bool = False) -> Contestant:
    """Faiss's ResidualQuantizer. Its codes come bit-packed; unpacking is not timed.

    `tables` has it compute with products of words instead of residuals (``use_beam_LUT``).
    """
    import faiss

    quantizer, n_bits = faiss_quantizer(codebooks)
    quantizer.max_beam_size = beam
    if tables:
        quantizer.use_beam_LUT = 1
        quantizer.compute_codebook_tables()

    def codes(packed):
        return faiss.unpack_bitstrings(packed, len(codebooks), n_bits).T

    return Contestant(quantizer.compute_codes, codes)


def faiss_quantizer(codebooks: np.ndarray) -> tuple[Any, int]:
    """Return a Faiss ResidualQuantizer that holds `codebooks`, and its bits per code."""
    import faiss

    n_q, n_words, dim = codebooks.shape
    n_bits = n_words.bit_length() - 1
    if n_words != 1 << n_bits:
        raise ValueError(f"Faiss takes powers of two; a codebook has {n_words} words.")
    quantizer = faiss.ResidualQuantizer(dim, n_q, n_bits)
    faiss.copy_array_to_vector(codebooks.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.max_beam_size = 1
    return quantizer, n_bits


def vector_quantize_pytorch(codebooks: np.ndarray) -> Contestant:
    """The ResidualVQ of vector-quantize-pytorch in eval mode. It decodes as well, always."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    n_q, n_words, dim = codebooks.shape
    quantizer = ResidualVQ(dim=dim, num_quantizers=n_q, codebook_size=n_words).eval()
    for layer, words in zip(quantizer.layers, codebooks, strict=True):
        layer._codebook.embed.data.copy_(torch.from_numpy(words)[None])

    @torch.inference_mode()
    def run(x):
        return quantizer(torch.from_numpy(x))[1]

    return Contestant(run, lambda codes: codes.numpy().T)


def dac_ours(levels: list[Mapped]) -> Contestant:
    """`rvq_np.encode` with projections; by cosine if a `Stage` can, else see `problems.mapped`."""
    cosine = {"metric": "cosine"} if "metric" in signature(rvq_np.Stage).parameters else {}
    books = rvq_np.Codebooks(
        rvq_np.Stage(
            each.words,
            rvq_np.Linear(each.weight_in, each.bias_in),
            rvq_np.Linear(each.weight_out, each.bias_out),
            **cosine,
        )
        for each in levels
    )
    host.load()
    return Contestant(lambda x: rvq_np.encode(x, books), np.asarray)


def dac_torch(levels: list[Mapped]) -> Contestant:
    """DAC's ResidualVectorQuantize in eval mode (``dac/nn/quantize.py``), weight norm folded.

    Its losses are left out. Like the original it normalises the words in each call and returns
    the decoded vectors, too.
    """
    import torch
    from torch.nn.functional import embedding, normalize

    class Level(torch.nn.Module):
        def __init__(self, level):
            super().__init__()
            width, dim = level.weight_in.shape
            self.in_proj = torch.nn.Conv1d(dim, width, kernel_size=1)
            self.out_proj = torch.nn.Conv1d(width, dim, kernel_size=1)
            self.codebook = torch.nn.Embedding(*level.words.shape)
            for own, given in (
                (self.in_proj.weight, level.weight_in[:, :, None]),
                (self.in_proj.bias, level.bias_in),
                (self.out_proj.weight, level.weight_out[:, :, None]),
                (self.out_proj.bias, level.bias_out),
                (self.codebook.weight, level.words),
            ):
                own.data.copy_(torch.from_numpy(given))

        def forward(self, z):
            latents = self.in_proj(z)
            rows = normalize(latents.transpose(1, 2).reshape(-1, latents.shape[1]))
            words = normalize(self.codebook.weight)
            distance = (
                rows.pow(2).sum(1, keepdim=True)
                - 2 * rows @ words.t()
                + words.pow(2).sum(1, keepdim=True).t()
            )
            code = (-distance).max(1)[1].reshape(z.shape[0], z.shape[2])
            chosen = embedding(code, self.codebook.weight).transpose(1, 2)
            chosen = latents + (chosen - latents)
            return self.out_proj(chosen), code

    quantizers = torch.nn.ModuleList(map(Level, levels)).eval()

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

    return Contestant(run, lambda result: result[0][0].numpy())


CONTESTANTS: dict[str, Callable[[np.ndarray], Contestant]] = {
    "rvq_np": ours,
    "rvq_np without Numba": ours_without_numba,
    "NumPy matmul + argmin": numpy_loop,
    "Faiss ResidualQuantizer": faiss_residual,
    "torch, EnCodec's formula": torch_encodec,
    "vector-quantize-pytorch": vector_quantize_pytorch,
}


def agreement(contestant: Contestant, x: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the share of codes equal to `expected` (Q, N): at the first level, and at all.

    Raises ValueError where the first is below `AGREEMENT`: who computes something else is no
    contestant. Later levels are only reported: a near-tie lost early changes all that follows.
    """
    codes = contestant.codes(contestant.run(x))
    if codes.shape != expected.shape:
        raise ValueError(f"codes have shape {codes.shape}, ours {expected.shape}")
    same = codes == expected
    first = float(same[0].mean())
    if first < AGREEMENT:
        raise ValueError(f"only {first:.2%} of the first codes are ours; wanted {AGREEMENT:.0%}")
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
