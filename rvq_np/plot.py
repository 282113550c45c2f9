"""Plots of what a quantizer does. Needs matplotlib: ``pip install 'rvq-np[plot]'``.

Nothing here opens a window or touches matplotlib's global state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .files.atomic import NewFile


def rate_distortion(
    kbps: Sequence[float], snr: Mapping[str, Sequence[float]], path: str | os.PathLike[str]
) -> None:
    """Draw signal-to-noise ratio over bitrate, one line per recording, into a PNG file.

    Parameters
    ----------
    kbps : sequence of float
        Bitrates, kb/s.
    snr : mapping of str to sequence of float
        Per recording, its ratios in dB, one per bitrate.
    path : path
        Where to write.
    """
    figure, axes = _figure(6.4, 4.4, 1)
    for name, ratios in snr.items():
        axes[0].plot(kbps, ratios, marker="o", label=name)
    axes[0].set(xlabel="bitrate, kb/s", ylabel="signal-to-noise ratio, dB")
    axes[0].set_title("Held-out speech: SNR by number of stages")
    axes[0].grid(alpha=0.3)
    axes[0].legend(frameon=False)
    _save(figure, path, 120)


def spectrograms(
    sounds: Sequence[tuple[str, np.ndarray]], rate: float, path: str | os.PathLike[str]
) -> None:
    """Draw spectrograms one above the other, on one scale, into a PNG file.

    Parameters
    ----------
    sounds : sequence of (str, numpy.ndarray (N,))
        Titles and samples; the first sets the scale, 80 dB down from its loudest point.
    rate : float
        Samples per second.
    path : path
        Where to write.
    """
    figure, axes = _figure(8.0, 2.0 * len(sounds) + 0.6, len(sounds))
    loudest = None
    for axis, (title, samples) in zip(axes, sounds, strict=True):
        decibels = _decibels(np.asarray(samples, dtype=np.float64))
        loudest = float(decibels.max()) if loudest is None else loudest
        axis.imshow(
            decibels.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=loudest - 80,
            vmax=loudest,
            extent=(0, len(samples) / rate, 0, rate / 2000),
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("seconds")
    _save(figure, path, 110)


def buckets(codes: np.ndarray, sizes: Sequence[int], path: str | os.PathLike[str]) -> None:
    """Draw how many items share an ID, and how often each codeword is used, into a PNG file.

    Parameters
    ----------
    codes : numpy.ndarray (Q, N), integer
        IDs, one column an item.
    sizes : sequence of Q int
        Codewords per stage.
    path : path
        Where to write.
    """
    figure, axes = _figure(7.0, 2.2 * (len(codes) + 1), len(codes) + 1)
    keys = np.unique(codes.T, axis=0, return_counts=True)[1] if codes.size else np.empty(0, int)
    counts = np.bincount(keys)[1:] if len(keys) else np.zeros(1, int)
    axes[0].bar(np.arange(1, len(counts) + 1), counts)
    axes[0].set(xlabel="items that share an ID", ylabel="IDs", yscale="log")
    for axis, row, size, stage in zip(axes[1:], codes, sizes, range(len(codes)), strict=True):
        used = np.sort(np.bincount(row, minlength=size))[::-1]
        axis.fill_between(np.arange(size), used, step="mid")
        axis.set(xlabel=f"codewords of stage {stage}, most used first", ylabel="items")
    _save(figure, path, 110)


def _save(figure: Figure, path: str | os.PathLike[str], dpi: int) -> None:
    with NewFile(path) as new:
        figure.savefig(new.file, dpi=dpi, format="png")


def _decibels(samples: np.ndarray, window: int = 512, hop: int = 128) -> np.ndarray:
    padded = np.pad(samples, (0, max(window, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)))
    return np.asarray(10 * np.log10(power + 1e-12))


def _figure(width: float, height: float, rows: int) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
