"""The report on tensors of no known family: expected names, most similar family, missing names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

COMPARED = 400  # names, at most; a model has thousands
Forms = tuple[tuple[str, ...], ...]  # per form of a family, how its names end
LIKELY = ("codebook", "quantizer", "vq", "embed", "proj")


def report(names: Iterable[str], expected: Mapping[str, Forms]) -> str:
    """Return the report as sentences; `expected`: the ``NAMES`` of families."""
    if not expected:
        return ""
    listed = "; ".join(
        f"{family}: {' or '.join(' and '.join(form) for form in forms)}"
        for family, forms in expected.items()
    )
    order = sorted(names, key=lambda name: (not any(each in name for each in LIKELY), name))
    some = order[:COMPARED]
    scored = [
        (_likeness(some, form), family, form)
        for family, forms in expected.items()
        for form in forms
    ]
    _, family, form = max(scored, key=lambda each: each[0])
    missing = [each for each in form if not _has(some, each)]
    return (
        f" Expected names that end in: {listed}. The most similar family is {family}; missing: "
        f"{', '.join(map(repr, missing)) or 'none of its names, but their structure differs'}."
    )


def _likeness(names: list[str], form: tuple[str, ...]) -> float:
    """Return how similar names are to those of a form, from 0 to 1; 1 if all are there."""
    best = [1.0 if _has(names, each) else _nearest(names, each) for each in form]
    return sum(best) / len(best)


def _nearest(names: list[str], ending: str) -> float:
    depth = ending.count(".") + 1
    tails = {".".join(name.split(".")[-depth:]) for name in names}
    return max((SequenceMatcher(None, tail, ending).ratio() for tail in tails), default=0.0)


def _has(names: list[str], ending: str) -> bool:
    return any(name == ending or name.endswith("." + ending) for name in names)
