"""What a file is, recognized by its first bytes and not by its name.

A file of another kind than expected is named as what it is: "'x.wav' is a WAV file", and not as a
damaged file of the expected kind.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

HEAD = 4096  # bytes that are looked at
RVQ = b"\x89RVQ\r\n\x1a\n"


class Kind(NamedTuple):
    """The kind of a file: `name`, to compare with, and `said`, for a sentence: "a WAV file"."""

    name: str
    said: str


UNKNOWN = Kind("unknown", "a file of an unknown kind")
SPECIAL = (
    (stat.S_ISDIR, Kind("folder", "a folder")),
    (stat.S_ISFIFO, Kind("pipe", "a pipe")),
    (stat.S_ISCHR, Kind("device", "a device")),
    (stat.S_ISBLK, Kind("device", "a device")),
    (stat.S_ISSOCK, Kind("socket", "a socket")),
)
BEGINNINGS = (
    (b"\x93NUMPY", Kind("npy", "an .npy file")),
    (RVQ, Kind("rvq", "an .rvq file of codes")),
    (b"fLaC", Kind("flac", "a FLAC file")),
    (b"OggS", Kind("ogg", "an Ogg file")),
    (b"ID3", Kind("mp3", "an MP3 file")),
    (b"caff", Kind("caf", "a CAF file")),
    (b".snd", Kind("au", "an AU file")),
    (b"PAR1", Kind("parquet", "a Parquet file")),
    (b"\x89HDF\r\n\x1a\n", Kind("hdf5", "an HDF5 file")),
    (b"GGUF", Kind("gguf", "a GGUF file")),
    (b"\x1f\x8b", Kind("gzip", "a gzip file")),
    (b"\x89PNG\r\n\x1a\n", Kind("png", "a PNG picture")),
    (b"\xff\xd8\xff", Kind("jpeg", "a JPEG picture")),
)
SOUNDS = {"wav", "flac", "ogg", "mp3", "caf", "au", "aiff"}
MOVED = 1 << 20  # a number that every Faiss index has twice in its header
FAISS = {
    b"IxRq": "IndexResidualQuantizer",
    b"IxMp": "IndexIDMap",
    b"IxM2": "IndexIDMap2",
    b"IxPT": "IndexPreTransform",
    b"ImRQ": "ResidualCoarseQuantizer",
    b"IxRF": "IndexRefine",
    b"IRfs": "IndexResidualQuantizerFastScan",
    b"IxPR": "IndexProductResidualQuantizer",
    b"IxPL": "IndexProductLocalSearchQuantizer",
    b"IxLS": "IndexLocalSearchQuantizer",
    b"IwRQ": "IndexIVFResidualQuantizer",
    b"IVRf": "IndexIVFResidualQuantizerFastScan",
    b"IwPR": "IndexIVFProductResidualQuantizer",
    b"IwLS": "IndexIVFLocalSearchQuantizer",
    b"IwFl": "IndexIVFFlat",
    b"IwPQ": "IndexIVFPQ",
    b"IwSq": "IndexIVFScalarQuantizer",
    b"IwPf": "IndexIVFPQFastScan",
    b"IxF2": "IndexFlatL2",
    b"IxFI": "IndexFlatIP",
    b"IxFl": "IndexFlat",
    b"IxPq": "IndexPQ",
    b"IxSQ": "IndexScalarQuantizer",
    b"IPfs": "IndexPQFastScan",
    b"IwPL": "IndexIVFProductLocalSearchQuantizer",
    b"IwQR": "IndexIVFPQR",
    b"Iwrq": "IndexIVFRaBitQ",
    b"Ixrq": "IndexRaBitQ",
    b"IxHe": "IndexLSH",
    b"IxHE": "IndexLSH",
    b"IxPQ": "IndexPQ",
    b"ILfs": "IndexLocalSearchQuantizerFastScan",
    b"IPRf": "IndexProductResidualQuantizerFastScan",
    b"IPLf": "IndexProductLocalSearchQuantizerFastScan",
    b"IVLf": "IndexIVFLocalSearchQuantizerFastScan",
    b"IHNf": "IndexHNSWFlat",
    b"IHNp": "IndexHNSWPQ",
    b"IHNs": "IndexHNSWSQ",
    b"Ix2L": "Index2Layer",
    b"Imiq": "MultiIndexQuantizer",
}


def of(path: str | os.PathLike[str]) -> Kind:
    """Return the kind of what is at `path`; only a regular file is opened.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> of("/").said
    'a folder'
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, ValueError):  # ValueError: a name with a null byte
        raise FileNotFoundError(f"there is no file {str(path)!r}.") from None
    for is_it, kind in SPECIAL:
        if is_it(found.st_mode):
            return kind
    with open(path, "rb") as file:
        return of_bytes(file.read(HEAD), found.st_size)


