"""Plots of what a quantizer does. Needs matplotlib: ``pip install 'rvq-np[plot]'``.

=================  ==============================================================================
`rate_distortion`  error or signal-to-noise ratio over bitrate, one line per name
`usage`            how often each codeword of each stage is chosen, as a heat map
`codebook`         the codewords of a stage, and vectors, projected to two dimensions
`spectrograms`     spectrograms of sounds one above the other, on one scale
`buckets`          how many items share an ID, and how evenly codewords are used
=================  ==============================================================================

Each takes ``ax=``, the Axes to draw into, and returns the Axes.  Without it a figure is made: by
``matplotlib.pyplot`` where the program has imported that, as notebooks do, which then show it; else
one of its own, which opens no window and touches no global state.  With `path` the figure is also
written to a PNG file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .codebooks import Codebooks, Composed
from .errors import MissingExtraError, ParameterError, ShapeError
from .files.atomic import NewFile
from .quantizer import ResidualVectorQuantizer

__all__ = ["buckets", "codebook", "rate_distortion", "spectrograms", "usage"]


def __dir__() -> list[str]:
    return sorted(__all__)


def rate_distortion(
    bitrates: Sequence[float],
    values: Mapping[str, Sequence[float]] | Sequence[float],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Any = None,
    xlabel: str = "bitrate, kb/s",
    ylabel: str = "signal-to-noise ratio, dB",
    title: str = "Rate and distortion",
) -> Any:
    """Draw a measure of quality over bitrate, one line per name.

    Parameters
    ----------
    bitrates : sequence of N float
        In kb/s, or in the unit of `xlabel`.
    values : mapping of str to sequence of N float, or one such sequence
        For each name, for example of a recording, its values in dB, or in the unit of `ylabel`.
    path : path, optional
        PNG file to write.
    ax : matplotlib.axes.Axes, optional
    xlabel, ylabel, title : str, optional

    Returns
    -------
    ax : matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        If there is no matplotlib.
    ShapeError
        If there is not one value for each bitrate.

    Examples
    --------
    >>> ax = rate_distortion([1, 2, 3], {"speech": [4.0, 7.5, 9.1]})
    >>> ax.get_xlabel()
    'bitrate, kb/s'
    """
    named = values if isinstance(values, Mapping) else {"": values}
    for name, line in named.items():
        if len(line) != len(bitrates):
            raise ShapeError(
                f"rate_distortion: {name or 'values'!r} has {len(line)} values; expected "
                f"{len(bitrates)}, one per bitrate."
            )
    axes = _axes("rate_distortion", ax, path, 1, (6.4, 4.4))
    for name, line in named.items():
        axes[0].plot(bitrates, line, marker="o", label=name or None)
    axes[0].set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes[0].grid(alpha=0.3)
    if isinstance(values, Mapping):
        axes[0].legend(frameon=False)
    _save(axes, path, 120)
    return axes[0]


def usage(counts: Any, path: str | os.PathLike[str] | None = None, *, ax: Any = None) -> Any:
    """Draw how often the codewords of each stage are chosen, the most used first.

    Parameters
    ----------
    counts : ResidualVectorQuantizer, or sequence of array (K,)
        A trained quantizer; or for each stage how often each codeword was chosen, for example
        ``numpy.bincount`` of its codes.
    path : path, optional
        PNG file to write.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    ax : matplotlib.axes.Axes
        One row per stage. The colour bar is in multiples of the mean count of a codeword.

    Raises
    ------
    MissingExtraError
        If there is no matplotlib.
    ShapeError
        If counts are not one array (K,) per stage.

    Examples
    --------
    >>> import numpy as np
    >>> usage([np.array([4, 3, 1]), np.array([2, 2, 0])]).get_ylabel()
    'stage'
    """
    trained = isinstance(counts, ResidualVectorQuantizer)
    given = [each.chosen for each in counts._states] if trained else list(counts)
    rows = [np.asarray(each, dtype=np.float64) for each in given]
    if not rows or any(each.ndim != 1 or not len(each) for each in rows):
        raise ShapeError(
            f"usage: counts have shapes {[each.shape for each in rows]}; expected an array (K,) "
            "for each stage."
        )
    axes = _axes("usage", ax, path, 1, (7.0, 1.2 + 0.3 * len(rows)))
    image = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, each in zip(image, rows, strict=True):
        line[: len(each)] = np.sort(each)[::-1] / (each.mean() or 1)
    shown = axes[0].imshow(image, aspect="auto", cmap="viridis", interpolation="nearest", vmin=0)
    axes[0].set(xlabel="codewords, most used first", ylabel="stage", title="Usage of codewords")
    axes[0].set_yticks(range(len(rows)))
    axes[0].figure.colorbar(shown, ax=axes[0], label="multiple of the mean")
    _save(axes, path, 110)
    return axes[0]


def codebook(
    codebooks: Any,
    stage: int = 0,
    vectors: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    counts: Any = None,
    ax: Any = None,
) -> Any:
    """Draw the codewords of a stage in the plane in which they vary most (PCA).

    Parameters
    ----------
    codebooks : Codebooks, or array (Q, K, C)
    stage : int, optional
    vectors : array (N, C), optional
        The residuals that the stage quantizes, drawn behind the codewords in the same plane.
    path : path, optional
        PNG file to write.
    counts : array (K,), optional
        How often each codeword was chosen; it sets the colour of the codeword.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    ax : matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        If there is no matplotlib.
    ShapeError, ParameterError
        If there is no such stage, or an array is of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> books = np.random.default_rng(0).standard_normal((2, 16, 8))
    >>> codebook(books, 1).get_title()
    'Codebook of stage 1'
    """
    known = isinstance(codebooks, (Codebooks, Composed))
    stages = [each.codebook for each in (codebooks if known else Codebooks(codebooks))]
    if not 0 <= stage < len(stages):
        raise ParameterError(f"codebook: stage is {stage}; expected 0 to {len(stages) - 1}.")
    codewords = np.asarray(stages[stage], dtype=np.float64)
    x = None if vectors is None else np.asarray(vectors, dtype=np.float64)
    if x is not None and (x.ndim != 2 or x.shape[1] != codewords.shape[1]):
        raise ShapeError(
            f"codebook: vectors have shape {x.shape}; expected (N, {codewords.shape[1]})."
        )
    if counts is not None and np.shape(counts) != (len(codewords),):
        raise ShapeError(
            f"codebook: counts have shape {np.shape(counts)}; expected ({len(codewords)},)."
        )
    mean = codewords.mean(axis=0)
    _, sizes, directions = np.linalg.svd(codewords - mean, full_matrices=False)
    plane = np.zeros((codewords.shape[1], 2))
    plane[:, : len(directions[:2])] = directions[:2].T
    share = np.square(sizes) / max(float(np.square(sizes).sum()), 1e-300)
    axes = _axes("codebook", ax, path, 1, (6.0, 5.0))
    if x is not None:
        axes[0].scatter(*((x - mean) @ plane).T, s=4, color="0.7", label="vectors")
    colour = {} if counts is None else {"c": counts, "cmap": "viridis"}
    dots = axes[0].scatter(*((codewords - mean) @ plane).T, s=14, label="codewords", **colour)
    names = [f"component {n + 1}, {part:.0%} of the variance" for n, part in enumerate(share[:2])]
    axes[0].set(xlabel=names[0], ylabel=names[1] if len(names) > 1 else "")
    axes[0].set_title(f"Codebook of stage {stage}")
    if counts is not None:
        axes[0].figure.colorbar(dots, ax=axes[0], label="vectors that chose the codeword")
    if x is not None:
        axes[0].legend(frameon=False)
    _save(axes, path, 110)
    return axes[0]


def spectrograms(
    sounds: Sequence[tuple[str, np.ndarray]],
    rate: float,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw spectrograms one above the other, on one scale: of an original and of decoded sounds.

    Parameters
    ----------
    sounds : sequence of (str, numpy.ndarray (N,))
        Titles and samples. The first sound sets the scale: from 80 dB below its loudest point up to
        that.
    rate : float
        Samples per second.
    path : path, optional
        PNG file to write.
    ax : sequence of matplotlib.axes.Axes, optional
        One per sound.

    Returns
    -------
    ax : list of matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        If there is no matplotlib.
    ShapeError
        If there is not one Axes per sound.

    Examples
    --------
    >>> import numpy as np
    >>> tone = np.sin(np.arange(4000) / 4)
    >>> [each.get_ylabel() for each in spectrograms([("a", tone), ("b", 0.5 * tone)], 16000)]
    ['frequency, kHz', 'frequency, kHz']
    """
    axes = _axes("spectrograms", ax, path, len(sounds), (8.0, 2.0 * len(sounds) + 0.6))
    loudest, image = None, None
    for axis, (title, samples) in zip(axes, sounds, strict=True):
        found = decibels(samples)
        loudest = float(found.max()) if loudest is None else loudest
        image = axis.imshow(
            found.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=loudest - 80,
            vmax=loudest,
            extent=(0, len(samples) / rate, 0, rate / 2000),
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("frequency, kHz")
    if image is not None:
        axes[-1].set_xlabel("time, s")
        axes[0].figure.colorbar(image, ax=axes, label="power, dB")
    _save(axes, path, 110)
    return axes


def buckets(
    codes: np.ndarray,
    sizes: Sequence[int],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw how many items share an ID, and how often each codeword is used.

    Parameters
    ----------
    codes : numpy.ndarray (Q, N), integer
        IDs, one column per item.
    sizes : sequence of Q int
        Codewords per stage.
    path : path, optional
        PNG file to write.
    ax : sequence of Q + 1 matplotlib.axes.Axes, optional

    Returns
    -------
    ax : list of Q + 1 matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        If there is no matplotlib.
    ShapeError
        If the number of Axes is not Q + 1.

    Examples
    --------
    >>> import numpy as np
    >>> len(buckets(np.array([[0, 0, 1], [2, 2, 0]]), [2, 4]))
    3
    """
    axes = _axes("buckets", ax, path, len(codes) + 1, (7.0, 2.2 * (len(codes) + 1)))
    keys = np.unique(codes.T, axis=0, return_counts=True)[1] if codes.size else np.empty(0, int)
    counts = np.bincount(keys)[1:] if len(keys) else np.zeros(1, int)
    axes[0].bar(np.arange(1, len(counts) + 1), counts)
    axes[0].set(xlabel="items that share an ID", ylabel="IDs", yscale="log")
    for axis, row, size, stage in zip(axes[1:], codes, sizes, range(len(codes)), strict=True):
        used = np.sort(np.bincount(row, minlength=size))[::-1]
        axis.fill_between(np.arange(size), used, step="mid")
        axis.set(xlabel=f"codewords of stage {stage}, most used first", ylabel="items")
    _save(axes, path, 110)
    return axes


def _axes(call: str, ax: Any, path: Any, count: int, size: tuple[float, float]) -> list[Any]:
    """Return the Axes to draw into: those given, or new ones one above the other."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise ShapeError(f"{call}: ax is {len(given)} Axes; expected {count}.")
        return given
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"{call}: matplotlib is not installed. Run pip install 'rvq-np[plot]'."
        ) from error
    if path is None and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        figure = pyplot.figure(figsize=size, layout="constrained")
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
    return [figure.add_subplot(count, 1, row + 1) for row in range(count)]


def _save(axes: Sequence[Any], path: str | os.PathLike[str] | None, dpi: int) -> None:
    if path is not None:
        with NewFile(path) as new:
            axes[0].figure.savefig(new.file, dpi=dpi, format="png")


def decibels(samples: Any, window: int = 512, hop: int = 128) -> np.ndarray:
    """Return the power of samples (N,) in dB (frames, frequencies), of Hann windows."""
    samples = np.asarray(samples, dtype=np.float64)
    padded = np.pad(samples, (0, max(window, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)))
    return np.asarray(10 * np.log10(power + 1e-12))
