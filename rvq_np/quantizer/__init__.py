"""The seed's class, `ResidualVectorQuantizer`, without torch.

`layout` goes between (B, D, T) and rows, `passes` is one pass of a batch, which the class and all
gradients stand on, `model` is the class, `shown` what it says of itself and `cautions` its
warnings.
"""

from .layout import QuantizedResult as QuantizedResult
from .model import ResidualVectorQuantizer as ResidualVectorQuantizer

__all__ = [
    "QuantizedResult",
    "ResidualVectorQuantizer",
]


def __dir__() -> list[str]:
    return sorted(__all__)
