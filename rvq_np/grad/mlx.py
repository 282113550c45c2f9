"""MLX, eager: ``mx.grad``, ``mx.value_and_grad``, ``mx.jvp``, ``nn.value_and_grad``.

Only the search is opaque; gather, sum and straight-through are native operations, so gradients of
any order are MLX's own.  The search needs values, which ``mx.compile`` and ``mx.vmap`` keep back:
under them `BackendError` is raised.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import train as training
from ..config import Config
from ..errors import BackendError, DtypeError
from ..layout import QuantizedResult
from . import _host, _inputs
from ._surrogate import Ops, attach, check_estimator, decoded

OPS = Ops(
    shape=lambda x: x.shape,
    stop=mx.stop_gradient,
    take=lambda words, codes: words[codes],
    transpose=mx.transpose,
    reshape=mx.reshape,
    total=mx.sum,
    largest=mx.max,
    convert=lambda x, like: x.astype(like.dtype),
)


def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    _check(x, mask, rvq.dimension)
    there = None if mask is None else _numpy(mask)
    passed = rvq.passed("quantize", _numpy(x), sample_rate, bandwidth, there)
    named = _host.entries_of(passed.codebooks) if passed.trained else {}
    entries = {name: mx.array(each) for name, each in named.items()}
    return _result(
        x, mask, _host.outputs_of(passed), entries, rvq.config, passed.trained, estimator, None
    )


class ResidualVectorQuantizer(nn.Module):
    """ESPnet's quantizer as an MLX module, on the kernels of rvq_np.

    Projections are trainable parameters; words and their statistics are frozen ones, moved by
    every call in train mode. All are in ``parameters()`` under ESPnet's names without the
    underscore of ``_codebook``, which MLX would hide, so ``save_weights`` keeps them all.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the words are trainable, pulled by ``quantization_loss``; training still
        finds their first values by k-means, but neither moves nor replaces them.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    all_reduce : rvq_np.train.AllReduce, optional
        Adds up statistics over processes, which must then call ``mx.random.seed`` alike.

    Notes
    -----
    Draws follow ``mx.random.seed``. Vectors are computed in float32 at least and come back in
    the type of the input. Under ``mx.checkpoint``, which calls again for the gradient, a call in
    train mode trains twice.

    Examples
    --------
    >>> import mlx.core as mx
    >>> import mlx.nn as nn
    >>> from rvq_np.grad.mlx import ResidualVectorQuantizer
    >>> rvq = ResidualVectorQuantizer(dimension=16, codebook_dim=8, n_q=4, bins=32)
    >>> x = mx.random.normal((2, 16, 100))
    >>> def loss(x):
    ...     quantized, codes, bandwidth, penalty = rvq(x, sample_rate=50)
    ...     return mx.square(quantized - x).mean() + penalty
    >>> value, gradients = nn.value_and_grad(rvq, loss)(x)
    >>> gradients["vq"]["layers"][3]["project_out"]["weight"].shape
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
        all_reduce: training.AllReduce | None = None,
    ):
        super().__init__()
        self.config = Config(
            dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters,
            threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon,
            relative_threshold,
        )  # fmt: skip
        check_estimator(estimator)
        _inputs.check_training(codebook_training)
        self.codebook_training, self.estimator = codebook_training, estimator
        self.all_reduce = all_reduce
        start = training.entries(*training.fresh(self.config, np.random.default_rng(_draw())))
        self.vq = nn.Module()
        self.vq.layers = [nn.Module() for _ in range(n_q)]
        for name, value in start.items():
            layer, part, _ = self._place(name)
            if part not in layer:
                layer[part] = nn.Module()
            self._put(name, value)
        moved = {"inited", "cluster_size", "embed_avg"}
        if codebook_training == "ema":
            moved.add("embed")
        for layer in self.vq.layers:
            layer.codebook._no_grad = _Frozen(moved)

    def _extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.as_dict().items())

    @classmethod
    def of(cls, rvq, **options) -> ResidualVectorQuantizer:
        """Return a module with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        module = cls(**rvq.config.as_dict(), **options)
        for name, value in rvq.state_dict().items():
            module._put(name, value)
        return module.train(rvq.training)

    def to_numpy(self):
        """Return an `rvq_np.ResidualVectorQuantizer` with the arguments and arrays of this."""
        made = type(self._known().quantizer)
        states, projections = training.from_state_dict(self._values(), self.config)
        return made.made_of(self.config, states, projections).train(self.training)

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        """Return kb/s per level."""
        return self.config.bandwidth_per_quantizer(sample_rate)

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: float, bandwidth: float | None = None
    ) -> int:
        """Return how many levels fit into `bandwidth` kb/s."""
        return self.config.levels_for(sample_rate, bandwidth)

    def __call__(
        self,
        x: mx.array,
        sample_rate: float,
        bandwidth: float | None = None,
        mask: mx.array | None = None,
    ) -> QuantizedResult:
        """Quantize a batch (B, D, T) or (N, D); in train mode, learn from it.

        As `rvq_np.ResidualVectorQuantizer.forward`, with gradients, see `rvq_np.grad`.
        ``quantization_loss`` is there under dropout, and where it trains the words.
        """
        _check(x, mask, self.config.dimension)
        by_gradient = self.codebook_training == "gradient"
        spec = _host.Spec(
            self.config, float(sample_rate), bandwidth, self.training, moving=not by_gradient,
            hook=0 if self.all_reduce is None else _host.hold(self.all_reduce),
        )  # fmt: skip
        n_q, vectors, values = spec.n_q, _numpy(x), self._values()
        there = None if mask is None else _numpy(mask)
        seed = _draw() if self.training else None
        needed = [values[name] for name in _host.needed(spec)]
        outputs = _host.run(spec, vectors, there, seed, needed)
        entries = {
            name: value if by_gradient or not _host.is_state(name) else mx.stop_gradient(value)
            for name, value in self._entries().items()
        }
        for level, words in enumerate(outputs[4 : 4 + n_q]):  # k-means may have found them now
            name = f"vq.layers.{level}._codebook.embed"
            entries[name] = mx.array(words) + (entries[name] - mx.stop_gradient(entries[name]))
        result = _result(
            x, mask, outputs[:4], entries, self.config, self.training, self.estimator,
            by_gradient or None,
        )  # fmt: skip
        if self.training:
            moved = filter(_host.is_state, values)
            for name, value in zip(moved, outputs[4 + n_q :], strict=True):
                self._put(name, value)
        return result

    def encode(
        self,
        x: mx.array,
        sample_rate: float,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
    ) -> mx.array:
        """Return codes (n - st, B, T) or (n - st, N), int32; trains nothing.

        As `rvq_np.ResidualVectorQuantizer.encode`.
        """
        _check(x, None, self.config.dimension)
        quantizer = self._known().quantizer
        return mx.array(quantizer.encode(_numpy(x), sample_rate, bandwidth, st, beam_size))

    def decode(self, codes: mx.array, st: int | None = None) -> mx.array:
        """Return the vectors that codes (n, B, T) or (n, N) name, float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and words.
        """
        _check_kind(codes)
        value = mx.array(self._known().quantizer.decode(_numpy(codes), st))
        entries = {name: each.astype(value.dtype) for name, each in self._entries().items()}
        return decoded(OPS, value, codes, entries, st or 0)

    def _place(self, name):
        """Return the level, the part of it, and the last name of an array."""
        _, _, level, part, last = name.split(".")
        return self.vq.layers[int(level)], part.lstrip("_"), last

    def _put(self, name, value):
        layer, part, last = self._place(name)
        layer[part][last] = mx.array(value)

    def _entries(self):
        entries = {}
        for name in _host.names(self.config):
            layer, part, last = self._place(name)
            entries[name] = layer[part][last]
        return entries

    def _values(self):
        return {name: np.array(_numpy(each)) for name, each in self._entries().items()}

    def _known(self):
        return _host.recall(self.config, list(self._values().values()))


class _Frozen(set):
    """Names of arrays that no ``unfreeze`` frees, not of a model around it either.

    MLX has no buffers: an optimizer with weight decay would move the statistics of words.
    """

    def __init__(self, names):
        super().__init__(names)
        self.always = frozenset(names)

    def clear(self):
        self.intersection_update(self.always)

    def difference_update(self, *names):
        super().difference_update(*names)
        self.update(self.always)


def _draw():
    return _numpy(mx.random.randint(0, (1 << 32) - 1, (2,), dtype=mx.uint32))


def _numpy(x):
    """Return the values, half precision as float32."""
    try:
        return np.asarray(x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x)
    except ValueError as error:
        if "transformation" not in str(error):
            raise
        raise BackendError(
            "quantize: under mx.compile and mx.vmap arrays have no values yet, and the search "
            "needs them. Quantize outside of them: compile what comes before and after, put a "
            "mapped axis into the batch."
        ) from error


def _check_kind(*arrays):
    for each in arrays:
        if not isinstance(each, mx.array):
            raise BackendError(
                f"quantize: got a {type(each).__module__}.{type(each).__qualname__}; wanted MLX "
                "arrays throughout. Convert with mlx.core.array."
            )


def _check(x, mask, dim):
    _check_kind(x, *([] if mask is None else [mask]))
    if not mx.issubdtype(x.dtype, mx.floating):
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; wanted floating-point numbers. Call "
            "x.astype(mlx.core.float32)."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != mx.bool_:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; wanted mlx.core.bool_.")


def _result(x, mask, outputs, entries, config, trained, estimator, both_losses):
    """Return what the user gets, with gradients, of the first four outputs of `_host.run`."""
    wide = x if x.dtype == mx.float64 else x.astype(mx.float32)
    if mask is not None:  # whatever padding holds
        wide = mx.where(mask[:, None], wide, 0.0)
    codes, value, active, bandwidth = outputs
    codes = mx.array(codes)
    entries = {name: each.astype(wide.dtype) for name, each in entries.items()}
    quantized, commitment, quantization = attach(
        OPS, wide, mx.array(value, wide.dtype), codes, mx.array(active), entries, len(codes),
        losses=trained, estimator=estimator,
    )  # fmt: skip
    both = bool(config.quantizer_dropout) if both_losses is None else both_losses
    penalty = config.commitment_weight * commitment
    return QuantizedResult(
        quantized.astype(x.dtype), codes, mx.array(bandwidth), penalty,
        quantization if both else None,
    )  # fmt: skip
