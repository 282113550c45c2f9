"""GGUF files, byte by byte, without a package for them."""

import struct

import numpy as np

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "I32": 26, "F64": 28, "BF16": 30}
DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "F64": "<f8"}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def values():
    """Return metadata of every kind, and how many there are."""
    array = struct.pack("<IQ", 8, 2) + text("a") + text("bc")
    nested = struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 3) + struct.pack("<III", 1, 2, 3)
    return [
        text("general.architecture") + struct.pack("<I", 8) + text("codec"),
        text("codec.n_q") + struct.pack("<II", 4, 3),
        text("codec.rate") + struct.pack("<If", 6, 12.5),
        text("codec.causal") + struct.pack("<I?", 7, True),
        text("tokens") + struct.pack("<I", 9) + array,
        text("nested") + struct.pack("<I", 9) + nested,
        text("levels") + struct.pack("<IIQ", 9, 5, 2) + struct.pack("<ii", 8, 8),
    ]


def content_of(array, kind):
    if kind == "BF16":
        return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    if kind in DTYPES:
        return np.asarray(array).astype(DTYPES[kind]).tobytes()
    per_block = {"Q4_0": 18, "Q8_0": 34}[kind]
    return bytes(np.size(array) // 32 * per_block)


def assembled(tensors, kind="F32", *, version=3, about=None, align=32, count=None):
    """Return a GGUF file; a value is an array, or a pair of an array and its type."""
    about = values() if about is None else about
    if align != 32:
        about = [*about, text("general.alignment") + struct.pack("<II", 4, align)]
    infos, data = b"", b""
    for name, value in tensors.items():
        array, own = value if isinstance(value, tuple) else (value, kind)
        shape = np.shape(array)[::-1]
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", TYPES[own], len(data))
        data += content_of(array, own)
        data += bytes(-len(data) % align)
    count = len(tensors) if count is None else count
    head = b"GGUF" + struct.pack("<IQQ", version, count, len(about)) + b"".join(about) + infos
    return head + bytes(-len(head) % align) + data


def write(folder, tensors, kind="F32", name="model.gguf", **options):
    (folder / name).write_bytes(assembled(tensors, kind, **options))
    return folder / name
