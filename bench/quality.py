"""How small is the error at equal bytes? rvq_np, fitted and refined, beside Faiss, in one run.

    python -m bench.quality --data sift.npz      # everything
    python -m bench.quality --data sift.npz --bytes 8 --on SIFT --only fit refined  # adds to it
    python -m bench.quality --speed              # the section on speed alone

The file holds arrays `train` (N, D) and `test` (M, D) of different sources, say descriptors of
different images; embeddings are those that the package wordllama ships.  Errors are squared, summed
over the dimensions, means over held-out vectors.  Training times include everything from vectors to
codebooks, on as many threads for all.  What was measured is kept in ``quality.json``; tables and
the plot are made of all that is there.  Sections of the report that are not measured stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import train

from . import quality_report, quality_speed
from .corpora import embeddings
from .machine import ROOT, Neighbours, facts
from .report import section
from .threads import fixed_threads, imported

SIZE = 256  # codewords per codebook: a byte a stage
BEAMS = (1, 5, 16, 32)
LSQ = {8: (50_000, 25), 16: (20_000, 10)}  # rows and iterations of LSQ: it takes long
POINTS = Path(__file__).with_name("quality.json")
HEADING, SPEED = "# Quality", "# Speed of training and of beams"
RESULTS = Path(__file__).with_name("RESULTS-quality.md")
PLOT = ROOT / "docs" / "_static" / "quality.svg"
HELD_OUT = 6000  # embeddings
BATCH, STEPS = 256, 400  # of online training


class Method(NamedTuple):
    """A way to train, and to encode and decode by a beam."""

    make: Callable[[np.ndarray, int], Any]
    reproduce: Callable[[Any, np.ndarray, int], np.ndarray]  # what the codes decode to
    beams: tuple[int, ...]


def _fit(x: np.ndarray, stages: int, refine: Any) -> Any:
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
    rows, made.train_iters = LSQ.get(stages, LSQ[16])
    made.train(x[:rows])
    return made


def _theirs(made: Any, x: np.ndarray, beam: int) -> np.ndarray:
    if hasattr(made, "max_beam_size"):
        made.max_beam_size = beam
    return made.decode(made.compute_codes(x))


METHODS = {
    "fit": Method(partial(_fit, refine=False), _ours, BEAMS),
    "fit, refine=None": Method(partial(_fit, refine=None), _ours, BEAMS),
    "refined, 20 iterations": Method(partial(_fit, refine={"iterations": 20}), _ours, BEAMS),
    "refined": Method(partial(_fit, refine=True), _ours, BEAMS),
    "refined, prefixes=0.1": Method(partial(_fit, refine={"prefixes": 0.1}), _ours, BEAMS),
    "Faiss PQ": Method(_product, _theirs, (1,)),
    "Faiss RQ, trained at beam 1": Method(partial(_residual, beam=1), _theirs, BEAMS),
    "Faiss RQ, trained at beam 5": Method(partial(_residual, beam=5), _theirs, BEAMS),
    "Faiss LSQ": Method(_local_search, _theirs, (1,)),
}

ONLINE: dict[str, dict[str, Any]] = {
    "threshold 2 (ESPnet's rule)": {},
    "threshold 0": {"threshold_ema_dead_code": 0},
    "threshold_ema_dead_code=None": {"threshold_ema_dead_code": None},
}


def data(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return vectors to train on and held-out ones, by their names."""
    held = np.load(path)
    found = {"SIFT": (held["train"].astype(np.float32), held["test"].astype(np.float32))}
    if imported("wordllama") is not None:
        rows = embeddings().astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows[np.random.default_rng(0).permutation(len(rows))]
        found["embeddings"] = rows[HELD_OUT:], rows[:HELD_OUT]
    return found


def errors(made: Any, method: Method, x: np.ndarray) -> list[float]:
    """Return the mean squared error for each beam."""
    return [
        float(np.square(x - method.reproduce(made, x, beam)).sum(axis=1, dtype=np.float64).mean())
        for beam in method.beams
    ]


def prefixes(codebooks: Any, x: np.ndarray, beam: int) -> list[float]:
    """Return the mean squared error of the first stage, the first two, and so on."""
    codes = rvq_np.encode(x, codebooks, beam_size=beam)
    return [
        float(np.square(x - rvq_np.decode(codes[:n], codebooks)).sum(axis=1).mean())
        for n in range(1, len(codes) + 1)
    ]


