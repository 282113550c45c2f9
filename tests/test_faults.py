"""The list of seeded faults fits the source, docs/faults.json fits the list, the command works."""

import json
from pathlib import Path

import faults
import pytest
from faults import Fault
from faults._command import main
from faults._fault import NotOnceError
from faults._tokens import tokens

import rvq_np
from rvq_np.testing import oracle

ROOT = Path(rvq_np.__file__).parents[1]
ORACLE = ROOT / "rvq_np" / "testing" / "oracle.py"
TESTS_OF_ORACLE = "tests/test_oracle.py::test_a_tie_goes_to_the_lowest_index"


@pytest.mark.quick
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_found_once_and_changes_the_code(fault):
    path, changed = fault.in_folder(ROOT)
    python = path.suffix == ".py"
    if python:
        compile(changed, path, "exec")
    before = tokens(path.read_text(), python=python)
    assert [each.text for each in before] != [each.text for each in tokens(changed, python=python)]
    for killer in fault.killers.split():
        assert (ROOT / killer.partition("::")[0]).is_file()


@pytest.mark.quick
def test_the_answers_are_of_all_faults_and_each_was_killed():
    answers = json.loads((ROOT / "docs" / "faults.json").read_text())
    assert list(answers) == [fault.name for fault in faults.FAULTS]
    assert len(answers) == len(faults.FAULTS) >= 40
    changes = {(fault.where, fault.before, fault.after) for fault in faults.FAULTS}
    assert len(changes) == len(answers)
    kit = ROOT / "rvq_np" / "testing"
    properties = (kit / "conformance.py").read_text() + (kit / "arrays.py").read_text()
    for fault in faults.FAULTS:
        path, *_, test = answers[fault.name].split("::")
        assert any(path == killer.partition("::")[0] for killer in fault.killers.split())
        assert f"def {test}(" in (ROOT / path).read_text() + properties


def seeded(name, before, after, where="nearest"):
    return Fault(name, where, before, after, TESTS_OF_ORACLE)


@pytest.mark.slow
def test_the_command_tells_what_kills_a_fault_and_fails_where_nothing_does(tmp_path, capsys):
    text = ORACLE.read_text()
    doc = oracle.nearest.__doc__
    some = [
        seeded("never seen", f'"""{doc}"""', f'"""{doc.upper()}"""'),
        seeded("seen by a test", "def nearest(residual", "def nearest_to(residual"),
    ]
    answers = tmp_path / "answers.json"
    assert main(["--only", "by a test", "--write"], some, answers) == 0
    assert f"seen by a test: {TESTS_OF_ORACLE}" in capsys.readouterr().out
    assert main(["--only", "never seen", "--write"], some, answers) == 1
    assert "SURVIVED  never seen  [nearest]" in capsys.readouterr().out
    assert json.loads(answers.read_text()) == {
        "never seen": None,
        "seen by a test": TESTS_OF_ORACLE,
    }
    assert ORACLE.read_text() == text


@pytest.mark.quick
def test_a_fault_that_is_not_there_once_is_refused():
    with pytest.raises(NotOnceError, match=r"0 times in nearest.*rvq_np/testing/oracle.py"):
        main([], [seeded("gone", "no such text", "")])
    with pytest.raises(NotOnceError, match=r"lost: its text is \d+ times"):
        main([], [seeded("lost", "return", "", where="encode")])
    with pytest.raises(NotOnceError, match="0 times in nowhere, which is in no file"):
        main([], [seeded("moved out", "return", "", where="nowhere")])


PACKAGE = {
    "here/one.py": """
class Given:
    def taken(self, x):
        if x > 1:  # a reason
            return [
                x,
                'text',
            ]
        return None

def taken(x):
    return x + 1
""",
    "there/two.cu": """
#define SIZE 3
constexpr int LIMIT = 4;
template <int N>
__device__ static void fill(int* out, int n) {
  if (n < LIMIT) { out[n] = 1; }  // a reason
}
extern "C" __global__ void __launch_bounds__(32) run(int* out) { fill<1>(out, 1); }
""",
}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("where", "before", "after", "line"),
    [
        ("Given.taken", 'if x > 1: return [x, "text"]', "if x:\n    pass", "        if x:"),
        ("Given.taken", 'x, "text"]', "x]\nprint()", "                print()"),
        ("taken", "x + 1", "x", "    return x"),
        ("two.cu:LIMIT", "= 4", "= 5", "constexpr int LIMIT = 5;"),
        ("two.cu:fill", "n < LIMIT", "n > 0", "  if (n > 0) { out[n] = 1; }  // a reason"),
        ("two.cu:run", "fill<1>", "fill<2>",
         'extern "C" __global__ void __launch_bounds__(32) run(int* out) { fill<2>(out, 1); }'),
    ],
)  # fmt: skip
def test_a_fault_finds_its_function_wherever_it_lives_and_however_it_is_laid_out(
    where, before, after, line, tmp_path
):
    for name, text in PACKAGE.items():
        file = tmp_path / "rvq_np" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    path, changed = seeded("some", before, after, where).in_folder(tmp_path)
    assert line in changed.splitlines()
    assert changed != path.read_text()


@pytest.mark.quick
def test_a_sample_follows_its_seed(capsys):
    shown = []
    for seed in ("one", "one", "another"):
        assert main(["--list", "--sample", "6", "--seed", seed]) == 0
        shown.append(capsys.readouterr().out)
    assert len(shown[0].splitlines()) == 6
    assert shown[0] == shown[1] != shown[2]
    with pytest.raises(SystemExit):
        main(["--only", "no such fault"])
