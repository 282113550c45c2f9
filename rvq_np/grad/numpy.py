"""NumPy arrays: no gradients to carry; `rvq_np.grad.quantize_vjp` has them for hand-written code.

HIPS autograd hands over plain arrays where nothing is differentiated, so they must be served.
"""

from typing import Any

__all__ = ["quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    return rvq.forward(x, sample_rate, bandwidth, mask, n_q=n_q)
