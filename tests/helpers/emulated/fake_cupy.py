"""CuPy's names as far as rvq_np uses them, on NumPy arrays; kernels run on `gpu`.

As strict as CuPy, or stricter: arithmetic and conversions of float32 take numbers below 2**-126 for
zero, arrays do not turn into NumPy ones unasked, functions refuse NumPy
arrays, everything must live on the current device, and whatever would wait for the GPU counts.
No evidence for a GPU.
"""

import contextlib
import sys
import time
import types

import numpy as np

from rvq_np import backends
from rvq_np.kernels import cuda as _cuda  # noqa: F401  (imported, so that `_forget` finds it)

from .gpu import Module

DEVICES = 2
SHARED = 227 << 10  # of an H100
PROCESSORS = 132
CAPABILITY = "90"
COMPILER = (13, 0)
waits = 0  # how often something had to wait for the GPU
fetched = 0  # bytes that were copied from it
seed = 0  # of the order in which threads take turns
_current = [0]

# Functions of CuPy that take arrays and behave as NumPy's, as of CuPy 14.2.
FUNCTIONS = [
    "abs", "all", "any", "arange", "argmax", "argsort", "argwhere", "ascontiguousarray",
    "astype", "bincount", "broadcast_to", "concat", "concatenate", "empty", "empty_like",
    "full", "isfinite", "isdtype", "matmul", "max", "min", "maximum", "minimum", "moveaxis",
    "ones", "ones_like", "permute_dims", "frexp", "ldexp", "repeat", "reshape", "searchsorted",
    "sqrt", "square", "stack", "sum", "take", "unique", "where", "zeros", "zeros_like",
    "nonzero",
]  # fmt: skip


# Of these, those that move numbers and so leave them as they are, unless they change their type.
COPYING = [
    "argsort", "ascontiguousarray", "broadcast_to", "concat", "concatenate", "empty",
    "empty_like", "moveaxis", "ones", "ones_like", "permute_dims", "repeat", "reshape",
    "searchsorted", "stack", "take", "where", "zeros", "zeros_like",
]  # fmt: skip
CONVERTING = ["ascontiguousarray"]
# What is asked of arrays of bfloat16, and what CuPy 14 has for them: no `where`, no `isdtype`.
ON_BFLOAT16 = ["astype", "isfinite", "permute_dims", "reshape", "take"]


class Device:
    def __init__(self, number=None):
        self.id = _current[-1] if number is None else int(number)

    attributes = property(
        lambda self: {"MaxSharedMemoryPerBlockOptin": SHARED, "MultiProcessorCount": PROCESSORS}
    )

    compute_capability = property(lambda self: CAPABILITY)

    def __enter__(self):
        _current.append(self.id)
        return self

    def __exit__(self, *_):
        _current.pop()

    def use(self):
        _current[-1] = self.id

    def synchronize(self):
        _wait()

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


class Event:
    """A moment: by the time a call returns here, all it queued is done."""

    def __init__(self, disable_timing=False):
        pass

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        _wait()


def _wait():
    global waits
    waits += 1


def _operator(name, reflected=False):
    def call(self, other=None):
        if name in ("__neg__", "__invert__", "__abs__"):
            return _made(getattr(self._here, name)())
        if isinstance(other, np.ndarray) and other.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        with np.errstate(all="ignore"):
            found = getattr(_flushed(_taken(self)), name)(_flushed(_taken(other)))
        if name.startswith("__i") and name != "__invert__":
            self._here[...] = _flushed(found)
            return self
        return _made(_flushed(found))

    return call


class ndarray:
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, here, device=None):
        self._here = here
        self.device = Device() if device is None else device

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self, out=None, blocking=True):
        global fetched
        fetched += self._here.nbytes
        if blocking:
            _wait()
            return self._here.copy()
        out[...] = self._here
        return out

    def item(self):
        _wait()
        return self._here.item()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    __index__ = __int__

    def __len__(self):
        return len(self._here)

    def __getitem__(self, key):
        return ndarray(self._here[_key(key)], self.device)

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        _taken(self)[_key(key)] = _taken(value)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        here = _taken(self)
        if here.dtype != dtype:
            with np.errstate(all="ignore"):
                here = _flushed(_flushed(here).astype(dtype))
            copy = copy or order != "K"
        return _made(here.astype(dtype, order=order, copy=copy))

    def view(self, dtype):
        return ndarray(self._here.view(dtype), self.device)

    def reshape(self, *shape):
        return ndarray(self._here.reshape(*shape), self.device)

    def ravel(self):
        return ndarray(self._here.ravel(), self.device)

    def copy(self, order="C"):
        return _made(_taken(self).copy(order))

    def fill(self, value):
        self._here.fill(value)

    def __dlpack__(self, **options):
        return self._here.__dlpack__()

    def __dlpack_device__(self):
        return (2, self.device.id)

    def __repr__(self):
        return repr(self._here)

    T = property(lambda self: ndarray(self._here.T, self.device))
    data = property(lambda self: types.SimpleNamespace(ptr=self._here.ctypes.data))
    __module__ = "cupy"


for _name in ("dtype", "shape", "ndim", "size", "itemsize", "strides", "nbytes", "flags"):
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._here, name)))
for _name in ("sum", "min", "max", "mean", "all", "any"):

    def _reduced(self, *arguments, _name=_name, **options):
        with np.errstate(all="ignore"):
            found = getattr(_flushed(_taken(self)), _name)(*arguments, **options)
        return _made(_flushed(np.asarray(found)))

    setattr(ndarray, _name, _reduced)
