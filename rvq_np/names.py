"""The names of arrays in a state dict, ESPnet's: ``vq.layers.{stage}.…``, the one place for them.

A stage has a codebook, ``_codebook``, whose arrays are `BOOK`, and, if it projects, the maps
`MAPS`, whose arrays are `MAP`.  EnCodec and what was made of it have the same names; published
families put a prefix before all of them.
"""

from __future__ import annotations

LAYER = "vq.layers.{}."  # of a stage, to be formatted with its number
BOOK = ("embed", "embed_avg", "cluster_size", "inited")  # codewords, sums, counts, whether they are
CODEWORDS, SUMS, COUNTS, INITIALIZED = BOOK
LISTED = (INITIALIZED, COUNTS, CODEWORDS, SUMS)  # in the order torch lists them
MAPS = ("project_in", "project_out")
MAP = ("weight", "bias")
WAITING = ("vq.waiting.vectors", "vq.waiting.counts")  # of JAX only: what training collects
PART = "_codebook"  # of a layer, beside the maps
BOOKS = f"{LAYER}{PART}"  # for the number of a stage, and so is:
EMBED = f"{BOOKS}.{CODEWORDS}"


def book(stage: int, name: str) -> str:
    """Return the name of an array of the book of a stage.

    Examples
    --------
    >>> book(1, CODEWORDS)
    'vq.layers.1._codebook.embed'
    """
    return f"{BOOKS.format(stage)}.{name}"


def linear(stage: int, way: str) -> str:
    """Return the name of a map of a stage, without that of its array.

    Examples
    --------
    >>> linear(0, "project_in")
    'vq.layers.0.project_in'
    """
    return LAYER.format(stage) + way


def maps(stage: int) -> list[str]:
    """Return the names of weight and bias of the maps of a stage, in, then out.

    Examples
    --------
    >>> maps(0)[:2]
    ['vq.layers.0.project_in.weight', 'vq.layers.0.project_in.bias']
    """
    return [f"{linear(stage, way)}.{part}" for way in MAPS for part in MAP]
