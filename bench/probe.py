"""``python -m bench.probe ROWS``: what encoding and decoding take beyond their input and output.

One process a measurement, since a peak never comes down. After a warm-up call that loads Numba
and lays out the tables, free memory is given back, the mark of the peak is reset, and one call of
ROWS vectors (D=128, K=1024, Q=8) follows. Prints the bytes of encode, then of decode.

With glibc set ``MALLOC_ARENA_MAX=1``: what threads have freed in arenas of their own cannot be
given back, and would be used again, unseen.
"""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import numpy as np

import rvq_np

from .problems import BATCH

WARM = 2048  # rows


def extra(call) -> tuple[int, np.ndarray]:
    """Return how far the peak went beyond what there was before and the result, and the result."""
    more, result = above(call)
    return max(0, more - result.nbytes), result


def above(call) -> tuple[int, object]:
    """Return how far the peak of a call went beyond what there was before, and its result."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # or what the warm-up left behind would be used again, unseen
        trim(0)
    with contextlib.suppress(OSError):  # then an earlier peak may hide this one
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is there now
    before = _status("VmRSS")
    result = call()
    return max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    """Return a figure of this process in bytes; elsewhere than on Linux the peak so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def main(rows: int) -> None:
    """Measure and print."""
    _, codebooks = BATCH._replace(rows=1).data()
    books = rvq_np.Codebooks(codebooks)
    x = np.empty((rows, BATCH.dim), np.float32)
    np.random.default_rng(0).standard_normal(dtype=np.float32, out=x)  # every page is touched
    rvq_np.decode(rvq_np.encode(x[:WARM], books), books)
    encoding, codes = extra(lambda: rvq_np.encode(x, books))
    decoding, _ = extra(lambda: rvq_np.decode(codes, books))
    print(encoding, decoding)


if __name__ == "__main__":
    main(int(sys.argv[1]))
