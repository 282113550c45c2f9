"""JAX: eager, ``jit``, ``grad``, ``vmap``, and training on several devices by ``psum``.

Only search and training are opaque, in a ``pure_callback`` on the host; gather, sum and
straight-through are native (`_jax_operator`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import names
from .. import train as training
from ..errors import BackendError, DtypeError, FewVectorsWarning, ParameterError, warn
from ..quantizer import ResidualVectorQuantizer as NumpyQuantizer
from ..quantizer import shown
from ..quantizer.layout import QuantizedResult
from . import _inputs, _operation
from ._cache import prepared
from ._jax_operator import OPS, AllReduce, call, callback, numbers_of, psum, traced
from ._names import (
    all_names,
    is_codebook,
    is_state,
    search_names,
    stage_arrays,
    state_names,
)  # fmt: skip
from ._operation import spec_of
from ._references import number_of
from ._remembered import arrays_of, collected_of, without
from ._straight_through import Outputs, decoded_vectors, inputs_of, result_of

__all__ = ["AllReduce", "ResidualVectorQuantizer", "psum", "quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


Arrays = dict[str, Any]

jax.tree_util.register_dataclass(
    QuantizedResult,
    data_fields=["quantized", "codes", "bandwidth", "penalty", "quantization_loss"],
    meta_fields=[],
)


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    _check(x, mask, rvq.dimension)
    if not traced(x, mask):
        passed = rvq.passed("quantize", x, sample_rate, bandwidth, mask, n_q)
        return passed.result(rvq.config)
    if rvq.training:
        raise BackendError(
            "quantize: rvq is in train mode under a JAX transform, where its training would be a "
            "side effect. Use rvq_np.grad.jax.ResidualVectorQuantizer, or rvq.eval()."
        )
    spec = spec_of(rvq.config, sample_rate, bandwidth, n_q, quantizer=number_of(rvq))
    inputs = inputs_of(OPS, x, mask)
    outputs = Outputs.of(call(spec, inputs.rows, inputs.valid, inputs.shape, None, []))
    return result_of(
        OPS, inputs, outputs, [], rvq.config, losses=False, estimator=estimator,
        both_losses=bool(rvq.config.quantizer_dropout),
    )  # fmt: skip


class ResidualVectorQuantizer:
    """ESPnet's quantizer as pure functions over dictionaries of arrays.

    The object holds only its arguments. `init` makes ``parameters`` (projections), which an
    optimizer updates, and ``state`` (codewords and their statistics), which `apply` updates.
    Together they are the ``state_dict`` of `rvq_np.ResidualVectorQuantizer`, under the same names.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the codewords are parameters, trained by ``quantization_loss``. Training still
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
    ):
        self.config = _inputs.config_of(locals())
        _inputs.check_options(codebook_training, estimator)
        self.codebook_training, self.estimator = codebook_training, estimator

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(shown.of_arguments(self.config))})"

    def init(self, key: Any) -> tuple[Arrays, Arrays]:
        """Return new parameters and state: random projections, small random codewords.

        `key`: a key of ``jax.random``, or a number.
        """
        rng = np.random.default_rng(numbers_of(key).tolist())
        return self._split(
            {**training.entries(*training.fresh(self.config, rng)), **self._waiting(None)}
        )

    def of(self, rvq: NumpyQuantizer) -> tuple[Arrays, Arrays]:
        """Return the parameters and state of an `rvq_np.ResidualVectorQuantizer`."""
        return self._split({**rvq.state_dict(), **self._waiting(rvq.collected)})

    def to_numpy(self, parameters: Arrays, state: Arrays) -> NumpyQuantizer:
        """Return an `rvq_np.ResidualVectorQuantizer` with these arrays, in eval mode."""
        named = {**parameters, **state}
        states, projections = training.from_state_dict(named, self.config)
        waiting = self._collected(named)
        made = NumpyQuantizer.made_of(self.config, states, projections, collected=waiting)
        return made.eval()

    def vectors_awaited(self, state: Arrays) -> int:
        """Return how many more vectors training needs before it makes its first codewords again.

        As `rvq_np.ResidualVectorQuantizer.vectors_awaited`; not under transforms. At 0 the arrays
        of `state` whose names begin with ``vq.waiting`` may be omitted; training then does not make
        codewords again.
        """
        waiting = self._collected(state)
        return 0 if waiting is None else waiting.missing(self.config)

    def apply(
        self,
        parameters: Arrays,
        state: Arrays,
        x: Any,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        mask: Any = None,
        *,
        n_q: int | None = None,
        train: bool = False,
        key: Any = None,
        all_reduce: AllReduce | None = None,
        freeze: Sequence[int] = (),
    ) -> tuple[QuantizedResult, Arrays]:
        """Quantize a batch; with ``train=True``, train on it.

        Parameters
        ----------
        parameters, state : dict
            From `init`, `of` or an earlier call.
        x : array (B, D, T) or (N, D), floating
        sample_rate, bandwidth, mask, n_q
            As for `rvq_np.ResidualVectorQuantizer.forward`.
        train : bool, optional
            Whether to train, and to use dropout of stages.
        key : key of jax.random or two int, optional
            For the random numbers of training, which needs it. With `all_reduce` the same on all
            devices.
        all_reduce : AllReduce, optional
            Adds up statistics over the devices of a ``pmap`` or ``shard_map``, see `psum`.
        freeze : sequence of int, optional
            Stages whose codebooks training does not change. A stage without codewords still gets
            its first codewords.

        Returns
        -------
        result : QuantizedResult
        state : dict
            The state after the step; the same state without training.

        Raises
        ------
        BackendError, ShapeError, DtypeError, ParameterError
            For errors that can be found while tracing.
        NonFiniteError
            For non-finite values, where values are known. Otherwise they give NaN and codes of -2,
            and the state does not change.
        """
        _check(x, mask, self.config.dimension)
        if train and key is None:
            raise ParameterError("apply: train=True needs a key, for random numbers.")
        named = self._joined(parameters, state)
        by_gradient = self.codebook_training == "gradient"
        frozen = training.stages_of("apply", freeze, self.config.n_q)
        waits = self.config.paced and names.WAITING[0] in state and all_reduce is None
        spec = spec_of(
            self.config, sample_rate, bandwidth, n_q, training=bool(train), moving=not by_gradient,
            frozen=tuple(sorted(frozen)), collects=bool(train) and not by_gradient and waits,
        )  # fmt: skip
        given = {**named, **{name: state[name] for name in names.WAITING if name in state}}
        if by_gradient:  # k-means would find other codewords than the parameters: see initialize
            given.update({name: jnp.ones(1) for name in named if name.endswith(".inited")})
        inputs = inputs_of(OPS, x, mask)
        outputs = Outputs.of(call(
            spec, inputs.rows, inputs.valid, inputs.shape, numbers_of(key) if train else None,
            [given[name] for name in spec.given_names], all_reduce if train else None,
        ))  # fmt: skip
        result = result_of(
            OPS, inputs, outputs, stage_arrays(self.config, named, spec.n_q), self.config,
            losses=spec.training, estimator=self.estimator,
            both_losses=by_gradient or bool(self.config.quantizer_dropout),
        )  # fmt: skip
        if by_gradient or not train:
            return result, state
        moved = zip(spec.moved_names, outputs.state, strict=True)
        return result, {**state, **dict(moved)}

    def initialize(
        self, parameters: Arrays, state: Arrays, x: Any, key: Any, mask: Any = None
    ) -> tuple[Arrays, Arrays]:
        """Find first codewords by k-means for stages that have none.

        Return parameters and state. `apply` does this in the first training step, except for
        codewords that are parameters and for training on several devices: call `initialize` before
        those. The arguments are those of `apply`.

        Warns
        -----
        FewVectorsWarning
            If there are fewer than four vectors for each codeword.
        """
        _check(x, mask, self.config.dimension)
        named = self._joined(parameters, state)
        spec = spec_of(self.config, 1.0, None, training=True, moving=False)
        inputs = inputs_of(OPS, x, mask)
        least = training.ENOUGH * max(self.config.sizes)
        if inputs.rows.shape[0] < least:
            or_else = "" if self.codebook_training == "gradient" else ", or let apply collect them"
            warn(
                f"initialize: x holds {inputs.rows.shape[0]} vectors for {max(self.config.sizes)} "
                f"codewords; expected {least} or more. Pass more{or_else}.",
                FewVectorsWarning,
            )
        outputs = Outputs.of(call(
            spec, inputs.rows, inputs.valid, inputs.shape, numbers_of(key), list(named.values())
        ))  # fmt: skip
        found = zip(state_names(self.config), outputs.state, strict=True)
        waiting = {name: state[name] for name in names.WAITING if name in state}
        return self._split({**named, **dict(found), **waiting})

    def encode(
        self,
        parameters: Arrays,
        state: Arrays,
        x: Any,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> Any:
        """Return codes, int32, as `rvq_np.ResidualVectorQuantizer.encode`; not under transforms.

        Under ``jit`` the codes are those of `apply`.
        """
        named = self._joined(parameters, state)
        if traced(*named.values()):
            raise BackendError(
                "encode: the arrays are traced by a JAX transform; take the codes of apply."
            )
        rvq = self._quantizer(named)
        return rvq.encode(x, sample_rate, bandwidth, st, beam_size, n_q=n_q)

    def decode(
        self, parameters: Arrays, state: Arrays, codes: Any, st: int | None = None, *,
        n_q: int | None = None,
    ) -> Any:  # fmt: skip
        """Return the decoded vectors of codes (n, B, T) or (n, N), float32.

        They are exactly those of `rvq_np.ResidualVectorQuantizer.decode`, with gradients to
        projections and codewords. Codes out of range are an error where values are known, and
        otherwise give NaN.
        """
        named = self._joined(parameters, state)
        start = self.config.check_start("decode", st, self.config.n_q)
        codes = self.config.first_stages("decode", codes, start, n_q)
        if not traced(codes, *named.values()):
            return self._quantizer(named).decode(codes, st)
        codes = jax.lax.stop_gradient(codes)
        shape = (codes.shape[1], self.config.dimension, *codes.shape[2:])

        def host(codes: Any, *given: Any) -> Any:
            return _operation.decode(self.config, given, np.asarray(codes), start)

        value = callback(
            host, jax.ShapeDtypeStruct(shape, np.float32),
            [codes, *(named[name] for name in search_names(self.config))],
        )  # fmt: skip
        stages = stage_arrays(self.config, named, start=start)
        return decoded_vectors(OPS, value, codes, stages)

    def _split(self, named: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
        parameters: Arrays = {}
        state: Arrays = {}
        for name, value in named.items():
            learned = not is_state(name)
            learned |= is_codebook(name) and self.codebook_training == "gradient"
            learned &= name not in names.WAITING
            (parameters if learned else state)[name] = jnp.asarray(value, jnp.float32)
        return parameters, state

    def _waiting(self, collected: training.Collected | None) -> dict[str, Any]:
        """Return the arrays of vectors that wait, none where nothing ever does."""
        if not self.config.paced or self.codebook_training == "gradient":
            return {}
        return dict(zip(names.WAITING, arrays_of(self.config, collected), strict=True))

    def _collected(self, named: Mapping[str, Any]) -> training.Collected | None:
        if names.WAITING[0] not in named:
            return None
        return collected_of(self.config, [named[name] for name in names.WAITING])

    def _joined(self, parameters: Arrays, state: Arrays) -> Arrays:
        named = without({**parameters, **state})
        _inputs.check_names(named, self.config)
        return {name: jnp.asarray(named[name]) for name in all_names(self.config)}

    def _quantizer(self, named: Arrays) -> NumpyQuantizer:
        """Return the quantizer without a framework that has these arrays, in eval."""
        listed = search_names(self.config)
        return prepared(self.config, listed, [named[name] for name in listed]).quantizer


def _check(x: Any, mask: Any, dim: int) -> None:
    for each in (x,) if mask is None else (x, mask):
        if not isinstance(each, jax.Array):
            _inputs.refuse_kind(each, "JAX arrays throughout. Convert with jax.numpy.asarray")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; expected floating-point numbers. Call "
            "x.astype('float32')."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != bool:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; expected bool.")
