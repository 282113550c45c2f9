"""How small is the error at equal bytes? rvq_np, fitted and refined, beside Faiss.

    python -m bench.quality --data sift.npz              # all methods; writes RESULTS-quality.md
    python -m bench.quality --data sift.npz --only fit refined --output mine.md

The file holds arrays `train` (N, D) and `test` (M, D) of different sources, say descriptors of
different images.  Errors are squared, summed over the dimensions, means over the vectors of `test`.
Training times include everything from vectors to codebooks, on as many threads for all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import train

from .machine import ROOT, Neighbours, facts
from .report import Table
from .threads import fixed_threads, imported

SIZE = 256  # codewords per codebook: a byte a stage
BEAMS = (1, 5, 16, 32)
LSQ_ROWS = 50_000  # LSQ takes an hour for twice as many


class Method(NamedTuple):
    """A way to train, and to encode and decode by a beam."""

    make: Callable[[np.ndarray, int], Any]
    reproduce: Callable[[Any, np.ndarray, int], np.ndarray]  # what the codes decode to
    beams: tuple[int, ...]


def _fit(x: np.ndarray, stages: int, refine: Any = False) -> Any:
    states = train.fit(x, stages, SIZE, 50, 0, rows_per_codeword=None, refine=refine)
    return train.codebooks_of(states)


def _ours(codebooks: Any, x: np.ndarray, beam: int) -> np.ndarray:
    return rvq_np.decode(rvq_np.encode(x, codebooks, beam_size=beam), codebooks)


def _residual(x: np.ndarray, stages: int, beam: int) -> Any:
    import faiss

    made = faiss.ResidualQuantizer(x.shape[1], stages, 8)
    made.max_beam_size = beam
    made.train(x)
    return made


def _product(x: np.ndarray, stages: int) -> Any:
    import faiss

    made = faiss.ProductQuantizer(x.shape[1], stages, 8)
    made.train(x)
    return made


def _local_search(x: np.ndarray, stages: int) -> Any:
    import faiss

    made = faiss.LocalSearchQuantizer(x.shape[1], stages, 8)
    made.train(x[:LSQ_ROWS])
    return made


def _theirs(made: Any, x: np.ndarray, beam: int) -> np.ndarray:
    if hasattr(made, "max_beam_size"):
        made.max_beam_size = beam
    return made.decode(made.compute_codes(x))


METHODS = {
    "fit": Method(_fit, _ours, BEAMS),
    "refined": Method(partial(_fit, refine=True), _ours, BEAMS),
    "refined, no prefixes": Method(partial(_fit, refine={"prefixes": 0}), _ours, BEAMS),
    "Faiss PQ": Method(_product, _theirs, (1,)),
    "Faiss RQ, trained at beam 1": Method(partial(_residual, beam=1), _theirs, BEAMS),
    "Faiss RQ, trained at beam 5": Method(partial(_residual, beam=5), _theirs, BEAMS),
    "Faiss LSQ": Method(_local_search, _theirs, (1,)),
}


def errors(made: Any, method: Method, x: np.ndarray) -> Iterator[float]:
    """Yield the mean squared error for each beam."""
    for beam in method.beams:
        yield float(np.square(x - method.reproduce(made, x, beam)).sum(axis=1).mean())


def prefixes(codebooks: Any, x: np.ndarray, beam: int) -> list[float]:
    """Return the mean squared error of the first stage, the first two, and so on."""
    codes = rvq_np.encode(x, codebooks, beam_size=beam)
    return [
        float(np.square(x - rvq_np.decode(codes[:n], codebooks)).sum(axis=1).mean())
        for n in range(1, len(codes) + 1)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--data", required=True, help="an .npz with arrays train and test")
    parser.add_argument("--stages", type=int, default=8, help="stages of 256 codewords")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", default=str(ROOT / "bench" / "RESULTS-quality.md"))
    chosen = parser.parse_args(arguments)
    data = np.load(chosen.data)
    x, held_out = (data[name].astype(np.float32) for name in ("train", "test"))
    rvq_np.warmup()
    if imported("faiss") is None:
        chosen.only = [name for name in chosen.only if "Faiss" not in name]
    around = Neighbours()
    with fixed_threads(chosen.threads):
        for tables in measured(chosen, x, held_out):  # after each method: they take long
            write(chosen.output, tables, arguments, around)


def write(
    output: str, tables: list[Table], arguments: list[str] | None, around: Neighbours
) -> None:
    """Write the report."""
    command = "python -m bench.quality " + " ".join(
        sys.argv[1:] if arguments is None else arguments
    )
    text = "\n".join(["# Quality", "", *map(str, tables), facts(command, around.cores())])
    Path(output).write_text(text, encoding="utf-8")


def measured(
    chosen: argparse.Namespace, x: np.ndarray, held_out: np.ndarray
) -> Iterator[list[Table]]:
    """Train and encode by each method that was chosen; yield the tables so far."""
    rows, shorter = [], []
    for name in chosen.only:
        method, start = METHODS[name], time.perf_counter()
        made = method.make(x, chosen.stages)
        seconds = time.perf_counter() - start
        found = [f"{each:,.5g}" for each in errors(made, method, held_out)]
        rows.append((name, f"{seconds:,.0f} s", *found, *[""] * (len(BEAMS) - len(found))))
        if method.reproduce is _ours:
            shorter.append((name, *(f"{each:,.5g}" for each in prefixes(made, held_out, 16))))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
        yield drawn(chosen, len(x), held_out, rows, shorter)


def drawn(
    chosen: argparse.Namespace, count: int, held_out: np.ndarray, rows: list, shorter: list
) -> list[Table]:
    """Return the tables."""
    note = (
        f"`{Path(chosen.data).name}`, {count:,} vectors of {held_out.shape[1]} to train on, "
        f"{len(held_out):,} held out; {chosen.stages} stages of {SIZE}: {chosen.stages} bytes a "
        f"vector; {chosen.threads} threads. Faiss LSQ is trained on the first {LSQ_ROWS:,} vectors "
        "and encodes by its own search."
    )
    header = ("method", "training", *(f"beam {each}" for each in BEAMS))
    tables = [Table(f"Error at {chosen.stages} bytes", note, header, rows)]
    if shorter:
        stages = range(1, chosen.stages + 1)
        tables.append(
            Table(
                "Prefixes of the codes of beam 16",
                "",
                ("method", *(f"n = {n}" for n in stages)),
                shorter,
            )
        )
    return tables


if __name__ == "__main__":
    main()