OPERATORS = [
    "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "truediv", "rtruediv",
    "itruediv", "floordiv", "rfloordiv", "mod", "matmul", "lt", "le", "gt", "ge", "eq", "ne",
    "and", "or", "xor", "neg", "invert", "abs", "lshift", "rshift",
]  # fmt: skip
for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _key(key):
    if isinstance(key, tuple):
        return tuple(_key(each) for each in key)
    if isinstance(key, np.ndarray):
        raise IndexError("Unsupported type <class 'numpy.ndarray'>")
    return _taken(key)


def _taken(value):
    """Return the NumPy array of an array here, which must be on the current device."""
    if isinstance(value, (list, tuple)):
        return type(value)(_taken(each) for each in value)
    if not isinstance(value, ndarray):
        return value
    if value.device.id != _current[-1]:
        raise ValueError(
            f"Array device must be same as the current device: array device = {value.device.id} "
            f"while current = {_current[-1]}"
        )
    return value._here


def _flushed(values):
    """Return `values` as what is compiled with -ftz=true reads and writes them."""
    if not isinstance(values, (np.ndarray, np.generic)) or values.dtype != np.float32:
        return values
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), values), values) if tiny.any() else values


def _made(found):
    if isinstance(found, tuple):
        return tuple(_made(each) for each in found)
    return ndarray(np.asarray(found)) if isinstance(found, (np.ndarray, np.generic)) else found


def _refuse(value):
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, np.ndarray) and each.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _function(name):
    def call(*arguments, **options):
        for each in arguments:
            _refuse(each)
            if name not in ON_BFLOAT16 and "bfloat16" in str(getattr(each, "dtype", "")):
                raise TypeError(f"Wrong type (bfloat16) of arguments for cupy_{name}")
        with np.errstate(all="ignore"):  # a GPU says nothing
            given = list(map(_taken, arguments))
            if name not in COPYING:
                given = [_flushed(each) for each in given]
            elif name in CONVERTING and options.get("dtype") not in (None, given[0].dtype):
                given[0] = _flushed(given[0])
            found = getattr(np, name)(*given, **options)
            return _made(found if name in COPYING else _flushed_all(found))

    return call


def _flushed_all(found):
    return tuple(map(_flushed, found)) if isinstance(found, tuple) else _flushed(found)


def asarray(values, dtype=None, order=None):
    if isinstance(values, ndarray):
        return values if dtype is None else values.astype(dtype, copy=False)
    return ndarray(np.array(values, dtype=dtype, order="C"))


def asnumpy(values):
    return values.get()


def from_dlpack(array):
    return ndarray(np.from_dlpack(_Capsule(array)))


class _Capsule:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


class RawModule:
    def __init__(self, *, code, options=()):
        assert isinstance(options, tuple)
        self._module = Module(code, options)
        self._limits = {}  # of each device and name: what a driver has is a function of a module

    def get_function(self, name):
        return _Kernel(self._module, name, self._limits)


class _Kernel:
    def __init__(self, module, name, limits):
        self.module, self.name, self._limits = module, name, limits

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._limits.get((_current[-1], self.name), 48 << 10)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if size > SHARED:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._limits[_current[-1], self.name] = size

    def __call__(self, grid, block, arguments, *, shared_mem=0):
        if shared_mem > min(self.max_dynamic_shared_size_bytes, SHARED):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        given = [_taken(each) for each in arguments]
        self.module.launch(self.name, (*grid, 1)[:2], block[0], given, shared_mem, seed)


def module(count=DEVICES):
    """Return a module to stand for ``cupy``, with `count` devices; None: no driver."""

    def device_count():
        if count is None:
            raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return count

    made = types.ModuleType("cupy")
    made.__version__ = "0 (not CuPy: NumPy arrays and an emulated GPU)"
    made.ndarray, made.RawModule = ndarray, RawModule
    made.asarray, made.asnumpy, made.from_dlpack = asarray, asnumpy, from_dlpack
    made.cuda = types.SimpleNamespace(
        Device=Device,
        Event=Event,
        alloc_pinned_memory=bytearray,
        nvrtc=types.SimpleNamespace(getVersion=lambda: COMPILER),
        get_elapsed_time=lambda start, end: 1e3 * (end.at - start.at),
        runtime=types.SimpleNamespace(getDeviceCount=device_count),
    )
    for name in FUNCTIONS:
        setattr(made, name, _function(name))
    for name in ("float16", "float32", "float64", "int32", "int64", "uint16", "bool_"):
        setattr(made, name, getattr(np, name))
    made.bool = np.bool_
    return made


OURS = [
    "rvq_np.backends.cupy",
    *(f"rvq_np.kernels.cuda.{name}" for name in ("driver", "launch", "search")),
]  # what imports CuPy


@contextlib.contextmanager
def installed(count=DEVICES):
    """Let ``import cupy`` find this, and rvq_np's backends read it again."""
    before = _forget()
    sys.modules["cupy"] = made = module(count)
    try:
        yield made
    finally:
        _forget()
        sys.modules.update(before)
        for name, old in before.items():
            if name != "cupy":
                package, _, last = name.rpartition(".")
                setattr(sys.modules[package], last, old)


def _forget():
    """Return what was imported of CuPy and what stands on it, and let it be imported again."""
    backends._backend_for.cache_clear()
    before = {name: sys.modules.pop(name) for name in ["cupy", *OURS] if name in sys.modules}
    for name in OURS:
        package, _, last = name.rpartition(".")
        vars(sys.modules[package]).pop(last, None)
    return before
