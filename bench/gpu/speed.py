"""The speed of encoding, decoding and one frame, of all implementations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import rvq_np

from ..problems import BATCH, Problem
from . import implementations
from .clock import in_turns, waits
from .context import Context
from .implementations import IMPLEMENTATIONS, KERNELS, OURS, prepared_for, tensor

HEADLINE = BATCH._replace(rows=1 << 18)
SHORT = HEADLINE._replace(dim=8, rows=1 << 18)
LONG = HEADLINE._replace(dim=512, rows=1 << 16)
DRY = Problem(dim=8, size=20, stages=2, rows=40)
TILE = 1 << 16  # rows drawn; more are copies of them, which makes no difference to kernels
FITS = 128 << 20  # bytes, at least twice the size of a cache
ROWS = tuple(1 << power for power in (10, 12, 14, 16, 18, 20, 22))

SHORTER = (OURS, KERNELS, implementations.EAGER, implementations.CUBLAS, implementations.COMPILED)


def ask_encode(context: Context) -> None:
    """The main benchmark: EnCodec's shape, every implementation."""
    compete(context, context.size(HEADLINE, DRY), IMPLEMENTATIONS)


def ask_dims(context: Context) -> None:
    """Codewords of dimension 8, as DAC's, and of 512."""
    for problem in context.size((SHORT, LONG), (DRY._replace(dim=3), DRY._replace(dim=40))):
        compete(context, problem, SHORTER)


def ask_growth(context: Context) -> None:
    """From 2^10 rows to 2^22; both ends first, and torch.compile last."""
    rows = context.size(ROWS, (5, 40))
    ends = [rows[0], rows[-1], *rows[1:-1]]
    for count in ends:
        if context.left > 8.0:
            compete(context, context.size(HEADLINE, DRY)._replace(rows=count), SHORTER[:-1])
    for count in ends:
        if context.left > 30.0 or context.dry:
            problem = context.size(HEADLINE, DRY)._replace(rows=count)
            compete(context, problem, (implementations.COMPILED,))


def compete(context: Context, problem: Problem, names: Iterable[str]) -> None:
    """Measure all implementations on one problem, after comparing their codes with ours."""
    x, books = data(context, problem)
    own = implementations.kernels(books, context)
    reference = own.get(own.run(x))
    calls = {}
    for name in names:
        if context.left < 4.0:
            context.note(f"{problem.label}: no time left for {name}.")
            continue
        with context.fence(name, problem.label):
            each = IMPLEMENTATIONS[name](books, context)
            codes = each.get(each.run(each.put(x)))
            same = [float((codes[:n] == reference[:n]).mean()) for n in (1, problem.stages)]
            if same[0] < 0.99 and name != implementations.EAGER_TF32:
                raise ValueError(f"only {same[0]:.2%} of the first codes equal ours; expected 99 %")
            ready = [each.put(part) for part in rotated(context, x)]
            calls[name] = [lambda run=each.run, part=part: run(part) for part in ready], same
    found = in_turns(context, {name: each for name, (each, _) in calls.items()}, problem.label)
    for name, seconds in found.items():
        context.figure(
            problem.label, name, seconds, flops=problem.flops, vectors=problem.rows,
            first=calls[name][1][0], all=calls[name][1][1],
        )  # fmt: skip
    calls.clear()
    context.free()


def data(context: Context, problem: Problem) -> tuple[Any, np.ndarray]:
    """Return vectors on the GPU and codebooks of the host."""
    drawn, books = problem._replace(rows=min(problem.rows, TILE)).data()
    x = context.xp.asarray(drawn)
    if problem.rows > TILE:
        x = context.xp.concatenate([x] * (problem.rows // TILE))
    return x, books


def rotated(context: Context, x: Any) -> list[Any]:
    """Return `x` and copies of it, together larger than a cache."""
    count = max(1, min(256, -(-FITS // x.nbytes)))
    return [x, *(x.copy() for _ in range(context.size(count, 2) - 1))]


def ask_decode(context: Context) -> None:
    """Decoding: bytes written and read, compared with the copy of `ceilings`.

    With one stage, which memory bounds, and with all, which the L2 cache bounds.
    """
    problem = context.size(HEADLINE._replace(rows=1 << 20), DRY)
    for count in (1, problem.stages):
        if context.left > 5.0 or count == 1:
            _decode(context, problem._replace(stages=count))
    context.note(
        "Codewords are gathered, one per code, from a table in the L2 cache: these bytes do not "
        "reach the memory of the GPU and are counted separately. Where they are several times the "
        "bytes written, decoding is bound by the cache, not by memory."
    )


def _decode(context: Context, problem: Problem) -> None:
    _, books = problem._replace(rows=1).data()
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, problem.size, (problem.stages, problem.rows), np.int32)
    codes = context.xp.asarray(drawn)
    stages = rvq_np.Codebooks(books)
    backend, prepared = prepared_for(stages, context)
    calls = {
        OURS: [lambda: rvq_np.decode(codes, stages)],
        KERNELS: [lambda: backend.decode(codes, prepared)],
    }
    with context.fence(implementations.EAGER, problem.label):
        import torch

        theirs, tables = tensor(codes, context), tensor(books, context)

        def eager():
            with torch.inference_mode():
                out = torch.nn.functional.embedding(theirs[0], tables[0])
                for code, each in zip(theirs[1:], tables[1:], strict=True):
                    out = out + torch.nn.functional.embedding(code, each)
                return out

        expected = rvq_np.decode(drawn[:, :100], stages)
        if not np.array_equal(eager()[:100].cpu().numpy(), expected):
            raise ValueError("vectors differ from ours")
        calls[implementations.EAGER] = [eager]
    written = problem.rows * problem.dim * 4
    for name, seconds in in_turns(context, calls, problem.label).items():
        context.figure(
            problem.label, name, seconds, vectors=problem.rows, written=written,
            bytes=written + codes.nbytes, gathered=problem.stages * written,
        )  # fmt: skip
    context.free()


def ask_frame(context: Context) -> None:
    """One vector: the time until its codes are on the GPU."""
    problem = context.size(HEADLINE, DRY)._replace(rows=1)
    x, books = data(context, problem)
    calls = {}
    for name in SHORTER:
        with context.fence(name, problem.label):
            each = IMPLEMENTATIONS[name](books, context)
            given = each.put(x)
            each.run(given)
            calls[name] = lambda run=each.run, given=given: run(given)
    device = in_turns(context, {name: [call] for name, call in calls.items()}, problem.label)
    for name, call in calls.items():
        with context.fence(name, problem.label):
            median, late = waits(context.xp, call, context.size(1000, 3))
            context.figure(problem.label, name, median, late=late, device=device.get(name))
    context.note(
        "Wait: from the call until the GPU has finished, by the clock of the host. Queued: the "
        "mean over consecutive calls without a wait, by the clock of the GPU."
    )
