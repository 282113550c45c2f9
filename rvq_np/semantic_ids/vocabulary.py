"""Which token of a model's vocabulary stands for which code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..codebooks.stage import Value
from ..errors import CodeRangeError, LevelsError, ParameterError, ShapeError
from . import _codes
from ._templates import TEMPLATE, names_of


class Vocabulary(Value):
    """The tokens of a model that stand for codes, a frozen value.

    Parameters
    ----------
    sizes : sequence of Q int
        Codewords per stage.
    first : int, optional
        The token of code 0 of stage 0; the tokens of the other codes follow, stage by stage.
    tables : sequence of Q array (K,), integer, optional
        Instead of `first`: the token of each code, if tokens are not consecutive.
    begin, end : int, optional
        Tokens before and after an ID.

    Attributes
    ----------
    sizes : tuple of int
    tables : tuple of numpy.ndarray (K,), int64
    begin, end : int or None
    size : int
        One more than the largest token.

    Raises
    ------
    ParameterError, LevelsError, ShapeError
        If a token is below 0 or used twice, or the tables do not have these sizes.

    Examples
    --------
    >>> tokens = Vocabulary([256, 256], first=1000, begin=7)
    >>> tokens.tables[1][:2], tokens.size
    (array([1256, 1257]), 1512)
    """

    sizes: tuple[int, ...]
    tables: tuple[np.ndarray, ...]
    begin: int | None
    end: int | None
    size: int
    _codes_of: np.ndarray
    _stage_of: np.ndarray

    def __init__(
        self,
        sizes: Sequence[int],
        first: int = 0,
        tables: Sequence[Any] | None = None,
        begin: int | None = None,
        end: int | None = None,
    ):
        call = "Vocabulary"
        sizes = _codes.sizes_of(call, sizes)
        first = arguments.whole(call, "first", first, 0)
        if tables is None:
            ends = first + np.cumsum(sizes, dtype=np.int64)
            made = tuple(
                np.arange(end_ - size, end_) for end_, size in zip(ends, sizes, strict=True)
            )
        else:
            made = tuple(np.array(each) for each in tables)
            if [each.shape for each in made] != [(size,) for size in sizes] or any(
                each.dtype.kind not in "iu" for each in made
            ):
                raise ShapeError(
                    f"{call}: tables have shapes {[each.shape for each in made]}; expected "
                    f"integers of the lengths {sizes}."
                )
            made = tuple(each.astype(np.int64) for each in made)
        named = {"begin": begin, "end": end}
        around = [
            arguments.whole(call, name, each, 0) for name, each in named.items() if each is not None
        ]
        every = np.concatenate([*made, np.array(around, np.int64)])
        if every.min() < 0:
            raise ParameterError(f"{call}: a token is {every.min()}; expected numbers from 0.")
        seen, counts = np.unique(every, return_counts=True)
        if counts.max() > 1:
            raise ParameterError(
                f"{call}: token {seen[np.argmax(counts)]} is used {counts.max()} times; "
                "expected one token per code."
            )
        size = int(every.max()) + 1
        codes_of, stage_of = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
        for stage, each in enumerate(made):
            each.flags.writeable = False
            codes_of[each], stage_of[each] = np.arange(len(each)), stage
        vars(self).update(
            sizes=sizes, tables=made, size=size, _codes_of=codes_of, _stage_of=stage_of,
            begin=None if begin is None else int(begin), end=None if end is None else int(end),
        )  # fmt: skip

    @classmethod
    def of(
        cls, tokenizer: Any, sizes: Sequence[int], template: str = TEMPLATE, *,
        begin: str | None = None, end: str | None = None,
    ) -> Vocabulary:  # fmt: skip
        """Return the vocabulary of a tokenizer of transformers that has a token for each code.

        Parameters
        ----------
        tokenizer : object with ``get_vocab()``
        sizes : sequence of Q int
        template : str, optional
            As in `to_tokens`.
        begin, end : str, optional

        Raises
        ------
        ParameterError
            If a token is not in the vocabulary; the message says how many are missing.
        """
        known = tokenizer.get_vocab()
        names = [names_of(template, stage, size)
                 for stage, size in enumerate(_codes.sizes_of("Vocabulary.of", sizes))]  # fmt: skip
        every = [*(each for stage in names for each in stage),
                 *(each for each in (begin, end) if each is not None)]  # fmt: skip
        missing = [each for each in every if each not in known]
        if missing:
            raise ParameterError(
                f"Vocabulary.of: the tokenizer lacks {len(missing)} of {len(every)} tokens, "
                f"{missing[0]!r} the first; expected all. Add them with tokenizer.add_tokens."
            )
        tables = [np.array([known[each] for each in stage]) for stage in names]
        return cls(
            sizes, tables=tables, begin=None if begin is None else known[begin],
            end=None if end is None else known[end],
        )  # fmt: skip

    def made_of(self) -> tuple[Any, ...]:
        return (self.sizes, 0, self.tables, self.begin, self.end)

    def identity(self) -> tuple[Any, ...]:
        tables = tuple(each.tobytes() for each in self.tables)
        return (self.sizes, tables, self.begin, self.end)

    def __repr__(self) -> str:
        return f"Vocabulary({self.sizes}, begin={self.begin}, end={self.end})"

    def to_tokens(self, codes: np.ndarray) -> np.ndarray:
        """Return the tokens (N, L) of codes (Q, N) of `rvq_np.semantic_ids`."""
        _codes.sizes_of("to_tokens", self.sizes, codes)
        n_before, n_after = self.begin is not None, self.end is not None
        tokens = np.empty((codes.shape[1], len(codes) + n_before + n_after), np.int64)
        if self.begin is not None:
            tokens[:, 0] = self.begin
        if self.end is not None:
            tokens[:, -1] = self.end
        for stage, row in enumerate(codes):
            tokens[:, stage + n_before] = self.tables[stage][row]
        return tokens

    def from_tokens(self, tokens: Any) -> np.ndarray:
        """Return the codes (Q, N) of tokens (N, L)."""
        given = np.asarray(tokens)
        n_before, n_after = self.begin is not None, self.end is not None
        length = len(self.sizes) + n_before + n_after
        if given.ndim != 2 or given.shape[1] != length or given.dtype.kind not in "iu":
            around = [name for name, there in (("begin", n_before), ("end", n_after)) if there]
            with_them = f", the token{'s'[: len(around) - 1]} to {' and '.join(around)} among them"
            raise LevelsError(
                f"from_tokens: tokens are {given.dtype} of shape {given.shape}; expected integers "
                f"(N, {length}){with_them if around else ''}."
            )
        codes = self.codes_of(given[:, n_before : n_before + len(self.sizes)])
        wrong = codes < 0
        if n_before:
            wrong[:, 0] |= given[:, 0] != self.begin
        if n_after:
            wrong[:, -1] |= given[:, -1] != self.end
        if wrong.any():
            item = int(np.argmax(wrong.any(axis=1)))
            raise CodeRangeError(
                f"from_tokens: the tokens {given[item].tolist()} of item {item} are no ID; "
                "expected one token of each stage, in order."
            )
        return np.ascontiguousarray(codes.T)

    def codes_of(self, tokens: np.ndarray) -> np.ndarray:
        """Return the codes (n, t) of tokens (n, t), -1 where a token is not one of its stage."""
        inside = (tokens >= 0) & (tokens < self.size)
        places = np.where(inside, tokens, 0)
        right = inside & (self._stage_of[places] == np.arange(tokens.shape[1]))
        return np.where(right, self._codes_of[places], -1).astype(np.int32)
