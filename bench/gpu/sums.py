"""How far do the sums of the tensor cores go astray, beside what encode.cu allows for?

Codes are exact only if no sum is off by more than `summing` of encode.cu says.  No maker of cards
documents how they add up; so this adds what is hardest to add, with the kernels' own `multiply`.
"""

from __future__ import annotations

import math
import re

import numpy as np

from rvq_np.kernels import cuda

from .desk import Desk

WIDTHS = (16, 64, 128, 512, 1024, 4096)
BLOCKS = 32  # of 16 x 8 sums each
ALLOWED = re.compile(r"__device__ __forceinline__ float summing\(int width\) \{[^}]*\}")
KERNEL = """
extern "C" __global__ void add_products(const u16* rows, const u16* words, int width, float* out,
                                        float* allowed) {
  int lane = threadIdx.x, row = lane / 4, column = lane % 4 * 2;
  const u16* mine = rows + ((i64)blockIdx.x * 16 + row) * width + column;
  const u16* theirs = words + ((i64)blockIdx.x * 8 + row) * width + column;
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int d = 0; d < width; d += 16) {
    u32 a[4] = {*(const u32*)(mine + d), *(const u32*)(mine + 8 * width + d),
                *(const u32*)(mine + d + 8), *(const u32*)(mine + 8 * width + d + 8)};
    multiply(sums, a, *(const u32*)(theirs + d), *(const u32*)(theirs + d + 8));
  }
  float* to = out + (i64)blockIdx.x * 128;
  for (int i = 0; i < 4; i++) to[(row + i / 2 * 8) * 8 + column + i % 2] = sums[i];
  if (blockIdx.x == 0 && lane == 0) allowed[0] = summing(width);
}
"""


def ask(desk: Desk) -> None:
    """Compare sums of each length with the exact ones; fail where one is off by too much."""
    xp = desk.xp
    found = ALLOWED.search(cuda.source("encode.cu"))
    if found is None:
        raise ValueError("encode.cu has no `summing` of the form this reads")
    # REAL is what the emulated card wants of any source.
    module = xp.RawModule(
        code="\n".join([cuda.source("device.cuh"), found[0], KERNEL]),
        options=("-std=c++17", "-DREAL=float"),
    )
    kernel = module.get_function("add_products")
    rng = np.random.default_rng(5)
    blocks = desk.size(BLOCKS, 2)
    for width in desk.size(WIDTHS, (16, 64)):
        with desk.checking(f"sums of {width} products"):
            worst, where, allowed = 0.0, "", xp.empty(1, np.float32)
            for name, make in OPERANDS.items():
                rows, words = make(rng, blocks, width)
                out = xp.empty((blocks, 16, 8), np.float32)
                given = [xp.asarray(each.view(np.uint16)) for each in (rows, words)]
                kernel((blocks,), (32,), (*given, np.int32(width), out, allowed))
                share = _worst(out.get(), rows, words)
                worst, where = max((worst, where), (share, name))
            most = float(allowed.get()[0])
            desk.check(
                f"sums of {width} products", worst <= most,
                f"off by at most {worst:.3g} of the sum of the products' sizes ({where}); "
                f"{most:.3g} is allowed, {worst / most:.0%} of it used",
            )  # fmt: skip


def _worst(sums: np.ndarray, rows: np.ndarray, words: np.ndarray) -> float:
    """Return the largest error, as a share of the sum of the sizes of the products."""
    worst = 0.0
    for found, own, theirs in zip(sums, rows.astype(float), words.astype(float), strict=True):
        for i, row in enumerate(own):
            for j, products in enumerate(row * theirs):  # exact: 22 bits
                size = math.fsum(np.abs(products))
                error = abs(math.fsum([*products.tolist(), -float(found[i, j])]))
                # not <=, so that a sum that is no number is the worst
                worst = worst if error <= worst * size else error / size if size else math.inf
    return worst


def _plain(rng: np.random.Generator, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, words = (rng.standard_normal((blocks, n, width)) for n in (16, 8))
    return rows.astype(np.float16), words.astype(np.float16)


def _mixed(rng: np.random.Generator, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all sizes, as far as half precision and the unit of the screen go."""
    made = []
    for n in (16, 8):
        shape = (blocks, n, width)
        size = np.exp2(rng.integers(-14, 14, shape))
        made.append((rng.uniform(1, 2, shape) * size * rng.choice([-1, 1], shape)).astype("f2"))
    return made[0], made[1]


def _lost(rng: np.random.Generator, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One large product, then small ones of one sign, each cut off in full or nearly so."""
    rows, words = (np.ones((blocks, n, width)) for n in (16, 8))
    rows *= rng.uniform(1, 2, rows.shape)
    rows *= np.exp2(rng.integers(-26, -20, (blocks, 16, 1)) / 2.0)
    words *= np.exp2(rng.integers(-26, -20, (blocks, 8, 1)) / 2.0)
    rows[:, :, 0] = words[:, :, 0] = 1.0
    return rows.astype(np.float16), words.astype(np.float16)


def _alternating(rng: np.random.Generator, blocks: int, width: int) -> tuple[np.ndarray, ...]:
    """Large products that cancel in pairs, far apart, above small ones that stay."""
    rows, words = _lost(rng, blocks, width)
    places = rng.permutation(width)[: max(2, width // 4) // 2 * 2]
    rows[:, :, places] = np.float16(1.25)
    words[:, :, places] = np.float16(1.5)
    words[:, :, places[1::2]] *= np.float16(-1.0)
    return rows, words


def _growing(rng: np.random.Generator, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of one sign and all bits set: what is cut off adds up."""
    rows, words = (np.full((blocks, n, width), 2047 / 1024) for n in (16, 8))
    rows[:, :, rng.permutation(width)[: width // 2]] = 1025 / 1024
    return rows.astype(np.float16), words.astype(np.float16)


OPERANDS = {
    "normal": _plain,
    "of all sizes": _mixed,
    "small beside large": _lost,
    "of alternating signs": _alternating,
    "of one sign": _growing,
}
