"""Tables of the site that are made of the records of tests, written before Sphinx reads pages."""

import json
from pathlib import Path


def write_all(here: Path) -> None:
    """Write the tables that pages include, from the JSON files in the folder `here`, the docs."""
    _table_of_frameworks(here)
    _table_of_fuzzing(here)
    _table_of_faults(here)


def _table_of_frameworks(here: Path) -> None:
    """Write the results of framework tests, docs/frameworks.json, as a table to be included."""
    lines = ["| framework | version | transform | result |", "|---|---|---|---|"]
    for framework, record in json.loads((here / "frameworks.json").read_text()).items():
        for name, verdict in record["transforms"].items():
            lines.append(f"| {framework} | {record['version']} | {name} | {verdict} |")
    (here / "_static" / "frameworks.md").write_text("\n".join(lines) + "\n")


def _table_of_fuzzing(here: Path) -> None:
    """Write the counts of fuzzing, docs/reliability.json, as a table to be included."""
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


def _table_of_faults(here: Path) -> None:
    """Write which test detects which seeded fault, docs/faults.json, as a table to be included."""
    from faults import FAULTS

    tests = json.loads((here / "faults.json").read_text())
    lines = ["| fault | in | detected by |", "|---|---|---|"]
    for fault in FAULTS:
        path, _, test = tests[fault.name].partition("::")
        lines.append(f"| {fault.name} | `{fault.where}` | `{test}` in `{path}` |")
    (here / "_static" / "faults.md").write_text("\n".join(lines) + "\n")
