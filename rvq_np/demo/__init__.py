"""What residual vector quantization does to real speech, from training to WAV files to hear.

Ten clips of two speakers ship with the package, eight to train on and two held out, of the same
two voices (``data/``, terms beside them).  A clip becomes MDCT vectors of 64 numbers, 250 a
second; a quantizer of eight levels with 1024 words each is fitted to the training clips, and the
held-out ones are encoded with one to eight of its levels: 2.5 kb/s each.  The transform is
invertible, so all that is lost is the quantizer's doing.
"""

from __future__ import annotations

import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..quantizer import ResidualVectorQuantizer
from . import mdct, wav

RATE = 16000  # samples a second of the clips that ship
DIM = 64  # samples, and numbers per vector: 250 vectors a second
LEVELS = 8
WORDS = 1024
OFFSETS = 8  # each training clip is cut into vectors from so many starting points
ROUNDS = 10  # of k-means per level; 30 gain nothing on held-out clips
FRAME_RATE = RATE / DIM
BEAM = 8


class Clip(NamedTuple):
    """One recording: a name for files, and samples (N,) at `RATE`."""

    name: str
    samples: np.ndarray


class Level(NamedTuple):
    """What encoding the clips with some levels came to."""

    n_q: int
    kbps: float
    snr: list[float]  # dB, per clip
    utilisation: float  # of the last level's words, in training
    perplexity: float
    times_real: float  # seconds of sound encoded per second


def shipped_clips(kind: str) -> list[Clip]:
    """Return the clips of ``train`` or ``heldout``."""
    folder = Path(str(files(__package__) / "data" / kind))
    return [Clip(path.stem, wav.read(path)[0]) for path in sorted(folder.glob("*.wav"))]


def load_clip(path: str) -> Clip:
    """Return the user's own recording, at `RATE`."""
    samples, rate = wav.read(path)
    return Clip(Path(path).stem, wav.resample(samples, rate, RATE))


