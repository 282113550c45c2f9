"""Streaming: frames are encoded as they arrive, with the codes of the whole signal."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ..arrays import Codes, Vectors
from ..codebooks import composed
from ..errors import BackendError, ParameterError, ShapeError
from ..kernels import dispatch, tiles
from . import core, validation


class StreamEncoder:
    """Encode a live signal as its frames arrive.

    Parameters
    ----------
    codebooks : Codebooks, Composed or array (Q, K, D), floating
    n_q : int, optional
        Use the first `n_q` stages. All by default.
    beam_size : int, optional
        As in `rvq_np.encode`.
    threads : int, optional
        Threads of a `push`. 1 by default, because a frame is too little work for more.

    Attributes
    ----------
    block : int
        Frames that are encoded together: the least common multiple of the strides, 1 without
        strides. `push` returns the codes of a block when its last frame arrives, so the first frame
        of a block waits for ``block - 1`` more.
    pending : int
        Frames that wait for the rest of their block, less than `block`.
    frames : int
        Frames pushed so far.

    Raises
    ------
    LevelsError, ParameterError, ShapeError, DtypeError
        As `rvq_np.encode`; also if `beam_size` is not 1 where stages have strides.

    Notes
    -----
    Without projections the codes do not depend on how the signal is split. With projections, the
    compiled kernels sum in the same order for each frame, for any number of frames. Without Numba,
    NumPy may round a projection differently.

    Kernels are loaded and tables are prepared when an object is created, not at the first frame.
    Use one object per stream, in one thread; several objects may share the codebooks.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import Codebooks, Stage, StreamEncoder
    >>> codebook = np.float32([[0.0], [4.0]])
    >>> stream = StreamEncoder(Codebooks([Stage(codebook, stride=2), Stage(codebook)]))
    >>> stream.push(np.float32([[5.0]]))  # the first stage needs two frames
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
        n_q = validation.stage_count("StreamEncoder", quantizer.n_q if n_q is None else n_q, 1,
                            quantizer.n_q)  # fmt: skip
        beam_size = validation.beam("StreamEncoder", beam_size)
        count = validation.threads("StreamEncoder", threads)
        self.quantizer = quantizer[:n_q]
        self.block = self.quantizer.block
        if self.block > 1 and beam_size > 1:
            raise ParameterError(
                f"StreamEncoder: beam_size is {beam_size}; expected 1 where stages have strides."
            )
        self._beam_size, self._threads = beam_size, count
        self.reset()
        dispatch.load()
        self._encode(np.zeros((self.block, quantizer.dim), np.float32))

    def push(self, x: Vectors) -> Codes:
        """Take frames and return the codes of the blocks that are complete.

        Parameters
        ----------
        x : numpy.ndarray (n, D) or (D,), floating
            The next frames of the signal, any number of them, in time order.

        Returns
        -------
        codes : numpy.ndarray (n_q, n), int32, or list of n_q arrays (m,)
            (n_q,) for a single frame (D,). Where stages have strides, a list with the m codes of
            each stage for the blocks that this call completes; m may be 0.

        Raises
        ------
        BackendError
            If `x` is not a NumPy array.
        ShapeError, DtypeError, NonFiniteError
            As `rvq_np.encode`. The stream is unchanged.
        """
        given: Any = x  # whatever a type checker did not see
        if type(given) is not np.ndarray:
            raise BackendError(
                f"push: got a {type(given).__name__}; expected a NumPy array. Convert frames with "
                "numpy.asarray."
            )
        if x.ndim not in (1, 2):
            raise ShapeError(
                f"push: x has shape {x.shape}; expected (n, {self.quantizer.dim}) or "
                f"({self.quantizer.dim},). Use one StreamEncoder per stream."
            )
        validation.vectors("push", x, self.quantizer)
        rows = x if x.ndim == 2 else x[None]
        if self.block == 1:
            codes = self._encode(rows)
            self.frames += len(rows)
            return codes if x.ndim == 2 else codes[:, 0]
        waiting = np.concatenate([*self._waiting, rows]) if self._waiting else rows
        whole = len(waiting) // self.block * self.block
        codes = self._encode(waiting[:whole]) if whole else self._no_codes()
        self._waiting = [np.array(waiting[whole:])] if whole < len(waiting) else []
        self.frames += len(rows)
        return cast(Codes, codes)

    @property
    def pending(self) -> int:
        return len(self._waiting[0]) if self._waiting else 0

    def finish(self) -> None:
        """Raise unless the signal ends with a complete block.

        Raises
        ------
        ShapeError
            If frames are pending. `rvq_np.encode` refuses such a signal as well. Push the missing
            frames (zeros, or the last frame again), or call `reset`. Nothing is changed.
        """
        if self.pending:
            raise ShapeError(
                f"finish: {self.pending} frames are pending in a block of {self.block}; expected "
                f"{self.block - self.pending} more. Push zeros or the last frame again, or reset()."
            )

    def reset(self) -> None:
        """Discard the pending frames, to begin another signal."""
        self._waiting = []
        self.frames = 0

    def __repr__(self) -> str:
        return f"StreamEncoder({self.quantizer!r}, {self.pending} of {self.block} frames pending)"

    def _no_codes(self) -> list[np.ndarray]:
        return [np.empty(0, np.int32) for _ in range(self.quantizer.n_q)]

    def _encode(self, rows: np.ndarray) -> Any:
        with tiles.at_most(self._threads):
            return core.encode(rows, self.quantizer, self.quantizer.n_q, self._beam_size)
