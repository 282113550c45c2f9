"""The runs as figures: what is printed, kept in results.json and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import data
import network
import numpy as np
from comparison import AGAIN, JAX, TORCH
from training import SEED, Run

PACKAGES = ("numpy", "numba", "torch", "jax")
Results = dict[str, Any]
Curve = Sequence[tuple[int, float]]  # steps, error


def results(runs: Mapping[str, Run], differences: Sequence[float], every: int) -> Results:
    """Return what results.json holds; errors are mean squares, training speech has power one.

    ``held_out`` and ``training`` are [steps, error]; the latter the mean since the one before.
    `differences` are those of `comparison.without_draws`.
    """
    return {
        "date": date.today().isoformat(),
        "versions": {name: version(name).partition("+")[0] for name in PACKAGES},
        "seed": SEED,
        "without draws": _rounded(differences),
        "runs": {name: _figures(run, every) for name, run in runs.items()},
    }


def _figures(run: Run, every: int) -> Results:
    held_out = network.measure(run.weights, run.rvq, data.held_out())
    training = network.measure(run.weights, run.rvq, data.training())
    places = [*range(0, len(run.errors), every), len(run.errors)]
    means = [[end, float(np.mean(run.errors[begin:end]))] for begin, end in pairwise(places)]
    return _rounded(
        {
            "steps": len(run.errors),
            "seconds": run.seconds,
            "held-out error": held_out.error,
            "held-out SNR": held_out.snr,
            "utilisation": training.utilisation,
            "perplexity": training.perplexity,
            "training": means,
            "held_out": run.held_out,
        }
    )


def _rounded(figure: Any) -> Any:
    """Return floats with six digits: no more of them mean anything."""
    if isinstance(figure, dict):
        return {name: _rounded(each) for name, each in figure.items()}
    if isinstance(figure, list | tuple):
        return [_rounded(each) for each in figure]
    return float(f"{figure:.6g}") if isinstance(figure, float) else figure


def apart(one: Curve, other: Curve) -> tuple[float, float]:
    """Return the mean and the largest difference of two curves, as ratios less one."""
    ratios = []
    for (steps, error), (same, beside) in zip(one, other, strict=True):
        if steps != same:
            raise ValueError(f"apart: the curves are reported at steps {steps} and {same}.")
        ratios.append(math.expm1(abs(math.log(error / beside))))
    return sum(ratios) / len(ratios), max(ratios)


def table(results: Results) -> str:
    """Return what the runs came to as a table in Markdown."""
    stages = ", ".join(str(n) for n in range(1, network.STAGES + 1))
    lines = [
        f"| run | held-out error | SNR in dB with {stages} stages | codewords used | perplexity |",
        "|---|---|---|---|---|",
    ]
    for name, run in results["runs"].items():
        error = f"{run['held-out error'][-1]:.3f}"
        snr = ", ".join(f"{each:.1f}" for each in run["held-out SNR"])
        used = ", ".join(f"{each:.0%}" for each in run["utilisation"])
        perplexity = ", ".join(f"{each:.0f}" for each in run["perplexity"])
        lines.append(f"| {name} | {error} | {snr} | {used} | {perplexity} |")
    return "\n".join(lines)


def agreement(results: Results) -> str:
    """Return how far runs are apart as a table in Markdown."""
    lines = ["| curves | training: mean, largest | held out: mean, largest |", "|---|---|---|"]
    runs = results["runs"]
    for other in (JAX, AGAIN):
        cells = []
        for curve in ("training", "held_out"):
            mean, largest = apart(runs[TORCH][curve], runs[other][curve])
            cells.append(f"{mean:.1%}, {largest:.1%}")
        lines.append(f"| {TORCH} and {other} | {' | '.join(cells)} |")
    return "\n".join(lines)
