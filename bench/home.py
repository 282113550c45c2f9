"""ESPnet's whole SoundStream generator in training, with either quantizer in it.

The generator is that of tests/helpers/espnet_home.py, built by ESPnet's own code; its quantizer of
32 -> 512, n_q 4, bins 32 follows from the generator's defaults and a small encoder.
"""

from __future__ import annotations

import functools
import importlib.util
import random
import statistics
import sys
import time
from typing import Any

from rvq_np.kernels import dispatch

from . import turns
from .machine import ROOT
from .quantizers import ESPNET, OURS_TORCH
from .report import Answer, Check, plural, ratio
from .setting import Setting
from .threads import fixed_threads

WHOLE, WITHIN = "SoundStream: whole training step", "SoundStream: quantizer's forward within it"
STEPS = 10  # before measuring: k-means, and dead-code replacement
NOTE = (
    "Reconstruction and commitment, forward, backward and Adam, of four clips of 0.6 s at 16 kHz, "
    "four stages; 120 vectors. "
)


def soundstream(setting: Setting, threads: int) -> Answer:
    """How long does a training step of a whole codec take, and how much of it is its quantizer?"""
    calls, within = {}, {}
    dispatch.load()
    with fixed_threads(threads):
        for name in (OURS_TORCH, ESPNET):
            try:
                calls[name], within[name] = _made(name)
            except ImportError as error:
                print(f"skipped {name} in SoundStream: {error}", file=sys.stderr)
        for taken in within.values():
            taken.clear()
        whole = turns.measured(calls, setting.rounds, f"{WHOLE}, {plural(threads)}")
    part = {name: statistics.median(taken) for name, taken in within.items()}
    rows = _workshop().CLIPS * _workshop().LENGTH // 320
    tables = [
        turns.table(WHOLE, whole, rows, threads, NOTE + turns.BEFORE),
        turns.table(WITHIN, part, rows, threads, ""),
    ]
    reached = ratio(whole.get(ESPNET), whole.get(OURS_TORCH))
    return Answer(tables, [Check(WHOLE, f"not slower than with {ESPNET}", threads, reached, 1)])


@functools.cache
def _workshop() -> Any:
    """Return the module tests/helpers/espnet_home.py, which is not in a package."""
    path = ROOT / "tests" / "helpers" / "espnet_home.py"
    spec = importlib.util.spec_from_file_location("espnet_home", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(name: str) -> tuple[Any, list[float]]:
    """Return a training step, and the list that receives the seconds of its quantizer's forward."""
    import torch

    from rvq_np.grad.torch import ResidualVectorQuantizer

    home = _workshop()
    kind = {OURS_TORCH: ResidualVectorQuantizer, ESPNET: None}[name]
    generator = home.generator(kind, quantizer_target_bandwidth=[1.0])
    audio, taken = home.speech(), []
    started = [0.0]
    quantizer = generator.quantizer
    quantizer.register_forward_pre_hook(lambda *_: started.__setitem__(0, time.perf_counter()))
    quantizer.register_forward_hook(lambda *_: taken.append(time.perf_counter() - started[0]))
    home.train(generator, audio, STEPS)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-5)

    def step():
        random.seed(0)
        made, commitment, _, _ = generator(audio)
        optimizer.zero_grad()
        (home.distance(made, audio) + commitment).backward()
        optimizer.step()

    return step, taken
