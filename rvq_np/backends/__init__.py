"""Which engine computes on an array, and how the array gets there and the result back.

There are three *engines*, for all libraries: `numpy` for arrays in host memory, by compiled
kernels; `_cuda` for those on an NVIDIA GPU, by CUDA kernels, where CuPy is installed; `_array_api`
for those on any other device, by what the array API standard offers.  `Engine` lists what each of
them has.

Each *library* has a file named after the top-level package of its arrays (``torch`` for a tensor)
with one function:

``enter(x)``
    Returns the `Entered` array: itself as an engine takes it, without a copy where that can be, and
    the way back. Raises `BackendError` for an array that cannot be computed on.

A package outside joins by an entry point of the name of its library in the group
``rvq_np.backends``, which loads an object with that function; for arrays in host memory,
``on_host(array, back)`` makes what it returns.  `Backend` lists what is called.  Anything else that
follows the array API standard goes to `_array_api`.  Arrays that are computed later, in chunks, are
those of a `Chunked` backend: their numbers come in as chunks, inside the tasks of their library.
There is no table to edit and no setting to
choose.

Public functions call `enter` once; below them arrays are those of an engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from ..errors import BackendError
from ..kernels.totals import ExactSum

__all__ = [
    "Backend",
    "Chunked",
    "Engine",
    "Entered",
    "Home",
    "TrainingEngine",
    "enter",
    "on_host",
]


def __dir__() -> list[str]:
    return sorted(__all__)


class Engine(Protocol):
    """What computes: a module with these functions, for checked vectors (N, D) that are its own.

    ``STAYS``: whether training should leave arrays where they are, as copying them to the host is
    the largest cost; if so, it is a `TrainingEngine`.
    """

    STAYS: bool

    def extent_later(self, x: Any, by_row: bool = False) -> Callable[[], Any]:
        """Begin to find the least and the largest number of `x`; return what gives them.

        Of all of `x`, or, `by_row`, of each entry of its first axis: two arrays (n,).

        NaN comes through both.  Where that is not known at once, `encode` and `decode` must take
        any numbers and any codes and do no harm: they are called before it is.
        """

    def prepare(self, codebooks: Any, like: Any) -> Sequence[Any]:
        """Return what is needed of the stages for arrays of the type and on the device of `like`.

        One entry a stage, so that a prefix of it serves fewer stages.
        """

    def encode(self, x: Any, prepared: Any, beam_size: int = 1) -> Any:
        """Return codes (Q, N), int32.

        Without projections they are the defined codes: the codeword nearest in exact arithmetic,
        the lowest index on a tie, the residual rounded once per stage.
        """

    def decode(self, codes: Any, prepared: Any) -> Any:
        """Return the sum (N, D) of the codewords of `codes` (n, N): in stage order, from zero."""

    def tally(self, x: Any, codes: Any, prepared: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return per stage, float64, the counts (K,) of codewords and the sums (K, C) of what
        chose them: residuals, projected if the stage projects.

        Each number is the exact sum, rounded once: all of training stands on this.
        """

    def prepare_map(self, linear: Any, like: Any) -> Any:
        """Return what is needed of a `Linear` on the device of `like`."""

    def project(self, x: Any, prepared: Any, dtype: Any) -> Any:
        """Return ``x @ weight.T + bias`` (N, C), in the wider of the types of `x` and `dtype`."""


class TrainingEngine(Engine, Protocol):
    """An engine on whose device training stays."""

    def assign(self, x: Any) -> Callable[[Any], tuple[Any, ExactSum]]:
        """Return a function of codewords (K, C): the counts and sums of the rows nearest to each.

        As arrays of the engine: what k-means repeats.
        """

    def add_up(self, x: Any, codes: Any, prepared: Any) -> tuple[list[Any], list[ExactSum]]:
        """As `tally`, but as arrays of the engine, and sums that are not rounded yet."""

    def walk(self, x: Any, codes: Any, prepared: Any) -> Iterator[tuple[Any, Any]]:
        """As `rvq_np.codec.core.walk`."""

    def searched(self, x: Any, prepared: Any) -> Any:
        """As `rvq_np.codec.core.searched`."""

    def residual(self, x: Any, codes: Any, prepared: Any) -> Any:
        """As `rvq_np.codec.core.residual`."""


