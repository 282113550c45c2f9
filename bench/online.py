"""What do codebooks trained on small batches reach by default, in the class and in the shims?

    python -m bench.online --embeddings table.safetensors   # replaces its section of the report

Speech: MDCT of the clips of the demo from eight starting points, 64 dimensions, 4 stages of 1024,
150 steps of 200 vectors.
Embeddings: rows of a table (N, D), made of unit norm, 3 stages of 256, four epochs in batches of
256.  Both are measured on the vectors that were trained on, and on others.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import demo
from rvq_np.demo import mdct

from .machine import ROOT, Neighbours, facts
from .report import Table, section
from .threads import fixed_threads

HEADING = "# Training on small batches"
RATE = 50
Trained = Callable[[dict[str, Any], np.ndarray, list[np.ndarray], int], Any]


class Task(NamedTuple):
    """What to train on, and how."""

    name: str
    shape: tuple[int, int]  # stages and codewords
    x: np.ndarray
    held_out: np.ndarray
    batches: list[np.ndarray]  # row numbers of each step
    targets: str


def speech(steps: int) -> Task:
    """Return the task of speech."""
    rng = np.random.default_rng(0)
    parts = []
    for kind, offsets in (
        ("train", range(0, demo.DIM, demo.DIM // demo.OFFSETS)),
        ("heldout", [0]),
    ):
        clips = [
            mdct.forward(each.samples, demo.DIM, offset)
            for each in demo.shipped_clips(kind)
            for offset in offsets
        ]
        parts.append(np.concatenate(clips).astype(np.float32))
    batches = [rng.choice(len(parts[0]), 200, replace=False) for _ in range(steps)]
    return Task("speech", (4, 1024), parts[0], parts[1], batches, "SNR ≥ 11.5 dB")


def embeddings(table: np.ndarray, epochs: int) -> Task:
    """Return the task of embeddings: a fifth of the rows, at most 6,000, is held out."""
    rng = np.random.default_rng(0)
    rows = table[rng.permutation(len(table))[:32_000]].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first = min(6_000, len(rows) // 5)
    held_out, x = rows[:first], rows[first:]
    batches = []
    for _ in range(epochs):
        order = rng.permutation(len(x))
        batches += [order[at : at + 256] for at in range(0, len(x), 256)]
    return Task(
        "embeddings", (3, 256), x, held_out, batches, "relative error ≤ 0.77, unique IDs ≥ 78 %"
    )


def in_class(arguments: dict[str, Any], x: np.ndarray, batches: list, seed: int) -> Any:
    """Train the class."""
    rvq = rvq_np.ResidualVectorQuantizer(**arguments, rng=seed)
    for rows in batches:
        rvq(x[rows], RATE)
    return rvq


def in_torch(arguments: dict[str, Any], x: np.ndarray, batches: list, seed: int) -> Any:
    """Train the module of torch."""
    import torch

    from rvq_np.grad.torch import ResidualVectorQuantizer

    torch.manual_seed(seed)
    module = ResidualVectorQuantizer(**arguments)
    for rows in batches:
        module(torch.from_numpy(x[rows]), RATE)
    return module.to_numpy()


def in_jax(arguments: dict[str, Any], x: np.ndarray, batches: list, seed: int) -> Any:
    """Train the functions of JAX, compiled."""
    import jax

    from rvq_np.grad.jax import ResidualVectorQuantizer

    rvq = ResidualVectorQuantizer(**arguments)
    parameters, state = rvq.init(jax.random.key(1000 + seed))

    @jax.jit
    def step(state: Any, batch: Any, key: Any) -> Any:
        return rvq.apply(parameters, state, batch, RATE, train=True, key=key)[1]

    keys = jax.random.split(jax.random.key(seed), len(batches))
    for number, rows in enumerate(batches):
        state = step(state, jax.numpy.asarray(x[rows]), keys[number])
    return rvq.to_numpy(parameters, state)


def offline(arguments: dict[str, Any], x: np.ndarray, batches: list, seed: int) -> Any:
    """Fit the class to all vectors at once: what training on batches can reach at best."""
    return rvq_np.ResidualVectorQuantizer(**arguments, rng=seed).fit(x)


WAYS: dict[str, tuple[Trained, dict[str, Any]]] = {
    "class, default": (in_class, {}),
    "torch, default": (in_torch, {}),
    "JAX, default": (in_jax, {}),
    "class, ESPnet's threshold of 2": (in_class, {"threshold_ema_dead_code": 2}),
    "class, threshold 0": (in_class, {"threshold_ema_dead_code": 0}),
    "fit of all vectors at once": (offline, {}),
}


class Measured(NamedTuple):
    """What some vectors become."""

    error: float  # squared, as a share of their energy
    distinct: float  # share of codes that differ
    used: float  # share of the codewords they choose


def measured(rvq: Any, x: np.ndarray) -> Measured:
    """Encode and decode."""
    codes = rvq.eval().encode(x, RATE)
    left = np.square(x - rvq.decode(codes), dtype=np.float64).sum()
    distinct = len(np.unique(codes.T, axis=0)) / len(x)
    used = np.mean([len(np.unique(row)) / rvq.bins for row in codes])
    return Measured(float(left / np.square(x, dtype=np.float64).sum()), distinct, float(used))


def table(task: Task, chosen: list[str], seeds: int) -> Table:
    """Train in each way that was chosen, from each seed, and return the table of medians."""
    rows: list[tuple[str, ...]] = []
    defaults: list[list[Measured]] = [[], []]
    for name in chosen:
        way, options = WAYS[name]
        stages, size = task.shape
        dim = task.x.shape[1]
        arguments = {"dimension": dim, "codebook_dim": dim, "n_q": stages, "bins": size, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rvq_np.UnstableTrainingWarning)
            made = [way(arguments, task.x, task.batches, seed) for seed in range(seeds)]
        found = [[measured(rvq, x) for rvq in made] for x in (task.x, task.held_out)]
        rows.append(_row(name, task, found))
        if name.endswith(", default"):
            defaults = [[*before, *more] for before, more in zip(defaults, found, strict=True)]
        print(task.name, *rows[-1], sep="  ", file=sys.stderr, flush=True)
    if len(defaults[0]) > seeds:
        rows.append(_row("all defaults above", task, defaults))
    columns = ["SNR"] if task.name == "speech" else ["relative error", "unique IDs"]
    header = ["", *columns, *(f"{one}, held out" for one in columns), "codewords in use"]
    note = (
        f"{len(task.x):,} vectors of {task.x.shape[1]}, {len(task.held_out):,} others held out; "
        f"{task.shape[0]} stages of {task.shape[1]}; {len(task.batches)} steps of "
        f"{len(task.batches[0])} vectors. Medians of seeds 0 to {seeds - 1}, and in brackets the "
        f"smallest and the largest. Target, on the first: {task.targets}."
    )
    return Table(f"{HEADING[2:]}: {task.name}", note, tuple(header), rows)


def _row(name: str, task: Task, found: list[list[Measured]]) -> tuple[str, ...]:
    """Return the row of a table: what several quantizers made of vectors, and of others."""
    cells = [name]
    for each in found:
        errors, distinct, _ = (np.array(column) for column in zip(*each, strict=True))
        if task.name == "speech":
            cells.append(_spread(-10 * np.log10(errors), "{:.1f}", " dB"))
        else:
            cells += [_spread(errors, "{:.3f}"), _spread(100 * distinct, "{:.1f}", " %")]
    return (*cells, f"{100 * np.median([each.used for each in found[0]]):.0f} %")


def _spread(values: np.ndarray, shape: str, unit: str = "") -> str:
    """Return the median, and the smallest and the largest if there are several."""
    middle, least, most = (shape.format(f(values)) for f in (np.median, np.min, np.max))
    return f"{middle}{unit}" + (f" ({least} to {most})" if len(values) > 1 else "")


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the section of the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.online", description=__doc__)
    parser.add_argument("--embeddings", help="a .npy, or a .safetensors with one array")
    parser.add_argument("--steps", type=int, default=150, help="steps of speech")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of embeddings")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=7, help="seeds of embeddings")
    parser.add_argument("--speech-seeds", type=int, default=3, help="seeds of speech; 0: no speech")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output", default=str(ROOT / "bench" / "RESULTS-quality.md"))
    chosen = parser.parse_args(arguments)
    around = Neighbours()
    tasks = [(speech(chosen.steps), chosen.speech_seeds)] if chosen.speech_seeds else []
    if chosen.embeddings:
        tasks.append((embeddings(rows_of(chosen.embeddings), chosen.epochs), chosen.seeds))
    with fixed_threads(chosen.threads):
        tables = [table(task, chosen.only, seeds) for task, seeds in tasks]
    given = sys.argv[1:] if arguments is None else arguments
    command = "python -m bench.online " + " ".join(
        Path(each).name if "/" in each else each for each in given
    )
    made = "\n".join([*map(str, tables), facts(command, around.cores())])
    section(Path(chosen.output), HEADING, made)


def rows_of(path: str) -> np.ndarray:
    """Return the rows of a file of embeddings."""
    if path.endswith(".npy"):
        return np.load(path)
    from safetensors.numpy import load_file

    (found,) = load_file(path).values()
    return np.asarray(found)


if __name__ == "__main__":
    main()
