"""WAV files by the standard library: reads PCM of 8 to 32 bits, writes 16 bits; a resampler."""

import contextlib
import wave
from pathlib import Path

import numpy as np

from ..errors import InputFileError
from .atomic import NewFile


def read(path):
    """Return the samples (N,), float64 in [-1, 1], channels averaged, and the sample rate.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputFileError
        If it is not a PCM WAV file, its header is truncated, or it has no samples.
    """
    with _open(path) as (file, frames):
        channels, width = file.getnchannels(), file.getsampwidth()
        rate, content = file.getframerate(), _next(file, path, frames)
    usable = len(content) // (channels * width) * channels * width
    samples = _samples(content[:usable], width)
    if not len(samples):
        raise InputFileError(f"{str(path)!r} has no samples; expected at least one.")
    return samples.reshape(-1, channels).mean(axis=1), rate


def length(path):
    """Return the number of samples per channel, and the sample rate; errors as in `read`."""
    with _open(path) as (file, frames):
        return frames, file.getframerate()


@contextlib.contextmanager
def opened(path):
    """Yield ``read(count)``: the next samples, float32, channels averaged, fewer at the end."""
    with _open(path) as (file, _):
        channels, width = file.getnchannels(), file.getsampwidth()

        def next_samples(count):
            content = _next(file, path, count)
            usable = len(content) // (channels * width) * channels * width
            samples = _samples(content[:usable], width)
            return samples.reshape(-1, channels).mean(axis=1).astype(np.float32)

        yield next_samples


@contextlib.contextmanager
def writing(target, rate):
    """Yield ``write(samples)`` for 16-bit PCM to an open file; clips to [-1, 1]."""
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        yield lambda samples: file.writeframes(_pcm(samples).tobytes())


@contextlib.contextmanager
def _open(path):
    """Yield a file and its number of frames, by its size where its header claims more."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    with open(path, "rb") as whole:
        try:
            file = wave.open(whole, "rb")  # noqa: SIM115
        except Exception as error:  # of a damaged file, the module may raise any exception
            raise InputFileError(
                f"{str(path)!r} is not a PCM WAV file ({error!r}). Convert it, for example with "
                "`ffmpeg -i in.mp3 out.wav`."
            ) from error
        width = file.getsampwidth()
        if file.getframerate() < 1 or not 1 <= width <= 4:
            raise InputFileError(
                f"{str(path)!r} has sample rate {file.getframerate()} and {width} bytes per "
                "sample; expected a positive rate and 1 to 4 bytes."
            )
        there = (path.stat().st_size - whole.tell()) // (file.getnchannels() * width)
        yield file, max(0, min(file.getnframes(), there))


def _next(file, path, count):
    try:
        return file.readframes(count)
    except Exception as error:
        raise InputFileError(f"{str(path)!r} is a damaged WAV file ({error!r}).") from error


def _pcm(samples):
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def _samples(content, width):
    if width == 1:  # the only unsigned width
        return np.frombuffer(content, np.uint8) / 128.0 - 1.0
    raw = np.frombuffer(content, np.uint8).reshape(-1, width)
    padded = np.zeros((len(raw), 4), np.uint8)
    padded[:, 4 - width :] = raw  # little-endian: shifts left
    return padded.view("<i4")[:, 0] / 2.0**31


def write(path, samples, rate):
    """Write `samples` in [-1, 1] as 16-bit PCM; others are clipped."""
    with NewFile(path) as new, writing(new.file, rate) as put:
        put(samples)


def resample(samples, rate, new_rate):
    """Return `samples` at another rate, band-limited: the spectrum is cut or padded."""
    if rate == new_rate:
        return samples
    length = max(1, round(len(samples) * new_rate / rate))
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return np.fft.irfft(kept, length) * (length / len(samples))
