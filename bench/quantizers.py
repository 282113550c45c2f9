"""Implementations of whole quantizers: ESPnet's class, ours in torch and in NumPy, lucidrains'.

Each function takes a `Shape`, batches (B, D, T) to use in turn, and a state dict under ESPnet's
names, or None for a new quantizer; it returns `Calls`. All are called as a codec calls them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import rvq_np

from .fitted import Shape

OURS_TORCH, OURS_NUMPY = "rvq_np, torch module", "rvq_np, NumPy class"
ESPNET, LUCID = "ESPnet's class", "vector-quantize-pytorch"
RATE = 50  # vectors per second; only the bandwidth in the result depends on it
Call = Callable[[], Any]


class Calls(NamedTuple):
    """The calls of a codec to one quantizer; ``codes()`` are those of the first batch, (n_q, N)."""

    step: Call  # in train mode, and with gradients where there are any
    forward: Call  # in eval mode
    encode: Call | None
    decode: Call | None
    codes: Callable[[], np.ndarray]


def espnet(shape: Shape, batches: list[np.ndarray], state: Any, **changed: Any) -> Calls:
    """ESPnet's class."""
    from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer

    return _torch(ResidualVectorQuantizer, shape, batches, state, changed)


def ours_torch(shape: Shape, batches: list[np.ndarray], state: Any, **changed: Any) -> Calls:
    """Our torch module, its drop-in replacement."""
    from rvq_np.grad.torch import ResidualVectorQuantizer

    return _torch(ResidualVectorQuantizer, shape, batches, state, changed)


def _torch(
    kind: Any, shape: Shape, batches: list[np.ndarray], state: Any, changed: dict[str, Any]
) -> Calls:
    import torch

    def made():
        torch.manual_seed(0)
        quantizer = kind(*shape.arguments, **changed)
        if state is not None:
            quantizer.load_state_dict({name: torch.from_numpy(each.copy()) for name, each in
                                       state.items()})  # fmt: skip
        return quantizer

    given = [torch.from_numpy(each) for each in batches]
    moving, still, turns = made().train(), made().eval(), itertools.cycle(given)

    def step():
        x = next(turns).detach().requires_grad_()
        quantized, _, _, penalty = moving(x, RATE)[:4]
        moving.zero_grad(set_to_none=True)
        (quantized.square().mean() + penalty).backward()
        return x.grad

    def codes():
        return still.encode(given[0], RATE).numpy().reshape(shape.stages, -1)

    found = torch.from_numpy(_some_codes(shape, batches))
    without = torch.no_grad()
    return Calls(
        step, without(lambda: still(given[0], RATE)), without(lambda: still.encode(given[0], RATE)),
        without(lambda: still.decode(found)), without(codes),
    )  # fmt: skip


def ours_numpy(shape: Shape, batches: list[np.ndarray], state: Any, **changed: Any) -> Calls:
    """Our class without torch: its step has no gradient."""

    def made():
        quantizer = rvq_np.ResidualVectorQuantizer(*shape.arguments, rng=0, **changed)
        if state is not None:
            quantizer.load_state_dict(state)
        return quantizer

    moving, still, turns = made().train(), made().eval(), itertools.cycle(batches)
    found = _some_codes(shape, batches).astype(np.int32)
    return Calls(
        lambda: moving(next(turns), RATE), lambda: still(batches[0], RATE),
        lambda: still.encode(batches[0], RATE), lambda: still.decode(found),
        lambda: still.encode(batches[0], RATE).reshape(shape.stages, -1),
    )  # fmt: skip


def lucid(shape: Shape, batches: list[np.ndarray], state: Any, **changed: Any) -> Calls:
    """ResidualVQ, with its projections where dimensions differ: one pair around all stages."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    def made():
        torch.manual_seed(0)
        quantizer = ResidualVQ(
            dim=shape.dim, codebook_dim=shape.codebook_dim, num_quantizers=shape.stages,
            codebook_size=shape.size, decay=0.99, threshold_ema_dead_code=2,
            kmeans_init=state is None, kmeans_iters=changed.get("kmeans_iters", 10),
        )  # fmt: skip
        if state is None:
            return quantizer
        for stage, layer in enumerate(quantizer.layers):
            for name in ("embed", "embed_avg", "cluster_size"):
                value = torch.from_numpy(state[f"vq.layers.{stage}._codebook.{name}"])
                getattr(layer._codebook, name).data.copy_(value[None])
        if shape.dim != shape.codebook_dim:
            for name in ("project_in", "project_out"):
                for part in ("weight", "bias"):
                    value = torch.from_numpy(state[f"vq.layers.0.{name}.{part}"])
                    getattr(getattr(quantizer, name), part).data.copy_(value)
        return quantizer

    given = [torch.from_numpy(np.ascontiguousarray(each.swapaxes(1, 2))) for each in batches]
    moving, still, turns = made().train(), made().eval(), itertools.cycle(given)

    def step():
        x = next(turns).detach().requires_grad_()
        quantized, _, penalty = moving(x)
        moving.zero_grad(set_to_none=True)
        (quantized.square().mean() + penalty.mean()).backward()
        return x.grad

    def codes():
        return np.moveaxis(still(given[0])[1].numpy(), -1, 0).reshape(shape.stages, -1)

    found = torch.from_numpy(np.moveaxis(_some_codes(shape, batches), 0, -1).copy())
    without = torch.no_grad()
    return Calls(
        step, without(lambda: still(given[0])), None,
        without(lambda: still.get_output_from_indices(found)), without(codes),
    )  # fmt: skip


def _some_codes(shape: Shape, batches: list[np.ndarray]) -> np.ndarray:
    items, _, length = batches[0].shape
    rng = np.random.default_rng(5)
    return rng.integers(0, shape.size, (shape.stages, items, length))


IMPLEMENTATIONS: dict[str, Callable[..., Calls]] = {
    OURS_TORCH: ours_torch,
    OURS_NUMPY: ours_numpy,
    ESPNET: espnet,
    LUCID: lucid,
}
