"""Our quantizer and ESPnet's side by side, and how far rounding alone may set them apart."""

from typing import NamedTuple

import numpy as np
import torch
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet

import rvq_np

# Arrays are small: on a busy machine torch's threads wait for each other far longer than they work.
torch.set_num_threads(1)

UNIT = float(np.finfo(np.float32).eps) / 2  # unit roundoff u of float32


def gamma(terms):
    """Return n u / (1 - n u): the relative error of n roundings in float32 (Higham, 3.1)."""
    return terms * UNIT / (1 - terms * UNIT)


def espnet(dimension, codebook_dim, n_q, bins, seed=0, *, double=False, **arguments):
    """Return ESPnet's quantizer with random codewords and healthy counts, between 5 and 20.

    Deeper codewords are shorter, as in a trained quantizer. `double` makes it compute in float64:
    its numbers are then exact where ours are rounded to float32. The state is float32 either way.
    """
    generator = torch.Generator().manual_seed(seed)
    arguments.setdefault("threshold_ema_dead_code", 0)  # nothing expires unless a test says so
    with torch.random.fork_rng():  # the projections come from the global generator
        torch.manual_seed(seed)
        made = Espnet(dimension, codebook_dim, n_q, bins, **arguments)
    for stage, layer in enumerate(made.vq.layers):
        book = layer._codebook
        codewords = torch.randn(book.embed.shape, generator=generator) * 0.7**stage
        counts = 5 + 15 * torch.rand(bins, generator=generator)
        book.embed.copy_(codewords)
        book.cluster_size.copy_(counts)
        book.embed_avg.copy_(codewords * counts[:, None])
        book.inited.fill_(1.0)
    return made.double() if double else made


def ours_like(theirs, **arguments):
    """Return our quantizer with the arguments and the state of `theirs`."""
    for name in (
        "decay", "kmeans_init", "kmeans_iters", "threshold_ema_dead_code", "quantizer_dropout"
    ):  # fmt: skip
        arguments.setdefault(name, getattr(theirs, name))
    made = rvq_np.ResidualVectorQuantizer(
        theirs.dimension, theirs.codebook_dim, theirs.n_q, theirs.bins, rng=0, **arguments
    )
    made.load_state_dict(theirs.state_dict())
    return made.train(theirs.training)


def pair(*arguments, **named):
    """Return ``(ours, theirs)`` in training, holding the same state; arguments as `espnet`."""
    theirs = espnet(*arguments, **named)
    return ours_like(theirs), theirs


def normal(rng, *shape, dtype=np.float32):
    """Return normal numbers that float32 holds, in `dtype`."""
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


def numbers(state_dict):
    """Return the state as float64 NumPy arrays."""
    return {name: np.asarray(value, np.float64) for name, value in state_dict.items()}


def as_rows(array):
    """Return ``(B, D, T)`` as rows ``(B * T, D)``."""
    return np.moveaxis(np.asarray(array), 1, 2).reshape(-1, array.shape[1])


class Stage:
    """One stage in float64, and what float32 may make of it."""

    def __init__(self, state, stage):
        layer = f"vq.layers.{stage}."
        self.codebook = state[f"{layer}_codebook.embed"]
        self.projects = f"{layer}project_in.weight" in state
        if self.projects:
            self.into, self.into_bias, self.out, self.out_bias = (
                state[f"{layer}{name}"]
                for name in ("project_in.weight", "project_in.bias",
                             "project_out.weight", "project_out.bias")
            )  # fmt: skip

    def searched(self, residual):
        """Return what the stage searches with, and how far float32 may be from it, as a norm."""
        if not self.projects:
            return residual, 0.0
        size = np.abs(self.into) @ np.abs(residual) + np.abs(self.into_bias)
        error = gamma(len(residual) + 2) * np.linalg.norm(size)
        return self.into @ residual + self.into_bias, error

    def spread(self, error):
        """Return how far an error of the residual, a norm, may move what is searched with."""
        return error * np.linalg.norm(self.into, 2) if self.projects else error

    def decoded(self, codes):
        """Return what `codes` decode to, and how far float32 may be from it, elementwise."""
        codewords = self.codebook[codes]
        if not self.projects:
            return codewords, np.zeros_like(codewords)
        size = np.abs(codewords) @ np.abs(self.out).T + np.abs(self.out_bias)
        return codewords @ self.out.T + self.out_bias, gamma(codewords.shape[-1] + 2) * size


def stages_of(state_dict):
    state = numbers(state_dict)
    n_q = 1 + max(int(name.split(".")[2]) for name in state)
    return [Stage(state, stage) for stage in range(n_q)]


