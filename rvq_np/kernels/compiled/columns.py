"""The columns of the tables that compiled kernels read: names instead of bare numbers.

`WHOLE`, `REAL`, `SIDE` and `FOLDED` are of a `packing.Plan`, `PARAMS`, `OFFS` and `SPENT` of the
space that a search works in.  Kernels name them ``columns.SIZE``: Numba takes the attribute of a
module for a constant, so nothing is looked up when they run.
"""

from ..columns import BOUNDS
from ..columns import WIDE_LEAST as WIDE_LEAST
from ..columns import WIDE_SHARE as WIDE_SHARE

# Where a stage begins in an array of all stages is counted in elements of that array.
WHOLE = (  # (Q, 17) int64, a row a stage
    SIZE,  # codewords
    WIDTH,  # numbers of a codeword
    STEPS,  # steps of a panel: groups of 32 bits of a codeword
    PANELS,  # panels
    CODEWORDS_AT,  # where the stage begins in `codebook`
    TABLE_AT,  # in `table`
    HALF_AT,  # in `half`
    PANELS_AT,  # in `panels`
    SIDE_AT,  # in the columns of `side`
    MAP_AT,  # in `maps` or `narrow`; -1: no map
    UNIT_ROWS,  # whether mapped rows are divided by their norms
    CENTRE_AT,  # in `centres`; -1: it is seen from zero
    ONLY,  # the only codeword that can be chosen; -1: there are more
    PACKED,  # numbers of what is packed, codewords or folded ones
    FOLDS_AT,  # in the codewords of `folds`; -1: its map is not folded
    FOLDED_AT,  # in the rest of `folds`
    NARROW,  # whether the panels of the map are float32, in `narrow`
) = range(17)

OWN = (  # of `REAL`, (Q, 13) float64, a row a stage: after the columns of `BOUNDS`
    UNIT,  # what codewords are multiplied by
    RATIO,  # of rests to norms, see `packing`
    LOWERED,  # the share by which half norms are lowered
    USABLE,  # whether the screen can be used
    FULL_SCALE,  # the largest whole number; 0: the screen is float32
    HEAVIEST,  # the largest of the norms in `side`
) = range(len(BOUNDS), len(BOUNDS) + 6)
REAL = range(OWN.stop)

SIDE = (  # (3, +) float32, a column a codeword
    LOWERED_HALF,  # half the squared norm, lowered; inf: never chosen
    STEP,  # what whole numbers are multiplied by
    NORM,  # by which the slack of a row counts
) = range(3)

FOLDED = (  # (3, +) float64, a column a codeword whose map is folded, see `fold`
    SCORE,
    AWAY,  # what the score may be off by the norm of a row
    APART,  # and besides
) = range(3)

PARAMS = (  # (n, 4) float32, a row a row of the block; the last one fills up 16 bytes
    MINUS_STEP,
    MINUS_SLACK,
    START,  # of the sums, an int32
    UNUSED,
) = range(4)

OFFS = (  # (n, 2) float64, a row a hypothesis of a beam search: what a bound may be off
    PER_NORM,  # by the norm of the codeword
    AT_LEAST,  # and besides
) = range(2)

SPENT = (  # (2,) int64
    ROWS,  # rows times stages
    SCORED,  # codewords scored in float64
) = range(2)
