"""Are codes, vectors, counts and sums those of NumPy, bit for bit, at real sizes?"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import rvq_np

from .context import Context


class Case(NamedTuple):
    """Encode `rows` vectors (dim,) by `stages` codebooks (size, dim); see `drawn` for `kind`."""

    dim: int
    size: int
    stages: int
    rows: int
    dtype: str = "float32"
    kind: str = "normal"

    @property
    def label(self) -> str:
        return (
            f"D={self.dim}, K={self.size}, Q={self.stages}, N={self.rows}, {self.dtype}, "
            f"{self.kind}"
        )


CASES = (
    Case(128, 1024, 8, 20000),
    Case(8, 1024, 9, 100000),
    Case(64, 1000, 4, 30000, "float16"),
    Case(128, 1000, 4, 20000, "float32", "offset"),
    Case(512, 700, 3, 5000),
    Case(700, 333, 3, 4000, "float32", "heavy"),
    Case(128, 5000, 2, 10000, "float32", "heavy"),
    Case(8, 5000, 3, 50000, "float32", "repeated"),
    Case(64, 1, 3, 5000),
    Case(1, 7, 5, 10000, "float32", "whole"),
    Case(24, 100, 4, 30000, "float32", "whole"),
    Case(3, 2, 6, 777),
    Case(128, 1000, 3, 6000, "float64"),
    Case(8, 333, 4, 20000, "float64", "offset"),
    Case(512, 129, 2, 2000, "float64", "heavy"),
    Case(2000, 70, 2, 500),
    Case(5000, 40, 2, 200),
    Case(128, 1024, 8, 1),
)
DRY = (Case(8, 20, 2, 40), Case(5, 7, 2, 33, "float64", "whole"), Case(6, 9, 2, 20, "float16"))
SHAPED = (
    Case(128, 1000, 4, 5000),
    Case(100, 513, 3, 3001, "float32", "offset"),
    Case(24, 100, 4, 5000, "float32", "whole"),
    Case(64, 333, 3, 2000, "float64", "repeated"),
)
BEAMS = (
    Case(16, 60, 4, 2000),
    Case(128, 1024, 4, 500),
    Case(6, 20, 4, 3000, "float32", "whole"),
    Case(7, 33, 3, 1000, "float64", "whole"),
    Case(20, 50, 3, 500, "float64", "offset"),
)
TALLIES = (
    Case(128, 100, 3, 50000),
    Case(20, 1000, 4, 100000, "float32", "offset"),
    Case(8, 7, 2, 1000, "float64", "heavy"),
    Case(33, 50, 2, 4097, "float16"),
)


def drawn(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (N, D) and codebooks (Q, K, D)."""
    rng = np.random.default_rng([case.dim, case.size, case.rows])
    shape = (case.stages, case.size, case.dim)
    if case.kind == "whole":  # ties everywhere
        x, books = rng.integers(-4, 5, (case.rows, case.dim)), rng.integers(-4, 5, shape)
    elif case.kind == "heavy":
        x, books = rng.standard_t(1.5, (case.rows, case.dim)), rng.standard_t(1.5, shape)
    else:
        x = rng.standard_normal((case.rows, case.dim))
        books = rng.standard_normal(shape) * 0.7 ** np.arange(case.stages)[:, None, None]
    if case.kind == "offset":
        x, books[0] = x + 50.0, books[0] + 50.0
    if case.kind == "repeated":  # duplicate codewords, rows that are codewords
        books[:, case.size // 2 :] = books[:, : case.size - case.size // 2]
        x[::3] = books[0, rng.integers(0, case.size, len(x[::3]))]
    return x.astype(case.dtype), books.astype("float64" if case.dtype == "float64" else "float32")


def ask_codes(context: Context) -> None:
    """Check codes and vectors, with the default shape of a block, then with each shape."""
    launch = import_module("rvq_np.kernels.cuda.launch")
    for case in context.size(CASES, DRY):
        _check(context, case, case.label)
    for shape in context.size(launch.SHAPES, launch.SHAPES[:1]):
        with forced(shape):
            for case in context.size(SHAPED, DRY[:1]):
                _check(context, case, f"{case.label}, blocks of {shape[0]} x {shape[1]} warps")


@contextlib.contextmanager
def forced(shape: tuple[int, int]) -> Iterator[None]:
    """Make searches use one shape of a block."""
    launch: Any = import_module("rvq_np.kernels.cuda.launch")
    before, launch.SHAPES = launch.SHAPES, (shape,)
    try:
        yield
    finally:
        launch.SHAPES = before


def _check(context: Context, case: Case, name: str, beam: int = 1) -> None:
    if context.left < 3.0:
        context.note(f"no time left for {name}")
        return
    with context.checking(name):
        x, books = drawn(case)
        stages = rvq_np.Codebooks(books)
        expected = rvq_np.encode(x, stages, beam_size=beam)
        codes = rvq_np.encode(context.xp.asarray(x), stages, beam_size=beam)
        differ = int((codes.get() != expected).any(axis=0).sum())
        vectors = rvq_np.decode(context.xp.asarray(expected), stages)
        same = np.array_equal(vectors.get(), rvq_np.decode(expected, stages))
        parts = [f"{differ} of {case.rows} rows have other codes" if differ else ""]
        parts += ["" if same else "vectors differ"]
        context.check(name, not any(parts), ", ".join(filter(None, parts)) or "same bits as NumPy")


def ask_beams(context: Context) -> None:
    """Check beams of 3 and 5, also on integers: ties between hypotheses."""
    for case in context.size(BEAMS, DRY[:2]):
        for beam in (3, 5):
            _check(context, case, f"{case.label}, beam {beam}", beam)


def ask_tally(context: Context) -> None:
    """Check counts and sums in double precision, bit for bit."""
    for case in context.size(TALLIES, DRY):
        with context.checking(case.label):
            x, books = drawn(case)
            stages = rvq_np.Codebooks(books)
            codes = rvq_np.encode(x, stages)
            expected = rvq_np.codec.tally(x, codes, stages)
            found = rvq_np.codec.tally(context.xp.asarray(x), context.xp.asarray(codes), stages)
            pairs = [zip(*each, strict=True) for each in zip(found, expected, strict=True)]
            same = [all(one.tobytes() == other.tobytes() for one, other in each) for each in pairs]
            off = [name for name, each in zip(("counts", "sums"), same, strict=True) if not each]
            detail = f"{' and '.join(off)} differ" if off else "same bits as NumPy"
            context.check(case.label, not off, detail)


def ask_torch(context: Context) -> None:
    """Check that tensors on the GPU give tensors on the GPU, with NumPy's codes."""
    if not _known("torch"):
        context.note("torch is not importable: not run.")
        return
    import torch

    if context.dry or not torch.cuda.is_available():
        context.note("torch has no GPU here: not run.")
        return
    with contextlib.suppress(ImportError):
        if not _known("array_api_compat"):
            sys.modules["array_api_compat"] = import_module("sklearn.externals.array_api_compat")
            context.note("array_api_compat is not installed: scikit-learn's copy was used.")
    for case in (Case(128, 1000, 4, 5000), Case(24, 100, 4, 5000, "float32", "whole")):
        with context.checking(case.label):
            x, books = drawn(case)
            stages = rvq_np.Codebooks(books)
            codes = rvq_np.encode(torch.from_numpy(x).cuda(), stages)
            vectors = rvq_np.decode(codes, stages)
            expected = rvq_np.encode(x, stages)
            kept = codes.is_cuda and vectors.is_cuda
            same = np.array_equal(codes.cpu().numpy(), expected)
            same &= np.array_equal(vectors.cpu().numpy(), rvq_np.decode(expected, stages))
            detail = "" if kept else "left the GPU"
            context.check(case.label, kept and same, detail or ("" if same else "other codes"))


def _known(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
