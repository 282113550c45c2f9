"""The loss curves of all runs as one SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from figures import Results
from matplotlib.figure import Figure

PANELS = {"training": "error on training batches", "held_out": "error on held-out clips"}
LINES = [("#d1495b", "-"), ("#00798c", "--"), ("#edae49", ":"), ("0.6", "-"), ("0.2", "-.")]


def write(path: Path, results: Results) -> None:
    """Write the curves to `path`."""
    matplotlib.use("svg")
    # The same points give the same bytes, so that a diff shows what moved.
    settings = {"svg.hashsalt": "autoencoder", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        _draw(results).savefig(path, metadata={"Date": None})


def _draw(results: Results) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (curve, label) in zip(panels, PANELS.items(), strict=True):
        for (name, run), (colour, style) in zip(results["runs"].items(), LINES, strict=True):
            panel.plot(*zip(*run[curve], strict=True), style, color=colour, label=name)
        panel.set_title(label)
        panel.set_xlabel("steps")
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("mean square error")
    ticks = [0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    panels[0].set_yticks(ticks, [str(each) for each in ticks])
    panels[0].minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
