"""What each framework can do, reported by the tests: the table in the docs is made of it.

A test marked ``transform(framework, name)`` proves a cell of the table; with ``refused=True`` it
proves that the framework, which cannot do that, is refused with an error of ours.  A run compares
what it saw with ``docs/frameworks.json`` and fails where they differ; ``--frameworks=write``
writes what it saw instead.
"""

import json
from importlib.metadata import version
from pathlib import Path

TABLE = Path(__file__).parents[2] / "docs" / "frameworks.json"
PACKAGES = {"tensorflow": "tensorflow-cpu"}
_seen = {}


def pytest_addoption(parser):
    parser.addoption("--frameworks", choices=["check", "write"], default="check")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "transform(framework, name, refused=False): proves a cell of the docs' table"
    )


def pytest_runtest_logreport(report):
    for framework, name, refused in getattr(report, "transforms", ()):
        cell = _seen.setdefault((framework, name), {"refused": refused, "passed": True})
        cell["passed"] &= report.passed
        assert cell["refused"] == refused, f"{framework}, {name}: works in one test, not in another"


def pytest_runtest_makereport(item, call):
    from _pytest.reports import TestReport

    report = TestReport.from_item_and_call(item, call)
    if report.when == "call":
        report.transforms = [
            (*mark.args, mark.kwargs.get("refused", False))
            for mark in item.iter_markers("transform")
        ]
    return report


def pytest_sessionfinish(session):
    if not _seen or session.config.option.keyword or hasattr(session.config, "workerinput"):
        return  # a worker sees some of the tests; who started it sees all
    known = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    found = {}
    for (framework, name), cell in _seen.items():
        if cell["passed"]:
            cells = found.setdefault(framework, {"version": "", "transforms": {}})
            cells["transforms"][name] = "refused" if cell["refused"] else "works"
    for framework, cells in found.items():
        package = framework.partition(" ")[0]
        cells["version"] = version(PACKAGES.get(package, package)).partition("+")[0]
        cells["transforms"] = dict(sorted(cells["transforms"].items()))
    if session.config.option.frameworks == "write":
        TABLE.write_text(json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n")
        return
    for framework, cells in found.items():
        reported = known.get(framework, {}).get("transforms")
        if reported != cells["transforms"]:
            print(f"\ndocs/frameworks.json tells of {framework}: {reported}\nthe tests: {cells}")
            print("Run the tests of that framework with --frameworks=write.")
            session.exitstatus = 1
