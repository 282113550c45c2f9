"""Files of IDs: Parquet, CSV, JSON and torch tensors, each with a manifest beside it.

``ids.parquet`` has a manifest ``ids.parquet.manifest.json``: which files there are, with their
checksums, the fingerprint of the codebooks, options and statistics.  Appending writes another
file, ``ids.part-0001.parquet``, and then a new manifest; a file that is there never changes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, display
from ..errors import InputFileError, ShapeError
from ..files.atomic import NewFile
from . import _codes
from ._templates import TEMPLATE
from .columns import arrow, check_distinct, item_ids
from .tokens import from_tokens, to_tokens

VERSION = 1
MANIFEST = ".manifest.json"
KINDS = (".parquet", ".csv", ".json", ".pt")


class Ids(NamedTuple):
    """The IDs of a file and of the files appended to it.

    Attributes
    ----------
    items : numpy.ndarray (N,), int64 or object (str)
    codes : numpy.ndarray (Q, N), int32
    manifest : dict
    """

    items: np.ndarray
    codes: np.ndarray
    manifest: dict[str, Any]


def write(
    path: str | os.PathLike[str],
    items: Any,
    codes: Any,
    sizes: Sequence[int],
    *,
    template: str = TEMPLATE,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write IDs and their manifest.

    Parameters
    ----------
    path : path
        ``.parquet``, with columns ``item_id``, ``codes`` and ``sid``, text by the template;
        ``.csv``, with the same columns and one for each code; ``.json``, as LC-Rec and MiniOneRec
        read it: a dictionary of items and their lists of tokens; or ``.pt``, as GRID reads it: a
        torch tensor (N, Q) whose rows are the items 0 to N - 1.
    items : array or list (N,) of int or str
        The ids of the items, all different.
    codes : array (Q, N), integer
    sizes : sequence of Q int
    template : str, optional
        As in `to_tokens`.
    about : mapping, optional
        More entries of the manifest, as JSON values.

    Raises
    ------
    InputFileError
        If an item occurs twice, or `path` has another ending.
    ShapeError, DtypeError, CodeRangeError, LevelsError
        If there is not one ID per item, or codes do not fit the sizes.
    """
    path = checked_path("write", path)
    found = item_ids("write", items)
    check_distinct("write", found)
    checked = _checked("write", found, codes, sizes)
    new = not Path(path).exists()
    part = _write_part(path, found, checked, template, 0)
    manifest = {
        "version": VERSION, "sizes": list(map(int, sizes)), "template": template,
        "items": "text" if found.dtype == object else "integers", **(about or {}), "parts": [part],
    }  # fmt: skip
    try:
        _write_json(path + MANIFEST, manifest)
    except BaseException:
        if new:
            Path(path).unlink()
        raise


