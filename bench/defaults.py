"""What users run: the defaults of ESPnet's class and ours, and the shapes codecs build.

Dimension 256, codebook_dim 512, n_q 8, bins 1024, with projections, in layout (B, D, T); codebooks
fitted to clustered vectors, some codewords dead, the threshold of 2 that replaces them; beside
ESPnet's class and vector-quantize-pytorch. Ours is measured as a torch module and as the NumPy
class.
"""

from __future__ import annotations

import sys

import numpy as np

from rvq_np.kernels import dispatch

from . import first, fitted, strided, turns
from .fitted import Shape
from .quantizers import ESPNET, IMPLEMENTATIONS, LUCID, OURS_NUMPY, OURS_TORCH, Calls
from .report import Answer, Check, Table, plural
from .setting import Setting
from .threads import fixed_threads

OURS = OURS_TORCH, OURS_NUMPY
AGREEMENT = 0.99  # of first codes: ESPnet's float32 may lose a near-tie
BATCHES = {250: (1, 250), 1000: (4, 250), 4000: (4, 1000)}  # vectors: items, length
TURNS = 4  # batches that training takes in turn
WORK = {"step": "training step", "forward": "eval forward", "encode": "encode", "decode": "decode"}
TARGETS = {
    ("step", 1000): 3, ("step", 4000): 3, ("forward", 1000): 4, ("forward", 4000): 4,
    ("encode", 1000): 4, ("encode", 4000): 4,
}  # fmt: skip
NOTE = (
    f"Fitted codebooks, one codeword of {fitted.DEAD} dead. Training step: in torch with the "
    "gradient of a sum of squares and the commitment, the NumPy class without; codewords below "
    "the threshold of 2 are replaced. vector-quantize-pytorch projects once around all stages, "
    "not in each: less work, and other codes. "
)


def made(shape: Shape, items: int, length: int) -> dict[str, Calls]:
    """Return every installed implementation, verified by its first codes."""
    rows = items * length
    state = fitted.state(shape, rows)
    batches = [fitted.batch(shape, items, length, seed) for seed in range(1, 1 + TURNS)]
    dispatch.load()
    found: dict[str, Calls] = {}
    expected = None
    for name, make in IMPLEMENTATIONS.items():
        try:
            found[name] = make(shape, batches, state)
        except ImportError as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        first_codes = found[name].codes()[0]
        expected = first_codes if expected is None else expected
        same = float((first_codes == expected).mean())
        if same < AGREEMENT:
            raise ValueError(f"{name}: only {same:.2%} of its first codes equal ours")
    return found


def _ask(
    setting: Setting, threads: int, shape: Shape, sizes: dict[int, tuple[int, int]],
    targets: dict[tuple[str, int], float], work: dict[str, str] = WORK,
) -> Answer:  # fmt: skip
    tables, checks = [], []
    with fixed_threads(threads):
        for rows, (items, length) in sizes.items():
            implementations = made(shape, items, length)
            for what, title in work.items():
                label = f"{shape.label}, N={rows}: {title}"
                calls = {name: call for name, each in implementations.items()
                         if (call := getattr(each, what)) is not None}  # fmt: skip
                seconds = turns.measured(calls, setting.rounds, f"{label}, {plural(threads)}")
                note = (NOTE + turns.BEFORE) if not tables else ""
                tables.append(turns.table(label, seconds, rows, threads, note))
                if (what, rows) in targets:
                    bound = targets[what, rows]
                    checks += turns.checks(label, seconds, threads, bound, OURS)
    return Answer(tables, checks)


def batches(setting: Setting, threads: int) -> Answer:
    """How fast are training, encoding and decoding at the defaults?"""
    sizes = {250: BATCHES[250]} if setting.quick else BATCHES
    return _ask(setting, threads, fitted.DEFAULTS, sizes, TARGETS)


def frame(setting: Setting, threads: int) -> Answer:
    """How long does one frame take at the defaults?"""
    work = {"encode": "encode", "decode": "decode", "forward": "eval forward"}
    return _ask(setting, threads, fitted.DEFAULTS, {1: (1, 1)}, {("encode", 1): 4}, work)


def plain(setting: Setting, threads: int) -> Answer:
    """How fast are they with codebook_dim=256, without projections?"""
    sizes = {250: BATCHES[250]} if setting.quick else {1000: BATCHES[1000]}
    return _ask(setting, threads, fitted.PLAIN, sizes, {("step", 1000): 4})


def soundstream(setting: Setting, threads: int) -> Answer:
    """How fast are they at the shape of a small SoundStream?"""
    targets = {("step", 4000): 2.0}
    return _ask(setting, threads, fitted.SOUNDSTREAM, {4000: BATCHES[4000]}, targets)


def dac(setting: Setting, threads: int) -> Answer:
    """How fast are they at DAC's shape, in training?"""
    return _ask(setting, threads, fitted.DAC, {400: (4, 100)}, {("step", 400): 3.0})


def first_call(setting: Setting, threads: int) -> Answer:
    """How long does the first training call take, which initializes codebooks by k-means?"""
    tables, checks = [], []
    for rows in (250,) if setting.quick else (1000, 4000):
        label = f"{fitted.DEFAULTS.label}, N={rows}: first training call"
        seconds = first.calls([ESPNET, LUCID, *OURS], rows, threads, 1 if setting.quick else 3)
        note = (
            f"K-means of {first.ITERATIONS} iterations, then a training step, as the call of a new "
            f"quantizer. One process each; {first.LIMIT} s means that the process was killed, and "
            "takes longer. " + turns.BEFORE
        )
        tables.append(turns.table(label, seconds, rows, threads, note))
        checks += turns.checks(label, seconds, threads, 1, OURS)
    return Answer(tables, checks)


def memory(setting: Setting, threads: int) -> Answer:
    """How much memory does a training step take in addition to its batch?"""
    lines, checks = [], []
    above = "≤ 64 MiB above the batch"
    for rows in (250,) if setting.quick else (1000, 4000):
        label = f"{fitted.DEFAULTS.label}, N={rows}: memory of a training step"
        for name in (*OURS, ESPNET):
            print(f"{label}, {name}, {plural(threads)}", file=sys.stderr, flush=True)
            taken = first.memory(name, rows, threads)
            if np.isnan(taken):
                continue
            shown = f"{taken / 2**20:.1f} MiB"
            lines.append((name, str(rows), shown))
            if name in OURS:
                work = f"{label}, {name.removeprefix('rvq_np, ')}"
                checks.append(Check(work, above, threads, taken, 64 << 20, False, shown))
    note = "After a first step, which prepared the tables. One process each; see first.py."
    header = ("", "vectors", "above the batch")
    title = f"Memory of a training step at the defaults; {plural(threads)}"
    return Answer([Table(title, note, header, lines)], checks)


def snac(setting: Setting, threads: int) -> Answer:
    """How fast are they at SNAC's shape, with strides 4, 2 and 1?"""
    length = strided.LENGTH
    label = f"{fitted.SNAC.label}, strides {strided.STRIDES}, N={length}: training step"
    dispatch.load()
    with fixed_threads(threads):
        calls = strided.steps()
        seconds = turns.measured(calls, setting.rounds, f"{label}, {plural(threads)}")
    note = (
        "Neither class has strides: stages of one codebook each, with the mean of frames before "
        "and repeated frames after, as snac does it. torch only."
    )
    return Answer([turns.table(label, seconds, length, threads, note)])
