"""Run the cases of the Keras layer on one of its backends, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("keras_cases.py")
FEWEST = 50  # so that a run that finds no cases is not taken for one that passes


def python(backend, *arguments):
    environment = {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(CASES.parents[2]), *sys.path]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, cwd=CASES.parents[2],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def check_cases(backend):
    """Fail unless all cases pass on that backend, none skipped."""
    ran = python(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES))
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    last = ran.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", last)
    assert passed, last
    assert int(passed[1]) >= FEWEST, last
    assert "skipped" not in last, last
