"""What a quantizer says of itself, the same for the class and for those of frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .. import display
from ..config import Config

MOST = 8  # sizes that are listed one by one
NAMED = ("dimension", "codebook_dim", "n_q", "bins")  # arguments that are said in another way


def of_arguments(config: Config) -> list[str]:
    """Return in text the shape of a quantizer, and the other arguments that are no defaults."""
    stages = "1 stage" if config.n_q == 1 else f"{config.n_q} stages"
    said = [
        f"{stages} of {_sizes(config)} codewords",
        f"dimension={config.dimension}",
        f"codebook_dim={config.codebook_dim}" + _hint(config),
    ]
    for each in fields(Config):
        value = getattr(config, each.name)
        if each.name not in NAMED and value != each.default:
            said.append(f"{each.name}={value!r}")
    return said


def _sizes(config: Config) -> str:
    """Return the codewords of a stage as text: of each where they differ and are few."""
    sizes = config.sizes
    if len(set(sizes)) == 1 or len(sizes) > MOST:
        return display.span(sizes)
    return ", ".join(map(str, sizes))


def _hint(config: Config) -> str:
    if not config.projects:
        return ""
    return (
        f" (not {config.dimension}: each stage has linear maps in and out; codebook_dim=None: none)"
    )


def of_training(trained: Sequence[bool], training: bool) -> list[str]:
    """Return whether stages are trained, and what calling the quantizer does to it."""
    count = sum(trained)
    state = "trained" if count == len(trained) else "untrained" if not count else (
        f"{count} of {len(trained)} stages trained"
    )  # fmt: skip
    return [state, "train mode" if training else "eval mode"]


def trained(states: Sequence[Any]) -> list[bool]:
    """Return per stage whether its codewords were trained or loaded: vectors chose some."""
    return [bool(each.initialized and each.chosen.any()) for each in states]


def of(rvq: Any) -> str:
    """Return the text of ``repr(rvq)``."""
    said = [*of_training(trained(rvq._states), rvq.training), *of_arguments(rvq.config)]
    if rvq.frozen:
        said.append(f"frozen={rvq.frozen}")
    said.append(f"fingerprint {display.short(rvq.codebooks.fingerprint)}")
    return f"{type(rvq).__name__}({', '.join(said)})"


def html(rvq: Any) -> str:
    """Return what a notebook shows of a quantizer: what it is, and how its stages are used."""
    config, which = rvq.config, trained(rvq._states)
    state, mode = of_training(which, rvq.training)
    facts = [
        ("state", state),
        ("mode", f"{mode}: calls train {'it; eval() ends that' if rvq.training else 'nothing'}"),
        ("stages", config.n_q),
        ("codewords per stage", _sizes(config)),
        ("dimension", config.dimension),
        ("codebook_dim", f"{config.codebook_dim}{_hint(config)}"),
        ("fingerprint", display.short(rvq.codebooks.fingerprint)),
    ]
    rows = [
        (q, size, "yes" if done else "no", f"{use.utilisation:.1%}", f"{use.perplexity:.1f}")
        for q, (size, done, use) in enumerate(zip(config.sizes, which, rvq.usage, strict=True))
    ]
    columns = ("stage", "codewords", "trained", "codewords used", "perplexity")
    return display.table(type(rvq).__name__, facts, columns, rows)


def fields_of(result: Any) -> list[tuple[str, str]]:
    """Return the names of what a `QuantizedResult` holds, with dtypes and shapes, no numbers."""
    held = ((each.name, getattr(result, each.name)) for each in fields(result))
    return [(name, display.array(value)) for name, value in held if value is not None]