def of_bytes(head: bytes, size: int) -> Kind:
    """Return the kind of a file of `size` bytes that begins with `head`.

    Examples
    --------
    >>> of_bytes(b"RIFF....WAVEfmt ", 16)
    Kind(name='wav', said='a WAV file')
    """
    if size == 0:
        return Kind("empty", "an empty file")
    for beginning, kind in BEGINNINGS:
        if head.startswith(beginning):
            return kind
    for named in (_container, _safetensors, _faiss, _zip, _pickle, _onnx, _text):
        found = named(head, size)
        if found is not None:
            return found
    return UNKNOWN


def _container(head: bytes, size: int) -> Kind | None:
    """Sounds and films: the kind is behind the length of the first part."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return Kind("wav", "a WAV file")
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return Kind("aiff", "an AIFF file")
    if head[4:8] == b"ftyp":
        return Kind("mp4", "an MP4 file")
    if head[:1] == b"\xff" and head[1:2] in (b"\xfb", b"\xf3", b"\xf2", b"\xfa"):
        return Kind("mp3", "an MP3 file")
    return None


def _safetensors(head: bytes, size: int) -> Kind | None:
    length = int.from_bytes(head[:8], "little")
    fits = head[8:9] == b"{" and 2 <= length <= size - 8
    return Kind("safetensors", "a safetensors file") if fits else None


def _faiss(head: bytes, size: int) -> Kind | None:
    code = head[:4]
    if code not in FAISS:
        if len(head) < 32 or not (code.isalnum() and code[:1] == b"I"):
            return None
        if struct.unpack_from("<qq", head, 16) != (MOVED, MOVED):
            return None
    return Kind("faiss", f"a Faiss index of kind {of_faiss(code)}")


def of_faiss(code: bytes) -> str:
    """Return the name of the class of Faiss whose files begin with `code`, or `code` itself.

    Examples
    --------
    >>> of_faiss(b"IxMp")
    'IndexIDMap'
    """
    return FAISS.get(code) or repr(code.decode("latin-1"))


def _zip(head: bytes, size: int) -> Kind | None:
    if head[:4] == b"PK\5\6":
        return Kind("zip", "a zip archive")
    if head[:4] != b"PK\3\4":
        return None
    (length,) = struct.unpack_from("<H", head, 26) if len(head) >= 30 else (0,)
    member = head[30 : 30 + length]
    if member.endswith(b".npy"):
        return Kind("npz", "an .npz archive")
    if member.endswith(b"data.pkl"):
        return Kind("pickle", "a pickle in a zip archive, as torch.save writes it")
    return Kind("zip", "a zip archive")


def _pickle(head: bytes, size: int) -> Kind | None:
    is_one = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    return Kind("pickle", "a pickle") if is_one else None


def _onnx(head: bytes, size: int) -> Kind | None:
    """A version below 32, then the name of what wrote the graph, as every exporter begins."""
    begins = head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] == b"\x12"
    name = head[4 : 4 + head[3]] if begins and len(head) > 3 else b""
    printable = all(32 <= each < 127 for each in name)
    return Kind("onnx", "an ONNX graph") if name and printable else None


def _text(head: bytes, size: int) -> Kind | None:
    if any(each < 32 and each not in b"\t\n\f\r" for each in head):
        return None
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or size <= len(head):  # not a character that was cut
            return None
        text = head[: error.start].decode("utf-8")
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        return Kind("json", "a JSON file")
    if text.lstrip().startswith(("/*", "//", "#include", "#ifndef", "#pragma")):
        return Kind("c", "C source")
    line = text.split("\n", 1)[0]
    if "," in line and "\n" in text:
        return Kind("csv", "a CSV file")
    return Kind("text", "a text file")
