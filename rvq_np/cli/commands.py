"""The commands; `options` are their parsed arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from fractions import Fraction
from typing import Any

from .. import bitstream
from ..codec import validation
from ..errors import ParameterError, PartsError
from . import codes, folder, frames, inputs, outputs, parquet, report, said, values, vectors
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
        options.vectors, options.front_end, options.dim, options.sample_rate, options.column
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
    lines = ["stage  codewords  mean squared error  codewords used  perplexity"]
    stages = []
    for q, (utilisation, perplexity) in enumerate(rvq.usage):
        size, error = rvq.config.sizes[q], errors.get(q, float("nan"))
        lines.append(
            f"{q:>5}  {size:>9}  {error:>18.6g}  {utilisation:>14.1%}  {perplexity:>10.1f}"
        )
        stages.append({"stage": q, "codewords": size, "mean_squared_error": error,
                       "codewords_used": utilisation, "perplexity": perplexity})  # fmt: skip
    about = {"output": options.output, "fingerprint": rvq.codebooks.fingerprint, "stages": stages}
    said.result(options, about, lines, out.said)


def encode(options: argparse.Namespace) -> None:
    if options.bandwidth is not None and options.n_q is not None:
        raise ParameterError(
            f"encode: got --bandwidth {options.bandwidth:g} and --n-q {options.n_q}; expected one "
            "of them."
        )
    threads = validation.threads("encode", options.threads)
    if folder.is_one(options.vectors):
        model = Model.asked("encode", options)
        model.warn_if_random()
        folder.encode(options, model.first(options.n_q))
        return
    out = outputs.of("encode", options.output, [options.vectors, options.model])
    model = Model.asked("encode", options)
    quantizer = model.first(options.n_q)
    x = vectors.source(options.vectors, model, options.front_end, options.resample, options.column)
    model.warn_if_random()
    from ..codec import encode

    rate = x.rate if options.frame_rate is None else _rate(options.frame_rate)
    if options.bandwidth is not None:
        quantizer = frames.within(quantizer, options.bandwidth, rate)

    def encoded(some: Any) -> Any:
        return encode(some, quantizer, beam_size=options.beam_size, threads=threads)

    if out.ending == ".parquet" and x.tables is not None:  # other columns stay beside the codes
        with parquet.codes_sink(
            "encode", options.vectors, out.path, quantizer, options.column
        ) as put_table:
            for start, some, table in x.tables:
                put_table(start, encoded(some), table)
    else:
        with codes.sink(out, quantizer, x.batch, x.frames, rate) as put:
            for start, some in x.pieces(quantizer.block):
                put(start, encoded(some))
    about = {"output": options.output, "stages": quantizer.n_q, "frames": x.frames,
             "streams": list(x.batch), "fingerprint": quantizer.fingerprint}  # fmt: skip
    said.result(options, about, [], out.said)


def decode(options: argparse.Namespace) -> None:
    out = outputs.of("decode", options.output, [options.codes, options.model])
    model = Model.asked("decode", options)
    quantizer = model.quantizer
    found = codes.source("decode", options.codes, quantizer, options.column)
    found = frames.cut(found, quantizer, options.n_q, options.start, options.stop)
    model.warn_if_random()
    from ..codec import decode

    with vectors.sink(out, model, options.front_end, found.batch, found.frames, found.rate) as put:
        for start, some in found.pieces():
            with codes.named(options.codes, start + (options.start or 0)):
                rows = decode(some, quantizer)
            put(start, rows)
    about = {"output": options.output, "stages": found.n_q, "frames": found.frames,
             "streams": list(found.batch)}  # fmt: skip
    said.result(options, about, [], out.said)


def verify(options: argparse.Namespace) -> None:
    inputs.kind("verify", options.codes, "verify")
    with bitstream.Reader(options.codes) as reader:
        if options.model:
            reader.check(Model.asked("verify", options).quantizer)
        reader.verify()
        chunks = "1 chunk" if reader.chunks == 1 else f"{reader.chunks} chunks"
        size = f"{chunks}, {reader.n_q} stages, {reader.frames} frames"
        about = {"codes": options.codes, "chunks": reader.chunks, "stages": reader.n_q,
                 "frames": reader.frames, "checksums_match": True}  # fmt: skip
        said.result(options, about, [f"{options.codes}: {size}: all checksums match"])


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
    length = os.path.getsize(out.path) if os.path.isfile(out.path) else None
    size = "" if length is None else f"{length:,} bytes, "
    lines = [
        f"{options.model}: {model.kind}, {quantizer!r}",
        f"{options.output}: {size}{to or 'rvq_np'} format",
    ]
    about = {
        "model": options.model, "family": model.kind, "stages": quantizer.n_q,
        "sizes": quantizer.sizes, "fingerprint": quantizer.fingerprint, "output": options.output,
        "format": to or "rvq_np", "bytes": length,
    }  # fmt: skip
    said.result(options, about, lines, out.said)


def info(options: argparse.Namespace) -> None:
    kind = codes.kind("info", options.model, "info")
    if kind == "rvq":
        report.of_codes(options.model, options.json)
    elif kind == "gguf" and not (options.names or options.family or options.part):
        report.of_tensors(options.model, options.json)
    else:
        try:
            model = Model.asked("info", options)
        except PartsError as error:
            report.of_parts(options.model, error, options.json)
        else:
            report.of_model(options.model, model, options.codes, options.json)


def warmup(options: argparse.Namespace) -> None:
    from ..codec import warmup

    begun = time.perf_counter()
    if not warmup(*options.dtype):
        lines = ["Numba cannot be imported; NumPy is used, and there is nothing to compile."]
        said.result(options, {"compiled": False, "seconds": 0.0}, lines)
        return
    seconds = time.perf_counter() - begun
    lines = [
        f"All kernels are compiled after {seconds:.1f} s. They are cached for",
        "processors like this one, in the directory NUMBA_CACHE_DIR if it is set.",
    ]
    said.result(options, {"compiled": True, "seconds": seconds}, lines)


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
    speed.run(dim, size, n_q, rows, options)


def demo(options: argparse.Namespace) -> None:
    from .. import demo

    if not options.json:
        demo.run(options.wav, options.output)
        return
    with contextlib.redirect_stdout(sys.stderr):
        stages = demo.run(options.wav, options.output)
    about = {"page": os.path.join(options.output, demo.PAGE),
             "stages": [each._asdict() for each in stages]}  # fmt: skip
    said.result(options, about, [])
