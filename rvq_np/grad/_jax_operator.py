"""The search as one callback of JAX, and the operations the differentiable part is written in.

Inside the callback nothing of JAX is touched, or it may wait for itself, and nothing is raised:
values that cannot be quantized give NaN and codes of -2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import SingleThreadWarning, warn
from . import _devices, _operation


class _JaxOps:
    """`_ops.Ops` of JAX."""

    shape = staticmethod(jnp.shape)
    stop = staticmethod(jax.lax.stop_gradient)
    take = staticmethod(lambda codebook, codes: codebook.at[codes].get(mode="clip"))
    transpose = staticmethod(jnp.transpose)
    reshape = staticmethod(jnp.reshape)
    where = staticmethod(lambda condition, x, y: jnp.where(condition, x, y))
    sum = staticmethod(jnp.sum)
    max = staticmethod(lambda x, axis: jnp.max(x, axis, initial=0))
    cast = staticmethod(lambda x, like: x.astype(like.dtype))
    widen = staticmethod(lambda x: x if x.dtype == jnp.float64 else x.astype(jnp.float32))


OPS = _JaxOps()


class AllReduce(NamedTuple):
    """Adds up an array over the devices that train together, and says which one this is.

    As `rvq_np.train.AllReduce`, but of JAX arrays, inside a transform. See `psum`.
    """

    function: Callable[[Any], Any]
    rank: Any
    size: int


def psum(axis_name: str) -> AllReduce:
    """Return the `AllReduce` over a mapped axis, to be called inside ``pmap`` or ``shard_map``."""
    return AllReduce(
        lambda array: jax.lax.psum(array, axis_name),
        jax.lax.axis_index(axis_name),
        jax.lax.axis_size(axis_name),
    )


def traced(*arrays: Any) -> bool:
    return any(isinstance(each, jax.core.Tracer) for each in arrays)


def numbers_of(key: Any) -> Any:
    """Return two numbers below 2**32 of a key, an array of two, or a number."""
    if isinstance(key, int):
        return np.array([key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF])
    if jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    key = jnp.ravel(key)[-2:]
    return key if traced(key) else np.asarray(key)


def call(
    spec: Any, rows: Any, valid: Any, shape: Any, seed: Any, given: Any, all_reduce: Any = None
) -> Any:
    """Return what `_operation.run` gives, from a callback where something is traced."""
    if all_reduce is None and not traced(rows, valid, seed, *given):
        outputs = _operation.run(spec, rows, valid, shape, seed, given)
        return [jnp.asarray(each) for each in outputs]
    poisoning = replace(spec, poison=True)
    sizes = [
        jax.ShapeDtypeStruct(size, rows.dtype if dtype is None else dtype)
        for size, dtype in _operation.shapes(spec, rows.shape[0], shape)
    ]
    present = [each is not None for each in (valid, seed)]

    def unpacked(operands: Any) -> Any:
        found = [np.asarray(each) for each in operands]
        there, numbers = (found.pop(0) if each else None for each in present)
        return there, numbers, found

    if all_reduce is not None:
        return _on_all_devices(
            poisoning, rows, valid, shape, seed, given, all_reduce, sizes, unpacked
        )

    def host(rows_there: Any, *operands: Any) -> Any:
        rows_there = np.asarray(rows_there)
        valid_there, numbers, arrays = unpacked(operands)
        axes = rows_there.ndim - 2
        if axes:
            return _operation.run_mapped(
                poisoning, axes, rows_there, valid_there, shape, numbers, arrays
            )
        return _operation.run(poisoning, rows_there, valid_there, shape, numbers, arrays)

    return callback(host, sizes, [rows, valid, seed, *given], "expand_dims")


def _on_all_devices(
    spec: Any,
    rows: Any,
    valid: Any,
    shape: Any,
    seed: Any,
    given: Any,
    all_reduce: Any,
    sizes: Any,
    unpacked: Any,
) -> Any:
    """Return what `_operation.run` gives, trained on the batches of all devices."""
    first = 4 + spec.n_q
    buffer = jax.ShapeDtypeStruct((_devices.length(spec),), np.float32)

    def measure(rank: Any, rows_there: Any, *operands: Any) -> Any:
        valid_there, numbers, arrays = unpacked(operands)
        return _devices.measure(
            spec, np.asarray(rows_there), valid_there, shape, numbers, arrays, int(rank),
            all_reduce.size,
        )  # fmt: skip

    def finish(total: Any, *arrays: Any) -> Any:
        return _devices.finish(spec, [np.asarray(each) for each in arrays], np.asarray(total))

    rank = jnp.asarray(all_reduce.rank)
    *outputs, total = callback(measure, [*sizes[:first], buffer], [rank, rows, valid, seed, *given])
    return [*outputs, *callback(finish, sizes[first:], [all_reduce.function(total), *given])]


def callback(host: Any, sizes: Any, operands: Any, mapped: Any = "sequential") -> Any:
    """Return what `host`, a function of NumPy arrays, gives when the transformed function runs."""
    _check_threads()
    operands = [jax.lax.stop_gradient(each) for each in operands if each is not None]
    return jax.pure_callback(host, sizes, *operands, vmap_method=mapped)


@cache
def _check_threads() -> None:
    """Warn, once a process, where JAX has a single thread, which a callback would wait for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if (cores or 1) < 2 and jax.local_device_count("cpu") < 2:
        warn(
            "rvq_np.grad.jax: this process has one core, so JAX has one thread, and a compiled "
            "function that calls NumPy may wait for ever. Before JAX starts, set the environment "
            "variable XLA_FLAGS=--xla_force_host_platform_device_count=2.",
            SingleThreadWarning,
        )
