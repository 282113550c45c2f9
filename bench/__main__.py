"""``python -m bench``, from the root of the checkout: all benchmarks in one run.

All implementations of a benchmark take turns within the run: only such ratios are comparable.
Takes about twenty minutes; nothing else should be running.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import plotting
from .machine import ROOT, Neighbours, facts, instructions, opening
from .questions import QUESTIONS
from .report import Answer, put_section, sections, targets
from .setting import Setting
from .threads import cores

RESULTS = Path(__file__).with_name("RESULTS.md")
PLOT = ROOT / "docs" / "_static" / "performance.svg"


def main(arguments: list[str] | None = None) -> int:
    """Measure rvq_np and its baselines, print tables and write a report."""
    options = _options(arguments)
    begun = time.perf_counter()
    neighbours = Neighbours()
    command = " ".join(["python -m bench", *(sys.argv[1:] if arguments is None else arguments)])
    answers = _answers(options)
    busy = neighbours.cores()
    checks = [check for answer in answers for check in answer.checks]
    tables = [str(table) for answer in answers for table in answer.tables]
    # At the end: the facts list the BLAS libraries that were loaded, and the load of the machine.
    head = [opening(busy, options.quick)]
    head += [str(targets(checks, options.threads, instructions()))] if checks else []
    head.append(facts(command, busy))
    print("\n".join(head))
    whole = not (options.quick or options.only)
    output = options.output or (RESULTS if whole else None)
    if options.section:
        output = options.output or RESULTS
        put_section(output, options.section, "\n".join([*head, *tables]))
    elif output is not None:
        whole_report = [*head, *tables, *sections(output)]
        output.write_text("\n".join(whole_report), encoding="utf-8")
    plot = options.plot or (PLOT if whole else None)
    points = [point for answer in answers for point in answer.points]
    if plot is not None and points:
        plot = plotting.write(plot, points, options.quick)
    wrote = " and ".join(str(path) for path in (output, plot) if path) or "nothing"
    print(f"took {time.perf_counter() - begun:.0f} s; wrote {wrote}", file=sys.stderr)
    return 0


def _answers(options: argparse.Namespace) -> list[Answer]:
    """Run every benchmark, and print its tables as they come."""
    setting = Setting(options.quick, options.threads)
    answers = []
    for name in options.only or QUESTIONS:
        question = QUESTIONS[name]
        for threads in options.threads if question.threaded else options.threads[:1]:
            answer = question.ask(setting, threads)
            print("\n".join(map(str, answer.tables)), flush=True)
            answers.append(answer)
    return answers


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: a trial run")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="only these benchmarks")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"file for the report; {RESULTS.name} beside this module, none if --quick or --only",
    )
    parser.add_argument(
        "--section",
        metavar="NAME",
        help="replace, or add at the end, only the section of that name in the file",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=PLOT,
        help="file for the curves of growth; in docs/_static, none if --quick or --only. Needs "
        "matplotlib",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2] if cores() > 1 else [1],
        help="numbers of threads to measure (default: 1 and, where there are two cores, 2)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
