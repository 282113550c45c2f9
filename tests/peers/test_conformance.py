"""What ``docs/conformance.md`` tells of other packages is what the kit says of them today."""

import json

import conformance
import conformance_report
import pytest

KNOWN = json.loads(conformance.KNOWN.read_text())


@pytest.mark.parametrize("key", conformance.PACKAGES)
def test_the_verdicts_are_those_that_are_written(key):
    found = conformance.verdicts(conformance.PACKAGES[key])
    told = KNOWN[key]
    message = f"written for {told['package']} {told['version']}: python tests/peers/conformance.py"
    assert found == told["verdicts"], message


def test_the_page_is_made_of_what_was_found():
    assert set(KNOWN) == set(conformance.PACKAGES)
    page = (conformance.DOCS / "conformance.md").read_text()
    assert page == conformance_report.page(KNOWN)


def test_each_failure_has_a_counter_example():
    for about in KNOWN.values():
        told = {name: each for kit in about["verdicts"].values() for name, each in kit.items()}
        assert {name for name, each in told.items() if each != "passes"} == set(about["failures"])
        assert all(failure["case"] for failure in about["failures"].values())
