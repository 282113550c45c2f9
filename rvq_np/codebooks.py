"""Codebooks as frozen values: what a residual quantizer knows, without how to compute with it.

A `Stage` is one codebook, ``words`` (K, D), with an optional linear map into the space it is
searched in and one out of it.  `Codebooks` is a sequence of stages.  Both copy what they are
given and can never change; ``codebooks[:n]`` is the same quantizer with fewer levels, and
`prepared` keeps what a backend made of the stages, so repeated calls pay for it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import to_numpy
from .errors import DtypeError, LevelsError, NonFiniteError, ParameterError, ShapeError

METRICS = ("euclidean", "cosine")


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map with bias: ``y = weight @ x + bias``.

    Parameters
    ----------
    weight : numpy.ndarray (outputs, inputs), floating
        Row by row, as `torch.nn.Linear` stores it.
    bias : numpy.ndarray (outputs,), floating
    """

    weight: np.ndarray
    bias: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "weight", _frozen("Linear", "weight", self.weight, 2))
        object.__setattr__(self, "bias", _frozen("Linear", "bias", self.bias, 1))
        if len(self.bias) != len(self.weight):
            raise ShapeError(
                f"Linear: bias has length {len(self.bias)}, weight has shape {self.weight.shape}; "
                "give one bias for each row of the weight."
            )


@dataclass(frozen=True, eq=False)
class Stage:
    """One level: its codebook and, if it is searched in another space, the way in and out.

    Parameters
    ----------
    words : numpy.ndarray (K, C), floating
        The codebook. float16 is widened to float32; the array is copied.
    project_in : Linear, optional
        From the D numbers of a residual to the C of a word.
    project_out : Linear, optional
        From a word back to D numbers. Give both or neither.
    metric : {"euclidean", "cosine"}, optional
        "cosine": the word of the most similar direction. What is searched, and each word, are
        divided by their norms; the word itself is what a code decodes to.

    Raises
    ------
    ShapeError
        If `words` is not (K, C) with K, C >= 1, or the maps do not fit.
    DtypeError
        If `words` does not hold floating-point numbers.
    NonFiniteError
        If a number is NaN or infinite.
    ParameterError
        If `metric` is neither.

    Examples
    --------
    >>> import numpy as np
    >>> Stage(np.float32([[0, 0], [4, 4]]))
    Stage(2 words of 2 for vectors of 2)
    """

    words: np.ndarray
    project_in: Linear | None = None
    project_out: Linear | None = None
    metric: str = "euclidean"

    def __post_init__(self):
        object.__setattr__(self, "words", _frozen("Stage", "words", self.words, 2))
        if self.metric not in METRICS:
            raise ParameterError(
                f"Stage: metric is {self.metric!r}; wanted one of {', '.join(METRICS)}."
            )
        if (self.project_in is None) != (self.project_out is None):
            raise ShapeError(
                "Stage: one of project_in and project_out is missing; give both or neither."
            )
        if self.project_in is None or self.project_out is None:
            return
        width = self.words.shape[1]
        into, out = self.project_in.weight.shape, self.project_out.weight.shape
        if into[0] != width or out[1] != width or into[1] != out[0]:
            raise ShapeError(
                f"Stage: words have length {width}, project_in.weight has shape {into} and "
                f"project_out.weight {out}; wanted ({width}, D) and (D, {width})."
            )

    @property
    def size(self) -> int:
        """K, the number of words."""
        return self.words.shape[0]

    @property
    def dim(self) -> int:
        """D, the length of the vectors the stage quantizes."""
        return self.words.shape[1] if self.project_in is None else self.project_in.weight.shape[1]

    def __repr__(self) -> str:
        cosine = ", by cosine" if self.metric == "cosine" else ""
        size, width = self.words.shape
        return f"Stage({size} words of {width} for vectors of {self.dim}{cosine})"


