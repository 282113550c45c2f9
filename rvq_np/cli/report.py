"""The output of ``rvq-np info``, for a model and for a file of codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import bitstream, display
from ..codebooks import Quantizer
from ..codec import validation
from ..errors import CheckpointError, PartsError
from ..files import gguf
from . import codes as codes_files
from . import said, terminal
from .models import Model

MOST_COUNTED = 1 << 20  # codewords per stage: a file may have any size
BUCKETS = 32
MOST_SHOWN = 80  # characters of a value


def of_model(path: str, model: Model, counted: str | None, as_json: bool = False) -> None:
    """Print the properties of a model, and how often training or a file uses its codewords."""
    quantizer = model.quantizer
    usage, source = (model.rvq.usage if model.rvq is not None else []), "training counts"
    if counted:
        usage, source = _usage_of_codes(counted, quantizer), counted
    bits = [float(np.log2(stage.size)) / stage.stride for stage in quantizer]
    if as_json:
        _print_json(_model(path, model, bits, usage, source))
        return
    per_stage = f" ({bits[0]:g} per stage)" if len(set(bits)) == 1 else ""
    print(f"model                {path}")
    print(f"family               {model.kind}")
    print(f"stages               {quantizer.n_q}")
    print(f"codebook size        {_span(quantizer.sizes)}")
    print(f"dimension            {quantizer.dim}")
    if model.rvq is not None and model.rvq.config.projects:
        width = model.rvq.config.codebook_dim
        print(f"codeword dimension   {width} (projected in and out at each stage)")
    known = "unknown" if model.front_end is None else model.front_end
    print(f"front end            {known}")
    print(f"bits per vector      {sum(bits):g}{per_stage}")
    if quantizer.block > 1:
        print(f"frames per code      {', '.join(map(str, quantizer.strides))}")
    print(f"fingerprint          {display.short(quantizer.fingerprint)}")
    if model.rvq is None:
        print(f"quantizer            {quantizer!r}")
        _print_stages(quantizer)
    if usage:
        _print_usage(usage, quantizer, source)


def _model(
    path: str, model: Model, bits: list[float], usage: list[tuple[float, float]], source: str
) -> dict[str, Any]:
    """Return what `of_model` prints."""
    quantizer = model.quantizer
    stages: list[dict[str, Any]] = [
        {"stage": q, "codewords": stage.size, "dimension": stage.codebook.shape[1],
         "metric": stage.metric, "projections": stage.project_in is not None,
         "frames_per_code": stage.stride}
        for q, stage in enumerate(quantizer)
    ]  # fmt: skip
    for stage, (utilisation, perplexity) in zip(stages, usage, strict=False):
        stage.update(codewords_used=utilisation, perplexity=perplexity)
    return {
        "model": path, "family": model.kind, "stages": quantizer.n_q, "sizes": quantizer.sizes,
        "dimension": quantizer.dim,
        "front_end": None if model.front_end is None else str(model.front_end),
        "bits_per_vector": sum(bits), "fingerprint": quantizer.fingerprint,
        "trained": None if model.rvq is None else model.rvq.is_initialized,
        "usage_of": source if usage else None, "each_stage": stages,
    }  # fmt: skip


def _print_json(about: dict[str, Any]) -> None:
    print(json.dumps(said.plain(about), indent=1))


def of_parts(path: str, error: PartsError, as_json: bool = False) -> None:
    """Print which quantizers a checkpoint has, for ``--part``."""
    if as_json:
        _print_json({"model": path, "family": error.family, "parts": list(error.parts)})
        return
    print(f"model                {path}")
    print(f"family               {error.family}")
    for part in error.parts:
        print(f"part                 {part}")
    print("Choose one with --part.")


def of_tensors(path: str, as_json: bool = False) -> None:
    """Print what is in a GGUF file, and the family that its names are of, if they are of one."""
    from .. import checkpoints

    entries, about = gguf.read_header(Path(path))
    if as_json:
        tensors = {
            name: {"dtype": each.dtype, "shape": each.shape} for name, each in entries.items()
        }
        _print_json({"file": path, "kind": "GGUF", "values": about, "tensors": tensors})
        return
    print(f"file                 {path}")
    print("kind                 GGUF")
    try:
        print(f"family               {checkpoints.load_as(path)[0]}")
    except PartsError as error:
        print(f"family               {error.family}, with the parts {', '.join(error.parts)}")
    except CheckpointError:
        print("family               not recognised; --names maps tensor names to those of a family")
    print(f"tensors              {len(entries)}")
    for key, value in about.items():
        if value is not None:
            print(f"value                {_printable(key)} = {_printable(str(value)[:MOST_SHOWN])}")
    print("type      shape                 tensor")
    for name, entry in entries.items():
        shape = " x ".join(map(str, entry.shape))
        print(f"{entry.dtype:<8}  {shape:<20}  {_printable(name)}")


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _print_stages(quantizer: Quantizer) -> None:
    print("stage  codewords  dimension  metric     projections  frames per code")
    for q, stage in enumerate(quantizer):
        projects = "yes" if stage.project_in is not None else "no"
        print(
            f"{q:>5}  {stage.size:>9}  {stage.codebook.shape[1]:>9}  {stage.metric:<9}  "
            f"{projects:>11}  {stage.stride:>15}"
        )


def _print_usage(usage: list[tuple[float, float]], quantizer: Quantizer, source: str) -> None:
    print(f"codeword usage in {source}:")
    print("stage  codewords  codewords used  perplexity  bits used")
    for q, (utilisation, perplexity) in enumerate(usage):
        bits = np.log2(perplexity) if perplexity > 0 else 0.0
        print(
            f"{q:>5}  {quantizer.sizes[q]:>9}  {utilisation:>14.1%}  {perplexity:>10.1f}  "
            f"{bits:>9.2f}"
        )


def _span(sizes: tuple[int, ...]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"


def _usage_of_codes(path: str, quantizer: Quantizer) -> list[tuple[float, float]]:
    from ..train import usage

    found = codes_files.source("info --codes", path, quantizer)
    counts = [np.zeros(size) for size in quantizer.sizes[: found.n_q]]
    for start, part in found.pieces():
        if isinstance(part, np.ndarray):
            with codes_files.named(path, start):
                validation.codes_later("info", part, quantizer)()
        for total, codes in zip(counts, part, strict=True):
            total += np.bincount(_present(codes), minlength=len(total))
    return [usage(total) for total in counts]


def _present(codes: np.ndarray) -> np.ndarray:
    """Return the codes that were not dropped."""
    flat = codes.ravel()
    return flat[flat >= 0].astype(np.int64)


def of_codes(path: str, as_json: bool = False) -> None:
    """Print the properties of a file of codes: stages, rate, duration, and use of bits."""
    with bitstream.Reader(path) as reader:
        counts, dropped = _counted(reader)
        stage_bytes = reader.stage_bytes()
        rate, frames = reader.frame_rate, reader.frames
        bits = sum(float(np.log2(s)) / t for s, t in zip(reader.sizes, reader.strides, strict=True))
        prints = reader.header.fingerprints
        if as_json:
            _print_json(_codes(path, reader, counts, dropped, bits))
            return
        print(f"codes                {path}")
        print(f"stages               {reader.n_q}")
        print(f"codebook size        {_span(reader.sizes)}")
        if reader.block > 1:
            print(f"frames per code      {', '.join(map(str, reader.strides))}")
        streams = " x ".join(map(str, reader.batch)) or "1"
        print(f"streams              {streams}")
        print(f"frames               {frames} in {reader.chunks} chunks")
        if rate is not None:
            print(f"frame rate           {float(rate):g} per second ({rate})")
            print(f"duration             {float(frames / rate):.3f} s")
            print(f"bandwidth            {bits * float(rate) / 1000:g} kb/s")
        stored = 8 * sum(stage_bytes) / max(1, frames * reader.header.streams)
        print(f"bits per frame       {bits:g} as codes, {stored:.4g} in the file")
        print(f"fingerprint          {prints[-1].hex() if prints else 'none: codebooks unknown'}")
        print("stage  codewords  dropped  bits per code  entropy  stored  codeword usage, by index")
        for q, (count, size) in enumerate(zip(counts, reader.sizes, strict=True)):
            _print_codes(q, size, count, dropped[q], reader.codes(q), stage_bytes[q])


def _codes(
    path: str, reader: bitstream.Reader, counts: list[Any], dropped: list[int], bits: float
) -> dict[str, Any]:
    """Return what `of_codes` prints."""
    rate, prints = reader.frame_rate, reader.header.fingerprints
    stages = []
    for q, stored in enumerate(reader.stage_bytes()):
        codes, count = reader.codes(q), counts[q]
        stages.append({
            "stage": q, "codewords": reader.sizes[q], "frames_per_code": reader.strides[q],
            "codes": codes, "dropped": dropped[q], "bytes": stored,
            "entropy": None if count is None or not codes else _entropy(count, dropped[q], codes),
        })  # fmt: skip
    return {
        "codes": path, "stages": reader.n_q, "sizes": reader.sizes, "streams": reader.batch,
        "frames": reader.frames, "chunks": reader.chunks,
        "frame_rate": None if rate is None else float(rate),
        "seconds": None if rate is None else float(reader.frames / rate),
        "kbps": None if rate is None else bits * float(rate) / 1000, "bits_per_frame": bits,
        "fingerprint": prints[-1].hex() if prints else None, "each_stage": stages,
    }  # fmt: skip


def _entropy(count: Any, dropped: int, codes: int) -> float:
    """Return the bits per code of what is there, dropped codes among it."""
    probable = np.append(count[count > 0], [dropped] if dropped else []) / codes
    return max(0.0, -float((probable * np.log2(probable)).sum()))


def _print_codes(q: int, size: int, count: Any, dropped: int, codes: int, stored: int) -> None:
    """Print the line of stage `q`, with `codes` codes in `stored` bytes."""
    share = dropped / codes if codes else 0.0
    bits = 8 * stored / codes if codes else 0.0
    entropy, bars = f"{'-':>7}", ""
    if count is not None and codes:
        entropy = f"{_entropy(count, dropped, codes):>7.3f}"
        bars = _bars(count)
    print(
        f"{q:>5}  {size:>9}  {share:>7.1%}  {np.log2(size):>13.3f}  {entropy}  {bits:>6.2f}  {bars}"
    )


def _bars(counts: np.ndarray) -> str:
    """Return a histogram of codeword counts, each bar for consecutive codewords."""
    parts = np.array_split(counts, min(BUCKETS, len(counts)))
    means = np.array([part.mean() for part in parts])
    characters = terminal.bars()
    heights = np.ceil(means / max(means.max(), 1e-300) * (len(characters) - 1)).astype(int)
    return "".join(characters[height] for height in heights)


def _counted(reader: Any) -> tuple[list[Any], list[int]]:
    """Return per stage the counts of codewords, None if too many, and of dropped codes."""
    counts: list[Any] = [
        np.zeros(size, np.int64) if size <= MOST_COUNTED else None for size in reader.sizes
    ]
    dropped = [0] * reader.n_q
    for content in reader:
        for q, codes in enumerate(content.codes):
            present = codes[codes >= 0]
            dropped[q] += codes.size - present.size
            if counts[q] is not None:
                counts[q] += np.bincount(present, minlength=reader.sizes[q])
    return counts, dropped
