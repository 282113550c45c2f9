"""A map folded into the codewords behind it, for a screen that needs no mapped row.  NumPy.

A stage with a map ``p = W r + b`` from D numbers to C > D searches the codeword e nearest to what
`maps` makes of a row, ``q = p + d`` with a rounding d.  Half the squared distance, less a part that
no codeword can change, is

    |e|^2 / 2 - <q, e>  =  h - <r, f> - <d, e>        h = |e|^2 / 2 - <b, e>,  f = W' e

so a screen of the folded codewords f, D numbers each, bounds it if it allows for the last term.

**What all codewords share is taken away first.**  With their mean c and ``v = e - c``, the score is

    |v|^2 / 2 - <b - c, v> - <r, W' v> - <d, v>

and ``|c|^2 / 2 - <q, c>``, which no codeword can change.  So all sizes below are those of v: where
codewords are close to each other, or far from zero together, the last term is as small as what
tells them apart.

``|d| <= g(D + 2) (|W| |r| + |b|)`` with g of float32, W's norm the root of its squares, number by
number (Higham, 3.1); ``2^-23 (|W| |r| + |b|)`` where maps are summed in float64 and rounded once.
``f = W' v`` is then rounded to float32, ``F``, which is off by ``2^-24 |F|`` or less.  v, f and
``h = |v|^2 / 2 - <b - c, v>`` were computed in float64: h is off by ``g64(C + 8)`` of ``|v|^2 +
|b - c| |v|``, and what v and f are off moves the score by ``g64(C + 8) |W| |r| |v|``.  So it is
within ``|r| away + apart`` of ``h - <r, F>``, with

    away  =  g(D + 8) |W| |v| + 2^-23 |F|
    apart  =  g(D + 8) |b| |v| + g64(C + 8) (|v|^2 + |b - c| |v|) + (D + 2) sqrt(C) 2^-125 |v|

where the six more roundings of float32 hold those of float64, and the last term holds what products
of a map lose below the range of float32.  Rows that this leaves open are mapped, and go the way of
others.  So a folded screen finds the codes of one that is not, bit for bit.
"""

from types import SimpleNamespace

import numpy as np

U = 2.0**-24
LEAST = 2.0**-100  # more than what underflows in float64
LOST = 2.0**-125  # of a product in float32, flushed to zero or not


def foldable(stage):
    """Whether the map of `tables.Tables` makes rows longer, so that folding it saves work."""
    if stage.into is None or stage.unit or stage.codebook.dtype != np.float32:
        return False
    dim, width = stage.into.shape
    # Squares in float64, and norms that float32 holds, as far as any row is served.
    sizes = (np.abs(each).max(initial=0.0) for each in (stage.codebook, *stage.into.given))
    return dim < width and max(map(float, sizes)) < 1e15


def folded(stage):
    """Return ``codewords`` F (K, D), the stage's ``half``, ``scores``, ``away``, ``apart`` (K,)."""
    weight, bias = (np.asarray(each, np.float32).astype(np.float64) for each in stage.into.given)
    codewords, usable = stage.codebook.astype(np.float64), stage.half < np.inf
    width, dim = weight.shape
    shared = codewords[usable].mean(axis=0)
    codewords -= shared
    squares, moved = np.einsum("kc,kc->k", codewords, codewords), bias - shared
    with np.errstate(all="ignore"):  # numpy#28687: Arm's BLAS tells of divisions
        wide = codewords @ weight
        scores = 0.5 * squares - codewords @ moved
    scores -= scores[usable].min()
    narrow = wide.astype(np.float32)
    sizes, norms = np.sqrt(squares), np.sqrt(np.einsum("kd,kd->k", wide, wide))
    terms = dim + 8 if stage.into.summed(np.float32) == np.float32 else 8
    grown = terms * U / (1 - terms * U) * (1 + 1e-6) if dim < 1 << 20 else np.inf
    away = grown * np.linalg.norm(weight) * sizes + 2 * U * norms + LEAST
    apart = grown * np.linalg.norm(bias) * sizes + LEAST
    apart += (width + 8) * 2.0**-52 * (squares + np.linalg.norm(moved) * sizes)
    apart += (dim + 2) * np.sqrt(width) * LOST * sizes
    return SimpleNamespace(
        codebook=narrow, half=stage.half, usable_half=None, bounds=None,
        scores=scores, away=away, apart=apart,
    )  # fmt: skip
