"""What is written about the kit: docstrings, and the table of properties in docs/testing.md.

``python tests/test_testing_docs.py`` writes the table.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from rvq_np import testing
from rvq_np.testing import (
    backend_tests,
    batch_invariance_tests,
    container_tests,
    gradient_tests,
    rvq_tests,
    strategies,
    training_tests,
)

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
MARK = "<!-- properties -->\n"
FACTORIES = {
    rvq_tests: {"encode": print, "decode": print, "dropped": True},
    gradient_tests: {"value_and_gradients": print},
    training_tests: {"make": print, "dimension": 3},
    container_tests: {"write": print, "read": print, "error": ValueError},
    backend_tests: {"put": print, "get": print},
    batch_invariance_tests: {"encode": print, "signals": (np.zeros(1), np.zeros(2))},
}
REPORT = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")


def properties(factory):
    tests = factory(**FACTORIES[factory])
    return {name: each for name, each in vars(tests).items() if name.startswith("test_")}


def table(factory):
    lines = [f"### {factory.__name__}", "", "| property | report |", "|---|---|"]
    for name, each in properties(factory).items():
        report = inspect.getdoc(each).splitlines()[-1]
        link = REPORT.sub(r"[\1#\2](https://github.com/\1/issues/\2)", report).rstrip(".")
        lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {link} |")
    return lines


def tables():
    return "\n".join("\n".join([*table(factory), ""]) for factory in FACTORIES)


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda each: each.__name__)
def test_each_property_ends_with_the_report_it_would_have_saved(factory):
    found = properties(factory)
    assert len(found) >= 6
    for name, each in found.items():
        *said, last = inspect.getdoc(each).splitlines()
        assert REPORT.fullmatch(last) or last == "No report known.", (name, last)
        assert len(" ".join(said)) > 20, name


def test_the_page_lists_each_property():
    assert PAGE.read_text().partition(MARK)[2] == tables(), "python tests/test_testing_docs.py"


def test_the_page_names_each_strategy_and_factory():
    text = PAGE.read_text()
    for name in (*strategies.__all__, *testing.__all__):
        assert f"| `{name}` |" in text


def test_each_factory_makes_a_new_class_each_time():
    assert {factory.__name__ for factory in FACTORIES} == set(testing.__all__)
    for factory, arguments in FACTORIES.items():
        assert factory(**arguments) is not factory(**arguments)
        text = inspect.getdoc(factory)
        for name in inspect.signature(factory).parameters:
            assert re.search(rf"^{name} : ", text, re.M), (factory, name)


def test_the_strategies_say_why_they_draw():
    for name in strategies.__all__:
        assert len(inspect.getdoc(getattr(strategies, name)).splitlines()) >= 3, name


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + tables())
