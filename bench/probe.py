"""``python -m bench.probe ROWS``: memory of encoding and decoding besides their input and output.

One process per measurement, since a peak never decreases. After a warm-up call that loads Numba
and prepares the tables, free memory is returned to the system, the peak is reset, and one call of
ROWS vectors (D=128, K=1024, Q=8) follows. Prints the bytes of encode, then of decode.

With glibc set ``MALLOC_ARENA_MAX=1``: memory freed by threads in their own arenas cannot be
returned, and its reuse would not be measured.
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
    """Return the peak of a call above the memory before it and its result, and the result."""
    more, result = above(call)
    return max(0, more - result.nbytes), result


def above(call) -> tuple[int, object]:
    """Return the peak of a call above the memory before it, and its result."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # otherwise memory freed by the warm-up would be reused, unmeasured
        trim(0)
    with contextlib.suppress(OSError):  # then an earlier peak may be larger than this one
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current use
    before = _status("VmRSS")
    result = call()
    return max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    """Return an entry of the status of this process in bytes; the peak so far if not on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def main(rows: int) -> None:
    """Measure, and print the results."""
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
