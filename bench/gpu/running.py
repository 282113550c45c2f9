"""The processes of a run: a worker for benchmarks, pytest on the kit, compute-sanitizer."""

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

from .context import Row
from .questions import QUESTIONS
from .stub import ROOT
from .worker import MARK

SHAPES = ("", "8x1", "4x2", "2x4", "1x8", "1x4", "1x1")  # of the kit; empty: the default
EXAMPLES = 25
TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit code of compute-sanitizer if it found an error
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RVQ_NP_NUM_THREADS": "1"}


STARTED: list[subprocess.Popen[str]] = []


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Work:
    """Runs benchmarks in order, in as many workers as needed, and passes rows on."""

    def __init__(self, take: Callable[[str, Row], None], dry: bool):
        self.take = take  # (question, row)
        self.dry = dry

    def ask(self, names: list[str], until: float) -> None:
        """Return when all are done or at `until`; a benchmark over its time limit is stopped."""
        waiting = list(names)
        while waiting and time.time() < until - 1.0:
            done = self._one(waiting, until)
            waiting = waiting[done:]
        for name in waiting:
            self.take(name, {"kind": "skip", "question": name})

    def _one(self, names: list[str], until: float) -> int:
        """Run benchmarks in one worker; return how many of them it finished or broke."""
        command = [
            sys.executable, "-m", "bench.gpu", "--child", "answer", "--until", str(until),
            *(["--dry-run"] if self.dry else []), "--only", *names,
        ]  # fmt: skip
        process = _started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        done, now, limit, printed = 0, "", until, []
        while True:
            try:
                line = lines.get(timeout=max(0.1, limit - time.time()))
            except queue.Empty:
                _end(process)
                self._lost(now or names[done], "it did not end in time and was stopped", printed)
                return done + 1
            if line is None:
                break
            before, _, text = line.partition(MARK)  # other output may not end with a newline
            if not text:
                printed.append(before)
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
            self._lost(now or names[done], f"its process ended with code {code}", printed)
            done += 1
        elif not code and done < len(names):
            done = len(names)  # no worker would run them
        return done

    def _lost(self, name: str, why: str, printed: list[str]) -> None:
        text = "".join(printed[-40:])
        if QUESTIONS[name].right:
            row = {"kind": "check", "name": name, "ok": False, "detail": why, "traceback": text}
        else:
            row = {"kind": "trouble", "who": name, "work": "", "message": why, "traceback": text}
        self.take(name, row)
        self.take(name, {"kind": "end", "question": name, "seconds": None})


def _limit(name: str) -> float:
    return QUESTIONS[name].limit + 5.0  # a benchmark that checks the time ends by itself


class Apart:
    """The kit and compute-sanitizer: processes in parallel to the worker, one per core."""

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
        """Pass all rows on, once all processes have ended."""
        for name, what, future in self.waiting:
            try:
                take(name, future.result())
            except Exception as error:  # for example, a program that cannot be started
                take(name, _checked(what or name, False, str(error), traceback.format_exc()))
        self.pool.shutdown()

    def _kit(self, shape: str) -> Row:
        name = f"kit, blocks of {shape.replace('x', ' x ')} warps" if shape else "kit"
        name += " on the emulated GPU" if self.dry else ""
        more = {"RVQ_BENCH_GPU_EXAMPLES": str(2 if self.dry else EXAMPLES), **QUIET}
        more["COLUMNS"] = "300"  # so that pytest prints the reason after the test
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
            name = "small shapes, without compute-sanitizer, on the emulated GPU"
            return _checked(name, code == 0, _last(text), text)
        program = sanitizer()
        if program is None:
            return _note(f"{tool}: compute-sanitizer is not on PATH nor in /usr/local/cuda.")
        watched = [program, "--tool", tool, "--error-exitcode", str(FOUND), *ours]
        code, text = self._ran(watched, QUIET)
        summary = [line.strip("= ") for line in text.splitlines() if "SUMMARY" in line]
        printed = [line for line in text.splitlines() if line and not line.startswith("=====")]
        detail = "; ".join([*summary, *printed[-1:]]) or f"exit code {code}"
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
    """Return the path of compute-sanitizer, or None."""
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
    """End all processes: an interrupted run leaves nothing running on the GPU."""
    for process in STARTED:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and its children: compilers, the process of a sanitizer."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def _checked(name: str, ok: bool, detail: str, trace: str) -> Row:
    return {"kind": "check", "name": name, "ok": ok, "detail": detail, "traceback": trace}


def _note(text: str) -> Row:
    return {"kind": "note", "text": text}
