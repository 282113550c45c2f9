"""The commands; `options` are their parsed arguments."""

from __future__ import annotations

import argparse
import os
import sys
import time
from fractions import Fraction
from typing import Any

from .. import bitstream
from ..errors import ParameterError, PartsError
from . import codes, folder, inputs, outputs, report, values, vectors
from .models import Model


def fit(options: argparse.Namespace) -> None:
    from ..quantizer import ResidualVectorQuantizer

    sizes = values.whole("fit", "--bins", options.bins, 1, "1024, or 1024,256,256")
    freeze: tuple[int, ...] = ()
    if options.freeze:
        freeze = values.whole("fit", "--freeze", options.freeze, 0, "0,1")
    refine: bool | dict[str, Any] | None = False if options.no_refine else None
    if options.refine is not None:
        refine = True
    if options.refine:
        refine = values.named("fit", "--refine", options.refine, "iterations=80,beam_size=16")
    out = outputs.of("fit", options.output, [options.vectors, options.checkpoint, options.start])
    start = None
    if options.start is not None:
        start = Model.of("fit", options.start, None, None).quantizer
    x, front_end = vectors.whole(
        options.vectors, options.front_end, options.dim, options.sample_rate
    )
    rvq = ResidualVectorQuantizer(
        x.shape[1], options.codebook_dim, options.n_q, sizes if len(sizes) > 1 else sizes[0],
        kmeans_iters=options.iterations, rng=options.seed,
    )  # fmt: skip
    rvq.front_end = front_end
    errors: dict[int, float] = {}
    rvq.fit(
        x,
        rows_per_codeword=options.rows_per_codeword or None,
        callback=lambda info: errors.__setitem__(info.stage, info.error),
        progress=sys.stderr.isatty(),
        checkpoint=options.checkpoint,
        refine=refine,
        start=start,
        freeze=freeze,
        hold=options.hold,
    )
    rvq.save(out.path)
    print("stage  codewords  mean squared error  codewords used  perplexity", file=out.said)
    for q, (utilisation, perplexity) in enumerate(rvq.usage):
        print(
            f"{q:>5}  {rvq.config.sizes[q]:>9}  {errors.get(q, float('nan')):>18.6g}  "
            f"{utilisation:>14.1%}  {perplexity:>10.1f}",
            file=out.said,
        )


def encode(options: argparse.Namespace) -> None:
    if folder.is_one(options.vectors):
        model = Model.asked("encode", options)
        model.warn_if_random()
        folder.encode(options, model.first(options.n_q))
        return
    out = outputs.of("encode", options.output, [options.vectors, options.model])
    model = Model.asked("encode", options)
    quantizer = model.first(options.n_q)
    x = vectors.source(options.vectors, model, options.front_end, options.resample)
    model.warn_if_random()
    from ..codec import encode

    rate = x.rate if options.frame_rate is None else _rate(options.frame_rate)
    with codes.sink(out, quantizer, x.batch, x.frames, rate) as put:
        for start, some in x.pieces(quantizer.block):
            put(start, encode(some, quantizer, beam_size=options.beam_size))


def decode(options: argparse.Namespace) -> None:
    out = outputs.of("decode", options.output, [options.codes, options.model])
    model = Model.asked("decode", options)
    quantizer = model.quantizer
    found = codes.source("decode", options.codes, quantizer)
    model.warn_if_random()
    from ..codec import decode

    with vectors.sink(out, model, options.front_end, found.batch, found.frames, found.rate) as put:
        for start, some in found.pieces():
            with codes.named(options.codes, start):
                rows = decode(some, quantizer)
            put(start, rows)


def verify(options: argparse.Namespace) -> None:
    inputs.kind("verify", options.codes, "verify")
    with bitstream.Reader(options.codes) as reader:
        if options.model:
            reader.check(Model.asked("verify", options).quantizer)
        reader.verify()
        chunks = "1 chunk" if reader.chunks == 1 else f"{reader.chunks} chunks"
        size = f"{chunks}, {reader.n_q} stages, {reader.frames} frames"
        print(f"{options.codes}: {size}: all checksums match")


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)  # 75, 12.5 or 44100/512
    except (ValueError, ZeroDivisionError) as error:
        raise ParameterError(
            f"encode: --frame-rate is {text!r}; expected a number or a fraction, as 44100/512."
        ) from error


def convert(options: argparse.Namespace) -> None:
    from .. import checkpoints, export

    to = options.to
    if to != "faiss" and (options.codes or options.norms):
        raise ParameterError("convert: --codes and --norms are for --to faiss.")
    read = [options.model, options.codes]
    out = outputs.of("convert --to faiss" if to == "faiss" else "convert", options.output, read)
    model = Model.asked("convert", options)
    quantizer = model.first(options.n_q)
    if to == "faiss":
        stored = codes.whole("convert", options.codes, quantizer) if options.codes else None
        with codes.named(options.codes):
            export.faiss(out.path, quantizer, stored, options.norms)
    else:
        counts = model.counts[: quantizer.n_q] if model.counts and to else None
        checkpoints.save(out.path, quantizer, to, counts=counts, front_end=model.front_end)
    print(f"{options.model}: {model.kind}, {quantizer!r}", file=out.said)
    size = f"{os.path.getsize(out.path):,} bytes, " if os.path.isfile(out.path) else ""
    print(f"{options.output}: {size}{to or 'rvq_np'} format", file=out.said)


def info(options: argparse.Namespace) -> None:
    kind = codes.kind("info", options.model, "info")
    if kind == "rvq":
        report.of_codes(options.model)
    elif kind == "gguf" and not (options.names or options.family or options.part):
        report.of_tensors(options.model)
    else:
        try:
            model = Model.asked("info", options)
        except PartsError as error:
            report.of_parts(options.model, error)
        else:
            report.of_model(options.model, model, options.codes)


def warmup(options: argparse.Namespace) -> None:
    from ..codec import warmup

    begun = time.perf_counter()
    if not warmup(*options.dtype):
        print("Numba cannot be imported; NumPy is used, and there is nothing to compile.")
        return
    print(
        f"All kernels are compiled after {time.perf_counter() - begun:.1f} s. They are cached for"
    )
    print("processors like this one, in the directory NUMBA_CACHE_DIR if it is set.")


def bench(options: argparse.Namespace) -> None:
    from . import speed

    sizes = {name: getattr(options, name) for name in ("dim", "codewords", "stages", "rows")}
    for name, value in sizes.items():
        if value < 1:
            raise ParameterError(f"bench: --{name} is {value}; expected an integer >= 1.")
    dim, size, n_q, rows = sizes.values()
    if max(dim * size * n_q, rows * max(dim, size, n_q)) >= 1 << 60:
        raise ParameterError(
            f"bench: sizes are too large for an array: {sizes}; expected smaller ones."
        )
    speed.run(dim, size, n_q, rows)


def demo(options: argparse.Namespace) -> None:
    from .. import demo

    demo.run(options.wav, options.output)
