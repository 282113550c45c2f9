"""The one decorator of the compiled kernels, and why it is as it is.

Where a library of kernels that were compiled ahead of time serves (`prebuilt`), a kernel that
Python calls is the library's, no other is ever called, and Numba is not imported: what the modules
of the kernels take from it, they take from here.

``nogil``: threads are ours (`tiles`), so a kernel must let go of the interpreter.
``cache``: a cold compile costs seconds.  Where nothing is writable Numba raises while
decorating ("no locator available"), which must not make the import die: compile uncached.
Nor must a cache that is damaged, or on a full disk: a damaged one is emptied.
``RVQ_NP_NUMBA_CACHE=0`` switches the cache off.

Fast-math is never on as a whole.  A kernel whose error bound covers it may name single flags.
"""

import contextlib
import logging
import os
from typing import Any

from .. import prebuilt

LIBRARY = prebuilt.library()


class _Unused:
    """Stands for what only a compiler needs: whatever is taken from it or made of it."""

    def __getattr__(self, name):
        return self

    def __call__(self, *arguments, **options):
        return self


if LIBRARY is None:
    import numba
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.core.registry import cpu_target
    from numba.extending import intrinsic
else:
    ir = types = cgutils = cpu_target = _Unused()  # type: ignore

    def intrinsic(function):
        return function


_log = logging.getLogger("rvq_np")


def kernel(function=None, *, fastmath=False, inner=False):
    """Compile `function` on its first call: ``nogil``, cached where that is possible.

    One that is `inner` is called by other kernels only and allocates nothing: without Numba's
    reference counts, two atomic operations per array and call.
    """
    if function is None:
        return lambda each: kernel(each, fastmath=fastmath, inner=inner)
    if LIBRARY is not None:
        function.py_func = function  # as Numba's have it
        module = function.__module__.rpartition(".")[2]
        return function if inner else LIBRARY.entry(f"{module}.{function.__name__}")
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    if inner:
        return numba.njit(_nrt=False, **options)(function)
    cache = os.environ.get("RVQ_NP_NUMBA_CACHE", "1") != "0"
    try:
        made = numba.njit(cache=cache, **options)(function)
        if cache:
            _stamp(made)
            _spare(made)
        return made
    except RuntimeError as error:
        _log.info("compiling %s without a cache: %s", function.__name__, error)
        return numba.njit(**options)(function)


def _stamp(made):
    """Let a change in any kernel's file outdate the cache: Numba looks at one file only."""
    file: Any = getattr(getattr(made, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, prebuilt.sources())


def _spare(made):
    """Let no error of the cache reach who calls the kernel."""
    cache: Any = getattr(made, "_cache", None)
    if all(hasattr(cache, name) for name in ("load_overload", "save_overload", "flush")):
        cache.load_overload = _or_nothing(cache.load_overload, cache.flush)
        cache.save_overload = _or_nothing(cache.save_overload, lambda: None)


def _or_nothing(function, after):
    def call(*arguments):
        try:
            return function(*arguments)
        except Exception as error:  # of a damaged pickle, any
            _log.info("Numba's cache cannot be used, which costs time only: %r", error)
            with contextlib.suppress(Exception):
                after()
            return None

    return call


def processor():
    """Return the triple and the features, as LLVM writes them, of what Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, features
