"""PyTorch where values are at hand: one pass, and gradients by hand at the rate of its products.

`torch.compile`, ``torch.func``, forward-mode differentiation and tensors that are stand-ins see
through the operations of `_surrogate` instead, which cost as many products again.  Here nothing is
computed twice: vectors and losses are those of the pass, and `_products.pulled_back` takes
gradients back, in operations that torch can differentiate again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from .. import arrays
from .. import train as training
from ..kernels.tables import as_writable
from ..quantizer import passes
from ..quantizer.layout import QuantizedResult
from ._names import StageArrays, map_names
from ._operation import Spec, outputs_of, pass_of
from ._products import pulled_back
from ._straight_through import Inputs, assembled
from ._surrogate import rotated
from ._torch_operator import OPS

PLAIN = (torch.Tensor, torch.nn.Parameter)


def serves(x: Any, mask: Any, named: Any) -> bool:
    """Whether all is in host memory and nothing but autograd's own record looks on."""
    if torch.compiler.is_compiling() or _watched():
        return False
    given = [x, *named.values()] if mask is None else [x, mask, *named.values()]
    return all(type(each) in PLAIN and each.is_cpu for each in given)


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


def host_array(tensor: Any) -> Any:
    """Return a weight in host memory as NumPy sees it, without a copy where there need be none."""
    if tensor.dtype is torch.float32:
        return tensor.detach().numpy()
    return arrays.to_numpy(tensor)


def forward(spec: Spec, inputs: Inputs, seed: Any, named: Any, estimator: str) -> QuantizedResult:
    """Do what the module's `forward` does with its arrays; in training, change them."""
    config = spec.config
    given = [host_array(named[name]) for name in spec.given_names]
    valid = None if inputs.valid is None else inputs.valid.numpy()
    rows = arrays.to_numpy(inputs.rows)
    passed = pass_of(spec, rows, valid, inputs.shape, seed, given)
    codes, quantized, active, bandwidth = map(torch.from_numpy, outputs_of(passed))
    loss = quantization = inputs.rows.new_tensor(passed.loss)
    if torch.is_grad_enabled():
        maps = []
        if config.projects:
            names = [name for stage in range(len(codes)) for name in map_names(stage)]
            maps = [named[name].to(inputs.rows.dtype) for name in names]
        if inputs.rows.requires_grad or any(each.requires_grad for each in maps):
            quantized, loss, quantization = Through.apply(
                inputs.rows, quantized, codes, active, passed, estimator, *maps
            )
    if spec.training:
        with torch.no_grad():
            for name, value in training.entries(passed.states).items():
                named[name].copy_(torch.from_numpy(as_writable(value)))
    return assembled(
        OPS, inputs, quantized, codes, bandwidth, config.commitment_weight * loss,
        quantization if config.quantizer_dropout else None,
    )  # fmt: skip


class Through(torch.autograd.Function):
    """From rows and maps to the rows and losses of a pass that has been made."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Any,
        quantized: Any,
        codes: Any,
        active: Any,
        passed: passes.Pass,
        estimator: Any,
        *maps: Any,
    ) -> Any:
        ctx.fixed = quantized.detach(), codes, active, passed, estimator
        ctx.save_for_backward(rows, *maps)
        loss = rows.new_tensor(passed.loss)
        return quantized, loss, loss.clone()

    @staticmethod
    def backward(ctx: Any, to_quantized: Any, penalty: Any, _: Any) -> Any:
        rows, *maps = ctx.saved_tensors
        quantized, codes, active, passed, estimator = ctx.fixed
        with torch.autocast(rows.device.type, enabled=False):
            given = to_quantized * (active > 0).to(rows.dtype)[:, None]
            to_x, to_maps = given, [None] * len(maps)
            if estimator == "rotation":
                to_x = rotated(OPS, given, rows.detach(), quantized, backwards=True)
            if passed.trained or maps:
                stages = _stages(passed, len(codes), rows.dtype, maps)
                more, gradients = pulled_back(
                    OPS, rows, given, active, stages, codes, trained=passed.trained, penalty=penalty
                )
                to_x = to_x + more
                if maps:
                    to_maps = [gradient for each in gradients for gradient in each[1:]]
            return to_x, None, None, None, None, None, *to_maps


def _stages(passed: Any, n_q: int, dtype: Any, maps: Any) -> Any:
    """Return the stages in use, their codewords those that the codes name."""
    stages = []
    for place, stage in enumerate(passed.codebooks.stages[:n_q]):
        own = maps[4 * place : 4 * place + 4]
        codebook = torch.from_numpy(as_writable(stage.codebook)).to(dtype)
        stages.append(StageArrays(codebook, *(own and (own[:2], own[2:]))))
    return stages
