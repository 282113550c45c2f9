"""PyTorch where values are at hand: one pass, and gradients by hand at the rate of its products.

`torch.compile`, ``torch.func``, forward-mode differentiation and tensors that are stand-ins see
through the operations of `_surrogate` instead, which cost as many products again.  Here nothing is
computed twice: vectors and losses are those of the pass, and `_products.pulled_back` takes
gradients back, in operations that torch can differentiate again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .. import train as training
from ..layout import QuantizedResult
from . import _host, _products
from ._surrogate import batch_of, rotated, rows_of


def serves(x, mask, entries) -> bool:
    """Whether all is in host memory and nothing but autograd's own record looks on."""
    if torch.compiler.is_compiling() or _watched():
        return False
    given = [x, *entries.values()] + ([] if mask is None else [mask])
    plain = (torch.Tensor, torch.nn.Parameter)
    return all(type(each) in plain and each.device.type == "cpu" for each in given)


def _watched() -> bool:
    """Whether a transform or a mode of torch wants to see the operations.

    Where a torch does not say, it is taken for watched.
    """
    try:
        return (
            torch._C._functorch.peek_interpreter_stack() is not None
            or forward_ad._current_level >= 0
            or torch._C._len_torch_dispatch_stack() > 0
            or torch._C._len_torch_function_stack() > 0
            or torch._C._get_tracing_state() is not None
        )
    except AttributeError:
        return True


def forward(owner, ops, spec, wide, mask, seed, entries) -> QuantizedResult:
    """Do what the module's `forward` does for vectors `wide`; in training, change `entries`."""
    config = spec.config
    wanted = _host.needed(spec)
    with torch.no_grad():
        tensors = [entries[name] for name in wanted]
        passed = _host.passed_by(spec, wide.detach(), mask, seed, tensors)
    codes = passed.batch.codes(passed.codes)
    bandwidth = torch.from_numpy(np.asarray(passed.bandwidth, np.float32))
    levels = range(codes.shape[0]) if config.projects else ()
    maps = [
        entries[f"vq.layers.{level}.{name}.{part}"].to(wide.dtype)
        for level in levels
        for name in _products.MAPS
        for part in ("weight", "bias")
    ]
    quantized, commitment, quantization = Through.apply(wide, ops, passed, owner.estimator, *maps)
    if spec.training:
        with torch.no_grad():
            for name, value in training.entries(passed.states).items():
                entries[name].copy_(torch.from_numpy(_host.lent(value)))
    both = bool(config.quantizer_dropout)
    penalty = config.commitment_weight * commitment
    return QuantizedResult(quantized, codes, bandwidth, penalty, quantization if both else None)


class Through(torch.autograd.Function):
    """From vectors and maps to the vectors and losses of a pass that has been made."""

    @staticmethod
    def forward(ctx: Any, wide, ops, passed, estimator, *maps):
        value = passed.batch.vectors(passed.quantized)
        ctx.ops, ctx.passed, ctx.estimator = ops, passed, estimator
        ctx.save_for_backward(wide, *maps)
        loss = wide.new_tensor(passed.loss)
        return value, loss, loss.clone()

    @staticmethod
    def backward(ctx: Any, wanted, penalty, _):
        wide, *maps = ctx.saved_tensors
        passed, ops = ctx.passed, ctx.ops
        with torch.autocast(wide.device.type, enabled=False):
            rows = rows_of(ops, wide)
            active = torch.from_numpy(passed.active())
            given = rows_of(ops, wanted) * (active > 0).to(wide.dtype)[:, None]
            to_x, to_maps = given, [None] * len(maps)
            if ctx.estimator == "rotation":
                value = passed.quantized.to(wide.dtype)
                to_x = rotated(ops, given, rows.detach(), value, backwards=True)
            if passed.trained or maps:
                more, found = _products.pulled_back(
                    ops, rows, given, active, _levels(passed, wide.dtype, maps),
                    trained=passed.trained, penalty=penalty,
                )  # fmt: skip
                to_x = to_x + more
                if maps:
                    to_maps = [gradient for each in found for gradient in each[1:]]
            return batch_of(ops, to_x, wide), None, None, None, *to_maps


def _levels(passed, dtype, maps):
    """Return the levels in use, their words those that the codes name."""
    levels = []
    for level, (stage, codes) in enumerate(
        zip(passed.codebooks.stages, passed.codes, strict=False)
    ):
        words = torch.from_numpy(_host.lent(stage.words)).to(dtype)
        own = maps[4 * level : 4 * level + 4]
        levels.append(_products.Level(words, codes, *(own and (own[:2], own[2:]))))
    return levels


def product(x, y, z, alpha, beta):
    """Return ``alpha x @ y + beta z``, in one pass where factors need no gradient themselves."""
    if torch.is_grad_enabled():
        return alpha * (x @ y) + beta * z
    return torch.addmm(z, x, y, alpha=float(alpha), beta=float(beta))


def sum_into(x, y, alpha):
    """Return ``x + alpha y``, written over `x` where nobody will differentiate it."""
    if torch.is_grad_enabled():
        return x + alpha * y
    return x.add_(y, alpha=alpha)
