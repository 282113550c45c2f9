"""The list of seeded faults fits the source, docs/faults.json fits the list, the command works."""

import json
from pathlib import Path

import faults
import pytest
from faults import Fault
from faults._command import main
from faults._fault import NotOnceError

import rvq_np

ROOT = Path(rvq_np.__file__).parents[1]
ORACLE = "rvq_np/testing/oracle.py"
TESTS_OF_ORACLE = "tests/test_oracle.py::test_a_tie_goes_to_the_lowest_index"


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_put_in(fault):
    changed = fault.in_folder(ROOT)
    if fault.file.endswith(".py"):
        compile(changed, fault.file, "exec")
    assert fault.before != fault.after
    for killer in fault.killers.split():
        assert (ROOT / killer.partition("::")[0]).is_file()


def test_the_answers_are_of_all_faults_and_each_was_killed():
    answers = json.loads((ROOT / "docs" / "faults.json").read_text())
    assert list(answers) == [fault.name for fault in faults.FAULTS]
    assert len(answers) == len(faults.FAULTS) >= 40
    assert len({(fault.file, fault.before, fault.after) for fault in faults.FAULTS}) == len(answers)
    kit = ROOT / "rvq_np" / "testing"
    properties = (kit / "conformance.py").read_text() + (kit / "arrays.py").read_text()
    for fault in faults.FAULTS:
        assert answers[fault.name]["file"] == fault.file
        path, *_, test = answers[fault.name]["test"].split("::")
        assert any(path == killer.partition("::")[0] for killer in fault.killers.split())
        assert f"def {test}(" in (ROOT / path).read_text() + properties


def seeded(name, before, after):
    return Fault(name, ORACLE, before, after, TESTS_OF_ORACLE)


def test_the_command_tells_what_kills_a_fault_and_fails_where_nothing_does(tmp_path, capsys):
    text = (ROOT / ORACLE).read_text()
    first = '"""' + text.split('"""')[1][:20]
    some = [
        seeded("seen by nobody", first, first.upper()),
        seeded("seen by a test", "def encode(", "def encode_differently("),
    ]
    answers = tmp_path / "answers.json"
    assert main(["--only", "by a test", "--write"], some, answers) == 0
    assert f"seen by a test: {TESTS_OF_ORACLE}" in capsys.readouterr().out
    assert main(["--only", "nobody", "--write"], some, answers) == 1
    assert f"SURVIVED  seen by nobody  [{ORACLE}]" in capsys.readouterr().out
    assert json.loads(answers.read_text()) == {
        "seen by nobody": {"file": ORACLE, "test": None},
        "seen by a test": {"file": ORACLE, "test": TESTS_OF_ORACLE},
    }
    assert (ROOT / ORACLE).read_text() == text


def test_a_fault_whose_text_is_not_there_once_is_refused():
    with pytest.raises(NotOnceError, match="0 times"):
        main([], [seeded("gone", "no such text", "")])
    with pytest.raises(NotOnceError, match=r"lost: its text is \d+ times"):
        main([], [seeded("lost", "return", "")])


def test_a_sample_follows_its_seed(capsys):
    shown = []
    for seed in ("one", "one", "another"):
        assert main(["--list", "--sample", "6", "--seed", seed]) == 0
        shown.append(capsys.readouterr().out)
    assert len(shown[0].splitlines()) == 6
    assert shown[0] == shown[1] != shown[2]
    with pytest.raises(SystemExit):
        main(["--only", "no such fault"])
