"""The command line: every command with its options, and examples at the end of its help."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from . import commands, compile, folder, ids
from .examples import EXAMPLES

SHELLS = ("bash", "zsh", "tcsh")
EXPORTED = ("encodec", "espnet", "vector_quantize_pytorch")


def made() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="rvq-np", description="Residual vector quantization on a CPU."
    )
    parser.add_argument("--version", action="version", version=f"rvq-np {__version__}")
    parser.add_argument(
        "--print-completion", action=Completion, choices=SHELLS,
        help="print the completion script of a shell; needs rvq-np[cli]",
    )  # fmt: skip
    every = parser.add_subparsers(required=True, metavar="command", dest="command")

    fit = every.add_parser("fit", help="train codebooks on vectors")
    fit.add_argument(
        "vectors",
        help=".npy or .npz file of floats (N, D) or (B, D, T), a .csv or .parquet file with "
        "one vector per row, or a sound; -: standard input",
    )
    fit.add_argument("-o", "--output", required=True, help="model file to write, .safetensors")
    fit.add_argument("--n-q", type=int, default=8, help="number of stages (default: 8)")
    fit.add_argument(
        "--bins", default="1024",
        help="codewords per stage (default: 1024), or one number per stage: 1024,256,256",
    )  # fmt: skip
    fit.add_argument("--codebook-dim", type=int, help="dimension of codewords (default: D)")
    fit.add_argument(
        "--iterations",
        type=int,
        default=25,
        help="most iterations of k-means per stage (default: 25)",
    )
    fit.add_argument(
        "--rows-per-codeword",
        type=int,
        default=256,
        help="random training vectors per codeword (default: 256); 0: all vectors",
    )
    fit.add_argument(
        "--front-end",
        help="front end of the vectors, recorded in the model: samples, mdct (default for a "
        "sound), embeddings, or 'latents of ENCODER'",
    )
    fit.add_argument("--dim", type=int, help="samples per vector of a sound (default: 64)")
    fit.add_argument(
        "--sample-rate", type=int, help="samples per second, recorded; a sound is resampled to it"
    )
    refining = fit.add_mutually_exclusive_group()
    refining.add_argument(
        "--refine", nargs="?", const="", metavar="NAME=NUMBER,...",
        help="refine all codebooks together afterwards, for codes of a beam search; with arguments "
        "of rvq_np.train.refine: iterations=80,beam_size=16 (default: a short refinement, if there "
        "are at least 8,192 vectors, and 32 per codeword of all stages)",
    )  # fmt: skip
    refining.add_argument(
        "--no-refine", action="store_true", help="do not refine the codebooks, for any number of "
        "vectors",
    )  # fmt: skip
    fit.add_argument("--start", help="model to start from, of the same shape: a warm start")
    fit.add_argument(
        "--freeze", default="", metavar="STAGES", help="stages of --start that do not change: 0,1"
    )
    fit.add_argument(
        "--hold", type=float, default=0.9,
        help="with --start: share of the way from its mean back to its old place at which a "
        "codeword stops (default: 0.9)",
    )  # fmt: skip
    fit.add_argument("--checkpoint", help="resume file: save progress and resume from it")
    fit.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    fit.add_argument("--column", help="of a Parquet file: the column of vectors, as lists")
    _add_json(fit)
    fit.set_defaults(run=commands.fit)

    encode = every.add_parser("encode", help="turn vectors into codes")
    encode.add_argument(
        "vectors",
        help=".npy or .npz file of floats (N, D) or (B, D, T), a .csv or .parquet file with "
        "one vector per row, or a sound; -: standard input; or a folder of .npy, .parquet and "
        ".zarr",
    )
    _add_model(encode, "-m")
    encode.add_argument(
        "-o",
        "--output",
        required=True,
        help="file of codes to write: .rvq, .npy, .npz, .csv or .parquet; .rvq or .npz where "
        "stages have strides; -: standard output, as .rvq",
    )
    _add_front_end(encode)
    encode.add_argument(
        "--resample",
        action="store_true",
        help="resample a sound whose sample rate is not that of the model",
    )
    encode.add_argument("--frame-rate", help="vectors per second, stored in .rvq: 75, or 44100/512")
    encode.add_argument("--n-q", type=int, help="number of stages to use (default: all)")
    encode.add_argument(
        "--bandwidth", type=float,
        help="most kb/s to use, instead of --n-q: as many stages as fit; for a sound, or with "
        "--frame-rate",
    )  # fmt: skip
    encode.add_argument("--threads", type=int, help="threads (default: one per processor core)")
    encode.add_argument(
        "--beam-size", type=int, default=1, help="width of the beam search (default: 1)"
    )
    folder.add_arguments(encode)
    _add_json(encode)
    encode.set_defaults(run=commands.encode)

    decode = every.add_parser("decode", help="turn codes into vectors")
    decode.add_argument(
        "codes",
        help=".rvq file, .npy file of integers (n, N) or (n, B, T), .npz, .csv or .parquet of "
        "`encode`; -: standard input",
    )
    _add_model(decode, "-m")
    decode.add_argument(
        "-o", "--output", required=True,
        help="file to write: .npy, .csv or .parquet of vectors, or .wav if the model is for sound; "
        "-: standard output, as .npy",
    )  # fmt: skip
    _add_front_end(decode)
    decode.add_argument("--n-q", type=int, help="number of stages to use (default: all)")
    decode.add_argument("--start", type=int, help="first frame to decode (default: 0)")
    decode.add_argument("--stop", type=int, help="frame after the last to decode (default: all)")
    decode.add_argument("--column", help="of a Parquet file: the column of codes (default: codes)")
    _add_json(decode)
    decode.set_defaults(run=commands.decode)

    info = every.add_parser("info", help="describe a model, a file of codes, or a GGUF file")
    _add_model(info, help="model file, checkpoint, or .rvq file of codes; -: standard input")
    info.add_argument("--codes", help="count how often each codeword is used in this file of codes")
    _add_json(info)
    info.set_defaults(run=commands.info)

    verify = every.add_parser("verify", help="read a whole .rvq file and check every checksum")
    verify.add_argument("codes", help=".rvq file; -: standard input")
    _add_model(verify, "-m", required=False)
    _add_json(verify)
    verify.set_defaults(run=commands.verify)

    convert = every.add_parser("convert", help="write a model's codebooks to a small file")
    _add_model(convert)
    convert.add_argument(
        "-o", "--output", required=True,
        help="file to write: .safetensors; for --to faiss .faissindex, .faiss or .index",
    )  # fmt: skip
    convert.add_argument("--n-q", type=int, help="number of stages to keep (default: all)")
    convert.add_argument(
        "--to", metavar="FAMILY",
        help="faiss: write an index; or the family whose tensor names are written, instead of "
        f"those of rvq_np: {', '.join(EXPORTED)}",
    )  # fmt: skip
    convert.add_argument("--codes", help=".rvq or .npy file of codes to put into a faiss index")
    convert.add_argument(
        "--norms", choices=["qint8", "float", "none"],
        help="how a faiss index stores norms (default: qint8 with codes, else float)",
    )  # fmt: skip
    _add_json(convert)
    convert.set_defaults(run=commands.convert)

    ids.add_parser(every)
    _add_json(every.choices["ids"])

    warmup = every.add_parser(
        "warmup", help="compile all kernels, for example for a container image"
    )
    warmup.add_argument(
        "--dtype", nargs="+", choices=["float32", "float64"], default=["float32"],
        help="dtypes of the vectors (default: float32)",
    )  # fmt: skip
    _add_json(warmup)
    warmup.set_defaults(run=commands.warmup)

    compile.add_to(every)
    _add_json(every.choices["compile"])

    bench = every.add_parser("bench", help="measure how fast this machine encodes and decodes")
    for names, usual, what in (
        (("--dim",), 128, "dimension"), (("--bins", "--codewords"), 1024, "codewords per stage"),
        (("--n-q", "--stages"), 8, "stages"), (("--rows",), 4096, "vectors"),
    ):  # fmt: skip
        dest = names[-1][2:]
        bench.add_argument(
            *names, dest=dest, type=int, default=usual, help=f"{what} (default: {usual})"
        )
    _add_json(bench)
    bench.set_defaults(run=commands.bench)

    demo = every.add_parser("demo", help="train on speech, and write WAV files at eight bitrates")
    demo.add_argument("--wav", help="file of sound to encode instead of the held-out clips")
    demo.add_argument(
        "-o", "--output", default="rvq-demo", help="folder to write (default: rvq-demo)"
    )
    _add_json(demo)
    demo.set_defaults(run=commands.demo)
    for name, command in every.choices.items():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.epilog = f"examples:\n{textwrap.indent(EXAMPLES[name].strip(), '  ')}"
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _families() -> list[str]:
    from .. import checkpoints

    return checkpoints.families()


class Completion(argparse.Action):
    """Print the completion script of a shell, and exit."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.exit(
                1,
                "rvq-np: error: --print-completion needs shtab, which is not installed. Run pip "
                "install 'rvq-np[cli]'.\n",
            )
        print(shtab.complete(parser, shell=values))
        parser.exit(0)


def _add_front_end(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--front-end", choices=["samples", "mdct"],
        help="front end of the vectors, if the model does not record it",
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
    parser.add_argument(
        "--family", metavar="FAMILY",
        help=f"checkpoint family: {', '.join(_families())} (default: detected from the names of "
        "the tensors)",
    )  # fmt: skip
    parser.add_argument("--part", help="which quantizer of a checkpoint with several: see info")
    parser.add_argument(
        "--names", metavar="FILE",
        help="JSON file: maps names of tensors in the model to their names in the family",
    )  # fmt: skip
