"""Quantizers as frozen values: what they know, without how to compute with it.

`stage` has `Stage` and `Linear`, `sequence` has `Codebooks`, stages one after another, `composed`
has quantizers made of several: `Projected`, `Parallel`, `Grouped`.  All are immutable, equal by
value and hashable.
"""

from .composed import Composed as Composed
from .composed import Grouped as Grouped
from .composed import Parallel as Parallel
from .composed import Projected as Projected
from .sequence import Codebooks as Codebooks
from .stage import Linear as Linear
from .stage import Stage as Stage
