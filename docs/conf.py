"""Sphinx settings: Markdown pages by MyST, API pages by autosummary from the docstrings."""

import json
import sys
from pathlib import Path

from rvq_np import __version__

project = "rvq_np"
author = "the rvq_np authors"
copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
]
exclude_patterns = ["_build", "_static", "examples"]
templates_path = ["_templates"]
default_role = "py:obj"  # `name` in a docstring is a link where there is something to link to

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shape and dtype, which hints cannot
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False  # the class template lists them, once

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"rvq_np {version}"
html_theme_options = {"show_toc_level": 2, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False


def _table_of_frameworks() -> None:
    """Write the results of framework tests, docs/frameworks.json, as a table to be included."""
    here = Path(__file__).parent
    lines = ["| framework | version | transform | result |", "|---|---|---|---|"]
    for framework, record in json.loads((here / "frameworks.json").read_text()).items():
        for name, verdict in record["transforms"].items():
            lines.append(f"| {framework} | {record['version']} | {name} | {verdict} |")
    (here / "_static" / "frameworks.md").write_text("\n".join(lines) + "\n")


def _table_of_fuzzing() -> None:
    """Write the counts of fuzzing, docs/reliability.json, as a table to be included."""
    here = Path(__file__).parent
    header = (
        "| target | inputs | seed | read | rejected | findings | seconds | memory growth | date |"
    )
    lines = [header, "|---|---|---|---|---|---|---|---|---|"]
    for run in json.loads((here / "reliability.json").read_text())["fuzzing"]:
        counts = [f"{run[name]:,}" for name in ("accepted", "refused", "findings")]
        lines.append(
            f"| {run['target']} | {run['inputs']:,} | {run['seed']} | {' | '.join(counts)} "
            f"| {run['seconds']:.0f} | {run['grown'] / 2**20:.0f} MiB | {run['date']} |"
        )
    (here / "_static" / "reliability.md").write_text("\n".join(lines) + "\n")


def _table_of_faults() -> None:
    """Write which test detects which seeded fault, docs/faults.json, as a table to be included."""
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here.parent / "tests"))
    from faults import FAULTS

    tests = json.loads((here / "faults.json").read_text())
    lines = ["| fault | in | detected by |", "|---|---|---|"]
    for fault in FAULTS:
        path, _, test = tests[fault.name].partition("::")
        lines.append(f"| {fault.name} | `{fault.where}` | `{test}` in `{path}` |")
    (here / "_static" / "faults.md").write_text("\n".join(lines) + "\n")


_table_of_frameworks()
_table_of_fuzzing()
_table_of_faults()
