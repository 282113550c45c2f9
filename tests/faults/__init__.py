"""Small faults put into our own source, one at a time, to see that a test notices.

Each list is of one part of the package.  ``python -m faults``, in `tests`, applies them to a copy
of the checkout and shows which test kills each; docs/faults.json keeps the answers.
"""

from . import files, gpu, gradients, ids, quantizers, search, training
from ._fault import Fault as Fault

FAULTS = (
    *search.FAULTS,
    *quantizers.FAULTS,
    *training.FAULTS,
    *gradients.FAULTS,
    *files.FAULTS,
    *ids.FAULTS,
    *gpu.FAULTS,
)
