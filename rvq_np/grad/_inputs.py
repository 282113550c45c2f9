"""What shims make sure of before their framework traces or computes anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..config import Config
from ..errors import BackendError, ParameterError, ShapeError, StateError
from ..quantizer import ResidualVectorQuantizer
from . import _host


def check_training(codebook_training: Any) -> None:
    """Raise ParameterError unless words can be trained that way."""
    if codebook_training not in ("ema", "gradient"):
        raise ParameterError(
            f"ResidualVectorQuantizer: codebook_training is {codebook_training!r}; wanted 'ema' "
            "or 'gradient'."
        )


def check_quantizer(call: str, rvq: Any) -> None:
    """Raise BackendError unless `rvq` is the quantizer without a framework."""
    if not isinstance(rvq, ResidualVectorQuantizer):
        raise BackendError(
            f"{call}: rvq is a {type(rvq).__module__}.{type(rvq).__qualname__}; wanted an "
            "rvq_np.ResidualVectorQuantizer. A framework's own quantizer is called itself."
        )


def check_shapes(x: Any, mask: Any, dim: int) -> None:
    """Raise ShapeError unless `x` is (B, dim, T) or (N, dim) and `mask` fits."""
    if len(x.shape) not in (2, 3) or x.shape[1] != dim:
        raise ShapeError(
            f"quantize: x has shape {tuple(x.shape)}; wanted (B, {dim}, T) or (N, {dim})."
        )
    wanted = (x.shape[0], *x.shape[2:])
    if mask is not None and tuple(mask.shape) != wanted:
        raise ShapeError(
            f"quantize: mask has shape {tuple(mask.shape)}; wanted {wanted}, one for each vector."
        )


def check_names(given: Iterable[str], config: Config) -> None:
    """Raise StateError unless these are the names of all arrays of a quantizer."""
    given, wanted = set(given), set(_host.names(config))
    if given != wanted:
        missing, extra = sorted(wanted - given), sorted(given - wanted)
        raise StateError(
            f"apply: parameters and state lack {missing[:4]} and have {extra[:4]} too many. Pass "
            "both dictionaries that init or of returned for these arguments."
        )
