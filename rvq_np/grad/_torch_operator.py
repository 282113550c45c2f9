"""The search as one operator of PyTorch, and the operations the differentiable part is written in.

The operator takes tensors, numbers and a string, so that ``torch.compile``, ``torch.func.vmap`` and
tensors without values know what it does without looking into it.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import BackendError
from . import _operation


class _TorchOps:
    """`_ops.ProductOps` of torch."""

    shape = staticmethod(lambda x: x.shape)
    stop = staticmethod(torch.Tensor.detach)
    take = staticmethod(lambda codebook, codes: codebook[codes.long()])
    transpose = staticmethod(torch.permute)
    reshape = staticmethod(torch.reshape)
    where = staticmethod(torch.where)
    sum = staticmethod(torch.sum)
    max = staticmethod(torch.amax)
    cast = staticmethod(lambda x, like: x.to(like.dtype))
    widen = staticmethod(lambda x: x if x.dtype == torch.float64 else x.float())

    @staticmethod
    def product(x: Any, y: Any, z: Any, alpha: Any, beta: Any) -> Any:
        # In one pass where factors need no gradient themselves.
        if torch.is_grad_enabled():
            return alpha * (x @ y) + beta * z
        return torch.addmm(z, x, y, alpha=float(alpha), beta=float(beta))

    @staticmethod
    def add_scaled(x: Any, y: Any, alpha: Any) -> Any:
        # Written over `x` where it will not be differentiated.
        if torch.is_grad_enabled():
            return x + alpha * y
        return x.add_(y, alpha=alpha)


OPS = _TorchOps()


@torch.library.custom_op("rvq_np::quantize", mutates_args=())
def run(
    spec: str,
    rows: torch.Tensor,
    valid: torch.Tensor | None,
    shape: list[int],
    seed: torch.Tensor | None,
    given: list[torch.Tensor],
) -> list[torch.Tensor]:
    outputs = _operation.run(_operation.parse(spec), rows, valid, shape, seed, given)
    return [torch.as_tensor(each, device=rows.device).contiguous() for each in outputs]


@run.register_fake
def _(spec: Any, rows: Any, valid: Any, shape: Any, seed: Any, given: Any) -> Any:
    return [
        rows.new_empty(size, dtype=getattr(torch, dtype.__name__) if dtype else None)
        for size, dtype in _operation.shapes(_operation.parse(spec), rows.shape[0], shape)
    ]


@torch.library.register_vmap(run)
def _(
    info: Any, in_dims: Any, spec: Any, rows: Any, valid: Any, shape: Any, seed: Any, given: Any
) -> Any:
    """Make rows of the mapped axis; what else is mapped goes one by one."""
    rows_dim, valid_dim, _, seed_dim, given_dims = in_dims[1:]
    count = info.batch_size
    if _operation.parse(spec).training or any(dim is not None for dim in given_dims):

        def at(tensor: Any, dim: Any, place: Any) -> Any:
            return tensor if tensor is None or dim is None else tensor.select(dim, place)

        each = [
            run(
                spec, at(rows, rows_dim, place), at(valid, valid_dim, place), shape,
                at(seed, seed_dim, place),
                [at(*pair, place) for pair in zip(given, given_dims, strict=True)],
            )
            for place in range(count)
        ]  # fmt: skip
        stacked = [torch.stack(list(parts)) for parts in zip(*each, strict=True)]
        return stacked, [0] * len(stacked)

    def flat(tensor: Any, dim: Any) -> Any:
        if tensor is None:
            return None
        front = tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return front.reshape(count * front.shape[1], *front.shape[2:])

    together = [count * shape[0], *shape[1:]]
    codes, quantized, active, bandwidth = run(
        spec, flat(rows, rows_dim), flat(valid, valid_dim), together, seed, given
    )
    outputs = [
        codes.reshape(codes.shape[0], count, -1),
        quantized.reshape(count, -1, quantized.shape[1]),
        active.reshape(count, -1),
        bandwidth,
    ]
    return outputs, [1, 0, 0, None]


def draw() -> torch.Tensor:
    """Return two numbers of torch's generator, the seed of a step."""
    try:
        return torch.randint(1 << 32, (2,))
    except RuntimeError as error:  # vmap lets nothing draw
        raise BackendError(
            "quantize: training under torch.vmap would train one codebook on several batches at "
            "once. Call eval(), or put the mapped axis into the batch."
        ) from error
