"""Every way a call can take through the library, as encode and decode over NumPy arrays.

Fast paths are reached here at the sizes Hypothesis draws: tiles of one row, blocks of one score,
leaves of two rows.
"""

import contextlib
import os
import tracemalloc

import array_api_strict
import numpy as np

import rvq_np
from rvq_np.backends import _array_api
from rvq_np.kernels import dispatch
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import packing
from rvq_np.kernels.plain import beam, maps, search
from rvq_np.kernels.plain import engine as plain


@contextlib.contextmanager
def patched(*changes):
    """Set (object, name, value) for a while."""
    before = [(target, name, getattr(target, name)) for target, name, _ in changes]
    try:
        for target, name, value in changes:
            setattr(target, name, value)
        yield
    finally:
        for target, name, value in before:
            setattr(target, name, value)


@contextlib.contextmanager
def traced_memory():
    """Yield a list that holds, afterwards, the most bytes that were allocated at one time."""
    peak = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def threads(count):
    before = os.environ.get("RVQ_NP_NUM_THREADS")
    os.environ["RVQ_NP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["RVQ_NP_NUM_THREADS"]
        else:
            os.environ["RVQ_NP_NUM_THREADS"] = before


def without_numba():
    return patched((dispatch, "kernels", plain))


def inside_of(numba):
    """Return a context in which compiled kernels serve, or those of NumPy."""
    return contextlib.nullcontext() if numba else without_numba()


@contextlib.contextmanager
def small_blocks():
    with patched(
        (search, "SCORES", 1), (search, "PAIRS", 1), (plain, "ROWS", 1), (maps, "ROWS", 1),
        (beam, "SCORES", 1), (_array_api, "SCORES", 1),
    ):  # fmt: skip
        yield


@contextlib.contextmanager
def tiny_tiles():
    """One row a tile on two threads, two rows a leaf."""
    with patched(
        (compiled, "ROWS", 1), (compiled, "DECODE_ROWS", 1), (compiled, "ALONE", 0),
        (compiled, "LIGHT", 1), (packing, "PACKED", 1), (dispatch, "LEAF", 2),
    ), threads(2):  # fmt: skip
        yield


@contextlib.contextmanager
def partial_tiles():
    """Tiles of 700 rows on two threads, however small the call."""
    with patched(
        (compiled, "ROWS", 700), (compiled, "DECODE_ROWS", 700), (compiled, "ALONE", 0),
    ), threads(2):  # fmt: skip
        yield


def screen(*dtypes):
    """Return a context in which only these screens serve."""
    return lambda: patched((compiled, "TARGET", compiled.TARGET._replace(screens=dtypes)))


def impatient():
    """Give up every screen for the next one after the first row."""
    return patched((compiled, "PATIENCE", 1), (compiled, "FEW", -1))


def inside(*contexts):
    """Return encode and decode that run inside the given contexts."""

    def wrap(function):
        def call(*arguments):
            with contextlib.ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                return function(*arguments)

        return call

    return {"encode": wrap(rvq_np.encode), "decode": wrap(rvq_np.decode)}


def laid_out(change):
    """Return encode and decode that see arrays of another memory layout."""
    return {
        "encode": lambda x, books: rvq_np.encode(change(x), change(books)),
        "decode": lambda codes, books: rvq_np.decode(change(codes), change(books)),
    }


def strided(array):
    """Return the array as every second element of a larger one, read-only."""
    wide = np.repeat(array, 2, axis=-1)
    view = wide[..., ::2]
    view.setflags(write=False)
    return view


def row_by_row():
    """Return encode and decode that handle one vector at a time, without a batch axis."""

    def encode(x, books):
        codes = [rvq_np.encode(row, books) for row in x]
        return np.stack(codes, axis=1) if codes else np.empty((len(books), 0), np.int32)

    def decode(codes, books):
        rows = [rvq_np.decode(column, books) for column in codes.T]
        return np.stack(rows) if rows else np.empty((0, books.shape[2]), books.dtype)

    return {"encode": encode, "decode": decode}


def array_api(device="CPU_DEVICE"):
    """Return encode and decode through array-api-strict, on one of its devices.

    ``device1`` raises on any hidden conversion to NumPy; ``no_float64`` has no wide screen.
    This is no evidence for a GPU.
    """
    xp, where = array_api_strict, array_api_strict.Device(device)

    def back(array):
        assert array.device == where
        return np.from_dlpack(array)

    def encode(x, books):
        return back(rvq_np.encode(xp.asarray(x, device=where), books))

    def decode(codes, books):
        return back(rvq_np.decode(xp.asarray(codes, device=where), books))

    return {"encode": encode, "decode": decode}


def beam_of_one():
    """The beam search with a single hypothesis is the greedy search."""

    def encode(x, books):
        stages = dispatch.prepare(rvq_np.Codebooks(books), x.dtype)
        rows = np.array(x, dtype=stages[0].codebook.dtype)
        return beam.search(rows, stages, 1, dispatch.kernels.project)[0]

    return {"encode": encode, "decode": rvq_np.decode}
