"""``python -m bench``, from the root of the checkout: every question, in one run.

All contestants of a question take turns within the run, since only such ratios mean anything.
Takes a few minutes; nothing else should be running.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import problems, questions
from .peers import Sgemm
from .report import Neighbours, Table, heading
from .threads import cores

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: list[str] | None = None) -> int:
    """Measure rvq_np beside its rivals, print tables and write a report."""
    options = _options(arguments)
    begun = time.perf_counter()
    neighbours = Neighbours()
    command = " ".join(["python -m bench", *(sys.argv[1:] if arguments is None else arguments)])
    parts = []
    for table in _tables(options):
        print(table, flush=True)
        parts.append(str(table))
    # Only now: it lists the BLAS libraries that were loaded, and tells whether all was quiet.
    opening = heading(command, neighbours.cores(), options.quick)
    print(opening)
    output = options.output or (None if options.quick else RESULTS)
    if output is not None:
        output.write_text("\n".join([opening, *parts]), encoding="utf-8")
    print(f"took {time.perf_counter() - begun:.0f} s; wrote {output}", file=sys.stderr)
    return 0


def _tables(options: argparse.Namespace) -> Iterator[Table]:
    quick = options.quick
    rounds = 3 if quick else 5
    shrunk = {"rows": 2048} if quick else {}
    sgemm = Sgemm(2048 if quick else 4096)
    cases = (
        problems.BATCH._replace(**shrunk),
        problems.FRAME,
        problems.NARROW._replace(**shrunk),
    )
    for problem in cases:
        for threads in options.threads:
            yield questions.encoding(problem, threads, rounds, sgemm)
    for threads in options.threads:
        yield questions.clustering(8192 if quick else 65536, threads, 1 if quick else 3)
    for threads in options.threads:
        yield questions.decoding(problems.BATCH._replace(**shrunk), threads, rounds)
    yield questions.starting(1 if quick else 5)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: a trial")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"file for the report; {RESULTS.name} beside this module, none if --quick",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2] if cores() > 1 else [1],
        help="numbers of threads to try (default: 1 and, where there are two cores, 2)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
