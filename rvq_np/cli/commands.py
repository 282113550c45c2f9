"""What each command does; `options` are its arguments as they were parsed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .models import Model


def fit(options: argparse.Namespace) -> None:
    from ..quantizer import ResidualVectorQuantizer

    x = files.load(options.vectors, "vectors", "f", (2, 3))
    files.check_folder(options.output)
    rvq = ResidualVectorQuantizer(
        x.shape[1], options.codebook_dim, options.n_q, options.bins,
        kmeans_iters=options.iterations, rng=options.seed,
    )  # fmt: skip
    errors: dict[int, float] = {}
    rvq.fit(
        x,
        rows_per_word=options.rows_per_word or None,
        callback=lambda info: errors.__setitem__(info.level, info.error),
        progress=sys.stderr.isatty(),
    )
    rvq.save(options.output)
    print("level  words  mean squared error  words used  perplexity")
    for level, (utilisation, perplexity) in enumerate(rvq.usage):
        print(
            f"{level:>5}  {rvq.bins:>5}  {errors.get(level, float('nan')):>18.6g}  "
            f"{utilisation:>10.1%}  {perplexity:>10.1f}"
        )


def encode(options: argparse.Namespace) -> None:
    model = Model.of(options.model, options.family)
    x = files.load(options.vectors, "vectors", "f", (2, 3))
    quantizer = model.first(options.n_q)
    model.warn_if_random()
    from ..codec import encode

    def part(rows: np.ndarray) -> Any:
        return encode(rows, quantizer, beam_size=options.beam_size)

    if x.ndim == 3:
        codes = part(np.ascontiguousarray(x.transpose(0, 2, 1)))
        if quantizer.block > 1:
            files.write_levels(options.output, codes)
            return
        with files.written(options.output, codes.shape, np.int32) as out:
            out[...] = codes
    elif quantizer.block > 1:
        starts = files.batches(len(x), "encode", quantizer.block)
        some = [part(np.asarray(x[rows])) for rows in starts] or [part(np.asarray(x))]
        levels = [np.concatenate(level) for level in zip(*some, strict=True)]
        files.write_levels(options.output, levels)
    else:
        with files.written(options.output, (quantizer.n_q, len(x)), np.int32) as out:
            for rows in files.batches(len(x), "encode"):
                out[:, rows] = part(np.asarray(x[rows]))


def decode(options: argparse.Namespace) -> None:
    model = Model.of(options.model, options.family)
    quantizer = model.quantizer
    from ..codec import decode

    if quantizer.block > 1:
        _write_vectors(options.output, decode(files.load_levels(options.codes), quantizer))
        return
    codes = files.load(options.codes, "codes", "iu", (2, 3))
    model.warn_if_random()
    if codes.ndim == 3:
        _write_vectors(options.output, decode(np.asarray(codes), quantizer))
        return
    with files.written(options.output, (codes.shape[1], quantizer.dim), quantizer.dtype) as out:
        for rows in files.batches(codes.shape[1], "decode"):
            out[rows] = decode(np.asarray(codes[:, rows]), quantizer)


def _write_vectors(path: str, vectors: np.ndarray) -> None:
    """Write vectors (N, D) as they are, (B, T, D) as (B, D, T)."""
    shown = vectors.transpose(0, 2, 1) if vectors.ndim == 3 else vectors
    with files.written(path, shown.shape, shown.dtype) as out:
        out[...] = shown


def convert(options: argparse.Namespace) -> None:
    from .. import checkpoints

    model = Model.of(options.model, options.family)
    files.check_folder(options.output)
    quantizer = model.first(options.n_q)
    counts = model.counts[: quantizer.n_q] if model.counts and options.to else None
    checkpoints.save(options.output, quantizer, options.to, counts=counts)
    print(f"{options.model}: {model.kind}, {quantizer!r}")
    size = Path(options.output).stat().st_size
    print(f"{options.output}: {size:,} bytes, {options.to or 'of rvq_np'}")


def info(options: argparse.Namespace) -> None:
    model = Model.of(options.model, options.family)
    quantizer = model.quantizer
    usage, source = (model.rvq.usage if model.rvq is not None else []), "training counts"
    if options.codes:
        usage, source = _usage_of_codes(options.codes, quantizer), options.codes
    bits = [float(np.log2(stage.size)) / stage.stride for stage in quantizer]
    a_level = f" ({bits[0]:g} a level)" if len(set(bits)) == 1 else ""
    print(f"model                {options.model}")
    print(f"family               {model.kind}")
    print(f"levels               {quantizer.n_q}")
    print(f"words per level      {_span(quantizer.sizes)}")
    print(f"vector length        {quantizer.dim}")
    if model.rvq is not None and model.rvq.config.projects:
        width = model.rvq.config.codebook_dim
        print(f"word length          {width} (projected in and out at each level)")
    print(f"bits per vector      {sum(bits):g}{a_level}")
    if quantizer.block > 1:
        print(f"frames per code      {', '.join(map(str, quantizer.strides))}")
    print(f"fingerprint          {quantizer.fingerprint[:16]}")
    if model.rvq is None:
        print(f"quantizer            {quantizer!r}")
        _print_stages(quantizer)
    if usage:
        _print_usage(usage, quantizer, source)


def _print_stages(quantizer: Any) -> None:
    print("level  words  word length  metric     maps  frames per code")
    for level, stage in enumerate(quantizer):
        maps = "yes" if stage.project_in is not None else "no"
        print(
            f"{level:>5}  {stage.size:>5}  {stage.words.shape[1]:>11}  {stage.metric:<9}  "
            f"{maps:>4}  {stage.stride:>15}"
        )


def _print_usage(usage: list[tuple[float, float]], quantizer: Any, source: str) -> None:
    print(f"use of words in {source}:")
    print("level  words  words used  perplexity  bits used")
    for level, (utilisation, perplexity) in enumerate(usage):
        bits = np.log2(perplexity) if perplexity > 0 else 0.0
        print(
            f"{level:>5}  {quantizer.sizes[level]:>5}  {utilisation:>10.1%}  {perplexity:>10.1f}  "
            f"{bits:>9.2f}"
        )


def _span(sizes: tuple[int, ...]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"


def warmup(options: argparse.Namespace) -> None:
    from ..codec import warmup

    begun = time.perf_counter()
    if not warmup(*options.dtype):
        print("Numba cannot be imported here; NumPy serves, and there is nothing to compile.")
        return
    print(f"All kernels are ready after {time.perf_counter() - begun:.1f} s; Numba's cache holds")
    print("them for processors like this one. NUMBA_CACHE_DIR says where, if it is set.")


def demo(options: argparse.Namespace) -> None:
    from .. import demo

    demo.run(options.wav, options.output)


def _usage_of_codes(path: str, quantizer: Any) -> list[tuple[float, float]]:
    from .. import checks
    from ..train import usage

    if quantizer.block > 1:
        levels = checks.ragged("info", files.load_levels(path), quantizer, None)
        pairs = zip(levels, quantizer.sizes, strict=False)
        return [usage(np.bincount(row.ravel(), minlength=size) * 1.0) for row, size in pairs]
    codes = files.load(path, "codes", "iu", (2, 3))
    flat = codes.reshape(codes.shape[0], -1)
    counts = [np.zeros(size) for size in quantizer.sizes[: len(flat)]]
    for rows in files.batches(flat.shape[1], "count"):
        part = np.asarray(flat[:, rows])
        checks.codes("info", part, quantizer)
        for level, total in enumerate(counts):
            total += np.bincount(part[level].astype(np.int64), minlength=len(total))
    return [usage(total) for total in counts]
