"""Data files of the command line: ``.npy`` and, for levels of several lengths, ``.npz``."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputFileError
from ..newfile import NewFile

ROWS = 1 << 16  # vectors encoded or decoded at once; files may be larger than memory


def load(path: str, what: str, kinds: str, ranks: tuple[int, ...]) -> np.ndarray:
    """Return the array of an .npy file, mapped, or say what is wrong with the file."""
    wanted = {"f": "floating-point numbers", "iu": "integers"}[kinds]
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header is parsed as Python, which raises what it likes
        array = _empty_array(path)  # of which there is nothing to map
        if array is None:
            raise InputFileError(
                f"{path!r} is no readable .npy file ({error}). Write one with numpy.save."
            ) from error
    if not isinstance(array, np.ndarray):
        raise InputFileError(f"{path!r} is an .npz archive; wanted one array, from numpy.save.")
    if array.dtype.kind not in kinds:
        raise InputFileError(f"{path!r} holds {array.dtype}; wanted {what}: {wanted}.")
    if array.ndim not in ranks:
        raise InputFileError(
            f"{path!r} holds an array of shape {array.shape}; wanted {what} of rank "
            f"{' or '.join(map(str, ranks))}."
        )
    return array


def _empty_array(path: str) -> np.ndarray | None:
    """Return the array of an .npy file without a number in it; None if it is anything else."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with open(path, "rb") as file:  # only the header: what it says of sizes may be a lie
            shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except Exception:
        return None
    return np.empty(shape, dtype) if 0 in shape and not dtype.hasobject else None


def check_folder(path: str) -> None:
    """Raise before hours of work, not after, if the result cannot be written."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to write {path!r} into.")


@contextlib.contextmanager
def written(path: str, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Yield an array that becomes the .npy file `path` when all went well, and not before."""
    check_folder(path)
    if math.prod(max(1, length) for length in shape) * np.dtype(dtype).itemsize >= 1 << 63:
        raise InputFileError(f"{path!r} cannot be written: no array has shape {shape}.")
    with NewFile(path) as new:
        if 0 in shape:  # nothing to map
            array = np.empty(shape, dtype)
            yield array
            np.save(new.file, array)
        else:
            mapped = np.lib.format.open_memmap(new.name, "w+", dtype, shape)
            _reserve(new.file)
            yield mapped
            mapped.flush()
            del mapped


def _reserve(file: Any) -> None:
    """Take room on the disk for all of a file: a map into a full one ends in a bus error."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems cannot
                raise


def check_levels(path: str) -> None:
    """Raise unless a file of this name can hold codes of several lengths."""
    if Path(path).suffix != ".npz":
        raise InputFileError(
            f"{path!r} cannot hold these codes: the levels have codes for different numbers of "
            "frames. Name a file .rvq or .npz."
        )


def write_levels(path: str, levels: Sequence[np.ndarray]) -> None:
    """Write codes of several lengths to the .npz file `path`, as level_0, level_1 and so on."""
    named: dict[str, Any] = {f"level_{n}": each for n, each in enumerate(levels)}
    with NewFile(path) as new:
        np.savez(new.file, **named)


def load_levels(path: str) -> list[np.ndarray]:
    """Return what `write_levels` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [f"level_{n}" for n in range(len(archive.files))]
            return [archive[name] for name in names]
    except Exception as error:  # archives and headers raise what they like
        raise InputFileError(
            f"{path!r} is no .npz file of codes, level_0, level_1 and so on ({error})."
        ) from error


def batches(count: int, name: str, block: int = 1, streams: int = 1) -> Iterator[slice]:
    """Yield slices over `count` frames, of whole blocks, `ROWS` vectors of all streams each.

    Under a progress bar if somebody watches.
    """
    step = max(1, ROWS // (block * max(1, streams))) * block
    starts: Any = range(0, count, step)
    if sys.stderr.isatty() and len(starts) > 1:
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            starts = tqdm(starts, desc=name, unit="batch", leave=False)
    for start in starts:
        yield slice(start, min(start + step, count))
