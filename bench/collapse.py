"""Degenerate data: equal or nearly equal codewords, common offsets, tiny or huge numbers."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch
from rvq_np.kernels.compiled import engine as compiled

from .report import Answer, Check, Table, duration, plural
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

ORDINARY, OURS, ESPNET = "ordinary", "rvq_np", "ESPnet's class"
WIDE, MAPPED = "ordinary, float64", "ordinary, mapped to 256 numbers"
ALLOWED = 3  # times the time of ordinary data,
SHARED = {  # and where codewords share much, twice
    "an offset of 1000": 2,
    "an offset of 1000 at every stage": 2,
    "an offset of 1000 of the vectors only": 2,
    "codewords within 1e-4 of each other": 2,
    "the same, and vectors as near": 2,
    "groups of 8 codewords within 1e-4": 2,
    "groups of 32 codewords within 1e-4": 2,
    "groups of 128 codewords within 1e-4": 2,
    "groups of 32, and vectors as near": 2,
    "mapped to 256 numbers, codewords within 1e-4": 2,
}


def kinds(rows: int, dim: int, size: int, stages: int) -> dict[str, tuple]:
    """Return vectors (rows, dim) and codebooks (stages, size, dim) of each kind of data."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, dim), dtype=np.float32)
    books = rng.standard_normal((stages, size, dim), dtype=np.float32)
    point = rng.standard_normal(dim, dtype=np.float32)
    ulps = np.float32(2.0**-23) * np.abs(point)

    def near(count):
        return point + ulps * rng.integers(-4, 5, (*count, dim)).astype(np.float32)

    close = near((stages, size))[: stages // 2]
    shared = books.copy()
    shared[0] += np.float32(1e4)
    lattice = rng.integers(-4, 5, (rows, dim)), rng.integers(-4, 5, (stages, size, dim))
    twice = books.copy()
    twice[:, size // 2 :] = twice[:, : size - size // 2]
    mixed = np.float32(2.0) ** rng.integers(-140, 1, (size, 1)).astype(np.float32)
    half = rng.random((size, 1)) < 0.5
    wide = x.astype(np.float64), books.astype(np.float64)
    offset, tight = np.float32(1000), point + np.float32(1e-4) * books
    first = books.copy()
    first[0] += offset
    mapped = rng.standard_normal((stages, size, 2 * dim), dtype=np.float32)
    into = [rng.standard_normal((2 * dim, dim)) / np.sqrt(dim) for _ in range(stages)]

    def groups(count):
        which = rng.permutation(size) // count
        middles = rng.standard_normal((stages, -(-size // count), dim), dtype=np.float32)
        return middles[:, which] + np.float32(1e-4) * books

    thirty = groups(32)
    return {
        ORDINARY: (x, books),
        "all zero": (0 * x, 0 * books),
        "codewords all equal": (x, np.repeat(books[:, :1], size, axis=1)),
        "every codeword twice": (x, twice),
        "vectors that are codewords": (books[0][rng.integers(size, size=rows)], books),
        "an offset of 10,000": (x + np.float32(1e4), shared),
        "an offset of 1000": (x + offset, first),
        "an offset of 1000 at every stage": (x + offset, books + offset),
        "an offset of 1000 of the vectors only": (x + offset, books),
        "codewords within 1e-4 of each other": (x, tight),
        "the same, and vectors as near": (point + np.float32(1e-4) * x, tight),
        "groups of 8 codewords within 1e-4": (x, groups(8)),
        "groups of 32 codewords within 1e-4": (x, thirty),
        "groups of 128 codewords within 1e-4": (x, groups(128)),
        "groups of 32, and vectors as near": (
            thirty[0][rng.integers(size, size=rows)] + np.float32(1e-4) * x,
            thirty,
        ),
        MAPPED: (x, _mapped(mapped, into)),
        "mapped to 256 numbers, codewords within 1e-4": (
            x,
            _mapped(mapped[:, :1] + np.float32(1e-4) * mapped, into),
        ),
        "mapped to 256 numbers, an offset of 1000": (x, _mapped(mapped + offset, into, offset)),
        "all a few ulps apart": (near((rows,)), np.concatenate([close, close - point])[:stages]),
        "half the codewords a few ulps apart": (
            np.where(half[rng.integers(size, size=rows)], near((rows,)), x),
            np.where(half, near((stages, size)), books),
        ),
        "a lattice": tuple(np.float32(each) for each in lattice),
        "subnormal, 1e-42": (x * np.float32(1e-42), books * np.float32(1e-42)),
        "huge, 1e36": (x * np.float32(1e36), books * np.float32(1e36)),
        "vectors 1e30 times as long": (x * np.float32(1e30), books),
        "codewords of 1e-42 to 1": (x * mixed[rng.integers(size, size=rows)], books * mixed),
        WIDE: (wide[0], wide[1]),
        "float64, 1e-290": (wide[0] * 1e-290, wide[1] * 1e-290),
        "float64, 1e290": (wide[0] * 1e290, wide[1] * 1e290),
    }


def _mapped(codewords, into, bias=0.0):
    """Return stages that are searched in more dimensions, and decode by the pseudo-inverse."""
    return [
        rvq_np.Stage(
            each,
            rvq_np.Linear(np.float32(map_in), np.full(len(map_in), bias, np.float32)),
            rvq_np.Linear(
                np.float32(np.linalg.pinv(map_in)), np.zeros(map_in.shape[1], np.float32)
            ),
        )
        for each, map_in in zip(codewords, into, strict=True)
    ]


def collapsed(setting: Setting, threads: int) -> Answer:
    """How much longer does encoding take where data are degenerate?"""
    rows, dim, size, stages = (512 if setting.quick else 4096), 128, 1024, 4
    label = f"D={dim}, K={size}, Q={stages}, N={rows}"
    dispatch.load()
    calls = {}
    with fixed_threads(threads):
        for name, (x, books) in kinds(rows, dim, size, stages).items():
            calls[name] = partial(rvq_np.encode, x, rvq_np.Codebooks(books))
            for _ in range(4):  # the screening pass is selected by measuring
                calls[name]()
        seconds = round_robin(calls, setting.rounds, f"degenerate, {label}, {plural(threads)}")
    found = []
    for name, each in seconds.items():
        reference = WIDE if "float64" in name else MAPPED if "mapped" in name else ORDINARY
        found.append((name, duration(each), each / seconds[reference]))
    note = (
        f"SIMD vectors of {compiled.TARGET.lanes} floats; screening passes: "
        f"{', '.join(compiled.SCREENS)}. Ratios to ordinary data of the same float type "
        "and with the same maps."
    )
    table = Table(
        f"Degenerate data, {label}; {plural(threads)}", note, ("data", "a call", "times ordinary"),
        [(name, time, f"{times:.2f}") for name, time, times in found],
    )  # fmt: skip
    worst = max(times for *_, times in found)
    target = f"≤ {ALLOWED} x ordinary data"
    checks = [Check(f"degenerate data, {label}", target, threads, worst, ALLOWED, False)]
    for name, bound in SHARED.items():
        value = next(times for each, _, times in found if each == name)
        target = f"≤ {bound} x ordinary data"
        checks.append(Check(f"{name}, {label}", target, threads, value, bound, False))
    return Answer([table], checks)


def first_batch(setting: Setting, threads: int) -> Answer:
    """How long does the first training call take at the defaults, k-means of few vectors?"""
    tables, checks = [], []
    dispatch.load()
    for rows in (500,) if setting.quick else (1000, 4000):
        x = np.random.default_rng(0).standard_normal((rows, 256), dtype=np.float32)
        label = f"first batch of {rows} vectors, k-means of 3 iterations, defaults"
        calls = {}
        with fixed_threads(threads):
            for name, make in ((OURS, _ours), (ESPNET, _espnet)):
                try:
                    make(x)()
                    calls[name] = make(x)
                except ImportError as error:
                    print(f"skipped {name}: {error}", file=sys.stderr)
            seconds = round_robin(calls, min(3, setting.rounds), f"{label}, {plural(threads)}")
        lines = [(name, duration(each), f"{seconds[OURS] / each:.2f}")
                 for name, each in sorted(seconds.items(), key=lambda item: item[1])]  # fmt: skip
        tables.append(Table(f"A {label}; {plural(threads)}", "", ("", "a call", "ours = 1"), lines))
        if ESPNET in seconds:
            value = seconds[OURS] / seconds[ESPNET]
            target = f"≤ 1 x the time of {ESPNET}"
            checks.append(Check(label, target, threads, value, 1, False))
    return Answer(tables, checks)


def _ours(x):
    def run():
        made = rvq_np.ResidualVectorQuantizer(256, 512, 8, 1024, kmeans_iters=3, rng=0)
        return made(x, 50)

    return run


def _espnet(x):
    import torch
    from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer

    batch = torch.from_numpy(np.ascontiguousarray(x.T[None]))

    @torch.no_grad()
    def run():
        made = ResidualVectorQuantizer(256, 512, 8, 1024, kmeans_iters=3)
        return made.train()(batch, 50)

    return run