def assert_codes_agree(ours, theirs, x, state_dict, start=0, rare=0.01):
    """Assert that codes differ only where float32 cannot tell which of two codewords is nearer.

    `ours` and `theirs` are codes ``(n, B, T)`` of `x` ``(B, D, T)``. For each vector the first
    stage at which they differ is looked at in float64: by the common earlier codes both codewords
    must be equally far, up to what rounding explains; what follows such a near-tie is another
    vector's story. And at most the share `rare` may differ. Returns the rows that do.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    ours, theirs = (codes.reshape(len(codes), -1) for codes in (ours, theirs))
    rows = as_rows(x).astype(np.float64)
    stages = stages_of(state_dict)[start:]
    differing = np.flatnonzero((ours != theirs).any(axis=0))
    for n in differing:
        stage = int(np.argmax(ours[:, n] != theirs[:, n]))
        assert_near_tie(rows[n], stages, ours[:stage, n], ours[stage, n], theirs[stage, n])
    assert len(differing) <= rare * len(rows)
    return differing


def assert_near_tie(x, stages, before, mine, yours):
    """Assert that float32 may take codewords `mine` and `yours` for equally far from the residual.

    The residual (codes `before` subtracted) is off by the rounding of each subtraction, of at
    most 3 operations where the other side is trained (``x + (q - x)``, then the difference), and
    by that of the projections. A score ``|r|^2 - 2 r.e + |e|^2`` in float32 is off by
    ``gamma(C + 4) (|r| + |e|)^2``, whatever the order of its sums.
    """
    residual, error, largest = x, 0.0, np.linalg.norm(x)
    for stage, code in zip(stages, before, strict=False):
        codeword, rounding = stage.decoded(code)
        residual = residual - codeword
        largest = max(largest, np.linalg.norm(residual), np.linalg.norm(codeword))
        error += 3 * UNIT * largest + 2 * np.linalg.norm(rounding)
    stage = stages[len(before)]
    target, rounding = stage.searched(residual)
    moved = 2 * rounding + stage.spread(error)
    a, b = stage.codebook[mine], stage.codebook[yours]
    far = np.linalg.norm(target) + moved + max(np.linalg.norm(a), np.linalg.norm(b))
    slack = 2 * gamma(len(a) + 4) * far**2 + 2 * moved * np.linalg.norm(a - b)
    distance = np.square(target - a).sum() - np.square(target - b).sum()
    assert abs(distance) <= slack, (len(before), mine, yours, distance, slack)


def decode_slack(codes, state_dict):
    """Return vectors ``(N, D)`` of codes ``(n, N)`` in float64, and the float32 slack of each.

    Each stage adds the rounding of its projection, on both sides, and of one addition.
    """
    total = error = 0.0
    for stage, row in zip(stages_of(state_dict), codes, strict=False):
        vectors, rounding = stage.decoded(row)
        total = total + vectors
        error = error + 2 * rounding + 2 * UNIT * np.abs(total)
    return total, error * (1 + 1e-6)  # the additions round what is itself rounded


def reaches(x, stages):
    """Return per stage the largest number there can be: searched with, or of a codeword."""
    left, found = np.abs(x).max(), []
    for stage in stages:
        codeword = decoded = np.abs(stage.codebook).max()
        searched = left
        if stage.projects:
            searched = left * _largest(stage.into) + np.abs(stage.into_bias).max()
            decoded = codeword * _largest(stage.out) + np.abs(stage.out_bias).max()
        found.append(max(searched, codeword))
        left = left + decoded
    return found


def _largest(weight):
    """Return how much larger the numbers of ``weight @ v`` can be than those of v."""
    return np.abs(weight).sum(axis=1).max()


class Drift(NamedTuple):
    """How far rounding may set two states apart at one stage, see `drifts`."""

    quantized: float  # a number of what the stage quantizes
    counts: float  # as a share
    sums: float  # per count
    codebook: float


def drifts(x, stages, steps, hits=0):
    """Bound what rounding does to each stage in some training steps on numbers up to those of x.

    Each step of ours rounds counts, sums and codewords to float32 once. ESPnet's rounds nothing
    that matters if it computes in float64; in float32 (tested without projections) once for each of
    the at most `hits` vectors added to a codeword, and 8 times on the way: twice in either moving
    average, in ``x + (q - x)`` and in the residual. A moving average keeps the share it is off by.
    A codeword is off by what its sum and its count are, and by its own rounding, after 4 in the
    smoothing; and what a codeword is off by, later stages quantize.
    """
    share = gamma(steps * (hits + 8 if hits else 1))
    own = gamma(5 if hits else 1)
    found, quantized = [], 0.0
    for stage, reach in zip(stages, reaches(x, stages), strict=True):
        quantized *= _largest(stage.into) if stage.projects else 1.0
        codewords = (2 * share + own) * reach + quantized
        found.append(Drift(quantized, share, share * reach + quantized, codewords))
        quantized += codewords * (_largest(stage.out) if stage.projects else 1.0)
    return found


def assert_states_agree(ours, theirs, x, steps, hits=0):
    """Assert that counts, sums and codewords are equal up to rounding after training on `x`."""
    mine, yours = numbers(ours.state_dict()), numbers(theirs.state_dict())
    assert list(mine) == list(yours)
    for stage, allowed in enumerate(drifts(x, stages_of(yours), steps, hits)):
        book = f"vq.layers.{stage}._codebook."
        np.testing.assert_array_equal(mine[f"{book}inited"], yours[f"{book}inited"])
        counts, sums, codewords = (
            np.abs(mine[f"{book}{name}"] - yours[f"{book}{name}"])
            for name in ("cluster_size", "embed_avg", "embed")
        )
        size = yours[f"{book}cluster_size"]
        assert (counts <= allowed.counts * size).all(), (stage, counts.max())
        assert (sums <= allowed.sums * size[:, None]).all(), (stage, sums.max())
        assert (codewords <= allowed.codebook).all(), (stage, codewords.max(), allowed.codebook)


def loss_slack(loss, x, state_dict, steps, hits=0):
    """Return how far apart, as a share, rounding may set the losses after so many steps.

    A number that is squared is off by the drift of both its parts, their mean square by twice
    that over the root mean square (Cauchy-Schwarz). Even in float64 ESPnet adds each stage's loss
    to a float32 zero, and averages in float32. In float32 also ``x + (q - x) - x`` rounds
    three times, and squares are taken and added in pairs.
    """
    stages = stages_of(state_dict)
    off = 0.0
    if steps:
        off = max(each.quantized + each.codebook for each in drifts(x, stages, steps, hits))
    own = gamma(len(stages) + 2)
    if hits:
        off += gamma(3) * max(reaches(x, stages))
        own += gamma(2 + np.log2(x.size))
    return 2 * off / np.sqrt(loss) + own