class Codebooks:
    """The stages of a residual quantizer, a frozen value.

    Parameters
    ----------
    stages : array (Q, K, D), floating, or iterable of Stage or array (K, D)
        Sizes may differ from stage to stage, the length of the vectors may not.

    Attributes
    ----------
    n_q : int
        Q, the number of stages; also ``len(codebooks)``.
    dim : int
        D, the length of a vector.
    sizes : tuple of int
        Words per stage.
    dtype : numpy.dtype
        float32 or float64: the widest of the stages.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError
        As `Stage`; also if there is no stage or the vectors' lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> books = Codebooks(np.zeros((8, 256, 64), np.float32))
    >>> books.n_q, books.dim, books.sizes[:2], books[:3]
    (8, 64, (256, 256), Codebooks(3 stages, 256 words of 64))
    """

    def __init__(self, stages: Any):
        if hasattr(stages, "shape"):
            array = to_numpy(stages)
            if array.ndim != 3:
                raise ShapeError(
                    f"Codebooks: got an array of shape {array.shape}; wanted (Q, K, D), that is "
                    "stages, words, numbers per word."
                )
            stages = array
        elif not isinstance(stages, Iterable):
            raise ShapeError(
                f"Codebooks: got a {type(stages).__name__}; wanted an array (Q, K, D) or stages."
            )
        made = tuple(each if isinstance(each, Stage) else Stage(each) for each in stages)
        if not made:
            raise ShapeError("Codebooks: got no stage; wanted at least one.")
        dims = {stage.dim for stage in made}
        if len(dims) > 1:
            raise ShapeError(
                f"Codebooks: the stages quantize vectors of lengths {sorted(dims)}; wanted one."
            )
        self.stages = made
        self.n_q = len(made)
        self.dim = made[0].dim
        self.sizes = tuple(stage.size for stage in made)
        self.dtype = np.result_type(np.float32, *(stage.words.dtype for stage in made))
        self._prepared: dict[Any, Any] = {}
        self._limits: dict[Any, float] = {}
        self._slices: dict[tuple[int, ...], Codebooks] = {}

    @classmethod
    def of(cls, codebooks: Any) -> Codebooks:
        """Return `codebooks` itself if it is a `Codebooks`, else one made of it."""
        return codebooks if isinstance(codebooks, cls) else cls(codebooks)

    def __len__(self) -> int:
        return self.n_q

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __getitem__(self, levels: slice) -> Codebooks:
        """Return the quantizer of some of the levels, ``codebooks[:n]`` or ``codebooks[a:b]``."""
        if not isinstance(levels, slice):
            raise LevelsError(
                f"Codebooks: index {levels!r} is not a slice; write codebooks[a:b] for levels, "
                "codebooks.stages[a] for one stage."
            )
        chosen = range(self.n_q)[levels]
        if not chosen:
            raise LevelsError(f"Codebooks: {levels} leaves none of the {self.n_q} levels.")
        key = tuple(chosen)
        if len(key) == self.n_q and key[0] == 0:
            return self
        if key not in self._slices:
            self._slices[key] = Codebooks([self.stages[level] for level in key])
        return self._slices[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"stages": self.stages}  # what backends prepared stays behind

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["stages"])  # type: ignore[misc]

    def __repr__(self) -> str:
        sizes = sorted(set(self.sizes))
        words = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        stages = "1 stage" if self.n_q == 1 else f"{self.n_q} stages"
        return f"Codebooks({stages}, {words} words of {self.dim})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all words and projections, for telling codebooks apart in files."""
        digest = hashlib.sha256()
        for stage in self.stages:
            if stage.metric != "euclidean":
                digest.update(stage.metric.encode())
            arrays = [stage.words]
            for linear in (stage.project_in, stage.project_out):
                if linear is not None:
                    arrays += [linear.weight, linear.bias]
            for array in arrays:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @cached_property
    def reach(self) -> float:
        """How far the numbers of a residual can move from those of its vector, at most."""
        return sum(_largest(stage) for stage in self.stages)

    def limit(self, dtype: Any) -> float:
        """Vectors whose numbers stay below leave residuals that a float type can hold."""
        if dtype not in self._limits:
            self._limits[dtype] = float(np.finfo(dtype).max) / self.gain - self.reach
        return self._limits[dtype]

    @cached_property
    def gain(self) -> float:
        """How much larger than a residual what a stage searches with can be, at least 1."""
        sums = [
            float(np.abs(stage.project_in.weight).sum(axis=1, dtype=np.float64).max())
            for stage in self.stages
            if stage.project_in is not None
        ]
        return max([1.0, *(2.0 * each for each in sums)])  # twice: room for the bias

    def prepared(self, backend: Any, like: Any) -> Any:
        """Return ``backend.prepare(self, like)``, made once for each kind of `like`."""
        key = (backend, like.dtype, str(getattr(like, "device", "cpu")))
        if key not in self._prepared:
            self._prepared[key] = backend.prepare(self, like)
        return self._prepared[key]


def _largest(stage: Stage) -> float:
    """The largest number, in size, that a code of the stage can decode to."""
    largest = float(np.abs(stage.words).max())
    if stage.project_out is None:
        return largest
    rows = np.abs(stage.project_out.weight).sum(axis=1, dtype=np.float64)
    return float((rows * largest + np.abs(stage.project_out.bias)).max())


def _frozen(call: str, name: str, values: Any, rank: int) -> np.ndarray:
    """Return a read-only float copy of `values`, or say what is wrong with them."""
    array = to_numpy(values)
    if array.dtype.kind != "f":
        raise DtypeError(
            f"{call}: {name} has dtype {array.dtype}; wanted float16, float32 or float64. "
            "Convert with .astype(numpy.float32)."
        )
    if array.ndim != rank or 0 in array.shape:
        wanted = "(K, D) with at least one word of at least one number" if rank == 2 else "(D,)"
        raise ShapeError(f"{call}: {name} has shape {array.shape}; wanted {wanted}.")
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(
            f"{call}: {name} holds {array[first]} at {first}; wanted finite numbers only."
        )
    dtype = np.float64 if array.dtype.itemsize > 4 else np.float32
    frozen = np.array(array, dtype=dtype, order="C")
    frozen.setflags(write=False)
    return frozen
