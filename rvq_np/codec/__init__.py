"""Vectors to codes and back: `encode` and `decode`, and the cluster statistics of training.

Arguments are checked here, once; kernels check nothing.  Vectors are on the last axis, codes are
stage first: ``(..., D)`` gives ``(n_q, ...)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from .. import arguments, arrays, backends
from ..arrays import Codes, Integers, Vectors
from ..codebooks import Codebooks, Quantizer, composed
from ..errors import DtypeError, ShapeError
from ..kernels import dispatch, tiles
from ..kernels.totals import ExactSum as ExactSum
from . import chunks, core, validation

__all__ = [
    "decode",
    "encode",
    "tally",
    "warmup",
]


def __dir__() -> list[str]:
    return sorted(__all__)


# Where stages have strides, codes are a list of arrays: tell a type checker so, or index them.
@overload
def encode(
    x: Vectors,
    codebooks: Any,
    n_q: int | None = None,
    beam_size: int = 1,
    *,
    out: Codes | None = None,
    threads: int | None = None,
) -> Codes: ...
@overload
def encode(
    x: Any,
    codebooks: Any,
    n_q: int | None = None,
    beam_size: int = 1,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> Any: ...
def encode(
    x: Any,
    codebooks: Any,
    n_q: int | None = None,
    beam_size: int = 1,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> Any:
    """Turn vectors into codes: at each stage, the codeword nearest to the residual.

    Parameters
    ----------
    x : array (..., D), floating
        Vectors along the last axis, in any library that `rvq_np.backends` supports. Half precision
        is widened to float32. The codes of a Dask array, whose last axis must be in one chunk, are
        a Dask array: nothing is computed yet, and the tasks check the numbers.
    codebooks : Codebooks, Composed or array (Q, K, D), floating
        Q stages of K codewords of length D, or a quantizer composed of several, as
        `rvq_np.Parallel`.
    n_q : int, optional
        Use the first `n_q` stages, ``1 <= n_q <= Q``. By default all.
    beam_size : int, optional
        Hypotheses kept per vector. 1, the default, is the greedy search. A larger beam finds codes
        with a smaller error, at a cost of `beam_size` times that of the greedy search or more.
    out : numpy.ndarray (n_q, ...), int32, optional
        Array to write the codes of NumPy vectors to; it is returned. For calls that must not
        allocate memory.
    threads : int, optional
        Threads of this call, where compiled kernels are used. By default ``RVQ_NP_NUM_THREADS``, or
        the number of cores the process may run on. The codes do not depend on it.

    Returns
    -------
    codes : array (n_q, ...), int32
        In ``[0, K)``, in the library and on the device of `x`. With ``beam_size=1`` a code does not
        depend on later stages: ``codes[:n]`` are the codes for ``n_q=n``. Where stages have
        strides, a list of n_q arrays ``(..., T // stride)`` for `x` (..., T, D).

    Raises
    ------
    BackendError
        If no backend supports the type of `x`.
    ShapeError
        If the last axis of `x` is not D.
    DtypeError
        If `x` does not hold floating-point numbers.
    NonFiniteError
        If `x` holds NaN or infinity, or numbers so large that a residual could overflow.
    LevelsError
        If `n_q` is outside ``[1, Q]``.
    ParameterError
        If `beam_size` or `threads` is below 1; for stages with strides, if it is not 1, or `out`
        is given.
    ShapeError, DtypeError, BackendError
        Also if `out` has the wrong shape, dtype or type, or T is not a multiple of the strides.

    Notes
    -----
    Without projections the codes are defined exactly. The residual is rounded once per stage, to
    the wider of the float types of `x` and the codebooks (float32 at least). Each code names the
    codeword nearest to it in exact real arithmetic, the lowest index on a tie. Every backend,
    number of threads and split into batches gives the same codes.

    About ``2 * N * n_q * K * D`` floating-point operations for N vectors, and memory for a few
    tiles of rows. The default search is greedy (Juang and Gray, ICASSP 1982): it may miss the
    nearest of all ``K**n_q`` sums.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import encode
    >>> codewords = np.float32([[[0, 0], [4, 4]], [[0, 0], [1, 0]]])
    >>> encode(np.float32([[5, 4], [0, 1]]), codewords)
    array([[1, 0],
           [1, 0]], dtype=int32)
    """
    if later := backends.chunked(x):
        return chunks.encode(later, encode, x, codebooks, n_q, beam_size, out, threads)
    entered = backends.enter(x)
    if threads is None and entered.at is None:
        return _encode(entered, codebooks, n_q, beam_size, out)
    threads = validation.threads("encode", threads)
    with entered.there(), tiles.at_most(threads):
        return _encode(entered, codebooks, n_q, beam_size, out)


@overload
def decode(
    codes: Integers | Sequence[Integers],
    codebooks: Any,
    *,
    out: Vectors | None = None,
    threads: int | None = None,
) -> Vectors: ...
@overload
def decode(
    codes: Any, codebooks: Any, *, out: np.ndarray | None = None, threads: int | None = None
) -> Any: ...
def decode(
    codes: Any, codebooks: Any, *, out: np.ndarray | None = None, threads: int | None = None
) -> Any:
    """Turn codes into vectors: the sum of the codewords they name.

    Parameters
    ----------
    codes : array (n, ...), integer
        One row for each of the first n stages, ``0 <= n <= Q``: a prefix is always valid. A code of
        -1 is dropped: its stage adds nothing to that vector. In any library that `rvq_np.backends`
        supports; the vectors of a Dask array are a Dask array, computed later. Where stages have
        strides, a list of n arrays. A `QuantizedResult` or `bitstream.Content` is accepted instead
        of its codes.
    codebooks : Codebooks, Composed or array (Q, K, D), floating
    out : numpy.ndarray (..., D), optional
        Array to write the vectors of NumPy codes to, in the float type of the codebooks; it is
        returned.
    threads : int, optional
        As in `encode`.

    Returns
    -------
    x : array (..., D)
        In the library and on the device of `codes`, in the float type of the codebooks (float32
        where JAX has float64 off). The codewords are summed in the order of the stages, starting
        from zero, so every backend gives the same bits.

    Raises
    ------
    BackendError
        If no backend supports the type of `codes`.
    DtypeError
        If `codes` are not integers.
    LevelsError
        If there are more rows than stages.
    CodeRangeError
        If a code is neither -1 nor the index of a codeword; the message names the first one.
    ParameterError
        If `threads` is below 1.
    ShapeError, DtypeError, BackendError
        If `out` has the wrong shape, dtype or type.

    Notes
    -----
    Memory bandwidth limits the speed: ``n * N`` codewords are read and N vectors written. Codes of
    -1 from stage n on give the bits of ``decode(codes[:n])``. A vector without any code is zero,
    also where a quantizer maps its sums with a bias; each stage is then added separately, which
    takes longer.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import decode
    >>> codewords = np.float32([[[0, 0], [4, 4]], [[0, 0], [1, 0]]])
    >>> decode(np.int32([[1, 0], [1, 0]]), codewords)
    array([[5., 4.],
           [0., 0.]], dtype=float32)
    """
    codes = arrays.codes_of(codes)
    first = codes[0] if isinstance(codes, (list, tuple)) and codes else codes
    if later := backends.chunked(first):
        return chunks.decode(later, decode, codes, codebooks, out, threads)
    quantizer = codebooks if type(codebooks) is Codebooks else composed.of(codebooks)
    threads = validation.threads("decode", threads)
    with tiles.at_most(threads):
        if quantizer.block > 1:
            return _decode_strided(codes, quantizer, out)
        entered = backends.enter(codes)
        with entered.there():
            return _decode(entered, quantizer, out)


def tally(
    x: Any, codes: Any, codebooks: Any, *, exact: bool = False
) -> tuple[list[np.ndarray], list[Any]]:
    """Count how often each codeword was chosen and sum the vectors that chose it, for training.

    Parameters
    ----------
    x : array (..., D), floating
        The vectors that were encoded.
    codes : array (n, ...), integer
        Their codes of the first n stages, without dropped codes.
    codebooks : Codebooks or array (Q, K, D), floating
    exact : bool, optional
        Return sums as `ExactSum`, to be added to those of other vectors. The total does not depend
        on how vectors were split, ordered or merged.

    Returns
    -------
    counts : list of n numpy.ndarray (K,), float64
    sums : list of n numpy.ndarray (K, C), float64; or of n ExactSum
        For each codeword the sum of the residuals that chose it (projected, if the stage has
        projections): the exact sum, rounded once. It does not depend on the order of the rows or
        the number of threads.

    Raises
    ------
    BackendError, ShapeError, DtypeError, NonFiniteError, LevelsError, CodeRangeError
        As `encode` and `decode`; also ShapeError if `x` and `codes` do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np.codec import tally
    >>> codewords = np.float32([[[0, 0], [4, 4]]])
    >>> counts, sums = tally(np.float32([[5, 4], [3, 4], [0, 1]]), np.int32([[1, 1, 0]]), codewords)
    >>> counts[0], sums[0]
    (array([1., 2.]), array([[0., 1.],
           [8., 8.]]))
    """
    entered, given = backends.enter_all(x, arrays.codes_of(codes))
    exact = arguments.flag("tally", "exact", exact)
    with entered.there():
        return _tally(entered.array, given.array, composed.of(codebooks), exact)


def _tally(x: Any, codes: Any, codebooks: Any, exact: bool) -> tuple[list[np.ndarray], list[Any]]:
    codebooks = validation.plain("tally", codebooks)
    validation.vectors("tally", x, codebooks)
    validation.codes("tally", codes, codebooks)
    if tuple(codes.shape[1:]) != tuple(x.shape[:-1]):
        raise ShapeError(
            f"tally: x has shape {tuple(x.shape)}, codes {tuple(codes.shape)}; expected codes "
            f"(n, {', '.join(map(str, x.shape[:-1]))})."
        )
    xp = arrays.namespace(x, codes)
    n_rows = _product(x.shape[:-1])
    rows = xp.reshape(x, (n_rows, codebooks.dim))
    codes = xp.reshape(codes, (codes.shape[0], n_rows))
    if not exact:
        return core.tally(rows, codes, codebooks)
    counts, sums = core.exact_tally(rows, codes, codebooks)
    return counts, [each.host() for each in sums]


def _encode(
    entered: backends.Entered, codebooks: Any, n_q: int | None, beam_size: int, out: Any
) -> Any:
    engine, x = entered.engine, entered.array
    quantizer = codebooks if type(codebooks) is Codebooks else composed.of(codebooks)
    n_q, beam_size, confirm = validation.for_encode("encode", x, engine, quantizer, n_q, beam_size)
    if type(quantizer) is not Codebooks or quantizer.block > 1 or x.ndim != 2 or out is not None:
        confirm()
        return _encode_any(entered, quantizer, n_q, beam_size, out)
    prepared = quantizer.prepared(engine, x)
    codes = engine.encode(x, prepared if n_q == quantizer.n_q else prepared[:n_q], beam_size)
    if engine.STAYS:
        confirm()  # while a device works
    return codes if entered.back is None else entered.back(codes)


def _encode_any(
    entered: backends.Entered, quantizer: Quantizer, n_q: int, beam: int, out: Any
) -> Any:
    x, strided = entered.array, quantizer.block > 1
    if strided:
        validation.frames("encode", x, quantizer, beam, out)
    n_rows = _product(x.shape[:-1])
    if out is not None:
        codes = validation.out("encode", out, entered, (n_q, *x.shape[:-1]), np.int32)
        rows = x.reshape(n_rows, quantizer.dim)
        _encode_into(codes.reshape(n_q, n_rows), rows, quantizer, n_q, beam)
        return out
    xp = arrays.namespace(x)
    codes = core.encode(xp.reshape(x, (n_rows, quantizer.dim)), quantizer, n_q, beam)
    if not strided:
        return entered.out(xp.reshape(codes, (n_q, *x.shape[:-1])))
    *batch, length = x.shape[:-1]
    return [
        entered.out(xp.reshape(stage, (*batch, length // stride)))
        for stage, stride in zip(codes, quantizer.strides, strict=False)
    ]


def _decode(entered: backends.Entered, quantizer: Quantizer, out: Any) -> Any:
    engine, codes = entered.engine, entered.array
    confirm = validation.codes_later("decode", codes, quantizer)
    meanwhile = engine.STAYS and out is None and isinstance(quantizer, Codebooks)
    dropped = not meanwhile and confirm()
    n_rows = _product(codes.shape[1:])
    if out is not None:
        shape = (*codes.shape[1:], quantizer.dim)
        vectors = validation.out("decode", out, entered, shape, quantizer.dtype)
        rows = vectors.reshape(n_rows, quantizer.dim)
        _decode_into(rows, codes.reshape(len(codes), n_rows), quantizer, dropped)
        return out
    xp = arrays.namespace(codes)
    flat = xp.reshape(codes, (codes.shape[0], n_rows))
    vectors = core.decode(flat, quantizer, None, dropped)
    if meanwhile and confirm():  # while a device works: known now
        vectors = core.decode(flat, quantizer, None, True)
    return entered.out(xp.reshape(vectors, (*codes.shape[1:], quantizer.dim)))


def _encode_into(codes: Any, rows: Any, codebooks: Quantizer, n_q: int, beam_size: int) -> None:
    if isinstance(codebooks, Codebooks):
        dispatch.encode(rows, core.tables(rows, codebooks)[:n_q], beam_size, codes)
    else:
        codes[...] = core.encode(rows, codebooks, n_q, beam_size)


def _decode_into(rows: Any, codes: Any, codebooks: Quantizer, dropped: bool) -> None:
    if isinstance(codebooks, Codebooks) and not dropped:
        dispatch.decode(codes, core.tables(np.empty(0, np.float32), codebooks), rows)
    else:
        rows[...] = core.decode(codes, codebooks, None, dropped)


def _decode_strided(codes: Any, codebooks: Quantizer, out: Any) -> Any:
    entered = backends.enter_all(*validation.listed("decode", codes, codebooks, out))
    with entered[0].there():
        given = [each.array for each in entered]
        codes, dropped = validation.ragged_or_dropped("decode", given, codebooks)
        xp = arrays.namespace(*codes)
        *batch, length = codes[0].shape
        flat = [xp.reshape(stage, (_product(stage.shape),)) for stage in codes]
        vectors = core.decode(flat, codebooks, None, dropped)
        shape = (*batch, length * codebooks.strides[0], codebooks.dim)
        return entered[0].out(xp.reshape(vectors, shape))


def _product(lengths: Any) -> int:
    return math.prod(int(length) for length in lengths)


def warmup(*dtypes: Any) -> bool:
    """Compile every kernel, or load it from Numba's cache, so that no later call has to.

    Without `warmup`, NumPy computes the first calls of a process if they are small. One later call
    then takes about half a second longer, to load Numba, or some seconds if its cache is empty.
    Call `warmup` while a container image is built (``rvq-np warmup``), and before a live stream
    starts.

    Parameters
    ----------
    *dtypes : numpy.dtype, optional
        float32 or float64: the dtypes of the vectors of later calls. float32 by default.

    Returns
    -------
    compiled : bool
        False if Numba cannot be imported; NumPy is used then.

    Raises
    ------
    DtypeError
        If a dtype is neither.

    Examples
    --------
    >>> import rvq_np
    >>> rvq_np.warmup()
    True
    """
    for dtype in dtypes or (np.float32,):
        try:
            found: Any = np.dtype(dtype).newbyteorder("=")
        except TypeError:
            found = repr(dtype)
        if found not in (np.float32, np.float64):
            raise DtypeError(f"warmup: got {found}; expected float32 or float64.")
        dispatch.warm(found)
    return dispatch.load() is not dispatch.plain
