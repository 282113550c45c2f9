"""Data files of the command line: ``.npy`` and, for stages of several lengths, ``.npz``."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputFileError
from ..files.atomic import NewFile
from . import terminal

ROWS = 1 << 16  # vectors encoded or decoded at once; files may be larger than memory


def load(path: str, what: str, kinds: str, ranks: tuple[int, ...]) -> np.ndarray:
    """Return the array of an .npy file, memory-mapped, or raise `InputFileError`."""
    expected = {"f": "floating-point numbers", "iu": "integers"}[kinds]
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers written by Python 2
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # headers are parsed as Python: any exception is possible
        array = _empty_array(path)  # which cannot be mapped
        if array is None:
            raise InputFileError(
                f"{path!r} is not a readable .npy file ({error}). Write one with numpy.save."
            ) from error
    if not isinstance(array, np.ndarray):
        raise InputFileError(f"{path!r} is an .npz archive; expected one array, from numpy.save.")
    if array.dtype.kind not in kinds:
        raise InputFileError(f"{path!r} holds {array.dtype}; expected {what}: {expected}.")
    if array.ndim not in ranks:
        raise InputFileError(
            f"{path!r} holds an array of shape {array.shape}; expected {what} of rank "
            f"{' or '.join(map(str, ranks))}."
        )
    return array


def _empty_array(path: str) -> np.ndarray | None:
    """Return the array of an .npy file if its size is 0, else None."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with open(path, "rb") as file:  # only the header: its shape may be false
            shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except Exception:
        return None
    return np.empty(shape, dtype) if 0 in shape and not dtype.hasobject else None


@contextlib.contextmanager
def written(path: Any, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Yield an array that becomes the .npy file `path` on success, not before."""
    if math.prod(max(1, length) for length in shape) * np.dtype(dtype).itemsize >= 1 << 63:
        raise InputFileError(
            f"{str(path)!r} cannot be written: an array of shape {shape} is too large."
        )
    with NewFile(path) as new:
        if 0 in shape:  # nothing to map
            array = np.empty(shape, dtype)
            yield array
            np.save(new.file, array)
        else:
            about = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                     "fortran_order": False, "shape": shape}  # fmt: skip
            np.lib.format.write_array_header_1_0(new.file, about)
            start = new.file.tell()
            mapped = np.memmap(new.file, dtype, "r+", start, shape)
            _reserve(new.file)
            yield mapped
            mapped.flush()
            del mapped


def _reserve(file: Any) -> None:
    """Reserve disk space for the whole file: writing to a map on a full disk is a bus error."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in (
                errno.EOPNOTSUPP,
                errno.EINVAL,
            ):  # not supported by some file systems
                raise


def write_stages(path: Any, stages: Sequence[np.ndarray]) -> None:
    """Write the codes of each stage to the .npz file `path`, as level_0, level_1 and so on."""
    named: dict[str, Any] = {f"level_{n}": each for n, each in enumerate(stages)}
    with NewFile(path) as new:
        np.savez(new.file, **named)


def load_stages(path: str) -> list[np.ndarray]:
    """Return what `write_stages` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [f"level_{n}" for n in range(len(archive.files))]
            return [archive[name] for name in names]
    except Exception as error:  # archives and headers may raise any exception
        raise InputFileError(
            f"{path!r} is not an .npz file of codes, level_0, level_1 and so on ({error})."
        ) from error


def batches(count: int, name: str, block: int = 1, streams: int = 1) -> Iterator[slice]:
    """Yield slices over `count` frames, of whole blocks, `ROWS` vectors of all streams each.

    Shows a progress bar if standard error is a terminal.
    """
    step = max(1, ROWS // (block * max(1, streams))) * block
    starts = range(0, count, step)
    for start in terminal.shown(starts, name, len(starts)):
        yield slice(start, min(start + step, count))
