"""What `bench.quality` has measured, as tables and as a plot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .report import Table

COLOURS = {
    "refined": "#d1495b", "fit, refine=None": "#edae49", "fit": "#c9a227", "Faiss RQ": "#00798c",
    "Faiss LSQ": "#30638e", "Faiss PQ": "#8d6a9f",
}  # fmt: skip
TARGETS = {8: (0.78, "RQ"), 16: (0.75, "RQ")}
BEFORE = 0.6219  # embeddings, 8 bytes, beam 16, of the first `fit`
LSQ = "Faiss LSQ is trained on fewer of them, see its row, and encodes by a search of its own."

# What bounds a target that is not reached.
FIT = "more vectors per codeword would help, and more iterations, which noise makes slower to end"
TIME = "nine tenths of the time of refinement is the beam search of all vectors, in each iteration"
PREFIX = (
    "codes of a beam suit all stages together, so the first of them is further from its vector, "
    "whatever its codebook: with the first codebook fixed it is worse all the same, and all stages "
    "are 4 % worse (docs/quality.md)"
)


def written(points: list[dict[str, Any]]) -> str:
    """Return the section, but for its heading and the facts of the run."""
    table, missed = _targets(points)
    tables = [table, *(_errors(on, size, points) for on, size in _kinds(points))]
    tables += [_prefixes(on, size, points) for on, size in _kinds(points)]
    first, *others = (str(table) for table in tables if table is not None)
    return "\n".join([first, below(missed), *others, ""])


def below(missed: list[str]) -> str:
    """Return what stands below a table of targets: why some are not reached."""
    return "\n".join(["Not reached, and what bounds it:", "", *(f"- {each}" for each in missed), ""
                      ]) if missed else ""  # fmt: skip


def _kinds(points: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted({(each["on"], each["bytes"]) for each in points if "errors" in each})


def _of(on: str, size: int, points: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = [each for each in points if "errors" in each]
    return {each["method"]: each for each in found if (each["on"], each["bytes"]) == (on, size)}


def _errors(on: str, size: int, points: list[dict[str, Any]]) -> Table:
    rows = [
        (
            name, f"{each['seconds']:,.0f} s" if each["seconds"] else "",
            *(f"{each['errors'][b]:,.5g}" if b in each["errors"] else "" for b in _beams(points)),
        )
        for name, each in _of(on, size, points).items()
    ]  # fmt: skip
    found = _of(on, size, points).values()
    some = next(iter(found))
    note = f"{some['rows']:,} vectors to train on, {some['held out']:,} held out."
    whens = sorted(each["when"] for each in found if "when" in each)
    if whens:
        busy = max(each.get("busy", 0) for each in found)
        note += (
            f" Measured {whens[0]} to {whens[-1][-9:]}; cores busy with other work: {busy} at most."
        )
    if any(each["method"] == "Faiss LSQ" for each in found):
        note += f" {LSQ}"
    notes = [f" `{each['method']}`: {each['note']}." for each in found if "note" in each]
    note += "".join(notes)
    header = ("method", "training", *(f"beam {beam}" for beam in _beams(points)))
    return Table(f"{on}, {size} bytes", note, header, rows)


def _beams(points: list[dict[str, Any]]) -> list[str]:
    return sorted({beam for each in points for beam in each.get("errors", ())}, key=int)


def _prefixes(on: str, size: int, points: list[dict[str, Any]]) -> Table | None:
    rows = [
        (name, *(f"{error:,.5g}" for error in each["prefixes"]))
        for name, each in _of(on, size, points).items()
        if "prefixes" in each
    ]
    if not rows:
        return None
    header = ("method", *(f"n = {n}" for n in range(1, size + 1)))
    return Table(f"{on}, {size} bytes: prefixes of the codes of beam 16", "", header, rows)


def _least(found: dict[str, dict[str, Any]], part: str) -> float | None:
    errors = [min(each["errors"].values()) for name, each in found.items() if part in name]
    return min(errors, default=None)


def _targets(points: list[dict[str, Any]]) -> tuple[Table, list[str]]:
    """Return the table, and a sentence for each target that is not reached."""
    rows: list[tuple[str, str, str]] = []
    missed: list[str] = []

    def add(label: str, value: float, most: float, bound: str) -> None:
        rows.append((label, f"{value:.3f}", _reached(value <= most)))
        if value > most:
            missed.append(f"{label}, {value:.3f} measured: {bound}.")

    for size, (share, _) in TARGETS.items():
        found = _of("SIFT", size, points)
        ours = [found[name]["errors"]["16"] for name in found if name.startswith("refined")]
        theirs, local = _least(found, "Faiss RQ"), _least(found, "Faiss LSQ")
        if ours and theirs:
            label = f"SIFT, {size} bytes, beam 16: at most {share} x Faiss RQ at its best"
            add(label, min(ours) / theirs, share, FIT)
        if ours and local:
            label = f"SIFT, {size} bytes, beam 16: at or below Faiss LSQ (as trained here)"
            add(label, min(ours) / local, 1, FIT)
        trained = "Faiss RQ, trained at beam 5"
        for name in ("refined", "fit, refine=None"):
            if name in found and trained in found and found[name]["seconds"]:
                label = f"SIFT, {size} bytes, training of `{name}`: at most 2 x Faiss RQ's, beam 5"
                add(label, found[name]["seconds"] / found[trained]["seconds"], 2, TIME)
        for name in ("refined", "fit, refine=None"):
            for n in range(1, size):
                if n not in (1, 2, size // 2) or "fit" not in found or name not in found:
                    continue
                value = found[name]["prefixes"][n - 1] / found["fit"]["prefixes"][n - 1]
                label = f"SIFT, {size} bytes, beam 16, first {n}: `{name}` no worse than `fit`"
                add(label, value, 1, PREFIX)
    for size in (8, 16):
        found = _of("embeddings", size, points)
        if size == 8 and "fit, refine=None" in found:
            value = found["fit, refine=None"]["errors"]["16"] / BEFORE
            add(f"embeddings, 8 bytes, beam 16: below {BEFORE}, `fit` of before", value, 1, FIT)
        for name in ("refined", "fit, refine=None"):
            if "fit" in found and name in found:
                label = f"embeddings, {size} bytes, beam 16: `{name}` at or below `fit`"
                value = found[name]["errors"]["16"] / found["fit"]["errors"]["16"]
                add(label, value, 1, FIT)
    return Table("Targets", "", ("target", "measured", "reached"), rows), missed


def _reached(yes: bool) -> str:
    return "yes" if yes else "no"


def draw(path: Path, points: list[dict[str, Any]]) -> None:
    """Write the plot: error over bytes, over training time, and online."""
    try:
        import matplotlib
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)
        return
    matplotlib.use("svg")
    settings = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = _drawn(points)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _drawn(points: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (sift, embeddings), (times, online) = figure.subplots(2, 2)
    for panel, on in ((sift, "SIFT"), (embeddings, "embeddings")):
        _over_bytes(panel, on, points)
    _over_time(times, points)
    for each in points:
        if "steps" in each and each["on"] == "embeddings":
            online.plot(*zip(*each["steps"], strict=True), marker=".", label=each["way"])
    online.set_xlabel("steps of 256 embeddings, 3 stages of 256")
    online.set_ylabel("held-out error")
    for panel in (sift, embeddings, times, online):
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False)
        elif not panel.lines:
            panel.text(0.5, 0.5, "not measured yet", ha="center", transform=panel.transAxes)
    return figure


def _colour(name: str) -> str | None:
    return next((colour for part, colour in COLOURS.items() if name.startswith(part)), None)


def _over_bytes(panel: Any, on: str, points: list[dict[str, Any]]) -> None:
    curves: dict[str, dict[int, float]] = {}
    for each in points:
        if each["on"] != on or "errors" not in each or "iterations" in each["method"]:
            continue
        name = each["method"].partition(", trained")[0]
        curve, error = curves.setdefault(name, {}), min(each["errors"].values())
        curve[each["bytes"]] = min(error, curve.get(each["bytes"], error))
    for name, curve in curves.items():
        panel.plot(
            *zip(*sorted(curve.items()), strict=True), marker="o", label=name, color=_colour(name)
        )
    panel.set_xlabel(f"{on}: bytes a vector")
    panel.set_ylabel("held-out error, best beam")
    panel.set_ylim(bottom=0)


def _over_time(panel: Any, points: list[dict[str, Any]]) -> None:
    for name, each in _of("SIFT", 8, points).items():
        if not each["seconds"]:
            continue
        error = min(each["errors"].values())
        panel.plot(each["seconds"], error, "o", color=_colour(name))
        panel.annotate(
            name, (each["seconds"], error), xytext=(5, 3), textcoords="offset points", fontsize=7
        )
    panel.set_xscale("log")
    panel.set_xlabel("SIFT, 8 bytes: seconds of training")
    panel.set_ylabel("held-out error, best beam")
