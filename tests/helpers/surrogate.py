"""What is differentiated, written from its formulas in float64, sharing nothing with the package.

The codes, and every value behind a stop-gradient, are frozen at a point; the rest is a function
of the vectors and of the arrays of a quantizer, so that differences of it are the gradient.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Point:
    """Where the surrogate was frozen: everything float64, rows (N, D), codes (n_q, N)."""

    rows: np.ndarray
    entries: dict
    codes: np.ndarray
    stages: np.ndarray  # (N,) that make up each row, 0 for padding
    weight: float
    trained: bool
    estimator: str = "straight-through"

    @property
    def projects(self):
        return "vq.layers.0.project_in.weight" in self.entries


def linear(rows, entries, name):
    return rows @ entries[f"{name}.weight"].T + entries[f"{name}.bias"]


def chosen(point, entries, stage):
    return entries[f"vq.layers.{stage}._codebook.embed"][point.codes[stage]]


def added(point, entries, stage, codewords):
    return (
        linear(codewords, entries, f"vq.layers.{stage}.project_out")
        if point.projects
        else codewords
    )


def turned(x, value):
    """Return the matrix (D, D) that turns x into the direction of value, times the stretch."""
    u, v = x / np.linalg.norm(x), value / np.linalg.norm(value)
    turn = np.outer(v, u) - np.outer(u, v)
    rotation = np.eye(len(u)) + turn + turn @ turn / (1 + u @ v)
    return rotation * np.linalg.norm(value) / np.linalg.norm(x)


def outputs(point, rows, entries):
    """Return (quantized (N, D), penalty, quantization_loss) for moved rows and arrays."""
    n_q = len(point.codes)
    active = [(point.stages > stage)[:, None] for stage in range(n_q)]
    frozen = [
        added(point, point.entries, stage, chosen(point, point.entries, stage))
        for stage in range(n_q)
    ]
    value = sum(np.where(on, out, 0) for on, out in zip(active, frozen, strict=True))
    moved = rows - point.rows
    if point.estimator == "rotation":
        matrices = [
            turned(x, y) if x.any() and y.any() else np.eye(len(x))
            for x, y in zip(point.rows, value, strict=True)
        ]
        moved = np.einsum("nij,nj->ni", np.array(matrices), moved)
    quantized = np.where((point.stages > 0)[:, None], moved, 0)
    commitment, quantization = [], []
    past = np.zeros_like(point.rows)
    for stage in range(n_q):
        codewords = chosen(point, point.entries, stage)
        left, left_then = rows - past, point.rows - past
        near = codewords
        if point.projects:
            name = f"vq.layers.{stage}.project_in"
            near = (
                codewords
                + linear(left_then, entries, name)
                - linear(left_then, point.entries, name)
            )
        out = added(point, entries, stage, near)
        quantized = quantized + np.where(active[stage], out, 0)
        searched, searched_then = left, left_then
        if point.projects:
            searched = linear(left, entries, name)
            searched_then = linear(left_then, point.entries, name)
        on = active[stage][:, 0]
        if on.any() and point.trained:
            commitment.append(np.mean((searched - codewords)[on] ** 2))
            pulled = chosen(point, entries, stage) - searched_then
            quantization.append(np.mean(pulled[on] ** 2))
        past = past + frozen[stage]
    mean = lambda losses: np.mean(losses) if losses else 0.0  # noqa: E731
    return quantized, point.weight * mean(commitment), mean(quantization)


def slope(point, towards, direction, name=None, step=1e-5):
    """Return the derivative of ``towards(outputs)`` along a direction of the rows or an array."""

    def moved(share):
        if name is None:
            return towards(*outputs(point, point.rows + share * direction, point.entries))
        entries = {**point.entries, name: point.entries[name] + share * direction}
        return towards(*outputs(point, point.rows, entries))

    return (moved(step) - moved(-step)) / (2 * step)
