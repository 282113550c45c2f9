"""C headers with the tables that a decoder on a microcontroller adds up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import arguments, display
from ..codebooks import Codebooks, Parallel, Projected, composed
from ..errors import ParameterError
from ..files.atomic import NewFile
from ._floats import narrowed

DTYPES = ("float32", "int8")
A_LINE = 8  # numbers
Bias = tuple[np.ndarray, list[int]]  # (D,), and the stages that bring it along


def c_header(
    path: str | os.PathLike[str], quantizer: Any, dtype: str = "float32", *, name: str = "rvq"
) -> None:
    """Write a C header from which codes are decoded without rvq_np.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically. It is C99 and includes only ``stdint.h``; docs/export.md has a decoder.
    quantizer : Codebooks, Projected, Parallel or array (Q, K, D)
        Without strides. Output projections are applied to the codewords beforehand, so that
        decoding is always a sum of rows of D numbers. The tables have K rows of D numbers per
        stage.
    dtype : {"float32", "int8"}, optional
        The type of the tables. "int8": each row has its own scale, the largest absolute value of
        the row divided by 127; the error of a number is at most half a scale.
    name : str, optional
        The prefix of the names in the header.

    Raises
    ------
    ParameterError
        If the quantizer has strides or groups, a number is beyond float32, or `dtype` or `name` is
        invalid.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from rvq_np import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "rvq.h")
    ...     export.c_header(path, np.ones((2, 4, 3), np.float32))
    ...     with open(path) as file:
    ...         [line.strip() for line in file if line.startswith("#define RVQ_DIM")]
    ['#define RVQ_DIM 3']
    """
    path, quantizer = arguments.path("export.c_header", "path", path), composed.of(quantizer)
    if dtype not in DTYPES or not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)):
        raise ParameterError(
            f"export.c_header: dtype is {dtype!r} and name {name!r}; expected one of "
            f"{', '.join(DTYPES)}, and a name in C of lower-case letters, digits and _."
        )
    tables, biases = _tables(quantizer)
    with NewFile(path) as new:
        for line in _lines(quantizer, tables, biases, dtype, name):
            new.file.write(f"{line}\n".encode("ascii"))


def _tables(quantizer: Any) -> tuple[list[np.ndarray], list[Bias]]:
    """Return per stage what each code adds to a vector, float32 (K, D), and the biases."""
    if quantizer.block > 1:
        raise ParameterError(
            f"export.c_header: {quantizer!r} has stages of several rates; expected stride 1."
        )
    tables, biases = _wide(quantizer, quantizer.n_q)
    call = "export.c_header"
    tables = [narrowed(call, "codeword", each) for each in tables]
    return tables, [(narrowed(call, "bias", each), stages) for each, stages in biases]


def _wide(quantizer: Any, n_q: int) -> tuple[list[np.ndarray], list[Bias]]:
    if isinstance(quantizer, Codebooks):
        return [_of_stage(stage) for stage in list(quantizer)[:n_q]], []
    shares = quantizer.shares(n_q)
    if isinstance(quantizer, Projected):
        weight = quantizer.project_out.weight.astype(np.float64)
        tables, biases = _wide(quantizer.parts[0], shares[0])
        tables = [each @ weight.T for each in tables]
        biases = [(each @ weight.T, stages) for each, stages in biases]
        if quantizer.project_out.bias.any():
            every = list(range(len(tables)))
            biases.append((quantizer.project_out.bias.astype(np.float64), every))
        return tables, biases
    if isinstance(quantizer, Parallel):
        tables, biases = [], []
        for part, share in zip(quantizer.parts, shares, strict=True):
            theirs, own = _wide(part, share) if share else ([], [])
            biases += [(bias, [len(tables) + q for q in stages]) for bias, stages in own]
            tables += theirs
        return tables, biases
    raise ParameterError(
        f"export.c_header: cannot hold {quantizer!r}; expected Codebooks, Projected or Parallel. "
        "Export the groups one by one."
    )


def _of_stage(stage: Any) -> np.ndarray:
    codebook = stage.codebook.astype(np.float64)
    if stage.project_out is None:
        return codebook
    weight, bias = (
        each.astype(np.float64) for each in (stage.project_out.weight, stage.project_out.bias)
    )
    return codebook @ weight.T + bias


def _lines(
    quantizer: Any, tables: list[np.ndarray], biases: list[Bias], dtype: str, name: str
) -> Iterator[str]:
    upper, sizes = name.upper(), [len(each) for each in tables]
    offsets = np.cumsum([0, *sizes])
    fingerprint = display.short(quantizer.fingerprint)
    yield f"/* {' '.join(repr(quantizer).split())}, fingerprint {fingerprint}."
    yield "   A code of stage q is the row offsets[q] + code; a vector is the sum of its rows,"
    yield "   and of each bias of which some stage has a code. A dropped code, -1, has no row. */"
    yield f"#ifndef {upper}_H"
    yield f"#define {upper}_H"
    yield "#include <stdint.h>"
    yield f"#define {upper}_STAGES {len(sizes)}"
    yield f"#define {upper}_DIM {quantizer.dim}"
    yield f"#define {upper}_{dtype.upper()} 1"
    for what, values in (("sizes", sizes), ("offsets", offsets[:-1])):
        numbers = ", ".join(map(str, values))
        yield f"static const uint32_t {name}_{what}[{upper}_STAGES] = {{{numbers}}};"
    yield f"#define {upper}_BIASES {len(biases)}"
    if biases:
        yield f"static const float {name}_biases[{upper}_BIASES][{upper}_DIM] = {{"
        yield from _rows(bias for bias, _ in biases)
        yield "};"
        yield f"static const uint8_t {name}_biased[{upper}_BIASES][{upper}_STAGES] = {{"
        yield from _rows(np.isin(np.arange(len(tables)), stages) * 1 for _, stages in biases)
        yield "};"
    rows = np.concatenate(tables)
    if dtype == "int8":
        scales = np.abs(rows).max(axis=1) / np.float32(127)
        scales = np.where(scales > 0, scales, np.float32(1))  # zeros, and what is next to it
        yield f"static const float {name}_scales[{len(rows)}] = {{"
        yield from _numbers(scales.astype(np.float32))
        yield "};"
        rows = np.clip(np.rint(rows / scales[:, None]), -127, 127).astype(np.int8)
    kind = "float" if dtype == "float32" else "int8_t"
    yield f"static const {kind} {name}_codewords[{len(rows)}][{upper}_DIM] = {{"
    yield from _rows(rows)
    yield "};"
    yield "#endif"


def _rows(rows: Iterable[np.ndarray]) -> Iterator[str]:
    for row in rows:
        lines = list(_numbers(row))
        lines[-1] = lines[-1].rstrip(",") + "},"
        yield "{" + lines[0]
        yield from lines[1:]


def _numbers(values: np.ndarray) -> Iterator[str]:
    """Yield lines of numbers; floats in as many digits as give back their bits."""
    if values.dtype.kind == "f":
        texts = [f"{np.format_float_scientific(each, unique=True)}f" for each in values]
    else:
        texts = [str(int(each)) for each in values]
    for start in range(0, len(texts), A_LINE):
        yield ", ".join(texts[start : start + A_LINE]) + ","
