"""A process that answers questions, or runs the small shapes for compute-sanitizer to watch."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from importlib import import_module
from typing import Any

import numpy as np

from .desk import Desk, Row, line
from .questions import QUESTIONS

MARK = "@row "  # before what the parent is to read: libraries write to the same place
BROKEN = 3  # exit code: the card serves this process no longer


def write(row: Row) -> None:
    print(MARK + json.dumps(row), flush=True)


def answer(names: list[str], until: float, xp: Any, dry: bool) -> int:
    """Answer questions in turn, for as long as there is time and a card."""
    for name in names:
        question = QUESTIONS[name]
        if until - time.time() < question.needs and not dry:
            write({"kind": "skip", "question": name})
            continue
        write({"kind": "begin", "question": name})
        begun = time.time()
        desk = Desk(xp, dry, min(until, begun + question.limit), write)
        try:
            module, function = question.at.split(":")
            getattr(import_module(f"{__package__}.{module}"), function)(desk)
        except Exception as error:
            if question.right:
                desk.check(name, False, line(error), traceback.format_exc())
            else:
                desk.trouble(name, line(error), traceback.format_exc())
        try:
            xp.cuda.Device().synchronize()
        except Exception as error:  # for good, in this process
            if question.right:
                desk.check("the card still works", False, line(error))
            else:
                desk.trouble(name, line(error))
            write({"kind": "end", "question": name, "seconds": time.time() - begun})
            return BROKEN
        write({"kind": "end", "question": name, "seconds": time.time() - begun})
    return 0


def small(xp: Any, dry: bool) -> int:
    """Run every kernel on small shapes, by every shape of a block; return 1 if codes differ."""
    import rvq_np

    from .codes import Case, drawn, forced

    if not dry:
        # Arrays of their own: what lies beside an array in a pool would hide a wrong address.
        xp.cuda.set_allocator(None)
    launch = import_module("rvq_np.backends._cuda_launch")
    cases = [Case(20, 70, 2, 67), Case(7, 33, 2, 40, "float64"), Case(24, 9, 2, 33, kind="whole")]
    cases += [] if dry else [Case(64, 140, 2, 130), Case(130, 300, 2, 300), Case(6000, 5, 2, 3)]
    wrong = 0
    for shape in launch.SHAPES[:1] if dry else launch.SHAPES:
        with forced(shape):
            for case in cases:
                x, books = drawn(case)
                stages = rvq_np.Codebooks(books)
                expected = rvq_np.encode(x, stages)
                found = rvq_np.encode(xp.asarray(x), stages).get()
                wrong += int((found != expected).sum())
    for case in cases:
        x, books = drawn(case)
        stages, there = rvq_np.Codebooks(books), xp.asarray(x)
        codes = rvq_np.encode(there, stages, beam_size=3)
        wrong += int((codes.get() != rvq_np.encode(x, stages, beam_size=3)).sum())
        vectors = rvq_np.decode(codes, stages).get()
        wrong += not np.array_equal(vectors, rvq_np.decode(codes.get(), stages))
        sums = rvq_np.codec.tally(there, codes, stages)[1]
        wanted = rvq_np.codec.tally(x, codes.get(), stages)[1]
        wrong += not all(map(np.array_equal, sums, wanted))
    print("codes, vectors and sums are NumPy's" if not wrong else f"{wrong} numbers differ")
    return int(wrong > 0)


def run(kind: str, names: list[str], until: float, dry: bool) -> int:
    """Be the process that the parent asked for."""
    with contextlib.ExitStack() as held:
        if dry:
            from .stub import standing_in

            xp = held.enter_context(standing_in())
        else:
            xp = import_module("cupy")
        from rvq_np.kernels import host

        if kind == "answer" and any(QUESTIONS[name].right for name in names) and not dry:
            host.load()  # the references of NumPy are large
        sys.stdout.flush()
        return small(xp, dry) if kind == "small" else answer(names, until, xp, dry)
