"""MLX, eager: ``mx.grad``, ``mx.value_and_grad``, ``mx.jvp``, ``nn.value_and_grad``.

Only the search is opaque; gather, sum and straight-through are native operations, so gradients of
any order are MLX's own.  The search needs values, which ``mx.compile`` and ``mx.vmap`` keep back:
under them `BackendError` is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import names
from .. import train as training
from ..errors import BackendError, DtypeError
from ..quantizer import ResidualVectorQuantizer as NumpyQuantizer
from ..quantizer.layout import QuantizedResult
from . import _inputs, _module, _operation
from ._cache import prepared
from ._names import all_names, is_state, search_names, stage_arrays
from ._operation import spec_of
from ._products import arrays_of
from ._references import number_of
from ._remembered import Remembered
from ._straight_through import Outputs, decoded_vectors, inputs_of, result_of

__all__ = ["ResidualVectorQuantizer", "quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


class _MlxOps:
    """`_ops.Ops` of MLX."""

    shape = staticmethod(lambda x: x.shape)
    stop = staticmethod(mx.stop_gradient)
    take = staticmethod(lambda codebook, codes: codebook[codes])
    transpose = staticmethod(mx.transpose)
    reshape = staticmethod(mx.reshape)
    where = staticmethod(mx.where)
    sum = staticmethod(mx.sum)
    max = staticmethod(mx.max)
    cast = staticmethod(lambda x, like: x.astype(like.dtype))
    widen = staticmethod(lambda x: x if x.dtype == mx.float64 else x.astype(mx.float32))


OPS = _MlxOps()
HALF = (mx.float16, mx.bfloat16)
CODEBOOK = names.PART.lstrip("_")  # MLX would hide a name with an underscore


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    _check(x, mask, rvq.dimension)
    there = None if mask is None else _numpy(mask)
    passed = rvq.passed("quantize", _numpy(x), sample_rate, bandwidth, there, n_q)
    inputs = inputs_of(OPS, x, mask)
    constants = arrays_of(passed.codebooks, len(passed.codes), np.float32) if passed.trained else []
    return result_of(
        OPS, inputs, Outputs(*_arrays(inputs, _operation.outputs_of(passed))),
        [each.each(mx.array) for each in constants], rvq.config, losses=passed.trained,
        estimator=estimator, both_losses=bool(rvq.config.quantizer_dropout),
    )  # fmt: skip


class ResidualVectorQuantizer(_module.Described, nn.Module):
    """ESPnet's quantizer as an MLX module, on the kernels of rvq_np.

    Projections are trainable parameters. Codewords and their statistics are frozen parameters,
    which every call in train mode updates. All are in ``parameters()`` under ESPnet's names, but
    without the underscore of ``_codebook``, because MLX hides such names. So ``save_weights`` saves
    all of them.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the codewords are trainable, by ``quantization_loss``. Training still finds
        their first values by k-means, but neither moves nor replaces them.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    all_reduce : rvq_np.train.AllReduce, optional
        Adds up statistics over processes, which must then call ``mx.random.seed`` with the same
        seed.

    Notes
    -----
    Random numbers follow ``mx.random.seed``. Vectors are computed in float32 at least and returned
    in the type of the input. Codewords that are not trainable, and their statistics, stay float32
    after ``set_dtype``; all other parameters are converted. ``mx.checkpoint`` calls the module
    again for the gradient, so a call in train mode then trains twice.

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
        bins: int | Sequence[int] = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float | None = None,
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
        self.config = _inputs.config_of(locals())
        _inputs.check_options(codebook_training, estimator, all_reduce)
        self.codebook_training, self.estimator = codebook_training, estimator
        self.all_reduce = all_reduce
        self._remembered = Remembered()
        start = training.entries(*training.fresh(self.config, np.random.default_rng(_draw())))
        moved = {names.INITIALIZED, names.COUNTS, names.SUMS}
        if codebook_training == "ema":
            moved.add(names.CODEWORDS)
        self.vq = nn.Module()
        self.vq.layers = [nn.Module() for _ in range(n_q)]
        for name, value in start.items():
            layer, part, _ = self._place(name)
            if part not in layer:
                layer[part] = _Codebook(moved) if part == CODEBOOK else nn.Module()
            self._put(name, value)

    @classmethod
    def of(cls, rvq: Any, **options: Any) -> ResidualVectorQuantizer:
        """Return a module with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        module = cls(**rvq.config.as_dict(), **options)
        for name, value in rvq.state_dict().items():
            module._put(name, value)
        module._remembered = Remembered(rvq.collected, rvq.frozen)
        return module.train(rvq.training)

    def to_numpy(self) -> Any:
        """Return an `rvq_np.ResidualVectorQuantizer` with the module's arguments and arrays."""
        values = {name: _numpy(each) for name, each in self._named().items()}
        states, projections = training.from_state_dict(values, self.config)
        known = self._remembered
        made = NumpyQuantizer.made_of(
            self.config, states, projections, collected=known.collected, frozen=known.frozen
        )
        return made.train(self.training)

    def __call__(
        self,
        x: mx.array,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        mask: mx.array | None = None,
        *,
        n_q: int | None = None,
    ) -> QuantizedResult:
        """Quantize a batch (B, D, T) or (N, D); in train mode, learn from it.

        As `rvq_np.ResidualVectorQuantizer.forward`, with gradients, see `rvq_np.grad`.
        ``quantization_loss`` is there under dropout, and where it trains the codewords.
        """
        _check(x, mask, self.config.dimension)
        by_gradient = self.codebook_training == "gradient"
        spec = spec_of(
            self.config, sample_rate, bandwidth, n_q,
            training=self.training, moving=not by_gradient,
            all_reduce=0 if self.all_reduce is None else number_of(self.all_reduce),
            remembered=number_of(self._remembered) if self.training else 0,
        )  # fmt: skip
        named, inputs = self._named(), inputs_of(OPS, x, mask)
        found = _operation.run(
            spec, _numpy(inputs.rows), None if mask is None else _numpy(inputs.valid), inputs.shape,
            _draw() if self.training else None, [_numpy(named[name]) for name in spec.given_names],
        )  # fmt: skip
        outputs = Outputs.of(_arrays(inputs, found))
        if not by_gradient:
            named = {name: mx.stop_gradient(each) if is_state(name) else each
                     for name, each in named.items()}  # fmt: skip
        result = result_of(
            OPS, inputs, outputs, stage_arrays(self.config, named, spec.n_q), self.config,
            losses=self.training, estimator=self.estimator,
            both_losses=by_gradient or bool(self.config.quantizer_dropout),
        )  # fmt: skip
        if self.training:
            for name, value in zip(filter(is_state, named), outputs.state, strict=True):
                self._put(name, value)
        return result

    def encode(
        self,
        x: mx.array,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> mx.array:
        """Return codes (n - st, B, T) or (n - st, N), int32, without training.

        As `rvq_np.ResidualVectorQuantizer.encode`.
        """
        _check(x, None, self.config.dimension)
        codes = self._quantizer().encode(_numpy(x), sample_rate, bandwidth, st, beam_size, n_q=n_q)
        return mx.array(codes)

    def decode(self, codes: mx.array, st: int | None = None, *, n_q: int | None = None) -> mx.array:
        """Return the decoded vectors of codes (n, B, T) or (n, N), float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and codewords.
        """
        _check_kind(codes)
        codes = self.config.first_stages("decode", codes, st, n_q)
        value = mx.array(self._quantizer().decode(_numpy(codes), st))
        named = {name: each.astype(value.dtype) for name, each in self._named().items()}
        return decoded_vectors(OPS, value, codes, stage_arrays(self.config, named, start=st or 0))

    def freeze_stages(self, stages: Sequence[int] = ()) -> ResidualVectorQuantizer:
        """Exclude the codebooks of some stages from training; return the module.

        As `rvq_np.ResidualVectorQuantizer.freeze`; in MLX that name has another meaning.
        Projections, and codewords that are trainable, are not affected: the optimizer trains them.
        """
        named = self._named()
        initialized = [named[names.book(q, names.INITIALIZED)] for q in range(self.config.n_q)]
        self._remembered.freeze(self.config, stages, initialized)
        return self

    def _place(self, name: str) -> Any:
        """Return the stage, the part of it, and the last name of an array."""
        _, _, stage, part, last = name.split(".")
        return self.vq.layers[int(stage)], part.lstrip("_"), last

    def _put(self, name: str, value: Any) -> None:
        layer, part, last = self._place(name)
        layer[part][last] = mx.array(value)

    def _named(self) -> Any:
        """Return the arrays by their names, in their order."""
        named = {}
        for name in all_names(self.config):
            layer, part, last = self._place(name)
            named[name] = layer[part][last]
        return named

    def _quantizer(self) -> Any:
        """Return the quantizer without a framework that has these arrays, in eval."""
        named, listed = self._named(), search_names(self.config)
        return prepared(self.config, listed, [_numpy(named[name]) for name in listed]).quantizer


class _Codebook(nn.Module):
    """The arrays of one codebook. Those that training on the host changes stay float32 or wider.

    In half precision a count would overflow at 65504, and what an average gains in a step would be
    rounded away.
    """

    def __init__(self, moved: Any) -> None:
        super().__init__()
        self._no_grad = _Frozen(moved)

    def __setitem__(self, name: str, value: Any) -> None:
        frozen = vars(self).get("_no_grad")  # not there yet while a pickle is read
        moved = frozen.always if isinstance(frozen, _Frozen) else ()
        if name in moved and isinstance(value, mx.array) and value.dtype in HALF:
            before = self.get(name)
            if before is not None and mx.array_equal(before.astype(value.dtype), value):
                return  # as it was: nothing is rounded
            value = value.astype(mx.float32)
        super().__setitem__(name, value)


class _Frozen(set):
    """Names of arrays that no ``unfreeze`` frees, not of a model around it either.

    MLX has no buffers: an optimizer with weight decay would move the statistics of codewords.
    """

    def __init__(self, names: Any) -> None:
        super().__init__(names)
        self.always = frozenset(names)

    def clear(self) -> None:
        self.intersection_update(self.always)

    def difference_update(self, *names: Any) -> None:
        super().difference_update(*names)
        self.update(self.always)


def _draw() -> Any:
    return _numpy(mx.random.randint(0, (1 << 32) - 1, (2,), dtype=mx.uint32))


def _numpy(x: Any) -> Any:
    """Return the values, half precision as float32."""
    try:
        return np.asarray(x.astype(mx.float32) if x.dtype in HALF else x)
    except ValueError as error:
        if "transformation" not in str(error):
            raise
        raise BackendError(
            "quantize: under mx.compile and mx.vmap arrays have no values yet, and the search "
            "needs them. Quantize outside of them: compile the parts before and after, put a "
            "mapped axis into the batch."
        ) from error


def _arrays(inputs: Any, outputs: Any) -> Any:
    """Return outputs of the host as arrays of MLX, which would narrow float64."""
    return [mx.array(each, inputs.rows.dtype) if place == 1 else mx.array(each)
            for place, each in enumerate(outputs)]  # fmt: skip


def _check_kind(*arrays: Any) -> None:
    for each in arrays:
        if not isinstance(each, mx.array):
            _inputs.refuse_kind(each, "MLX arrays throughout. Convert with mlx.core.array")


def _check(x: Any, mask: Any, dim: Any) -> None:
    _check_kind(x, *([] if mask is None else [mask]))
    if not mx.issubdtype(x.dtype, mx.floating):
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; expected floating-point numbers. Call "
            "x.astype(mlx.core.float32)."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != mx.bool_:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; expected mlx.core.bool_.")
