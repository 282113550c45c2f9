"""Codebooks as frozen values: what a residual quantizer knows, without how to compute with it.

A `Stage` is one codebook, ``codewords`` (K, D), with an optional linear map into the space it is
searched in and one out of it.  `Codebooks` is a sequence of stages.  Both copy what they are
given and can never change; ``codebooks[:n]`` is the same quantizer with fewer stages, and
`prepared` keeps what a backend made of the stages, so repeated calls pay for it once, and slices
do not pay again.  Quantizers made of several sequences are in `rvq_np.codebooks.composed`.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from ..arrays import to_numpy
from ..display import span
from ..errors import LevelsError, ShapeError, StageIndexError
from . import shown
from .stage import Linear as Linear
from .stage import Stage as Stage
from .stage import Value, largest


class Codebooks(Value):
    """The stages of a residual quantizer, a frozen value and a sequence of `Stage`.

    ``codebooks[q]`` is one stage, ``codebooks[a:b]`` the codebooks of several. Codebooks with equal
    stages are equal.

    Parameters
    ----------
    stages : array (Q, K, D), floating, or iterable of Stage or array (K, D)
        The number of codewords may differ from stage to stage; the length of the vectors may not.

    Attributes
    ----------
    stages : tuple of Stage
    n_q : int
        Q, the number of stages; also ``len(codebooks)``.
    dim : int
        D, the length of a vector.
    sizes : tuple of int
        Number of codewords of each stage.
    dtype : numpy.dtype
        float32 or float64: the widest dtype of the stages.
    strides : tuple of int
        Frames per code, stage by stage.
    block : int
        Number of frames that are encoded independently of other frames: the least common multiple
        of the strides.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError
        As `Stage`; also if there is no stage, or the stages have vectors of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> books = Codebooks(np.zeros((8, 256, 64), np.float32))
    >>> books.n_q, books.dim, books.sizes[:2], books[:3]
    (8, 64, (256, 256), Codebooks(3 stages, 256 codewords of 64))
    >>> np.asarray(books).shape
    (8, 256, 64)
    """

    stages: tuple[Stage, ...]
    n_q: int
    dim: int
    sizes: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    block: int
    _prepared: dict[Any, Any]
    _limits: dict[Any, float]
    _slices: dict[tuple[int, ...], Codebooks]
    _shared: _Shared  # with the codebooks that this is a slice of
    _part: slice | None  # which of their stages these are; None: all
    # Per stage what searches found out that holds for codebooks trained from these as well.
    _hints: tuple[dict[str, Any], ...]

    def __init__(self, stages: Any):
        if hasattr(stages, "shape"):
            array = to_numpy(stages)
            if array.ndim != 3:
                raise ShapeError(
                    f"Codebooks: got an array of shape {array.shape}; expected (Q, K, D), that is "
                    "stages, codewords, numbers per codeword."
                )
            stages = array
        elif not isinstance(stages, Iterable):
            raise ShapeError(
                f"Codebooks: got a {type(stages).__name__}; expected an array (Q, K, D) or stages."
            )
        made = tuple(each if isinstance(each, Stage) else Stage(each) for each in stages)
        if not made:
            raise ShapeError("Codebooks: got no stage; expected at least one.")
        dims = {stage.dim for stage in made}
        if len(dims) > 1:
            raise ShapeError(
                f"Codebooks: the stages quantize vectors of lengths {sorted(dims)}; expected one."
            )
        strides = tuple(stage.stride for stage in made)
        dtype = np.result_type(np.float32, *(stage.codebook.dtype for stage in made))
        vars(self).update(
            stages=made,
            n_q=len(made),
            dim=made[0].dim,
            sizes=tuple(stage.size for stage in made),
            dtype=dtype,
            strides=strides,
            block=math.lcm(*strides),
            _prepared={},
            _limits={},
            _slices={},
            _shared=_Shared(made, dtype),
            _part=None,
            _hints=tuple({} for _ in made),
        )

    @classmethod
    def of(cls, codebooks: Any) -> Codebooks:
        """Return `codebooks` itself if it is a `Codebooks`, else one made of it."""
        return codebooks if isinstance(codebooks, cls) else cls(codebooks)

    @classmethod
    def trained(cls, stages: Iterable[Stage], before: Codebooks | None) -> Codebooks:
        """Return the codebooks that a training step made of `before`.

        Data that searches with `before` have cached is kept: it makes encoding faster and never
        changes the codes.
        """
        made = cls(stages)
        if before is not None and before.n_q == made.n_q:
            vars(made)["_hints"] = before._hints
        return made

    def made_of(self) -> tuple[Any, ...]:
        return (self.stages,)

    def __len__(self) -> int:
        return self.n_q

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    @overload
    def __getitem__(self, index: slice) -> Codebooks: ...
    @overload
    def __getitem__(self, index: int) -> Stage: ...
    def __getitem__(self, index: Any) -> Any:
        """Return one stage, ``codebooks[q]``, or the codebooks of some, ``codebooks[a:b]``.

        Neighbouring stages share what backends prepare with the codebooks they are cut from.
        """
        if not isinstance(index, slice):
            return stage_at("Codebooks", self.stages, index)
        chosen = range(self.n_q)[index]
        if not chosen:
            raise LevelsError(f"Codebooks: {index} leaves none of the {self.n_q} stages.")
        key = tuple(chosen)
        if len(key) == self.n_q and key[0] == 0:
            return self
        if key not in self._slices:
            self._slices[key] = self._cut(chosen)
        return self._slices[key]

    def _cut(self, chosen: range) -> Codebooks:
        some = Codebooks([self.stages[q] for q in chosen])
        # Of another float type, or order, tables are others.
        if chosen.step == 1 and some.dtype == self._shared.dtype:
            first = 0 if self._part is None else self._part.start
            part = slice(first + chosen.start, first + chosen.stop)
            vars(some).update(_shared=self._shared, _part=part)
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all codewords (Q, K, C), of stages of one size: ``numpy.asarray(codebooks)``."""
        return shown.stacked(self, dtype, copy)

    def _repr_html_(self) -> str:
        return shown.html(self)

    def __repr__(self) -> str:
        stages = "1 stage" if self.n_q == 1 else f"{self.n_q} stages"
        codewords = (
            f"{span(self.sizes)} codewords of {span(each.codebook.shape[1] for each in self)}"
        )
        mapped = any(each.project_in is not None for each in self)
        about = f" for vectors of {self.dim}" if mapped else ""
        if any(each.metric == "cosine" for each in self):
            about += ", by cosine"
        if self.block > 1:
            about += f", every {span(self.strides)} frames"
        if self.dtype != np.float32:
            about += f", {self.dtype}"
        return f"Codebooks({stages}, {codewords}{about})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all codewords and projections, by which files name their codebooks."""
        return self.fingerprints[-1]

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of the first stage, the first two, and so on."""
        digest, every = hashlib.sha256(), []
        for stage in self.stages:
            stage.digest(digest)
            every.append(digest.copy().hexdigest())
        return tuple(every)

    @cached_property
    def alone(self) -> tuple[Codebooks, ...]:
        """Each stage on its own, for frames that its stride has put together already."""
        return self._shared.alone if self._part is None else self._shared.alone[self._part]

    @cached_property
    def reach(self) -> float:
        """How far the numbers of a residual can move from those of its vector, at most."""
        return sum(largest(stage) for stage in self.stages)

    def limit(self, dtype: Any) -> float:
        """Vectors whose numbers are all below this have residuals that a float type can hold."""
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
        # Twice: space for the bias. A mean is a sum first.
        return max([float(max(self.strides)), *(2.0 * each for each in sums)])

    def prepared(self, backend: Any, like: Any) -> Any:
        """Return ``backend.prepare(self, like)``, made once for each kind of `like`.

        For a slice of codebooks, it is a slice of the result for all stages.
        """
        key = (backend, like.dtype, str(getattr(like, "device", "cpu")))
        if key not in self._prepared:
            whole = self._shared.prepared(key, like)
            self._prepared[key] = whole if self._part is None else whole[self._part]
        return self._prepared[key]


class _Shared:
    """What codebooks and their slices use together, made when first asked for."""

    def __init__(self, stages: tuple[Stage, ...], dtype: np.dtype):
        self.stages, self.dtype = stages, dtype
        self._prepared: dict[Any, Any] = {}

    @cached_property
    def alone(self) -> tuple[Codebooks, ...]:
        return tuple(Codebooks([replace(stage, stride=1)]) for stage in self.stages)

    def prepared(self, key: Any, like: Any) -> Any:
        """Return what the backend ``key[0]`` made of all stages for arrays of the kind `key`."""
        if key not in self._prepared:
            self._prepared[key] = key[0].prepare(Codebooks(self.stages), like)
        return self._prepared[key]


def stage_at(kind: str, stages: Sequence[Stage], index: Any) -> Stage:
    """Return ``stages[index]``, or raise: a LevelsError that is an IndexError beyond the ends."""
    try:
        place = operator.index(index)
    except TypeError:
        raise LevelsError(
            f"{kind}: the index is {index!r}; expected a whole number or a slice of stages."
        ) from None
    if not -len(stages) <= place < len(stages):
        raise StageIndexError(
            f"{kind}: there is no stage {place}; expected {-len(stages)} to {len(stages) - 1}."
        )
    return stages[place]
