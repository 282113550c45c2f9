"""The autoencoder without a framework: its initial weights, its first codebooks, its measure.

Both frameworks start from the weights and codebooks made here, and what they have trained is
handed back as arrays and measured here, so no figure depends on who did the sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from data import FRAME, FRAME_RATE

from rvq_np import ResidualVectorQuantizer

LATENT = 32
WIDTH = 192
STAGES = 4
CODEWORDS = 128
# (name, channels in, channels out, taps) of the convolutions; an ELU between two of them.
ENCODER = (
    ("encoder.0", FRAME, WIDTH, 3),
    ("encoder.1", WIDTH, WIDTH, 3),
    ("encoder.2", WIDTH, LATENT, 1),
)
DECODER = (
    ("decoder.0", LATENT, WIDTH, 3),
    ("decoder.1", WIDTH, WIDTH, 3),
    ("decoder.2", WIDTH, FRAME, 1),
)
ARGUMENTS: dict[str, Any] = dict(
    dimension=LATENT, codebook_dim=LATENT, n_q=STAGES, bins=CODEWORDS, decay=0.99,
    kmeans_init=True, threshold_ema_dead_code=1, commitment_weight=0.25,
)  # fmt: skip

Weights = dict[str, np.ndarray]


class Measure(NamedTuple):
    """What a trained autoencoder came to."""

    error: list[float]  # mean square, with one stage, two, ... all
    snr: list[float]  # the same in dB
    utilisation: list[float]  # share of each stage's codewords that are used
    perplexity: list[float]


def initial_weights(seed: int) -> Weights:
    """Return weights (out, in, taps) and biases (out,), uniform, of variance one to one."""
    rng, weights = np.random.default_rng(seed), {}
    for name, before, after, taps in (*ENCODER, *DECODER):
        bound = np.sqrt(3 / (before * taps))
        weights[f"{name}.weight"] = rng.uniform(-bound, bound, (after, before, taps))
        weights[f"{name}.bias"] = np.zeros(after)
    return {name: each.astype(np.float32) for name, each in weights.items()}


def first_quantizer(
    weights: Weights, batch: np.ndarray, seed: int, **changes: Any
) -> ResidualVectorQuantizer:
    """Return a quantizer whose codebooks were found by k-means on a batch's latent vectors.

    `changes`: other arguments than `ARGUMENTS`.
    """
    rvq = ResidualVectorQuantizer(**(ARGUMENTS | changes), rng=seed).train()
    rvq(convolved(weights, ENCODER, batch), FRAME_RATE)
    return rvq


def convolved(weights: Weights, layers: tuple, x: np.ndarray) -> np.ndarray:
    """Return (B, C, T) after the encoder or the decoder."""
    for name, _, _, taps in layers:
        if name != layers[0][0]:
            x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        time, wide = x.shape[2], np.pad(x, ((0, 0), (0, 0), (taps // 2, taps // 2)))
        weight = weights[f"{name}.weight"]
        x = sum(weight[:, :, tap] @ wide[:, :, tap : tap + time] for tap in range(taps))
        x = x + weights[f"{name}.bias"][:, None]
    return x


def measure(weights: Weights, rvq: ResidualVectorQuantizer, clips: list[np.ndarray]) -> Measure:
    """Encode, quantize and decode clips (FRAME, T) with every number of stages."""
    noise, signal, codes = np.zeros(STAGES), 0.0, []
    rvq = rvq.eval()
    for clip in clips:
        found = rvq.encode(convolved(weights, ENCODER, clip[None]), FRAME_RATE)
        for stage in range(STAGES):
            back = convolved(weights, DECODER, rvq.decode(found[: stage + 1]))
            noise[stage] += np.square(back[0] - clip, dtype=np.float64).sum()
        signal += float(np.square(clip, dtype=np.float64).sum())
        codes.append(found[:, 0])
    chosen = np.concatenate(codes, axis=1)
    share = np.stack([np.bincount(each, minlength=CODEWORDS) / each.size for each in chosen])
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    return Measure(
        error=(noise / sum(clip.size for clip in clips)).tolist(),
        snr=(10 * np.log10(signal / noise)).tolist(),
        utilisation=(share > 0).mean(axis=1).tolist(),
        perplexity=np.exp(entropy).tolist(),
    )
