"""What the Keras layer asks of its backend and of what it is given."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import keras
import numpy as np

from .. import arrays
from ..errors import BackendError, DtypeError, ParameterError, ShapeError
from ._operation import spec_of
from ._straight_through import Outputs

BACKEND = keras.backend.backend()
if BACKEND not in ("torch", "jax", "tensorflow"):
    raise BackendError(
        f"rvq_np.grad.keras: the backend of Keras is {BACKEND!r}; expected torch, jax or "
        "tensorflow. Set the environment variable KERAS_BACKEND before keras is imported."
    )
native = import_module(f"{__package__}.{BACKEND}")


OPS = native.OPS


def run(config: Any, rate: Any, n_q: Any, options: Any, inputs: Any, seed: Any, values: Any) -> Any:
    """Return what `_operation.run` gives, as an operation the backend does not look into."""
    spec = spec_of(config, rate, None, n_q, **options)
    stop = keras.ops.stop_gradient
    rows, given = stop(inputs.rows), [stop(values[name]) for name in spec.given_names]
    if BACKEND != "torch":
        return Outputs.of(native.call(spec, rows, inputs.valid, inputs.shape, seed, given))
    if seed is not None and not seed.is_meta:
        seed = seed.cpu()
    return Outputs.of(native.run(spec.text, rows, inputs.valid, list(inputs.shape), seed, given))


if BACKEND == "torch":
    run = native.torch.compiler.disable(run)  # Dynamo cannot follow how a spec is made


def check(call: str, x: Any, mask: Any, dim: Any, data_format: Any) -> None:
    """Raise unless `x` has the layout and floating numbers, and `mask` fits."""
    first = data_format == "channels_first"
    shape = tuple(x.shape)
    if len(shape) not in (2, 3) or shape[1 if first else -1] != dim:
        expected = f"(B, {dim}, T)" if first else f"(B, T, {dim})"
        raise ShapeError(
            f"{call}: x has shape {shape}; expected {expected}, as data_format is "
            f"{data_format!r}, or (N, {dim})."
        )
    if not keras.backend.is_float_dtype(x.dtype):
        raise DtypeError(
            f"{call}: x has dtype {keras.backend.standardize_dtype(x.dtype)}; expected "
            "floating-point numbers. Convert with keras.ops.cast."
        )
    if mask is None:
        return
    expected, given = vectors_of(shape, data_format), tuple(mask.shape)
    if len(given) != len(expected) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(given, expected, strict=True)
    ):
        raise ShapeError(
            f"{call}: mask has shape {given}; expected {expected}, one for each vector."
        )
    if keras.backend.standardize_dtype(mask.dtype) != "bool":
        raise DtypeError(f"{call}: mask has dtype {mask.dtype}; expected bool.")


def checked_rate(config: Any, sample_rate: Any, bandwidth: Any) -> Any:
    """Return vectors per second and kb/s as float or None, or raise ParameterError."""
    if sample_rate is None and bandwidth is None:
        return None, None
    if sample_rate is None:
        raise ParameterError(
            f"ResidualVectorQuantizer: bandwidth is {bandwidth!r} without a sample_rate; how "
            "many stages fit into it depends on both."
        )
    config.rate(sample_rate)
    return float(sample_rate), config.budget(sample_rate, bandwidth)


def vectors_of(shape: Any, data_format: Any) -> Any:
    """Return the sizes that count vectors: (B, T) or (N,)."""
    return (shape[0], *(shape[2:] if data_format == "channels_first" else shape[1:-1]))


def constant(value: Any) -> Any:
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(
        np.array(value, np.float32).reshape(shape), dtype
    )


def checked_data_format(given: Any) -> Any:
    found = keras.config.image_data_format() if given is None else given
    if found not in ("channels_last", "channels_first"):
        raise ParameterError(
            f"ResidualVectorQuantizer: data_format is {given!r}; expected 'channels_last', "
            "'channels_first' or None."
        )
    return found


def to_numpy(x: Any) -> Any:
    try:
        return arrays.to_numpy(keras.ops.stop_gradient(x))
    except (TypeError, NotImplementedError, AttributeError) as error:
        raise BackendError(
            "rvq_np.grad.keras: values are not known while the backend traces a function. Call "
            "this outside it, or take the codes of quantize_batch."
        ) from error
