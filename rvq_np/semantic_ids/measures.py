"""How good IDs are: how many items share one, and how evenly codewords are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import display
from ..errors import ShapeError
from . import _codes


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The result of `stats`. A bucket is all items with the same ID.

    Attributes
    ----------
    items, unique : int
        Items, and distinct IDs.
    collision_rate : tuple of Q float
        For the first 1, 2, … Q codes: 1 - distinct prefixes / items. The last is the rate of whole
        IDs.
    largest_bucket, singletons : int
        Number of items of the largest bucket; number of IDs with one item.
    gini : float
        Gini coefficient of the sizes of the buckets: 0 if all are equal.
    entropy_ratio : float
        Entropy of the IDs divided by log2 of the number of items: 1 if every ID is unique.
    coverage : tuple of Q float
        For each stage, the share of codewords that occur.
    unused : tuple of Q int
        For each stage, how many codewords do not occur.
    perplexity : tuple of Q float
        For each stage, 2 to the power of the entropy of the codes, in bits.
    sizes : tuple of Q int
        Codewords per stage.
    """

    items: int
    unique: int
    collision_rate: tuple[float, ...]
    largest_bucket: int
    singletons: int
    gini: float
    entropy_ratio: float
    coverage: tuple[float, ...]
    unused: tuple[int, ...]
    perplexity: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def unique_share(self) -> float:
        """Distinct IDs divided by items; 1 without items."""
        return self.unique / self.items if self.items else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain values, for JSON."""
        return dataclasses.asdict(self)

    def _repr_html_(self) -> str:
        facts = [
            ("items", self.items),
            ("unique IDs", f"{self.unique} ({self.unique_share:.2%} of the items)"),
            ("possible IDs", _codes.space(self.sizes)),
            ("items of one ID", f"{self.singletons} IDs"),
            ("largest bucket", self.largest_bucket),
            ("Gini coefficient", f"{self.gini:.4f}"),
            ("entropy ratio", f"{self.entropy_ratio:.4f}"),
        ]
        rows = [
            (q, size, f"{self.coverage[q]:.1%}", self.unused[q], f"{self.perplexity[q]:.1f}",
             f"{self.collision_rate[q]:.2%}")
            for q, size in enumerate(self.sizes)
        ]  # fmt: skip
        columns = ("stage", "codewords", "used", "unused", "perplexity", "collision rate up to it")
        return display.table("Statistics of semantic IDs", facts, columns, rows)

    def __str__(self) -> str:
        lines = [
            f"items                {self.items}",
            f"unique IDs           {self.unique} ({self.unique_share:.2%} of the items)",
            f"possible IDs         {_codes.space(self.sizes)}",
            f"items of one ID      {self.singletons} IDs",
            f"largest bucket       {self.largest_bucket}",
            f"Gini coefficient     {self.gini:.4f}",
            f"entropy ratio        {self.entropy_ratio:.4f}",
            "stage  codewords  used     unused  perplexity  collision rate up to here",
        ]
        for q, size in enumerate(self.sizes):
            lines.append(
                f"{q:>5}  {size:>9}  {self.coverage[q]:>6.1%}  {self.unused[q]:>6}  "
                f"{self.perplexity[q]:>10.1f}  {self.collision_rate[q]:>25.2%}"
            )
        return "\n".join(lines)


def stats(codes: Any, sizes: Sequence[int]) -> Statistics:
    """Count how many items share IDs, and how evenly the codewords of each stage are used.

    Parameters
    ----------
    codes : array (Q, N), integer
        IDs, one column per item.
    sizes : sequence of Q int
        Codewords per stage.

    Returns
    -------
    statistics : Statistics
        ``print`` shows it as a table.

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError, LevelsError, ParameterError
        If codes are not (Q, N) integers from 0 and below the sizes.

    Notes
    -----
    Linear time and memory.

    Examples
    --------
    >>> import numpy as np
    >>> found = stats(np.array([[0, 0, 1, 1], [2, 2, 0, 1]]), [2, 4])
    >>> found.unique, found.collision_rate, found.largest_bucket, found.coverage
    (3, (0.5, 0.25), 2, (1.0, 0.75))
    """
    found = _codes.checked("stats", codes)
    sizes = _codes.sizes_of("stats", sizes, found)
    n_items = found.shape[1]
    ordered = _codes.order(found)
    prefixes = [int(new.sum()) for new in _codes.beginnings(found, ordered)]
    buckets = np.diff(_codes.starts(found, ordered), append=n_items)
    counts = [np.bincount(row, minlength=size) for row, size in zip(found, sizes, strict=True)]
    whole = _entropy(buckets)
    return Statistics(
        items=n_items,
        unique=len(buckets),
        collision_rate=tuple(1 - each / n_items if n_items else 0.0 for each in prefixes),
        largest_bucket=int(buckets.max(initial=0)),
        singletons=int((buckets == 1).sum()),
        gini=_gini(buckets),
        entropy_ratio=min(1.0, whole / float(np.log2(n_items))) if n_items > 1 else 1.0,
        coverage=tuple(float((each > 0).mean()) for each in counts),
        unused=tuple(int((each == 0).sum()) for each in counts),
        perplexity=tuple(float(2.0 ** _entropy(each)) if n_items else 0.0 for each in counts),
        sizes=sizes,
    )


def _entropy(counts: np.ndarray) -> float:
    """Return the entropy of what is drawn with these counts, in bits."""
    sizes, times = np.unique(counts[counts > 0], return_counts=True)  # few distinct sizes
    share = sizes / max(1, int((sizes * times).sum()))
    return max(0.0, -float((times * share * np.log2(share)).sum()))


def _gini(buckets: np.ndarray) -> float:
    if not len(buckets):
        return 0.0
    ranked = np.sort(buckets).astype(np.float64)
    n = len(ranked)
    weights = 2.0 * np.arange(1, n + 1) - n - 1
    return max(0.0, float((weights * ranked).sum() / (n * ranked.sum())))


def shared_prefixes(codes: Any, neighbours: Any) -> tuple[float, ...]:
    """Return how often neighbouring items share their first 1, 2, … Q codes.

    Parameters
    ----------
    codes : array (Q, N), integer
    neighbours : array (N, k), integer
        For each item, the numbers of its neighbours.

    Returns
    -------
    shares : tuple of Q float
        For each length of the prefix, the share of the pairs of an item and a neighbour that have
        the same prefix.

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError
        If codes are not (Q, N) integers from 0, or `neighbours` does not name items.

    Examples
    --------
    >>> import numpy as np
    >>> shared_prefixes(np.array([[0, 0, 1], [0, 1, 1]]), np.array([[1], [0], [1]]))
    (0.6666666666666666, 0.0)
    """
    found = _codes.checked("shared_prefixes", codes)
    near = np.asarray(neighbours)
    n_items = found.shape[1]
    if near.ndim != 2 or len(near) != n_items or near.dtype.kind not in "iu":
        raise ShapeError(
            f"shared_prefixes: neighbours is {near.dtype} of shape {near.shape}; expected integers "
            f"({n_items}, k)."
        )
    if near.size and (near.min() < 0 or near.max() >= n_items):
        raise ShapeError(
            f"shared_prefixes: neighbours reach from {near.min()} to {near.max()}; expected 0 to "
            f"{n_items - 1}."
        )
    same, shares = np.ones(near.shape, bool), []
    for row in found:
        same &= row[near] == row[:, None]
        shares.append(float(same.mean()) if same.size else 0.0)
    return tuple(shares)
