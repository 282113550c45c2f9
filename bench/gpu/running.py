"""The processes of a run: a worker that answers, pytest on the kit, compute-sanitizer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .desk import Row
from .questions import QUESTIONS
from .stub import ROOT
from .worker import MARK

SHAPES = ("", "8x1", "4x2", "2x4", "1x8", "1x4", "1x1")  # of the kit; empty: the library's choice
EXAMPLES = 25
TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit code of compute-sanitizer where it found something
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RVQ_NP_NUM_THREADS": "1"}


STARTED: list[subprocess.Popen[str]] = []


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Work:
    """Asks questions in order, in as many workers as it takes, and hands rows on."""

    def __init__(self, take: Callable[[str, Row], None], dry: bool):
        self.take = take  # (question, row)
        self.dry = dry

    def ask(self, names: list[str], until: float) -> None:
        """Return when all are answered or `until` has come; whoever hangs is ended."""
        waiting = list(names)
        while waiting and time.time() < until - 1.0:
            done = self._one(waiting, until)
            waiting = waiting[done:]
        for name in waiting:
            self.take(name, {"kind": "skip", "question": name})

    def _one(self, names: list[str], until: float) -> int:
        """Let one worker answer; return for how many of the questions it is responsible."""
        command = [
            sys.executable, "-m", "bench.gpu", "--child", "answer", "--until", str(until),
            *(["--dry-run"] if self.dry else []), "--only", *names,
        ]  # fmt: skip
        process = _started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        done, now, limit, said = 0, "", until, []
        while True:
            try:
                line = lines.get(timeout=max(0.1, limit - time.time()))
            except queue.Empty:
                _end(process)
                self._lost(now or names[done], "it did not end in time and was stopped", said)
                return done + 1
            if line is None:
                break
            before, _, text = line.partition(MARK)  # others may not have ended their line
            if not text:
                said.append(before)
                continue
            row = json.loads(text)
            if row["kind"] == "begin":
                now, limit = row["question"], min(until, time.time() + _limit(row["question"]))
            elif row["kind"] == "end":
                done, now, limit = done + 1, "", until
            elif row["kind"] == "skip":
                done += 1
            self.take(now or row["question"], row)
        code = process.wait()
        if now or (code and done == 0):
            self._lost(now or names[done], f"its process ended with code {code}", said)
            done += 1
        elif not code and done < len(names):
            done = len(names)  # nobody would answer
        return done

    def _lost(self, name: str, why: str, said: list[str]) -> None:
        text = "".join(said[-40:])
        if QUESTIONS[name].right:
            row = {"kind": "check", "name": name, "ok": False, "detail": why, "traceback": text}
        else:
            row = {"kind": "trouble", "who": name, "work": "", "message": why, "traceback": text}
        self.take(name, row)
        self.take(name, {"kind": "end", "question": name, "seconds": None})


def _limit(name: str) -> float:
    return QUESTIONS[name].limit + 5.0  # a question that looks at the clock ends by itself


class Apart:
    """The kit and compute-sanitizer: processes beside the worker, as many as there are cores."""

    def __init__(self, names: list[str], until: float, dry: bool):
        self.until, self.dry = until, dry
        self.pool = ThreadPoolExecutor(max(1, cores() - 1))
        self.waiting: list[tuple[str, str, Future[Row]]] = []
        if "kit" in names:
            for shape in SHAPES[:1] if dry else SHAPES:
                self._start("kit", shape, self._kit, shape)
        if "sanitizer" in names:
            for tool in TOOLS[:1] if dry else TOOLS:
                self._start("sanitizer", tool, self._sanitizer, tool)

    def _start(self, name: str, what: str, call: Callable[[str], Row], argument: str) -> None:
        self.waiting.append((name, what, self.pool.submit(call, argument)))

    def collect(self, take: Callable[[str, Row], None]) -> None:
        """Hand all rows on, once all processes have ended."""
        for name, what, future in self.waiting:
            try:
                take(name, future.result())
            except Exception as error:  # a program that cannot be started, say
                take(name, _checked(what or name, False, str(error), traceback.format_exc()))
        self.pool.shutdown()

    def _kit(self, shape: str) -> Row:
        name = f"kit, blocks of {shape.replace('x', ' x ')} warps" if shape else "kit"
        name += " on the emulated card" if self.dry else ""
        more = {"RVQ_BENCH_GPU_EXAMPLES": str(2 if self.dry else EXAMPLES), **QUIET}
        more["COLUMNS"] = "300"  # so that pytest names the reason beside the test
        more |= {"RVQ_BENCH_GPU_SHAPE": shape} if shape else {}
        more |= {"RVQ_BENCH_GPU_DRY": "1"} if self.dry else {}
        command = [
            sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider",
            "-o", "filterwarnings=default", "-o", "addopts=", "bench/gpu/kit.py",
        ]  # fmt: skip
        if self.dry:
            command += ["-k", "whole_numbers or adds_up"]
        code, text = self._ran(command, more)
        if "No module named pytest" in text or "No module named 'hypothesis'" in text:
            return _note(f"{name}: pytest or Hypothesis is not importable: not run.")
        lines = [line for line in text.splitlines() if line.strip()]
        failed = [
            line.replace("FAILED bench/gpu/kit.py::", "failed: ")
            for line in lines
            if line.startswith(("FAILED", "ERROR"))
        ]
        detail = "; ".join([*lines[-1:], *failed[:3]]).strip("= ") if code is not None else LATE
        return _checked(name, code == 0, detail[:600], "" if code == 0 else text[-20000:])

    def _sanitizer(self, tool: str) -> Row:
        ours = [sys.executable, "-m", "bench.gpu", "--child", "small"]
        if self.dry:
            code, text = self._ran([*ours, "--dry-run"], QUIET)
            name = "small shapes, without compute-sanitizer, on the emulated card"
            return _checked(name, code == 0, _last(text), text)
        program = sanitizer()
        if program is None:
            return _note(f"{tool}: compute-sanitizer is not on PATH nor in /usr/local/cuda.")
        watched = [program, "--tool", tool, "--error-exitcode", str(FOUND), *ours]
        code, text = self._ran(watched, QUIET)
        summary = [line.strip("= ") for line in text.splitlines() if "SUMMARY" in line]
        said = [line for line in text.splitlines() if line and not line.startswith("=====")]
        detail = "; ".join([*summary, *said[-1:]]) or f"exit code {code}"
        detail = LATE if code is None else detail
        return _checked(f"{tool} on small shapes", code == 0, detail[:600], text[-20000:])

    def _ran(self, command: list[str], more: dict[str, str]) -> tuple[int | None, str]:
        process = _started(command, more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            text, _ = process.communicate(timeout=max(1.0, self.until - time.time()))
        except subprocess.TimeoutExpired:
            _end(process)
            text, _ = process.communicate()
            return None, text
        return process.returncode, text


LATE = "did not end in time and was stopped"


def sanitizer() -> str | None:
    """Return where compute-sanitizer is."""
    home = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    roots = [*filter(None, home), "/usr/local/cuda", *sorted(map(str, _roots()), reverse=True)]
    places = [f"{root}/{folder}" for root in roots for folder in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer") or next(
        (found for place in places if (found := shutil.which("compute-sanitizer", path=place))),
        None,
    )


def _roots() -> list[Path]:
    return list(Path("/usr/local").glob("cuda-*"))


def _started(command: list[str], more: Any = (), **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **dict(more)}
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, errors="replace", start_new_session=True,
        **options,
    )  # fmt: skip
    STARTED.append(process)
    return process


def end_all() -> None:
    """End what still runs: a run that is interrupted leaves nothing on the card."""
    for process in STARTED:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and those it has started: compilers, what a sanitizer watches."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "said nothing"


def _checked(name: str, ok: bool, detail: str, trace: str) -> Row:
    return {"kind": "check", "name": name, "ok": ok, "detail": detail, "traceback": trace}


def _note(text: str) -> Row:
    return {"kind": "note", "text": text}
