"""Keras 3: the quantizer as a layer, on the torch, JAX and TensorFlow backends.

The layer holds weights and speaks Keras; the search is the opaque operation of the file named
after the backend, and what is differentiated is written in the backend's own operations.
"""

from __future__ import annotations

import random
from importlib import import_module

import keras
import numpy as np

from .. import arrays
from .. import train as training
from ..config import Config
from ..errors import BackendError, DtypeError, ParameterError, ShapeError
from ..layout import QuantizedResult
from . import _host, _inputs
from ._surrogate import attach, check_estimator, decoded

BACKEND = keras.backend.backend()
if BACKEND not in ("torch", "jax", "tensorflow"):
    raise BackendError(
        f"rvq_np.grad.keras: the backend of Keras is {BACKEND!r}; wanted torch, jax or tensorflow. "
        "Set the environment variable KERAS_BACKEND before keras is imported."
    )
_native = import_module(f"{__package__}.{BACKEND}")


def _search(spec, x, mask, seed, tensors):
    """Return what `_host.run` gives, as an operation the backend does not look into."""
    if BACKEND == "tensorflow":
        return _native.call(spec, x, mask, seed, tensors)
    if BACKEND == "jax":
        return _native._call(spec, [x, mask, seed, *tensors])
    if seed is not None and not seed.is_meta:
        seed = seed.cpu()
    return _native._run(spec.text(), x, mask, seed, tensors)


if BACKEND == "torch":
    _search = _native.torch.compiler.disable(_search)  # Dynamo cannot follow how a spec is made


def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    if isinstance(x, keras.KerasTensor):
        raise BackendError(
            "quantize: x is a KerasTensor, which has no values. Call a layer, "
            "rvq_np.grad.keras.ResidualVectorQuantizer.of(rvq), on it."
        )
    x = x.value if isinstance(x, keras.Variable) else x
    return _native.quantize(x, rvq, sample_rate, bandwidth, mask, estimator)


