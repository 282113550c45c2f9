"""`ResidualVectorQuantizer`: the class of ESPnet without torch, same names, defaults and layouts.

A thin, changeable shell around frozen values: it owns a `Config`, one `CodebookState` a stage,
the projections and a random generator, and hands everything else to `codec` and `train`.  Where
it differs from ESPnet on purpose, ``docs/espnet.md`` says so and a test proves it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from .. import arguments, arrays, backends, codec, forks
from .. import train as training
from ..arrays import Codes, Integers, Vectors
from ..codec import chunks, core, validation
from ..config import Config
from ..errors import (
    ModelFileError,
    NonFiniteError,
    ParameterError,
    RvqError,
    ShapeError,
    StateError,
)
from ..files import safetensors
from ..frontend import FrontEnd
from ..train.data import check_finite
from . import layout, passes, shown
from .cautions import Cautions
from .layout import QuantizedResult


class ResidualVectorQuantizer(Cautions):
    """Residual vector quantizer: trains codebooks, turns vectors into codes and back.

    Parameters
    ----------
    dimension : int, optional
        D, the length of a vector.
    codebook_dim : int or None, optional
        C, the length of a codeword. If it differs from `dimension`, every stage has two linear
        maps: to C dimensions before the search, and back to D. None: equal to `dimension`.
    n_q : int, optional
        Q, the number of stages.
    bins : int or sequence of int, optional
        K, the number of codewords of each codebook; or one number for each of the `n_q` codebooks.
    decay : float, optional
        Share of its value that each moving average keeps at a training step, 0 to 1.
    kmeans_init : bool, optional
        Find the first codewords by k-means on the first training batch. Until then, or without it,
        they are small random vectors.
    kmeans_iters : int, optional
        Iterations of that k-means, and the most iterations per stage of `fit`.
    threshold_ema_dead_code : float or None, optional
        In training, a codeword that is chosen less often than this per step, on average, is
        replaced by a vector of the batch. 0: never; 2 is ESPnet's default. None, the default here,
        suits batches of any size: a codeword is replaced if it is chosen less often than 3 % of the
        mean, and the first codewords are made again once training has received enough vectors, see
        `vectors_awaited`.
    quantizer_dropout : bool or float, optional
        In training, quantize rows of a batch with a random number of stages. True: each row; a
        number: this share of the rows.
    commitment_weight : float, optional
        Factor of the commitment loss in ``penalty``.
    epsilon : float, optional
        Laplace smoothing of counts.
    relative_threshold : float, optional
        Instead of `threshold_ema_dead_code`: the threshold is this share of the mean count, for
        example 0.1. A replaced codeword then starts with the mean count.
    rng : int or numpy.random.Generator, optional
        Source of all randomness, through `numpy.random.default_rng`.
    all_reduce : rvq_np.train.AllReduce, optional
        Adds up the statistics of several processes that train the same quantizer, so that all have
        the same codewords after each step. It is also an attribute: set it after `load`.

    Attributes
    ----------
    codebooks : Codebooks
        The current codewords and projections, a frozen value for `rvq_np.encode` and `decode`.
    training : bool
        Whether a call of the quantizer trains it. True at first, as in torch; see `train` and
        `eval`.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Notes
    -----
    Several threads may use one quantizer. Training steps, `fit` and `load_state_dict` wait for each
    other. Encoding and decoding do not wait: they use the current codebooks. After a fork the child
    process has its own copy of the quantizer.

    ``sample_rate`` is in vectors per second, as in ESPnet: for 44.1 kHz audio with a hop of 512
    samples about 86.13, not 44100. ``bandwidth`` is in kb/s.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import ResidualVectorQuantizer
    >>> x = np.random.default_rng(0).standard_normal((2, 16, 100)).astype(np.float32)
    >>> rvq = ResidualVectorQuantizer(dimension=16, codebook_dim=16, n_q=4, bins=32, rng=0)
    >>> quantized, codes, bandwidth, penalty = rvq(x, sample_rate=50)
    >>> quantized.shape, codes.shape, float(bandwidth)
    ((2, 16, 100), (4, 2, 100), 1.0)
    >>> rvq.eval().encode(x).shape, rvq.encode(x, n_q=3).shape
    ((4, 2, 100), (3, 2, 100))
    >>> codes = rvq.encode(x, sample_rate=50, bandwidth=0.5)
    >>> codes.shape, rvq.decode(codes).shape
    ((2, 2, 100), (2, 16, 100))
    """

    # Also of objects pickled before there were such attributes.
    _front_end: FrontEnd | None = None
    _collected: training.Collected | None = None
    _frozen: frozenset[int] = frozenset()

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
        rng: Any = None,
        all_reduce: training.AllReduce | None = None,
    ):
        config = Config(
            dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters,
            threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon,
            relative_threshold,
        )  # fmt: skip
        self._begin(config, rng)
        if all_reduce is not None:
            arguments.kind("ResidualVectorQuantizer", "all_reduce", all_reduce, training.AllReduce)
        self.all_reduce = all_reduce
        self._use(*training.fresh(config, self._rng))

    def __copy__(self) -> ResidualVectorQuantizer:
        """Return a quantizer that goes on by itself: it shares values, which never change."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a copy holds; the codebooks follow from the states."""
        left_out = ("codebooks", "_turn")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({"_churn": [0] * state["n_q"], **state})
        self._turn = forks.renewed(self)
        self._use(self._states, self._projections, collected=self._collected)

    def __repr__(self) -> str:
        return shown.of(self)

    def _repr_html_(self) -> str:
        return shown.html(self)

    def train(self, mode: bool = True) -> ResidualVectorQuantizer:
        """Set train mode, or eval mode with ``mode=False``; return the quantizer."""
        self.training = bool(mode)
        return self

    def eval(self) -> ResidualVectorQuantizer:
        """Set eval mode, in which calls do not change the codebooks; return the quantizer."""
        return self.train(False)

    def get_bandwidth_per_quantizer(self, sample_rate: float, stage: int | None = None) -> float:
        """Return kb/s of a stage: ``log2(bins) * sample_rate / 1000``.

        Without `stage`, of any stage, if all stages have the same number of codewords.

        Raises
        ------
        ParameterError
            If `sample_rate` is not a positive number, `stage` does not exist, or `stage` is missing
            and the stages have different numbers of codewords.

        Examples
        --------
        >>> ResidualVectorQuantizer(bins=1024, n_q=1).get_bandwidth_per_quantizer(75)
        0.75
        """
        return self.config.bandwidth_per_quantizer(
            sample_rate, stage, "get_bandwidth_per_quantizer"
        )

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: float, bandwidth: float | None = None
    ) -> int:
        """Return how many stages fit into `bandwidth` kb/s: at least one, at most `n_q`.

        None and 0 mean all stages. No stage is lost to rounding.

        Raises
        ------
        ParameterError
            If `sample_rate` is not positive, or `bandwidth` is negative or NaN.

        Examples
        --------
        >>> rvq = ResidualVectorQuantizer(bins=1024, n_q=8)
        >>> [rvq.get_num_quantizers_for_bandwidth(40, each) for each in (0.1, 1.2, 99, None)]
        [1, 3, 8, 8]
        """
        return self.config.stages_for(sample_rate, bandwidth, "get_num_quantizers_for_bandwidth")

    @overload
    def forward(
        self, x: Vectors, sample_rate: float | None = None, bandwidth: float | None = None,
        mask: Any = None, *, n_q: int | None = None,
    ) -> QuantizedResult[Vectors, Codes]: ...  # fmt: skip
    @overload
    def forward(
        self, x: Any, sample_rate: float | None = None, bandwidth: float | None = None,
        mask: Any = None, *, n_q: int | None = None,
    ) -> QuantizedResult[Any, Any]: ...  # fmt: skip
    def forward(
        self, x: Any, sample_rate: float | None = None, bandwidth: float | None = None,
        mask: Any = None, *, n_q: int | None = None,
    ) -> Any:  # fmt: skip
        """Quantize a batch; in train mode, train on it.

        Parameters
        ----------
        x : array (B, D, T) or (N, D), floating
            Vectors, in any library that `rvq_np.backends` supports.
        sample_rate : float, optional
            Vectors per second. Needed with `bandwidth` only; without it the bandwidth of the result
            is in bits per vector.
        bandwidth : float, optional
            The most kb/s to use; by default all stages are used. It applies in training, too.
        mask : array (B, T) or (N,), bool, optional
            True where there is a vector, False where there is padding. The values of padding have
            no effect on statistics and losses. The result there is the quantized zero vector.
        n_q : int, optional
            Instead of `bandwidth`: the first stages to use, 1 to all of them.

        Returns
        -------
        result : QuantizedResult
            ``quantized, codes, bandwidth, penalty`` and, with dropout, ``quantization_loss``;
            unpacks as a tuple. ``quantized`` is exactly ``decode(codes)``, with the codewords
            before this training step; under dropout, with the stages that each row used.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, BackendError, ParameterError, LevelsError
            As `encode`. Nothing is changed then.

        Notes
        -----
        A training step initializes stages that have no codewords yet, encodes the batch, updates
        the moving averages (`rvq_np.train.ema`) and replaces dead codewords
        (`rvq_np.train.expire`). A batch without vectors changes nothing.
        """
        return self.passed("forward", x, sample_rate, bandwidth, mask, n_q).result(self.config)

    __call__ = forward

    def passed(
        self, call: str, x: Any, sample_rate: float | None, bandwidth: float | None, mask: Any,
        n_q: int | None = None,
    ) -> passes.Pass:  # fmt: skip
        """Do what `forward` does; return everything that its result and gradients need."""
        if self.training:
            with self._turn:  # one step after the other, whichever threads make them
                return self._passed(call, x, sample_rate, bandwidth, mask, n_q)
        return self._passed(call, x, sample_rate, bandwidth, mask, n_q)

    def _passed(
        self, call: str, x: Any, sample_rate: Any, bandwidth: Any, mask: Any, n_q: Any
    ) -> passes.Pass:
        rate, n_q = self.config.asked(call, sample_rate, bandwidth, n_q)
        costs = self.config.costs(rate, call)
        batch = layout.Batch(call, x, self.codebooks, mask)
        seed = None
        if self.training:
            seed = self._rng.integers(1 << 32, size=passes.SEED).tolist()
        else:
            self._warn_if_random(0, n_q)
        with batch.there():
            passed = passes.forward(
                self._states, self._projections, self.codebooks, batch, self.config, n_q,
                costs, seed=seed, all_reduce=self.all_reduce or training.ALONE,
                collected=self._collected, frozen=self._frozen,
            )  # fmt: skip
        if passed.trained:
            self._use(passed.states, self._projections, passed.codebooks, passed.collected)
            self._warn_if_replaced(passed.replaced)
        return passed

    @overload
    def encode(
        self,
        x: Vectors,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> Codes: ...
    @overload
    def encode(
        self,
        x: Any,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> Any: ...
    def encode(
        self,
        x: Any,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> Any:
        """Turn vectors into codes, without training.

        Parameters
        ----------
        x : array (B, D, T) or (N, D), floating
        sample_rate : float, optional
            Vectors per second. Needed with `bandwidth` only.
        bandwidth : float, optional
            The most kb/s to use; by default all stages are used.
        st : int, optional
            First stage: `x` is taken as the residual of the stages before it.
        beam_size : int, optional
            Hypotheses kept per vector, see `rvq_np.encode`.
        n_q : int, optional
            Instead of `bandwidth`: the first stages to use, 1 to all of them.

        Returns
        -------
        codes : array (n - st, B, T) or (n - st, N), int32
            For `n_q` stages, or the n that fit into `bandwidth`, or all.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, BackendError
            If `x` is not one of those arrays.
        ParameterError, LevelsError
            If `sample_rate`, `bandwidth`, `n_q`, `beam_size` or `st` has an invalid value, both
            `bandwidth` and `n_q` are given, or `bandwidth` is given without `sample_rate`.

        Warns
        -----
        NotInitializedWarning
            Once, if the codewords were never trained or loaded: they are random.
        """
        _, n_q = self.config.asked("encode", sample_rate, bandwidth, n_q)
        start = self.config.check_start("encode", st, n_q)
        beam_size = validation.beam("encode", beam_size)
        codebooks = self.codebooks[start:n_q]
        if later := backends.chunked(x):
            rows = layout.later_rows("encode", later, x, self.dimension)
            self._warn_if_random(start, n_q)
            swapped = x.ndim == 3
            return chunks.encode(
                later, codec.encode, rows, codebooks, n_q - start, beam_size, swapped=swapped
            )
        batch = layout.Batch("encode", x, codebooks)
        self._warn_if_random(start, n_q)
        with batch.there():
            return batch.codes(core.encode(batch.rows, codebooks, n_q - start, beam_size))

    @overload
    def decode(
        self, codes: Integers, st: int | None = None, *, n_q: int | None = None
    ) -> Vectors: ...
    @overload
    def decode(self, codes: Any, st: int | None = None, *, n_q: int | None = None) -> Any: ...
    def decode(self, codes: Any, st: int | None = None, *, n_q: int | None = None) -> Any:
        """Turn codes into vectors: the sum of the codewords they name.

        Parameters
        ----------
        codes : array (n, B, T) or (n, N), integer
            Any number of stages, from stage `st` on. A code of -1 is dropped and adds nothing.
        st : int, optional
            Stage of the first row, as given to `encode`.
        n_q : int, optional
            Use the first `n_q` stages only: codes of later stages are ignored.

        Returns
        -------
        x : array (B, D, T) or (N, D), float32
            In the library and on the device of `codes`.

        Raises
        ------
        ShapeError, DtypeError, LevelsError, CodeRangeError, BackendError
            As `rvq_np.decode`.

        Warns
        -----
        NotInitializedWarning
            As `encode`.
        """
        codes = arrays.codes_of(codes)
        later = backends.chunked(codes)
        entered = None if later else backends.enter(codes)
        codes = entered.array if entered else codes
        if codes.ndim not in (2, 3):
            raise ShapeError(
                f"decode: codes have shape {tuple(codes.shape)}; expected (n, B, T) or (n, N)."
            )
        start = self.config.check_start("decode", st, self.n_q)
        codes = self.config.first_stages("decode", codes, start, n_q)
        codebooks = self.codebooks[start:]
        if entered is None:
            self._warn_if_random(start, start + codes.shape[0])
            vectors = codec.decode(codes, codebooks)
            return vectors if codes.ndim == 2 else later.moved(vectors, 2, 1)
        with entered.there():
            dropped = validation.codes_later("decode", codes, codebooks)()
            self._warn_if_random(start, start + codes.shape[0])
            if codes.ndim == 2:
                return entered.out(core.decode(codes, codebooks, None, dropped))
            count, batch, time = codes.shape
            flat = arrays.namespace(codes).reshape(codes, (count, batch * time))
            vectors = core.decode(flat, codebooks, None, dropped)
            return entered.out(layout.as_vectors(vectors, (batch, time)))

    def fit(
        self,
        x: Any,
        *,
        iterations: int | None = None,
        rows_per_codeword: int | None = 256,
        tolerance: float = 1e-4,
        callback: Callable[[training.FitProgress], None] | None = None,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        refine: bool | Mapping[str, Any] | None = None,
        start: Any = None,
        freeze: Sequence[int] = (),
        hold: float = 0.9,
        persist: bool | None = None,
        spherical: bool = False,
        normalize_residuals: bool = False,
    ) -> ResidualVectorQuantizer:
        """Train offline by k-means, stage by stage; the old codewords are replaced.

        The mode does not change. A new quantizer is in train mode, where later calls train the
        codebooks further. Use ``rvq.fit(x).eval()`` to prevent that. `encode` and `decode` never
        change the codebooks.

        Parameters
        ----------
        x : array (N, D) or (B, D, T), or numpy.memmap (N, D), floating
            All the data. A memory map is read in batches and never held whole. An array on a GPU
            that CuPy supports stays there. A Dask array stays on the workers of a cluster. Paths
            and iterators are accepted as well, see `rvq_np.train.opened`.
        iterations : int, optional
            The most iterations of k-means per stage; `kmeans_iters` by default.
        rows_per_codeword : int or None, optional
            Train on at most this many random vectors per codeword; None: on all vectors.
        tolerance : float, optional
            A stage is finished when an iteration lowers its error by less than this share.
        callback : callable, optional
            Called with a `rvq_np.train.FitProgress` after each iteration.
        progress : bool, optional
            Show a progress bar on standard error (needs ``tqdm``).
        checkpoint : str or os.PathLike, optional
            The resume file: it holds the stages that are finished. An interrupted fit continues
            from it and gives the same codewords as without the interruption. The file is removed
            when the fit is done.
        refine : bool or dict, optional
            Refine all codebooks together afterwards, for a smaller error of codes found by a beam
            search (``encode(..., beam_size=16)``). A dictionary holds arguments of
            `rvq_np.train.refine`. It needs `codebook_dim` equal to `dimension`. By default a short
            refinement is tried if there are at least 8,192 vectors, and 32 per codeword of all
            stages, see `rvq_np.train.fit`. False: never.
        start : ResidualVectorQuantizer, Codebooks or array (Q, K, D), optional
            Start from these codebooks; ``rvq.fit(x, start=rvq)`` starts from its own.
        freeze : sequence of int, optional
            Stages of `start` whose codebooks do not change.
        hold : float from 0 to 1, optional
            With `start`: a codeword stops at this share of the way from its mean back to its old
            place. At 0.9, 98 % of 20,000 vectors that `start` was fitted to kept all codes when 1 %
            were new. 0: a codeword moves to its mean.
        persist : bool, optional
            For a Dask array: whether workers keep the vectors they train on, see
            `rvq_np.train.fit`.
        spherical, normalize_residuals : bool, optional
            An error if True: use `rvq_np.train.fit` instead. The state dict, files and training
            steps of this class are ESPnet's, which search by Euclidean distance.

        Returns
        -------
        self : ResidualVectorQuantizer

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, ParameterError, BackendError
            If `x` or another argument is invalid. Nothing is changed then, nor if `callback` raises
            or the fit is interrupted.
        ModelFileError, StateError
            If `checkpoint` is not a resume file, or that of another fit.
        ClusterError
            If a cluster fails, see `rvq_np.train.fit`.

        Examples
        --------
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
        >>> rvq = ResidualVectorQuantizer(8, 8, n_q=3, bins=16, rng=0).fit(x)
        >>> errors = [np.square(x - rvq.decode(rvq.encode(x, 1)[:n])).mean() for n in (1, 2, 3)]
        >>> bool(errors[0] > errors[1] > errors[2])
        True
        """
        for name, given in (("spherical", spherical), ("normalize_residuals", normalize_residuals)):
            if arguments.flag("fit", name, given):
                raise ParameterError(
                    f"fit: {name} is asked for, but the state dict, files and training steps of "
                    "this class are ESPnet's, which search by distance. Call rvq_np.train.fit, and "
                    "codebooks_of its states; checkpoints.save writes them."
                )
        entered, rows = layout.training_rows("fit", x, self.dimension)
        x = entered.array
        iterations = self.config.kmeans_iters if iterations is None else iterations
        first = start.codebooks if isinstance(start, ResidualVectorQuantizer) else start
        try:
            with (
                self._turn,
                entered.there(),
                training.reporting(callback, progress) as report,
            ):
                states = training.fit(
                    rows, self.n_q, self.bins, iterations, self._rng, projections=self._projections,
                    epsilon=self.config.epsilon, rows_per_codeword=rows_per_codeword,
                    tolerance=tolerance,
                    callback=report, checkpoint=checkpoint, refine=refine,
                    start=first, freeze=freeze, hold=hold, persist=persist,
                )  # fmt: skip
                self._use(states, self._projections)
        except NonFiniteError:
            if x.ndim == 3 and backends.chunked(x) is None:  # name the place that the user knows
                check_finite(x)
            raise
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all arrays under ESPnet's names, float32.

        Examples
        --------
        >>> list(ResidualVectorQuantizer(4, 4, n_q=1, bins=8).state_dict())[:2]
        ['vq.layers.0._codebook.inited', 'vq.layers.0._codebook.cluster_size']
        """
        return training.state_dict(self._states, self._projections)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load arrays that are named as by `state_dict`; torch tensors in host memory are accepted.

        Raises
        ------
        StateError
            If entries are missing, extra or of a wrong shape; all are listed. Nothing is changed
            then.
        """
        loaded = training.from_state_dict(state_dict, self.config)
        with self._turn:
            self._use(*loaded)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays, arguments and front end to a safetensors file, atomically.

        The vectors that training has collected so far (`vectors_awaited`) are not in the file. The
        quantizer that `load` returns has the current codewords and does not make them again.
        """
        path = arguments.path("save", "path", path)
        front_end = None if self.front_end is None else self.front_end.as_dict()
        safetensors.save(path, self.state_dict(), self.config.as_dict(), front_end)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, rng: Any = None) -> ResidualVectorQuantizer:
        """Return the quantizer that `save` wrote, in eval mode.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If it is truncated, inconsistent, or written by another program.
        """
        path = arguments.path("load", "path", path)
        tensors, given, recorded = safetensors.load_whole(path)
        try:
            front_end = None if recorded is None else FrontEnd.from_dict(recorded)
            config = Config.from_dict(given)
            if config.n_q > len(tensors):  # before anything is made for each of them
                raise StateError(f"it claims {config.n_q} stages and has {len(tensors)} arrays")
            states, projections = training.from_state_dict(tensors, config)
            quantizer = cls.made_of(config, states, projections, rng=rng).eval()
            quantizer.front_end = front_end
        except (RvqError, TypeError) as error:
            raise ModelFileError(f"load: {str(path)!r} contradicts itself: {error}") from error
        return quantizer

    @classmethod
    def made_of(
        cls, config: Config, states: Any, projections: training.Projections, *, rng: Any = None,
        collected: training.Collected | None = None, frozen: frozenset[int] = frozenset(),
    ) -> ResidualVectorQuantizer:  # fmt: skip
        """Return a quantizer that is made of these values."""
        quantizer = cls.__new__(cls)
        quantizer._begin(config, rng)
        quantizer._frozen = frozen
        quantizer._use(states, projections, collected=collected)
        return quantizer

    @property
    def collected(self) -> training.Collected | None:
        """The vectors that training has collected so far, see `vectors_awaited`."""
        return self._collected

    @property
    def front_end(self) -> FrontEnd | None:
        """The front end of the vectors, which `save` records; None if it is unknown.

        Raises
        ------
        ParameterError
            If the new value is neither None nor a `FrontEnd` of this dimension.

        Examples
        --------
        >>> rvq = ResidualVectorQuantizer(64, 64, n_q=2, bins=8)
        >>> rvq.front_end = FrontEnd("mdct", 64, 16000)
        >>> print(rvq.front_end)
        MDCT of sound, 64 samples per vector, 16000 Hz
        """
        return self._front_end

    @front_end.setter
    def front_end(self, value: FrontEnd | None) -> None:
        if value is not None:
            arguments.kind("ResidualVectorQuantizer", "front_end", value, FrontEnd)
            if value.dim not in (None, self.dimension):
                raise arguments.refused(
                    "ResidualVectorQuantizer", "front_end", value,
                    f"one of {self.dimension} samples per vector, the dimension",
                )  # fmt: skip
        self._front_end = value

    @property
    def usage(self) -> list[training.Usage]:
        """Utilisation and perplexity of each stage, by name.

        Computed from the moving counts; codewords that were placed and not chosen yet do not count.
        """
        return training.Usages(training.usage(state.chosen) for state in self._states)

    @property
    def is_initialized(self) -> bool:
        """Whether the codewords of every stage were trained, loaded, or made random on request."""
        return all(state.initialized for state in self._states)

    def _begin(self, config: Config, rng: Any) -> None:
        self.config = config
        self.dimension, self.codebook_dim = config.dimension, config.codebook_dim
        self.n_q, self.bins = config.n_q, config.bins
        self.training = True
        self.all_reduce = None
        self._rng = arguments.generator("ResidualVectorQuantizer", "rng", rng)
        self._warned = self._warned_unstable = False
        self._churn = [0] * config.n_q
        self._frozen = frozenset()
        self._turn = forks.renewed(self)

    def _use(
        self, states: Any, projections: training.Projections, before: Any = None,
        collected: training.Collected | None = None,
    ) -> None:  # fmt: skip
        """Take over new values, all at once and after everything that can fail."""
        codebooks = training.codebooks_of(states, projections, before)
        self._collected = collected
        self._states, self._projections, self.codebooks = tuple(states), projections, codebooks

    def freeze(self, stages: Sequence[int] = ()) -> ResidualVectorQuantizer:
        """Exclude the codebooks of some stages from training; return the quantizer.

        Parameters
        ----------
        stages : sequence of int, optional
            All stages to freeze; each must have codewords. By default none: all stages train again.
            `fit` and `load_state_dict` replace the codebooks of frozen stages as well.

        Raises
        ------
        ParameterError
            If a stage does not exist.
        StateError
            If a stage was never trained or loaded.

        Examples
        --------
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
        >>> rvq = ResidualVectorQuantizer(8, 8, n_q=2, bins=8, rng=0).fit(x).freeze([0])
        >>> before = rvq.codebooks
        >>> _ = rvq(x, sample_rate=50)
        >>> [old == new for old, new in zip(before, rvq.codebooks)]
        [True, False]
        """
        frozen = training.stages_of("freeze", stages, self.n_q)
        with self._turn:
            for stage in sorted(frozen):
                if not self._states[stage].initialized:
                    raise training.random_stage(stage)
            if self._collected is not None:  # first codewords are not made once more
                self._collected = self._collected.without(frozen)
            self._frozen = frozen
        return self

    @property
    def frozen(self) -> tuple[int, ...]:
        """The stages that training does not change, see `freeze`."""
        return tuple(sorted(self._frozen))

    @property
    def vectors_awaited(self) -> int:
        """How many more vectors training needs before it makes its first codewords again.

        It is 0 unless ``threshold_ema_dead_code`` is None, the default, and training has not
        received enough vectors yet. Enough are 16 vectors for each codeword of the largest
        codebook, but at most 16,384; or 4 for each codeword, if that is more. Until then the
        codewords are provisional: they come from the first batch. The step that makes them again
        takes as long as k-means of the collected vectors: once 17 s, with the defaults of all
        arguments, on two cores with AVX-512.
        """
        return 0 if self._collected is None else self._collected.missing(self.config)
