"""The one decorator of the compiled kernels, and why it is as it is.

``nogil``: threads are ours (`tiles`), so a kernel must let go of the interpreter.
``cache``: a cold compile costs seconds.  Where nothing is writable Numba raises while
decorating ("no locator available"), which must not make the import die: compile uncached.
``RVQ_NP_NUMBA_CACHE=0`` switches the cache off.

Fast-math is never on as a whole.  A kernel whose error bound covers it may name single flags.
"""

import logging
import os

import numba

_log = logging.getLogger("rvq_np")


def kernel(function=None, *, fastmath=False, inner=False):
    """Compile `function` on its first call: ``nogil``, cached where that is possible.

    One that is `inner` is called by other kernels only and allocates nothing: without Numba's
    reference counts, two atomic operations per array and call.
    """
    if function is None:
        return lambda each: kernel(each, fastmath=fastmath, inner=inner)
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    if inner:
        return numba.njit(_nrt=False, **options)(function)
    cache = os.environ.get("RVQ_NP_NUMBA_CACHE", "1") != "0"
    try:
        return numba.njit(cache=cache, **options)(function)
    except RuntimeError as error:
        _log.info("compiling %s without a cache: %s", function.__name__, error)
        return numba.njit(**options)(function)
