"""TensorFlow: eager and ``tf.function``; the layer to train is `rvq_np.grad.keras`'s.

Only search and training are opaque, in a ``tf.numpy_function`` where there is a graph; gather, sum
and straight-through are native.  XLA cannot call the host, so ``jit_compile=True`` is refused.
In a graph nothing is raised: values that cannot be quantized give NaN and codes of -1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # nothing public tells of XLA while tracing

from ..errors import BackendError, DtypeError, ShapeError
from ..layout import QuantizedResult
from . import _host, _inputs
from ._surrogate import Ops, attach


def _shape(x):
    known = x.shape.as_list()
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(known)]


OPS = Ops(
    shape=_shape,
    stop=tf.stop_gradient,
    take=lambda words, codes: tf.gather(words, tf.maximum(codes, 0)),  # -1 where x cannot be
    transpose=tf.transpose,
    reshape=tf.reshape,
    total=tf.reduce_sum,
    largest=tf.reduce_max,
    convert=lambda x, like: tf.cast(x, like.dtype),
)


@tf.autograph.experimental.do_not_convert
def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    x = tf.convert_to_tensor(x) if isinstance(x, tf.Variable) else x
    _check(x, mask, rvq.dimension)
    if rvq.training and not tf.executing_eagerly():
        raise BackendError(
            "quantize: rvq is in train mode inside a tf.function, where its learning would be a "
            "side effect. Use rvq_np.grad.keras.ResidualVectorQuantizer, or rvq.eval()."
        )
    spec = _host.Spec(rvq.config, float(sample_rate), bandwidth, held=_host.hold(rvq))
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    if mask is not None:  # whatever padding holds
        wide = tf.where(mask[:, None], wide, tf.zeros_like(wide))
    entries = {}
    if rvq.training:
        there = None if mask is None else mask.numpy()
        passed = rvq.passed("quantize", wide.numpy(), sample_rate, bandwidth, there)
        outputs = [tf.convert_to_tensor(each) for each in _host.outputs_of(passed)]
        entries = _host.entries_of(passed.codebooks)
    else:
        outputs = call(spec, wide, mask, None, [])
    codes, value, active, spent = outputs
    entries = {name: tf.constant(each, wide.dtype) for name, each in entries.items()}
    quantized, commitment, quantization = attach(
        OPS, wide, value, codes, active, entries, spec.n_q,
        losses=rvq.training, estimator=estimator,
    )  # fmt: skip
    return QuantizedResult(
        tf.cast(quantized, x.dtype), codes, spent, rvq.config.commitment_weight * commitment,
        quantization if rvq.config.quantizer_dropout else None,
    )  # fmt: skip


def call(spec, x, mask, seed, tensors):
    """Return what `_host.run` gives, from the host where there is a graph."""
    if tf.executing_eagerly():
        given = [None if each is None else each.numpy() for each in (x, mask, seed, *tensors)]
        outputs = _host.run(spec, given[0], given[1], given[2], given[3:])
        return [tf.convert_to_tensor(each) for each in outputs]
    # Only here, as a graph may be made long before it is compiled.
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise BackendError(
            "quantize: XLA cannot call the kernels on the host. Leave jit_compile=True away; a "
            "tf.function without it will do."
        )
    poisoning = replace(spec, poison=True)
    present = [each is not None for each in (x, mask, seed)]

    def host(*operands):
        given = iter(operands)
        x, mask, seed = (next(given) if here else None for here in present)
        return [np.asarray(each) for each in _host.run(poisoning, x, mask, seed, list(given))]

    # A Dimension of unknown size can be multiplied; None cannot.
    sizes = [tf.compat.v1.Dimension(size) for size in x.shape]
    wanted = [
        (tf.TensorShape(shape), tf.as_dtype(dtype or x.dtype))
        for shape, dtype in _host.shapes(spec, sizes)
    ]
    operands = [each for each in (x, mask, seed, *tensors) if each is not None]
    outputs = tf.numpy_function(host, operands, [dtype for _, dtype in wanted])
    for each, (shape, _) in zip(outputs, wanted, strict=True):
        each.set_shape(shape)
    return outputs


def _check(x, mask, dim):
    for each in (x,) if mask is None else (x, mask):
        if not tf.is_tensor(each):
            raise BackendError(
                f"quantize: got a {type(each).__module__}.{type(each).__qualname__}; wanted "
                "TensorFlow tensors throughout. Convert with tf.convert_to_tensor."
            )
    if not x.dtype.is_floating:
        raise DtypeError(
            f"quantize: x has dtype {x.dtype.name}; wanted floating-point numbers. Convert with "
            "tf.cast(x, tf.float32)."
        )
    if x.shape.rank is None:
        raise ShapeError(
            "quantize: the rank of x is not known in this graph. Name its shape by "
            "tf.ensure_shape, or in the input_signature."
        )
    _inputs.check_shapes(x, None, dim)
    if mask is not None:
        wanted = (x.shape[0], *x.shape[2:])
        if not mask.shape.is_compatible_with(wanted):
            _inputs.check_shapes(x, mask, dim)
        if mask.dtype != tf.bool:
            raise DtypeError(f"quantize: mask has dtype {mask.dtype.name}; wanted tf.bool.")
