"""Codecs of transformers with random weights, encoded in padded batches as their users do.

Codewords are drawn among what the stages before leave of the signals' latents, or no residual would
lie near two of them; convolutions keep the variance, or float32 would hold no sound in the latents.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from rvq_np import checkpoints

# What makes a model small, for tests.
SMALL = {
    "encodec": {
        "num_filters": 4, "upsampling_ratios": [4, 2], "num_lstm_layers": 1, "hidden_size": 16,
        "codebook_size": 64, "codebook_dim": 16, "target_bandwidths": [2.4], "sampling_rate": 800,
    },
    "dac": {
        "encoder_hidden_size": 4, "downsampling_ratios": [4, 2], "decoder_hidden_size": 16,
        "n_codebooks": 4, "codebook_size": 64, "codebook_dim": 4,
    },
    "mimi": {
        "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 2], "codebook_size": 64,
        "codebook_dim": 16, "vector_quantization_hidden_dimension": 16, "num_quantizers": 4,
        "num_semantic_quantizers": 1, "num_hidden_layers": 2, "intermediate_size": 32,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "upsample_groups": 16,
        "sampling_rate": 800, "frame_rate": 50,
    },
}  # fmt: skip
# As published, but for fewer codewords, which eleven seconds of sound can fill, and fewer channels.
LARGE = {
    "encodec": {"codebook_size": 128, "target_bandwidths": [4.2], "num_filters": 8},
    "dac": {"codebook_size": 128, "encoder_hidden_size": 8, "decoder_hidden_size": 64},
    "mimi": {"codebook_size": 128, "num_quantizers": 8, "num_filters": 16},
}
TITLES = {"encodec": "EnCodec", "dac": "DAC", "mimi": "Mimi"}


@dataclass(frozen=True)
class Codec:
    """A codec with random weights; the callables take a list of signals, see `batch_drifts`."""

    title: str
    model: Any
    stages: int
    quantizer: Any
    latents: Callable[[Sequence[Any]], list[np.ndarray]]
    encode: Callable[[Sequence[Any]], list[np.ndarray]]
    variants: dict[str, Callable[[Sequence[Any]], list[np.ndarray]]]


def noise(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Return signals of noise whose loudness and colour change."""
    made = []
    for n, length in enumerate(lengths):
        rng = np.random.default_rng([seed, n])
        white = rng.standard_normal(length)
        smooth = np.convolve(white, np.ones(9) / 9, "same")
        loud = 0.1 + np.abs(np.sin(np.arange(length) * (n + 1) / 3000))
        mixed = loud * (smooth + 0.2 * np.sin(np.arange(length) / 7) * white)
        made.append((0.5 * mixed).astype(np.float32))
    return made


def _between(linear: Any, rows: torch.Tensor) -> torch.Tensor:
    """Return rows after a map, which may be absent."""
    return rows if linear is None else linear(rows[:, :, None])[:, :, 0]


def encodec(**options: Any) -> Any:
    model = transformers.EncodecModel(transformers.EncodecConfig(**options)).eval()
    books = [layer.codebook for layer in model.quantizer.layers]
    for book in books:
        book.inited.fill_(1)
    return model, [(book.embed, None, None) for book in books]


def dac(**options: Any) -> Any:
    model = transformers.DacModel(transformers.DacConfig(**options)).eval()
    for each in model.quantizer.quantizers:
        for way in (each.in_proj, each.out_proj):
            way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
    return model, [
        (each.codebook.weight, each.in_proj, each.out_proj) for each in model.quantizer.quantizers
    ]


def mimi(**options: Any) -> Any:
    model = transformers.MimiModel(transformers.MimiConfig(**options)).eval()
    stacks = (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    )
    for stack in stacks:
        for way in (stack.input_proj, stack.output_proj):
            if way is not None:
                way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
        for layer in stack.layers:
            layer.codebook.cluster_usage.fill_(1)
            layer.codebook.initialized.fill_(1)
    return model, [
        (layer.codebook.embed_sum, stack.input_proj, stack.output_proj)
        for stack in stacks
        for layer in stack.layers
    ]


