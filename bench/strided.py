"""SNAC's quantizer in training: stages of one codebook each, on means of 4, 2 and 1 vectors.

Neither ESPnet's class nor ours has strides; a codec with strides implements them around it, as snac
does (``snac/vq.py``): average, quantize, repeat, subtract.
"""

from __future__ import annotations

import sys
from typing import Any

from . import fitted
from .quantizers import ESPNET, OURS_TORCH, RATE, Call

STRIDES = (4, 2, 1)
LENGTH = 400  # vectors


def steps() -> dict[str, Call]:
    """Return a training step of each class that is installed."""
    found = {}
    for name, load in ((OURS_TORCH, _ours), (ESPNET, _espnet)):
        try:
            found[name] = _step(load())
        except ImportError as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
    return found


def _ours() -> Any:
    from rvq_np.grad.torch import ResidualVectorQuantizer

    return ResidualVectorQuantizer


def _espnet() -> Any:
    from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer

    return ResidualVectorQuantizer


def _step(kind: Any) -> Call:
    import torch
    from torch.nn.functional import avg_pool1d

    state, one = fitted.state(fitted.SNAC, LENGTH), fitted.SNAC._replace(stages=1)
    stages = torch.nn.ModuleList()
    for q in range(len(STRIDES)):
        made, prefix = kind(*one.arguments), f"vq.layers.{q}."
        made.load_state_dict({
            "vq.layers.0." + name.removeprefix(prefix): torch.from_numpy(each.copy())
            for name, each in state.items() if name.startswith(prefix)
        })  # fmt: skip
        stages.append(made.train())
    x = torch.from_numpy(fitted.batch(fitted.SNAC, 1, LENGTH))

    def step():
        given = x.detach().requires_grad_()
        residual, total, loss = given, 0.0, 0.0
        for stage, stride in zip(stages, STRIDES, strict=True):
            pooled = avg_pool1d(residual, stride) if stride > 1 else residual
            quantized, _, _, penalty = stage(pooled, RATE)
            if stride > 1:
                quantized = quantized.repeat_interleave(stride, dim=-1)
            residual, total, loss = residual - quantized, total + quantized, loss + penalty
        stages.zero_grad(set_to_none=True)
        (total.square().mean() + loss).backward()
        return given.grad

    return step
