"""A model that generates tokens gets only those that lead to an ID of a catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments, arrays
from ..errors import ParameterError
from .vocabulary import Vocabulary


class _Constraint:
    """Where in its sequence an ID begins, and what ends it."""

    def __init__(self, trie: Any, vocabulary: Vocabulary, prompt: int | None, end: int | None):
        call = type(self).__name__
        arguments.kind(call, "vocabulary", vocabulary, Vocabulary)
        if vocabulary.sizes != trie.sizes:
            raise ParameterError(
                f"{call}: the vocabulary has the sizes {vocabulary.sizes}; expected {trie.sizes}, "
                "those of the trie."
            )
        if prompt is None and vocabulary.begin is None:
            raise ParameterError(
                f"{call}: got neither prompt nor a vocabulary with begin; expected the number of "
                "tokens before an ID, or the token that begins one."
            )
        if prompt is not None:
            prompt = arguments.whole(call, "prompt", prompt, 0)
        end = vocabulary.end if end is None else arguments.whole(call, "end", end, 0)
        if end is None:
            raise ParameterError(
                f"{call}: got no end; expected the token that follows an ID, as the one that ends "
                "a sequence."
            )
        self.trie, self.vocabulary, self.prompt, self.end = trie, vocabulary, prompt, end

    def prefix(self, tokens: np.ndarray) -> np.ndarray | None:
        """Return the codes of the ID that `tokens` (L,) end with; None before it begins."""
        begin = self.prompt
        if begin is None:
            places = np.flatnonzero(tokens == self.vocabulary.begin)
            if not len(places):
                return None
            begin = int(places[-1]) + 1
        elif self.vocabulary.begin is not None and len(tokens) > begin:
            begin += tokens[begin] == self.vocabulary.begin
        return self.vocabulary.codes_of(tokens[None, begin : begin + len(self.trie.sizes)])[0]


class AllowedTokens(_Constraint):
    """A function of a batch's number and its tokens so far: the list of those that may follow.

    What `Trie.prefix_allowed_tokens_fn` returns.
    """

    def __call__(self, batch: int, tokens: Any) -> list[int]:
        prefix = self.prefix(arrays.to_numpy(tokens))
        if prefix is None:
            return [int(self.vocabulary.begin)]  # type: ignore[arg-type]
        if len(prefix) == len(self.trie.sizes):
            return [self.end]
        following = self.trie.next(prefix.tolist())
        # What begins no ID came from a score of minus infinity: it must end, and nothing else.
        found: list[int] = self.vocabulary.tables[len(prefix)][following].tolist()
        return found or [self.end]


class OnlyIds(_Constraint):
    """A logits processor of transformers: scores of what begins no ID become minus infinity.

    What `Trie.logits_processor` returns.
    """

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        tokens = arrays.to_numpy(input_ids)
        allowed = np.zeros(tuple(scores.shape), bool)
        prefixes = [self.prefix(row) for row in tokens]
        for row, prefix in enumerate(prefixes):
            if prefix is None:
                allowed[row, self.vocabulary.begin] = True
        lengths = np.array([-1 if prefix is None else len(prefix) for prefix in prefixes])
        for length in np.unique(lengths[lengths >= 0]).tolist():
            rows = np.flatnonzero(lengths == length)
            if length == len(self.trie.sizes):
                allowed[rows, self.end] = True
                continue
            mask = self.trie.mask(
                np.array([prefixes[row] for row in rows]).reshape(len(rows), length)
            )
            allowed[np.ix_(rows, self.vocabulary.tables[length])] = mask
            allowed[rows[~mask.any(axis=1)], self.end] = True
        there = torch.from_numpy(allowed).to(scores.device)
        return scores.masked_fill(~there, -float("inf"))