class Backend(Protocol):
    """A library of arrays: all that an outside package needs."""

    def enter(self, x: Any) -> Entered:
        """Return the `Entered` array, or raise `BackendError`."""


class Home(Backend, Protocol):
    """A library on whose own arrays an engine computes, as on `ndarray`: those enter as they are.

    ``ENGINE``: which one, for arrays that have entered already.
    """

    ENGINE: Engine


class Entered(NamedTuple):
    """An array that has come in, and the way out for what is made of it."""

    engine: Engine
    array: Any  # as the engine takes it
    back: Callable[[Any], Any] | None  # from the engine's arrays to the library's; None: the same
    at: Callable[[], AbstractContextManager[Any]] | None = None  # makes its device the current one
    # From the engine's arrays to the library's in the float type of `array`; None: by `astype`.
    back_alike: Callable[[Any], Any] | None = None

    def out(self, result: Any) -> Any:
        """Return an array of the engine as one of the library, beside the one that came in."""
        return result if self.back is None else self.back(result)

    def there(self) -> AbstractContextManager[Any]:
        """Return a context in which the device of `array` is the current one."""
        return nullcontext() if self.at is None else self.at()


@runtime_checkable
class Chunked(Backend, Protocol):
    """A library whose arrays are computed later, in chunks, as Dask's are.

    `enter` refuses such an array: there are no numbers yet. `encode`, `decode` and `fit` make
    chunks of it what they make of arrays, in tasks of the library. ``function(chunk, shared, start,
    place)`` works on one chunk, whose numbers begin at `start` and which is the chunk at `place`;
    `shared`, the quantizer, is moved to each worker once.
    """

    def check(self, call: str, name: str, x: Any) -> None:
        """Raise BackendError unless `x` is an array of the library."""

    def like(self, x: Any) -> Any:
        """Return an empty array of the library of the chunks of `x`, of its dtype."""

    def whole(self, call: str, name: str, x: Any, axis: int, meaning: str) -> None:
        """Raise ShapeError unless an axis is in one chunk."""

    def together(self, codes: Any) -> Any:
        """Return `codes` with its first axis in one chunk."""

    def over_vectors(self, function: Any, x: Any, shared: Any, n_q: int) -> Any:
        """Return the codes (n_q, ...) of `x` (..., D), later."""

    def over_codes(self, function: Any, codes: Any, shared: Any) -> Any:
        """Return the vectors (..., D) of `codes` (n, ...), later."""

    def over_frames(self, function: Any, x: Any, shared: Any, strides: Any) -> list[Any]:
        """Return a list of codes (..., T / stride) of `x` (..., T, D), later."""

    def over_stages(self, function: Any, codes: list[Any], shared: Any, strides: Any) -> Any:
        """Return the vectors (..., T, D) of such a list, later."""

    def moved(self, x: Any, source: int, destination: int) -> Any:
        """Return `x` with an axis moved, later."""

    def rows(self, x: Any) -> Any:
        """Return vectors (..., D) as rows (N, D), later."""

    def sharing(self) -> AbstractContextManager[Any]:
        """Return a context in which a task uses as many threads as its worker has."""


def chunked(x: Any) -> Any:
    """Return the `Chunked` backend of an array that is computed later, None for all others."""
    if isinstance(x, np.ndarray):
        return None
    return _chunked_for(type(x))  # type: ignore[arg-type]


@functools.cache
def _chunked_for(cls: Any) -> Any:
    try:
        backend = _backend_for(cls)
    except BackendError:
        return None  # for `enter` to say
    return backend if isinstance(backend, Chunked) else None


