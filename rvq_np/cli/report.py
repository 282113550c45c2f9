"""What ``rvq-np info`` prints: of a model, and of a file of codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import bitstream, checks
from . import codes as codes_files
from . import files
from .models import Model

MOST_WORDS = 1 << 20  # of a level whose codes are counted: a file may claim any size
BARS = " ▁▂▃▄▅▆▇█"
BUCKETS = 32


def of_model(path: str, model: Model, counted: str | None) -> None:
    """Print what a model is, and how its words are used in training or in a file of codes."""
    quantizer = model.quantizer
    usage, source = (model.rvq.usage if model.rvq is not None else []), "training counts"
    if counted:
        usage, source = _usage_of_codes(counted, quantizer), counted
    bits = [float(np.log2(stage.size)) / stage.stride for stage in quantizer]
    a_level = f" ({bits[0]:g} a level)" if len(set(bits)) == 1 else ""
    print(f"model                {path}")
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


def _usage_of_codes(path: str, quantizer: Any) -> list[tuple[float, float]]:
    from ..train import usage

    if codes_files.is_container(path):
        with bitstream.Reader(path) as reader:
            reader.check(quantizer)
            counts, _ = _counted(reader)
        return [usage(each * 1.0) for each in counts if each is not None]
    if quantizer.block > 1:
        listed = checks.listed("info", files.load_levels(path), quantizer, None)
        levels = checks.ragged("info", listed, quantizer)
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


def of_codes(path: str) -> None:
    """Print what a file of codes holds: levels, rate, duration, and how well bits are spent."""
    with bitstream.Reader(path) as reader:
        counts, dropped = _counted(reader)
        spent = reader.level_bytes()
        rate, frames = reader.frame_rate, reader.frames
        bits = sum(float(np.log2(s)) / t for s, t in zip(reader.sizes, reader.strides, strict=True))
        told = reader.header.fingerprints
        print(f"codes                {path}")
        print(f"levels               {reader.n_q}")
        print(f"words per level      {_span(reader.sizes)}")
        if reader.block > 1:
            print(f"frames per code      {', '.join(map(str, reader.strides))}")
        streams = " x ".join(map(str, reader.batch)) or "1"
        print(f"streams              {streams}")
        print(f"frames               {frames} in {reader.chunks} chunks")
        if rate is not None:
            print(f"frame rate           {float(rate):g} a second ({rate})")
            print(f"duration             {float(frames / rate):.3f} s")
            print(f"bandwidth            {bits * float(rate) / 1000:g} kb/s")
        taken = 8 * sum(spent) / max(1, frames * reader.header.streams)
        print(f"bits per frame       {bits:g} in codes, {taken:.4g} in the file")
        print(f"fingerprint          {told[-1].hex() if told else 'none: codebooks unknown'}")
        print("level  words  dropped  bits a code  entropy  spent  use of words, from 0 on")
        for level, (count, size) in enumerate(zip(counts, reader.sizes, strict=True)):
            codes = reader.codes(level)
            _print_level(level, size, count, dropped[level], codes, spent[level])


def _print_level(level: int, size: int, count: Any, dropped: int, codes: int, spent: int) -> None:
    share = dropped / codes if codes else 0.0
    used = 8 * spent / codes if codes else 0.0
    entropy, bars = f"{'-':>7}", ""
    if count is not None and codes:
        probable = np.append(count[count > 0], [dropped] if dropped else []) / codes
        entropy = f"{max(0.0, -float((probable * np.log2(probable)).sum())):>7.3f}"
        bars = _bars(count)
    print(
        f"{level:>5}  {size:>5}  {share:>7.1%}  {np.log2(size):>11.3f}  {entropy}  {used:>5.2f}  "
        f"{bars}"
    )


def _bars(counts: np.ndarray) -> str:
    """Return a histogram of neighbouring words' use."""
    parts = np.array_split(counts, min(BUCKETS, len(counts)))
    means = np.array([part.mean() for part in parts])
    heights = np.ceil(means / max(means.max(), 1e-300) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def _counted(reader: Any) -> tuple[list[Any], list[int]]:
    """Return per level how often each word occurs, None where there are too many, and drops."""
    counts: list[Any] = [
        np.zeros(size, np.int64) if size <= MOST_WORDS else None for size in reader.sizes
    ]
    dropped = [0] * reader.n_q
    for content in reader:
        for level, codes in enumerate(content.codes):
            present = codes[codes >= 0]
            dropped[level] += codes.size - present.size
            if counts[level] is not None:
                counts[level] += np.bincount(present, minlength=reader.sizes[level])
    return counts, dropped
