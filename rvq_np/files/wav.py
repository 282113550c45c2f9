"""Files of sound: read by libraries, written as WAV of 16 bits; a resampler.

Whole numbers of 8 to 32 bits in WAV files are read by the standard library, in parts, the same on
every machine.  The rest, floats, extensible headers and other formats as FLAC, is read by
soundfile, or, if it is WAV, by SciPy: the extra ``audio``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from ..errors import InputFileError
from . import kinds
from .atomic import NewFile

HIGHEST = 1 << 20  # samples per second that are resampled: filters grow with the rates
INSTALL = "pip install 'rvq-np[audio]'"


@dataclass(frozen=True)
class Sound:
    """An open file of sound; ``read(count)`` gives the next samples (n,), float64, n <= count."""

    rate: int  # samples per second
    count: int  # samples of each channel
    read: Callable[[int], np.ndarray]


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Return the samples (N,), float64 in [-1, 1], channels averaged, and the sample rate.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputFileError
        If it is of another kind, is damaged or has no samples, or if it needs a library that is
        not installed.
    """
    with opened(path) as sound:
        samples = sound.read(sound.count)
        if not len(samples):
            raise InputFileError(f"{str(path)!r} has no samples; expected at least one.")
        return samples, sound.rate


def length(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the number of samples per channel, and the sample rate; errors as in `read`."""
    with opened(path) as sound:
        return sound.count, sound.rate


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], rate: int | None = None) -> Iterator[Sound]:
    """Yield the `Sound` of a file, channels averaged; at another `rate` resampled by SciPy.

    Raises
    ------
    FileNotFoundError, InputFileError
        As `read`; `Sound.read` raises InputFileError where a file is damaged.
    """
    kind = kinds.of(path)
    if kind.name not in (*kinds.SOUNDS, "unknown", "empty"):
        raise InputFileError(f"{str(path)!r} is {kind.said}; expected a sound, for example WAV.")
    with contextlib.ExitStack() as stack:
        found = _standard(path, stack) if kind.name not in kinds.SOUNDS - {"wav"} else None
        if found is None:
            found = _soundfile(path, stack)
        if found is None and kind.name == "wav":
            found = _scipy(path)
        if found is None:
            raise InputFileError(
                f"{str(path)!r} is {kind.said} that needs a library to be read: {INSTALL}, or "
                "convert it, for example with `ffmpeg -i in.flac -c:a pcm_s16le out.wav`."
            )
        yield found if rate in (None, found.rate) else _resampled(path, found, rate)


def _standard(path: Any, stack: contextlib.ExitStack) -> Sound | None:
    """Return a sound as the standard library reads it; None if it has no whole numbers."""
    whole = stack.enter_context(open(path, "rb"))  # noqa: SIM115
    if whole.read(4) in (b"RIFX", b"RF64", b"BW64"):
        return None
    whole.seek(0)
    try:
        file = wave.open(whole, "rb")  # noqa: SIM115
    except Exception as error:  # of a damaged file, the module may raise any exception
        if isinstance(error, wave.Error) and "unknown" in str(error):
            return None  # "unknown format: 3" or "unknown extended format"
        raise InputFileError(
            f"{str(path)!r} is not a PCM WAV file ({error!r}). Convert it, for example with "
            "`ffmpeg -i in.mp3 out.wav`."
        ) from error
    rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
    if rate < 1 or not 1 <= width <= 4:
        raise InputFileError(
            f"{str(path)!r} has sample rate {rate} and {width} bytes per sample; expected a "
            "positive rate and 1 to 4 bytes."
        )
    there = (os.path.getsize(path) - whole.tell()) // (channels * width)

    def next_samples(count: int) -> np.ndarray:
        try:
            content = file.readframes(count)
        except Exception as error:
            raise InputFileError(f"{str(path)!r} is a damaged WAV file ({error!r}).") from error
        usable = len(content) // (channels * width) * channels * width
        return _mean(_samples(content[:usable], width).reshape(-1, channels))

    # Some recorders write a header that claims more than there is.
    return Sound(rate, max(0, min(file.getnframes(), there)), next_samples)


def _samples(content: bytes, width: int) -> np.ndarray:
    if width == 1:  # the only unsigned width
        return np.frombuffer(content, np.uint8) / 128.0 - 1.0
    raw = np.frombuffer(content, np.uint8).reshape(-1, width)
    padded = np.zeros((len(raw), 4), np.uint8)
    padded[:, 4 - width :] = raw  # little-endian: shifts left
    return padded.view("<i4")[:, 0] / 2.0**31


def _soundfile(path: Any, stack: contextlib.ExitStack) -> Sound | None:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: without its library
        return None
    try:
        file = stack.enter_context(soundfile.SoundFile(os.fspath(path)))
        count, rate = int(file.frames), int(file.samplerate)
    except Exception as error:
        raise _damaged(path, error) from error

    def next_samples(requested: int) -> np.ndarray:
        try:
            return _mean(file.read(max(0, requested), "float64", always_2d=True))
        except Exception as error:
            raise _damaged(path, error) from error

    return Sound(rate, count, next_samples)


def _scipy(path: Any) -> Sound | None:
    try:
        from scipy.io import wavfile
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about chunks that are no sound
            rate, content = wavfile.read(path)
        if content.dtype.kind == "u":
            samples = content / 128.0 - 1.0
        elif content.dtype.kind == "i":
            samples = content / 2.0 ** (8 * content.dtype.itemsize - 1)
        else:
            samples = content.astype(np.float64)
        whole = _mean(samples.reshape(len(samples), -1))
    except Exception as error:
        raise _damaged(path, error) from error
    return _held(int(rate), whole)


def _held(rate: int, samples: np.ndarray) -> Sound:
    """Return the sound of an array."""
    place = 0

    def next_samples(count: int) -> np.ndarray:
        nonlocal place
        place += count
        return samples[place - count : place]

    return Sound(rate, len(samples), next_samples)


def _resampled(path: Any, sound: Sound, rate: int | None) -> Sound:
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise InputFileError(
            f"{str(path)!r} has {sound.rate} samples per second, and resampling to {rate} needs "
            f"SciPy: {INSTALL}."
        ) from error
    assert rate is not None
    if max(rate, sound.rate) > HIGHEST:
        raise InputFileError(
            f"{str(path)!r} has {sound.rate} samples per second; expected at most {HIGHEST}, to be "
            f"resampled to {rate}."
        )
    shared = gcd(rate, sound.rate)
    up, down = rate // shared, sound.rate // shared

    @functools.cache
    def whole() -> Sound:  # when it is read: whoever asks for the length alone does not wait
        samples = sound.read(sound.count)
        return _held(rate, resample_poly(samples, up, down) if len(samples) else samples)

    return Sound(rate, -(-sound.count * up // down), lambda count: whole().read(count))


def _mean(samples: np.ndarray) -> np.ndarray:
    """Return the mean of the channels, (N, channels) to (N,); one channel stays as it is."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)


def _damaged(path: Any, error: BaseException) -> InputFileError:
    return InputFileError(f"{str(path)!r} is a damaged sound, or of an unknown form ({error}).")


@contextlib.contextmanager
def writing(target: Any, rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield ``write(samples)`` for 16-bit PCM to an open file; clips to [-1, 1]."""
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        yield lambda samples: file.writeframes(_pcm(samples).tobytes())


def _pcm(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def write(path: str | os.PathLike[str], samples: np.ndarray, rate: int) -> None:
    """Write `samples` in [-1, 1] as 16-bit PCM; others are clipped."""
    with NewFile(path) as new, writing(new.file, rate) as put:
        put(samples)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return `samples` at another rate, band-limited: the spectrum is cut or padded."""
    if rate == new_rate:
        return samples
    length = max(1, round(len(samples) * new_rate / rate))
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return np.fft.irfft(kept, length) * (length / len(samples))
