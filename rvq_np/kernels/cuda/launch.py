"""CUDA kernels on CuPy arrays: compiled when first used, launched on the current stream."""

import functools

import cupy
import numpy as np

from .. import cuda

# Shapes of a block that searches, ROW_GROUPS x CODEWORD_GROUPS warps: many rows first.
SHAPES = ((8, 1), (4, 2), (2, 4), (1, 8), (1, 4), (1, 1))
DEEP = True  # whether blocks that are alone on their processors read more of a codeword at a time
WGMMA = True  # whether four warps multiply together where the GPU can: compute capability 9.0
TOGETHER = (4, 2)  # the shape whose warps may multiply together
FULL = 0.75  # share of the processors that a shape must keep busy to be taken
PARALLEL = 1 << 12  # warps of a beam search under way
FAR = 1 << 24  # distances it holds at once: 128 MiB
THREADS = 256
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
BETWEEN = {(SINGLE, DOUBLE): "widen", (DOUBLE, SINGLE): "narrow"}
SHARING = ("encode", "sort_rows")  # kernels that may want more shared memory than comes unasked


def launch(file, name, dtype, blocks, threads, shared, arguments, **macros):
    """Queue a kernel of ``kernels/cuda/<file>.cu`` for numbers of type `dtype`."""
    if blocks:
        kernel = _kernel(cupy.cuda.Device().id, file, name, np.dtype(dtype), *macros.items())
        kernel((blocks,), (threads,), arguments, shared_mem=shared)


def over(file, name, dtype, count, arguments):
    """Queue a kernel with a thread for each of `count` things."""
    launch(file, name, dtype, -(-count // THREADS), THREADS, 0, arguments)


def cast(x, dtype, copy=False):
    """Return `x` as an array of type `dtype`, C-contiguous; `x` itself, unless `copy`, if it is.

    What CuPy compiles, its own conversions as well, takes float32 below 2**-126 for zero.
    """
    x, dtype = wide(x), np.dtype(dtype)
    if x.dtype == dtype or (x.dtype, dtype) not in BETWEEN:
        return x.astype(dtype, order="C", copy=copy)
    x, made = cupy.ascontiguousarray(x), cupy.empty(x.shape, dtype)
    over("gather", BETWEEN[x.dtype, dtype], np.float32, x.size, (x, np.int64(x.size), made))
    return made


def wide(x):
    """Return `x`, as float32 if it is bfloat16: upper halves of float32, so that none is lost."""
    if x.dtype.kind in "fiu":
        return x
    return (x.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@functools.cache
def _kernel(device, file, name, dtype, *macros):
    kernel = _module(file, dtype, *macros).get_function(name)
    if name in SHARING:  # a block gets 48 KiB unasked; kernels made of one module share the limit
        most = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        kernel.max_dynamic_shared_size_bytes = most
    return kernel


@functools.cache
def _module(file, dtype, *macros):
    real = "float" if dtype == np.float32 else "double"
    options = ["-std=c++17", f"-DREAL={real}"] + [f"-D{name}={value}" for name, value in macros]
    if ("WGMMA", 1) in macros:  # instructions of that very architecture, whatever CuPy adds
        options.append("-arch=sm_90a")
    return cupy.RawModule(code=cuda.source(f"{file}.cu"), options=tuple(options))


def shape(n, width):
    """Return ``(groups, rows of a block, bytes of shared memory, form)`` to search `n` rows with.

    `width`: numbers of a codeword, padded.

    The first of `SHAPES` that fits the GPU and keeps its processors busy; where `n` is too small
    for that, the one that spreads the codewords of a row over most warps.  None if codewords are
    too long. `form`: a macro of encode.cu, "WGMMA", "DEEP", "FEW" or none.
    """
    most, processors, together = _device(cupy.cuda.Device().id)
    return _shape(n, width, most, processors, together and WGMMA, SHAPES, DEEP)


@functools.cache
def _device(number):
    """Return the bytes of shared memory of a block, the processors, and if warps multiply together.

    The compiler of CUDA 12 takes no architecture besides the one that CuPy names.
    """
    device = cupy.cuda.Device(number)
    most = device.attributes["MaxSharedMemoryPerBlockOptin"]
    together = device.compute_capability == "90" and cupy.cuda.nvrtc.getVersion() >= (13, 0)
    return most, device.attributes["MultiProcessorCount"], together


@functools.lru_cache(maxsize=256)
def _shape(n, width, most, processors, together, shapes, deep):
    first = together and TOGETHER in shapes and width % 64 == 0
    tried = [*([(TOGETHER, "WGMMA")] if first else []), *((groups, None) for groups in shapes)]
    fitting = []
    for groups, form in tried:
        rows, shared = 32 * groups[0], shared_bytes(groups, width, form)
        if shared <= most:
            fitting.append((groups, rows, shared, form))
            if n >= FULL * processors * rows:
                return fitting[-1]
    if not fitting:
        return None
    found = min(fitting, key=lambda each: each[1])
    groups, rows, shared, form = found
    larger = shared_bytes(groups, width, "DEEP")
    if deep and form is None and larger <= most and n <= processors * rows:
        return groups, rows, larger, "FEW" if n <= 8 and groups[0] == 1 else "DEEP"
    return found


def sort_shape(rows, size):
    """Return ``(threads, bytes of shared memory)`` of a block that sorts `rows` by `size` codes.

    No threads if there are too many codes to be counted in shared memory.
    """
    most = _device(cupy.cuda.Device().id)[0]
    warps = min(32, max(1, rows // 64), most // (4 * (size + 1)))
    return 32 * warps, 4 * warps * (size + 1)


def shared_bytes(groups, width, form=None):
    """Return the shared memory of a block of encode.cu, as `divide` there hands it out."""
    rows, codewords = groups
    span = 64 if codewords <= 2 else 32  # codewords of a warp at a time
    depth = 128 if form in ("DEEP", "FEW") else span  # numbers of a codeword
    buffers = 3 if form == "WGMMA" else 2
    block = 32 * rows
    return (
        16 * -(-width // 16) * 2 * (block + 1)
        + 16 * buffers * depth // 8 * span * codewords
        + (buffers * (4 * 128 + 8) if form == "WGMMA" else 0)
        + 3 * 4 * 8 * codewords * block
        + 2 * 4 * block
        + 4 * rows * codewords
    )


def register_bytes(dtype):
    """Return the bytes of exact.cuh's register for sums of products of a type."""
    return 8 * (22 if dtype == np.float32 else 136)
