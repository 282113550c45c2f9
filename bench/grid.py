"""Encoding over a grid of dimensions and codebook sizes, and growth along one axis at a time."""

from __future__ import annotations

from collections.abc import Iterator

from . import peers
from .encoding import FAISS, NUMPY, OURS, implementations
from .problems import Problem
from .report import Answer, Check, Point, Table, plural
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

DIMS = (8, 16, 32, 64, 256, 512, 1024)
SIZES = (256, 1000, 1024, 4096)
ENOUGH = 4.0  # seconds per cell of the table, after which no further round begins
AFFORDABLE = 4e11  # operations per call above which baselines are skipped


def grid(setting: Setting, threads: int) -> Answer:
    """Is encoding fast for all dimensions and codebook sizes?"""
    dims, sizes = ((8, 64, 512), (256, 1000)) if setting.quick else (DIMS, SIZES)
    makers = {OURS: peers.ours, NUMPY: peers.numpy_loop}
    against_numpy, roofs = {}, {}
    for dim in dims:
        for size in sizes:
            problem = _affordable(dim, size, 1e9 if setting.quick else 16e9)
            seconds, roof = _measure(setting, threads, problem, makers, f"grid, {problem.label}")
            against_numpy[dim, size] = seconds[NUMPY] / seconds[OURS]
            roofs[dim, size] = problem.flops / seconds[OURS] / roof
    work = f"encode, grid of {len(dims)} D x {len(sizes)} K, the worst"
    short = {cell: value for cell, value in against_numpy.items() if cell[0] <= 64}
    long = {cell: value for cell, value in roofs.items() if cell[0] >= 64}
    checks = [
        _worst(work, f"≥ 1 x {NUMPY}", threads, against_numpy, 1),
        _worst(work, f"D ≤ 64: ≥ 2 x {NUMPY}", threads, short, 2),
        _worst(work, "D ≥ 64: ≥ 0.9 x sgemm rate", threads, long, 0.9),
    ]
    tables = [
        _square(f"Encode, D x K: times {NUMPY}", threads, against_numpy, dims, sizes),
        _square("Encode, D x K: multiple of the sgemm rate", threads, roofs, dims, sizes),
    ]
    return Answer(tables, checks)


def _affordable(dim: int, size: int, work: float) -> Problem:
    """Return four stages, and rows for a call of 10 to 200 ms.

    The cost of a codeword besides its products counts as 32 dimensions. NumPy's scores stay below
    64 MiB.
    """
    rows = min(int(work / (2 * size * 4 * (dim + 32))), (1 << 24) // size)
    return Problem(dim, size, 4, max(1, rows))


def _worst(work, target, threads, cells, bound) -> Check:
    (dim, size), value = min(cells.items(), key=lambda item: item[1])
    shown = f"{value:.2f} (D={dim}, K={size})"
    return Check(work, target, threads, value, bound, shown=shown)


def _square(title, threads, cells, dims, sizes) -> Table:
    rows = [(f"D={dim}", *(f"{cells[dim, size]:.2f}" for size in sizes)) for dim in dims]
    return Table(f"{title}; {plural(threads)}", "Q=4.", ("", *(f"K={k}" for k in sizes)), rows)


def growth(setting: Setting, threads: int) -> Answer:
    """How do the rates change with the number of vectors, codewords and stages?"""
    makers = {OURS: peers.ours, NUMPY: peers.numpy_loop, FAISS: peers.faiss_residual}
    rows: dict[str, list[tuple[str, ...]]] = {}
    points = []
    for grows, size, problem in _growing(setting.quick):
        expensive = problem.flops > AFFORDABLE
        chosen = {OURS: makers[OURS]} if expensive else makers
        question = f"growth, {problem.label}"
        seconds, roof = _measure(setting, threads, problem, chosen, question, compared=4096)
        cells = [f"{grows}={size}"]
        for name in makers:
            if name not in seconds:
                cells += ["", ""]
                continue
            rate = problem.rows / seconds[name]
            multiple = problem.flops / seconds[name] / roof
            points.append(Point(grows, size, threads, name, rate, multiple))
            cells += [f"{rate:,.0f}", f"{multiple:.2f}"]
        rows.setdefault(grows, []).append(tuple(cells))
    header = ["", *(each for name in makers for each in (name, "sgemm = 1"))]
    sizes = {"N": "D=128, K=1024, Q=8", "K": "D=128, Q=8, N=2048", "Q": "D=128, K=1024, N=4096"}
    note = "Vectors per second, and multiples of the sgemm rate. Slow calls without baselines."
    tables = []
    for grows, lines in rows.items():
        said = note if setting.quick else f"{sizes[grows]}. {note}"
        tables.append(Table(f"Growth with {grows}; {plural(threads)}", said, header, lines))
    return Answer(tables, points=points)


def _growing(quick: bool) -> Iterator[tuple[str, int, Problem]]:
    base = Problem(dim=128, size=1024, stages=8, rows=2048)
    for rows in (1, 100, 1000) if quick else (1, 10, 100, 1000, 10_000, 100_000, 1_000_000):
        yield "N", rows, base._replace(rows=rows)
    for power in (8, 10) if quick else range(8, 15):
        fewer = base._replace(rows=256) if quick else base
        yield "K", 1 << power, fewer._replace(size=1 << power)
    for stages in (1, 4) if quick else (1, 2, 4, 8, 16, 32):
        yield "Q", stages, base._replace(stages=stages, rows=256 if quick else 4096)


def _measure(
    setting: Setting, threads: int, problem: Problem, makers, question: str, compared=None
) -> tuple[dict[str, float], float]:
    """Return seconds by implementation, and the operations per second of sgemm."""
    x, codebooks = problem.data()
    sgemm = setting.small_sgemm
    with fixed_threads(threads):
        calls, _ = implementations(makers, codebooks, x, compared)
        sgemm()
        seconds = round_robin(
            {**calls, sgemm.name: sgemm}, 3, f"{question}, {plural(threads)}", ENOUGH
        )
    return seconds, sgemm.flops / seconds.pop(sgemm.name)
