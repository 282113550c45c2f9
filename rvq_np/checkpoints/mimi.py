"""Mimi: Kyutai's package, with its current and earlier names, and Hugging Face's port.

Two stacks quantize the same vectors in parallel, the semantic and the acoustic one, each between
two maps of its own; their decoded vectors are added.  Semantic stages come first.  Codewords are
not stored: the file has sums of vectors and their counts, which are divided here in float32,
whatever the precision of the file.  A file of a converter may have the codewords themselves, under
the name ``embed``.
"""

from __future__ import annotations

from typing import Any

from ..names import BOOKS
from . import _layers, _stack

KYUTAI = ("rvq_first.", "rvq_rest.", BOOKS)
PORT = ("semantic_residual_vector_quantizer.", "acoustic_residual_vector_quantizer.",
        "layers.{}.codebook")  # fmt: skip
SUMS = _layers.SUMS
FORMS = {
    f"{first}{book}.{each}": (first, rest, f"{book}.{each}")
    for first, rest, book in (KYUTAI, PORT)
    for each in SUMS
}
CODEWORDS = {
    f"{first}{book}.{_layers.DIVIDED}": (first, rest, f"{book}.{_layers.DIVIDED}")
    for first, rest, book in (KYUTAI, PORT)
}
NAMES = tuple(
    (f"{first}{book.format(0)}.{sums}", f"{rest}{book.format(0)}.{sums}")
    for (first, rest, book), sums in ((KYUTAI, SUMS[0]), (PORT, SUMS[1]))
)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    if any(_stack.prefixes(tensors, pattern) for pattern in CODEWORDS):
        return 3  # more than the families have whose stacks are named as these are
    return int(any(_stack.prefixes(tensors, pattern) for pattern in FORMS))


def build(tensors: Any, config: dict[str, Any]) -> Any:
    divided = any(_stack.prefixes(tensors, pattern) for pattern in CODEWORDS)
    forms = CODEWORDS if divided else FORMS
    prefix, form = _stack.one_prefix(tensors, forms)
    return _layers.split(tensors, prefix, *forms[form])
