"""Quantizers of every kind, drawn by Hypothesis, and what they mean, worked out frame by frame.

All numbers are small and whole, and maps and strides keep them exact in float32, so that every
implementation owes the same codes, whatever the order of its sums; ties are frequent.  The meaning
below is lists and `rvq_np.testing.oracle`, nothing of the library's.
"""

from fractions import Fraction
from itertools import chain
from operator import mul

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage
from rvq_np.testing import oracle

WHOLE = st.integers(-6, 6).map(float)


@st.composite
def stages(draw, dim, strides=(1,), most=3):
    """Draw a list of stages, Euclidean, some of them between maps of their own."""
    made = []
    for _ in range(draw(st.integers(1, most))):
        maps, width = (None, None), dim
        if draw(st.integers(0, 4)) == 0:
            width = draw(st.integers(1, 3))
            maps = (draw(linears(dim, width)), draw(linears(width, dim)))
        codewords = draw(npst.arrays(np.float32, (draw(st.integers(1, 5)), width), elements=WHOLE))
        made.append(Stage(codewords, *maps, stride=draw(st.sampled_from(strides))))
    return made


def linears(inputs, outputs):
    """Draw linear maps whose results stay small whole numbers."""
    weight = npst.arrays(np.float32, (outputs, inputs), elements=st.sampled_from([-1.0, 0.0, 1.0]))
    return st.builds(Linear, weight, npst.arrays(np.float32, outputs, elements=WHOLE))


@st.composite
def quantizers(draw, dim=None, depth=2, strides=(1,)):
    """Draw a quantizer of vectors of length `dim`, composed up to `depth` times."""
    dim = dim or draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["codebooks", "projected", "parallel", "grouped"]))
    if depth == 0 or kind == "codebooks":
        return Codebooks(draw(stages(dim, strides)))
    if kind == "projected":
        width = draw(st.integers(1, 4))
        inner = draw(quantizers(width, depth - 1, strides))
        return Projected(inner, draw(linears(dim, width)), draw(linears(width, dim)))
    if kind == "parallel":
        count = draw(st.integers(1, 3))
        return Parallel([draw(quantizers(dim, depth - 1, strides)) for _ in range(count)])
    ends = sorted(draw(st.sets(st.integers(1, dim - 1), max_size=2))) if dim > 1 else []
    widths = np.diff([0, *ends, dim]).tolist()
    return Grouped([draw(quantizers(width, depth - 1, strides)) for width in widths])


@st.composite
def cases(draw, strides=(1,), rows=6):
    """Draw ``(x (N, D), quantizer)``, N a multiple of the quantizer's block."""
    quantizer = draw(quantizers(strides=strides))
    count = draw(st.integers(0, rows)) * quantizer.block
    whole = npst.arrays(np.float32, (count, quantizer.dim), elements=st.integers(-8, 8).map(float))
    return draw(whole), quantizer


def encode(frames, quantizer):
    """Return one list of codes a stage, for `frames`, a list of lists of numbers."""
    if isinstance(quantizer, Codebooks):
        return _encode_stages(frames, quantizer.stages)
    if isinstance(quantizer, Projected):
        return encode(_mapped(frames, quantizer.project_in), quantizer.parts[0])
    if isinstance(quantizer, Parallel):
        return [stage for part in quantizer.parts for stage in encode(frames, part)]
    of_parts, begin = [], 0
    for part in quantizer.parts:
        of_parts.append(encode([row[begin : begin + part.dim] for row in frames], part))
        begin += part.dim
    turns = range(max(map(len, of_parts)))
    return [stages[turn] for turn in turns for stages in of_parts if turn < len(stages)]


def decode(codes, quantizer, count):
    """Return `count` frames from the first stages' codes, a list of lists of numbers."""
    if not codes:
        return [[0.0] * quantizer.dim for _ in range(count)]
    if isinstance(quantizer, Codebooks):
        frames = [[0.0] * quantizer.dim for _ in range(count)]
        for stage, code in zip(quantizer.stages, codes, strict=False):
            codewords = _codewords(stage, code)
            frames = [_plus(row, codewords[n // stage.stride]) for n, row in enumerate(frames)]
        return frames
    if isinstance(quantizer, Projected):
        return _mapped(decode(codes, quantizer.parts[0], count), quantizer.project_out)
    if isinstance(quantizer, Parallel):
        total, codes = [[0.0] * quantizer.dim for _ in range(count)], list(codes)
        for part in quantizer.parts:
            mine, codes = codes[: part.n_q], codes[part.n_q :]
            total = [_plus(*pair) for pair in zip(total, decode(mine, part, count), strict=True)]
        return total
    whose = [n for turn in range(len(codes)) for n, part in enumerate(quantizer.parts)
             if turn < part.n_q][: len(codes)]  # fmt: skip
    sides = []
    for n, part in enumerate(quantizer.parts):
        mine = [code for code, owner in zip(codes, whose, strict=True) if owner == n]
        sides.append(decode(mine, part, count))
    return [list(chain(*parts)) for parts in zip(*sides, strict=True)]


def _encode_stages(frames, stages):
    codes = []
    for stage in stages:
        stride = stage.stride
        means = [_mean(frames[n : n + stride]) for n in range(0, len(frames), stride)]
        if stage.project_in is not None:
            means = _mapped(means, stage.project_in)
        codes.append([oracle.nearest([Fraction(n) for n in row], stage.codebook) for row in means])
        codewords = _codewords(stage, codes[-1])
        frames = [
            [_single(a - b) for a, b in zip(row, codewords[n // stride], strict=True)]
            for n, row in enumerate(frames)
        ]
    return codes


def _mean(rows):
    """Return the mean as float32 has it: a sum in the order of time, then a division."""
    total = rows[0]
    for row in rows[1:]:
        total = _plus(total, row)
    return [_single(Fraction(n) / len(rows)) for n in total] if len(rows) > 1 else total


def _codewords(stage, codes):
    codewords = [[float(n) for n in stage.codebook[code]] for code in codes]
    return codewords if stage.project_out is None else _mapped(codewords, stage.project_out)


def _mapped(rows, linear):
    """Return each row through the map: exact sums, rounded once."""
    table = [
        ([Fraction(float(n)) for n in weights], Fraction(float(bias)))
        for weights, bias in zip(linear.weight, linear.bias, strict=True)
    ]
    mapped = []
    for row in rows:
        numbers = [Fraction(n) for n in row]
        dots = [sum(map(mul, weights, numbers), bias) for weights, bias in table]
        mapped.append([_single(each) for each in dots])
    return mapped


def _plus(one, other):
    return [_single(Fraction(a) + Fraction(b)) for a, b in zip(one, other, strict=True)]


def _single(number):
    return float(oracle.rounded(Fraction(number), "float32"))
