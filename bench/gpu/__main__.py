"""``python -m bench.gpu``, from the root of the checkout: one run, less than eight minutes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from . import facts, report
from .context import Row, line
from .questions import APART, FAST, QUESTIONS, RIGHT
from .running import Apart, Work, end_all
from .worker import run

RESULTS = Path(__file__).parents[1] / "RESULTS-gpu.md"
MOST = 475.0  # seconds: eight minutes, less the time for starting and writing
SHARE = 0.55  # of the time, for correctness


def main(arguments: list[str] | None = None) -> int:
    """Check and measure rvq_np on an NVIDIA GPU, print tables and write a report."""
    options = _options(arguments)
    if options.child:
        return run(options.child, options.only or [], options.until, options.dry_run)
    if options.unmeasured:
        (options.output or RESULTS).write_text(
            report.markdown(report.Results({})), encoding="utf-8"
        )
        return 0
    if not options.dry_run:
        problem = _missing()
        if problem:
            print(f"bench.gpu: {problem} --dry-run needs no GPU.", file=sys.stderr)
            return 2
    begun = time.time()
    command = " ".join(["python -m bench.gpu", *(sys.argv[1:] if arguments is None else arguments)])
    rows: dict[str, list[Row]] = {}

    def take(name: str, row: Row) -> None:
        rows.setdefault(name, []).append(row)
        _say(name, row, time.time() - begun)

    def results(complete: bool) -> report.Results:
        known = facts.facts(command, options.dry_run)
        known["Took"] = f"{time.time() - begun:.0f} s of at most {options.budget:.0f}"
        return report.Results(rows, known, options.dry_run, complete)

    names = options.only or list(QUESTIONS)
    try:
        _ask(options, names, begun, take, results)
    finally:
        end_all()
    found = results(True)
    wrote = _write(options, found)
    print(report.markdown(found))
    print(f"took {time.time() - begun:.0f} s; wrote {wrote}", file=sys.stderr)
    return int(found.failed())


def _ask(
    options: argparse.Namespace,
    names: list[str],
    begun: float,
    take: Callable[[str, Row], None],
    results: Callable[[bool], report.Results],
) -> None:
    """Check correctness, in parallel, and then, when nothing else runs, measure speed."""
    work = Work(take, options.dry_run)
    right = [name for name in RIGHT if name in names]
    fast = [name for name in FAST if name in names]
    if right:
        end = begun + options.budget * (SHARE if fast else 1.0)
        apart = Apart(names, end, options.dry_run)
        work.ask([name for name in right if name not in APART], end)
        apart.collect(take)
        _write(options, results(not fast))
    if fast:
        work.ask(fast, begun + options.budget)


def _missing() -> str:
    """Return why no GPU can be used, as one line; empty if one can."""
    try:
        cupy = import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return f"no GPU to run on: CuPy: {line(error)}."
    return "" if count else "no GPU to run on: CuPy counts 0 devices."


def _say(name: str, row: Row, passed: float) -> None:
    """Print a row as soon as it is known."""
    kind = row["kind"]
    text = {
        "check": lambda: f"{'right' if row['ok'] else 'WRONG'}: {row['name']}: {row['detail']}",
        "figure": lambda: f"{row['work']}: {row['who']}: {row['seconds'] * 1e3:.4g} ms",
        "trouble": lambda: f"{row['who']}: {row['message']}",
        "note": lambda: "",
    }.get(kind, lambda: kind)()
    if text:
        print(f"{passed:4.0f} s {name}: {text}", file=sys.stderr, flush=True)


def _write(options: argparse.Namespace, results: report.Results) -> str:
    """Write the report and the JSON to the requested paths; return the paths as text."""
    whole = not (options.dry_run or options.only)
    output = options.output or (RESULTS if whole else None)
    beside = output.with_suffix(".json") if output is not None else None
    written = []
    for path, text in (  # the rows first: any report can be made from them
        (options.json or beside, lambda: json.dumps(report.as_json(results), indent=1) + "\n"),
        (output, lambda: report.markdown(results)),
    ):
        if path is not None:
            path.write_text(text(), encoding="utf-8")
            written.append(str(path))
    return " and ".join(written) or "nothing"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="only these benchmarks")
    parser.add_argument(
        "--output", type=Path, help=f"file for the report; {RESULTS.name}, none with --only"
    )
    parser.add_argument("--json", type=Path, help="file for all rows; beside the report")
    parser.add_argument(
        "--budget", type=float, default=450.0, help=f"seconds in all, at most {MOST:.0f}"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run everything at tiny sizes on the emulated GPU; writes nothing without --output",
    )
    parser.add_argument(
        "--unmeasured", action="store_true", help="write the report of no run at all"
    )
    parser.add_argument("--child", choices=("answer", "small"), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not 0 < options.budget <= MOST:
        parser.error(
            f"--budget is {options.budget:g}; expected a number above 0, at most {MOST:.0f}"
        )
    if options.dry_run and options.output and options.output.resolve() == RESULTS.resolve():
        parser.error(f"a dry run does not write {RESULTS.name}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
