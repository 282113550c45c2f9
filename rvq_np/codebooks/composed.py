"""Quantizers made of several: around a projection, side by side, or on groups of channels.

====================  ======================================================================
`Codebooks`           one stage after another, each on the residual of the one before
`Projected`           a quantizer between a linear map in and one out (vector-quantize-pytorch)
`Parallel`            quantizers of the same vectors, whose results are added (Mimi)
`Grouped`             quantizers of neighbouring channels, put side by side again (HiFi-Codec)
`Normalized`          stages that quantize the direction of the residual (semantic IDs)
====================  ======================================================================

They can be nested. `rvq_np.encode` and `rvq_np.decode` accept all of them instead of a `Codebooks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import arrays, backends
from ..errors import ParameterError, ShapeError
from .composition import Composed as Composed
from .sequence import Codebooks
from .stage import Linear, Stage, check_maps


class Projected(Composed):
    """A quantizer between two linear maps: ``project_out(inner(project_in(x)))``.

    Parameters
    ----------
    inner : Codebooks, Composed or array (Q, K, C)
    project_in : Linear
        From the D dimensions of a vector to the C that `inner` quantizes.
    project_out : Linear
        From the sum of the codewords back to D dimensions.
    n_q : int, optional
        Use only the first `n_q` stages, as ``quantizer[:n_q]``; by default all.

    Raises
    ------
    ShapeError
        If the maps do not fit.
    ParameterError
        If they are not `Linear`.
    LevelsError
        If `n_q` is not between 1 and the number of stages.

    Notes
    -----
    A single `Stage` can have projections as well. With those, residuals have the D dimensions of
    the vectors. Here they have the C dimensions of the codewords.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Linear, Projected
    >>> half = Linear(np.float32([[1, 0]]), np.zeros(1, np.float32))
    >>> back = Linear(np.float32([[1], [0]]), np.zeros(2, np.float32))
    >>> Projected(np.zeros((4, 16, 1), np.float32), half, back)
    Projected(Codebooks(4 stages, 16 codewords of 1), for vectors of 2)
    """

    KIND = "projected"

    project_in: Linear
    project_out: Linear

    def __init__(self, inner: Any, project_in: Linear, project_out: Linear, n_q: int | None = None):
        inner = of(inner)
        check_maps("Projected", project_in, project_out)
        into, out = project_in.weight.shape, project_out.weight.shape
        if into[0] != inner.dim or out[1] != inner.dim or into[1] != out[0]:
            raise ShapeError(
                f"Projected: inner quantizes vectors of length {inner.dim}, project_in.weight has "
                f"shape {into} and project_out.weight {out}; expected ({inner.dim}, D) and "
                f"(D, {inner.dim})."
            )
        vars(self).update(project_in=project_in, project_out=project_out)
        types = [project_in.weight.dtype, project_out.weight.dtype]
        super().__init__([inner], [0] * inner.n_q, into[1], n_q, types)

    def made_of(self) -> tuple[Any, ...]:
        return self.parts[0], self.project_in, self.project_out, self.n_q

    def into(self, rows: Any) -> list[Any]:
        return [self._through(self.project_in, rows)]

    def out_of(self, vectors: Sequence[Any]) -> Any:
        return self._through(self.project_out, vectors[0])

    def _through(self, linear: Linear, rows: Any) -> Any:
        engine = backends.engine_of(rows)
        return engine.project(rows, linear.prepared(engine, rows), self.dtype)

    def _limit(self, dtype: Any) -> float:
        sums = np.abs(self.project_in.weight).sum(axis=1, dtype=np.float64)
        space = super()._limit(dtype) - np.abs(self.project_in.bias).astype(np.float64)
        with np.errstate(divide="ignore", over="ignore"):
            return float(min((space / sums).min(), np.finfo(dtype).max / 2))

    def maps(self) -> Sequence[Linear]:
        return (self.project_in, self.project_out)

    def __repr__(self) -> str:
        whole = super().__repr__()
        return f"{whole[:-1]}, for vectors of {self.dim})"


class Parallel(Composed):
    """Quantizers of the same vectors, side by side; their decoded vectors are added.

    Parameters
    ----------
    parts : iterable of Codebooks, Composed or array (Q, K, D)
        Stages are numbered part by part: first all stages of the first part.
    n_q : int, optional
        Use only the first `n_q` stages, as ``quantizer[:n_q]``; by default all.

    Raises
    ------
    ShapeError
        If there is no part, or they quantize vectors of different lengths.
    LevelsError
        If `n_q` is not between 1 and the number of stages.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Parallel
    >>> both = Parallel([np.zeros((1, 16, 2), np.float32), np.zeros((7, 16, 2), np.float32)])
    >>> both.n_q, both[:3].order
    (8, (0, 1, 1))
    """

    KIND = "parallel"

    def __init__(self, parts: Iterable[Any], n_q: int | None = None):
        made = _parts("Parallel", parts)
        dims = sorted({part.dim for part in made})
        if len(dims) > 1:
            raise ShapeError(
                f"Parallel: the parts quantize vectors of lengths {dims}; expected one."
            )
        order = [n for n, part in enumerate(made) for _ in range(part.n_q)]
        super().__init__(made, order, dims[0], n_q)

    def into(self, rows: Any) -> list[Any]:
        return [rows] * len(self.parts)

    def out_of(self, vectors: Sequence[Any]) -> Any:
        total = vectors[0]
        for each in vectors[1:]:
            total = total + each
        return total


class Grouped(Composed):
    """Quantizers of groups of channels: each quantizes its own part of every vector.

    Parameters
    ----------
    parts : iterable of Codebooks, Composed or array (Q, K, C)
        In the order of the channels; their lengths add up to D. The stages alternate: the first
        stage of every part, then the second of every part, so that a prefix of the codes is a
        coarser version of the whole vector. If all parts have the same number of stages,
        ``codes.reshape(Q, G, ...)`` separates them.
    n_q : int, optional
        Use only the first `n_q` stages, as ``quantizer[:n_q]``; by default all.

    Raises
    ------
    ShapeError
        If there is no part.
    LevelsError
        If `n_q` is not between 1 and the number of stages.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Grouped
    >>> halves = Grouped([np.zeros((2, 16, 3), np.float32), np.zeros((2, 16, 3), np.float32)])
    >>> halves.dim, halves.n_q, halves.order
    (6, 4, (0, 1, 0, 1))
    """

    KIND = "grouped"

    def __init__(self, parts: Iterable[Any], n_q: int | None = None):
        made = _parts("Grouped", parts)
        deepest = max(part.n_q for part in made)
        turns = [n for stage in range(deepest) for n, part in enumerate(made) if stage < part.n_q]
        super().__init__(made, turns, sum(part.dim for part in made), n_q)

    def into(self, rows: Any) -> list[Any]:
        ends = np.cumsum([part.dim for part in self.parts]).tolist()
        return [rows[:, end - part.dim : end] for end, part in zip(ends, self.parts, strict=True)]

    def out_of(self, vectors: Sequence[Any]) -> Any:
        return arrays.namespace(*vectors).concat(list(vectors), axis=1)


class Normalized(Composed):
    """Stages that quantize the direction of the residual.

    The vector and each residual are divided by their lengths before the next stage, as TorchEasyRec
    and GRID do for semantic IDs (``normalize_residuals``). Codes decode to the sum of their
    codewords, as in those packages. The codes do not contain the lengths, so this sum does not
    approximate the vector.

    Parameters
    ----------
    parts : iterable of Codebooks, Stage or array (1, K, D)
        Each has one stage, without a stride.
    n_q : int, optional
        Use only the first `n_q` stages, as ``quantizer[:n_q]``; by default all.

    Raises
    ------
    ShapeError
        If there is no part, or they quantize vectors of different lengths.
    ParameterError
        If a part has several stages, or a stride.
    LevelsError
        If `n_q` is not between 1 and the number of stages.

    Notes
    -----
    The search is greedy: a beam search compares errors of sums, which have no meaning here. A
    vector of zeros has no direction and is not changed. Lengths are computed in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Normalized, encode
    >>> directions = np.float32([[[1, 0], [0, 1]]])
    >>> signs = np.float32([[[1, 1], [-1, -1], [1, -1]]])
    >>> encode(np.float32([[9, 3], [900, 300]]), Normalized([directions, signs]))
    array([[0, 0],
           [0, 0]], dtype=int32)
    """

    KIND = "normalized"

    def __init__(self, parts: Iterable[Any], n_q: int | None = None):
        if isinstance(parts, (Composed, Codebooks)) or not isinstance(parts, Iterable):
            raise ShapeError(
                f"Normalized: got a {type(parts).__name__}; expected a list of stages."
            )
        made = _parts(
            "Normalized", [Codebooks([part]) if isinstance(part, Stage) else part for part in parts]
        )
        for place, part in enumerate(made):
            if part.n_q != 1 or part.block != 1 or isinstance(part, Composed):
                raise ParameterError(
                    f"Normalized: parts[{place}] is {part!r}; expected one stage, without a stride."
                )
        dims = sorted({part.dim for part in made})
        if len(dims) > 1:
            raise ShapeError(
                f"Normalized: the stages quantize vectors of lengths {dims}; expected one."
            )
        super().__init__(made, range(len(made)), dims[0], n_q)

    def out_of(self, vectors: Sequence[Any]) -> Any:
        total = vectors[0]
        for each in vectors[1:]:
            total = total + each
        return total


def of(value: Any) -> Codebooks | Composed:
    """Return `value` itself if it is a quantizer, else the `Codebooks` made of it."""
    return value if isinstance(value, Composed) else Codebooks.of(value)


def _parts(call: str, parts: Any) -> list[Any]:
    if isinstance(parts, (Composed, Codebooks)) or not isinstance(parts, Iterable):
        raise ShapeError(f"{call}: got a {type(parts).__name__}; expected a list of quantizers.")
    made = [of(part) for part in parts]
    if not made:
        raise ShapeError(f"{call}: got no part; expected at least one.")
    return made
