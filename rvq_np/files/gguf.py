"""GGUF files: where each tensor is, and the metadata; all of it is checked before data are read.

The format, little-endian: ``GGUF``, a version (2 or 3), the counts of tensors and of metadata, the
metadata, and per tensor its name, sizes, type and place in the data, which follow, aligned.  Sizes
begin with the axis that is contiguous, so that a shape is theirs reversed.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .safetensors import SIZES, Entry

MAGIC = b"GGUF"
VERSIONS = (2, 3)
AXES = 4  # of a tensor, at most
DEPTH = 4  # arrays in arrays, at most
ALIGNMENT = 32  # bytes, where the metadata have no other
# Types of the values of metadata: numbers as `struct` calls them, and two others.
NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
TEXT, ARRAY = 8, 9
# Types by their number. What is not in `safetensors.SIZES` is quantized, and is not read.
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip


class _Header:
    """The beginning of a file, read from front to back, never beyond its end."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path
        self.size = path.stat().st_size

    @property
    def left(self) -> int:
        return int(self.size - self.file.tell())

    def refused(self, about: str) -> CheckpointError:
        return CheckpointError(f"load: {str(self.path)!r} is a GGUF file {about}")

    def need(self, size: int, what: str) -> None:
        if size > self.left:
            raise self.refused(
                f"that ends in {what}: expected {size} more bytes, got {self.left}. It is "
                "truncated or damaged."
            )

    def numbers(self, form: str, what: str) -> Any:
        size = struct.calcsize("<" + form)
        self.need(size, what)
        values = struct.unpack("<" + form, self.file.read(size))
        return values[0] if len(values) == 1 else values

    def text(self, what: str) -> str:
        size = self.numbers("Q", what)
        self.need(size, what)
        try:
            return str(self.file.read(size), "utf-8")
        except UnicodeDecodeError as error:
            raise self.refused(f"whose {what} is no text ({error}): it is damaged.") from error

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """Return a number or a text of the metadata; None for an array, which is passed over."""
        if kind in NUMBERS:
            return self.numbers(NUMBERS[kind], what)
        if kind == TEXT:
            return self.text(what)
        if kind != ARRAY or depth == DEPTH:
            raise self.refused(
                f"whose {what} has type {kind}; expected 0 to {max(NUMBERS)}, and at most {DEPTH} "
                "arrays in one another. It is damaged."
            )
        inner, count = self.numbers("IQ", what)
        if inner in NUMBERS:
            size = count * struct.calcsize("<" + NUMBERS[inner])
            self.need(size, what)
            self.file.seek(size, 1)
            return None
        for _ in range(count):
            self.value(inner, what, depth + 1)
        return None


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Return where each tensor of a GGUF file is, and its metadata without their arrays.

    An entry of a quantized type has its name for a type, and no bytes.

    Raises
    ------
    CheckpointError
        If it is no GGUF file, of another version, truncated or damaged.
    """
    with open(path, "rb") as file:
        header = _Header(file, path)
        if file.read(4) != MAGIC:
            raise CheckpointError(f"load: {str(path)!r} is not a GGUF file.")
        version = header.numbers("I", "its version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise header.refused(
                "whose numbers are big-endian; expected little-endian. Write it again with the "
                "program it is from."
                if swapped
                else f"of version {version}; expected one of {VERSIONS}."
            )
        tensors, keys = header.numbers("QQ", "its counts")
        about: dict[str, Any] = {}
        for _ in range(keys):
            key = header.text("the name of a value")
            if key in about:
                raise header.refused(f"that has the value {key!r} twice: it is damaged.")
            kind = header.numbers("I", f"value {key!r}")
            about[key] = header.value(kind, f"value {key!r}")
        found = [_described(header) for _ in range(tensors)]
        align = about.get("general.alignment", ALIGNMENT)
        if type(align) is not int or not (0 < align <= 1 << 20) or align & (align - 1):
            raise header.refused(f"with general.alignment {align!r}; expected a power of two.")
        data = -(-file.tell() // align) * align
        return _placed(header, found, data), about


def _described(header: _Header) -> tuple[str, str, tuple[int, ...], int]:
    """Return name, type, shape and place in the data of a tensor."""
    name = header.text("the name of a tensor")
    what = f"tensor {name!r}"
    axes = header.numbers("I", what)
    if axes > AXES:
        raise header.refused(f"whose {what} has {axes} axes; expected at most {AXES}.")
    sizes = [header.numbers("Q", what) for _ in range(axes)]
    kind, offset = header.numbers("IQ", what)
    if kind not in TYPES:
        raise header.refused(
            f"whose {what} has type {kind}, which is not known here: it is damaged, or newer than "
            "this release."
        )
    return name, TYPES[kind], tuple(reversed(sizes)), offset


def _placed(header: _Header, found: list[Any], data: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    end, before = data, ""
    for name, dtype, shape, offset in sorted(found, key=lambda each: each[3]):
        size = math.prod(shape) * SIZES.get(dtype, 0)
        start = data + offset
        if name in entries:
            raise header.refused(f"that has tensor {name!r} twice: it is damaged.")
        if start + size > header.size:
            raise header.refused(
                f"whose tensor {name!r} is {dtype} {shape} at byte {start}; expected {size} bytes "
                f"within the {header.size} of the file. It is truncated or damaged."
            )
        if start < end:
            raise header.refused(f"whose tensor {name!r} overlaps {before!r}: it is damaged.")
        end, before = start + size, name
        entries[name] = Entry(header.path, dtype, shape, start, end)
    return entries
