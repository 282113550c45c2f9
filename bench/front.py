"""The picture of README and of the first page of the site, from what `bench.quality` measured.

    python -m bench.front        # quality.json -> docs/_static/front.svg

Nothing is measured here, and no figure is written here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
POINTS = ROOT / "bench" / "quality.json"
FRONT = ROOT / "docs" / "_static" / "front.svg"
ON, BYTES = "SIFT", 8
LOWEST = "refined"  # labelled below its curve
# What is shown of the methods measured, and how: name, colour, point with the label.
SHOWN = {
    "Faiss RQ, trained at beam 1": ("Faiss RQ", "#00798c", -1),
    "fit, refine=None": ("rvq_np, fit", "#b8860b", 1),
    LOWEST: ("rvq_np, refine=True", "#d1495b", -1),
}
FLAT = {"Faiss PQ": "#8d6a9f", "Faiss LSQ": "#30638e"}  # methods without a beam


def draw(path: Path, points: list[dict[str, Any]]) -> None:
    """Write the errors of `points` over the beam size, an SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    found = {
        each["method"]: each["errors"]
        for each in points
        if "errors" in each and (each["on"], each["bytes"]) == (ON, BYTES)
    }
    # The same points give the same bytes, so that a diff shows changes only.
    settings = {"svg.hashsalt": "bench", "svg.fonttype": "path", "font.size": 11}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axis = figure.add_subplot()
        beams = sorted({int(beam) for errors in found.values() for beam in errors})
        for method, (label, colour, at) in SHOWN.items():
            some = sorted(int(beam) for beam in found[method])
            errors = [found[method][str(beam)] / 1000 for beam in some]
            axis.plot(some, errors, marker="o", linewidth=2.2, color=colour)
            _label(axis, label, (some[at], errors[at]), colour, above=method != LOWEST)
        for method, colour in FLAT.items():
            (error,) = found[method].values()
            axis.axhline(error / 1000, color=colour, linestyle="--", linewidth=1.4)
            _label(axis, method, (beams[-1], error / 1000), colour)
        axis.set_xscale("log", base=2)
        axis.set_xticks(beams, map(str, beams))
        axis.set(
            xlabel="beam size of encoding", ylabel="squared error, thousands (lower is better)"
        )
        axis.set_title(f"{ON} vectors of 128 numbers in {BYTES} bytes, held out", fontsize=11)
        axis.set_ylim(18.6, None)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _label(axis: Any, text: str, end: tuple[float, float], colour: str, above: bool = True) -> None:
    axis.annotate(
        text,
        end,
        (0, 11 if above else -20),
        textcoords="offset points",
        ha="right" if end[0] > 8 else "left",
        color=colour,
        weight="bold",
    )


if __name__ == "__main__":
    draw(FRONT, json.loads(POINTS.read_text(encoding="utf-8")))
    print(f"wrote {FRONT.relative_to(ROOT)}")
