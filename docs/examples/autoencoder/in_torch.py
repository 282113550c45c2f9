"""The autoencoder in torch."""

from __future__ import annotations

import torch
from data import FRAME_RATE
from network import DECODER, ENCODER
from torch.nn import functional
from training import BETAS, EPSILON, RATE, SEED, Run, Start, follow

from rvq_np.grad.torch import ResidualVectorQuantizer


def train(start: Start, every: int, seed: int = SEED, cut: str | None = None) -> Run:
    """Train; `cut`, without the gradient through the quantizer: "after" it or "before" it.

    Cut after it, the encoder learns from the penalty alone; cut before it, not at all.
    """
    torch.manual_seed(seed)
    weights = {name: torch.tensor(each, requires_grad=True) for name, each in start.weights.items()}
    rvq = ResidualVectorQuantizer.of(start.rvq)
    optimizer = torch.optim.Adam(weights.values(), RATE, BETAS, EPSILON)

    def step(batch, rate):
        x = torch.from_numpy(batch)
        latent = convolved(weights, ENCODER, x)
        result = rvq(latent.detach() if cut == "before" else latent, FRAME_RATE)
        quantized = result.quantized.detach() if cut == "after" else result.quantized
        error = (convolved(weights, DECODER, quantized) - x).square().mean()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (error + result.penalty).backward()
        optimizer.step()
        return error.item()

    def trained():
        return {name: each.detach().numpy() for name, each in weights.items()}, rvq.to_numpy()

    return follow(start, step, trained, every)


def convolved(weights, layers, x):
    """Return (B, C, T) after the encoder or the decoder."""
    for name, _, _, taps in layers:
        if name != layers[0][0]:
            x = functional.elu(x)
        x = functional.conv1d(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=taps // 2
        )
    return x
