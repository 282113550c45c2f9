"""Arrays of any library: their namespace, the way here and the way back.

No library is imported that the array did not bring.
"""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError

_SINGLE = np.dtype(np.float32)
# By NumPy's dtype in either byte order; a long double of 8 bytes is a float64 of another name.
KNOWN: dict[Any, np.dtype] = {
    np.dtype(f"{order}{kind}"): np.dtype(f"f{np.dtype(kind).itemsize}")
    for kind in "efdg" for order in "<>" if np.dtype(kind).itemsize <= 8
}  # fmt: skip
FLOATS = "float16, bfloat16, float32 or float64"  # for messages

# What NumPy arrays are to a type checker; arrays of other libraries are `Any`.
Vectors = NDArray[np.floating]
Codes = NDArray[np.int32]
Integers = NDArray[np.integer]


class WithCodes:
    """What holds `codes`, as an array or a list of them: calls that take codes take it, too."""

    codes: Any


def codes_of(codes: Any) -> Any:
    """Return codes as they are, or those of what holds them."""
    return codes.codes if isinstance(codes, WithCodes) else codes


def namespace(*arrays: Any) -> Any:
    """Return the array API namespace of `arrays`, which must be of one library.

    Raises
    ------
    BackendError
        If they are of several libraries.
    """
    if all(isinstance(each, np.ndarray) for each in arrays):
        return np
    libraries = {_library(type(each)) for each in arrays}  # type: ignore[arg-type]
    if len(libraries) == 1 and None not in libraries:
        return libraries.pop()
    try:
        if libraries != {None}:
            raise TypeError("several libraries")
        from array_api_compat import array_namespace

        return array_namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(f"{type(each).__module__}.{type(each).__qualname__}" for each in arrays)
        raise BackendError(
            f"rvq_np got arrays of kinds {kinds}; expected one library that follows the array API "
            "standard. Convert them to the kind of x first."
        ) from error


@functools.cache
def _library(cls: Any) -> Any:
    """Return the library of a class of arrays if it follows the standard as it is: CuPy does."""
    if hasattr(cls, "__array_namespace__"):
        return None  # it says itself
    library = sys.modules.get(cls.__module__.partition(".")[0])
    return library if hasattr(library, "isdtype") else None


def float_type(x: Any) -> np.dtype | None:
    """Return the float type of `x` as NumPy's native dtype; None if nothing computes with it.

    float16, float32 or float64, whatever the byte order; float32 for bfloat16.  A long double and
    floats of 8 bits have none: rounding them in silence would be an answer to another question.
    """
    dtype = x.dtype
    if isinstance(dtype, np.dtype):
        found = KNOWN.get(dtype)
        return _SINGLE if found is None and dtype.name == "bfloat16" else found
    name = str(dtype)
    if "bfloat16" in name:  # which no library's `isdtype` need know
        return _SINGLE
    if not namespace(x).isdtype(dtype, "real floating"):
        return None
    for wide in (np.float16, np.float64):
        if wide.__name__ in name:
            return np.dtype(wide)
    return _SINGLE


def native(x: Any) -> Any:
    """Return `x` of a type that its library computes with: in the byte order of this machine.

    bfloat16 becomes float32; anything else is `x` itself.
    """
    dtype = x.dtype
    if isinstance(dtype, np.dtype):
        if dtype.name == "bfloat16":
            return x.astype(_SINGLE)
        return x if dtype.isnative else x.astype(dtype.newbyteorder("="))
    if "bfloat16" not in str(dtype):
        return x
    xp = namespace(x)
    return xp.astype(x, xp.float32)


def numbers(values: Any) -> np.ndarray | None:
    """Return `values` as a NumPy array of real numbers in the byte order of this machine, or None.

    None where they are no whole numbers and have no `float_type`.
    """
    array = to_numpy(values)
    if array.dtype.kind in "biu" or float_type(array) is not None:
        found: np.ndarray = native(array)
        return found
    return None


def there(x: Any) -> AbstractContextManager[Any]:
    """Return a context in which the device of `x`, or of the first of a list, is the current one.

    For CuPy, where a device is chosen beside the arrays; elsewhere the arrays choose.
    """
    device = _device_to_choose(x[0] if isinstance(x, list) and x else x)
    return nullcontext() if device is None else device


def _device_to_choose(x: Any) -> Any:
    """Return the device of `x` if it must be made the current one, as CuPy's must, or None."""
    device = getattr(x, "device", None)
    return device if hasattr(device, "use") else None


def asarray(values: np.ndarray, like: Any) -> Any:
    """Return the NumPy array `values` as an array of the library and on the device of `like`."""
    if isinstance(like, np.ndarray):
        return values
    xp = namespace(like)
    if _device_to_choose(like) is not None:
        with there(like):
            return xp.asarray(values)
    from array_api_compat import device

    try:
        return xp.asarray(values, device=device(like))
    except ValueError:  # JAX names a way of sharding here, which need not fit this array
        return xp.asarray(values)


def take(x: Any, places: np.ndarray | slice, axis: int = 0) -> Any:
    """Return the entries of `x` at these places along an axis, in its library, where it is."""
    strided = isinstance(x, np.ndarray) and not x.flags.c_contiguous  # NumPy's would copy it first
    if strided or isinstance(places, slice):
        return x[(slice(None),) * axis + (places, ...)]
    with there(x):
        return namespace(x).take(x, asarray(places, x), axis=axis)


def to_numpy(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array, copied off its device if it is on one; bfloat16 as float32."""
    x = x.detach() if hasattr(x, "detach") else x  # of an autograd framework
    if "bfloat16" in str(getattr(x, "dtype", "")) and not isinstance(x, np.ndarray):
        xp = namespace(x)
        x = xp.astype(x, xp.float32)
    if _device_to_choose(x) is not None:  # CuPy's turn into NumPy's only if asked
        return np.asarray(x.get())
    try:
        return np.asarray(x)
    except (TypeError, RuntimeError, ValueError):
        return np.from_dlpack(x, device="cpu", copy=True)
