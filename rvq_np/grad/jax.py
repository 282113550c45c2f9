"""JAX: eager, ``jit``, ``grad``, ``vmap``, and training on several devices by ``psum``.

Only search and training are opaque, in a ``pure_callback`` on the host; gather, sum and
straight-through are native.  Inside the callback nothing of JAX is touched, or it may wait for
itself, and nothing is raised: values that cannot be quantized give NaN and codes of -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import train as training
from ..config import Config
from ..errors import BackendError, DtypeError, ParameterError
from ..layout import QuantizedResult
from ..quantizer import ResidualVectorQuantizer as NumpyQuantizer
from . import _host, _inputs, _together
from ._surrogate import Ops, attach, check_estimator, decoded

Arrays = dict[str, Any]

jax.tree_util.register_dataclass(
    QuantizedResult,
    data_fields=["quantized", "codes", "bandwidth", "penalty", "quantization_loss"],
    meta_fields=[],
)

OPS = Ops(
    shape=jnp.shape,
    stop=jax.lax.stop_gradient,
    take=lambda words, codes: words.at[codes].get(mode="clip"),
    transpose=jnp.transpose,
    reshape=jnp.reshape,
    total=jnp.sum,
    largest=lambda x, axis: jnp.max(x, axis, initial=0),
    convert=lambda x, like: x.astype(like.dtype),
)


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


def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    _check(x, mask, rvq.dimension)
    spec = _host.Spec(rvq.config, float(sample_rate), bandwidth, rvq.training, held=_host.hold(rvq))
    if not _traced(x, mask):
        passed = rvq.passed("quantize", x, sample_rate, bandwidth, mask)
        return passed.result(rvq.config)
    if rvq.training:
        raise BackendError(
            "quantize: rvq is in train mode under a JAX transform, where its learning would be a "
            "side effect. Use rvq_np.grad.jax.ResidualVectorQuantizer, or rvq.eval()."
        )
    return _quantized(spec, x, mask, None, {}, [], estimator, None)[0]


class ResidualVectorQuantizer:
    """ESPnet's quantizer as pure functions over dictionaries of arrays.

    The object holds nothing but its arguments. `init` makes ``parameters``, which an optimizer
    moves (projections), and ``state``, which `apply` moves (words and their statistics); together
    they are the ``state_dict`` of `rvq_np.ResidualVectorQuantizer`, under the same names.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the words are parameters, pulled by ``quantization_loss``; training still
        finds their first values by k-means, but neither moves nor replaces them.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.

    Examples
    --------
    >>> import jax
    >>> from rvq_np.grad.jax import ResidualVectorQuantizer
    >>> rvq = ResidualVectorQuantizer(dimension=16, codebook_dim=8, n_q=4, bins=32)
    >>> parameters, state = rvq.init(jax.random.key(0))
    >>> x = jax.random.normal(jax.random.key(1), (2, 16, 100))
    >>> def loss(parameters, x, state, key):
    ...     result, state = rvq.apply(parameters, state, x, 50, train=True, key=key)
    ...     return ((result.quantized - x) ** 2).mean() + result.penalty, state
    >>> step = jax.jit(jax.grad(loss, has_aux=True))
    >>> gradients, state = step(parameters, x, state, jax.random.key(2))
    >>> gradients["vq.layers.3.project_out.weight"].shape
    (16, 8)
    """

    def __init__(
        self,
        dimension: int = 256,
        codebook_dim: int | None = 512,
        n_q: int = 8,
        bins: int = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float = 2,
        quantizer_dropout: bool | float = False,
        *,
        commitment_weight: float = 1.0,
        epsilon: float = 1e-5,
        relative_threshold: float | None = None,
        codebook_training: str = "ema",
        estimator: str = "straight-through",
    ):
        self.config = Config(
            dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters,
            threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon,
            relative_threshold,
        )  # fmt: skip
        check_estimator(estimator)
        _inputs.check_training(codebook_training)
        self.codebook_training, self.estimator = codebook_training, estimator

    def init(self, key: Any) -> tuple[Arrays, Arrays]:
        """Return fresh parameters and state: random projections, small random words.

        `key`: a key of ``jax.random``, or a number.
        """
        rng = np.random.default_rng(_numbers(key).tolist())
        return self._split(training.entries(*training.fresh(self.config, rng)))

    def of(self, rvq: NumpyQuantizer) -> tuple[Arrays, Arrays]:
        """Return the parameters and state of an `rvq_np.ResidualVectorQuantizer`."""
        return self._split(rvq.state_dict())

    def to_numpy(self, parameters: Arrays, state: Arrays) -> NumpyQuantizer:
        """Return an `rvq_np.ResidualVectorQuantizer` with these arrays, in eval."""
        states, projections = training.from_state_dict({**parameters, **state}, self.config)
        return NumpyQuantizer.made_of(self.config, states, projections).eval()

    def apply(
        self,
        parameters: Arrays,
        state: Arrays,
        x: Any,
        sample_rate: float,
        bandwidth: float | None = None,
        mask: Any = None,
        *,
        train: bool = False,
        key: Any = None,
        all_reduce: AllReduce | None = None,
    ) -> tuple[QuantizedResult, Arrays]:
        """Quantize a batch; with ``train=True``, learn from it.

        Parameters
        ----------
        parameters, state : dict
            Of `init`, `of` or an earlier call.
        x : array (B, D, T) or (N, D), floating
        sample_rate, bandwidth, mask
            As for `rvq_np.ResidualVectorQuantizer.forward`.
        train : bool, optional
            Whether to train, and to drop levels.
        key : key of jax.random or two int, optional
            For what training draws; needed then. With `all_reduce` the same on all devices.
        all_reduce : AllReduce, optional
            Adds up over the devices of a ``pmap`` or ``shard_map``, see `psum`.

        Returns
        -------
        result : QuantizedResult
        state : dict
            After the step; in eval the same.

        Raises
        ------
        BackendError, ShapeError, DtypeError, ParameterError
            For what can be told while tracing.
        NonFiniteError
            For values, where they are known; else they give NaN and codes of -1, and the state
            stays as it is.
        """
        _check(x, mask, self.config.dimension)
        if train and key is None:
            raise ParameterError("apply: train=True needs a key, for what training draws.")
        entries = self._joined(parameters, state)
        by_gradient = self.codebook_training == "gradient"
        spec = _host.Spec(self.config, float(sample_rate), bandwidth, train, moving=not by_gradient)
        given = dict(entries)
        if by_gradient:  # k-means would find other words than the parameters: see initialize
            given.update({name: jnp.ones(1) for name in entries if name.endswith(".inited")})
        result, moved = _quantized(
            spec, x, mask, _numbers(key) if train else None, entries,
            [given[name] for name in _host.needed(spec)], self.estimator, by_gradient or None,
            all_reduce,
        )  # fmt: skip
        if by_gradient or not train:
            return result, state
        names = filter(_host.is_state, entries)
        return result, {**state, **dict(zip(names, moved, strict=True))}

    def initialize(
        self, parameters: Arrays, state: Arrays, x: Any, key: Any, mask: Any = None
    ) -> tuple[Arrays, Arrays]:
        """Find the first words by k-means, where that was not done; return parameters and state.

        `apply` does it in the first training step, but for words that are parameters, and for
        training on several devices: call this before. Arguments as for `apply`.
        """
        _check(x, mask, self.config.dimension)
        entries = self._joined(parameters, state)
        spec = _host.Spec(self.config, 1.0, None, True, moving=False)
        wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
        outputs = _call(spec, [wide, mask, _numbers(key), *entries.values()])
        names = filter(_host.is_state, entries)
        found = dict(zip(names, outputs[4 + spec.n_q :], strict=True))
        return self._split({**entries, **found})

    def encode(
        self,
        parameters: Arrays,
        state: Arrays,
        x: Any,
        sample_rate: float,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
    ) -> Any:
        """Return codes, int32, as `rvq_np.ResidualVectorQuantizer.encode`; not under transforms.

        Under ``jit`` the codes are those of `apply`.
        """
        rvq = self._known(parameters, state)
        return rvq.encode(x, sample_rate, bandwidth, st, beam_size)

    def decode(self, parameters: Arrays, state: Arrays, codes: Any, st: int | None = None) -> Any:
        """Return the vectors that codes (n, B, T) or (n, N) name, float32.

        Exactly those of `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections
        and words. Codes out of range raise where values are known, else give NaN.
        """
        entries = self._joined(parameters, state)
        start = self.config.check_start("decode", st, self.config.n_q)
        if not _traced(codes, *entries.values()):
            return self._known(parameters, state).decode(codes, st)
        codes = jax.lax.stop_gradient(codes)
        shape = (codes.shape[1], self.config.dimension, *codes.shape[2:])
        if codes.ndim == 2:
            shape = (codes.shape[1], self.config.dimension)

        def host(codes, *tensors):
            return _host.decode(self.config, tensors, np.asarray(codes), start)

        value = jax.pure_callback(
            host, jax.ShapeDtypeStruct(shape, np.float32), codes,
            *map(jax.lax.stop_gradient, entries.values()), vmap_method="sequential",
        )  # fmt: skip
        return decoded(OPS, value, codes, entries, start)

    def _split(self, named: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
        parameters: Arrays = {}
        state: Arrays = {}
        for name, value in named.items():
            learned = not _host.is_state(name)
            learned |= name.endswith(".embed") and self.codebook_training == "gradient"
            (parameters if learned else state)[name] = jnp.asarray(value, jnp.float32)
        return parameters, state

    def _joined(self, parameters: Arrays, state: Arrays) -> Arrays:
        entries = {**parameters, **state}
        _inputs.check_names(entries, self.config)
        return {name: jnp.asarray(entries[name]) for name in _host.names(self.config)}

    def _known(self, parameters: Arrays, state: Arrays) -> NumpyQuantizer:
        entries = self._joined(parameters, state)
        if _traced(*entries.values()):
            raise BackendError(
                "encode: the arrays are traced by a JAX transform; take the codes of apply."
            )
        return _host.recall(self.config, list(entries.values())).quantizer


def _traced(*arrays: Any) -> bool:
    return any(isinstance(each, jax.core.Tracer) for each in arrays)


def _numbers(key: Any) -> Any:
    """Return two numbers below 2**32 of a key, an array of two, or a number."""
    if isinstance(key, int):
        return np.array([key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF])
    if jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    key = jnp.ravel(key)[-2:]
    return key if _traced(key) else np.asarray(key)


def _check(x: Any, mask: Any, dim: int) -> None:
    for each in (x,) if mask is None else (x, mask):
        if not isinstance(each, jax.Array):
            raise BackendError(
                f"quantize: got a {type(each).__module__}.{type(each).__qualname__}; wanted JAX "
                "arrays throughout. Convert with jax.numpy.asarray."
            )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; wanted floating-point numbers. Call "
            "x.astype('float32')."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != bool:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; wanted bool.")


def _quantized(spec, x, mask, seed, entries, tensors, estimator, both_losses, all_reduce=None):
    """Return the result and, in training, the new arrays of the state."""
    config, n_q = spec.config, spec.n_q
    wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    if mask is not None:  # whatever padding holds
        wide = jnp.where(mask[:, None], wide, 0.0)
    given = [wide, mask, seed, *tensors]
    if all_reduce is not None and spec.training:
        outputs = _together_call(spec, given, all_reduce)
    else:
        outputs = _call(spec, given)
    codes, value, active, bandwidth, *rest = outputs
    entries = {name: each.astype(wide.dtype) for name, each in entries.items()}
    for level, words in enumerate(rest[:n_q]):  # k-means may have found them only now
        name = f"vq.layers.{level}._codebook.embed"
        entries[name] += jax.lax.stop_gradient(words.astype(wide.dtype) - entries[name])
    quantized, commitment, quantization = attach(
        OPS, wide, value, codes, active, entries, n_q, losses=spec.training, estimator=estimator
    )
    both = bool(config.quantizer_dropout) if both_losses is None else both_losses
    penalty = config.commitment_weight * commitment
    return QuantizedResult(
        quantized.astype(x.dtype), codes, bandwidth, penalty, quantization if both else None
    ), rest[n_q:]


def _call(spec, given):
    """Return what `_host.run` gives, from a callback where something is traced."""
    if not _traced(*given):
        x, mask, seed, *tensors = given
        return [jnp.asarray(each) for each in _host.run(spec, x, mask, seed, tensors)]
    poisoning = replace(spec, poison=True)
    x, mask, seed, *_ = given
    shapes = [
        jax.ShapeDtypeStruct(shape, x.dtype if dtype is None else dtype)
        for shape, dtype in _host.shapes(spec, x.shape)
    ]
    present = [each is not None for each in (x, mask, seed)]

    def host(*operands):
        tensors = [np.asarray(each) for each in operands]
        here, there, numbers = (tensors.pop(0) if each else None for each in present)
        assert here is not None
        axes = here.ndim - x.ndim
        if axes:
            return _host.run_mapped(poisoning, axes, here, there, numbers, tensors)
        return _host.run(poisoning, here, there, numbers, tensors)

    return _callback(host, shapes, given, "expand_dims")


def _together_call(spec, given, all_reduce):
    """Return what `_host.run` gives, trained on the batches of all devices."""
    x, mask, seed, *tensors = given
    poisoning = replace(spec, poison=True)
    shapes = [
        jax.ShapeDtypeStruct(shape, x.dtype if dtype is None else dtype)
        for shape, dtype in _host.shapes(spec, x.shape)
    ]
    kept = 4 + spec.n_q
    buffer = jax.ShapeDtypeStruct((_together.length(spec),), np.float32)

    def measure(rank, seed, x, *operands):
        tensors = [np.asarray(each) for each in operands]
        there = None if mask is None else tensors.pop(0)
        return _together.measure(
            poisoning, np.asarray(x), there, np.asarray(seed), tensors, int(rank), all_reduce.size
        )

    def settle(total, *tensors):
        return _together.settle(spec, [np.asarray(each) for each in tensors], np.asarray(total))

    rank = jnp.asarray(all_reduce.rank)
    *outputs, total = _callback(measure, [*shapes[:kept], buffer], [rank, seed, x, mask, *tensors])
    moved = _callback(settle, shapes[kept:], [all_reduce.function(total), *tensors])
    return [*outputs, *moved]


def _callback(host, shapes, operands, mapped="sequential"):
    operands = [jax.lax.stop_gradient(each) for each in operands if each is not None]
    return jax.pure_callback(host, shapes, *operands, vmap_method=mapped)