def uncomputed(x: Any) -> Entered:
    """Return as `Entered` what is read by tasks, which no engine takes as it is."""
    return Entered(cast(Any, None), x, None)


def on_host(array: np.ndarray, back: Callable[[np.ndarray], Any] | None = None) -> Entered:
    """Return the `Entered` array of a library whose arrays live in host memory.

    Parameters
    ----------
    array : numpy.ndarray
        The same numbers, the same memory if it can be. It is only read.
    back : callable, optional
        Returns a NumPy array as one of the library.
    """
    return Entered(_backend_for(np.ndarray), array, back)


def enter(x: Any) -> Entered:
    """Return the `Entered` array of any library.

    Raises
    ------
    BackendError
        If nothing serves its type.
    """
    if type(x) is np.ndarray:
        return Entered(_backend_for(np.ndarray), x, None)
    if isinstance(x, np.ndarray) and hasattr(x, "mask"):  # its library would lose the mask
        raise BackendError(
            "rvq_np cannot compute on a numpy.ma.MaskedArray: the mask would be lost. Pass "
            "x.data, and mask=~x.mask where the call takes a mask."
        )
    found: Entered = _backend_for(type(x)).enter(x)  # type: ignore[arg-type]
    return found


def enter_all(*arrays: Any) -> list[Entered]:
    """Return the `Entered` arrays of one call, which must be of one library.

    Raises
    ------
    BackendError
        If they are of several libraries, or nothing serves one of them.
    """
    entered = [enter(each) for each in arrays]
    if len({_backend_for(type(each)) for each in arrays}) > 1:  # type: ignore[arg-type]
        kinds = ", ".join(f"{type(each).__module__}.{type(each).__qualname__}" for each in arrays)
        raise BackendError(
            f"rvq_np got arrays of kinds {kinds}; expected one library. Convert them to the kind "
            "of x first."
        )
    return entered


def engine_of(x: Any) -> Engine:
    """Return the `Engine` of an array that has entered."""
    home: Home = _backend_for(type(x))  # type: ignore[arg-type]
    return home.ENGINE


def trainer_of(x: Any) -> TrainingEngine:
    """Return the engine of an array on whose device training stays, see ``STAYS``."""
    return cast(TrainingEngine, engine_of(x))


@functools.cache
def _backend_for(cls: Any) -> Any:
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        # The underscore rule keeps a class from a package named _array_api off that file.
        if not library.startswith("_") and find_spec(f"{__name__}.{library}"):
            return import_module(f"{__name__}.{library}")
        if library != "builtins":
            from importlib.metadata import entry_points  # slow, so only for what is not known here

            for entry in entry_points(group="rvq_np.backends", name=library):
                return entry.load()
    if hasattr(cls, "__array_namespace__"):
        return import_module(f"{__name__}._array_api")
    raise BackendError(
        f"rvq_np cannot compute on {cls.__module__}.{cls.__qualname__}: no backend is named after "
        f"its library and it does not follow the array API standard. {_remedy(cls)}"
    )


def _remedy(cls: Any) -> str:
    """Return how what is no array becomes one."""
    library, name = cls.__module__.partition(".")[0], cls.__name__
    rows = "of lists, one a row, numpy.stack(x).astype(numpy.float32)"
    if library in ("pandas", "polars", "pyarrow") and name in ("DataFrame", "LazyFrame", "Table"):
        frame = {"LazyFrame": "x.collect()", "Table": "x.to_pandas()"}.get(name, "x")
        return (
            f"Pass the numbers of its columns, numpy.asarray({frame}, dtype=numpy.float32); of a "
            f"column {rows.replace('(x)', '(' + frame + '[NAME])')}."
        )
    if library in ("pandas", "polars"):
        return f"Pass, {rows}."
    return (
        "Pass numpy.asarray(x, dtype=numpy.float32) for vectors, "
        "numpy.asarray(codes, dtype=numpy.int32) for codes."
    )
