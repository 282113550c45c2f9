"""The packages `conformance` runs the kit on, each behind the kit's contracts."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
import transformers
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer
from vector_quantize_pytorch import ResidualVQ

torch.set_num_threads(1)
faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class Package:
    """A package, what of it is run, and how: the arguments of the kit's factories."""

    title: str
    name: str
    driven: str
    encode: Callable[..., Any] | None = None
    decode: Callable[..., Any] | None = None
    value_and_gradients: Callable[..., Any] | None = None


def as_tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def time_last(x: np.ndarray) -> torch.Tensor:
    """Return vectors (N, D) as one item of a batch (1, D, N)."""
    return as_tensor(x).T[None]


@functools.cache
def espnet_of(stages: int, codewords: int, dim: int) -> Any:
    return Espnet(dim, dim, stages, codewords, threshold_ema_dead_code=0)


def espnet(books: np.ndarray) -> Any:
    made = espnet_of(*books.shape)
    for layer, each in zip(made.vq.layers, books, strict=True):
        layer._codebook.embed.data.copy_(as_tensor(each))
        layer._codebook.inited.data.fill_(1)
    return made


def espnet_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return espnet(books).eval().encode(time_last(x), 50)[:, 0].numpy()


def espnet_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    return espnet(books).eval().decode(as_tensor(codes)[:, None])[0].T.detach().numpy()


def espnet_gradients(x: np.ndarray, books: np.ndarray, weight: float, cotangent: np.ndarray) -> Any:
    there = time_last(x).requires_grad_()
    quantized, codes, _, commitment = espnet(books).train()(there, 50)
    ((quantized * time_last(cotangent)).sum() + weight * commitment).backward()
    values = (quantized[0].T, codes[:, 0], weight * commitment, there.grad[0].T)
    return [each.detach().numpy() for each in values]


@functools.cache
def encodec_of(stages: int, codewords: int, dim: int) -> Any:
    size = max(
        2, codewords
    )  # no fewer can be configured; a book of one codeword is put in its place
    config = transformers.EncodecConfig(
        codebook_size=size, codebook_dim=dim, hidden_size=dim,
        target_bandwidths=[(stages + 1) * int(size).bit_length() * 75 / 1000],
    )  # fmt: skip
    made = EncodecResidualVectorQuantizer(config).eval()
    made.layers, made.num_quantizers = made.layers[:stages], stages
    if len(made.layers) != stages:
        raise RuntimeError(f"encodec has {len(made.layers)} stages; expected {stages}")
    return made


def encodec(books: np.ndarray) -> Any:
    made = encodec_of(*books.shape)
    for layer, each in zip(made.layers, books, strict=True):
        layer.codebook.embed = as_tensor(each)
    return made


def encodec_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return encodec(books).encode(time_last(x))[:, 0].numpy()


def encodec_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    return encodec(books).decode(as_tensor(codes)[:, None])[0].T.numpy()


@functools.cache
def residual_vq_of(stages: int, codewords: int, dim: int, **options: Any) -> Any:
    return ResidualVQ(dim=dim, num_quantizers=stages, codebook_size=codewords, **options)


def residual_vq(books: np.ndarray, **options: Any) -> Any:
    made = residual_vq_of(*books.shape, **options)
    for layer, each in zip(made.layers, books, strict=True):
        layer._codebook.embed.data.copy_(as_tensor(each)[None])
    return made


def residual_vq_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return residual_vq(books).eval()(as_tensor(x)[None])[1][0].T.numpy()


def residual_vq_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    made = residual_vq(books, quantize_dropout=len(books) > 1).eval()  # or no fewer stages decode
    return made.get_output_from_indices(as_tensor(codes).long().T[None])[0].detach().numpy()


def residual_vq_gradients(**options: Any) -> Callable[..., Any]:
    def value_and_gradients(
        x: np.ndarray, books: np.ndarray, weight: float, cotangent: np.ndarray
    ) -> Any:
        made = residual_vq(books, **options).train()
        there = as_tensor(x)[None].requires_grad_()
        quantized, codes, losses = made(there, freeze_codebook=True)
        penalty = weight * losses.mean()  # one loss a stage, of weight 1
        ((quantized * as_tensor(cotangent)).sum() + penalty).backward()
        values = (quantized[0], codes[0].T, penalty, there.grad[0])
        return [each.detach().numpy() for each in values]

    return value_and_gradients


def faiss_quantizer(books: np.ndarray) -> Any:
    """Return Faiss's, whose books have powers of two: filled up with the first codeword."""
    stages, codewords, dim = books.shape
    bits = max(1, (codewords - 1).bit_length())
    whole = np.concatenate([books, np.repeat(books[:, :1], 2**bits - codewords, axis=1)], axis=1)
    made = faiss.ResidualQuantizer(dim, stages, bits)
    made.max_beam_size = 1
    faiss.copy_array_to_vector(np.ascontiguousarray(whole, np.float32).ravel(), made.codebooks)
    made.is_trained = True
    return made, bits


def faiss_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    made, bits = faiss_quantizer(books)
    packed = made.compute_codes(np.ascontiguousarray(x))
    each = np.unpackbits(packed, axis=1, bitorder="little")[:, : len(books) * bits]
    each = each.reshape(len(x), len(books), bits).astype(np.int64)
    codes = (each << np.arange(bits)).sum(axis=2).T
    return np.where(codes < books.shape[1], codes, 0)  # a filler is the first codeword


def faiss_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    made, bits = faiss_quantizer(books[: len(codes)])
    each = (codes.T[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(
        each.reshape(codes.shape[1], len(codes) * bits).astype(np.uint8), 1, bitorder="little"
    )
    if packed.shape[1] < made.code_size:
        packed = np.pad(packed, ((0, 0), (0, made.code_size - packed.shape[1])))
    return made.decode(packed)


PACKAGES = {
    "espnet": Package(
        "ESPnet", "espnet",
        "`ResidualVectorQuantizer`, codes in eval mode, gradients in train mode",
        espnet_encode, espnet_decode, espnet_gradients,
    ),
    "encodec": Package(
        "EnCodec in transformers", "transformers",
        "the quantizer of `EncodecModel`; it passes no gradients on",
        encodec_encode, encodec_decode,
    ),
    "residual-vq": Package(
        "vector-quantize-pytorch", "vector-quantize-pytorch",
        "`ResidualVQ(rotation_trick=False)`, codes in eval mode, gradients in train mode",
        residual_vq_encode, residual_vq_decode, residual_vq_gradients(rotation_trick=False),
    ),
    "residual-vq-rotation": Package(
        "vector-quantize-pytorch, rotation trick", "vector-quantize-pytorch",
        "`ResidualVQ` as it comes, whose gradient is meant to turn and stretch; codes as above",
        value_and_gradients=residual_vq_gradients(),
    ),
    "faiss": Package(
        "Faiss", "faiss-cpu", "`ResidualQuantizer`, `max_beam_size = 1`; it has no gradients",
        faiss_encode, faiss_decode,
    ),
}  # fmt: skip
