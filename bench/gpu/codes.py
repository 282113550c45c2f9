"""Are codes, vectors and tallies those of NumPy, bit for bit, at the sizes of real work?"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import rvq_np

from .desk import Desk


class Case(NamedTuple):
    """Encode `rows` vectors of length `dim`, by `stages` of `words`; see `drawn` for `kind`."""

    dim: int
    words: int
    stages: int
    rows: int
    dtype: str = "float32"
    kind: str = "normal"

    @property
    def label(self) -> str:
        return (
            f"D={self.dim}, K={self.words}, Q={self.stages}, N={self.rows}, {self.dtype}, "
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
    rng = np.random.default_rng([case.dim, case.words, case.rows])
    shape = (case.stages, case.words, case.dim)
    if case.kind == "whole":  # ties everywhere
        x, books = rng.integers(-4, 5, (case.rows, case.dim)), rng.integers(-4, 5, shape)
    elif case.kind == "heavy":
        x, books = rng.standard_t(1.5, (case.rows, case.dim)), rng.standard_t(1.5, shape)
    else:
        x = rng.standard_normal((case.rows, case.dim))
        books = rng.standard_normal(shape) * 0.7 ** np.arange(case.stages)[:, None, None]
    if case.kind == "offset":
        x, books[0] = x + 50.0, books[0] + 50.0
    if case.kind == "repeated":  # words that are repeats, rows that are words
        books[:, case.words // 2 :] = books[:, : case.words - case.words // 2]
        x[::3] = books[0, rng.integers(0, case.words, len(x[::3]))]
    return x.astype(case.dtype), books.astype("float64" if case.dtype == "float64" else "float32")


def ask_codes(desk: Desk) -> None:
    """Codes and vectors, by the shape of a block that the library takes, then by each."""
    launch = import_module("rvq_np.backends._cuda_launch")
    for case in desk.size(CASES, DRY):
        _check(desk, case, case.label)
    for shape in desk.size(launch.SHAPES, launch.SHAPES[:1]):
        with forced(shape):
            for case in desk.size(SHAPED, DRY[:1]):
                _check(desk, case, f"{case.label}, blocks of {shape[0]} x {shape[1]} warps")


@contextlib.contextmanager
def forced(shape: tuple[int, int]) -> Iterator[None]:
    """Let searches take one shape of a block."""
    launch: Any = import_module("rvq_np.backends._cuda_launch")
    before, launch.SHAPES = launch.SHAPES, (shape,)
    try:
        yield
    finally:
        launch.SHAPES = before


def _check(desk: Desk, case: Case, name: str, beam: int = 1) -> None:
    if desk.left < 3.0:
        desk.note(f"no time left for {name}")
        return
    with desk.checking(name):
        x, books = drawn(case)
        stages = rvq_np.Codebooks(books)
        expected = rvq_np.encode(x, stages, beam_size=beam)
        codes = rvq_np.encode(desk.xp.asarray(x), stages, beam_size=beam)
        differ = int((codes.get() != expected).any(axis=0).sum())
        vectors = rvq_np.decode(desk.xp.asarray(expected), stages)
        same = np.array_equal(vectors.get(), rvq_np.decode(expected, stages))
        parts = [f"{differ} of {case.rows} rows have other codes" if differ else ""]
        parts += ["" if same else "vectors differ"]
        desk.check(name, not any(parts), ", ".join(filter(None, parts)) or "the bits of NumPy")


def ask_beams(desk: Desk) -> None:
    """Beams of three and five, whole numbers included: ties between hypotheses."""
    for case in desk.size(BEAMS, DRY[:2]):
        for beam in (3, 5):
            _check(desk, case, f"{case.label}, beam {beam}", beam)


def ask_tally(desk: Desk) -> None:
    """Counts and sums in double precision, to the last bit."""
    for case in desk.size(TALLIES, DRY):
        with desk.checking(case.label):
            x, books = drawn(case)
            stages = rvq_np.Codebooks(books)
            codes = rvq_np.encode(x, stages)
            wanted = rvq_np.codec.tally(x, codes, stages)
            found = rvq_np.codec.tally(desk.xp.asarray(x), desk.xp.asarray(codes), stages)
            pairs = [zip(*each, strict=True) for each in zip(found, wanted, strict=True)]
            same = [all(one.tobytes() == other.tobytes() for one, other in each) for each in pairs]
            off = [name for name, each in zip(("counts", "sums"), same, strict=True) if not each]
            detail = f"{' and '.join(off)} differ" if off else "the bits of NumPy"
            desk.check(case.label, not off, detail)


def ask_torch(desk: Desk) -> None:
    """Tensors on the card give tensors on the card, with NumPy's codes."""
    if not _known("torch"):
        desk.note("torch is not importable: not asked.")
        return
    import torch

    if desk.dry or not torch.cuda.is_available():
        desk.note("torch has no card here: not asked.")
        return
    with contextlib.suppress(ImportError):
        if not _known("array_api_compat"):
            sys.modules["array_api_compat"] = import_module("sklearn.externals.array_api_compat")
            desk.note("array_api_compat is not installed: scikit-learn's copy stood in for it.")
    for case in (Case(128, 1000, 4, 5000), Case(24, 100, 4, 5000, "float32", "whole")):
        with desk.checking(case.label):
            x, books = drawn(case)
            stages = rvq_np.Codebooks(books)
            codes = rvq_np.encode(torch.from_numpy(x).cuda(), stages)
            vectors = rvq_np.decode(codes, stages)
            expected = rvq_np.encode(x, stages)
            kept = codes.is_cuda and vectors.is_cuda
            same = np.array_equal(codes.cpu().numpy(), expected)
            same &= np.array_equal(vectors.cpu().numpy(), rvq_np.decode(expected, stages))
            detail = "" if kept else "left the card"
            desk.check(case.label, kept and same, detail or ("" if same else "other codes"))


def _known(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
