"""A scikit-learn transformer, vectors to codes. Needs ``pip install 'rvq-np[sklearn]'``.

Only here the first axis of codes is that of the vectors, ``(n_samples, n_q)``, and the seed is
called ``random_state``, as in scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from . import backends, codec, train


class ResidualQuantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Residual vector quantizer as a transformer.

    Parameters
    ----------
    n_q : int, optional
        Number of stages.
    bins : int, optional
        Codewords per stage.
    max_iter : int, optional
        Iterations of k-means per stage, at most.
    tol : float, optional
        A stage is finished when an iteration lowers its error by a smaller fraction than this.
    beam_size : int, optional
        Hypotheses kept per vector when encoding.
    random_state : int, RandomState or None, optional

    Attributes
    ----------
    codebooks_ : Codebooks
        The fitted codebooks.
    n_features_in_ : int
    n_iter_ : int
        Iterations of k-means of the stage that took most.

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

    def __init__(
        self,
        n_q: int = 4,
        bins: int = 16,
        *,
        max_iter: int = 25,
        tol: float = 1e-4,
        beam_size: int = 1,
        random_state: Any = None,
    ):
        self.n_q = n_q
        self.bins = bins
        self.max_iter = max_iter
        self.tol = tol
        self.beam_size = beam_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ResidualQuantizer:
        """Train all stages on `X` (n_samples, n_features).

        A Dask array is read by tasks of its scheduler, and gives the codebooks it gives in memory.
        """
        X = self._vectors(X, reset=True)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        iterations = [0] * self.n_q

        def count(info: train.FitProgress) -> None:
            iterations[info.stage] += 1

        states = train.fit(
            X, self.n_q, self.bins, self.max_iter, np.random.default_rng(seed),
            tolerance=self.tol, callback=count,
        )  # fmt: skip
        self.codebooks_ = train.codebooks_of(states)
        self.n_iter_ = max(iterations)
        return self

    def transform(self, X: Any) -> Any:
        """Return codes (n_samples, n_q), int32; of a Dask array one that is computed later."""
        check_is_fitted(self)
        X = self._vectors(X, reset=False)
        codes = codec.encode(X, self.codebooks_, beam_size=self.beam_size)
        return codes.T if backends.chunked(codes) else np.ascontiguousarray(codes.T)

    def inverse_transform(self, X: Any) -> Any:
        """Return vectors (n_samples, n_features), float32, of codes (n_samples, n)."""
        check_is_fitted(self)
        if backends.chunked(X):
            return codec.decode(X.T, self.codebooks_)
        X = check_array(X, dtype="numeric")
        return np.asarray(codec.decode(np.ascontiguousarray(X.T), self.codebooks_))

    def _vectors(self, X: Any, reset: bool) -> Any:
        """Return `X` as scikit-learn wants it checked; of a Dask array no number is looked at."""
        types = [np.float64, np.float32]
        if not backends.chunked(X):
            return validate_data(self, X, dtype=types, reset=reset)
        X = X.to_dask_array() if hasattr(X, "to_dask_array") else X
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X if X.dtype in types else X.astype(np.float64)

    @property
    def _n_features_out(self) -> int:
        return self.codebooks_.n_q

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are integers
        return tags
