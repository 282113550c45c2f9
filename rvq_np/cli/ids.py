"""``rvq-np ids``: from a file of embeddings to unique IDs, more items later, and what there is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputFileError, ParameterError
from ..files import atomic
from . import said, values

MODEL = ".codebooks.safetensors"


def add_parser(every: Any) -> None:
    """Add the command to the parsers of all commands."""
    ids = every.add_parser(
        "ids",
        help="unique semantic IDs of embeddings",
        description="ids ITEMS -o IDS: train codebooks and write unique IDs of all items. "
        "ids add ITEMS --to IDS: add more items, with the same codebooks; no ID changes. "
        "ids info IDS: print statistics.",
    )
    ids.add_argument("what", nargs="+", metavar="ITEMS", help=".parquet or .npy file, or add, info")
    ids.add_argument("-o", "--output", help=".parquet, .csv, .json or .pt file of IDs to write")
    ids.add_argument(
        "--to", metavar="IDS", help="for add: the file of IDs to which items are added"
    )
    ids.add_argument("--id", help="column of item ids (default: row numbers)")
    ids.add_argument(
        "--column", default="embedding", help="column of embeddings (default: embedding)"
    )
    ids.add_argument(
        "--sizes",
        "--bins",
        default="256,256,256",
        help="codewords per stage (default: 256,256,256)",
    )
    ids.add_argument("-m", "--model", help="codebooks to use, instead of training new ones")
    ids.add_argument(
        "--capacity", type=int, default=1, help="items that may share an ID (default: 1)"
    )
    ids.add_argument(
        "--suffix", action="store_true", help="number the items of an ID instead of moving items"
    )
    ids.add_argument("--normalize", action="store_true", help="scale embeddings to length 1")
    ids.add_argument(
        "--spherical", action="store_true", help="search by direction, as Faiss's spherical k-means"
    )
    ids.add_argument(
        "--normalize-residuals", action="store_true",
        help="scale residuals to length 1 before the next stage",
    )  # fmt: skip
    ids.add_argument("--template", default="<{stage}_{code}>", help="tokens (default: <a_3>)")
    ids.add_argument(
        "--iterations", type=int, default=25, help="k-means iterations per stage (default: 25)"
    )
    ids.add_argument(
        "--rows-per-codeword",
        type=int,
        default=256,
        help="random rows to train on per codeword (default: 256); 0: all rows",
    )
    ids.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    ids.add_argument("--plot", help="for info: PNG file to write with a plot of the statistics")
    ids.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run what was asked for."""
    action = options.what[0] if len(options.what) == 2 else ""
    if action not in ("", "add", "info") or len(options.what) > 2:
        raise ParameterError(
            f"ids: got {' '.join(options.what)!r}; expected one file, add and a file, or info and "
            "a file."
        )
    if action == "info":
        _info(options.what[1], options)
    elif action == "add":
        _add(options.what[1], options)
    else:
        _make(options.what[0], options)


def _make(path: str, options: argparse.Namespace) -> None:
    from .. import checkpoints, semantic_ids
    from ..semantic_ids import files
    from ..semantic_ids.assign import check_room

    if options.output is None:
        raise ParameterError("ids: got no --output; expected the file of IDs to write.")
    files.checked_path("ids", options.output)  # before the work, not after
    atomic.check(options.output)
    semantic_ids.to_tokens(np.zeros((1, 0), np.int64), options.template)
    items, x = _items(path, options)
    if options.model:
        books, trained = _codebooks(options.model), None
        sizes = books.sizes
    else:
        sizes = values.whole("ids", "--sizes", options.sizes, 1, "256,256,256")
        books = None
    if not options.suffix:
        check_room("ids", len(x), sizes, options.capacity)
    if books is None:
        with _said("training"):
            trained = books = _fitted(x, sizes, options)
    with _said("encoding and resolving"):
        found = semantic_ids.assign(x, books, capacity=options.capacity, suffix=options.suffix)
    _all_placed(found, len(x))
    sizes = _with_suffix(books.sizes, found.codes, options.suffix)
    with _said("writing"):
        if trained is not None:
            checkpoints.save(options.output + MODEL, books)
        about = {
            "fingerprint": books.fingerprint,
            "codebooks": Path(options.model).name if options.model
            else Path(options.output + MODEL).name,
            "options": {name: getattr(options, name) for name in (
                "capacity", "suffix", "normalize", "spherical", "normalize_residuals", "iterations",
                "rows_per_codeword", "seed")},
            "moved": len(found.moved), "added_error": found.added / max(1, len(x)),
        }  # fmt: skip
        statistics = semantic_ids.stats(found.codes, sizes)
        about["statistics"] = statistics.to_dict()
        files.write(options.output, items, found.codes, sizes, template=options.template,
                    about=about)  # fmt: skip
    known = {"output": options.output, "moved": len(found.moved), **statistics.to_dict()}
    line = f"{options.output}: {len(x)} items, {len(found.moved)} moved"
    said.result(options, known, [line, str(statistics)])