def append(
    path: str | os.PathLike[str],
    items: Any,
    codes: Any,
    *,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Add items in a new file; existing files do not change.

    Returns
    -------
    name : str
        Path of the new file.

    Raises
    ------
    InputFileError
        If there is no manifest, a listed file is damaged, or an item has an ID already.
    ShapeError, DtypeError, CodeRangeError, LevelsError
        As `write`.
    """
    path = checked_path("append", path)
    before = read(path)
    found = item_ids("append", items)
    check_distinct("append", found, before.items)
    about = about or {}
    checked = _checked("append", found, codes, about.get("sizes", before.manifest["sizes"]))
    number = len(before.manifest["parts"])
    name = Path(path)
    while (place := name.with_name(f"{name.stem}.part-{number:04d}{name.suffix}")).exists():
        number += 1  # left by an append that was cut off
    first = len(before.items)
    part = _write_part(str(place), found, checked, before.manifest["template"], first)
    parts = [*before.manifest["parts"], part]
    _write_json(path + MANIFEST, {**before.manifest, **about, "parts": parts})
    return str(place)


def read(path: str | os.PathLike[str]) -> Ids:
    """Read the IDs that `write` and `append` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputFileError
        If it has no manifest, or a listed file is missing or was changed.
    """
    path = checked_path("read", path)
    manifest = read_manifest(path)
    items, codes = [], []
    for part in manifest["parts"]:
        place = Path(path).with_name(part["file"])
        if not place.is_file():
            raise InputFileError(f"read: {str(place)!r} is missing, which the manifest lists.")
        with open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part["sha256"]:
            raise InputFileError(
                f"read: {str(place)!r} is not the file that was written: its checksum differs from "
                "that of the manifest. Restore it, or write the IDs again."
            )
        mine, its_codes = _read_part(str(place), manifest)
        items.append(mine)
        codes.append(_checked("read", mine, its_codes, manifest["sizes"]))
    return Ids(np.concatenate(items), np.concatenate(codes, axis=1), manifest)


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a file of IDs, or raise `InputFileError`."""
    path = checked_path("read", path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"read: there is no file {path!r}.")
    try:
        manifest: dict[str, Any] = json.loads(Path(path + MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']!r}; this release reads {VERSION}")
        named = [Path(part["file"]).name == part["file"] and part["sha256"]
                 for part in manifest["parts"]]  # fmt: skip
        whole = all(named) and named and manifest["sizes"] and manifest["template"]
        if not whole or manifest["items"] not in ("text", "integers"):
            raise ValueError("entries are missing")
    except FileNotFoundError as error:
        raise InputFileError(
            f"read: {path!r} has no manifest {path + MANIFEST!r}. Keep the two together."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputFileError(
            f"read: {path + MANIFEST!r} is no manifest of IDs ({error!r})."
        ) from error
    return manifest


def check_codebooks(path: str | os.PathLike[str], manifest: Mapping[str, Any], books: Any) -> None:
    """Raise InputFileError unless the codebooks are those that made the IDs of a file."""
    made_by = manifest.get("fingerprint")
    if made_by != books.fingerprint:
        raise InputFileError(
            f"add: {str(path)!r} has IDs of the codebooks {str(made_by)[:16]}, got "
            f"{display.short(books.fingerprint)}; expected the same codebooks."
        )


def checked_path(call: str, path: Any) -> str:
    """Return the path of a file of IDs, or raise InputFileError if it has another ending."""
    found = os.fspath(arguments.path(call, "path", path))
    if Path(found).suffix not in KINDS:
        raise InputFileError(f"{call}: {found!r} has another ending; expected {', '.join(KINDS)}.")
    return found


def _checked(call: str, items: np.ndarray, codes: Any, sizes: Sequence[int]) -> np.ndarray:
    checked = _codes.checked(call, codes)
    _codes.sizes_of(call, sizes, checked)
    if checked.shape[1] != len(items):
        raise ShapeError(
            f"{call}: codes are of {checked.shape[1]} items, and there are {len(items)} ids; "
            "expected as many."
        )
    return checked


def _write_part(
    path: str, items: np.ndarray, codes: np.ndarray, template: str, first: int
) -> dict[str, Any]:
    """Write one file, and return its entry in the manifest; `first`: items in files before."""
    kind = Path(path).suffix
    tokens = [] if kind == ".pt" else to_tokens(codes, template)
    with NewFile(path) as new:
        if kind == ".parquet":
            _write_parquet(new.file, items, codes, tokens)
        elif kind == ".csv":
            _write_csv(new.file, items, codes, tokens)
        elif kind == ".json":
            shown = dict(zip(map(str, items.tolist()), tokens, strict=True))
            new.file.write(json.dumps(shown, ensure_ascii=False).encode())
        else:
            _write_tensor(new.file, items, codes, first)
        new.file.seek(0)
        digest = hashlib.file_digest(new.file, "sha256").hexdigest()
    return {"file": Path(path).name, "items": len(items), "sha256": digest}


def _write_parquet(file: Any, items: np.ndarray, codes: np.ndarray, tokens: list[Any]) -> None:
    pa = arrow("write")
    starts = pa.array(np.arange(0, codes.size + 1, len(codes), dtype=np.int32))
    flat = pa.array(np.ascontiguousarray(codes.T).ravel())
    table = pa.table({
        "item_id": pa.array(items.tolist(), pa.string()) if items.dtype == object
        else pa.array(items),
        "codes": pa.ListArray.from_arrays(starts, flat),
        "sid": pa.array(["".join(each) for each in tokens], pa.string()),
    })  # fmt: skip
    pa.parquet.write_table(table, file)


def _write_csv(file: Any, items: np.ndarray, codes: np.ndarray, tokens: list[Any]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(["item_id", *(f"code_{q}" for q in range(len(codes))), "sid"])
    for item, column, each in zip(items.tolist(), codes.T.tolist(), tokens, strict=True):
        writer.writerow([item, *column, "".join(each)])
    text.detach()


def _write_tensor(file: Any, items: np.ndarray, codes: np.ndarray, first: int) -> None:
    import torch

    if items.dtype == object or not np.array_equal(items, first + np.arange(len(items))):
        raise InputFileError(
            f"write: a tensor has no ids; expected the items {first} to {first + len(items) - 1} "
            "in order."
        )
    torch.save(torch.from_numpy(np.ascontiguousarray(codes.T).astype(np.int64)), file)


def _read_part(path: str, manifest: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    kind = Path(path).suffix
    if kind == ".parquet":
        table = arrow("read").parquet.read_table(path)
        codes = table["codes"].combine_chunks().flatten().to_numpy()
        return item_ids("read", table["item_id"]), codes.reshape(len(table), -1).T
    if kind == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        items: list[Any] = [row[0] for row in rows]
        codes = np.array([row[1:-1] for row in rows]).astype(np.int64).T
    elif kind == ".json":
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        items, codes = list(content), from_tokens(content.values(), manifest["template"])
    else:
        import torch

        tensor = torch.load(path, weights_only=True)
        first = 0
        for part in manifest["parts"]:
            if part["file"] == Path(path).name:
                break
            first += part["items"]
        return first + np.arange(len(tensor)), tensor.numpy().T
    if manifest["items"] == "integers":
        return np.array(items, object).astype(np.int64), codes
    return item_ids("read", items), codes


def _write_json(path: str, content: Any) -> None:
    with NewFile(path) as new:
        new.file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
