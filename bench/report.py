"""The results of a benchmark: tables, targets, and points of a curve, as Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """A title, a note, a header and rows of text."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1  # the first columns, aligned left

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        rule = [
            "-" * width if i < self.text_columns else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        drawn = [self._line(each, widths) for each in (self.header, rule, *self.rows)]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, *drawn, ""])

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        both = enumerate(zip(cells, widths, strict=True))
        padded = [
            cell.ljust(w) if i < self.text_columns else cell.rjust(w) for i, (cell, w) in both
        ]
        return f"| {' | '.join(padded)} |"


class Check(NamedTuple):
    """One target and the result: with a number of threads, or with the defaults of a process."""

    work: str
    target: str
    threads: int | None
    value: float  # nan: not measured
    bound: float
    at_least: bool = True
    shown: str = ""  # instead of the value with two decimals
    needs: bool = True  # another condition for `met`, such as an error that is not higher

    @property
    def met(self) -> bool:
        reached = self.value >= self.bound if self.at_least else self.value <= self.bound
        return bool(reached and self.needs)

    @property
    def text(self) -> str:
        return "not measured" if math.isnan(self.value) else self.shown or f"{self.value:.2f}"


class Point(NamedTuple):
    """A point of a curve: the growing parameter, its value, the implementation, and its speed."""

    grows: str
    size: int
    threads: int
    name: str
    rate: float  # vectors per second
    multiple: float  # of the sgemm rate


class Answer(NamedTuple):
    """The results of one benchmark for one number of threads."""

    tables: Sequence[Table]
    checks: Sequence[Check] = ()
    points: Sequence[Point] = ()


def targets(checks: Iterable[Check], threads: Sequence[int], instructions: str = "") -> Table:
    """Return the table of all targets, one row each, in the order they were answered.

    `instructions` names the instruction set of the run.
    """
    rows: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        rows.setdefault((check.work, check.target), []).append(check)
    lines = []
    for (work, target), each in rows.items():
        known = [check for check in each if not math.isnan(check.value)]
        verdicts = ["yes" if check.met else "no" for check in known]
        met = verdicts[0] if len(set(verdicts)) == 1 else " / ".join(verdicts)
        lines.append((work, target, " / ".join(check.text for check in each), met or "-"))
    note = (
        f"Reached: with {' / '.join(map(plural, threads))} where there are several results, "
        "otherwise with the defaults of a process. Details follow below."
    )
    title = f"Targets, {instructions}" if instructions else "Targets"
    return Table(title, note, ("work", "target", "reached", "met"), lines, 2)


def put_section(path: Path, name: str, report: str) -> None:
    """Replace the section `name` of a file by a report, or add it at the end.

    Sections of a run of their own are between comments; their headings have one more #.
    """
    first, last = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    lowered = re.sub(r"^#", "##", report, flags=re.MULTILINE).replace("## Results", f"## {name}", 1)
    section = f"{first}{lowered.rstrip()}\n{last}"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if first in text:
        before, after = text.split(first)[0], text.split(last)[1]
        text = before + section + after
    else:
        text = f"{text.rstrip()}\n\n{section}"
    path.write_text(text, encoding="utf-8")


def sections(path: Path) -> list[str]:
    """Return what `put_section` has put into a file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.finditer(r"<!-- (.+): begin -->\n.*?<!-- \1: end -->\n", text, re.DOTALL)
    return [each.group() for each in found]


def plural(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def duration(seconds: float) -> str:
    """Return `seconds` with three digits and a suitable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds:.0f} s"
    raise AssertionError("unreachable")


def ratio(over: float | None, under: float | None) -> float:
    """Return ``over / under``, nan if an implementation is missing."""
    return math.nan if over is None or under is None else over / under


def section(path: Path, heading: str, text: str) -> None:
    """Replace the part of a report below a heading ``# ...``, or add it; other parts stay."""
    parts = path.read_text(encoding="utf-8") if path.exists() else ""
    found = [each.strip() for each in re.split(r"^(?=# )", parts, flags=re.MULTILINE)]
    mine = f"{heading}\n\n{text.strip()}"
    where = [place for place, each in enumerate(found) if each.partition("\n")[0] == heading]
    if where:
        found[where[0]] = mine
    else:
        found.append(mine)
    path.write_text("\n\n".join(filter(None, found)) + "\n", encoding="utf-8")