def _add(path: str, options: argparse.Namespace) -> None:
    from .. import semantic_ids
    from ..semantic_ids import columns, files

    if options.to is None:
        raise ParameterError("ids add: got no --to; expected the file of IDs to add to.")
    before = files.read(options.to)
    about = before.manifest
    model = options.model or Path(options.to).with_name(str(about.get("codebooks")))
    books = _codebooks(str(model))
    files.check_codebooks(options.to, about, books)
    chosen = about["options"]
    options.normalize = chosen["normalize"]
    items, x = _items(path, options)
    columns.check_distinct("ids add", items, before.items)
    with _said("encoding and resolving"):
        found = semantic_ids.assign(
            x, books, capacity=chosen["capacity"], suffix=chosen["suffix"], prior=before.codes
        )
    _all_placed(found, len(x))
    every = np.concatenate([before.codes, found.codes], axis=1)
    sizes = _with_suffix(books.sizes, every, chosen["suffix"])
    statistics = semantic_ids.stats(every, sizes)
    name = files.append(options.to, items, found.codes, about={
        "sizes": list(sizes), "statistics": statistics.to_dict(),
    })  # fmt: skip
    about = {
        "output": str(name),
        "items": len(x),
        "moved": len(found.moved),
        **statistics.to_dict(),
    }
    line = f"{name}: {len(x)} items, {len(found.moved)} moved; no earlier ID changed"
    said.result(options, about, [line, str(statistics)])


def _info(path: str, options: argparse.Namespace) -> None:
    from .. import semantic_ids
    from ..semantic_ids import files

    found = files.read(path)
    about = found.manifest
    statistics = semantic_ids.stats(found.codes, about["sizes"])
    lines = [
        f"IDs                  {path}",
        f"files                {len(about['parts'])}",
        f"codebooks            {about.get('codebooks')}",
        f"fingerprint          {str(about.get('fingerprint'))[:16]}",
        str(statistics),
    ]
    known = {"ids": path, "files": len(about["parts"]), "codebooks": about.get("codebooks"),
             "fingerprint": about.get("fingerprint"), **statistics.to_dict()}  # fmt: skip
    said.result(options, known, lines)
    if options.plot:
        from .. import plot as pictures

        pictures.buckets(found.codes, about["sizes"], options.plot)


def _items(path: str, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and embeddings of a file."""
    from ..semantic_ids import columns
    from . import files as arrays

    if Path(path).suffix == ".npy":
        x = arrays.load(path, "embeddings", "f", (2,))
        ids = np.arange(len(x))
        if options.id is not None:
            ids = columns.item_ids("ids", np.load(options.id, allow_pickle=False))
        if len(ids) != len(x):
            raise InputFileError(
                f"ids: {options.id!r} has {len(ids)} ids for {len(x)} rows of {path!r}; expected "
                "as many."
            )
    else:
        with _said("reading"):
            ids, x = columns.read_parquet("ids", path, options.id, options.column)
    columns.check_distinct("ids", ids)
    if not len(x):
        raise InputFileError(f"ids: {path!r} has no rows; expected at least one.")
    _check_finite(x, ids)
    return ids, _unit(x) if options.normalize else x


def _check_finite(x: np.ndarray, ids: np.ndarray) -> None:
    step = 1 << 16
    for start in range(0, len(x), step):
        good = np.isfinite(x[start : start + step]).all(axis=1)
        if not good.all():
            row = start + int(np.argmin(good))
            item = ids[row]
            raise InputFileError(
                f"ids: the embedding of item {item if isinstance(item, str) else int(item)!r}, row "
                f"{row}, holds NaN or infinity; expected finite numbers. Drop such items."
            )


def _unit(x: np.ndarray) -> np.ndarray:
    found = np.array(x, dtype=np.result_type(x.dtype, np.float32))
    step = 1 << 16
    for start in range(0, len(found), step):
        part = found[start : start + step]
        length = np.sqrt(np.square(part, dtype=np.float64).sum(axis=1, keepdims=True))
        part /= np.where(length > 0, length, 1).astype(part.dtype)
    return found


def _fitted(x: np.ndarray, sizes: tuple[int, ...], options: argparse.Namespace) -> Any:
    from .. import train
    from ..train.progress import reporting

    with reporting(None, sys.stderr.isatty()) as callback:
        states = train.fit(
            x, len(sizes), sizes, options.iterations, options.seed,
            rows_per_codeword=options.rows_per_codeword or None, callback=callback, refine=False,
            spherical=options.spherical, normalize_residuals=options.normalize_residuals,
        )  # fmt: skip
    return train.codebooks_of(states)


def _codebooks(path: str) -> Any:
    from ..codebooks import Codebooks, Normalized
    from .models import Model

    found = Model.of("ids", path).quantizer
    if not isinstance(found, (Codebooks, Normalized)):
        raise InputFileError(f"ids: {path!r} holds {found!r}; expected codebooks of one sequence.")
    return found


def _with_suffix(sizes: tuple[int, ...], codes: np.ndarray, suffix: bool) -> tuple[int, ...]:
    return (*sizes, int(codes[-1].max(initial=0)) + 1) if suffix else sizes


def _all_placed(found: Any, count: int) -> None:
    if len(found.unplaced):
        raise ParameterError(
            f"ids: {len(found.unplaced)} of {count} items could not be placed: the IDs near to "
            "them are taken. Nothing was written. Choose larger --sizes, a larger --capacity, or "
            "--suffix."
        )


class _said:
    """Say on standard error, if it is a terminal, what is done and how long it took."""

    def __init__(self, what: str):
        self.what, self.begun = what, 0.0

    def __enter__(self) -> None:
        self.begun = time.perf_counter()
        if sys.stderr.isatty():
            print(f"{self.what} …", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            taken = time.perf_counter() - self.begun
            print(f"\r{self.what}: {taken:.1f} s{os.linesep}", end="", file=sys.stderr)
