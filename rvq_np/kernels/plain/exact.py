"""The last tiers in NumPy: which codeword is nearest in exact real arithmetic, whatever floats say.

Squared distances in float64 are sums of squares of differences: off by a share of the distance
itself, and exact where row and codeword lie on a coarse enough grid, as in `compiled.exact`.
Elsewhere the sign of twice the difference of two scores decides, ``|b|^2 - |a|^2 - 2 <r, b> + 2 <r,
a>``. Products of two float32 are exact in float64, and `math.fsum` rounds a sum of float64
correctly, so its sign is the true one.  For float64, distances are whole numbers of any length.
"""

import math

import numpy as np

LOST = 2.0**-1021  # twice what a float64 square that underflows may lose, flushed to zero or not
U64 = 2.0**-53  # unit roundoff of float64


def distances(left, right, scale=1.0):
    """Return ``|left - right|^2 * scale^2`` of pairs (p, D), float64, and by which share it is off.

    And by how much, where squares underflow: by ``lost`` at most.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        apart = left.astype(np.float64) - right
        apart *= scale
        values = np.einsum("pd,pd->p", apart, apart)
    lost = 0.0 if left.dtype == right.dtype == np.float32 else left.shape[1] * LOST
    return values, 2.0 * (left.shape[1] + 4) * U64 * (1.0 + 1e-9), lost


def scale_of(array):
    """Return a power of two that brings numbers like the largest of `array` near to one.

    One for float32, whose squares neither overflow nor underflow in float64.
    """
    if array.dtype == np.float32:
        return 1.0
    exponent = int(np.frexp(np.abs(array).max(initial=0.0))[1])
    return 2.0 ** -float(min(max(exponent, -1000), 1000))


def on_grid(left, right, scale=1.0):
    """Return where the `distances` of pairs (p, D) were computed without an error.

    With a step in which no difference counts more than b bits, ``2 b + log2(D) <= 53``: where both
    are whole numbers of steps below 2^52, differences, squares and all sums of them are exact.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        most = np.abs(left - right).max(axis=1, initial=0.0)
        bits = (53 - math.frexp(left.shape[1])[1]) // 2
        steps = bits - np.frexp(most)[1]
        inverse = np.ldexp(1.0, np.clip(steps, -1000, 1000))
        step = scale / inverse
        good = (np.abs(steps) < 1000) & (step > 1e-150) & (step < 1e120)
        for each in (left, right):
            whole = each * inverse[:, None]
            good &= ((np.abs(whole) < 2.0**52) & (np.rint(whole) == whole)).all(axis=1)
    return good | (most == 0.0)


def nearest_of(row, codewords, candidates):
    """Return which of `candidates` (ascending) names the codeword nearest to `row`; ties: the
    first.

    row (D,), codewords (K, D), both of one float type; `candidates` is a sequence of indices.
    Raises OverflowError when `row` is not finite.
    """
    if row.dtype == np.float64:
        return min(candidates, key=lambda k: squared_distance(row, codewords[k]))
    best = candidates[0]
    r = row.astype(np.float64)
    for k in candidates[1:]:
        if _is_nearer(r, codewords[best].astype(np.float64), codewords[k].astype(np.float64)):
            best = k
    return best


def smallest(row, codewords, candidates, count):
    """Return the `count` of `candidates` (ascending) nearest to `row`; ties: the first."""
    pairs = np.broadcast_to(row, (len(candidates), len(row))), codewords[candidates]
    values, share, lost = distances(*pairs, scale_of(row))
    if not np.isfinite(values).all():
        inside, open_ = np.zeros(len(values), bool), np.ones(len(values), bool)
    else:
        last = np.partition(values, count - 1)[count - 1]
        inside = values < last * (1.0 - 2.0 * share) - 2.0 * lost
        open_ = ~inside & (values <= last * (1.0 + 2.0 * share) + 2.0 * lost)
    chosen = candidates[inside].tolist()
    places = np.flatnonzero(open_)
    chosen += [candidates[n] for n in ranked(pairs[0][places], pairs[1][places], places)]
    return np.sort(np.array(chosen[:count]))


def ranked(left, right, order):
    """Return the members of `order`, one a pair (p, D), by exact distance, then as they came."""
    if len(order) < 2:
        return list(order)
    scale = scale_of(left)
    if on_grid(left, right, scale).all():
        keys = distances(left, right, scale)[0].tolist()
    else:
        keys = [squared_distance(a, b) for a, b in zip(left, right, strict=True)]
    return [order[n] for n in sorted(range(len(order)), key=lambda n: (keys[n], n))]


def squared_distance(row, codeword):
    """Return ``|row - codeword|^2`` in some unit, a whole number: a key that orders without
    rounding.

    The unit is that of the type: float64 if either is float64.
    """
    places = 149 if row.dtype == codeword.dtype == np.float32 else 1074
    total = 0
    for a, b in zip(row.tolist(), codeword.tolist(), strict=True):
        if a != b:
            (over, under), (more, below) = a.as_integer_ratio(), b.as_integer_ratio()
            total += ((over << places) // under - (more << places) // below) ** 2
    return total


def _is_nearer(r, a, b):
    """Whether codeword `b` is strictly nearer to `r` than `a` is; float64 that hold float32."""
    terms = np.concatenate([b * b, -(a * a), -2.0 * (r * b), 2.0 * (r * a)])
    return math.fsum(terms.tolist()) < 0.0
