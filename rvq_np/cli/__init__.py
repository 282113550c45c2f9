"""The command ``rvq-np``: fit, encode, decode, info, verify, convert, warmup,
bench, demo.

Vectors are ``.npy``, ``.npz`` or ``.wav`` files, codes ``.rvq`` or ``.npy``, models safetensors:
ours, or published checkpoints.  Files may be larger than memory.  What is printed goes to standard
output; progress bars go to standard error, and only if that is a terminal.  Exit codes: 0, done;
1, it could not be done, with one line that says why; 2, the command line was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..errors import RvqError
from . import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (RvqError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"rvq-np: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rvq-np: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="rvq-np", description="Residual vector quantization on a CPU."
    )
    parser.add_argument("--version", action="version", version=f"rvq-np {__version__}")
    every = parser.add_subparsers(required=True, metavar="command")

    fit = every.add_parser("fit", help="train codebooks on vectors")
    fit.add_argument("vectors", help=".npy file of floats (N, D) or (B, D, T)")
    fit.add_argument("-o", "--output", required=True, help="model file to write, .safetensors")
    fit.add_argument("--n-q", type=int, default=8, help="levels (default: 8)")
    fit.add_argument("--bins", type=int, default=1024, help="words per level (default: 1024)")
    fit.add_argument("--codebook-dim", type=int, help="length of a word (default: D)")
    fit.add_argument("--iterations", type=int, default=25, help="rounds per level (default: 25)")
    fit.add_argument(
        "--rows-per-word", type=int, default=256, help="random vectors per word to train on; 0: all"
    )
    fit.add_argument("--checkpoint", help="file to go on from if it is interrupted")
    fit.add_argument("--seed", type=int, default=0, help="of all random draws (default: 0)")
    fit.set_defaults(run=commands.fit)

    encode = every.add_parser("encode", help="turn vectors into codes")
    encode.add_argument(
        "vectors", help=".npy or .npz file of floats (N, D) or (B, D, T), or a .wav file"
    )
    _add_model(encode, "-m")
    encode.add_argument(
        "-o",
        "--output",
        required=True,
        help=".npy file of codes to write, .npz where levels have strides",
    )
    encode.add_argument("--frame-rate", help="vectors a second, for .rvq: 75, or 44100/512")
    encode.add_argument("--n-q", type=int, help="levels to use (default: all)")
    encode.add_argument("--beam-size", type=int, default=1, help="hypotheses kept (default: 1)")
    encode.set_defaults(run=commands.encode)

    decode = every.add_parser("decode", help="turn codes into vectors")
    decode.add_argument(
        "codes", help=".rvq file, .npy file of integers (n, N) or (n, B, T), or .npz for strides"
    )
    _add_model(decode, "-m")
    decode.add_argument(
        "-o", "--output", required=True, help=".npy or .wav file of vectors to write"
    )
    decode.set_defaults(run=commands.decode)

    info = every.add_parser("info", help="say what a model is, or a file of codes")
    _add_model(info, told="model file, checkpoint, or .rvq file of codes")
    info.add_argument("--codes", help="count the use of the model's words in this file of codes")
    info.set_defaults(run=commands.info)

    verify = every.add_parser("verify", help="read a .rvq file whole and check every checksum")
    verify.add_argument("codes", help=".rvq file")
    _add_model(verify, "-m", required=False)
    verify.set_defaults(run=commands.verify)

    convert = every.add_parser("convert", help="write a model's codebooks to a small file")
    _add_model(convert)
    convert.add_argument("-o", "--output", required=True, help="file to write, .safetensors")
    convert.add_argument("--n-q", type=int, help="levels to keep (default: all)")
    convert.add_argument(
        "--to", metavar="FAMILY",
        help="write the names of espnet, encodec or vector_quantize_pytorch instead of ours",
    )  # fmt: skip
    convert.set_defaults(run=commands.convert)

    warmup = every.add_parser("warmup", help="compile all kernels, as when an image is built")
    warmup.add_argument(
        "--dtype", nargs="+", choices=["float32", "float64"], default=["float32"],
        help="of the vectors to come (default: float32)",
    )  # fmt: skip
    warmup.set_defaults(run=commands.warmup)

    bench = every.add_parser("bench", help="measure how fast this machine encodes and decodes")
    for name, usual in (("dim", 128), ("words", 1024), ("levels", 8), ("rows", 4096)):
        bench.add_argument(f"--{name}", type=int, default=usual, help=f"default: {usual}")
    bench.set_defaults(run=commands.bench)

    demo = every.add_parser("demo", help="hear what RVQ does to real speech")
    demo.add_argument("--wav", help="a PCM WAV file of yours instead of the held-out clips")
    demo.add_argument("-o", "--output", default="rvq-demo", help="folder (default: rvq-demo)")
    demo.set_defaults(run=commands.demo)
    return parser


MODEL = "model file, or a published checkpoint's file or directory"


def _add_model(
    parser: argparse.ArgumentParser,
    flag: str | None = None,
    *,
    required: bool = True,
    told: str = MODEL,
) -> None:
    if flag is None:
        parser.add_argument("model", help=told)
    else:
        parser.add_argument(flag, "--model", required=required, help=told)
    parser.add_argument("--family", help="of the checkpoint (default: told from its tensors)")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
