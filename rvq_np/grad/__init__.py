"""Straight-through gradients: one file per autograd framework, named after it.

Every file provides, for each framework:

- the value is exactly ``decode(codes)``, not ``x + (q - x)``, which rounds;
- ``d quantized / d x`` is the identity for any number of stages, or the rotation trick;
- ``project_out`` receives the true gradient of decode, and ``project_in`` the straight-through
  gradient of its own stage, through ``project_out``;
- the commitment loss has a gradient to the encoder, at every stage; the quantization loss has a
  gradient to the codebook and none to the encoder;
- codes have no gradient, and padding neither has nor receives one.

A file here is named after the top-level package of the framework's arrays and is a `Shim`: it
defines ``quantize(x, rvq, sample_rate, bandwidth, mask, estimator)``.  There are two kinds:

- Tensor frameworks (`torch`, `jax`, `keras`, `mlx`, `tensorflow`) implement the operations of
  `Ops`; with those, `_straight_through` computes the result of a batch from its vectors.  Only
  search and training are opaque to the framework (`_operation.run`), as a callback or custom
  operation.  A shim checks its arguments once and passes rows (N, D) on; nothing else checks or
  converts them again.  It also defines the quantizer in the form that users of the framework
  expect: a module, pure functions, a layer.
- Tape engines (`autograd`) wrap `quantize_vjp`, a pair of forward and vector-Jacobian
  product over NumPy arrays.  Any other engine can do the same in one file.  Other packages
  register such a file as an entry point in the group ``rvq_np.grad``.

Imports, from the shims down: a shim, `_straight_through` (rows, result), `_surrogate` (the
differentiable part) beside `_products` (its gradients by hand), `_operation` (search and
training), `_cache` (the quantizer of some arrays), `_names` and `_references`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from ..errors import BackendError
from ..quantizer import ResidualVectorQuantizer
from ..quantizer.layout import QuantizedResult
from ._inputs import check_estimator, check_quantizer
from ._ops import Ops
from ._products import Gradients, Products, quantize_vjp

__all__ = ["Gradients", "Ops", "Products", "Shim", "quantize", "quantize_vjp"]


def __dir__() -> list[str]:
    return sorted(__all__)


class Shim(Protocol):
    """A file of this folder, or an entry point of the group ``rvq_np.grad``."""

    def quantize(
        self,
        x: Any,
        rvq: ResidualVectorQuantizer,
        sample_rate: float | None,
        bandwidth: float | None,
        mask: Any,
        estimator: str,
    ) -> QuantizedResult:
        """Do what `rvq_np.grad.quantize` does, for arrays of the framework.

        Only `rvq` and `estimator` have been checked. A shim that supports ``n_q`` has a seventh
        parameter of that name; it is passed if the caller gives it.
        """


def quantize(
    x: Any,
    rvq: ResidualVectorQuantizer,
    sample_rate: float | None = None,
    bandwidth: float | None = None,
    mask: Any = None,
    *,
    n_q: int | None = None,
    estimator: str = "straight-through",
) -> QuantizedResult:
    """Quantize a batch of any framework's arrays so that gradients flow through it.

    Do what a call of `rvq` does, including training, with a gradient for `x`. The arrays of `rvq`
    are constants. To train projections, use the framework's own quantizer
    (`rvq_np.grad.torch.ResidualVectorQuantizer`, ...) or `quantize_vjp`.

    Parameters
    ----------
    x : array (B, D, T) or (N, D), floating
        An array of a framework with a file in this folder, or a NumPy array (without gradient).
    rvq : ResidualVectorQuantizer
        In train mode it is trained on the batch. Where the framework traces (``jax.jit``,
        ``jax.grad``, ``torch.compile``), it must be in eval mode, because training is a side
        effect.
    sample_rate : float, optional
        Vectors per second. Needed with `bandwidth` only.
    bandwidth : float, optional
        The most kb/s to use; by default all stages are used.
    mask : array (B, T) or (N,), bool, optional
        True where there is a vector, False where there is padding.
    n_q : int, optional
        Instead of `bandwidth`: the first stages to use.
    estimator : {"straight-through", "rotation"}, optional
        The gradient of ``quantized`` with respect to `x`: the identity, or the rotation trick
        (Fifty et al., ICLR 2025) for the sum of all stages.

    Returns
    -------
    result : QuantizedResult
        Arrays of the framework, on the device and in the float type of `x`.

    Raises
    ------
    BackendError
        If no file supports the type of `x`, `mask` is of another library, or the framework cannot
        do this under the current transform.
    ShapeError, DtypeError, NonFiniteError, ParameterError
        As `rvq_np.ResidualVectorQuantizer.forward`. Where values are not known yet, as under
        ``jax.jit``, non-finite values give NaN and codes of -2 instead of an error.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import ResidualVectorQuantizer, grad
    >>> rvq = ResidualVectorQuantizer(4, 4, n_q=2, bins=8, kmeans_init=False, rng=0).eval()
    >>> grad.quantize(np.ones((3, 4), np.float32), rvq, sample_rate=50).codes.shape
    (2, 3)
    """
    check_estimator(estimator)
    check_quantizer("quantize", rvq)
    cls = type(x)
    if cls not in _shims:
        _shims[cls] = shim_for(cls)
    given = {} if n_q is None else {"n_q": n_q}
    return _shims[cls].quantize(x, rvq, sample_rate, bandwidth, mask, estimator, **given)


_shims: dict[type, Shim] = {}  # no functools.cache: torch.compile looks past it


def shim_for(cls: type) -> Shim:
    """Return the file of this folder that serves arrays of a type.

    Raises
    ------
    BackendError
        If there is none.
    """
    from importlib.metadata import entry_points

    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        library = "jax" if library == "jaxlib" else library  # which holds JAX's arrays
        if not library or library.startswith("_") or library == "builtins":
            continue
        if find_spec(f"{__name__}.{library}"):
            found: Shim = import_module(f"{__name__}.{library}")
            return found
        for entry in entry_points(group="rvq_np.grad", name=library):
            outside: Shim = entry.load()
            return outside
    raise BackendError(
        f"quantize: no file of rvq_np.grad supports {cls.__module__}.{cls.__qualname__}. Wrap "
        "rvq_np.grad.quantize_vjp for it: see the docs, 'A framework of your own'."
    )
