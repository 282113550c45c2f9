"""Encoding while the signal comes: the same codes as of the whole signal, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import checks, composed, lookup
from .errors import BackendError, ParameterError, ShapeError
from .kernels import host, tiles


class StreamEncoder:
    """Codes of a live signal, as its frames come.

    Parameters
    ----------
    codebooks : Codebooks, Composed or array (Q, K, D), floating
    n_q : int, optional
        Use the first `n_q` levels. All by default.
    beam_size : int, optional
        As in `rvq_np.encode`.
    threads : int, optional
        Threads of a `push`. 1 by default: a frame is too little to share.

    Attributes
    ----------
    block : int
        Frames that are coded together: 1, but where stages have strides their least common
        multiple. The codes of a block come with its last frame, so its first frame waits for
        ``block - 1`` others.
    pending : int
        Frames that wait for the rest of their block, below `block`.
    frames : int
        Frames that were pushed.

    Raises
    ------
    LevelsError, ParameterError, ShapeError, DtypeError
        As `rvq_np.encode`; `beam_size` other than 1 is not served where stages have strides.

    Notes
    -----
    Without projections codes are defined and so the same however the signal is cut. With them,
    sums are taken in the same order for each frame, by the compiled kernels, whatever frames are
    beside it; NumPy's own path, where Numba is missing, may round a map differently there.

    Kernels are loaded and tables laid out when this is made, not at the first frame. An object
    is one stream: use one a thread; the codebooks may be shared.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Codebooks, Stage, StreamEncoder
    >>> words = np.float32([[0.0], [4.0]])
    >>> stream = StreamEncoder(Codebooks([Stage(words, stride=2), Stage(words)]))
    >>> stream.push(np.float32([[5.0]]))  # the first level wants two frames
    [array([], dtype=int32), array([], dtype=int32)]
    >>> stream.push(np.float32([[4.0], [0.0]]))
    [array([1], dtype=int32), array([0, 0], dtype=int32)]
    >>> stream.pending
    1
    """

    _waiting: list[np.ndarray]

    def __init__(
        self, codebooks: Any, n_q: int | None = None, beam_size: int = 1, *, threads: int = 1
    ):
        quantizer = composed.of(codebooks)
        n_q = checks.levels("StreamEncoder", quantizer.n_q if n_q is None else n_q, 1,
                            quantizer.n_q)  # fmt: skip
        checks.beam("StreamEncoder", beam_size)
        checks.threads("StreamEncoder", threads)
        self.quantizer = quantizer[:n_q]
        self.block = self.quantizer.block
        if self.block > 1 and beam_size > 1:
            raise ParameterError(
                f"StreamEncoder: beam_size is {beam_size}; wanted 1 where stages have strides."
            )
        self._beam_size, self._threads = beam_size, threads
        self.reset()
        host.load()
        self._encoded(np.zeros((self.block, quantizer.dim), np.float32))

    def push(self, x: Any) -> Any:
        """Take frames and return the codes of the blocks that are complete.

        Parameters
        ----------
        x : numpy.ndarray (n, D) or (D,), floating
            The next frames of the signal, any number of them, in the order of time.

        Returns
        -------
        codes : numpy.ndarray (n_q, n), int32, or list of n_q arrays (m,)
            (n_q,) for a single frame (D,). Where stages have strides a list, of m codes for as
            many whole blocks as there are, none perhaps.

        Raises
        ------
        BackendError
            If `x` is no NumPy array.
        ShapeError, DtypeError, NonFiniteError
            As `rvq_np.encode`. The stream stays as it was.
        """
        if type(x) is not np.ndarray:
            raise BackendError(
                f"push: got a {type(x).__name__}; wanted a NumPy array. Convert frames on the host "
                "with numpy.asarray."
            )
        if x.ndim not in (1, 2):
            raise ShapeError(
                f"push: x has shape {x.shape}; wanted (n, {self.quantizer.dim}) or "
                f"({self.quantizer.dim},). Make a StreamEncoder for each stream."
            )
        checks.vectors("push", x, self.quantizer)
        rows = x if x.ndim == 2 else x[None]
        if self.block == 1:
            codes = self._encoded(rows)
            self.frames += len(rows)
            return codes if x.ndim == 2 else codes[:, 0]
        waiting = np.concatenate([*self._waiting, rows]) if self._waiting else rows
        whole = len(waiting) // self.block * self.block
        codes = self._encoded(waiting[:whole]) if whole else self._nothing()
        self._waiting = [np.array(waiting[whole:])] if whole < len(waiting) else []
        self.frames += len(rows)
        return codes

    @property
    def pending(self) -> int:
        return len(self._waiting[0]) if self._waiting else 0

    def finish(self) -> None:
        """Make sure that no frame waits: the signal ends with a block.

        Raises
        ------
        ShapeError
            If frames wait. `rvq_np.encode` refuses such a signal as well; push as many frames as
            are missing, zeros or the last one again, or `reset`. Nothing is changed.
        """
        if self.pending:
            raise ShapeError(
                f"finish: {self.pending} frames wait for {self.block - self.pending} more to fill "
                f"a block of {self.block}. Push those, zeros or the last frame again, or reset()."
            )

    def reset(self) -> None:
        """Forget the frames that wait, and begin another signal."""
        self._waiting = []
        self.frames = 0

    def __repr__(self) -> str:
        return f"StreamEncoder({self.quantizer!r}, {self.pending} of {self.block} frames pending)"

    def _nothing(self) -> list[np.ndarray]:
        return [np.empty(0, np.int32) for _ in range(self.quantizer.n_q)]

    def _encoded(self, rows: np.ndarray) -> Any:
        with tiles.at_most(self._threads):
            return lookup.encode(rows, self.quantizer, self.quantizer.n_q, self._beam_size)
