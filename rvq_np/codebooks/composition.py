"""What quantizers made of several share: whose stage is which, and sizes that follow from it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, overload

import numpy as np

from .. import arguments
from ..errors import LevelsError
from . import shown
from .sequence import stage_at
from .stage import Linear, Stage, Value, add_to


class Composed(Value):
    """The base of the composed quantizers: the order of the stages of the parts, and their sizes.

    They are frozen values and sequences of `Stage`, as `Codebooks` is.

    Attributes
    ----------
    parts : tuple of Codebooks or Composed
    order : tuple of int
        For each stage, the number of its part. The stages of a part keep their order.
    n_q : int
        The number of stages; also ``len(quantizer)``.
    dim : int
        D, the length of a vector.
    stages : tuple of Stage
    sizes, strides : tuple of int
        Codewords, and frames per code, of each stage.
    dtype : numpy.dtype
        The dtype of decoded vectors: float32 or float64.
    block : int
        Number of frames that are encoded independently of other frames.
    """

    KIND: ClassVar[str]
    parts: tuple[Any, ...]
    order: tuple[int, ...]
    n_q: int
    dim: int
    stages: tuple[Stage, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    block: int
    _limits: dict[Any, float]
    _slices: dict[int, Composed]

    def __init__(
        self,
        parts: Sequence[Any],
        order: Sequence[int],
        dim: int,
        n_q: int | None = None,
        dtypes: Sequence[Any] = (),
    ):
        whole = tuple(order)
        vars(self).update(parts=tuple(parts), order=whole[: self._checked(n_q, len(whole))])
        stages = tuple(self.parts[part].stages[q] for part, q in self.places())
        strides = tuple(stage.stride for stage in stages)
        vars(self).update(
            n_q=len(stages),
            dim=dim,
            stages=stages,
            sizes=tuple(stage.size for stage in stages),
            strides=strides,
            block=math.lcm(*strides),
            dtype=np.result_type(np.float32, *(part.dtype for part in parts), *dtypes),
            _limits={},
            _slices={},
        )

    def _checked(self, n_q: Any, highest: int) -> int:
        if n_q is None:
            return highest
        found = arguments.whole_of(n_q)
        if found is None:
            raise LevelsError(f"{type(self).__name__}: n_q is {n_q!r}; expected a whole number.")
        if not 1 <= found <= highest:
            raise LevelsError(f"{type(self).__name__}: n_q is {found}; expected 1 to {highest}.")
        return found

    def identity(self) -> tuple[Any, ...]:
        return (self.fingerprint, self.dtype)

    def places(self, n_q: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield for each stage the number of its part, and its own number within the part."""
        seen = [0] * len(self.parts)
        for part in self.order[:n_q]:
            yield part, seen[part]
            seen[part] += 1

    def shares(self, n_q: int) -> list[int]:
        """Return how many of the first `n_q` stages each part has."""
        return [self.order[:n_q].count(part) for part in range(len(self.parts))]

    def into(self, rows: Any) -> list[Any]:
        """Return the vectors that each part quantizes, for vectors (N, D)."""
        raise NotImplementedError

    def out_of(self, vectors: Sequence[Any]) -> Any:
        """Return vectors (N, D) from the decoded vectors of the parts."""
        raise NotImplementedError

    def limit(self, dtype: Any) -> float:
        """Vectors whose numbers are all below this have residuals that a float type can hold."""
        if dtype not in self._limits:  # summing the weights of a map takes longer than a frame
            self._limits[dtype] = self._limit(dtype)
        return self._limits[dtype]

    def _limit(self, dtype: Any) -> float:
        return min(part.limit(dtype) for part in self.parts)

    def maps(self) -> Sequence[Linear]:
        """Return the linear maps around the parts."""
        return ()

    def __len__(self) -> int:
        return self.n_q

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    @overload
    def __getitem__(self, index: slice) -> Any: ...
    @overload
    def __getitem__(self, index: int) -> Stage: ...
    def __getitem__(self, index: Any) -> Any:
        """Return one stage, ``quantizer[q]``, or the first of them, ``quantizer[:n]``."""
        name = type(self).__name__
        if not isinstance(index, slice):
            return stage_at(name, self.stages, index)
        chosen = range(self.n_q)[index]
        if not chosen or chosen != range(len(chosen)):
            raise LevelsError(
                f"{name}: {index} is not the first of its {self.n_q} stages; expected "
                "quantizer[:n]. For one part alone take quantizer.parts."
            )
        if len(chosen) == self.n_q:
            return self
        if len(chosen) not in self._slices:
            kind: Any = type(self)
            self._slices[len(chosen)] = kind(*self.made_of()[:-1], len(chosen))
        return self._slices[len(chosen)]

    def made_of(self) -> tuple[Any, ...]:
        """Return the arguments of the constructor that make this value; `n_q` is the last."""
        return self.parts, self.n_q

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all codewords, projections and the way they are composed."""
        return self._print(self.n_q)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of the first stage, the first two, and so on."""
        return tuple(self._print(n) for n in range(1, self.n_q + 1))

    def _print(self, n_q: int) -> str:
        digest = hashlib.sha256(f"{self.KIND}{self.order[:n_q]}{self.dim}".encode())
        for part, share in zip(self.parts, self.shares(n_q), strict=True):
            if share:
                digest.update(part.fingerprints[share - 1].encode())
        for linear in self.maps():
            for array in (linear.weight, linear.bias):
                add_to(digest, array)
        return digest.hexdigest()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all codewords (Q, K, C), of stages of one size: ``numpy.asarray(quantizer)``."""
        return shown.stacked(self, dtype, copy)

    def _repr_html_(self) -> str:
        return shown.html(self)

    def __repr__(self) -> str:
        parts = ", ".join(repr(part) for part in self.parts)
        whole = sum(part.n_q for part in self.parts)
        first = f", first {self.n_q} of {whole} stages" if self.n_q < whole else ""
        return f"{type(self).__name__}({parts}{first})"
