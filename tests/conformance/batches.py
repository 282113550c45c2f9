"""Whether the codes of transformers' codecs depend on the batch: facts, and their section."""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rvq_np import encode
from rvq_np.testing.batches import batch_drifts

from . import codecs
from .run import DOCS

KNOWN = DOCS / "batches.json"
SECONDS = (2.56, 1.28, 1.92, 1.28, 2.56, 1.6)  # whole frames of every codec
RATE = 24000
HEAD = """## Do codes depend on the batch?

[`batch_drifts`](testing.md) run on three codecs of transformers {version} with random weights and
fewer channels and codewords than published: six signals of noise, 1.3 to 2.6 s of {rate} samples a
second, encoded alone, one by one, and then once more. *Frames*: those of which any code changed.
*First*: how many changed first at which stage. *By the quantizer*: those whose exact codes, by
rvq_np, are the same both times, so that the quantizer's own arithmetic made the difference; the
network before it did in the others. *rvq_np*: frames that changed where `rvq_np.encode` quantizes
what the same network returned.

Codewords are drawn among what the stages before leave of the same signals, so shares are not those
of a trained codec; that something changes, where, and by what, is. One thread, torch {torch}, a
processor with {processor}; another one adds up in another order, and counts other frames.

| codec | encoded once more | frames | first, frames at stage | by the quantizer | rvq_np |
|---|---|---:|---|---:|---:|
"""
TAIL = """
- Beside others, products of matrices are cut into other tiles. What float32 loses there moves a few
  residuals over the border between two codewords: the quantizer's doing, in every such frame.
- Padding reaches the last frames of a shorter signal where convolutions look ahead, as in DAC: the
  network's doing, which no quantizer can undo. The convolutions of EnCodec and Mimi are causal.
- bfloat16 changes most frames. Run at least the quantizer in float32, or with `rvq_np.encode`.
"""


def found(folder: Path) -> dict[str, Any]:
    """Return the facts of each codec, as they are kept."""
    torch.set_num_threads(1)
    signals = codecs.noise([int(RATE * each) for each in SECONDS])
    facts = {}
    for name, options in codecs.LARGE.items():
        codec = codecs.made(name, signals, folder / name, options)
        drifts = batch_drifts(
            codec.encode, signals, latents=codec.latents, quantizer=codec.quantizer,
            variants=codec.variants,
        )  # fmt: skip

        def ours(batch: Any, codec: Any = codec) -> list[np.ndarray]:
            return [encode(np.ascontiguousarray(each), codec.quantizer)
                    for each in codec.latents(batch)]  # fmt: skip

        mine = batch_drifts(ours, signals)
        facts[name] = {
            "title": f"{codec.title}, {codec.stages} stages",
            "version": version("transformers"),
            "torch": version("torch"),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "ways": [
                {"way": each.way, "frames": each.frames, "changed": each.changed,
                 "first": list(each.first), "by_quantizer": each.by_quantizer}
                for each in drifts
            ],
            "rvq_np": {each.way: each.changed for each in mine},
        }  # fmt: skip
    return facts


def section(facts: dict[str, Any]) -> str:
    """Return the section of the page, in Markdown."""
    one = next(iter(facts.values()))
    lines = HEAD.format(
        version=one["version"], rate=RATE, torch=one["torch"], processor=one["processor"]
    )
    for about in facts.values():
        for way in about["ways"]:
            ours = about["rvq_np"].get(way["way"], "")
            lines += f"| {about['title']} | {' | '.join(cells(way))} | {ours} |\n"
    return lines + TAIL


def cells(way: dict[str, Any]) -> list[str]:
    changed, frames, by = way["changed"], way["frames"], way["by_quantizer"]
    share = f"{changed} of {frames}" + (f", {changed / frames:.1%}" if changed else "")
    starts = [f"{count} at {q}" for q, count in enumerate(way["first"]) if count]
    first = ", ".join(starts[:3]) + (", …" if len(starts) > 3 else "")
    return [way["way"], share, first, "" if by is None or not changed else str(by)]


def written() -> dict[str, Any]:
    """Return the facts, found now."""
    with tempfile.TemporaryDirectory() as folder:
        return found(Path(folder))
