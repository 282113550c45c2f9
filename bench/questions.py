"""All benchmarks, in the order of the table of targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import (
    collapse,
    decoding,
    defaults,
    encoding,
    footprint,
    grid,
    home,
    packing,
    process,
    processor,
    searching,
    semantic_ids,
    shims,
    streaming,
    training,
)
from .report import Answer
from .setting import Setting


class Question(NamedTuple):
    """A benchmark, ``ask(setting, threads)``, run for every number of threads, or once."""

    ask: Callable[[Setting, int], Answer]
    threaded: bool = True


QUESTIONS = {
    "encode": Question(encoding.batch),
    "fitted": Question(encoding.fitted_batch),
    "processor": Question(processor.processor),
    "narrow": Question(encoding.narrow),
    "grid": Question(grid.grid),
    "frame": Question(encoding.frame),
    "dac": Question(encoding.dac),
    "decode": Question(decoding.decoding),
    "kmeans": Question(training.clustering),
    "kmeans-wide": Question(training.wide),
    "step": Question(training.stepping),
    "beam": Question(encoding.beam),
    "degenerate": Question(collapse.collapsed, threaded=False),
    "first": Question(collapse.first_batch),
    "start": Question(process.starting, threaded=False),
    "start-prebuilt": Question(process.prebuilt, threaded=False),
    "memory": Question(process.memory),
    "growth": Question(grid.growth),
    "shims": Question(shims.shims),
    "streaming": Question(streaming.streaming),
    "packing": Question(packing.packing, threaded=False),
    "search": Question(searching.searching),
    "footprint": Question(footprint.footprint, threaded=False),
    "defaults": Question(defaults.batches),
    "defaults-frame": Question(defaults.frame),
    "defaults-first": Question(defaults.first_call),
    "defaults-memory": Question(defaults.memory),
    "defaults-plain": Question(defaults.plain),
    "soundstream-shape": Question(defaults.soundstream),
    "dac-training": Question(defaults.dac),
    "snac-training": Question(defaults.snac),
    "soundstream": Question(home.soundstream),
    "ids-quality": Question(semantic_ids.quality),
    "ids-glosses": Question(semantic_ids.glossed),
    "ids-scale": Question(semantic_ids.scale),
    "ids-balance": Question(semantic_ids.balanced),
    "ids-wide": Question(semantic_ids.wide),
}
