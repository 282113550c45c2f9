"""Nearest codewords kept up to date while the codewords move a little, as they do in k-means.

A row keeps its codeword while its distance to it is below a lower bound on its distance to every
other; the bound shrinks by what the others have moved (Hamerly, Making k-means even faster, SDM
2010).  One codeword that moves far would spoil all bounds, so those that moved most stay out of
them: rows whose bound on the rest holds are searched among the movers alone, only the others among
all codewords.  How many codewords count as movers is chosen in each iteration from a sample of
rows, by what it would cost.  The codes are those of the search: bounds carry a margin for the
rounding of float64, and what they cannot tell is searched.

A repeat of an earlier codeword is in no bound, as it cannot be chosen.  Once it has left its twin
it counts as a codeword that came from infinitely far.  The rows of a codeword that becomes a repeat
are searched: the bound on their distance to its twin is not above that to itself.
"""

from typing import Any

import numpy as np

from .. import tables, tiles
from ..plain import exact
from . import gather

ROWS = 8192  # rows a tile of the distances
SAMPLE = 1024  # rows that tell how many codewords should count as movers
SHARES = (0, 64, 16, 8, 4, 2)  # try none, and one codeword in so many
FIXED = 0.25  # what a row costs in any search, as a share of the search among all codewords
MARGIN = 1e-11  # of a squared distance: its rounding, for rows of up to 40,000 numbers


class Followed:
    """The rows `x` (N, D), in their codewords' float type and C order, and their codes.

    ``search(x, rows, stages)`` returns the codes (n,) of `rows` (n,) of `x`, None for all, and
    lower bounds (n,) on half the squared distance to every other codeword.
    """

    def __init__(self, x, search):
        self.x = x
        self.search = search
        self.every = np.arange(len(x))
        self.codes = np.empty((1, len(x)), np.int32)
        self.others = np.empty(
            len(x)
        )  # lower bounds on the distance to every codeword but one's own
        self.stage: Any = None

    def encode(self, stages):
        """Return the codes (1, N) by a single stage without projections."""
        before, self.stage = self.stage, stages[0]
        if before is None:
            self._search(stages, self.every)
        else:
            self._follow(stages, before)
        return self.codes

    def _follow(self, stages, before):
        codewords, repeat = self.stage.codebook, np.isinf(self.stage.half)
        left = codewords.astype(np.float64) - before.codebook
        with np.errstate(over="ignore"):
            moved = np.sqrt(np.einsum("kd,kd->k", left, left) + left.shape[1] * exact.LOST)
        moved *= 1 + 1e-6
        moved[~left.any(axis=1)] = 0.0
        moved[np.isinf(before.half)] = np.inf
        order = np.argsort(-moved, kind="stable")
        order = order[~repeat[order]]
        movers = self._movers(moved[order])
        if movers is None:
            self._search(stages, self.every)
            return
        self.others -= moved[order[movers]] if movers < len(order) else 0.0
        near, far = self._distances(self.every, self.codes[0])
        calm = far < self.others
        if movers:
            some = np.flatnonzero(calm)
            calm[some] = self._among(np.sort(order[:movers]), some, near[some], far[some])
        self._search(stages, np.flatnonzero(~calm))

    def _movers(self, moved):
        """Return how many codewords, of those that moved most, to leave out of the bounds.

        None: to search all rows among all codewords is no more work.
        """
        rows = self.every[:: max(1, len(self.every) // SAMPLE)]
        gaps = self.others[rows] - self._distances(rows, self.codes[0, rows])[1]
        best, least = None, 1.0 + FIXED
        for share in SHARES:
            movers = len(moved) // share if share else 0
            calm = (gaps > moved[movers]).mean() if movers < len(moved) else 0.0
            cost = (1.0 - calm) * (1.0 + FIXED)
            cost += calm * (movers / len(moved) + FIXED) if movers else 0.0
            if cost < 0.6 * least:
                best, least = movers, cost
        return best

    def _among(self, movers, rows, near, far):
        """Search calm `rows` among the codewords `movers`; return which of them are settled."""
        stage = self.stage
        half = stage.half64[movers]
        some = tables.Stages(
            [tables.Tables(stage.codebook[movers], stage.half[movers], half,
                           stage.bounds, stage.codebook[movers])]
        )  # fmt: skip
        found, others = self._nearest(some, rows)
        codeword = movers[found].astype(np.int32)
        own = self.codes[0, rows]
        codeword_near, codeword_far = self._distances(rows, codeword)
        # `others` is a bound on the movers but for the one found, which may be the row's own.
        same, stays, goes = codeword == own, codeword_near > far, codeword_far < near
        rest = np.where(same, np.inf, np.where(stays, codeword_near, near))
        rest = np.minimum(np.where(np.isin(own, movers), others, np.minimum(others, rest)), rest)
        self.others[rows] = np.minimum(self.others[rows], rest)
        self.codes[0, rows] = np.where(goes & ~same, codeword, own)
        return same | stays | goes

    def _search(self, stages, rows):
        """Search some `rows` among all codewords."""
        self.codes[0, rows], self.others[rows] = self._nearest(stages, rows)

    def _nearest(self, stages, rows):
        """Return the nearest codewords of some `rows`, and bounds on the distance to all others."""
        chosen = None if len(rows) == len(self.x) else rows
        codes, bounds = self.search(self.x, chosen, stages)
        lost = self.x.shape[1] * exact.LOST
        return codes, np.sqrt(np.maximum(0.0, 2.0 * bounds - lost)) * (1 - MARGIN)

    def _distances(self, rows, codes):
        """Return numbers that are not above, and not below, the distance of rows to codewords."""
        stage, out = self.stage, np.empty(len(rows))

        def tile(start, stop):
            gather.squared_distances(self.x, rows, stage.codebook, codes, out, start, stop)

        tiles.over_rows(tile, len(rows), ROWS)
        lost = self.x.shape[1] * exact.LOST
        near = np.minimum(out, np.finfo(np.float64).max) * (1 - MARGIN) - lost
        return np.sqrt(np.maximum(0.0, near)), np.sqrt(out * (1 + MARGIN) + lost)
