"""The command ``rvq-np``: fit, encode, decode, info, verify, convert, ids,
warmup, compile, bench, demo.

Vectors are ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` files, or sounds.  Codes are ``.rvq``,
``.npy``, ``.npz``, ``.csv`` or ``.parquet`` files.  Models are safetensors files of rvq_np, or
published checkpoints.  ``-`` is standard input for vectors and codes, and ``-o -`` is standard
output.  Files may be larger than memory.  Results are printed to standard output, with ``--json``
as one JSON object.  Progress bars are printed to standard error if that is a terminal.  Exit codes:
0, success; 1, failure, with one line that says why; 2, invalid command line.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .. import errors
from ..errors import RvqError
from . import parser, streams, terminal

__all__ = [
    "main",
]


def __dir__() -> list[str]:
    return sorted(__all__)


WARNINGS = tuple(
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Warning)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = parser.made().parse_args(arguments)
    try:
        with (
            terminal.any_text(),
            _warned_in_one_line(),
            streams.spooled(options.command, options),
        ):
            options.run(options)
    except (RvqError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            # the reader of standard output closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"rvq-np: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rvq-np: interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _warned_in_one_line() -> Iterator[None]:
    """Show each warning of ours as a line of its own, without the place in the program."""

    def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
        if issubclass(category, WARNINGS):
            print(f"rvq-np: warning: {_one_line(message)}", file=sys.stderr)
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        for category in WARNINGS:
            warnings.simplefilter("always", category)
        yield


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