def online(x: np.ndarray, held_out: np.ndarray, arguments: dict[str, Any]) -> list[Any]:
    """Return how the error falls while a quantizer of 3 stages learns from small batches."""
    rvq = rvq_np.ResidualVectorQuantizer(x.shape[1], x.shape[1], 3, SIZE, rng=0, **arguments)
    order, found = np.random.default_rng(1), []
    for step in range(1, STEPS + 1):
        rvq.train()(x[order.choice(len(x), BATCH, replace=False)], 50)
        if step % 20 == 0:
            books = rvq.codebooks
            left = held_out - rvq_np.decode(rvq_np.encode(held_out, books), books)
            found.append((step, float(np.square(left).sum(axis=1).mean())))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report and the plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--data", help="an .npz with arrays train and test")
    parser.add_argument("--speed", action="store_true", help="of training and of beams, alone")
    parser.add_argument("--bytes", nargs="+", type=int, default=[8, 16], help="stages of 256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--on", nargs="+", default=["SIFT", "embeddings"])
    parser.add_argument("--only", nargs="*", choices=[*METHODS, "online"])
    chosen = parser.parse_args(arguments)
    around = Neighbours()
    given = " ".join(
        Path(each).name if "/" in each else each
        for each in (sys.argv[1:] if arguments is None else arguments)
    )
    if chosen.data is None and not chosen.speed:
        parser.error("expected --data, an .npz with arrays train and test, or --speed")
    everything = chosen.only is None and not chosen.speed
    if chosen.speed or everything:
        text = quality_speed.measured(chosen.threads)
        text += facts(f"python -m bench.quality {given}", around.cores())
        section(RESULTS, SPEED, text)
    if chosen.speed:
        return
    if chosen.only is None:
        POINTS.unlink(missing_ok=True)
        chosen.only = [*METHODS, "online"]
    if imported("faiss") is None:
        chosen.only = [name for name in chosen.only if "Faiss" not in name]
    rvq_np.warmup()
    with fixed_threads(chosen.threads):
        for on, (x, held_out) in data(chosen.data).items():
            if on in chosen.on:
                for name in chosen.only:
                    for stages in chosen.bytes if name != "online" else [3]:
                        measure(on, name, stages, x, held_out)
    points = json.loads(POINTS.read_text()) if POINTS.exists() else []
    text = quality_report.written(points)
    text += facts(f"python -m bench.quality {given}", around.cores())
    section(RESULTS, HEADING, text)
    quality_report.draw(PLOT, points)


def measure(on: str, name: str, stages: int, x: np.ndarray, held_out: np.ndarray) -> None:
    """Train and encode by a method, and keep what was found."""
    common = {"on": on, "method": name, "bytes": stages, "rows": len(x), "held out": len(held_out)}
    if name == "online":
        for way, arguments in ONLINE.items():
            keep({**common, "way": way, "steps": online(x, held_out, arguments)})
        return
    method, start, around = METHODS[name], time.perf_counter(), Neighbours()
    made = method.make(x, stages)
    point = {**common, "seconds": round(time.perf_counter() - start, 1)}
    now = datetime.datetime.now(datetime.UTC)
    point["busy"], point["when"] = round(around.cores() or 0, 2), f"{now:%Y-%m-%d %H:%M UTC}"
    point["errors"] = dict(zip(map(str, method.beams), errors(made, method, held_out), strict=True))
    if name == "Faiss LSQ":
        rows, iterations = LSQ.get(stages, LSQ[16])
        point["note"] = f"{min(rows, len(x)):,} vectors, {iterations} iterations"
    if method.reproduce is _ours:
        point["prefixes"] = prefixes(made, held_out, 16)
    keep(point)


def keep(point: dict[str, Any]) -> None:
    """Add a measurement to the file, after each: they take long."""
    points = json.loads(POINTS.read_text()) if POINTS.exists() else []
    same = ("on", "method", "bytes", "way")
    points = [each for each in points if any(each.get(key) != point.get(key) for key in same)]
    points.append(point)
    lines = ",\n".join(json.dumps(each) for each in points)
    POINTS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print({key: value for key, value in point.items() if key != "steps"}, file=sys.stderr)


if __name__ == "__main__":
    main()
