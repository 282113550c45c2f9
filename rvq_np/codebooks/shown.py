"""Quantizers as one array of all codewords, and as what a notebook shows of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import display
from ..errors import ParameterError, ShapeError


def stacked(quantizer: Any, dtype: Any, copy: bool | None) -> np.ndarray:
    """Return the codewords (Q, K, C) of all stages: what ``numpy.asarray(quantizer)`` gives.

    Raises
    ------
    ShapeError
        If stages differ in size or in the dimension of their codewords.
    ParameterError
        If there must be no copy, which there always is.
    """
    kind = type(quantizer).__name__
    if copy is False:
        raise ParameterError(
            f"{kind}: numpy.asarray got copy=False; expected None or True, as each stage has an "
            "array of its own. Take quantizer[q].codebook, which is not copied."
        )
    shapes = [stage.codebook.shape for stage in quantizer]
    if len(set(shapes)) > 1:
        raise ShapeError(
            f"{kind}: numpy.asarray got stages with codebooks of shapes "
            f"{', '.join(map(str, sorted(set(shapes))))}; expected one shape. Take them one by "
            "one: [stage.codebook for stage in quantizer]."
        )
    whole = np.stack([stage.codebook for stage in quantizer])
    return whole if dtype is None else whole.astype(dtype, copy=False)


def html(quantizer: Any) -> str:
    """Return what a notebook shows of a quantizer."""
    shapes = [stage.codebook.shape for stage in quantizer]
    facts = [
        ("stages", quantizer.n_q),
        ("codewords per stage", display.span(quantizer.sizes)),
        ("dimension", quantizer.dim),
        ("dimension of codewords", display.span(width for _, width in shapes)),
        ("dtype", quantizer.dtype.name),
        ("bits per vector", f"{_bits(quantizer):g}"),
        ("fingerprint", display.short(quantizer.fingerprint)),
    ]
    columns = ("stage", "codewords", "dimension", "metric", "linear maps", "frames per code")
    rows = [
        (q, size, width, stage.metric, "no" if stage.project_in is None else "in and out",
         stage.stride)
        for q, (stage, (size, width)) in enumerate(zip(quantizer, shapes, strict=True))
    ]  # fmt: skip
    return display.table(type(quantizer).__name__, facts, columns, rows)


def _bits(quantizer: Any) -> float:
    pairs = zip(quantizer.sizes, quantizer.strides, strict=True)
    return sum(float(np.log2(size)) / stride for size, stride in pairs)
