"""TensorFlow: eager and ``tf.function``; the layer to train is `rvq_np.grad.keras`'s.

Only search and training are opaque, in a ``tf.numpy_function`` where there is a graph; gather, sum
and straight-through are native.  XLA cannot call the host, so ``jit_compile=True`` is refused.
In a graph nothing is raised: values that cannot be quantized give NaN and codes of -2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # nothing public tells of XLA while tracing

from ..errors import BackendError, DtypeError, ShapeError
from . import _inputs, _operation
from ._operation import spec_of
from ._products import arrays_of
from ._references import number_of
from ._straight_through import Outputs, inputs_of, result_of

__all__ = ["quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


def _shape(x: Any) -> Any:
    known = x.shape.as_list()
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(known)]


class _TensorflowOps:
    """`_ops.Ops` of TensorFlow."""

    shape = staticmethod(_shape)
    stop = staticmethod(tf.stop_gradient)
    take = staticmethod(lambda codebook, codes: tf.gather(codebook, tf.maximum(codes, 0)))
    transpose = staticmethod(tf.transpose)
    reshape = staticmethod(tf.reshape)
    where = staticmethod(lambda condition, x, y: tf.where(condition, x, tf.cast(y, x.dtype)))
    sum = staticmethod(tf.reduce_sum)
    max = staticmethod(tf.reduce_max)
    cast = staticmethod(lambda x, like: tf.cast(x, like.dtype))
    widen = staticmethod(lambda x: x if x.dtype == tf.float64 else tf.cast(x, tf.float32))


OPS = _TensorflowOps()


@tf.autograph.experimental.do_not_convert
def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    x = tf.convert_to_tensor(x) if isinstance(x, tf.Variable) else x
    _check(x, mask, rvq.dimension)
    if rvq.training and not tf.executing_eagerly():
        raise BackendError(
            "quantize: rvq is in train mode inside a tf.function, where its training would be a "
            "side effect. Use rvq_np.grad.keras.ResidualVectorQuantizer, or rvq.eval()."
        )
    inputs = inputs_of(OPS, x, mask)
    stages = []
    if rvq.training:
        wide = OPS.widen(x).numpy()
        valid = None if mask is None else mask.numpy()
        passed = rvq.passed("quantize", wide, sample_rate, bandwidth, valid, n_q)
        outputs = Outputs(*map(tf.convert_to_tensor, _operation.outputs_of(passed)))
        constants = arrays_of(passed.codebooks, len(passed.codes), np.float32)
        stages = [each.each(tf.constant) for each in constants]
    else:
        spec = spec_of(rvq.config, sample_rate, bandwidth, n_q, quantizer=number_of(rvq))
        outputs = Outputs.of(call(spec, inputs.rows, inputs.valid, inputs.shape, None, []))
    return result_of(
        OPS, inputs, outputs, stages, rvq.config, losses=rvq.training, estimator=estimator,
        both_losses=bool(rvq.config.quantizer_dropout),
    )  # fmt: skip


def call(spec: Any, rows: Any, valid: Any, shape: Any, seed: Any, given: Any) -> Any:
    """Return what `_operation.run` gives, from the host where there is a graph."""
    if tf.executing_eagerly():
        host = [None if each is None else each.numpy() for each in (rows, valid, seed, *given)]
        outputs = _operation.run(spec, host[0], host[1], shape, host[2], host[3:])
        return [tf.convert_to_tensor(each) for each in outputs]
    # Only here, as a graph may be made long before it is compiled.
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise BackendError(
            "quantize: XLA cannot call the kernels on the host. Omit jit_compile=True; a "
            "tf.function without it works."
        )
    poisoning = replace(spec, poison=True)
    present = [each is not None for each in (valid, seed)]

    def on_the_host(sizes: Any, rows: Any, *operands: Any) -> Any:
        found = list(operands)
        valid, seed = (found.pop(0) if here else None for here in present)
        sizes = [int(size) for size in sizes]
        outputs = _operation.run(poisoning, rows, valid, sizes, seed, found)
        return [np.asarray(each) for each in outputs]

    known = [size if isinstance(size, int) else None for size in shape]
    promised = [
        (tf.TensorShape(size), tf.as_dtype(dtype or rows.dtype))
        for size, dtype in _operation.shapes(spec, rows.shape[0], known)
    ]
    operands = [each for each in (valid, seed, *given) if each is not None]
    outputs = tf.numpy_function(
        on_the_host, [tf.stack(shape), rows, *operands], [dtype for _, dtype in promised]
    )
    for each, (size, _) in zip(outputs, promised, strict=True):
        each.set_shape(size)
    return outputs


def _check(x: Any, mask: Any, dim: Any) -> None:
    for each in (x,) if mask is None else (x, mask):
        if not tf.is_tensor(each):
            _inputs.refuse_kind(
                each, "TensorFlow tensors throughout. Convert with tf.convert_to_tensor"
            )
    if not x.dtype.is_floating:
        raise DtypeError(
            f"quantize: x has dtype {x.dtype.name}; expected floating-point numbers. Convert with "
            "tf.cast(x, tf.float32)."
        )
    if x.shape.rank is None:
        raise ShapeError(
            "quantize: the rank of x is not known in this graph. Name its shape by "
            "tf.ensure_shape, or in the input_signature."
        )
    _inputs.check_shapes(x, None, dim)
    if mask is not None:
        if not mask.shape.is_compatible_with((x.shape[0], *x.shape[2:])):
            _inputs.check_shapes(x, mask, dim)
        if mask.dtype != tf.bool:
            raise DtypeError(f"quantize: mask has dtype {mask.dtype.name}; expected tf.bool.")
