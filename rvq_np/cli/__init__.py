"""The command ``rvq-np``: fit, encode, decode, info, verify, convert, ids,
warmup, compile, bench, demo.

Vectors are ``.npy`` or ``.npz`` files, or sounds, codes ``.rvq``, ``.npy``, ``.npz`` or ``.csv``,
models safetensors: ours, or published checkpoints.  ``-o -`` is standard output.  Files may be
larger than memory.  Results are printed to standard output, progress bars to standard error, and
only if that is a terminal.  Exit codes: 0, success; 1, failure, with one line that says why; 2,
invalid command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .. import errors
from ..errors import RvqError
from . import commands, compile, folder, ids, terminal

__all__ = [
    "main",
]


def __dir__() -> list[str]:
    return sorted(__all__)


WARNINGS = tuple(
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Warning)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with terminal.any_text(), _warned_in_one_line():
            options.run(options)
    except (RvqError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            # the reader of standard output closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"rvq-np: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rvq-np: interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _warned_in_one_line() -> Iterator[None]:
    """Show each warning of ours as a line of its own, without the place in the program."""

    def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
        if issubclass(category, WARNINGS):
            print(f"rvq-np: warning: {_one_line(message)}", file=sys.stderr)
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        for category in WARNINGS:
            warnings.simplefilter("always", category)
        yield


def _parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="rvq-np", description="Residual vector quantization on a CPU."
    )
    parser.add_argument("--version", action="version", version=f"rvq-np {__version__}")
    every = parser.add_subparsers(required=True, metavar="command")

    fit = every.add_parser("fit", help="train codebooks on vectors")
    fit.add_argument("vectors", help=".npy or .npz file of floats (N, D) or (B, D, T), or a sound")
    fit.add_argument("-o", "--output", required=True, help="model file to write, .safetensors")
    fit.add_argument("--n-q", type=int, default=8, help="stages (default: 8)")
    fit.add_argument(
        "--bins", default="1024",
        help="codewords per stage (default: 1024), or with commas those of each: 1024,256,256",
    )  # fmt: skip
    fit.add_argument("--codebook-dim", type=int, help="dimension of codewords (default: D)")
    fit.add_argument(
        "--iterations", type=int, default=25, help="of k-means per stage (default: 25)"
    )
    fit.add_argument(
        "--rows-per-codeword",
        type=int,
        default=256,
        help="random training vectors per codeword (default: 256); 0: all vectors",
    )
    fit.add_argument(
        "--front-end",
        help="what the vectors are, recorded in the model: samples, mdct (default for a sound), "
        "embeddings, or 'latents of ENCODER'",
    )
    fit.add_argument("--dim", type=int, help="samples per vector of a sound (default: 64)")
    fit.add_argument(
        "--sample-rate", type=int, help="samples per second, recorded; a sound is resampled to it"
    )
    fit.add_argument(
        "--refine", nargs="?", const="", metavar="NAME=NUMBER,...",
        help="move all codebooks together afterwards, for codes of a beam search; with arguments "
        "of rvq_np.train.refine: iterations=80,beam_size=16",
    )  # fmt: skip
    fit.add_argument("--start", help="model to go on from, of the same shape: a warm start")
    fit.add_argument(
        "--freeze", default="", metavar="STAGES", help="stages of --start that stay: 0,1"
    )
    fit.add_argument(
        "--hold", type=float, default=0.9,
        help="how far codewords stay behind their means, with --start (default: 0.9)",
    )  # fmt: skip
    fit.add_argument("--checkpoint", help="resume file: save progress and resume from it")
    fit.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    fit.set_defaults(run=commands.fit)

    encode = every.add_parser("encode", help="turn vectors into codes")
    encode.add_argument(
        "vectors",
        help=".npy or .npz file of floats (N, D) or (B, D, T), or a sound; or a folder of .npy, "
        ".parquet and .zarr",
    )
    _add_model(encode, "-m")
    encode.add_argument(
        "-o",
        "--output",
        required=True,
        help="file of codes to write: .rvq, .npy, .npz or .csv; .rvq or .npz where stages have "
        "strides; -: standard output",
    )
    _add_front_end(encode)
    encode.add_argument(
        "--resample", action="store_true", help="resample a sound of another rate than the model's"
    )
    encode.add_argument("--frame-rate", help="vectors per second, stored in .rvq: 75, or 44100/512")
    encode.add_argument("--n-q", type=int, help="stages to use (default: all)")
    encode.add_argument(
        "--beam-size", type=int, default=1, help="width of the beam search (default: 1)"
    )
    folder.add_arguments(encode)
    encode.set_defaults(run=commands.encode)

    decode = every.add_parser("decode", help="turn codes into vectors")
    decode.add_argument(
        "codes",
        help=".rvq file, .npy file of integers (n, N) or (n, B, T), .npz or .csv of `encode`",
    )
    _add_model(decode, "-m")
    decode.add_argument(
        "-o", "--output", required=True,
        help="file to write: .npy of vectors, or .wav where the model is one of sound",
    )  # fmt: skip
    _add_front_end(decode)
    decode.set_defaults(run=commands.decode)

    info = every.add_parser("info", help="describe a model, a file of codes, or a GGUF file")
    _add_model(info, help="model file, checkpoint, or .rvq file of codes")
    info.add_argument("--codes", help="count how often each codeword is used in this file of codes")
    info.set_defaults(run=commands.info)

    verify = every.add_parser("verify", help="read a whole .rvq file and check every checksum")
    verify.add_argument("codes", help=".rvq file")
    _add_model(verify, "-m", required=False)
    verify.set_defaults(run=commands.verify)

    convert = every.add_parser("convert", help="write a model's codebooks to a small file")
    _add_model(convert)
    convert.add_argument(
        "-o", "--output", required=True,
        help="file to write: .safetensors; for --to faiss .faissindex, .faiss or .index",
    )  # fmt: skip
    convert.add_argument("--n-q", type=int, help="stages to keep (default: all)")
    convert.add_argument(
        "--to", metavar="FAMILY",
        help="write tensor names of espnet, encodec or vector_quantize_pytorch instead of ours, or "
        "a faiss index",
    )  # fmt: skip
    convert.add_argument("--codes", help=".rvq or .npy file of codes to put into a faiss index")
    convert.add_argument(
        "--norms", choices=["qint8", "float", "none"],
        help="what a faiss index keeps of norms (default: qint8 with codes, else float)",
    )  # fmt: skip
    convert.set_defaults(run=commands.convert)

    ids.add_parser(every)

    warmup = every.add_parser(
        "warmup", help="compile all kernels, for example when an image is built"
    )
    warmup.add_argument(
        "--dtype", nargs="+", choices=["float32", "float64"], default=["float32"],
        help="dtypes of the vectors (default: float32)",
    )  # fmt: skip
    warmup.set_defaults(run=commands.warmup)

    compile.add_to(every)

    bench = every.add_parser("bench", help="measure how fast this machine encodes and decodes")
    for name, usual in (("dim", 128), ("codewords", 1024), ("stages", 8), ("rows", 4096)):
        bench.add_argument(f"--{name}", type=int, default=usual, help=f"default: {usual}")
    bench.set_defaults(run=commands.bench)

    demo = every.add_parser("demo", help="train on speech, and write WAV files at eight bitrates")
    demo.add_argument("--wav", help="file of sound to encode instead of the held-out clips")
    demo.add_argument(
        "-o", "--output", default="rvq-demo", help="folder to write (default: rvq-demo)"
    )
    demo.set_defaults(run=commands.demo)
    return parser


def _add_front_end(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--front-end", choices=["samples", "mdct"],
        help="what the vectors of a model are that does not record it",
    )  # fmt: skip


MODEL = "model file, or file or directory of a published checkpoint"


def _add_model(
    parser: argparse.ArgumentParser,
    flag: str | None = None,
    *,
    required: bool = True,
    help: str = MODEL,
) -> None:
    if flag is None:
        parser.add_argument("model", help=help)
    else:
        parser.add_argument(flag, "--model", required=required, help=help)
    parser.add_argument("--family", help="checkpoint family (default: auto-detect)")
    parser.add_argument("--part", help="which quantizer of a checkpoint with several: see info")
    parser.add_argument(
        "--names", metavar="FILE",
        help="JSON file: the names that the family has for the tensors of the model, by theirs",
    )  # fmt: skip


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
