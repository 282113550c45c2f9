"""The same number of threads for all libraries."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from unittest import mock

from threadpoolctl import threadpool_limits

# Loaded before the limit is set: it applies only to the thread pools that exist by then.
LIBRARIES = ("numpy", "torch", "faiss", "sklearn.cluster")


def cores() -> int:
    """Return the number of usable cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Give every library `count` threads: BLAS, OpenMP, torch, Faiss and rvq_np.

    These settings are process-wide, so implementations take no number of threads.
    """
    loaded = {name: imported(name) for name in LIBRARIES}
    torch, faiss = loaded["torch"], loaded["faiss"]
    before = torch.get_num_threads() if torch else None
    with (
        mock.patch.dict(os.environ, RVQ_NP_NUM_THREADS=str(count)),
        threadpool_limits(limits=count),
    ):
        if torch:
            torch.set_num_threads(count)
        if faiss:
            faiss.omp_set_num_threads(count)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def imported(name: str):
    """Return the module `name`, or None if it is not installed: then it is not measured."""
    try:
        return import_module(name)
    except ImportError:
        return None