def of_encoder(name: str, model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return what the quantizer gets (B, D, T) of sound (B, 1, samples)."""
    out = model.encoder(x)
    return out.latents if name == "mimi" else out


def of_quantizer(name: str, model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return codes (Q, B, T)."""
    if name == "mimi":
        return model.quantizer.encode(x)
    if name == "dac":
        return model.quantizer(x)[1].transpose(0, 1)
    return model.quantizer.encode(x, max(model.config.target_bandwidths))


def padded(batch: Sequence[Any]) -> torch.Tensor:
    longest = max(map(len, batch))
    return torch.from_numpy(np.stack([np.pad(x, (0, longest - len(x))) for x in batch]))[:, None]


@torch.no_grad()
def made(name: str, signals: Sequence[Any], folder: Path, options: dict[str, Any]) -> Codec:
    """Return a codec whose codewords are latents of `signals`; `folder` is for its checkpoint."""
    torch.manual_seed(0)
    model, books = {"encodec": encodec, "dac": dac, "mimi": mimi}[name](**options)
    for each in model.encoder.modules():  # or the sound would end up below float32's rounding
        if isinstance(each, torch.nn.Conv1d):
            fan_in = each.weight[0].numel()
            drawn = 1.4 * torch.randn_like(each.weight) * fan_in**-0.5
            if hasattr(each, "parametrizations"):
                each.weight = drawn  # into scale and direction
            else:
                each.weight.data.copy_(drawn)
    rows = of_encoder(name, model, padded(signals)).transpose(1, 2).flatten(0, 1)
    assert len(rows) >= len(books[0][0])
    for codebook, into, out in books:
        left = _between(into, rows)
        codebook.data.copy_(left[torch.randperm(len(rows))[: len(codebook)]])
        chosen = codebook[torch.cdist(left, codebook.data).argmin(dim=1)]
        rows = rows - _between(out, chosen)
    model.save_pretrained(folder)
    halved = copy.deepcopy(model).bfloat16()
    hop = int(np.prod(
        model.config.downsampling_ratios if name == "dac" else model.config.upsampling_ratios
    ))  # fmt: skip
    hop *= 2 if name == "mimi" else 1  # it halves the rate between encoder and quantizer

    def cut(batch: Sequence[Any], out: torch.Tensor) -> list[np.ndarray]:
        """Return what is of each signal, of an array (any, B, T)."""
        return [out[:, n, : len(each) // hop].float().numpy() for n, each in enumerate(batch)]

    @torch.no_grad()
    def latents(batch: Sequence[Any]) -> list[np.ndarray]:
        out = of_encoder(name, model, padded(batch)).transpose(0, 1)
        return [each.T for each in cut(batch, out)]

    def encoder(network: Any, quantizer: Any) -> Callable[[Sequence[Any]], list[np.ndarray]]:
        @torch.no_grad()
        def encode(batch: Sequence[Any]) -> list[np.ndarray]:
            x = of_encoder(name, network, padded(batch).to(network.dtype)).to(quantizer.dtype)
            codes = of_quantizer(name, quantizer, x)
            return [each.astype(np.int64) for each in cut(batch, codes)]

        return encode

    def on_two_threads(batch: Sequence[Any]) -> list[np.ndarray]:
        torch.set_num_threads(2)
        try:
            return encoder(model, model)(batch)
        finally:
            torch.set_num_threads(1)

    variants = {
        "on two threads": on_two_threads,
        "the quantizer in bfloat16": encoder(model, halved),
        "everything in bfloat16": encoder(halved, halved),
    }
    return Codec(
        TITLES[name], model, len(books), checkpoints.load(folder), latents, encoder(model, model),
        variants,
    )  # fmt: skip
