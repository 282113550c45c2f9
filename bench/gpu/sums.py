"""Are the rounding errors of the tensor cores within the bound that encode.cu assumes?

Codes are exact only if no sum has a larger error than `summing` of encode.cu.  The order and
rounding of these sums are not documented; so this measures the hardest cases, with the kernels' own
`multiply`.
"""

from __future__ import annotations

import math
import re
from importlib import import_module
from typing import NamedTuple

import numpy as np

from rvq_np.kernels import cuda

from .context import Context

Pair = tuple[np.ndarray, np.ndarray]
Counts = tuple[int, int]  # of rows and codewords per block
WIDTHS = (16, 64, 128, 512, 1024, 4096)
BLOCKS = 32  # of 16 x 8 sums each
ALLOWED = re.compile(r"__device__ __forceinline__ float summing\(int width\) \{[^}]*\}")
KERNEL = """
extern "C" __global__ void add_products(const u16* rows, const u16* codewords, int width,
                                        float* out, float* allowed) {
  int lane = threadIdx.x, row = lane / 4, column = lane % 4 * 2;
  const u16* mine = rows + ((i64)blockIdx.x * 16 + row) * width + column;
  const u16* theirs = codewords + ((i64)blockIdx.x * 8 + row) * width + column;
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


WIDE_KERNEL = """
extern "C" __global__ void add_products(const u16* rows, const u16* codewords, int width,
                                        float* out, float* allowed) {
  u16 *own = (u16*)shared_memory(), *theirs = own + 64 * 16;
  float sums[16][4] = {};
  for (int d = 0; d < width; d += 16) {
    for (int i = threadIdx.x; i < (64 + 128) * 16; i += 128) {
      int row = i / 16, k = i % 16, count = row < 64 ? 64 : 128;
      const u16* from = row < 64 ? rows + ((i64)blockIdx.x * 64 + row) * width
                                 : codewords + ((i64)blockIdx.x * 128 + row - 64) * width;
      u16* to = row < 64 ? own : theirs;
      to[k / 8 * count * 8 + row % 64 * 8 + (row >= 128) * 512 + k % 8] = from[d + k];
    }
    show_to_products();
    __syncthreads();
    products_begin();
    multiply_wide(sums, operand(own, 64 * 8), operand(theirs, 128 * 8), d > 0);
    products_end();
    products_wait(sums);
    __syncthreads();
  }
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  float* to = out + (i64)blockIdx.x * 64 * 128;
  for (int eight = 0; eight < 16; eight++) {
    for (int i = 0; i < 4; i++) {
      to[(row + i / 2 * 8) * 128 + eight * 8 + lane % 4 * 2 + i % 2] = sums[eight][i];
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) allowed[0] = summing(width);
}
"""


class Form(NamedTuple):
    """How a kernel multiplies: rows and codewords per block, number of threads."""

    name: str
    source: str
    rows: int
    codewords: int
    threads: int
    shared: int
    options: tuple[str, ...]


FORMS = (
    Form("", KERNEL, 16, 8, 32, 0, ()),
    Form(" by wgmma", WIDE_KERNEL, 64, 128, 128, 192 * 32, ("-DWGMMA=1", "-arch=sm_90a")),
)


def ask(context: Context) -> None:
    """Compare sums of each length with the exact ones; fail where an error is too large."""
    launches = import_module("rvq_np.kernels.cuda.launch")
    together = launches._device(context.xp.cuda.Device().id)[2]
    for form in FORMS if together else FORMS[:1]:
        with context.checking(f"sums{form.name}"):
            _ask(context, form)


def _ask(context: Context, form: Form) -> None:
    xp = context.xp
    found = ALLOWED.search(cuda.source("encode.cu"))
    if found is None:
        raise ValueError("encode.cu has no `summing` of the expected form")
    # The emulated GPU requires REAL of any source.
    module = xp.RawModule(
        code="\n".join([cuda.source("device.cuh"), found[0], form.source]),
        options=("-std=c++17", "-DREAL=float", *form.options),
    )
    kernel = module.get_function("add_products")
    rng = np.random.default_rng(5)
    blocks = context.size(max(1, BLOCKS * 128 // (form.rows * form.codewords)), 1)
    for width in context.size(WIDTHS, (16, 64)):
        with context.checking(f"sums of {width} products{form.name}"):
            worst, where, allowed = 0.0, "", xp.empty(1, np.float32)
            for name, make in OPERANDS.items():
                rows, codewords = make(rng, blocks, width, (form.rows, form.codewords))
                out = xp.empty((blocks, form.rows, form.codewords), np.float32)
                given = [xp.asarray(each.view(np.uint16)) for each in (rows, codewords)]
                kernel(
                    (blocks,), (form.threads,), (*given, np.int32(width), out, allowed),
                    shared_mem=form.shared,
                )  # fmt: skip
                share = _worst(out.get(), rows, codewords)
                worst, where = max((worst, where), (share, name))
            most = float(allowed.get()[0])
            context.check(
                f"sums of {width} products{form.name}", worst <= most,
                f"largest error {worst:.3g} of the sum of absolute products ({where}); "
                f"{most:.3g} is allowed, {worst / most:.0%} of it used",
            )  # fmt: skip


def _worst(sums: np.ndarray, rows: np.ndarray, codewords: np.ndarray) -> float:
    """Return the largest error, as a share of the sum of the absolute products."""
    worst = 0.0
    for found, own, theirs in zip(sums, rows.astype(float), codewords.astype(float), strict=True):
        for i, row in enumerate(own):
            for j, products in enumerate(row * theirs):  # exact: 22 bits
                size = math.fsum(np.abs(products))
                error = abs(math.fsum([*products.tolist(), -float(found[i, j])]))
                # not <=, so that NaN is the worst
                worst = worst if error <= worst * size else error / size if size else math.inf
    return worst


def _plain(rng: np.random.Generator, blocks: int, width: int, counts: Counts) -> Pair:
    rows, codewords = (rng.standard_normal((blocks, n, width)) for n in counts)
    return rows.astype(np.float16), codewords.astype(np.float16)


def _mixed(rng: np.random.Generator, blocks: int, width: int, counts: Counts) -> Pair:
    """Numbers of all magnitudes within half precision and the unit of the screening pass."""
    made = []
    for n in counts:
        shape = (blocks, n, width)
        size = np.exp2(rng.integers(-14, 14, shape))
        made.append((rng.uniform(1, 2, shape) * size * rng.choice([-1, 1], shape)).astype("f2"))
    return made[0], made[1]


def _lost(rng: np.random.Generator, blocks: int, width: int, counts: Counts) -> Pair:
    """One large product, then small ones of one sign, each truncated fully or nearly so."""
    rows, codewords = (np.ones((blocks, n, width)) for n in counts)
    rows *= rng.uniform(1, 2, rows.shape)
    rows *= np.exp2(rng.integers(-26, -20, (blocks, counts[0], 1)) / 2.0)
    codewords *= np.exp2(rng.integers(-26, -20, (blocks, counts[1], 1)) / 2.0)
    rows[:, :, 0] = codewords[:, :, 0] = 1.0
    return rows.astype(np.float16), codewords.astype(np.float16)


def _alternating(rng: np.random.Generator, blocks: int, width: int, counts: Counts) -> Pair:
    """Large products that cancel in pairs, far apart, and small ones that remain."""
    rows, codewords = _lost(rng, blocks, width, counts)
    places = rng.permutation(width)[: max(2, width // 4) // 2 * 2]
    rows[:, :, places] = np.float16(1.25)
    codewords[:, :, places] = np.float16(1.5)
    codewords[:, :, places[1::2]] *= np.float16(-1.0)
    return rows, codewords


def _growing(rng: np.random.Generator, blocks: int, width: int, counts: Counts) -> Pair:
    """Products of one sign with all bits set: truncation errors add up."""
    rows, codewords = (np.full((blocks, n, width), 2047 / 1024) for n in counts)
    rows[:, :, rng.permutation(width)[: width // 2]] = 1025 / 1024
    return rows.astype(np.float16), codewords.astype(np.float16)


OPERANDS = {
    "normal": _plain,
    "of all sizes": _mixed,
    "small after large": _lost,
    "of alternating signs": _alternating,
    "of one sign": _growing,
}
