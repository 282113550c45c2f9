"""The commands; `options` are their parsed arguments."""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction
from pathlib import Path

from .. import bitstream
from ..errors import ParameterError, PartsError
from . import codes, files, report, vectors
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
        rows_per_codeword=options.rows_per_codeword or None,
        callback=lambda info: errors.__setitem__(info.stage, info.error),
        progress=sys.stderr.isatty(),
        checkpoint=options.checkpoint,
    )
    rvq.save(options.output)
    print("stage  codewords  mean squared error  codewords used  perplexity")
    for q, (utilisation, perplexity) in enumerate(rvq.usage):
        print(
            f"{q:>5}  {rvq.bins:>9}  {errors.get(q, float('nan')):>18.6g}  "
            f"{utilisation:>14.1%}  {perplexity:>10.1f}"
        )


def encode(options: argparse.Namespace) -> None:
    model = Model.of(options.model, options.family, options.part)
    quantizer = model.first(options.n_q)
    x = vectors.source(options.vectors, quantizer.dim)
    model.warn_if_random()
    from ..codec import encode

    rate = x.rate if options.frame_rate is None else _rate(options.frame_rate)
    with codes.sink(options.output, quantizer, x.batch, x.frames, rate) as put:
        for start, some in x.pieces(quantizer.block):
            put(start, encode(some, quantizer, beam_size=options.beam_size))


def decode(options: argparse.Namespace) -> None:
    model = Model.of(options.model, options.family, options.part)
    quantizer = model.quantizer
    found = codes.source(options.codes, quantizer)
    model.warn_if_random()
    from ..codec import decode

    dim, dtype = quantizer.dim, quantizer.dtype
    with vectors.sink(options.output, found.batch, found.frames, dim, dtype, found.rate) as put:
        for start, some in found.pieces():
            put(start, decode(some, quantizer))


def verify(options: argparse.Namespace) -> None:
    with bitstream.Reader(options.codes) as reader:
        if options.model:
            reader.check(Model.of(options.model, options.family, options.part).quantizer)
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

    model = Model.of(options.model, options.family, options.part)
    files.check_folder(options.output)
    quantizer = model.first(options.n_q)
    if options.to == "faiss":
        stored = codes.whole(options.codes, quantizer) if options.codes else None
        export.faiss(options.output, quantizer, stored, options.norms)
    elif options.codes or options.norms:
        raise ParameterError("convert: --codes and --norms are for --to faiss.")
    else:
        counts = model.counts[: quantizer.n_q] if model.counts and options.to else None
        checkpoints.save(options.output, quantizer, options.to, counts=counts)
    print(f"{options.model}: {model.kind}, {quantizer!r}")
    size = Path(options.output).stat().st_size
    print(f"{options.output}: {size:,} bytes, {options.to or 'rvq_np'} format")


def info(options: argparse.Namespace) -> None:
    if codes.is_container(options.model):
        report.of_codes(options.model)
    else:
        try:
            model = Model.of(options.model, options.family, options.part)
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
