"""Faults put into a copy of the checkout, and the tests that notice."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds a fault may take
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "_build", "generated")


class Copy:
    """A copy of the checkout at `root`, in a folder of its own."""

    def __init__(self, root, folder):
        self.folder = Path(folder)
        self.root = self.folder / "checkout"
        shutil.copytree(root, self.root, ignore=LEFT_OUT)

    @classmethod
    @contextlib.contextmanager
    def of(cls, root=ROOT):
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            yield cls(root, folder)

    @contextlib.contextmanager
    def having(self, fault):
        """Put a fault in for a while; raise NotOnceError where it cannot be."""
        path, changed = fault.in_folder(self.root)
        before, times = path.read_bytes(), path.stat()
        path.write_text(changed)
        try:
            yield path.relative_to(self.root)
        finally:
            path.write_bytes(before)  # as old as it was, or Numba compiles all of it again
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def killer(self, fault, tests):
        """Return the first of some tests that fails with the fault, or None."""
        with self.having(fault) as path:
            # Kernels with a fault stay apart, others are compiled once for all faults.
            kernels = path.is_relative_to("rvq_np/kernels")
            with tempfile.TemporaryDirectory(dir=self.folder) as private:
                cache = private if kernels else self.folder / "numba"
                code, output = self.pytest(["-x", *tests], cache)
        if code not in (0, 1):
            raise RuntimeError(f"{fault.name}: pytest ended with {code}:\n{output}")
        found = re.search(r"^FAILED (.+?)(?: - |$)", output, re.M)
        if code == 1 and not found:
            raise RuntimeError(f"{fault.name}: no test failed, but:\n{output}")
        return found and found.group(1)

    def pass_as_they_are(self, tests):
        """Return whether tests pass without a fault, and what pytest said."""
        code, output = self.pytest(tests, self.folder / "numba")
        return code == 0, output

    def pytest(self, arguments, cache):
        """Run tests in the copy; return the exit code and the output."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",  # or bytecode of a file might outlive its fault
            "NUMBA_CACHE_DIR": str(cache),
        }
        line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        # `-k` keeps tests/peers from telling that not all cells of its table were seen.
        line += ["--hypothesis-profile=faults", "--tb=short", "-k", "test", *arguments]
        done = subprocess.run(
            line, cwd=self.root, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
        return done.returncode, done.stdout + done.stderr
