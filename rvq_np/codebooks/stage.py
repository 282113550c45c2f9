"""One stage of a quantizer as a frozen value: its codebook, its metric, its way in and out.

`Value` is what all frozen values of the package share: how they compare, copy and pickle.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from .. import arguments
from ..arrays import FLOATS, float_type, to_numpy
from ..errors import DtypeError, NonFiniteError, ParameterError, ShapeError

METRICS = ("euclidean", "cosine")


class Value:
    """What never changes: no attribute can be set, and what is equal can stand for one another.

    A copy is the value itself.  A pickle holds what `made_of` returns, and loading it calls the
    constructor again, so that arrays are checked and read-only.  Whatever is found out once, such
    as tables of a backend, lies in the instance's dictionary and is no part of the value: it is
    neither compared nor pickled.  Constructors write into that dictionary.
    """

    def made_of(self) -> tuple[Any, ...]:
        """Return the arguments of the constructor that make this value."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that the value is made of."""
        raise NotImplementedError

    def identity(self) -> tuple[Any, ...]:
        """Return what is the same for values of one class that are equal, and for no others."""
        return (self.fingerprint,)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not type(self):
            return NotImplemented
        return self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash(self.identity())

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.made_of()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self._refuse(name)

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        kind = type(self).__name__
        raise FrozenInstanceError(f"{kind}: {name} cannot be set or deleted; make a new {kind}.")


_ours: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()


def freeze(array: np.ndarray) -> np.ndarray:
    """Make an array that no other name holds read-only, for good, and return it."""
    array.setflags(write=False)
    _ours[id(array)] = array
    return array


def is_frozen(array: np.ndarray) -> bool:
    """Return whether `freeze` has been called with this very array.

    That it is read-only says little: a view made before may still be written to.
    """
    return _ours.get(id(array)) is array and not array.flags.writeable


def add_to(digest: Any, array: np.ndarray) -> None:
    """Add the type, the shape and the bytes of an array to a SHA-256."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    digest.update(little.reshape(-1))


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Value):
    """A linear map with bias: ``y = weight @ x + bias``.

    Parameters
    ----------
    weight : numpy.ndarray (outputs, inputs), floating
        In row order, as `torch.nn.Linear` stores it.
    bias : numpy.ndarray (outputs,), floating
    """

    weight: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _frozen("Linear", "weight", self.weight, 2))
        object.__setattr__(self, "bias", _frozen("Linear", "bias", self.bias, 1))
        if len(self.bias) != len(self.weight):
            raise ShapeError(
                f"Linear: bias has length {len(self.bias)}, weight has shape {self.weight.shape}; "
                "give one bias for each row of the weight."
            )

    def made_of(self) -> tuple[Any, ...]:
        return self.weight, self.bias

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weight and bias."""
        digest = hashlib.sha256()
        for array in (self.weight, self.bias):
            add_to(digest, array)
        return digest.hexdigest()

    @cached_property
    def sizes(self) -> np.ndarray:
        """The sum of the sizes of each row of the weight, float64 (outputs,)."""
        return np.abs(self.weight).sum(axis=1, dtype=np.float64)

    def prepared(self, backend: Any, like: Any) -> Any:
        """Return ``backend.prepare_map(self, like)``, made once for each device."""
        kept = self._prepared
        key = (backend, str(getattr(like, "device", "cpu")))
        if key not in kept:
            kept[key] = backend.prepare_map(self, like)
        return kept[key]

    @cached_property
    def _prepared(self) -> dict[Any, Any]:
        return {}

    def __repr__(self) -> str:
        outputs, inputs = self.weight.shape
        wide = "" if self.weight.dtype == self.bias.dtype == np.float32 else ", float64"
        return f"Linear({inputs} to {outputs}{wide})"


