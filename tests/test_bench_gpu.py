"""The benchmark for GPUs runs without one, on the emulated GPU, whose times mean nothing."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
RESULTS = ROOT / "bench" / "RESULTS-gpu.md"


def bench(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        timeout=3000,
    )


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """What a dry run of every question wrote: the report and the JSON."""
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        pytest.skip("the emulated GPU is built by g++, for x86-64")
    path = tmp_path_factory.mktemp("gpu") / "dry.md"
    done = bench("--dry-run", "--output", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text(encoding="utf-8"), json.loads(path.with_suffix(".json").read_text())


def test_a_dry_run_says_first_that_no_gpu_ran(dry):
    report, made = dry
    assert report.startswith("**NO GPU ran")
    assert made["dry_run"]
    assert not made["gpu"]


def test_a_dry_run_asks_every_question(dry, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.gpu.questions import QUESTIONS

    _, made = dry
    assert list(made["answers"]) == list(QUESTIONS)
    for name, answer in made["answers"].items():
        assert answer["state"] == "asked", name
        assert {"check", "figure", "note"} & {row["kind"] for row in answer["rows"]}, name


def test_a_dry_run_reaches_no_target(dry):
    report, made = dry
    assert len(made["targets"]) == 6
    for target in made["targets"]:
        assert target["value"] is None
        assert target["met"] is None
    assert report.count("not measured") == 6


def test_only_peers_that_are_not_here_are_missing_from_a_dry_run(dry):
    _, made = dry
    for answer in made["answers"].values():
        for row in answer["rows"]:
            if row["kind"] == "trouble":
                assert "not importable" in row["message"], row
            if row["kind"] == "check":
                assert row["ok"], row


def test_targets_are_met_by_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.gpu import ceilings, implementations, report

    def row(who, seconds, **more):
        return {"kind": "figure", "work": "w", "who": who, "seconds": seconds, **more}

    ours, eager = implementations.OURS, implementations.EAGER
    rows = {
        "ceilings": [row(ceilings.HALF, 1.0, flops=8), row(ceilings.COPY, 1.0, bytes=10)],
        "encode": [row(ours, 2.0, flops=8), row(eager, 6.0), row(implementations.COMPILED, 2.9)],
        "decode": [
            row(ours, 1.0, bytes=7) | {"work": "D=128, K=1024, Q=1, N=9"},
            row(ours, 1.0, bytes=1) | {"work": "D=128, K=1024, Q=8, N=9"},
        ],
        "kmeans": [row(ours, 1.0), row(eager, 1.0), row(ours, 1.0), row(eager, 3.5)],
        "frame": [row(ours, 61e-6)],
    }
    found = report.targets(report.Results(rows))
    assert [each.met for each in found] == [True, False, True, True, True, False]
    assert [each.text for each in found] == ["3.00", "1.45", "50%", "70%", "3.50", "61 µs"]
    assert not any(each.met for each in report.targets(report.Results(rows, dry=True)))


def test_no_row_names_the_folder_of_the_checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.gpu import report

    trouble = {"kind": "trouble", "who": "w", "work": "", "message": "m",
               "traceback": f'File "{ROOT}/bench/gpu/context.py", line 1'}  # fmt: skip
    made = report.as_json(report.Results({"encode": [trouble]}))
    assert (
        made["answers"]["encode"]["rows"][0]["traceback"] == 'File "bench/gpu/context.py", line 1'
    )
    committed = RESULTS.with_suffix(".json")
    assert not committed.exists() or str(ROOT) not in committed.read_text()


def test_a_dry_run_leaves_the_results_alone():
    done = bench("--dry-run", "--output", RESULTS)
    assert done.returncode == 2
    assert "a dry run does not write RESULTS-gpu.md" in done.stderr


def test_the_results_in_the_repository_are_those_of_no_run(tmp_path):
    assert bench("--unmeasured", "--output", tmp_path / "none.md").returncode == 0
    made = (tmp_path / "none.md").read_text(encoding="utf-8")
    assert made.startswith("**No GPU has run this")
    committed = RESULTS.read_text(encoding="utf-8")
    if committed.startswith("**No GPU"):
        assert committed == made
    else:  # whoever has a GPU commits what it measured, with the rows it is made of
        assert json.loads(RESULTS.with_suffix(".json").read_text())["gpu"]


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    output = tmp_path / "none.md"
    done = bench("--output", output, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("bench.gpu: no GPU to run on: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not output.exists()
