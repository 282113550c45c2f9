"""Where a command writes to: checked before any work.

A name ends in one of the endings that the command can write, in any case of letters.  ``-`` is
standard output, and a pipe or device without an ending is written into: both get the first ending
of the command.  An output is never one of the inputs.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from ..errors import ParameterError
from ..files import atomic

ENDINGS = {
    "fit": (".safetensors",),
    "encode": (".rvq", ".npy", ".npz", ".csv", ".parquet"),
    "decode": (".npy", ".wav", ".csv", ".parquet"),
    "compile": (".so", ".dylib", ".dll"),
    "convert": (".safetensors",),
    "convert --to faiss": (".faissindex", ".faiss", ".index"),
}


class Output(NamedTuple):
    """A checked place to write to.

    Attributes
    ----------
    path : str or os.PathLike
        For `rvq_np.files.atomic.NewFile`.
    ending : str
        In small letters: ".rvq".
    said : text stream
        What a command tells goes here: not into its own output.
    """

    path: Any
    ending: str
    said: TextIO


def of(command: str, path: str, inputs: Sequence[str | None]) -> Output:
    """Return where `command` writes to under the name `path`.

    Raises
    ------
    ParameterError
        If the ending is not one that the command writes, if `path` is one of `inputs`, or if it is
        standard output and that is a terminal.
    OSError
        As `rvq_np.files.atomic.check`.
    """
    endings = ENDINGS[command]
    if path == "-":
        if sys.stdout.isatty():
            raise ParameterError(
                f"{command}: -o - writes bytes to standard output, which is a terminal. Redirect "
                "it, or name a file."
            )
        return Output(atomic.STDOUT, endings[0], sys.stderr)
    ending = _ending(path)
    found = atomic.check(path) if ending in endings else _stat(path)
    if ending not in endings:
        is_folder = found is not None and stat.S_ISDIR(found.st_mode)
        if ending or is_folder or atomic.is_replaced(path, found):
            raise ParameterError(
                f"{command}: {path!r} ends in {ending or 'no ending'}; expected the name of a file "
                f"to write that ends in {_listed(endings)}."
            )
        ending = endings[0]
        found = atomic.check(path)
    if atomic.is_replaced(path, found):
        _refuse_inputs(command, path, inputs)
    return Output(path, ending, sys.stderr if _is_standard_output(found) else sys.stdout)


def _ending(path: str) -> str:
    """Return the ending of a name, or, where it has none, of what it links to."""
    own = os.path.splitext(path)[1].lower()
    return own or os.path.splitext(os.path.realpath(path))[1].lower()


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _listed(endings: Sequence[str]) -> str:
    *first, last = endings
    return f"{', '.join(first)} or {last}" if first else last


def _refuse_inputs(command: str, path: str, inputs: Sequence[str | None]) -> None:
    for each in inputs:
        if each is None:
            continue
        held = [each]
        if os.path.isdir(each):
            held = [entry.path for entry in os.scandir(each)]
        if any(_is_same(one, path) for one in held):
            what = "the input" if held == [each] else "a file of the input"
            raise ParameterError(
                f"{command}: the output {path!r} is {what} {each!r}, which would be lost; expected "
                "another name."
            )


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is still to be written
        return os.path.realpath(one) == os.path.realpath(other)


def _is_standard_output(found: os.stat_result | None) -> bool:
    """Whether a pipe or device is where standard output goes, as ``/dev/stdout`` is."""
    if found is None:
        return False
    try:
        return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no file behind it
        return False
