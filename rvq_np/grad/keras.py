"""Keras 3: the quantizer as a layer, on the torch, JAX and TensorFlow backends.

The layer holds weights and speaks Keras; the search is the opaque operation of the file named
after the backend, and what is differentiated is written in the backend's own operations.
"""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from .. import names
from .. import train as training
from ..errors import BackendError, ParameterError
from ..quantizer import ResidualVectorQuantizer as NumpyQuantizer
from ..quantizer import shown
from ..quantizer.layout import QuantizedResult
from . import _inputs
from ._cache import prepared
from ._keras_backend import (
    BACKEND,
    OPS,
    check,
    checked_data_format,
    checked_rate,
    constant,
    native,
    run,
    to_numpy,
    vectors_of,
)  # fmt: skip
from ._names import all_names, is_codebook, is_state, search_names, stage_arrays
from ._references import number_of
from ._remembered import Remembered
from ._straight_through import decoded_vectors, inputs_of, result_of

__all__ = ["ResidualVectorQuantizer", "quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    if isinstance(x, keras.KerasTensor):
        raise BackendError(
            "quantize: x is a KerasTensor, which has no values. Call a layer, "
            "rvq_np.grad.keras.ResidualVectorQuantizer.of(rvq), on it."
        )
    x = x.value if isinstance(x, keras.Variable) else x
    return native.quantize(x, rvq, sample_rate, bandwidth, mask, estimator, n_q)


@keras.saving.register_keras_serializable(package="rvq_np")
class ResidualVectorQuantizer(keras.layers.Layer):
    """ESPnet's quantizer as a Keras layer, on the kernels of rvq_np.

    A call returns the quantized vectors. In training it also trains the quantizer and adds the
    commitment loss to the losses of the model. Codewords and their statistics are non-trainable
    weights; projections are trainable weights.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the codewords are trainable weights, trained by a quantization loss that is
        added, too. Training starts from their current values and needs ``kmeans_init=False``,
        because Keras on JAX discards values that a step assigns to trainable weights.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    sample_rate : float, optional
        Vectors per second; needed with `bandwidth`.
    bandwidth : float, optional
        The most kb/s to use in a call; by default all stages are used.
    data_format : {"channels_last", "channels_first"}, optional
        Whether three axes are (B, T, D) or (B, D, T); by default Keras's setting. Two axes are (N,
        D) in both. Positions in error messages refer to (B, D, T).
    seed : int, optional
        Seed of a ``keras.random.SeedGenerator``, for the random numbers of training.
    **kwargs
        Arguments of ``keras.layers.Layer``: name, dtype, trainable. With ``trainable=False`` there
        is no training and no dropout; the commitment loss remains.

    Notes
    -----
    Under every dtype policy weights are float32, vectors are computed in float32 at least, and
    results have the compute dtype. Where values are not known, inside ``fit`` on JAX and
    TensorFlow, non-finite values are not an error: they give NaN and do not change the codewords.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from rvq_np.grad.keras import ResidualVectorQuantizer
    >>> layer = ResidualVectorQuantizer(dimension=16, codebook_dim=8, n_q=4, bins=32, seed=0)
    >>> model = keras.Sequential([keras.layers.Dense(16), layer, keras.layers.Dense(12)])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).standard_normal((64, 10, 12)).astype("float32")
    >>> history = model.fit(x, x, verbose=0)
    >>> tuple(layer.encode(model.layers[0](x), sample_rate=50).shape)
    (4, 64, 10)
    """

    def __init__(
        self,
        dimension: Any = 256,
        codebook_dim: Any = 512,
        n_q: int = 8,
        bins: Any = 1024,
        decay: Any = 0.99,
        kmeans_init: Any = True,
        kmeans_iters: Any = 50,
        threshold_ema_dead_code: Any = None,
        quantizer_dropout: Any = False,
        *,
        commitment_weight: Any = 1.0,
        epsilon: Any = 1e-5,
        relative_threshold: Any = None,
        codebook_training: Any = "ema",
        estimator: Any = "straight-through",
        sample_rate: Any = None,
        bandwidth: Any = None,
        data_format: Any = None,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = _inputs.config_of(locals())
        _inputs.check_options(codebook_training, estimator)
        if codebook_training == "gradient" and kmeans_init:
            raise ParameterError(
                "ResidualVectorQuantizer: kmeans_init is True with codebook_training='gradient'; "
                "expected False. Start from k-means by `of` a fitted "
                "rvq_np.ResidualVectorQuantizer."
            )
        self.codebook_training, self.estimator = codebook_training, estimator
        self.sample_rate, self.bandwidth = checked_rate(self.config, sample_rate, bandwidth)
        self.seed = seed
        self._remembered = Remembered()
        self.data_format = checked_data_format(data_format)
        self.supports_masking = True
        self.supports_jit = BACKEND != "tensorflow"  # XLA cannot call the host
        drawn = random.randrange(1 << 31) if seed is None else seed
        self.seed_generator = keras.random.SeedGenerator(drawn)
        start = training.entries(*training.fresh(self.config, np.random.default_rng(drawn)))
        self._named = {}
        for name, shape in training.shapes(self.config).items():
            learned = not is_state(name)
            learned |= is_codebook(name) and codebook_training == "gradient"
            self._named[name] = self.add_weight(
                shape=shape, initializer=constant(start[name]), dtype="float32",
                trainable=learned, autocast=False, name=name.replace(".", "_"),
            )  # fmt: skip
        self.built = True

    @classmethod
    def of(cls, rvq: Any, **options: Any) -> Any:
        """Return a layer with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        arguments = rvq.config.as_dict()
        if options.get("codebook_training") == "gradient":
            if not rvq.is_initialized:
                raise ParameterError("of: rvq has no codewords to train by gradient; call rvq.fit.")
            arguments["kmeans_init"] = False
        layer = cls(**{**arguments, **options})
        for name, value in rvq.state_dict().items():
            layer._named[name].assign(value)
        layer._remembered = Remembered(rvq.collected, rvq.frozen)
        return layer

    def to_numpy(self) -> Any:
        """Return an `rvq_np.ResidualVectorQuantizer` with the arguments and arrays of the layer."""
        known = self._prepared(all_names(self.config))
        held = self._remembered
        return NumpyQuantizer.made_of(
            self.config, known.states, known.projections, collected=held.collected,
            frozen=held.frozen,
        )  # fmt: skip

    def freeze(self, stages: Any = ()) -> Any:
        """Exclude the codebooks of some stages from training; return the layer.

        As `rvq_np.ResidualVectorQuantizer.freeze`. Projections, and codewords that are trainable
        weights, are not affected: the optimizer trains them.
        """
        initialized = [
            to_numpy(self._named[names.book(stage, names.INITIALIZED)].value)[0]
            for stage in range(self.config.n_q)
        ]
        self._remembered.freeze(self.config, stages, initialized)
        return self

    @property
    def frozen(self) -> tuple[int, ...]:
        """The stages whose codebooks training does not change."""
        return tuple(sorted(self._remembered.frozen))

    @property
    def vectors_awaited(self) -> int:
        """How many more vectors training needs before it makes its first codewords again.

        As `rvq_np.ResidualVectorQuantizer.vectors_awaited`. The collected vectors are not among the
        weights: after weights are loaded into a new layer, training does not make codewords again.
        """
        return self._remembered.awaited(self.config)

    def __repr__(self) -> str:
        said = ", ".join(shown.of_arguments(self.config))
        return f"<{type(self).__name__} name={self.name}, {said}>"

    def get_config(self) -> Any:
        return {
            **super().get_config(),
            **self.config.as_dict(),
            "codebook_training": self.codebook_training,
            "estimator": self.estimator,
            "sample_rate": self.sample_rate,
            "bandwidth": self.bandwidth,
            "data_format": self.data_format,
            "seed": self.seed,
        }

    def compute_output_shape(self, input_shape: Any) -> Any:
        return tuple(input_shape)

    def compute_output_spec(
        self, x: Any, training: Any = None, mask: Any = None, spending: Any = None
    ) -> Any:
        self._check("quantize", x, mask)
        quantized = keras.KerasTensor(x.shape, x.dtype)
        if spending is None:
            return quantized
        batch, *time = vectors_of(x.shape, self.data_format)
        dropping = training and self.trainable and self.config.quantizer_dropout
        scalars = [(batch,) if dropping else (), (), ()][: 3 if self._both_losses() else 2]
        codes = (spending[1], batch, *time)
        return (
            quantized, keras.KerasTensor(codes, "int32"),
            *(keras.KerasTensor(shape, "float32") for shape in scalars),
        )  # fmt: skip

    def call(self, x: Any, training: Any = None, mask: Any = None, spending: Any = None) -> Any:
        rate, n_q = spending or self._spending("call", None, None, None)
        result = self._quantized(x, rate, n_q, bool(training), mask)
        if spending is not None:
            return tuple(result)
        if training:
            more = self.codebook_training == "gradient"
            self.add_loss(result.penalty + result.quantization_loss if more else result.penalty)
        return result.quantized

    def quantize_batch(
        self,
        x: Any,
        sample_rate: Any = None,
        bandwidth: Any = None,
        training: Any = None,
        mask: Any = None,
        *,
        n_q: Any = None,
    ) -> Any:
        """Quantize a batch; in training, train on it, but do not add losses to the model.

        In Keras the name ``quantize`` has another meaning.

        Parameters
        ----------
        x : tensor (B, T, D), (B, D, T) or (N, D), floating
            By `data_format`.
        sample_rate, bandwidth : float, optional
            By default those of the layer; 0 kb/s: all stages. Without a sample rate the bandwidth
            of the result is in bits per vector.
        training : bool, optional
            The argument ``training`` of the caller's ``call``. Pass it on, because Keras does not
            do so on every backend.
        mask : tensor (B, T) or (N,), bool, optional
        n_q : int, optional
            Instead of `bandwidth`: the first stages to use.

        Returns
        -------
        result : QuantizedResult
            As `rvq_np.ResidualVectorQuantizer.forward`, vectors in the layout of `x`. The result
            has ``quantization_loss`` under dropout, and where it trains the codewords.
        """
        spending = self._spending("quantize_batch", sample_rate, bandwidth, n_q)
        # To Keras a None that is passed is an answer, not a question.
        options = {} if training is None else {"training": training}
        return QuantizedResult(*self(x, mask=mask, spending=spending, **options))

    def encode(
        self,
        x: Any,
        sample_rate: Any = None,
        bandwidth: Any = None,
        st: Any = None,
        beam_size: int = 1,
        *,
        n_q: Any = None,
    ) -> Any:
        """Return codes (n - st, B, T) or (n - st, N), int32, without training.

        As `rvq_np.ResidualVectorQuantizer.encode`, but only where values are known. Inside ``fit``
        and compiled functions use the codes of `quantize_batch`.
        """
        _, n_q = self._spending("encode", sample_rate, bandwidth, n_q)
        x = keras.ops.convert_to_tensor(x)
        self._check("encode", x, None)
        x = OPS.widen(x)
        if len(x.shape) == 3 and self._channels_last:
            x = keras.ops.transpose(x, (0, 2, 1))
        codes = self._quantizer().encode(to_numpy(x), None, None, st, beam_size, n_q=n_q)
        return keras.ops.convert_to_tensor(codes)

    def decode(self, codes: Any, st: Any = None, *, n_q: Any = None) -> Any:
        """Return the decoded vectors of codes (n, B, T) or (n, N), float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and codewords, but
        only where values are known.
        """
        codes = keras.ops.convert_to_tensor(codes)
        codes = self.config.first_stages("decode", codes, st, n_q)
        value = keras.ops.convert_to_tensor(self._quantizer().decode(to_numpy(codes), st))
        stages = stage_arrays(self.config, self._values(), start=st or 0)
        vectors = decoded_vectors(OPS, value, codes, stages)
        swaps = len(vectors.shape) == 3 and self._channels_last
        return keras.ops.transpose(vectors, (0, 2, 1)) if swaps else vectors

    def _quantized(self, x: Any, rate: Any, n_q: Any, training: Any, mask: Any) -> Any:
        self._check("quantize", x, mask)
        learning = training and self.trainable
        by_gradient = self.codebook_training == "gradient"
        inputs = inputs_of(OPS, x, mask, channels_last=self._channels_last)
        values = self._values()
        seed = self.seed_generator.next() if learning else None
        known = number_of(self._remembered) if learning else 0
        options = {"training": learning, "moving": not by_gradient, "remembered": known}
        outputs = run(self.config, rate, n_q, options, inputs, seed, values)
        stages = stage_arrays(self.config, values, outputs.codes.shape[0])
        result = result_of(
            OPS, inputs, outputs, stages, self.config,
            losses=training, estimator=self.estimator, both_losses=self._both_losses(),
        )  # fmt: skip
        if learning and not by_gradient:
            for name, moved in zip(filter(is_state, values), outputs.state, strict=True):
                self._named[name].assign(moved)
        return result

    def _both_losses(self) -> Any:
        return bool(self.config.quantizer_dropout) or self.codebook_training == "gradient"

    def _values(self) -> Any:
        return {name: each.value for name, each in self._named.items()}

    def _prepared(self, names: Any) -> Any:
        return prepared(self.config, names, [to_numpy(self._named[name].value) for name in names])

    def _quantizer(self) -> Any:
        """Return the quantizer without a framework that has these arrays, in eval."""
        return self._prepared(search_names(self.config)).quantizer

    @property
    def _channels_last(self) -> Any:
        return self.data_format == "channels_last"

    def _spending(self, call: str, sample_rate: Any, bandwidth: Any, n_q: Any) -> Any:
        """Return vectors per second and the stages in use, by default those of the layer."""
        rate = self.sample_rate if sample_rate is None else sample_rate
        if bandwidth is None and n_q is None:
            bandwidth = self.bandwidth
        return self.config.asked(call, rate, bandwidth, n_q)

    def _check(self, call: str, x: Any, mask: Any) -> None:
        check(call, x, mask, self.config.dimension, self.data_format)
