"""Statistics added up over the processes of ``torch.distributed``."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from .. import train as training


def all_reduce(group: Any = None) -> training.AllReduce:
    """Return an `AllReduce` over the processes of a ``torch.distributed`` group."""
    distributed = torch.distributed

    def add_up(buffer: Any) -> Any:
        # NCCL adds up on its device only.
        gpu = distributed.get_backend(group) == "nccl"
        tensor = torch.from_numpy(buffer).to("cuda" if gpu else "cpu")
        distributed.all_reduce(tensor, group=group)
        return tensor.cpu().numpy()

    return training.AllReduce(
        add_up, distributed.get_rank(group), distributed.get_world_size(group)
    )


def all_reduce_by_default() -> training.AllReduce | None:
    """Return that over all processes, if ``torch.distributed`` is initialized and has several."""
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    if not ready or distributed.get_world_size() == 1:
        return None
    return _over_all(distributed.get_rank(), distributed.get_world_size())


@cache  # kept, as compiled code names it by number
def _over_all(rank: int, size: int) -> training.AllReduce:
    return all_reduce()
