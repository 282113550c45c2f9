"""Codebooks as frozen values: what a residual quantizer knows, without how to compute with it.

A `Stage` is one codebook, ``words`` (K, D), with an optional linear map into the space it is
searched in and one out of it.  `Codebooks` is a sequence of stages.  Both copy what they are
given and can never change; ``codebooks[:n]`` is the same quantizer with fewer levels, and
`prepared` keeps what a backend made of the stages, so repeated calls pay for it once.
Quantizers made of several sequences are in `rvq_np.composed`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import to_numpy
from .errors import LevelsError, ShapeError
from .stages import Linear as Linear
from .stages import Stage as Stage
from .stages import largest


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
    strides : tuple of int
        Frames per code, stage by stage.
    block : int
        Frames that share nothing with others: the least common multiple of the strides.

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
        self.strides = tuple(stage.stride for stage in made)
        self.block = math.lcm(*self.strides)
        self._prepared: dict[Any, Any] = {}
        self._limits: dict[Any, float] = {}
        self._slices: dict[tuple[int, ...], Codebooks] = {}
        # Per stage what searches found out that holds for codebooks trained from these as well.
        self.found: list[dict[str, Any]] = [{} for _ in made]

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

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all words and projections, for telling codebooks apart in files."""
        return self.fingerprints[-1]

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of the first stage, the first two, and so on."""
        digest, every = hashlib.sha256(), []
        for stage in self.stages:
            if stage.metric != "euclidean":
                digest.update(stage.metric.encode())
            if stage.stride != 1:
                digest.update(f"every {stage.stride}".encode())
            for array in stage.arrays():
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
            every.append(digest.copy().hexdigest())
        return tuple(every)

    @cached_property
    def alone(self) -> tuple[Codebooks, ...]:
        """Each stage on its own, for frames that its stride has put together already."""
        return tuple(Codebooks([replace(stage, stride=1)]) for stage in self.stages)

    @cached_property
    def reach(self) -> float:
        """How far the numbers of a residual can move from those of its vector, at most."""
        return sum(largest(stage) for stage in self.stages)

    def limit(self, dtype: Any) -> float:
        """Vectors whose numbers stay below leave residuals that a float type can hold."""
        if dtype not in self._limits:
            self._limits[dtype] = float(np.finfo(dtype).max) / self.gain - self.reach
        return self._limits[dtype]

    @cached_property
    def gain(self) -> float:
        """How much larger than a residual what a stage computes of it can be, at least 1."""
        sums = [
            float(stage.project_in.sizes.max())
            for stage in self.stages
            if stage.project_in is not None
        ]
        # Twice: room for the bias. A mean is a sum first.
        return max([float(max(self.strides)), *(2.0 * each for each in sums)])

    def prepared(self, backend: Any, like: Any) -> Any:
        """Return ``backend.prepare(self, like)``, made once for each kind of `like`."""
        key = (backend, like.dtype, str(getattr(like, "device", "cpu")))
        if key not in self._prepared:
            self._prepared[key] = backend.prepare(self, like)
        return self._prepared[key]
