"""Vectors as text: a ``.csv`` file with a line for each vector and a column for each number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InputFileError
from ..files.atomic import NewFile

DIGITS = {4: "%.9g", 8: "%.17g"}  # that give a number of so many bytes back exactly


def read(path: str) -> np.ndarray:
    """Return the vectors (N, D) of a file, float32; a first line of names is left out."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline()
            lines = [*([first] if _numbers(first) else []), *file]
        if not first.strip():
            raise ValueError("its first line is empty")
        if any(each.strip() for each in lines):
            return np.loadtxt(lines, np.float32, delimiter=",", ndmin=2)
        return np.empty((0, first.count(",") + 1), np.float32)
    except Exception as error:  # of any kind, for damaged text
        raise InputFileError(
            f"{path!r} is not a .csv file of vectors ({error}); expected a line per vector, a "
            "number per dimension, commas between."
        ) from error


def _numbers(line: str) -> bool:
    try:
        return bool([float(each) for each in line.split(",")])
    except ValueError:
        return False


@contextlib.contextmanager
def sink(path: Any, dim: int, dtype: Any) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Yield ``put(first, vectors)``; the file is put in its place on success."""
    digits = DIGITS[np.dtype(dtype).itemsize]
    with NewFile(path) as new:
        new.file.write(f"{','.join(f'dim_{d}' for d in range(dim))}\n".encode())
        yield lambda start, some: np.savetxt(new.file, some, digits, ",")
