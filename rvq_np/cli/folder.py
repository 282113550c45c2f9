"""``rvq-np encode`` of a folder: every file of vectors in it becomes a file of codes in another.

A part is a file: ``.npy``, ``.parquet`` or a folder ``.zarr``.  It is read and written in batches,
here or by a task on a worker of a cluster, and renamed into place when it is whole.  Then it is
entered in the journal of the output folder, with the checksum of what was written.  A run that is
started again keeps the parts whose journal entries, input and checksum still agree, and does the
others.  The manifest says which codebooks the codes are of, and at last that all parts are there.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import sys
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..codec import chunks
from ..codec import encode as to_codes
from ..errors import ClusterError, InputFileError, ParameterError, RvqError, ShapeError
from ..files import atomic
from ..files.atomic import NewFile
from . import codes, files, outputs, parquet, said, terminal, vectors

MANIFEST, JOURNAL = "rvq-np.json", "rvq-np.journal"
KINDS = ("parquet", "rvq", "npy")
SUFFIXES = (".npy", ".parquet", ".zarr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `encode` that are for a folder."""
    parser.add_argument(
        "--to", choices=KINDS,
        help="for a folder: files to write (default: parquet for .parquet files, else npy)",
    )  # fmt: skip
    parser.add_argument("--column", help="for Parquet files: the column of vectors, as lists")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="for a folder: Dask scheduler whose workers encode the files, as tcp://host:8786; all "
        "machines must see the folders under the same paths",
    )  # fmt: skip


def is_one(path: str) -> bool:
    """Return whether vectors are a folder of files, not a file."""
    return Path(path).is_dir()


def encode(options: argparse.Namespace, quantizer: Any) -> None:
    """Encode every file of a folder that is not done yet; print what was done."""
    of_one = options.frame_rate is not None or options.front_end is not None or options.resample
    of_one = of_one or options.bandwidth is not None
    if quantizer.block > 1 or of_one or options.output == "-":
        raise ParameterError(
            "encode: --frame-rate, --bandwidth, --front-end, --resample, -o - and models with "
            f"strides are for one file; got the folder {options.vectors!r}. Encode its files one "
            "by one."
        )
    source, target = Path(options.vectors).absolute(), Path(options.output).absolute()
    parts = _parts(source, target, options.to)
    asked = {
        "codebooks": quantizer.fingerprint, "n_q": quantizer.n_q, "beam_size": options.beam_size,
        "column": options.column, "to": options.to,
    }  # fmt: skip
    done = _resumed(target, asked, source, parts)
    left = [part for part in parts if part not in done]
    job = {"column": options.column, "beam_size": options.beam_size, "threads": options.threads}
    rows = sum(each["rows"] for each in done.values())
    with open(target / JOURNAL, "a", encoding="utf-8") as journal:
        entries = _run(options, quantizer, source, target, parts, left, job)
        for entry in terminal.shown(entries, "encode", len(left), "file"):
            journal.write("\n" + json.dumps(entry))  # an interrupted line may be the last
            journal.flush()
            os.fsync(journal.fileno())
            rows += entry["rows"]
    _write_manifest(target, {**asked, "parts": len(parts), "rows": rows, "complete": True})
    about = {"output": str(target), "files": len(parts), "vectors": rows, "verified": len(done)}
    line = (
        f"{target}: {len(parts)} files, {rows:,} vectors; {len(done)} were there already and are "
        "verified"
    )
    said.result(options, about, [line])


def _parts(source: Path, target: Path, to: str | None) -> dict[str, str]:
    """Return the files to read and the files they become, relative to the two folders."""
    if source == target or target in source.parents or source in target.parents:
        raise ParameterError(
            f"encode: --output is {str(target)!r} for the folder {str(source)!r}; expected a "
            "folder beside it."
        )
    found = [source] if source.suffix == ".zarr" else [
        each for suffix in SUFFIXES for each in source.rglob(f"*{suffix}")
        if not any(above.suffix == ".zarr" for above in each.relative_to(source).parents)
    ]  # fmt: skip
    parts: dict[str, str] = {}
    for path in sorted(found):
        kind = to or ("parquet" if path.suffix == ".parquet" else "npy")
        name = str(path.relative_to(source)) if path != source else "."
        parts[name] = str(Path(path.name if name == "." else name).with_suffix(f".{kind}"))
    if not parts:
        raise InputFileError(
            f"encode: {str(source)!r} holds no file that ends in {', '.join(SUFFIXES)}."
        )
    times = collections.Counter(parts.values())
    twice = [name for name, out in parts.items() if times[out] > 1]
    if twice:
        raise InputFileError(f"encode: {twice} would become one file. Rename one of them.")
    return parts


def _resumed(
    target: Path, asked: dict[str, Any], source: Path, parts: dict[str, str]
) -> dict[str, Any]:
    """Return the journal's entries of parts that are whole and still of their input."""
    if not target.exists():
        atomic.check(target)
        target.mkdir()
    manifest = target / MANIFEST
    if not manifest.exists():
        if any(target.iterdir()):
            raise ParameterError(
                f"encode: {str(target)!r} is not empty and holds no {MANIFEST} of an earlier run. "
                "Name another folder."
            )
        _write_manifest(target, {**asked, "complete": False})
        return {}
    try:
        known = json.loads(manifest.read_text(encoding="utf-8"))
        same = {name: known[name] for name in asked} == asked
    except (ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"encode: {str(manifest)!r} is damaged ({error}).") from error
    if not same:
        raise ParameterError(
            f"encode: {str(target)!r} holds codes of another run, {known}; this is {asked}. Name "
            "another folder, or remove that one."
        )
    _write_manifest(target, {**asked, "complete": False})
    done = {}
    for entry in _entries(target / JOURNAL):
        name = entry.get("part")
        if name in parts and _is_whole(source / name, target / parts[name], entry):
            done[name] = entry
    return done


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the line that was being written
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry


