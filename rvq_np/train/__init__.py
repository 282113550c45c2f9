"""Training as pure functions over values: a state in, a new state out, randomness handed in.

`CodebookState` is what one stage remembers: its codewords, and the moving counts and sums they come
from.  `kmeans` makes one from data, `ema` moves one along with a batch, `expire` gives codewords
that no row chooses a vector of the batch.  `step` does that for all stages.  `fit` is the offline
way: k-means stage by stage on what earlier stages leave over, on data of any size.

All of them stand on `rvq_np.codec.tally`; nothing here makes an array of vectors by codewords.
"""

from .chunked import Chunks
from .collect import ENOUGH, Collected, enough
from .distributed import ALONE, AllReduce
from .ema import ema, expire, step
from .fit import fit
from .initial import initialize
from .joint import JointTally, joint_tally, refit
from .kmeans import kmeans, sample_rows
from .progress import reporting
from .refine import RefineProgress, refine
from .sources import opened
from .stages import FitProgress
from .start import random_stage, stages_of
from .state import CodebookState, Usage, Usages, codebooks_of, usage
from .state_dict import entries, from_state_dict, shapes, state_dict
from .training import Learned, Projections, draw_stages, fresh, learn

__all__ = [
    "ALONE",
    "ENOUGH",
    "AllReduce",
    "Chunks",
    "CodebookState",
    "Collected",
    "FitProgress",
    "JointTally",
    "Learned",
    "Projections",
    "RefineProgress",
    "Usage",
    "Usages",
    "codebooks_of",
    "draw_stages",
    "ema",
    "enough",
    "entries",
    "expire",
    "fit",
    "fresh",
    "from_state_dict",
    "initialize",
    "joint_tally",
    "kmeans",
    "learn",
    "opened",
    "random_stage",
    "refine",
    "refit",
    "reporting",
    "sample_rows",
    "shapes",
    "stages_of",
    "state_dict",
    "step",
    "usage",
]


def __dir__() -> list[str]:
    return sorted(__all__)
