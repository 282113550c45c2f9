"""Tensors of no known family: what was looked for, which family is nearest, what it misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from types import ModuleType

LOOKED_AT = 400  # names that are compared; a model has thousands
TELLING = ("codebook", "quantizer", "vq", "embed", "proj")


def told(names: Iterable[str], modules: Mapping[str, ModuleType]) -> str:
    """Return it in sentences; `modules` have ``NAMES``, see `rvq_np.checkpoints`."""
    looked_for = {
        name: module.NAMES for name, module in modules.items() if hasattr(module, "NAMES")
    }
    if not looked_for:
        return ""
    listed = "; ".join(
        f"{family}: {' or '.join(' and '.join(form) for form in forms)}"
        for family, forms in looked_for.items()
    )
    order = sorted(names, key=lambda name: (not any(each in name for each in TELLING), name))
    some = order[:LOOKED_AT]
    scored = [
        (_likeness(some, form), family, form)
        for family, forms in looked_for.items()
        for form in forms
    ]
    _, family, form = max(scored, key=lambda each: each[0])
    missing = [each for each in form if not _has(some, each)]
    return (
        f" Looked for names that end in: {listed}. Nearest is {family}, which misses "
        f"{', '.join(map(repr, missing)) or 'nothing of these, but is not put together so'}."
    )


def _likeness(names: list[str], form: tuple[str, ...]) -> float:
    """Return how near names come to those wanted, 1 where all are there."""
    best = [1.0 if _has(names, each) else _nearest(names, each) for each in form]
    return sum(best) / len(best)


def _nearest(names: list[str], wanted: str) -> float:
    depth = wanted.count(".") + 1
    tails = {".".join(name.split(".")[-depth:]) for name in names}
    return max((SequenceMatcher(None, tail, wanted).ratio() for tail in tails), default=0.0)


def _has(names: list[str], wanted: str) -> bool:
    return any(name == wanted or name.endswith("." + wanted) for name in names)
