"""How much worse than the best word a code may be, in float64, before rounding cannot explain it.

Every code is judged by the residual that its own earlier codes leave: of two searches that part at
a near-tie, both are right, and what follows is judged as well.
"""

import numpy as np


def roundoff(dtype):
    return float(np.finfo(dtype).eps) / 2


def gamma(terms, unit):
    """Return n u / (1 - n u): the relative error of n roundings (Higham, 3.1)."""
    return terms * unit / (1 - terms * unit)


def directions(rows):
    """Return `rows` (n, C) divided by their norms, in float64; zeros stay zeros."""
    rows = np.asarray(rows, np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def decoded(stage, codes, unit):
    """Return what `codes` decode to (n, D), and how far rounding may be from it, elementwise."""
    words = stage.words[codes].astype(np.float64)
    if stage.project_out is None:
        return words, np.zeros_like(words)
    weight, bias = (
        np.asarray(each, np.float64) for each in (stage.project_out.weight, stage.project_out.bias)
    )
    size = np.abs(words) @ np.abs(weight).T + np.abs(bias)
    # 6: the weight itself may be rounded, and fused from its norm and direction elsewhere.
    return words @ weight.T + bias, gamma(2 * words.shape[1] + 6, unit) * size


def decode_slack(codes, codebooks, dtype=np.float32):
    """Return vectors (n, D) of codes (Q, n) in float64, and how far `dtype` may be from them."""
    unit, total, error = roundoff(dtype), 0.0, 0.0
    for stage, row in zip(codebooks, codes, strict=False):
        vectors, rounding = decoded(stage, row, unit)
        total = total + vectors
        error = error + 2 * rounding + 2 * unit * np.abs(total)
    return total, error * (1 + 1e-6)  # the additions round what is itself rounded


def assert_decodes(vectors, codes, codebooks, dtype=np.float32):
    """Assert that `vectors` (n, D) are what `codes` (Q, n) decode to, up to rounding."""
    wanted, slack = decode_slack(codes, codebooks, dtype)
    assert vectors.shape == wanted.shape
    assert (np.abs(vectors - wanted) <= slack).all(), np.abs(vectors - wanted).max()


def assert_nearest(x, codes, codebooks, dtype=np.float32, *, through=False):
    """Assert that each of `codes` (Q, n) names a word nearest to the residual, up to rounding.

    `x` (n, D) are the vectors. `through`: the residual loses ``z + (word - z)`` in place of the
    word, as in a trained DAC. A squared distance is off by ``gamma(C + 4) (|r| + |e|)^2`` whatever
    the order of its sums, a direction by ``gamma(C + 4)``, and the residual by what each
    subtraction and each projection rounds.
    """
    unit = roundoff(dtype)
    residual = np.asarray(x, np.float64)
    rows = np.arange(len(residual))
    error, largest = np.zeros(len(rows)), np.linalg.norm(residual, axis=1)
    for level, (stage, chosen) in enumerate(zip(codebooks, codes, strict=False)):
        words = np.asarray(stage.words, np.float64)
        target, moved = residual, error
        if stage.project_in is not None:
            weight = np.asarray(stage.project_in.weight, np.float64)
            bias = np.asarray(stage.project_in.bias, np.float64)
            size = np.abs(residual) @ np.abs(weight).T + np.abs(bias)
            target = residual @ weight.T + bias
            moved = gamma(2 * residual.shape[1] + 6, unit) * np.linalg.norm(size, axis=1)
            moved = moved + error * np.linalg.norm(weight, 2)
        searched, place, off = words, target, moved
        if stage.metric == "cosine":
            norms = np.linalg.norm(target, axis=1)
            searched, place = directions(words), directions(target)
            with np.errstate(divide="ignore", invalid="ignore"):
                # What may have been zero has no direction that could be wrong.
                off = np.where(moved < norms, 2 * moved / norms, 2.0)
            off = off * (norms > 0) + 2 * gamma(words.shape[1] + 4, unit)
        # The differences, not the expanded square: nothing cancels in the judge.
        distances = np.stack([np.square(place - each).sum(axis=1) for each in searched], axis=1)
        best = distances.argmin(axis=1)
        far = np.linalg.norm(place, axis=1) + off + np.linalg.norm(searched, axis=1).max()
        apart = np.linalg.norm(searched[best] - searched[chosen], axis=1)
        slack = 2 * gamma(words.shape[1] + 4, unit) * far**2 + 2 * off * apart
        regret = distances[rows, chosen] - distances[rows, best]
        worst = int((regret - slack).argmax())
        assert (regret <= slack).all(), (level, worst, regret[worst], slack[worst])
        vectors, rounding = decoded(stage, chosen, unit)
        if through:
            each = (
                3 * unit * (np.linalg.norm(target, axis=1) + np.linalg.norm(words[chosen], axis=1))
            )
            error = error + each * np.linalg.norm(stage.project_out.weight, 2)
        residual = residual - vectors
        for part in (residual, vectors):
            largest = np.maximum(largest, np.linalg.norm(part, axis=1))
        error = error + 3 * unit * largest + 2 * np.linalg.norm(rounding, axis=1)
