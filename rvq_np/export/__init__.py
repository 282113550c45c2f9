"""Codebooks, and codes, in the formats of other programs: one file per format.

==============  ==================================================================================
`faiss`         an index that Faiss reads and searches, with codes or empty
`onnx`          a graph that encodes or decodes, for onnxruntime and other ONNX runtimes
`npz`           all arrays by simple names, for ``numpy.load``
`c_header`      tables for a decoder in C
`codes`         files of codes that candle and codec.cpp read
==============  ==================================================================================

Each function takes a path and a quantizer, or codes, refuses by name what the format cannot hold,
and writes a file that is whole or not there.  The other program need not be installed.  To hand
codebooks to another Python package as a state dict, see `rvq_np.checkpoints.state_dict`.
"""

from __future__ import annotations

from ._c import c_header as c_header
from ._faiss import faiss as faiss
from ._npz import codes as codes
from ._npz import npz as npz
from ._onnx import onnx as onnx

__all__ = ["c_header", "codes", "faiss", "npz", "onnx"]


def __dir__() -> list[str]:
    return sorted(__all__)
