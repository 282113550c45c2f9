"""Which library computes? The array says, by the name of a file in this folder.

`backend_of` takes the top-level package of the array's class (``torch`` for a tensor) and loads
the file of that name: `numpy`, `cupy`, `torch`, `jax`.  A package outside joins by an entry point
of that name in the group ``rvq_np.backends``.  Anything else that follows the array API standard
goes to `_array_api`.  There is no table to edit and no setting to choose.

A backend is a module with four functions, written for vectors (N, D) of its library that are
checked and finite:

``prepare(codebooks, like)``
    Whatever it needs of the stages to compute on arrays of the kind of `like` (dtype, device): a
    sequence with one entry a stage.  ``prepared[a:b]`` must serve those stages alone, and share
    what there is of them: it is all that slices of the codebooks are given.
``encode(x, prepared, beam_size=1)``
    Codes (Q, N), int32, in the library and on the device of `x`.  Without projections they are
    the defined codes: the word nearest in exact arithmetic, the lowest on a tie, the residual
    rounded once per stage.
``decode(codes, prepared)``
    The sum (N, D), in stage order and starting from zero, of the words that `codes` (n, N) name.
``tally(x, codes, prepared)``
    ``(counts, sums)``: per stage, as float64 NumPy arrays, how often each word was chosen (K,)
    and the sum of the (projected) residuals that chose it (K, C).  Tallies of two sets of rows
    add up to the tally of both: all of training stands on this.

For quantizers between linear maps (`rvq_np.composed.Projected`) it may have two more, without which
`_array_api` serves:

``prepare_map(linear, like)``
    Whatever it needs of a `Linear`.
``project(x, prepared, dtype)``
    ``x @ weight.T + bias`` (N, C), in the wider of the float types of `x` (N, D) and `dtype`.

It may have a function ``check(x)``, which raises `BackendError` for an array of its library that it
cannot compute on after all, and ``stays(x)``, which says whether `x` lives on a device from which
nothing should be copied to the host. If it does, these serve besides:

``extent(x)``
    The smallest and the largest number of each row of `x` (n, m), as one NumPy array (2, n), NaN
    coming through both: what checks look at, for one wait instead of several.
``extent_later(x)``
    Begins `extent` and returns a function that gives it. A backend that has this must take any
    numbers for `x` in `encode`, and any for codes in `decode`, and do no harm: it is called before
    they are known to be good, and what it returned is then thrown away.
``assign(x)``
    A function of words (K, C) that returns the counts and sums of the rows of `x` nearest to each,
    as arrays of the library: what k-means repeats.
``add_up(x, codes, prepared)``
    As `tally`, but as arrays of the library.
``walk(x, codes, prepared)``, ``searched(x, prepared)``, ``residual(x, codes, prepared)``
    As in `rvq_np.lookup`: what training needs of a batch besides its tally.

Files named after a library never import one another, nor the codebooks they are handed; what lives
on a device they hand to `_cuda`, where CuPy can compute on it, or to `_array_api`.
"""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import BackendError


def backend_of(x: Any) -> ModuleType:
    """Return the module that computes on arrays of the type of `x`.

    Raises
    ------
    BackendError
        If nothing serves that type.
    """
    if type(x) is np.ndarray:
        return _backend_for(np.ndarray)
    if isinstance(x, np.ndarray) and hasattr(x, "mask"):  # its library would lose the mask
        raise BackendError(
            "rvq_np cannot compute on a numpy.ma.MaskedArray: the mask would be lost. Pass "
            "x.data, and mask=~x.mask where the call takes a mask."
        )
    backend = _backend_for(type(x))  # type: ignore[arg-type]  # a type is hashable
    if hasattr(backend, "check"):
        backend.check(x)
    return backend


def stays(x: Any) -> bool:
    """Return whether `x` lives on a device of a backend that spares it the copy to the host."""
    if type(x) is np.ndarray:
        return False
    backend = backend_of(x)
    return hasattr(backend, "stays") and bool(backend.stays(x))


def mapping_of(x: Any) -> Any:
    """Return the module whose ``prepare_map`` and ``project`` serve arrays of the type of `x`."""
    backend = backend_of(x)
    return backend if hasattr(backend, "project") else import_module(f"{__name__}._array_api")


@functools.cache
def _backend_for(cls: Any) -> ModuleType:
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        # The underscore rule keeps a class from a package named _array_api off that file.
        if not library.startswith("_") and find_spec(f"{__name__}.{library}"):
            return import_module(f"{__name__}.{library}")
        if library != "builtins":
            from importlib.metadata import entry_points  # slow, so only for what is not known here

            for entry in entry_points(group="rvq_np.backends", name=library):
                module: ModuleType = entry.load()
                return module
    if hasattr(cls, "__array_namespace__"):
        return import_module(f"{__name__}._array_api")
    raise BackendError(
        f"rvq_np cannot compute on {cls.__module__}.{cls.__qualname__}: no backend is named after "
        "its library and it does not follow the array API standard. For a list, call numpy.asarray."
    )
