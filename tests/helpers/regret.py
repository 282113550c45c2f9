"""How much worse than the best codeword a code may be, in float64, before rounding cannot explain
it.

Every code is judged by the residual that its own earlier codes leave: of two searches that part at
a near-tie, both are right, and what follows is judged as well.  Composed quantizers are judged part
by part, each by what it was given. Codes are rows (n,) stage by stage, or (n / stride,).
"""

import numpy as np

from rvq_np.codebooks.composed import Composed, Grouped, Projected


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


def mapped(linear, vectors, error, unit):
    """Return ``weight @ x + bias`` of rows (n, C), and how far rounding may be from it.

    Both that and `error`, how far the rows themselves may be off, are elementwise.
    """
    weight, bias = (np.asarray(each, np.float64) for each in (linear.weight, linear.bias))
    size = (np.abs(vectors) + error) @ np.abs(weight).T + np.abs(bias)
    # 6: the weight itself may be rounded, and fused from its norm and direction elsewhere.
    rounding = gamma(2 * vectors.shape[1] + 6, unit) * size
    return vectors @ weight.T + bias, error @ np.abs(weight).T + rounding


def into(linear, rows, error, unit):
    """Return rows (n, C) through a map, and how far rounding may move each, as a norm (n,)."""
    target, rounding = mapped(linear, rows, np.zeros_like(rows), unit)
    stretch = np.linalg.norm(np.asarray(linear.weight, np.float64), 2)
    return target, np.linalg.norm(rounding, axis=1) + error * stretch


