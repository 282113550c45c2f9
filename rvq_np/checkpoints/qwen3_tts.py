"""Qwen3-TTS-Tokenizer-12Hz: a Mimi that encodes, and stacks of its own that decode.

The file holds both: ``encoder.quantizer`` with Hugging Face's names, 1 semantic and 31 acoustic
stages of which the first 16 in all make codes (``encoder_valid_num_quantizers``), and
``decoder.quantizer`` with Kyutai's names, 1 and 15 stages.  Codes of the original are (T, 16), ours
(16, T).  Its decoder sets negative codes, which pad, to 0; here they are to be cut off before.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from ..names import BOOKS
from . import _layers, _stack

ENCODER = "encoder.quantizer."
DECODER = "decoder.quantizer."
PORT = ("semantic_residual_vector_quantizer.", "acoustic_residual_vector_quantizer.",
        "layers.{}.codebook.embed_sum")  # fmt: skip
OWN = ("rvq_first.", "rvq_rest.", f"{BOOKS}.embedding_sum")
NAMES = tuple(
    (f"{start}{first}{pattern.format(0)}",)
    for start, (first, _, pattern) in ((ENCODER, PORT), (DECODER, OWN))
)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    both = [_stack.prefixes(tensors, name) for (name,) in NAMES]
    return 3 if all(both) else 0


def parts(tensors: Any, config: dict[str, Any]) -> dict[str, str]:
    about = "from vectors to codes", "from codes to vectors"
    found = zip(("encoder", "decoder"), NAMES, about, strict=True)
    return {part: each for part, (name,), each in found if _stack.prefixes(tensors, name)}


def build(tensors: Any, config: dict[str, Any], part: str) -> Any:
    start, form = (ENCODER, PORT) if part == "encoder" else (DECODER, OWN)
    prefix = _layers.home(tensors, start, form[0] + form[2])
    quantizer = _layers.split(tensors, prefix, *form)
    if part == "decoder":
        return quantizer
    used = config.get("encoder_valid_num_quantizers")
    if used is None:
        used = sum(_stack.n_stages(tensors, DECODER + each, OWN[2]) for each in OWN[:2])
    if type(used) is not int or not 1 <= used <= quantizer.n_q:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: encoder_valid_num_quantizers is {used!r}; expected 1 "
            f"to {quantizer.n_q}, of the {quantizer.n_q} stages of its encoder."
        )
    return quantizer[:used]
