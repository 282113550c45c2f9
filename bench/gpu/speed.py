"""How fast encoding, decoding and one frame are, beside the contestants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import rvq_np

from ..problems import BATCH, Problem
from . import contestants
from .clock import in_turns, waits
from .contestants import CONTESTANTS, KERNELS, OURS, prepared_for, tensor
from .desk import Desk

HEADLINE = BATCH._replace(rows=1 << 18)
SHORT = HEADLINE._replace(dim=8, rows=1 << 18)
LONG = HEADLINE._replace(dim=512, rows=1 << 16)
DRY = Problem(dim=8, words=20, stages=2, rows=40)
TILE = 1 << 16  # rows that are drawn; more are repeats of them, which no kernel can notice
FITS = 128 << 20  # bytes of which a cache holds half at most
ROWS = tuple(1 << power for power in (10, 12, 14, 16, 18, 20, 22))

SHORTER = (OURS, KERNELS, contestants.EAGER, contestants.CUBLAS, contestants.COMPILED)


def ask_encode(desk: Desk) -> None:
    """The headline: EnCodec's shape, every contestant."""
    compete(desk, desk.size(HEADLINE, DRY), CONTESTANTS)


def ask_dims(desk: Desk) -> None:
    """Words of 8 numbers, as DAC's, and of 512."""
    for problem in desk.size((SHORT, LONG), (DRY._replace(dim=3), DRY._replace(dim=40))):
        compete(desk, problem, SHORTER)


def ask_growth(desk: Desk) -> None:
    """From 2^10 rows to 2^22; what takes long to compile last, the ends first."""
    rows = desk.size(ROWS, (5, 40))
    ends = [rows[0], rows[-1], *rows[1:-1]]
    for count in ends:
        if desk.left > 8.0:
            compete(desk, desk.size(HEADLINE, DRY)._replace(rows=count), SHORTER[:-1])
    for count in ends:
        if desk.left > 30.0 or desk.dry:
            problem = desk.size(HEADLINE, DRY)._replace(rows=count)
            compete(desk, problem, (contestants.COMPILED,))


def compete(desk: Desk, problem: Problem, names: Iterable[str]) -> None:
    """Time everybody on one problem; codes are compared with ours before."""
    x, books = data(desk, problem)
    own = contestants.kernels(books, desk)
    reference = own.get(own.run(x))
    calls = {}
    for name in names:
        if desk.left < 4.0:
            desk.note(f"{problem.label}: no time left for {name}.")
            continue
        with desk.fence(name, problem.label):
            each = CONTESTANTS[name](books, desk)
            codes = each.get(each.run(each.put(x)))
            same = [float((codes[:n] == reference[:n]).mean()) for n in (1, problem.stages)]
            if same[0] < 0.99 and name != contestants.EAGER_TF32:
                raise ValueError(f"only {same[0]:.2%} of the first codes are ours; wanted 99 %")
            ready = [each.put(part) for part in rotated(desk, x)]
            calls[name] = [lambda run=each.run, part=part: run(part) for part in ready], same
    found = in_turns(desk, {name: each for name, (each, _) in calls.items()}, problem.label)
    for name, seconds in found.items():
        desk.figure(
            problem.label, name, seconds, flops=problem.flops, vectors=problem.rows,
            first=calls[name][1][0], all=calls[name][1][1],
        )  # fmt: skip
    calls.clear()
    desk.free()


def data(desk: Desk, problem: Problem) -> tuple[Any, np.ndarray]:
    """Return vectors on the card and codebooks of the host."""
    drawn, books = problem._replace(rows=min(problem.rows, TILE)).data()
    x = desk.xp.asarray(drawn)
    if problem.rows > TILE:
        x = desk.xp.concatenate([x] * (problem.rows // TILE))
    return x, books


def rotated(desk: Desk, x: Any) -> list[Any]:
    """Return `x` and copies of it, together more than a cache holds."""
    count = max(1, min(256, -(-FITS // x.nbytes)))
    return [x, *(x.copy() for _ in range(desk.size(count, 2) - 1))]


def ask_decode(desk: Desk) -> None:
    """Codes to vectors: what is written and read, beside the copy of `ceilings`.

    By one stage, which memory bounds, and by all, which the second-level cache does.
    """
    problem = desk.size(HEADLINE._replace(rows=1 << 20), DRY)
    for count in (1, problem.stages):
        if desk.left > 5.0 or count == 1:
            _decode(desk, problem._replace(stages=count))
    desk.note(
        "Codewords are gathered, one for each code, out of a table that the second-level cache "
        "holds: those bytes never reach the memory of the GPU and are counted apart. Where they "
        "exceed several times what is written, the cache and not the memory bounds decoding."
    )


def _decode(desk: Desk, problem: Problem) -> None:
    _, books = problem._replace(rows=1).data()
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, problem.words, (problem.stages, problem.rows), np.int32)
    codes = desk.xp.asarray(drawn)
    stages = rvq_np.Codebooks(books)
    backend, prepared = prepared_for(stages, desk)
    calls = {
        OURS: [lambda: rvq_np.decode(codes, stages)],
        KERNELS: [lambda: backend.decode(codes, prepared)],
    }
    with desk.fence(contestants.EAGER, problem.label):
        import torch

        theirs, words = tensor(codes, desk), tensor(books, desk)

        def eager():
            with torch.inference_mode():
                out = torch.nn.functional.embedding(theirs[0], words[0])
                for code, each in zip(theirs[1:], words[1:], strict=True):
                    out = out + torch.nn.functional.embedding(code, each)
                return out

        expected = rvq_np.decode(drawn[:, :100], stages)
        if not np.array_equal(eager()[:100].cpu().numpy(), expected):
            raise ValueError("vectors differ from ours")
        calls[contestants.EAGER] = [eager]
    written = problem.rows * problem.dim * 4
    for name, seconds in in_turns(desk, calls, problem.label).items():
        desk.figure(
            problem.label, name, seconds, vectors=problem.rows, written=written,
            bytes=written + codes.nbytes, gathered=problem.stages * written,
        )  # fmt: skip
    desk.free()


def ask_frame(desk: Desk) -> None:
    """One vector: how long a caller waits for its codes to be on the card."""
    problem = desk.size(HEADLINE, DRY)._replace(rows=1)
    x, books = data(desk, problem)
    calls = {}
    for name in SHORTER:
        with desk.fence(name, problem.label):
            each = CONTESTANTS[name](books, desk)
            given = each.put(x)
            each.run(given)
            calls[name] = lambda run=each.run, given=given: run(given)
    device = in_turns(desk, {name: [call] for name, call in calls.items()}, problem.label)
    for name, call in calls.items():
        with desk.fence(name, problem.label):
            median, late = waits(desk.xp, call, desk.size(1000, 3))
            desk.figure(problem.label, name, median, late=late, device=device.get(name))
    desk.note(
        "A wait is the time from the call until the card is done, by the host's clock. `Queued` is "
        "the mean over calls that follow one another without a wait, by the card's clock."
    )
