"""What ``docs/conformance.md`` tells of other packages is what the kit says of them today."""

import json

import pytest
from conformance import batches, report, run

KNOWN = json.loads(run.KNOWN.read_text())


@pytest.mark.parametrize("key", run.PACKAGES)
def test_the_verdicts_are_those_that_are_written(key):
    found = run.verdicts(run.PACKAGES[key])
    reported = KNOWN[key]
    message = f"written for {reported['package']} {reported['version']}: python -m conformance"
    assert found == reported["verdicts"], message


def test_the_page_is_made_of_what_was_found():
    assert set(KNOWN) == set(run.PACKAGES)
    page = (run.DOCS / "conformance.md").read_text()
    facts = json.loads(batches.KNOWN.read_text())
    assert page == report.page(KNOWN, batches.section(facts))


def test_each_failure_has_a_counter_example():
    for about in KNOWN.values():
        reported = {name: each for kit in about["verdicts"].values() for name, each in kit.items()}
        assert {name for name, each in reported.items() if each != "passes"} == set(
            about["failures"]
        )
        assert all(failure["case"] for failure in about["failures"].values())
