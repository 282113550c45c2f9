"""Arrays of another library on an NVIDIA GPU, shared with CuPy by DLPack: the same memory.

A backend of such a library asks whether CuPy is `ready` and then calls `enter`; where CuPy is not
installed or finds no device, `_array_api` serves.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from . import Entered

_log = logging.getLogger("rvq_np")


def enter(
    x: Any, at: Callable[[], AbstractContextManager[Any]], back: Callable[[Any], Any]
) -> Entered:
    """Return the `Entered` array, one of CuPy in the memory of `x`.

    Parameters
    ----------
    x : array
        Of a type that CuPy has.
    at : callable
        Returns a context in which the device of `x` is CuPy's current one, and CuPy's stream the
        one on which the library of `x` queues its work.
    back : callable
        Returns a CuPy array as one of the library.
    """
    cuda = _cuda()
    with at():
        return Entered(cuda, cuda.cupy.from_dlpack(x), back, at)


def ready() -> bool:
    """Return whether CuPy can compute here."""
    try:
        return not _cuda().missing()
    except ImportError as error:
        _tell(str(error))
        return False


def _cuda() -> Any:
    from ..kernels.cuda import driver as found

    return found


@functools.cache
def _tell(problem: str) -> None:
    _log.info("arrays on a GPU go the way of the array API, without CuPy: %s", problem)
