"""Mimi: Kyutai's package, with its current and earlier names, and Hugging Face's port.

Two stacks quantize the same vectors in parallel, the semantic and the acoustic one, each between
two maps of its own; their decoded vectors are added.  Semantic stages come first.  Codewords are
not stored: the file has sums of vectors and their counts, which are divided here in float32,
whatever the precision of the file.
"""

from __future__ import annotations

import numpy as np

from ..codebooks.composed import Parallel
from ..errors import CheckpointError
from . import _stack

KYUTAI = ("rvq_first.", "rvq_rest.", "vq.layers.{}._codebook")
PORT = ("semantic_residual_vector_quantizer.", "acoustic_residual_vector_quantizer.",
        "layers.{}.codebook")  # fmt: skip
SUMS = ("embedding_sum", "embed_sum", "embed_avg")
USAGES = ("cluster_usage", "cluster_size")
FLAGS = ("_initialized", "initialized", "inited")
FORMS = {
    f"{first}{book}.{each}": (first, rest, f"{book}.{each}")
    for first, rest, book in (KYUTAI, PORT)
    for each in SUMS
}
LEAST = 1e-5  # the smallest count that both packages divide by
NAMES = tuple(
    (f"{first}{book.format(0)}.{sums}", f"{rest}{book.format(0)}.{sums}")
    for (first, rest, book), sums in ((KYUTAI, SUMS[0]), (PORT, SUMS[1]))
)


def matches(tensors, config):
    return int(any(_stack.prefixes(tensors, pattern) for pattern in FORMS))


def build(tensors, config):
    prefix, form = _stack.one_prefix(tensors, FORMS)
    first, rest, pattern = FORMS[form]
    if not _stack.n_stages(tensors, prefix + rest, pattern):
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has no {prefix + rest + pattern.format(0)!r}; expected "
            "semantic and acoustic stages, which every Mimi has."
        )
    parts = [_part(tensors, prefix + each, pattern) for each in (first, rest)]
    return _stack.made(tensors, f"stacks of {prefix or 'the file'}", Parallel, parts)


def _part(tensors, prefix, pattern):
    stages = []
    for q in range(_stack.n_stages(tensors, prefix, pattern)):
        name = prefix + pattern.format(q)
        book = name.rpartition(".")[0]
        for flag in FLAGS:
            _stack.initialized(tensors, book, flag)
        stages.append(_stack.stage(tensors, book, _codebook(tensors, name, book)))
    inner = _stack.codebooks(tensors, prefix, stages)
    return _stack.between(tensors, prefix, inner, "input_proj", "output_proj")


def _codebook(tensors, name, book):
    usage = next((each for each in USAGES if f"{book}.{each}" in tensors), USAGES[0])
    sums, counts = tensors[name], tensors[f"{book}.{usage}"]
    if counts.shape != sums.shape[:-1]:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {book}.{usage} has shape {counts.shape} for sums of "
            f"shape {sums.shape}; expected one count per codeword."
        )
    with np.errstate(over="ignore"):  # infinity is refused by Stage
        return sums / np.maximum(counts, LEAST)[..., None]
