"""Sounds as vectors and back, by the front end of the model.

Only samples and an MDCT are computed here.  A model of other vectors is refused with what is
missing: its codes of a sound would be codes of nothing, and no error would show it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .. import arguments
from ..errors import InputFileError, ParameterError, RvqError
from ..files import wav
from ..files.atomic import NewFile
from ..frontend import OF_SOUND, Analysis, FrontEnd, Synthesis
from . import files

DIM = 64  # samples per vector, where `fit` gets no other number


def front_end(command: str, path: str, model: Any, asked: str | None) -> FrontEnd:
    """Return the front end of a model for the sound at `path`; `asked` where it records none.

    Raises
    ------
    ParameterError
        If the library does not compute it, if it is unknown, or if the model has another one than
        is asked for.
    """
    recorded, dim = model.front_end, model.quantizer.dim
    if asked is not None:
        if recorded is not None and recorded.kind != asked:
            raise ParameterError(
                f"{command}: --front-end is {asked}, but the vectors of {model.path!r} are "
                f"{recorded}. Omit --front-end."
            )
        recorded = FrontEnd(asked, dim) if recorded is None else recorded
    if recorded is None:
        raise ParameterError(
            f"{command}: {path!r} is a sound, and {model.path!r} does not record what its vectors "
            "are. If they are frames of samples, or the MDCT of this library, pass --front-end "
            "samples or --front-end mdct. Otherwise use .npy files."
        )
    if not recorded.is_of_sound:
        raise ParameterError(_missing(command, path, model.path, recorded))
    return recorded


def _missing(command: str, path: str, model: str, recorded: FrontEnd) -> str:
    into = command == "encode"
    said = f"{command}: {path!r} is a sound, but the vectors of {model!r} are {recorded}. "
    if recorded.kind == "latents":
        part = "encoder" if into else "decoder"
        return said + (
            f"rvq_np has no {recorded.of} {part}: the package that the checkpoint is from has it. "
            + (
                "Run it on the sound, and encode its output, an .npy file (N, D) or (B, D, T)."
                if into
                else "Decode into an .npy file, and run it on that."
            )
        )
    model_of = recorded.of or "the model that made them"
    return said + f"They come from {model_of}, not from sound. Use .npy files of them."


def source(path: str, front: FrontEnd, resample: bool) -> tuple[int, Fraction, Any]:
    """Return how many vectors a sound has, their rate, and ``pieces(block)`` as in `Vectors`."""
    count, rate = wav.length(path)
    expected = front.rate if front.rate is not None else rate
    if expected != rate:
        if not resample:
            raise InputFileError(
                f"{path!r} has {rate} samples per second; the model is for {expected}. Pass "
                "--resample, or convert the file."
            )
        with wav.opened(path, expected) as sound:
            count = sound.count
    frames, dim = front.vectors(count) if count else 0, front.dim or 1

    def pieces(block: int) -> Iterator[tuple[int, np.ndarray]]:
        analyze = Analysis(front)
        with wav.opened(path, expected) as sound:
            for rows in files.batches(frames, "encode", block):
                samples = np.zeros((rows.stop - rows.start) * dim)
                found = sound.read(len(samples))
                samples[: len(found)] = found
                yield rows.start, analyze(samples)

    return frames, Fraction(expected, dim), pieces


def array(path: str, kind: str | None, dim: int | None, rate: int | None) -> tuple[Any, FrontEnd]:
    """Return all vectors (N, D) of a sound, resampled to `rate`, and their front end."""
    kind = "mdct" if kind is None else kind
    if kind not in OF_SOUND:
        raise ParameterError(
            f"fit: {path!r} is a sound, and --front-end is {kind}; expected samples or mdct. "
            "Vectors of other front ends come in .npy files."
        )
    if rate is not None:
        rate = arguments.whole("fit", "--sample-rate", rate, 1, wav.HIGHEST)
    with wav.opened(path, rate) as sound:
        front = FrontEnd(kind, DIM if dim is None else dim, sound.rate)
        samples = sound.read(sound.count)
    if not len(samples):
        raise InputFileError(f"{path!r} has no samples; expected at least one.")
    whole = np.zeros(front.vectors(len(samples)) * (front.dim or 1))
    whole[: len(samples)] = samples
    return Analysis(front)(whole), front


@contextlib.contextmanager
def sink(
    path: Any, front: FrontEnd, batch: tuple[int, ...], rate: Fraction | None
) -> Iterator[Any]:
    """Yield ``put(first frame, (n, D))`` into a WAV file; `rate`: vectors per second, if known."""
    per_second = _rate(path, front, batch, rate)
    synthesize = Synthesis(front)
    with NewFile(path) as new, wav.writing(new.file, per_second) as write:
        yield lambda start, x: write(synthesize(x))


def _rate(path: Any, front: FrontEnd, batch: tuple[int, ...], rate: Fraction | None) -> int:
    """Return the samples per second, or raise ParameterError."""
    per_second = None if rate is None else rate * (front.dim or 1)
    if front.rate is not None:
        if per_second not in (None, front.rate):
            raise ParameterError(
                f"decode: the codes have {rate} vectors per second, which is {per_second} samples; "
                f"the model is for {front.rate}. They are of another model, or their frame rate is "
                "wrong. Write .npy."
            )
        per_second = Fraction(front.rate)
    if batch or per_second is None or per_second.denominator != 1:
        raise ParameterError(
            f"decode: a WAV file, {str(path)!r}, holds one stream with a known frame rate; got "
            f"streams of shape {batch} at {rate} frames per second. Write .npy."
        )
    if per_second >= 1 << 31:
        raise ParameterError(f"decode: {per_second} samples per second are too many for WAV.")
    return int(per_second)


def named(text: str | None, dim: int, rate: int | None) -> FrontEnd | None:
    """Return the front end that ``fit --front-end`` names, for vectors of dimension `dim`."""
    if text is None:
        return None
    kind, _, of = text.partition(" of ")
    try:
        if kind in OF_SOUND and not of:
            return FrontEnd(kind, dim, rate)
        return FrontEnd(kind, of=of.removesuffix(" encoder").removeprefix("the ") or None)
    except RvqError as error:
        raise ParameterError(
            f"fit: --front-end is {text!r}; expected samples, mdct, embeddings, 'embeddings of "
            "MODEL' or 'latents of ENCODER'."
        ) from error