@keras.saving.register_keras_serializable(package="rvq_np")
class ResidualVectorQuantizer(keras.layers.Layer):
    """ESPnet's quantizer as a Keras layer, on the kernels of rvq_np.

    Called, it returns the quantized vectors; in training it learns from them and adds the
    commitment loss to the losses of the model. Words and their statistics are non-trainable
    weights, projections trainable ones.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the words are trainable weights, pulled by a quantization loss that is added,
        too. They start where they are: it wants ``kmeans_init=False``, as Keras on JAX drops
        what a step assigns to trainable weights.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    sample_rate : float, optional
        Vectors per second; needed where there is a bandwidth.
    bandwidth : float, optional
        kb/s to spend in a call; all levels by default.
    data_format : {"channels_last", "channels_first"}, optional
        Whether three axes are (B, T, D) or (B, D, T); by default Keras's setting. Two axes are
        (N, D) in both. A place that an error names counts as (B, D, T).
    seed : int, optional
        Of a ``keras.random.SeedGenerator``, for what training draws.
    **kwargs
        Of ``keras.layers.Layer``: name, dtype, trainable. With ``trainable=False`` nothing is
        learned nor dropped; the commitment loss remains.

    Notes
    -----
    Weights are float32 and vectors are computed in float32 at least under every dtype policy;
    what comes back is in the compute dtype. Where values are not known, inside ``fit`` on JAX
    and TensorFlow, non-finite ones give NaN and leave the words alone instead of an error.

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
        dimension=256,
        codebook_dim=512,
        n_q=8,
        bins=1024,
        decay=0.99,
        kmeans_init=True,
        kmeans_iters=50,
        threshold_ema_dead_code=2,
        quantizer_dropout=False,
        *,
        commitment_weight=1.0,
        epsilon=1e-5,
        relative_threshold=None,
        codebook_training="ema",
        estimator="straight-through",
        sample_rate=None,
        bandwidth=None,
        data_format=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.config = Config(
            dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters,
            threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon,
            relative_threshold,
        )  # fmt: skip
        check_estimator(estimator)
        _inputs.check_training(codebook_training)
        if codebook_training == "gradient" and kmeans_init:
            raise ParameterError(
                "ResidualVectorQuantizer: kmeans_init is True with codebook_training='gradient'; "
                "wanted False. Start from k-means by `of` a fitted rvq_np.ResidualVectorQuantizer."
            )
        self.codebook_training, self.estimator = codebook_training, estimator
        self.sample_rate, self.bandwidth = self._rate(sample_rate, bandwidth)
        self.seed = seed
        self.data_format = _data_format(data_format)
        self.supports_masking = True
        self.supports_jit = BACKEND != "tensorflow"  # XLA cannot call the host
        drawn = random.randrange(1 << 31) if seed is None else seed
        self.seed_generator = keras.random.SeedGenerator(drawn)
        start = training.entries(*training.fresh(self.config, np.random.default_rng(drawn)))
        self._named = {}
        for name, shape in training.shapes(self.config).items():
            learned = not _host.is_state(name)
            learned |= name.endswith(".embed") and codebook_training == "gradient"
            self._named[name] = self.add_weight(
                shape=shape, initializer=_constant(start[name]), dtype="float32",
                trainable=learned, autocast=False, name=name.replace(".", "_"),
            )  # fmt: skip
        self.built = True

    @classmethod
    def of(cls, rvq, **options):
        """Return a layer with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        arguments = rvq.config.as_dict()
        if options.get("codebook_training") == "gradient":
            if not rvq.is_initialized:
                raise ParameterError("of: rvq has no words to train by gradient; call rvq.fit.")
            arguments["kmeans_init"] = False
        layer = cls(**{**arguments, **options})
        for name, value in rvq.state_dict().items():
            layer._named[name].assign(value)
        return layer

    def to_numpy(self):
        """Return an `rvq_np.ResidualVectorQuantizer` with the arguments and arrays of this."""
        known = self._known()
        return type(known.quantizer).made_of(self.config, known.states, known.projections)

    def get_config(self):
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

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, x, training=None, mask=None, spending=None):
        self._check("quantize", x, mask)
        quantized = keras.KerasTensor(x.shape, x.dtype)
        if spending is None:
            return quantized
        batch, *time = self._vectors(x.shape)
        dropping = training and self.trainable and self.config.quantizer_dropout
        scalars = [(batch,) if dropping else (), (), ()][: 3 if self._both_losses() else 2]
        codes = (self.config.levels_for(*spending), batch, *time)
        return (
            quantized, keras.KerasTensor(codes, "int32"),
            *(keras.KerasTensor(shape, "float32") for shape in scalars),
        )  # fmt: skip

    def call(self, x, training=None, mask=None, spending=None):
        rate, bandwidth = spending or (self.sample_rate or 1.0, self.bandwidth)
        result = self._quantized(x, rate, bandwidth, bool(training), mask)
        if spending is not None:
            return tuple(result)
        if training:
            more = self.codebook_training == "gradient"
            self.add_loss(result.penalty + result.quantization_loss if more else result.penalty)
        return result.quantized

    def quantize_batch(self, x, sample_rate=None, bandwidth=None, training=None, mask=None):
        """Quantize a batch; in training, learn from it, but leave the losses to the caller.

        Keras has another use for the name ``quantize``.

        Parameters
        ----------
        x : tensor (B, T, D), (B, D, T) or (N, D), floating
            By `data_format`.
        sample_rate, bandwidth : float, optional
            By default those of the layer; 0 kb/s: all levels.
        training : bool, optional
            What the caller's ``call`` was told: hand it on, as Keras does not on every backend.
        mask : tensor (B, T) or (N,), bool, optional

        Returns
        -------
        result : QuantizedResult
            As `rvq_np.ResidualVectorQuantizer.forward`, vectors in the layout of `x`.
            ``quantization_loss`` is there under dropout, and where it trains the words.
        """
        spending = self._spending("quantize_batch", sample_rate, bandwidth)
        # To Keras a None that is passed is an answer, not a question.
        told = {} if training is None else {"training": training}
        return QuantizedResult(*self(x, mask=mask, spending=spending, **told))

    def encode(self, x, sample_rate=None, bandwidth=None, st=None, beam_size=1):
        """Return codes (n - st, B, T) or (n - st, N), int32; trains nothing.

        As `rvq_np.ResidualVectorQuantizer.encode`; where values are known only. Inside ``fit``
        and compiled functions the codes are those of `quantize_batch`.
        """
        spending = self._spending("encode", sample_rate, bandwidth)
        x = keras.ops.convert_to_tensor(x)
        self._check("encode", x, None)
        x = _numpy(self._channels_first(_wide(x)))
        codes = self._known().quantizer.encode(x, *spending, st, beam_size)
        return keras.ops.convert_to_tensor(codes)

    def decode(self, codes, st=None):
        """Return the vectors that codes (n, B, T) or (n, N) name, float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and words;
        where values are known only.
        """
        codes = keras.ops.convert_to_tensor(codes)
        value = self._known().quantizer.decode(_numpy(codes), st)
        value = keras.ops.convert_to_tensor(value)
        vectors = decoded(_native.OPS, value, codes, self._entries(), st or 0)
        return self._channels_first(vectors)

    def _quantized(self, x, rate, bandwidth, training, mask):
        ops = keras.ops
        stop = ops.stop_gradient
        self._check("quantize", x, mask)
        learning = training and self.trainable
        moving = self.codebook_training == "ema"
        spec = _host.Spec(self.config, rate, bandwidth, learning, moving=moving)
        wide = self._channels_first(_wide(x))
        if mask is not None:  # whatever padding holds
            wide = ops.where(mask[:, None], wide, ops.zeros_like(wide))
        entries = self._entries()
        codes, value, active, spent, *rest = _search(
            spec, stop(wide), mask, self.seed_generator.next() if learning else None,
            [stop(entries[name]) for name in _host.needed(spec)],
        )  # fmt: skip
        entries = {name: ops.cast(each, wide.dtype) for name, each in entries.items()}
        if moving:  # k-means may have found the words only now
            for level, words in enumerate(rest[: spec.n_q]):
                entries[f"vq.layers.{level}._codebook.embed"] = ops.cast(words, wide.dtype)
        quantized, commitment, quantization = attach(
            _native.OPS, wide, value, codes, active, entries, spec.n_q,
            losses=training, estimator=self.estimator,
        )  # fmt: skip
        if learning and moving:
            for name, moved in zip(filter(_host.is_state, entries), rest[spec.n_q :], strict=True):
                self._named[name].assign(moved)
        return QuantizedResult(
            ops.cast(self._channels_first(quantized), x.dtype), codes, spent,
            self.config.commitment_weight * commitment,
            quantization if self._both_losses() else None,
        )  # fmt: skip

    def _both_losses(self):
        return bool(self.config.quantizer_dropout) or self.codebook_training == "gradient"

    def _entries(self):
        return {name: each.value for name, each in self._named.items()}

    def _known(self):
        entries = self._entries().values()
        return _host.recall(self.config, [_numpy(each) for each in entries])

    def _channels_first(self, x):
        """Return (B, T, D) as (B, D, T) in the layout that says so, and the other way."""
        swaps = len(x.shape) == 3 and self.data_format == "channels_last"
        return keras.ops.transpose(x, (0, 2, 1)) if swaps else x

    def _spending(self, call, sample_rate, bandwidth):
        rate = self.sample_rate if sample_rate is None else sample_rate
        if rate is None:
            raise ParameterError(
                f"{call}: there is no sample_rate; pass one here or when making the layer."
            )
        return self._rate(rate, self.bandwidth if bandwidth is None else bandwidth)

    def _rate(self, sample_rate, bandwidth):
        if sample_rate is None and bandwidth is None:
            return None, None
        if sample_rate is None:
            raise ParameterError(
                f"ResidualVectorQuantizer: bandwidth is {bandwidth!r} without a sample_rate; how "
                "many levels fit into it depends on both."
            )
        self.config.levels_for(sample_rate, bandwidth)
        return float(sample_rate), None if bandwidth is None else float(bandwidth)

    def _vectors(self, shape):
        """Return the sizes that count vectors: (B, T) or (N,)."""
        return (shape[0], *(shape[2:] if self.data_format == "channels_first" else shape[1:-1]))

    def _check(self, call, x, mask):
        dim, first = self.config.dimension, self.data_format == "channels_first"
        shape = tuple(x.shape)
        if len(shape) not in (2, 3) or shape[1 if first else -1] != dim:
            wanted = f"(B, {dim}, T)" if first else f"(B, T, {dim})"
            raise ShapeError(
                f"{call}: x has shape {shape}; wanted {wanted}, as data_format is "
                f"{self.data_format!r}, or (N, {dim})."
            )
        if not keras.backend.is_float_dtype(x.dtype):
            raise DtypeError(
                f"{call}: x has dtype {keras.backend.standardize_dtype(x.dtype)}; wanted "
                "floating-point numbers. Convert with keras.ops.cast."
            )
        if mask is None:
            return
        wanted, given = self._vectors(shape), tuple(mask.shape)
        if len(given) != len(wanted) or any(
            None not in pair and pair[0] != pair[1] for pair in zip(given, wanted, strict=True)
        ):
            raise ShapeError(
                f"{call}: mask has shape {given}; wanted {wanted}, one for each vector."
            )
        if keras.backend.standardize_dtype(mask.dtype) != "bool":
            raise DtypeError(f"{call}: mask has dtype {mask.dtype}; wanted bool.")


def _constant(value):
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(
        np.array(value, np.float32).reshape(shape), dtype
    )


def _data_format(given):
    found = keras.config.image_data_format() if given is None else given
    if found not in ("channels_last", "channels_first"):
        raise ParameterError(
            f"ResidualVectorQuantizer: data_format is {given!r}; wanted 'channels_last', "
            "'channels_first' or None."
        )
    return found


def _wide(x):
    double = keras.backend.standardize_dtype(x.dtype) == "float64"
    return x if double else keras.ops.cast(x, "float32")


def _numpy(x):
    try:
        return arrays.to_numpy(keras.ops.stop_gradient(x))
    except (TypeError, NotImplementedError, AttributeError) as error:
        raise BackendError(
            "rvq_np.grad.keras: values are not known while the backend traces a function. Call "
            "this outside it, or take the codes of quantize_batch."
        ) from error
