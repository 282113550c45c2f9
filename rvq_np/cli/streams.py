"""``-`` as an input: standard input, kept in a temporary file while the command runs.

Readers map files and look at their first bytes, which a pipe does not allow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

from ..errors import ParameterError
from ..files import kinds

# What may be standard input, by the name of the argument; of `info`, the model is any file.
READ = ("vectors", "codes")
NAMED = {"model": "--model", "start": "--start", "checkpoint": "--checkpoint", "names": "--names",
         "wav": "--wav"}  # fmt: skip


@contextlib.contextmanager
def spooled(command: str, options: argparse.Namespace) -> Iterator[None]:
    """Let the argument that is ``-`` name a file with all that standard input has.

    Raises
    ------
    ParameterError
        If an argument is ``-`` that must be a file, several are, or standard input is a terminal.
    """
    read = (*READ, "model") if command == "info" else READ
    asked = [name for name in read if getattr(options, name, None) == "-"]
    for name, said in NAMED.items():
        if getattr(options, name, None) == "-" and name not in read:
            raise ParameterError(
                f"{command}: {said} is -, standard input; expected a file. Vectors and codes can "
                "come from standard input."
            )
    if not asked:
        yield
        return
    if len(asked) > 1:
        raise ParameterError(
            f"{command}: {' and '.join(asked)} are both -; expected one of them, as there is one "
            "standard input."
        )
    if sys.stdin.isatty():
        raise ParameterError(
            f"{command}: - is standard input, which is a terminal. Redirect a file into it, or "
            "name a file."
        )
    with tempfile.TemporaryDirectory(prefix="rvq-np-") as folder:
        path = os.path.join(folder, "standard-input")
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        found = kinds.of(path).name
        ending = "csv" if found in ("csv", "text") else found
        os.rename(path, f"{path}.{ending}")
        setattr(options, asked[0], f"{path}.{ending}")
        yield
