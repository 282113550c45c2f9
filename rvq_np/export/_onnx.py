"""ONNX graphs that encode or decode, of standard operators only (opset 18).

Encoding is, per stage, ``ArgMax(r E' - |e|^2 / 2)``, which takes the first of equal scores, and
``r - Gather(E, code)``; decoding adds what the codes name, in the order of the stages.  Maps are
``MatMul`` and ``Add``, a stride is a ``ReduceMean`` over its frames and a ``Tile`` back, groups are
slices of the channels.  All of it is float32.  Batch and time are dynamic.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..codebooks import Codebooks, Grouped, Linear, Normalized, Projected, Stage, composed
from ..errors import MissingExtraError, ParameterError
from ..files.atomic import NewFile
from ._floats import narrowed

PARTS, DTYPES = ("encode", "decode"), ("float32", "float16")
OPSET, IR = 18, 8
MOST = (1 << 31) - 1  # bytes of a protobuf message


def onnx(
    path: str | os.PathLike[str],
    quantizer: Any,
    part: str = "encode",
    *,
    channels_first: bool = False,
    dtype: str = "float32",
) -> None:
    """Write an ONNX model that encodes vectors, or decodes codes, as `quantizer` does.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically.
    quantizer : Codebooks, Composed or array (Q, K, D)
        Any quantizer: with projections, cosine metric or strides, or composed of several. Pass
        ``quantizer[:n]`` for fewer stages.
    part : {"encode", "decode"}, optional
        "encode": from ``x`` (B, T, D), float32, to ``codes`` (Q, B, T), int64. "decode": from codes
        to vectors; a dropped code, -1, adds nothing. Where stages have strides, each stage has its
        own output or input, ``codes_0`` (B, T / stride) and so on, and T must be a multiple of
        ``quantizer.block``.
    channels_first : bool, optional
        Vectors are (B, D, T), as in most codecs.
    dtype : {"float32", "float16"}, optional
        The type of the stored numbers. "float16" is for decoding only: the file is half as large,
        and decoded vectors are float16; sums are computed in float32.

    Raises
    ------
    ParameterError
        If an argument has an invalid value, the model would be larger than 2 GB, the limit of one
        ONNX file, or a number of the quantizer is beyond the range of `dtype`.
    MissingExtraError
        If the package onnx is missing: ``pip install 'rvq-np[export]'``.
    OSError
        If the file cannot be written.

    Notes
    -----
    Codes are equal to those of `rvq_np.encode` except for near-ties: two codewords whose distances
    differ by less than the float32 rounding of a product of D numbers. `rvq_np.encode` resolves
    these exactly. Decoded vectors differ only by the float32 rounding of linear maps. float64
    codebooks are rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import export
    >>> export.onnx("encode.onnx", np.ones((8, 1024, 128), np.float32))  # doctest: +SKIP
    """
    path, quantizer = arguments.path("export.onnx", "path", path), composed.of(quantizer)
    if part not in PARTS or dtype not in DTYPES or (dtype == "float16" and part == "encode"):
        raise ParameterError(
            f"export.onnx: part is {part!r} and dtype {dtype!r}; expected part 'encode' or "
            "'decode', dtype 'float32', or 'float16' for decoding."
        )
    try:
        import onnx as package
    except ImportError as error:
        raise MissingExtraError(
            "export.onnx needs the package onnx: pip install 'rvq-np[export]'"
        ) from error
    graph = _Graph(package, np.dtype(dtype))
    make = _encoder if part == "encode" else _decoder
    content = graph.model(part, quantizer, *make(graph, quantizer, channels_first))
    with NewFile(path) as new:
        new.file.write(content)


class _Graph:
    """Nodes and constants of a graph under construction; methods return names of values."""

    def __init__(self, package: Any, dtype: np.dtype):
        self.package, self.dtype = package, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.named: dict[tuple[int, str], str] = {}
        self.kept: list[Any] = []  # so that no id is used twice

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{kind.lower()}_{len(self.nodes)}_{n}" for n in range(outputs)]
        node = self.package.helper.make_node(kind, list(inputs), names, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def constant(self, array: Any, about: str, name: str = "") -> str:
        """Return the name of a constant; one array is stored once."""
        key = (id(array), about)
        if key not in self.named:
            name = f"{name or about}_{len(self.constants)}"
            self.constants[name] = self.package.numpy_helper.from_array(np.asarray(array), name)
            self.named[key] = name
            self.kept.append(array)
        return self.named[key]

    def shape(self, *lengths: int) -> str:
        name = "shape_" + "_".join(str(each).replace("-", "minus") for each in lengths)
        if name not in self.constants:
            values = np.array(lengths, np.int64)
            self.constants[name] = self.package.numpy_helper.from_array(values, name)
        return name

    def stored(self, array: np.ndarray, about: str) -> str:
        """Return a constant of the stored type, as float32."""
        key = (id(array), about)
        if key not in self.named:
            values = narrowed("export.onnx", about, array, self.dtype)
            self.named[key] = self.constant(values, about)
            self.kept.append(array)
        return self.named[key]

    def widened(self, name: str) -> str:
        if self.dtype == np.float32:
            return name
        return self.add("Cast", name, to=self.package.TensorProto.FLOAT)

    def mapped(self, rows: str, linear: Linear) -> str:
        weight = self.widened(self.stored(linear.weight, "weight"))
        out = self.add("MatMul", rows, self.add("Transpose", weight, perm=[1, 0]))
        if not linear.bias.any():
            return out
        return self.add("Add", out, self.widened(self.stored(linear.bias, "bias")))

    def value(self, name: str, kind: int, shape: Sequence[Any]) -> Any:
        return self.package.helper.make_tensor_value_info(name, kind, shape)

    def rename(self, name: str, to: str) -> None:
        self.nodes.append(self.package.helper.make_node("Identity", [name], [to]))

    def _needed(self, outputs: Any, name: str, inputs: Any) -> tuple[Any, ...]:
        """Return the parts of a graph, without what no output needs: the last codewords, say."""
        needed = {each.name for each in outputs}
        nodes = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input)
        constants = [each for key, each in self.constants.items() if key in needed]
        return nodes[::-1], name, inputs, outputs, constants

    def model(self, part: str, quantizer: Any, inputs: Any, outputs: Any) -> bytes:
        helper = self.package.helper
        graph = helper.make_graph(*self._needed(outputs, f"rvq_np_{part}", inputs))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR,
            producer_name="rvq_np",
            doc_string=f"{part} of {quantizer!r}",
        )
        helper.set_model_props(model, {"fingerprint": quantizer.fingerprint})
        if model.ByteSize() > MOST:
            raise ParameterError(
                f"export.onnx: the model has {model.ByteSize():,} bytes; expected at most 2 GB, "
                "which one ONNX file holds. Export fewer stages, quantizer[:n]."
            )
        self.package.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def _vectors(quantizer: Any, channels_first: bool) -> list[Any]:
    shape = ["batch", "time", quantizer.dim]
    return [shape[0], shape[2], shape[1]] if channels_first else shape


def _codes(graph: _Graph, quantizer: Any) -> list[Any]:
    kind = graph.package.TensorProto.INT64
    if quantizer.block == 1:
        return [graph.value("codes", kind, [quantizer.n_q, "batch", "time"])]
    return [graph.value(f"codes_{q}", kind, ["batch", f"time_{q}"]) for q in range(quantizer.n_q)]


def _encoder(graph: _Graph, quantizer: Any, channels_first: bool) -> tuple[Any, Any]:
    kind = graph.package.TensorProto.FLOAT
    inputs = [graph.value("x", kind, _vectors(quantizer, channels_first))]
    rows = graph.add("Transpose", "x", perm=[0, 2, 1]) if channels_first else "x"
    found = _encoded(graph, rows, quantizer, quantizer.n_q)
    if quantizer.block == 1:
        front = [graph.add("Unsqueeze", each, graph.shape(0)) for each in found]
        graph.rename(graph.add("Concat", *front, axis=0), "codes")
    else:
        for q, each in enumerate(found):
            graph.rename(each, f"codes_{q}")
    return inputs, _codes(graph, quantizer)


def _decoder(graph: _Graph, quantizer: Any, channels_first: bool) -> tuple[Any, Any]:
    if quantizer.block == 1:
        rows = [
            graph.add("Gather", "codes", graph.constant(np.array(q, np.int64), "stage"), axis=0)
            for q in range(quantizer.n_q)
        ]
    else:
        rows = [f"codes_{q}" for q in range(quantizer.n_q)]
    out = _decoded(graph, rows, quantizer)
    types = graph.package.TensorProto
    kind = types.FLOAT if graph.dtype == np.float32 else types.FLOAT16
    if kind != types.FLOAT:
        out = graph.add("Cast", out, to=kind)
    graph.rename(graph.add("Transpose", out, perm=[0, 2, 1]) if channels_first else out, "x")
    return _codes(graph, quantizer), [graph.value("x", kind, _vectors(quantizer, channels_first))]


def _encoded(graph: _Graph, rows: str, quantizer: Any, n_q: int) -> list[str]:
    """Return the codes (B, T) of each stage, of vectors (B, T, D)."""
    if isinstance(quantizer, Codebooks):
        return _stages_encoded(graph, rows, list(quantizer)[:n_q])
    if isinstance(quantizer, Normalized):
        raise ParameterError(
            f"export.onnx: cannot hold the encoder of {quantizer!r}; expected stages that quantize "
            "residuals, not their directions. Export the decoder, part='decode'."
        )
    shares = quantizer.shares(n_q)
    given = _given(graph, rows, quantizer)
    theirs = [
        _encoded(graph, some, part, share) if share else []
        for some, part, share in zip(given, quantizer.parts, shares, strict=True)
    ]
    return [theirs[part][stage] for part, stage in quantizer.places(n_q)]


def _given(graph: _Graph, rows: str, quantizer: Any) -> list[str]:
    """Return what each part quantizes."""
    if isinstance(quantizer, Projected):
        return [graph.mapped(rows, quantizer.project_in)]
    if isinstance(quantizer, Grouped):
        ends = np.cumsum([part.dim for part in quantizer.parts]).tolist()
        return [
            graph.add("Slice", rows, graph.shape(end - part.dim), graph.shape(end), graph.shape(2))
            for part, end in zip(quantizer.parts, ends, strict=True)
        ]
    return [rows] * len(quantizer.parts)


def _stages_encoded(graph: _Graph, left: str, stages: list[Stage]) -> list[str]:
    codes = []
    for q, stage in enumerate(stages):
        target = left
        if stage.stride > 1:
            frames = graph.add(
                "Reshape", left, graph.shape(0, -1, stage.stride, stage.dim), allowzero=0
            )
            target = graph.add("ReduceMean", frames, graph.shape(2), keepdims=0)
        if stage.project_in is not None:
            target = graph.mapped(target, stage.project_in)
        codes.append(graph.add("ArgMax", _scores(graph, target, stage), axis=-1, keepdims=0))
        if q + 1 < len(stages):
            left = graph.add("Sub", left, _looked_up(graph, codes[-1], stage))
    return codes


def _scores(graph: _Graph, target: str, stage: Stage) -> str:
    """Return a score for each codeword: the larger, the nearer."""
    stored = graph.stored(stage.codebook, "codebook")  # refuses what float32 cannot hold
    codebook = stage.codebook.astype(np.float64)
    norms = np.linalg.norm(codebook, axis=1)
    if stage.metric == "cosine":
        searched = (codebook / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32)
        book = graph.constant(searched, "directions")
        if (norms > 0).all():  # all as long: nothing to subtract, whatever the length of the target
            return graph.add("MatMul", target, graph.add("Transpose", book, perm=[1, 0]))
        length = graph.add("ReduceL2", target, graph.shape(-1), keepdims=1)
        least = graph.constant(np.float32(1e-12), "least")
        target = graph.add("Div", target, graph.add("Max", length, least))
        norms = (norms > 0).astype(np.float64)
    else:
        book = stored
    squares = narrowed("export.onnx", "squared norm", np.square(norms) / 2)
    halves = graph.constant(squares, "half_norms")
    products = graph.add("MatMul", target, graph.add("Transpose", book, perm=[1, 0]))
    return graph.add("Sub", products, halves)


def _looked_up(graph: _Graph, codes: str, stage: Stage, *, dropped: bool = False) -> str:
    """Return what codes (B, T / stride) of a stage decode to, (B, T, D); `dropped` if -1 may be."""
    named = codes
    zero = graph.constant(np.int64(0), "zero") if dropped else ""
    if dropped:
        named = graph.add("Max", codes, zero)
    out = graph.widened(graph.add("Gather", graph.stored(stage.codebook, "codebook"), named))
    if stage.project_out is not None:
        out = graph.mapped(out, stage.project_out)
    if dropped:
        chosen = graph.add("GreaterOrEqual", codes, zero)
        chosen = graph.add("Unsqueeze", chosen, graph.shape(-1))
        out = graph.add("Where", chosen, out, graph.constant(np.float32(0), "nothing"))
    if stage.stride > 1:
        each = graph.add("Unsqueeze", out, graph.shape(2))
        each = graph.add("Tile", each, graph.shape(1, 1, stage.stride, 1))
        out = graph.add("Reshape", each, graph.shape(0, -1, stage.dim), allowzero=0)
    return out


def _decoded(graph: _Graph, codes: list[str], quantizer: Any) -> str:
    """Return vectors (B, T, D) of the codes of each stage."""
    if isinstance(quantizer, Codebooks):
        parts = [
            _looked_up(graph, row, stage, dropped=True)
            for row, stage in zip(codes, quantizer, strict=False)
        ]
        return _sum(graph, parts)
    own: list[list[str]] = [[] for _ in quantizer.parts]
    for row, part in zip(codes, quantizer.order, strict=False):
        own[part].append(row)
    if isinstance(quantizer, Grouped) and not all(own):
        raise ParameterError(
            f"export.onnx: {quantizer!r} has a group without a stage; expected at least one stage "
            "per group."
        )
    vectors = [
        _decoded(graph, some, part) for some, part in zip(own, quantizer.parts, strict=True) if some
    ]
    if isinstance(quantizer, Projected):
        return _out_of_map(graph, vectors[0], own[0], quantizer)
    if isinstance(quantizer, Grouped):
        joined: str = graph.add("Concat", *vectors, axis=-1)
        return joined
    return _sum(graph, vectors)


def _out_of_map(graph: _Graph, inner: str, codes: list[str], quantizer: Projected) -> str:
    """Return mapped vectors, zeros where all codes are dropped: no bias stands for them."""
    out = graph.mapped(inner, quantizer.project_out)
    if not quantizer.project_out.bias.any():
        return out
    named = []
    for row, stride in zip(codes, quantizer.strides, strict=False):
        if stride > 1:
            each = graph.add("Unsqueeze", row, graph.shape(-1))
            each = graph.add("Tile", each, graph.shape(1, 1, stride))
            row = graph.add("Reshape", each, graph.shape(0, -1), allowzero=0)
        named.append(row)
    largest = graph.add("Max", *named)
    some = graph.add("GreaterOrEqual", largest, graph.constant(np.int64(0), "zero"))
    chosen = graph.add("Unsqueeze", some, graph.shape(-1))
    nothing: str = graph.add("Where", chosen, out, graph.constant(np.float32(0), "nothing"))
    return nothing


def _sum(graph: _Graph, parts: list[str]) -> str:
    total = parts[0]
    for each in parts[1:]:
        total = graph.add("Add", total, each)
    return total
