"""``rvq-np bench``: how fast this machine encodes and decodes, compared with NumPy alone.

For choosing a machine, or checking that Numba is used.  The benchmarks against other libraries are
in the repository, in ``bench/``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from .. import codec
from ..codebooks import Codebooks
from ..kernels import dispatch, tiles
from . import said

REPEATS = 5
LEAST = 0.05  # seconds per measurement, at least


def run(dim: int, size: int, n_q: int, rows: int, options: argparse.Namespace) -> None:
    """Measure, and print a table."""
    rng = np.random.default_rng(0)
    remaining = size ** (-2 / dim)  # of the energy after a stage, as with trained codebooks
    scale = np.sqrt((1 - remaining) * remaining ** np.arange(n_q))[:, None, None]
    books = Codebooks((rng.standard_normal((n_q, size, dim)) * scale).astype(np.float32))
    x = rng.standard_normal((rows, dim)).astype(np.float32)
    kernels = dispatch.load()
    codes = codec.encode(x, books)
    used = _kernels(kernels.__name__)
    lines = [
        f"{n_q} stages of {size} codewords, dimension {dim}; {tiles.threads()} threads",
        f"kernels: {used}",
    ]
    flops = 2 * rows * dim * size * n_q
    cases: list[tuple[str, int, Callable[[], object]]] = [
        (f"encode {rows} vectors", rows, lambda: codec.encode(x, books)),
        ("encode one vector", 1, lambda: codec.encode(x[:1], books, threads=1)),
        (f"decode {rows} vectors", rows, lambda: codec.decode(codes, books)),
        (f"NumPy: product and argmin, {rows}", rows, lambda: _encode_in_numpy(x, books)),
    ]
    lines.append(f"{'':<40}{'a call':>12}{'vectors/s':>14}{'GFLOP/s':>10}")
    measured = []
    for name, count, call in cases:
        seconds = _median(call)
        rate = f"{flops / seconds / 1e9:>10.1f}" if count == rows and "decode" not in name else ""
        lines.append(f"{name:<40}{1e6 * seconds:>9.0f} us{count / seconds:>14,.0f}{rate}")
        measured.append({"what": name, "seconds": seconds, "vectors_per_second": count / seconds})
    about = {"stages": n_q, "codewords": size, "dimension": dim, "threads": tiles.threads(),
             "kernels": used, "measured": measured}  # fmt: skip
    said.result(options, about, lines)


def _kernels(name: str) -> str:
    if not name.endswith("compiled.engine"):
        return "NumPy only: Numba cannot be imported"
    from ..kernels.compiled import engine as compiled

    target = compiled.TARGET
    return f"compiled; screening passes: {', '.join(target.screens)}"


def _encode_in_numpy(x: np.ndarray, books: Codebooks) -> None:
    """Encode with a few lines of NumPy, in float32, without exact resolution of near-ties."""
    residual = x.copy()
    for stage in books:
        half = 0.5 * np.square(stage.codebook).sum(axis=1)
        residual -= stage.codebook[np.argmin(half - residual @ stage.codebook.T, axis=1)]


def _median(call: Callable[[], object]) -> float:
    call()
    begun = time.perf_counter()
    call()
    repeats = max(1, int(LEAST / max(time.perf_counter() - begun, 1e-9)))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds.append((time.perf_counter() - begun) / repeats)
    return statistics.median(seconds)