@dataclass(frozen=True, eq=False, repr=False)
class Stage(Value):
    """One stage: its codebook and, if it has projections, the two linear maps.

    Parameters
    ----------
    codebook : numpy.ndarray (K, C), floating
        The codebook. float16 is widened to float32; the array is copied.
    project_in : Linear, optional
        From the D dimensions of a residual to the C of a codeword.
    project_out : Linear, optional
        From a codeword back to D dimensions. Give both maps or neither.
    metric : {"euclidean", "cosine"}, optional
        "cosine": choose the codeword with the most similar direction. For the search, residuals and
        codewords are divided by their norms. A code decodes to the codeword as it is.
    stride : int, optional
        Number of consecutive frames that share one code: their mean is quantized, and each frame
        decodes to the same vector. 1 by default.

    Raises
    ------
    ShapeError
        If `codebook` is not (K, C) with K, C >= 1, or the maps do not fit.
    DtypeError
        If `codebook` does not hold floating-point numbers.
    NonFiniteError
        If a number is NaN or infinite.
    ParameterError
        If `metric` is neither, or `stride` is not a whole number from 1.

    Examples
    --------
    >>> import numpy as np
    >>> Stage(np.float32([[0, 0], [4, 4]]))
    Stage(2 codewords of 2 for vectors of 2)
    """

    codebook: np.ndarray
    project_in: Linear | None = None
    project_out: Linear | None = None
    metric: str = "euclidean"
    stride: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebook", _frozen("Stage", "codebook", self.codebook, 2))
        if self.metric not in METRICS:
            raise ParameterError(
                f"Stage: metric is {self.metric!r}; expected one of {', '.join(METRICS)}."
            )
        stride = arguments.whole_of(self.stride)
        if stride is None or stride < 1:
            raise ParameterError(
                f"Stage: stride is {self.stride!r}; expected a whole number of frames from 1."
            )
        object.__setattr__(self, "stride", stride)
        if (self.project_in is None) != (self.project_out is None):
            raise ShapeError(
                "Stage: one of project_in and project_out is missing; give both or neither."
            )
        if self.project_in is None or self.project_out is None:
            return
        check_maps("Stage", self.project_in, self.project_out)
        width = self.codebook.shape[1]
        into, out = self.project_in.weight.shape, self.project_out.weight.shape
        if into[0] != width or out[1] != width or into[1] != out[0]:
            raise ShapeError(
                f"Stage: codewords have length {width}, project_in.weight has shape {into} and "
                f"project_out.weight {out}; expected ({width}, D) and (D, {width})."
            )

    @classmethod
    def of_state(cls, codebook: np.ndarray, maps: tuple[Linear, Linear] | None) -> Stage:
        """Return the stage of a codebook that is frozen, finite and fits `maps`; checks nothing."""
        self = object.__new__(cls)
        into, out = maps or (None, None)
        for name, value in (("codebook", codebook), ("project_in", into), ("project_out", out)):
            object.__setattr__(self, name, value)
        return self

    def made_of(self) -> tuple[Any, ...]:
        return self.codebook, self.project_in, self.project_out, self.metric, self.stride

    def digest(self, digest: Any) -> None:
        """Add all arrays and settings of the stage to a SHA-256."""
        if self.metric != "euclidean":
            digest.update(self.metric.encode())
        if self.stride != 1:
            digest.update(f"every {self.stride}".encode())
        for array in self.arrays():
            add_to(digest, array)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the stage: the fingerprint of codebooks of this stage alone."""
        digest = hashlib.sha256()
        self.digest(digest)
        return digest.hexdigest()

    @cached_property
    def largest(self) -> float:
        """The largest number of the codewords, in size."""
        return max(float(self.codebook.max()), -float(self.codebook.min()))

    @property
    def size(self) -> int:
        """K, the number of codewords."""
        return self.codebook.shape[0]

    @property
    def dim(self) -> int:
        """D, the length of the vectors the stage quantizes."""
        return (
            self.codebook.shape[1] if self.project_in is None else self.project_in.weight.shape[1]
        )

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield the arrays of the stage: codewords, then weights and biases of its maps."""
        yield self.codebook
        for linear in (self.project_in, self.project_out):
            if linear is not None:
                yield from (linear.weight, linear.bias)

    def __repr__(self) -> str:
        cosine = ", by cosine" if self.metric == "cosine" else ""
        strided = f", every {self.stride} frames" if self.stride > 1 else ""
        size, width = self.codebook.shape
        return f"Stage({size} codewords of {width} for vectors of {self.dim}{cosine}{strided})"


def check_maps(call: str, project_in: Any, project_out: Any) -> None:
    """Raise ParameterError unless both are `Linear`."""
    for name, value in (("project_in", project_in), ("project_out", project_out)):
        if not isinstance(value, Linear):
            raise ParameterError(
                f"{call}: {name} is a {type(value).__name__}; expected a Linear(weight, bias)."
            )


def largest(stage: Stage) -> float:
    """The largest number, in size, that a code of the stage can decode to."""
    if stage.project_out is None:
        return stage.largest
    return float((stage.project_out.sizes * stage.largest + np.abs(stage.project_out.bias)).max())


def _frozen(call: str, name: str, values: Any, rank: int) -> np.ndarray:
    """Return a read-only float copy of `values`, or say what is wrong with them."""
    array = to_numpy(values)
    kind = float_type(array)
    if kind is None:
        raise DtypeError(
            f"{call}: {name} has dtype {array.dtype}; expected {FLOATS}. Convert with "
            ".astype(numpy.float32)."
        )
    if array.ndim != rank or 0 in array.shape:
        expected = (
            "(K, D) with at least one codeword of at least one number" if rank == 2 else "(D,)"
        )
        raise ShapeError(f"{call}: {name} has shape {array.shape}; expected {expected}.")
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(
            f"{call}: {name} holds {array[first]} at {first}; expected finite numbers only."
        )
    dtype = np.float64 if kind == np.float64 else np.float32
    if array.dtype == dtype and is_frozen(array):
        return array  # of another stage: it cannot change
    return freeze(np.array(array, dtype=dtype, order="C"))
