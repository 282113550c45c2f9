"""The curves of growth as one SVG, if matplotlib is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .encoding import FAISS, NUMPY, OURS
from .report import Point, plural

AXES = {"N": "vectors per call, N", "K": "codewords per codebook, K", "Q": "stages, Q"}
COLOURS = {OURS: "#d1495b", NUMPY: "#00798c", FAISS: "#8d6a9f"}
STYLES = {1: "-", 2: "--"}


def write(path: Path, points: Sequence[Point], quick: bool) -> Path | None:
    """Write multiples of the sgemm rate over each size to `path`; None without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)
        return None
    matplotlib.use("svg")
    # The same points give the same bytes, so that a diff shows changes only.
    settings = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = _draw(points)
        if quick:
            figure.suptitle("trial run with small sizes: do not quote")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def _draw(points: Sequence[Point]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    for panel, (grows, label) in zip(panels, AXES.items(), strict=True):
        curves: dict[tuple[str, int], list[Point]] = {}
        for point in points:
            if point.grows == grows:
                curves.setdefault((point.name, point.threads), []).append(point)
        for (name, threads), curve in curves.items():
            panel.plot(
                [point.size for point in curve],
                [point.multiple for point in curve],
                STYLES.get(threads, ":"),
                color=COLOURS.get(name),
                marker=".",
                label=f"{name}, {plural(threads)}",
            )
        panel.axhline(1.0, color="0.6", linewidth=0.8)
        panel.set_xscale("log", base=10 if grows == "N" else 2)
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")  # one frame and a batch differ by a factor of a hundred
    panels[0].set_ylabel("encode: multiple of the sgemm rate")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