def _is_whole(path: Path, written: Path, entry: dict[str, Any]) -> bool:
    return (
        written.is_file()
        and entry.get("input") == _identity(path)
        and entry.get("sha256") == _checksum(written)
    )


def _write_manifest(target: Path, content: dict[str, Any]) -> None:
    with NewFile(target / MANIFEST) as new:
        new.file.write(json.dumps(content, indent=1).encode())


def _identity(path: Path) -> list[int]:
    """Return what changes when a file does: sizes and times of all files of it."""
    every = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    states = [each.stat() for each in every]
    return [
        len(states),
        sum(s.st_size for s in states),
        max([s.st_mtime_ns for s in states] or [0]),
    ]


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(
    options: argparse.Namespace, quantizer: Any, source: Path, target: Path,
    parts: dict[str, str], left: list[str], job: dict[str, Any],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield a journal entry for each part, when it is done."""
    for name in left:
        (target / parts[name]).parent.mkdir(parents=True, exist_ok=True)
    places = [(name, str(source / name), str(target / parts[name])) for name in left]
    if options.scheduler is None:
        for place in places:
            yield encoded(place, quantizer, job)
        return
    try:
        import distributed
    except ImportError as error:
        raise ParameterError("encode: --scheduler needs Dask. Install rvq-np[dask].") from error
    from ..train.tasks import same_versions

    try:
        client = distributed.Client(options.scheduler)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"encode: there is no scheduler at {options.scheduler!r} ({error})."
        ) from error
    with client:
        same_versions("encode")
        shared = client.scatter(quantizer, broadcast=True, hash=False)
        futures = [client.submit(encoded, place, shared, job, pure=False) for place in places]
        try:
            for _, entry in distributed.as_completed(futures, with_results=True):
                if isinstance(entry, BaseException):  # of a task that was cancelled, not raised
                    raise entry
                yield entry
        except RvqError:
            raise
        except (Exception, CancelledError) as error:
            raise ClusterError(
                f"encode: the cluster did not finish ({type(error).__name__}: {error}). Files that "
                "are done are kept: start the command again."
            ) from error


def encoded(place: tuple[str, str, str], quantizer: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Encode one file; return its journal entry."""
    from ..train.tasks import sharing

    name, source, target = place
    start = 0
    with sharing():
        try:
            before = _identity(Path(source))
            rows, pieces = _read(source, quantizer.dim, job["column"])
            with _sink(source, target, quantizer, rows, job["column"]) as put:
                for start, some, table in pieces:
                    found = to_codes(
                        some, quantizer, beam_size=job["beam_size"], threads=job["threads"]
                    )
                    put(start, found, table)
        except RvqError as error:
            raise chunks.located(error, (start, 0), None, f"{source!r}: ") from None
        except OSError as error:
            worker = _worker()
            raise OSError(
                error.errno,
                f"{error.strerror or error}, while {source!r} is encoded{worker}",
                target,
            ) from error
    if _identity(Path(source)) != before:
        os.unlink(target)
        raise InputFileError(f"{source!r} changed while it was read. Start the command again.")
    return {"part": name, "input": before, "rows": rows, "sha256": _checksum(Path(target))}


def _worker() -> str:
    if "distributed" in sys.modules:
        from distributed import get_worker

        with contextlib.suppress(ValueError):
            return f" on the worker {get_worker().address}"
    return ""


def _read(path: str, dim: int, column: str | None) -> tuple[int, Iterator[Any]]:
    """Return how many vectors a file has, and (first, vectors, table) of each batch."""
    if path.endswith(".parquet"):
        return parquet.read("encode", path, dim, column)
    if path.endswith(".zarr"):
        import zarr

        x: Any = zarr.open_array(path, mode="r")
        parquet.check_shape(path, x.shape, dim)
        step = max(1, files.ROWS // x.chunks[0]) * x.chunks[0]
        starts = range(0, x.shape[0], step)
        return x.shape[0], ((start, np.asarray(x[start : start + step]), None) for start in starts)
    found = vectors.npy(path, dim)
    if found.batch:
        raise ShapeError(f"{path!r} holds (B, D, T); expected (N, {dim}) in a folder.")
    return found.frames, ((start, some, None) for start, some in found.pieces(1))


@contextlib.contextmanager
def _sink(
    source: str, path: str, quantizer: Any, rows: int, column: str | None
) -> Iterator[Callable[[int, Any, Any], None]]:
    """Yield ``put(first, codes, table)``; the file is put in its place on success."""
    if not path.endswith(".parquet"):
        out = outputs.Output(path, Path(path).suffix, sys.stderr)
        with codes.sink(out, quantizer, (), rows, None) as put:
            yield lambda start, some, table: put(start, some)
        return
    beside = source if source.endswith(".parquet") else None
    with parquet.codes_sink("encode", beside, path, quantizer, column) as put_table:
        yield put_table
