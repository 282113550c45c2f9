"""A process that runs benchmarks, or the small shapes under compute-sanitizer."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from importlib import import_module
from typing import Any

import numpy as np

from .context import Context, Row, line
from .questions import QUESTIONS

MARK = "@row "  # before rows for the parent: libraries print to the same stream
BROKEN = 3  # exit code: this process can no longer use the GPU


def write(row: Row) -> None:
    print(MARK + json.dumps(row), flush=True)


def answer(names: list[str], until: float, xp: Any, dry: bool) -> int:
    """Run benchmarks in order, while there is time and the GPU works."""
    for name in names:
        question = QUESTIONS[name]
        if until - time.time() < question.needs and not dry:
            write({"kind": "skip", "question": name})
            continue
        write({"kind": "begin", "question": name})
        begun = time.time()
        context = Context(xp, dry, min(until, begun + question.limit), write)
        try:
            module, function = question.at.split(":")
            getattr(import_module(f"{__package__}.{module}"), function)(context)
        except Exception as error:
            if question.right:
                context.check(name, False, line(error), traceback.format_exc())
            else:
                context.trouble(name, line(error), traceback.format_exc())
        try:
            xp.cuda.Device().synchronize()
        except Exception as error:  # permanent in this process
            if question.right:
                context.check("the GPU still works", False, line(error))
            else:
                context.trouble(name, line(error))
            write({"kind": "end", "question": name, "seconds": time.time() - begun})
            return BROKEN
        write({"kind": "end", "question": name, "seconds": time.time() - begun})
    return 0


def small(xp: Any, dry: bool) -> int:
    """Run every kernel on small shapes, with every shape of a block; return 1 if codes differ."""
    import rvq_np

    from .codes import Case, drawn, forced

    if not dry:
        # Without a memory pool, which would hide accesses beyond an array.
        xp.cuda.set_allocator(None)
    launch = import_module("rvq_np.kernels.cuda.launch")
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
        expected = rvq_np.codec.tally(x, codes.get(), stages)[1]
        wrong += not all(map(np.array_equal, sums, expected))
    print("codes, vectors and sums are NumPy's" if not wrong else f"{wrong} numbers differ")
    return int(wrong > 0)


def run(kind: str, names: list[str], until: float, dry: bool) -> int:
    """Run as the child process that the parent requested."""
    with contextlib.ExitStack() as held:
        if dry:
            from .stub import standing_in

            xp = held.enter_context(standing_in())
        else:
            xp = import_module("cupy")
        from rvq_np.kernels import dispatch

        if kind == "answer" and any(QUESTIONS[name].right for name in names) and not dry:
            dispatch.load()  # the references are computed on large arrays
        sys.stdout.flush()
        return small(xp, dry) if kind == "small" else answer(names, until, xp, dry)