def means(rows, error, stride, unit):
    """Return the means of as many rows as a stride has, and how far off each may be.

    ``stride - 1`` additions, a division, and a rounding more where it multiplies by the inverse.
    """
    if stride == 1:
        return rows, error
    frames = rows.reshape(len(rows) // stride, stride, rows.shape[1])
    size = np.linalg.norm(np.abs(frames).mean(axis=1), axis=1)
    off = error.reshape(-1, stride).mean(axis=1) + gamma(stride + 1, unit) * size
    return frames.mean(axis=1), off


def added(parts, unit):
    """Return the sum of vectors, each with its error, and the error of a sum in any order."""
    size = sum(np.abs(vectors) + error for vectors, error in parts)
    error = sum(error for _, error in parts) + gamma(len(parts) - 1, unit) * size
    return sum(vectors for vectors, _ in parts), error


def decoded(stage, codes, unit):
    """Return what `codes` decode to (n, D), and how far rounding may be from it, elementwise."""
    codewords = stage.codebook[codes].astype(np.float64)
    error = np.zeros_like(codewords)
    if stage.project_out is not None:
        codewords, error = mapped(stage.project_out, codewords, error, unit)
    return np.repeat(codewords, stage.stride, axis=0), np.repeat(error, stage.stride, axis=0)


def apart(codes, quantizer):
    """Return the codes of each part of a composed quantizer."""
    own = [[] for _ in quantizer.parts]
    for row, part in zip(codes, quantizer.order, strict=False):
        own[part].append(row)
    return own


def decode_slack(codes, quantizer, dtype=np.float32):
    """Return vectors (n, D) of codes in float64, and how far `dtype` may be from them."""
    unit = roundoff(dtype)
    if not isinstance(quantizer, Composed):
        stages = zip(quantizer, codes, strict=False)
        return added([decoded(stage, row, unit) for stage, row in stages], unit)
    frames = len(codes[0]) * quantizer.strides[0]
    parts = [
        decode_slack(own, part, dtype) if own else (np.zeros((frames, part.dim)),) * 2
        for own, part in zip(apart(codes, quantizer), quantizer.parts, strict=True)
    ]
    if isinstance(quantizer, Projected):
        return mapped(quantizer.project_out, *parts[0], unit)
    if isinstance(quantizer, Grouped):
        return tuple(np.hstack(each) for each in zip(*parts, strict=True))
    return added(parts, unit)


def assert_decodes(vectors, codes, codebooks, dtype=np.float32):
    """Assert that `vectors` (n, D) are what `codes` decode to, up to rounding."""
    expected, slack = decode_slack(codes, codebooks, dtype)
    slack = slack * (1 + 1e-6)  # what is computed here is rounded as well, to float64
    assert vectors.shape == expected.shape
    assert (np.abs(vectors - expected) <= slack).all(), np.abs(vectors - expected).max()


def given(x, error, quantizer, unit):
    """Return what each part of a composed quantizer is given, and how far off each row may be."""
    if isinstance(quantizer, Projected):
        return [into(quantizer.project_in, x, error, unit)]
    if isinstance(quantizer, Grouped):
        ends = np.cumsum([part.dim for part in quantizer.parts])[:-1]
        return [(share, error) for share in np.split(x, ends, axis=1)]
    return [(x, error)] * len(quantizer.parts)


def assert_nearest(x, codes, codebooks, dtype=np.float32, *, through=False, cdist=False, error=0.0):
    """Assert that each of `codes` names a codeword nearest to the residual, up to rounding.

    `x` (n, D) are the vectors; each may be off by `error`, a norm. `through`: the residual loses
    ``z + (codeword - z)`` in place of the codeword, as in a trained DAC. A squared distance is off
    by ``gamma(C + 4) (|r| + |e|)^2`` whatever the order of its sums, a direction by ``gamma(C +
    4)``, and the residual by what each subtraction and each projection rounds.

    `cdist`: as `torch.cdist`, which rounds |r|^2 and |e|^2, C roundings each, before they are two
    of the C + 2 terms of a product of matrices, and takes a root (two more).
    """
    unit = roundoff(dtype)
    residual = np.asarray(x, np.float64)
    error = np.broadcast_to(error, len(residual))
    if isinstance(codebooks, Composed):
        shares = given(residual, error, codebooks, unit)
        for own, part, (rows, off) in zip(
            apart(codes, codebooks), codebooks.parts, shares, strict=True
        ):
            assert_nearest(rows, own, part, dtype, through=through, cdist=cdist, error=off)
        return
    largest = np.linalg.norm(residual, axis=1)
    for q, (stage, chosen) in enumerate(zip(codebooks, codes, strict=False)):
        codewords = np.asarray(stage.codebook, np.float64)
        rounds = (2 if cdist else 1) * codewords.shape[1] + 4
        target, moved = means(residual, error, stage.stride, unit)
        rows = np.arange(len(target))
        if stage.project_in is not None:
            target, moved = into(stage.project_in, target, moved, unit)
        searched, place, off = codewords, target, moved
        if stage.metric == "cosine":
            norms = np.linalg.norm(target, axis=1)
            searched, place = directions(codewords), directions(target)
            with np.errstate(divide="ignore", invalid="ignore"):
                # What may have been zero has no direction that could be wrong.
                off = np.where(moved < norms, 2 * moved / norms, 2.0)
            off = off * (norms > 0) + 2 * gamma(codewords.shape[1] + 4, unit)
        # The differences, not the expanded square: nothing cancels in the judge.
        distances = np.stack([np.square(place - each).sum(axis=1) for each in searched], axis=1)
        best = distances.argmin(axis=1)
        far = np.linalg.norm(place, axis=1) + off + np.linalg.norm(searched, axis=1).max()
        between = np.linalg.norm(searched[best] - searched[chosen], axis=1)
        slack = 2 * gamma(rounds, unit) * far**2 + 2 * off * between
        regret = distances[rows, chosen] - distances[rows, best]
        worst = int((regret - slack).argmax())
        assert (regret <= slack).all(), (q, worst, regret[worst], slack[worst])
        vectors, rounding = decoded(stage, chosen, unit)
        if through:
            each = (
                3
                * unit
                * (np.linalg.norm(target, axis=1) + np.linalg.norm(codewords[chosen], axis=1))
            )
            each = each * np.linalg.norm(stage.project_out.weight, 2)
            error = error + np.repeat(each, stage.stride)
        residual = residual - vectors
        for part in (residual, vectors):
            largest = np.maximum(largest, np.linalg.norm(part, axis=1))
        error = error + 3 * unit * largest + 2 * np.linalg.norm(rounding, axis=1)
