"""Markdown of rows, with or without measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..report import Check, Table, duration
from . import ceilings
from .context import Row
from .implementations import COMPILED, EAGER, OURS
from .questions import QUESTIONS, RIGHT
from .stub import ROOT

UNMEASURED = "**No GPU has run this: every figure below is missing, none is estimated.**"
DRY = "**NO GPU ran: this is a dry run on an emulated GPU, and its figures mean nothing.**"
HOW = """\
`python -m bench.gpu`, from the root of the checkout, on a machine with an NVIDIA GPU and CuPy,
measures all of it in less than eight minutes and writes this file and `RESULTS-gpu.json`. Nothing
else has to be installed; torch, Faiss, cuVS and compute-sanitizer are used where installed.
"""
READING = """\
Results are medians of rounds in which the implementations took turns, by the clock of the GPU,
unless a table says otherwise; compare only results of one run. TFLOP/s are `2·N·D·K·Q` over the
time, for every implementation. Ceilings were measured in the same run.
"""


class Results(NamedTuple):
    """The results of a run: `rows` by benchmark; those that were not run have none."""

    rows: Mapping[str, Sequence[Row]]
    facts: Mapping[str, str] = {}
    dry: bool = False
    complete: bool = True  # False while the run continues

    def of(self, name: str, kind: str) -> list[Row]:
        return [row for row in self.rows.get(name, ()) if row["kind"] == kind]

    def failed(self) -> bool:
        return any(not row["ok"] for name in QUESTIONS for row in self.of(name, "check"))

    def seconds(self, name: str, who: str, work: str | None = None, last: bool = False) -> float:
        """Return the seconds of `who`, nan if unknown; the first of several, or the last."""
        found = [
            row["seconds"]
            for row in self.of(name, "figure")
            if row["who"] == who and work in (None, row["work"])
        ]
        return found[-1 if last else 0] if found else math.nan

    def ceiling(self, who: str, unit: str) -> float:
        """Return a measured rate, operations or bytes per second; nan if unknown."""
        return next(
            (
                row[unit] / row["seconds"]
                for row in self.of("ceilings", "figure")
                if row["who"] == who
            ),
            math.nan,
        )


def targets(results: Results) -> list[Check]:
    """Return the targets for a GPU like an H100 and the results; a dry run reaches none."""
    r = Results({}) if results.dry else results

    ours, frame = r.seconds("encode", OURS), r.seconds("frame", OURS)
    half = r.ceiling(ceilings.HALF, "flops")
    rate = next((_rate(row) for row in r.of("encode", "figure") if row["who"] == OURS), math.nan)
    moved = next(
        (
            row["bytes"] / row["seconds"]
            for row in r.of("decode", "figure")
            if row["who"] == OURS and "Q=1," in row["work"]
        ),
        math.nan,
    )
    share = moved / r.ceiling(ceilings.COPY, "bytes")
    means = [r.seconds("kmeans", each, last=True) for each in (EAGER, OURS)]
    return [
        _faster("encode", 3.0, "torch eager", r.seconds("encode", EAGER) / ours),
        _faster("encode", 1.5, "torch.compile", r.seconds("encode", COMPILED) / ours),
        _share("encode", 0.5, "the half precision tensor-core rate", rate / half),
        _share("decode, one stage", 0.7, "the bandwidth of memory", share),
        _faster("an iteration of k-means", 3.0, "torch eager", means[0] / means[1]),
        Check(
            "one frame", "at most 60 µs until its codes are ready", None, frame, 60e-6, False,
            duration(frame) if frame == frame else "",
        ),
    ]  # fmt: skip


def _faster(work: str, bound: float, baseline: str, value: float) -> Check:
    return Check(work, f"at least {bound:g} times as fast as {baseline}", None, value, bound)


def _share(work: str, bound: float, of_what: str, value: float) -> Check:
    shown = "" if math.isnan(value) else f"{value:.0%}"
    return Check(work, f"at least {bound:.0%} of {of_what}", None, value, bound, True, shown)


def markdown(results: Results) -> str:
    """Return the whole report."""
    measured = bool(results.rows)
    first = [DRY] if results.dry else [] if measured else [UNMEASURED]
    if measured and results.failed():
        first.append("**CHECKS FAILED: see below. Ignore the results of what is wrong.**")
    if measured and not results.complete:
        first.append("**The run was not complete when this was written.**")
    unchecked = [name for name in RIGHT if not results.of(name, "check")]
    if measured and not results.dry and unchecked:
        first.append(f"**Nothing was checked by {', '.join(unchecked)}: see the end.**")
    parts = ["\n\n".join([*first, "# Results on a GPU"]), "", HOW]
    parts += [str(_targets(results))]
    if measured:
        parts.insert(3, READING)
        facts = [f"- {name}: {fact}" for name, fact in results.facts.items()]
        parts += ["\n".join(["## The run", "", *facts, ""]), str(_checks(results))]
        parts += [str(table) for table in _tables(results)]
    parts += [_left_out(results)]
    return "\n".join(parts)


def _targets(results: Results) -> Table:
    found = targets(results)
    rows = [
        (each.work, each.target, each.text, "-" if math.isnan(each.value) else _yes(each.met))
        for each in found
    ]
    note = "For a GPU of the class of an H100, at D=128, K=1024, Q=8."
    return Table("Targets", note, ("work", "target", "reached", "met"), rows, 2)


def _checks(results: Results) -> Table:
    rows = [
        (QUESTIONS[name].title, row["name"], "right" if row["ok"] else "WRONG", row["detail"])
        for name in QUESTIONS
        for row in results.of(name, "check")
    ]
    where = "on the emulated GPU" if results.dry else "on the GPU"
    wrong = sum(row[2] == "WRONG" for row in rows)
    note = f"{len(rows) - wrong} of {len(rows)} checks passed {where}."
    cells = [tuple(cell.replace("|", "/") for cell in row) for row in rows]
    return Table("Correctness", note, ("benchmark", "check", "", "result"), cells, 4)


def _tables(results: Results) -> list[Table]:
    encoding = (
        "implementation",
        "time",
        "vectors/s",
        "TFLOP/s",
        "of half",
        "of float32",
        "same codes",
    )
    columns: dict[str, tuple[Sequence[str], Callable[[Row], Sequence[str]]]] = {
        "ceilings": (("ceiling", "time", "rate"), _ceiling),
        "encode": ((*encoding, "ours = 1"), lambda row: _encode(results, "encode", row)),
        "decode": (
            (
                "implementation", "time", "written", "read + written", "of copy", "gathered",
                "ours = 1",
            ),
            lambda row: _decode(results, row),
        ),
        "kmeans": (
            ("implementation", "time", "vectors/s", "TFLOP/s", "of half", "ours = 1"),
            lambda row: (
                *_rates(row), _percent(_rate(row) / results.ceiling(ceilings.HALF, "flops")),
                _against(results, "kmeans", row),
            ),
        ),
        "frame": (("implementation", "wait", "99 % within", "queued", "ours = 1"), lambda row: (
            duration(row["late"]), duration(row["device"]) if row.get("device") else "-",
            _against(results, "frame", row),
        )),
        "dims": ((*encoding, "ours = 1"), lambda row: _encode(results, "dims", row)),
        "growth": ((*encoding, "ours = 1"), lambda row: _encode(results, "growth", row)),
    }  # fmt: skip
    tables = []
    for name, (header, cells) in columns.items():
        rows = [
            (row["work"], row["who"], duration(row["seconds"]), *cells(row))
            for row in _sorted(results, name)
        ]
        notes = " ".join(row["text"] for row in results.of(name, "note"))
        if rows or notes:
            tables.append(Table(QUESTIONS[name].title, notes, ("work", *header), rows, 2))
    return tables


def _sorted(results: Results, name: str) -> list[Row]:
    """Return results by the number of vectors where that grows, otherwise by task, in order."""
    own = results.of(name, "figure")
    works = [each["work"] for each in own]
    key = (lambda row: row["vectors"]) if name == "growth" else lambda row: works.index(row["work"])
    return sorted(own, key=key)


def _ceiling(row: Row) -> tuple[str]:
    if "bytes" in row:
        return (f"{row['bytes'] / row['seconds'] * 1e-9:,.0f} GB/s",)
    return (f"{_rate(row) * 1e-12:.1f} TFLOP/s",)


def _rates(row: Row) -> tuple[str, str]:
    return f"{row['vectors'] / row['seconds']:.3g}", f"{_rate(row) * 1e-12:.3g}"


def _encode(results: Results, name: str, row: Row) -> tuple[str, ...]:
    shares = [_rate(row) / results.ceiling(c, "flops") for c in (ceilings.HALF, ceilings.FLOAT32)]
    shown = [_percent(each) for each in shares]
    return (*_rates(row), *shown, f"{row['all']:.2%}", _against(results, name, row))


def _decode(results: Results, row: Row) -> tuple[str, ...]:
    rates = [row[kind] / row["seconds"] for kind in ("written", "bytes", "gathered")]
    written, moved, gathered = (f"{rate * 1e-9:,.0f} GB/s" for rate in rates)
    share = _percent(rates[1] / results.ceiling(ceilings.COPY, "bytes"))
    return written, moved, share, gathered, _against(results, "decode", row)


def _against(results: Results, name: str, row: Row) -> str:
    value = results.seconds(name, OURS, row["work"]) / row["seconds"]
    return "-" if math.isnan(value) else f"{value:.2f}"


def _rate(row: Row) -> float:
    return row["flops"] / row["seconds"]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _left_out(results: Results) -> str:
    """Return the benchmarks that are missing from the tables above, and why."""
    lines = []
    for name, question in QUESTIONS.items():
        rows = results.rows.get(name, ())
        kinds = {row["kind"] for row in rows}
        if not kinds & {"check", "figure", "trouble", "note"}:
            why = "no time left" if kinds else "not selected"
            lines.append(f"- {question.title} (`{name}`): not run, {why}")
        for row in results.of(name, "trouble"):
            work = f", {row['work']}" if row["work"] else ""
            lines.append(f"- {question.title}{work}: {row['who']}: {row['message']}")
        if question.right:
            notes = results.of(name, "note")
            lines += [f"- {question.title}: {row['text']}" for row in notes]
    return "\n".join(["## What is missing, and notes", "", *(lines or ["- nothing"]), ""])


def _from_here(row: Row) -> Row:
    """Return a row without the path of the checkout in its texts."""
    folder = f"{ROOT}/"
    return {
        name: value.replace(folder, "") if isinstance(value, str) else value
        for name, value in row.items()
    }


def as_json(results: Results) -> dict[str, Any]:
    """Return the data of the report, with tracebacks, whose paths are relative to the checkout."""
    answers = {
        name: {"title": each.title, "rows": [_from_here(row) for row in results.rows.get(name, ())]}
        for name, each in QUESTIONS.items()
    }
    for each in answers.values():
        kinds = {row["kind"] for row in each["rows"]}
        ran = kinds & {"check", "figure", "trouble", "note"}
        each["state"] = "asked" if ran else "skipped" if kinds else "not asked"
    made = [
        {"work": each.work, "target": each.target, "met": each.met,
         "value": None if math.isnan(each.value) else each.value}
        for each in targets(results)
    ]  # fmt: skip
    for each in made:
        each["met"] = each["met"] if each["value"] is not None else None
    return {
        "gpu": bool(results.rows) and not results.dry,
        "dry_run": results.dry,
        "complete": results.complete,
        "facts": dict(results.facts),
        "targets": made,
        "answers": answers,
    }
