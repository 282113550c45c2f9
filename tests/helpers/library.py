"""A library of kernels for this processor, compiled once for all workers of a run of tests."""

import os
import subprocess
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: each worker compiles its own
    fcntl = None  # type: ignore


def native(tmp_path_factory, target="native"):
    """Return the path of the library that ``rvq-np compile`` makes for a target."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ and fcntl is not None:
        folder = folder.parent
    path = folder / f"kernels-{target}.so"
    with open(folder / f"kernels-{target}.lock", "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            line = [sys.executable, "-m", "rvq_np", "compile", "--target", target, "-o", str(path)]
            root = Path(__file__).parents[2]
            done = subprocess.run(line, capture_output=True, text=True, cwd=root)
            assert done.returncode == 0, done.stderr
            assert str(path) in done.stdout
    return path