def train(clips: list[Clip], seed: int = 0, progress: bool = False) -> ResidualVectorQuantizer:
    """Fit a quantizer to the clips, each cut from several starting points.

    The transform is not invariant to shifts: the same sound, a few samples later, makes other
    vectors. Eight cuts give four times the training data of two, worth 1.3 to 1.9 dB on the
    held-out clips at all levels.
    """
    vectors = np.concatenate(
        [
            mdct.forward(clip.samples, DIM, offset)
            for clip in clips
            for offset in range(0, DIM, DIM // OFFSETS)
        ]
    )
    rvq = ResidualVectorQuantizer(DIM, DIM, n_q=LEVELS, bins=WORDS, kmeans_iters=ROUNDS, rng=seed)
    return rvq.fit(vectors, rows_per_word=None, progress=progress).eval()


def signal_to_noise(samples: np.ndarray, decoded: np.ndarray) -> float:
    """Return the signal-to-noise ratio in dB: energy of the signal by that of the error."""
    noise = float(np.square(samples - decoded).sum())
    signal = float(np.square(samples).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def reconstruct(rvq: ResidualVectorQuantizer, clip: Clip, n_q: int, beam_size: int = 1) -> Any:
    """Return the clip encoded with `n_q` levels and decoded again, samples (N,)."""
    vectors = mdct.forward(clip.samples, DIM)
    kbps = n_q * rvq.get_bandwidth_per_quantizer(FRAME_RATE)
    codes = rvq.encode(vectors, FRAME_RATE, bandwidth=kbps, beam_size=beam_size)
    return mdct.inverse(rvq.decode(codes), len(clip.samples))


def measure(rvq: ResidualVectorQuantizer, clips: list[Clip], n_q: int) -> Level:
    """Encode all clips with `n_q` levels and measure what comes back."""
    vectors = [mdct.forward(clip.samples, DIM) for clip in clips]
    kbps = n_q * rvq.get_bandwidth_per_quantizer(FRAME_RATE)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for each in vectors:
            rvq.encode(each, FRAME_RATE, bandwidth=kbps)
        times.append(time.perf_counter() - started)
    seconds = sum(len(clip.samples) for clip in clips) / RATE
    snr = [signal_to_noise(clip.samples, reconstruct(rvq, clip, n_q)) for clip in clips]
    utilisation, perplexity = rvq.usage[n_q - 1]
    return Level(n_q, kbps, snr, utilisation, perplexity, seconds / sorted(times)[1])


def run(
    path: str | None = None, out: str = "rvq-demo", progress: bool | None = None
) -> list[Level]:
    """Train, encode, print the table and write WAV files and, with matplotlib, pictures.

    Parameters
    ----------
    path : str, optional
        A PCM WAV file to encode instead of the held-out clips.
    out : str, optional
        Folder for the files; made if it is not there.
    progress : bool, optional
        Whether to show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    levels : list of Level
        What the table shows.
    """
    heldout = shipped_clips("heldout") if path is None else [load_clip(path)]
    training = shipped_clips("train")
    seconds = sum(len(clip.samples) for clip in training) / RATE
    print(
        f"Training {LEVELS} levels of {WORDS} words on {len(training)} clips, {seconds:.1f} s of "
        f"speech: {DIM} MDCT numbers a vector, {FRAME_RATE:g} vectors a second."
    )
    started = time.perf_counter()
    shown = sys.stderr.isatty() if progress is None else progress
    rvq = train(training, progress=shown)
    print(f"Trained in {time.perf_counter() - started:.1f} s.\n")
    levels = [measure(rvq, heldout, n_q) for n_q in range(1, LEVELS + 1)]
    print_table(heldout, levels)
    best = [signal_to_noise(clip.samples, reconstruct(rvq, clip, LEVELS, BEAM)) for clip in heldout]
    print(f"with beam_size={BEAM} at all levels: {', '.join(f'{each:.1f} dB' for each in best)}\n")
    write_files(rvq, heldout, levels, Path(out))
    return levels


def print_table(clips: list[Clip], levels: list[Level]) -> None:
    """Print one line a level."""
    print(f"Encoded, none of it trained on: {', '.join(clip.name for clip in clips)}")
    names = "  ".join(f"{'SNR ' + clip.name:>18}" for clip in clips)
    print(f"levels    kb/s  {names}  words used  perplexity  x real time")
    for level in levels:
        snr = "  ".join(f"{each:>15.1f} dB" for each in level.snr)
        print(
            f"{level.n_q:>6}  {level.kbps:>6.1f}  {snr}  {level.utilisation:>9.0%}  "
            f"{level.perplexity:>10.0f}  {level.times_real:>10.0f}x"
        )


def write_files(
    rvq: ResidualVectorQuantizer, clips: list[Clip], levels: list[Level], folder: Path
) -> None:
    """Write the model, each clip at each bitrate, and the pictures, and say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rvq.save(folder / "model.safetensors")
    for clip in clips:
        wav.write(folder / f"{clip.name}-original.wav", clip.samples, RATE)
        for level in levels:
            name = f"{clip.name}-{level.kbps:g}-kbps.wav"
            wav.write(folder / name, reconstruct(rvq, clip, level.n_q), RATE)
    count = len(clips) * (len(levels) + 1)
    print(f"Wrote {count} WAV files to listen to and the model into {folder}{_slash(folder)}")
    try:
        from .. import plot
    except ImportError:
        print("For pictures, install matplotlib: pip install 'rvq-np[plot]'.")
        return
    snr = {clip.name: [level.snr[i] for level in levels] for i, clip in enumerate(clips)}
    plot.rate_distortion([level.kbps for level in levels], snr, folder / "rate-distortion.png")
    some = [levels[0], levels[(len(levels) - 1) // 3], levels[-1]]
    shown = [(f"{each.kbps:g} kb/s", reconstruct(rvq, clips[0], each.n_q)) for each in some]
    plot.spectrograms([("original", clips[0].samples), *shown], RATE, folder / "spectrograms.png")
    print("Pictures: rate-distortion.png, spectrograms.png.")


def _slash(folder: Path) -> str:
    return "" if str(folder).endswith("/") else "/"


__all__ = ["Clip", "Level", "measure", "reconstruct", "run", "shipped_clips", "train"]
