"""A scikit-learn transformer, vectors to codes. Needs ``pip install 'rvq-np[sklearn]'``.

Only here the first axis of codes is that of the vectors, ``(n_samples, n_q)``, and the seed is
called ``random_state``, as in scikit-learn.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from . import arguments, backends, checkpoints, codec, train
from .config import Config
from .errors import ParameterError
from .quantizer import ResidualVectorQuantizer

__all__ = ["ResidualQuantizer"]


def __dir__() -> list[str]:
    return sorted(__all__)


REPLACED = 0.1  # of the mean count: codewords below are replaced, also in batches of few vectors


class ResidualQuantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Residual vector quantizer as a transformer.

    Parameters
    ----------
    n_q : int, optional
        Number of stages.
    bins : int or sequence of int, optional
        Codewords per stage: one number for all stages, or one number per stage.
    max_iter : int, optional
        The most iterations of k-means per stage.
    tol : float, optional
        A stage is finished when an iteration lowers its error by less than this share.
    beam_size : int, optional
        Hypotheses kept per vector when encoding.
    random_state : int, RandomState or None, optional
    refine : bool, dict or None, optional
        Whether `fit` refines all codebooks together afterwards, see `rvq_np.train.fit`. By default
        a short refinement is tried if there are enough vectors.
    spherical, normalize_residuals : bool, optional
        See `rvq_np.train.fit`. Neither can be used with `partial_fit`, `to_quantizer` or a `refine`
        that is not None or False. With `normalize_residuals` codes do not decode to an
        approximation.

    Notes
    -----
    There is no ``sample_weight``: k-means and averages count whole vectors, so that their sums are
    the same for every split of the rows. Repeat vectors instead. Use `save` for a model file, and
    `to_quantizer` for the other functions of the package.

    Attributes
    ----------
    codebooks_ : Codebooks
        The fitted codebooks.
    n_features_in_ : int
    n_iter_ : int
        The largest number of k-means iterations of a stage.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np.sklearn import ResidualQuantizer
    >>> x = np.random.default_rng(0).standard_normal((500, 8))
    >>> quantizer = ResidualQuantizer(n_q=3, bins=16, random_state=0).fit(x)
    >>> codes = quantizer.transform(x)
    >>> codes.shape, quantizer.inverse_transform(codes).shape
    ((500, 3), (500, 8))
    """

    _quantizer: ResidualVectorQuantizer | None  # None where stages search by direction

    def __init__(
        self,
        n_q: int = 4,
        bins: int | Sequence[int] = 16,
        *,
        max_iter: int = 25,
        tol: float = 1e-4,
        beam_size: int = 1,
        random_state: Any = None,
        refine: bool | Mapping[str, Any] | None = None,
        spherical: bool = False,
        normalize_residuals: bool = False,
    ):
        self.n_q = n_q
        self.bins = bins
        self.max_iter = max_iter
        self.tol = tol
        self.beam_size = beam_size
        self.random_state = random_state
        self.refine = refine
        self.spherical = spherical
        self.normalize_residuals = normalize_residuals

    def fit(self, X: Any, y: Any = None) -> ResidualQuantizer:
        """Train all stages on `X` (n_samples, n_features), from the beginning.

        A Dask array is read by tasks of its scheduler; the codebooks are the same as for an array
        in memory.

        Raises
        ------
        ParameterError
            If a parameter has an invalid value; the message names it.
        """
        self._check_parameters("fit")
        X = self._vectors("fit", X, reset=True)
        rng = self._generator()
        stages: list[int] = []
        states = train.fit(
            X, self.n_q, self.bins, self.max_iter, rng, tolerance=self.tol, refine=self.refine,
            spherical=self.spherical, normalize_residuals=self.normalize_residuals,
            callback=lambda info: stages.append(info.stage),
        )  # fmt: skip
        if self.spherical or self.normalize_residuals:
            self._quantizer, self.codebooks_ = None, train.codebooks_of(states)
        else:
            self._use(ResidualVectorQuantizer.made_of(self._config(X), states, None, rng=rng))
        # A stage may be done twice, see `rvq_np.train.fit`.
        longest = max(len(list(same)) for _, same in itertools.groupby(stages))
        self.n_iter_ = min(longest, self.max_iter)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> ResidualQuantizer:
        """Update the codewords with one batch `X` (n_samples, n_features).

        The codewords follow exponential moving averages, see `rvq_np.train.ema`. Without an earlier
        `fit`, k-means makes the first codewords from the first batch, so the first batch should
        have several vectors per codeword. Codewords that are seldom chosen are replaced by vectors
        of the batch.

        Each chunk of rows of a Dask array is a batch, in the memory of this process and one after
        the other, as in ``dask_ml.wrappers.Incremental``: the codewords depend on the chunks. If a
        chunk is refused, nothing is changed.

        Raises
        ------
        ParameterError
            If a parameter has an invalid value; the message names it.
        """
        self._check_parameters("partial_fit")
        for name in ("spherical", "normalize_residuals"):
            if getattr(self, name):
                raise ParameterError(
                    f"ResidualQuantizer.partial_fit: {name} is True; expected False, as moving "
                    "averages are for stages that search by distance. Call fit."
                )
        first = vars(self).get("_quantizer") is None
        X = self._vectors("partial_fit", X, reset=first)
        quantizer: Any = None if first else self._quantizer
        if first:
            config, rng = self._config(X), self._generator()
            quantizer = ResidualVectorQuantizer.made_of(config, *train.fresh(config, rng), rng=rng)
        if backends.chunked(X):
            quantizer = copy.deepcopy(quantizer)
            for batch in train.Chunks("ResidualQuantizer.partial_fit", X).batches():
                quantizer.train()(batch, 1.0)
        else:
            quantizer.train()(X, 1.0)
        self._use(quantizer)
        if first:
            self.n_iter_ = self.max_iter
        return self

    def transform(self, X: Any) -> Any:
        """Return codes (n_samples, n_q), int32; for a Dask array a Dask array."""
        check_is_fitted(self)
        self._check_parameters("transform")
        X = self._vectors("transform", X, reset=False)
        codes = codec.encode(X, self.codebooks_, beam_size=self.beam_size)
        return codes.T if backends.chunked(codes) else np.ascontiguousarray(codes.T)

    def inverse_transform(self, X: Any) -> Any:
        """Return the decoded vectors (n_samples, n_features), float32, of codes (n_samples, n).

        A code of -1 is dropped and adds nothing.
        """
        check_is_fitted(self)
        if backends.chunked(X):
            return codec.decode(X.T, self.codebooks_)
        X = check_array(X, dtype="numeric")
        return np.asarray(codec.decode(np.ascontiguousarray(X.T), self.codebooks_))

    def score(self, X: Any, y: Any = None) -> float:
        """Return the negative mean squared error, per number, of the decoded codes of `X`.

        Higher is better, as model selection expects; the maximum is 0.
        """
        decoded = self.inverse_transform(self.transform(X))
        X = _array(X).astype(np.float64) if backends.chunked(X) else np.asarray(X, np.float64)
        return -float(np.square(X - decoded).mean())

    def to_quantizer(self) -> ResidualVectorQuantizer:
        """Return a new `rvq_np.ResidualVectorQuantizer` with the fitted codebooks, in eval mode.

        Examples
        --------
        >>> import numpy as np
        >>> from rvq_np.sklearn import ResidualQuantizer
        >>> x = np.random.default_rng(0).standard_normal((500, 8))
        >>> rvq = ResidualQuantizer(n_q=3, bins=16, random_state=0).fit(x).to_quantizer()
        >>> rvq.encode(x, sample_rate=1).shape
        (3, 500)
        """
        check_is_fitted(self)
        if self._quantizer is None:
            raise ParameterError(
                "ResidualQuantizer.to_quantizer: it was fitted with spherical or "
                "normalize_residuals, and that class searches by distance; expected neither. Use "
                "codebooks_, which rvq_np.encode and decode take, or save."
            )
        return copy.deepcopy(self._quantizer).eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file, which `rvq_np.ResidualVectorQuantizer.load` and ``rvq-np`` read.

        With `spherical` or `normalize_residuals`, `rvq_np.checkpoints.load` and ``rvq-np`` read it.
        """
        check_is_fitted(self)
        if self._quantizer is None:
            checkpoints.save(path, self.codebooks_)
        else:
            self.to_quantizer().save(path)

    def _check_parameters(self, call: str) -> None:
        call = f"ResidualQuantizer.{call}"
        for name in ("n_q", "max_iter", "beam_size"):
            arguments.whole(call, name, getattr(self, name), 1)
        arguments.sizes(call, "bins", self.bins, self.n_q)
        arguments.number(call, "tol", self.tol)
        for name in ("spherical", "normalize_residuals"):
            arguments.flag(call, name, getattr(self, name))

    def _vectors(self, call: str, X: Any, *, reset: bool) -> Any:
        """Return checked vectors, float32 if they are, else float64.

        Of a Dask array no number is looked at.
        """
        if later := backends.chunked(X):
            X = _array(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            if X.dtype.kind in "biu":
                return X.astype(np.float64)
            dtype = codec.validation.floating(f"ResidualQuantizer.{call}", later.like(X))
            return X if X.dtype == dtype else X.astype(dtype)
        X = validate_data(self, X, dtype="numeric", reset=reset)
        if X.dtype.kind not in "biu":
            return np.asarray(X, codec.validation.floating(f"ResidualQuantizer.{call}", X))
        return X.astype(np.float64)

    def _generator(self) -> np.random.Generator:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return np.random.default_rng(seed)

    def _config(self, X: Any) -> Config:
        return Config(
            X.shape[1], None, self.n_q, self.bins, kmeans_iters=self.max_iter,
            relative_threshold=REPLACED,
        )  # fmt: skip

    def _use(self, quantizer: ResidualVectorQuantizer) -> None:
        self._quantizer, self.codebooks_ = quantizer, quantizer.codebooks

    @property
    def _n_features_out(self) -> int:
        return self.codebooks_.n_q

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are integers
        return tags


def _array(X: Any) -> Any:
    """Return the Dask array of a Dask array or DataFrame."""
    return X.to_dask_array() if hasattr(X, "to_dask_array") else X
