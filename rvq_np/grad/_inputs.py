"""What shims make sure of before their framework traces or computes anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from ..config import Config
from ..errors import BackendError, ParameterError, ShapeError, StateError
from ..quantizer import ResidualVectorQuantizer
from ..train import AllReduce
from ._names import all_names

ESTIMATORS = ("straight-through", "rotation")
WAYS = ("ema", "gradient")  # codewords can be trained


def config_of(arguments: Mapping[str, Any]) -> Config:
    """Return the config of what a constructor was called with, its ``locals()``."""
    return Config(**{each.name: arguments[each.name] for each in fields(Config)})


def check_options(codebook_training: Any, estimator: Any, all_reduce: Any = None) -> None:
    """Raise ParameterError unless codewords can be trained so, and there is the estimator."""
    check_estimator(estimator)
    if all_reduce is not None and not isinstance(all_reduce, AllReduce):
        raise ParameterError(
            f"ResidualVectorQuantizer: all_reduce is {all_reduce!r}; expected an AllReduce."
        )
    if codebook_training not in WAYS:
        raise ParameterError(
            f"ResidualVectorQuantizer: codebook_training is {codebook_training!r}; expected 'ema' "
            "or 'gradient'."
        )


def check_estimator(estimator: Any) -> None:
    """Raise ParameterError unless there is such an estimator."""
    if estimator not in ESTIMATORS:
        raise ParameterError(
            f"quantize: estimator is {estimator!r}; expected one of {', '.join(ESTIMATORS)}."
        )


def check_quantizer(call: str, rvq: Any) -> None:
    """Raise BackendError unless `rvq` is the quantizer without a framework."""
    if not isinstance(rvq, ResidualVectorQuantizer):
        raise BackendError(
            f"{call}: got a {type(rvq).__module__}.{type(rvq).__qualname__} as rvq; expected an "
            "rvq_np.ResidualVectorQuantizer. Call a framework's own quantizer directly."
        )


def refuse_kind(each: Any, expected: str) -> None:
    """Raise BackendError for an array that is not of the framework."""
    raise BackendError(
        f"quantize: got a {type(each).__module__}.{type(each).__qualname__}; expected {expected}."
    )


def check_shapes(x: Any, mask: Any, dim: int) -> None:
    """Raise ShapeError unless `x` is (B, dim, T) or (N, dim) and `mask` fits."""
    if len(x.shape) not in (2, 3) or x.shape[1] != dim:
        raise ShapeError(
            f"quantize: x has shape {tuple(x.shape)}; expected (B, {dim}, T) or (N, {dim})."
        )
    fitting = (x.shape[0], *x.shape[2:])
    if mask is not None and tuple(mask.shape) != fitting:
        raise ShapeError(
            f"quantize: mask has shape {tuple(mask.shape)}; expected {fitting}, one for each "
            "vector."
        )


def check_names(given: Iterable[str], config: Config) -> None:
    """Raise StateError unless these are the names of all arrays of a quantizer."""
    given, expected = set(given), set(all_names(config))
    if given != expected:
        missing, extra = sorted(expected - given), sorted(given - expected)
        raise StateError(
            f"apply: parameters and state lack {missing[:4]} and have {extra[:4]} too many. Pass "
            "both dictionaries that init or of returned for these arguments."
        )
