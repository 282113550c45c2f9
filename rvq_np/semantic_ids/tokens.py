"""IDs as integers, as text, and as numbers of a model's vocabulary; and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..errors import CodeRangeError, DtypeError, LevelsError, ParameterError, ShapeError
from . import _codes
from ._templates import TEMPLATE, letters, names_of, pattern
from .vocabulary import Vocabulary


def pack(codes: Any, sizes: Sequence[int], *, dtype: Any = np.int64, offset: int = 0) -> np.ndarray:
    """Turn each ID into one integer: a number whose digits are the codes, stage 0 the highest.

    Parameters
    ----------
    codes : array (Q, N), integer
    sizes : sequence of Q int
        Codewords per stage. With 8192 three times, the integer is ``a * 8192**2 + b * 8192 + c``.
    dtype : {numpy.int64, numpy.uint64}, optional
    offset : int, optional
        Added to every integer.

    Returns
    -------
    packed : numpy.ndarray (N,)

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError, LevelsError, ParameterError
        If codes are not (Q, N) integers from 0 and below the sizes, or `dtype` is another type or
        cannot hold all IDs.

    Examples
    --------
    >>> import numpy as np
    >>> pack(np.array([[1, 0], [2, 255], [3, 0]]), [256, 256, 256])
    array([66051, 65280])
    """
    found = _codes.checked("pack", codes)
    sizes = _codes.sizes_of("pack", sizes, found)
    kind = _integers("pack", dtype, sizes, offset)
    packed = np.zeros(found.shape[1], np.uint64)
    for row, size in zip(found, sizes, strict=True):
        packed *= np.uint64(size)
        packed += row.astype(np.uint64)
    if offset < 0:
        return packed.astype(kind) + kind.type(offset)
    return (packed + np.uint64(offset)).astype(kind)


def unpack(packed: Any, sizes: Sequence[int], *, offset: int = 0) -> np.ndarray:
    """Turn the integers of `pack` into codes.

    Parameters
    ----------
    packed : array (N,), integer
    sizes : sequence of Q int
    offset : int, optional
        What `pack` added.

    Returns
    -------
    codes : numpy.ndarray (Q, N), int32

    Raises
    ------
    ShapeError, DtypeError
        If `packed` does not have one integer per item.
    CodeRangeError
        If an integer is not an ID of these sizes; the message names the first one.
    LevelsError, ParameterError
        As `pack`.

    Examples
    --------
    >>> import numpy as np
    >>> unpack(np.array([66051]), [256, 256, 256]).ravel()
    array([1, 2, 3], dtype=int32)
    """
    given = np.asarray(packed)
    if given.ndim != 1:
        raise ShapeError(f"unpack: packed has shape {given.shape}; expected (N,).")
    if given.dtype.kind not in "iu":
        raise DtypeError(f"unpack: packed has dtype {given.dtype}; expected integers.")
    sizes = _codes.sizes_of("unpack", sizes)
    kind = _integers("unpack", np.uint64 if given.dtype.kind == "u" else np.int64, sizes, offset)
    highest = _codes.space(sizes) - 1 + offset
    if given.size and not (int(given.min()) >= offset and int(given.max()) <= highest):
        item = int(np.argmax((given < offset) | (given > highest)))
        raise CodeRangeError(
            f"unpack: {given[item]} of item {item} is no ID of the sizes {sizes}; expected "
            f"{offset} to {highest}."
        )
    left = (given.astype(kind) - kind.type(offset)).astype(np.uint64)
    codes = np.empty((len(sizes), len(given)), np.int32)
    for stage in range(len(sizes) - 1, -1, -1):
        size = np.uint64(sizes[stage])
        codes[stage] = left % size
        left //= size
    return codes


def _integers(call: str, dtype: Any, sizes: tuple[int, ...], offset: Any) -> np.dtype:
    kind = np.dtype(dtype)
    if kind not in (np.int64, np.uint64):
        raise ParameterError(f"{call}: dtype is {kind}; expected int64 or uint64.")
    offset = arguments.integer(call, "offset", offset)
    top = _codes.space(sizes) - 1 + offset
    if top > np.iinfo(kind).max or offset < np.iinfo(kind).min:
        raise ParameterError(
            f"{call}: IDs of the sizes {sizes} and the offset {offset} reach {top}, which {kind} "
            "cannot hold; expected fewer or smaller stages."
        )
    return kind


def to_tokens(
    codes: Any,
    form: str | Vocabulary = TEMPLATE,
    *,
    begin: str | None = None,
    end: str | None = None,
) -> Any:
    """Turn IDs into tokens: text by a template, or token numbers of a model's vocabulary.

    Parameters
    ----------
    codes : array (Q, N), integer
    form : str or Vocabulary, optional
        A template, in which ``{stage}`` is a letter, ``a`` for stage 0, ``{number}`` is the number
        of the stage, and ``{code}`` is the code: ``<{stage}_{code}>``, ``<item_{stage}_{code}>``.
        With a `Vocabulary` the tokens are numbers.
    begin, end : str, optional
        Tokens of text before and after each ID. A vocabulary has its own.

    Returns
    -------
    tokens : list of N list of str, or numpy.ndarray (N, L), int64

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError, LevelsError
        If codes are not (Q, N) integers from 0, or the vocabulary has no token for one.
    ParameterError
        If the template does not have ``{code}`` and one of ``{stage}`` and ``{number}``, each once,
        with text around and between.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.array([[3, 0], [1, 7]])
    >>> to_tokens(codes)
    [['<a_3>', '<b_1>'], ['<a_0>', '<b_7>']]
    >>> to_tokens(codes, "<item_{stage}_{code}>", begin="<|sid_begin|>")[0]
    ['<|sid_begin|>', '<item_a_3>', '<item_b_1>']
    >>> to_tokens(codes, Vocabulary([8, 8], first=100, end=1))
    array([[103, 109,   1],
           [100, 115,   1]])
    """
    found = _codes.checked("to_tokens", codes)
    if isinstance(form, Vocabulary):
        _no_text("to_tokens", begin, end)
        return form.to_tokens(found)
    columns = [names_of(form, stage, int(row.max(initial=-1)) + 1)
               for stage, row in enumerate(found)]  # fmt: skip
    before = [] if begin is None else [begin]
    after = [] if end is None else [end]
    rows = [[names[code] for code in row.tolist()]
            for names, row in zip(columns, found, strict=True)]  # fmt: skip
    return [[*before, *each, *after] for each in zip(*rows, strict=True)]


def from_tokens(
    tokens: Iterable[Any],
    form: str | Vocabulary = TEMPLATE,
    *,
    begin: str | None = None,
    end: str | None = None,
) -> np.ndarray:
    """Turn tokens into IDs: the inverse of `to_tokens`.

    Parameters
    ----------
    tokens : iterable of N list of str or str, or array (N, L), integer
        The tokens of each item, or one string of them without separators.
    form, begin, end : str or Vocabulary, optional
        As in `to_tokens`.

    Returns
    -------
    codes : numpy.ndarray (Q, N), int32

    Raises
    ------
    CodeRangeError
        If a token does not belong to a stage, or is in the wrong place; the message names the first
        one.
    LevelsError
        If items have different numbers of tokens.
    ParameterError
        As `to_tokens`.

    Examples
    --------
    >>> from_tokens(["<a_3><b_1>", "<a_0><b_7>"])
    array([[3, 0],
           [1, 7]], dtype=int32)
    """
    if isinstance(form, Vocabulary):
        _no_text("from_tokens", begin, end)
        return form.from_tokens(tokens)
    expression, rows, n_q = re.compile(pattern(form)), [], None
    for item, each in enumerate(tokens):
        text = each if isinstance(each, str) else "".join(each)
        left = text
        if begin is not None and left.startswith(begin):
            left = left[len(begin) :]
        elif begin is not None:
            left = ""
        if end is not None and left.endswith(end):
            left = left[: len(left) - len(end)]
        elif end is not None:
            left = ""
        place = 0
        row: list[int] = []
        while (match := expression.match(left, place)) and match.end() > place:
            about = match.groupdict()
            stage = len(row)
            named = about.get("number") or about.get("stage")
            if named != (str(stage) if about.get("number") else letters(stage)):
                break
            row.append(int(about["code"]))
            place = match.end()
        if place != len(left) or not row or max(row) >= _codes.LARGEST:
            raise CodeRangeError(
                f"from_tokens: {text!r} of item {item} is no ID of the form {form!r}"
                f"{_around(begin, end)}; expected its tokens, stage by stage."
            )
        if n_q is not None and len(row) != n_q:
            raise LevelsError(
                f"from_tokens: item {item} has {len(row)} codes; expected {n_q}, as the first."
            )
        n_q = len(row)
        rows.append(row)
    return np.array(rows, np.int32).reshape(len(rows), n_q or 1).T.copy()


def _around(begin: str | None, end: str | None) -> str:
    if begin is None and end is None:
        return ""
    return f" between {begin!r} and {end!r}"


def _no_text(call: str, begin: Any, end: Any) -> None:
    if begin is not None or end is not None:
        raise ParameterError(
            f"{call}: begin and end are for text; expected them in the Vocabulary."
        )
