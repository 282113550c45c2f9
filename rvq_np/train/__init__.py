"""Training as pure functions: a state and a random generator in, a new state out.

A `CodebookState` is the state of one stage: its codewords, and the moving counts and sums that they
are computed from.  `kmeans` makes a state from data, `ema` updates it with a batch, and `expire`
replaces unused codewords by vectors of the batch.  `step` does both for all stages.  `fit` trains
offline: k-means stage by stage on the residuals of the earlier stages, on data of any size.

All of them use `rvq_np.codec.tally`; none makes an array of vectors by codewords.
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
