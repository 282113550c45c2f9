"""The command ``rvq-np``: fit, encode, decode, info, warmup, demo.

Vectors and codes are ``.npy`` files, models safetensors.  What is printed goes to standard
output; progress bars go to standard error, and only if that is a terminal.  Exit codes: 0, done;
1, it could not be done, with one line that says why; 2, the command line was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputFileError, RvqError

ROWS = 1 << 16  # vectors encoded or decoded at once; files may be larger than memory


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
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="rvq-np", description="Residual vector quantization on a CPU."
    )
    parser.add_argument("--version", action="version", version=f"rvq-np {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    fit = commands.add_parser("fit", help="train codebooks on vectors")
    fit.add_argument("vectors", help=".npy file of floats (N, D) or (B, D, T)")
    fit.add_argument("-o", "--output", required=True, help="model file to write, .safetensors")
    fit.add_argument("--n-q", type=int, default=8, help="levels (default: 8)")
    fit.add_argument("--bins", type=int, default=1024, help="words per level (default: 1024)")
    fit.add_argument("--codebook-dim", type=int, help="length of a word (default: D)")
    fit.add_argument("--iterations", type=int, default=25, help="rounds per level (default: 25)")
    fit.add_argument(
        "--rows-per-word", type=int, default=256, help="random vectors per word to train on; 0: all"
    )
    fit.add_argument("--seed", type=int, default=0, help="of all random draws (default: 0)")
    fit.set_defaults(run=_fit)

    encode = commands.add_parser("encode", help="turn vectors into codes")
    encode.add_argument("vectors", help=".npy file of floats (N, D) or (B, D, T)")
    encode.add_argument("-m", "--model", required=True, help="model file")
    encode.add_argument("-o", "--output", required=True, help=".npy file of codes to write")
    encode.add_argument("--n-q", type=int, help="levels to use (default: all)")
    encode.add_argument("--beam-size", type=int, default=1, help="hypotheses kept (default: 1)")
    encode.set_defaults(run=_encode)

    decode = commands.add_parser("decode", help="turn codes into vectors")
    decode.add_argument("codes", help=".npy file of integers (n, N) or (n, B, T)")
    decode.add_argument("-m", "--model", required=True, help="model file")
    decode.add_argument("-o", "--output", required=True, help=".npy file of vectors to write")
    decode.set_defaults(run=_decode)

    info = commands.add_parser("info", help="say what a model is and how its words are used")
    info.add_argument("model", help="model file")
    info.add_argument("--codes", help="count the use of words in this .npy file of codes instead")
    info.set_defaults(run=_info)

    warmup = commands.add_parser("warmup", help="compile all kernels, as when an image is built")
    warmup.add_argument(
        "--dtype", nargs="+", choices=["float32", "float64"], default=["float32"],
        help="of the vectors to come (default: float32)",
    )  # fmt: skip
    warmup.set_defaults(run=_warmup)

    demo = commands.add_parser("demo", help="hear what RVQ does to real speech")
    demo.add_argument("--wav", help="a PCM WAV file of yours instead of the held-out clips")
    demo.add_argument("-o", "--output", default="rvq-demo", help="folder (default: rvq-demo)")
    demo.set_defaults(run=_demo)
    return parser


def _fit(options: argparse.Namespace) -> None:
    from .quantizer import ResidualVectorQuantizer

    x = _load(options.vectors, "vectors", "f", (2, 3))
    _check_folder(options.output)
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


def _encode(options: argparse.Namespace) -> None:
    rvq = _model(options.model)
    x = _load(options.vectors, "vectors", "f", (2, 3))
    from .codec import encode

    n_q = rvq.n_q if options.n_q is None else options.n_q
    books = rvq.codebooks[: _levels(n_q, rvq.n_q)]
    _warn_if_random(rvq)

    def part(rows: np.ndarray) -> np.ndarray:
        return np.asarray(encode(rows, books, beam_size=options.beam_size))

    if x.ndim == 3:
        codes = part(np.ascontiguousarray(x.transpose(0, 2, 1)))
        with _written(options.output, codes.shape, np.int32) as out:
            out[...] = codes
        return
    with _written(options.output, (n_q, len(x)), np.int32) as out:
        for rows in _batches(len(x), "encode"):
            out[:, rows] = part(np.asarray(x[rows]))


def _decode(options: argparse.Namespace) -> None:
    rvq = _model(options.model)
    codes = _load(options.codes, "codes", "iu", (2, 3))
    _warn_if_random(rvq)
    if codes.ndim == 3:
        vectors = rvq.decode(np.asarray(codes))
        with _written(options.output, vectors.shape, np.float32) as out:
            out[...] = vectors
        return
    with _written(options.output, (codes.shape[1], rvq.dimension), np.float32) as out:
        for rows in _batches(codes.shape[1], "decode"):
            out[rows] = rvq.decode(np.asarray(codes[:, rows]))


def _info(options: argparse.Namespace) -> None:
    rvq = _model(options.model)
    usage, source = rvq.usage, "training counts"
    if options.codes:
        usage, source = _usage_of_codes(options.codes, rvq), options.codes
    config = rvq.config
    per_level = float(np.log2(config.bins))
    print(f"model                {options.model}")
    print(f"levels               {config.n_q}")
    print(f"words per level      {config.bins}")
    print(f"vector length        {config.dimension}")
    if config.projects:
        print(f"word length          {config.codebook_dim} (projected in and out at each level)")
    print(f"bits per vector      {config.n_q * per_level:g} ({per_level:g} a level)")
    print(f"fingerprint          {rvq.codebooks.fingerprint[:16]}")
    print(f"use of words in {source}:")
    print("level  words  words used  perplexity  bits used")
    for level, (utilisation, perplexity) in enumerate(usage):
        bits = np.log2(perplexity) if perplexity > 0 else 0.0
        print(
            f"{level:>5}  {config.bins:>5}  {utilisation:>10.1%}  {perplexity:>10.1f}  {bits:>9.2f}"
        )


def _warmup(options: argparse.Namespace) -> None:
    from .codec import warmup

    begun = time.perf_counter()
    if not warmup(*options.dtype):
        print("Numba cannot be imported here; NumPy serves, and there is nothing to compile.")
        return
    print(f"All kernels are ready after {time.perf_counter() - begun:.1f} s; Numba's cache holds")
    print("them for processors like this one. NUMBA_CACHE_DIR says where, if it is set.")


def _demo(options: argparse.Namespace) -> None:
    from . import demo

    demo.run(options.wav, options.output)


def _usage_of_codes(path: str, rvq: Any) -> list[tuple[float, float]]:
    from . import checks
    from .train import usage

    codes = _load(path, "codes", "iu", (2, 3))
    counts = [np.zeros(rvq.bins) for _ in range(codes.shape[0])]
    flat = codes.reshape(codes.shape[0], -1)
    for rows in _batches(flat.shape[1], "count"):
        part = np.asarray(flat[:, rows])
        checks.codes("info", part, rvq.codebooks)
        for level, total in enumerate(counts):
            total += np.bincount(part[level].astype(np.int64), minlength=rvq.bins)
    return [usage(total) for total in counts]


def _model(path: str) -> Any:
    from .quantizer import ResidualVectorQuantizer

    return ResidualVectorQuantizer.load(path)


def _levels(n_q: int, available: int) -> int:
    from . import checks

    return checks.levels("encode", n_q, 1, available)


def _warn_if_random(rvq: Any) -> None:
    if not rvq.is_initialized:
        print(
            "rvq-np: warning: this model was never trained: its words are random.", file=sys.stderr
        )


def _load(path: str, what: str, kinds: str, ranks: tuple[int, ...]) -> np.ndarray:
    """Return the array of an .npy file, mapped, or say what is wrong with the file."""
    wanted = {"f": "floating-point numbers", "iu": "integers"}[kinds]
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        array = _empty_array(path)  # of which there is nothing to map
        if array is None:
            raise InputFileError(
                f"{path!r} is no readable .npy file ({error}). Write one with numpy.save."
            ) from error
    if not isinstance(array, np.ndarray):
        raise InputFileError(f"{path!r} is an .npz archive; wanted one array, from numpy.save.")
    if array.dtype.kind not in kinds:
        raise InputFileError(f"{path!r} holds {array.dtype}; wanted {what}: {wanted}.")
    if array.ndim not in ranks:
        raise InputFileError(
            f"{path!r} holds an array of shape {array.shape}; wanted {what} of rank "
            f"{' or '.join(map(str, ranks))}."
        )
    return array


def _empty_array(path: str) -> np.ndarray | None:
    """Return the array of an .npy file without a number in it; None if it is anything else."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with open(path, "rb") as file:  # only the header: what it says of sizes may be a lie
            shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    except (ValueError, EOFError, OSError, SyntaxError, KeyError):
        return None
    return np.empty(shape, dtype) if 0 in shape and not dtype.hasobject else None


def _check_folder(path: str) -> None:
    """Raise before hours of work, not after, if the result cannot be written."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to write {path!r} into.")


@contextlib.contextmanager
def _written(path: str, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Yield an array that becomes the .npy file `path` when all went well, and not before."""
    _check_folder(path)
    target = Path(path).absolute()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        if 0 in shape:  # nothing to map
            array = np.empty(shape, dtype)
            yield array
            with open(temporary, "wb") as file:
                np.save(file, array)
        else:
            mapped = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
            yield mapped
            mapped.flush()
            del mapped
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _batches(count: int, name: str) -> Iterator[slice]:
    """Yield slices over `count` rows, under a progress bar if somebody watches."""
    starts: Any = range(0, count, ROWS)
    if sys.stderr.isatty() and len(starts) > 1:
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            starts = tqdm(starts, desc=name, unit="batch", leave=False)
    for start in starts:
        yield slice(start, min(start + ROWS, count))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
