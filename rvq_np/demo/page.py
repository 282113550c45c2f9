"""The page of the demo: one HTML file with players, curves, spectrograms and the table in it.

It needs no matplotlib and loads nothing: sounds are WAV in data URIs, curves are SVG, spectrograms
are PNG in SVG.  Colours follow the light or dark mode of the reader.
"""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from .. import plot
from ..files import wav

SECONDS = 20  # of each sound that are on the page: the files beside it are whole
RANGE = 80  # dB of a spectrogram
WIDE, HIGH = 420, 300  # of a drawing: its text is readable at 350 px, too
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 40  # margins of a drawing
# Every eighth part of the palette of spectrograms: matplotlib's magma.
PALETTE = ("000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf")


class Sound(NamedTuple):
    """A clip as it is heard at one bitrate: `kbps` None is the original."""

    kbps: float | None
    snr: float | None  # dB
    samples: np.ndarray


class Clip(NamedTuple):
    """A recording and what is decoded at each bitrate, the original first."""

    name: str
    sounds: Sequence[Sound]


def made(title: str, about: str, clips: Sequence[Clip], rate: int, table: Any) -> str:
    """Return the page.

    Parameters
    ----------
    title, about : str
        Of the page: its heading, and the sentences below it.
    clips : sequence of Clip
    rate : int
        Samples per second.
    table : (sequence of str, sequence of sequence of str)
        Titles of columns, and rows.

    Returns
    -------
    text : str
    """
    head = html.escape(title)
    style = (files(__package__) / "page.css").read_text("utf-8")
    sections = [
        *(_players(clip, rate) for clip in clips),
        _section("Rate and distortion", _curves(clips)),
        _section("Spectrograms", _spectrograms(clips[0], rate)),
        _section("Numbers", _table(*table)),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{head}</title>\n"
        '<link rel="icon" href="data:,">\n'  # or browsers ask for one
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{head}</h1>\n"
        f"<p>{html.escape(about)}</p>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{html.escape(title)}</h2>\n{content}\n</section>"


def said(sound: Sound) -> str:
    """Return the bitrate of a sound as text."""
    return "original" if sound.kbps is None else f"{sound.kbps:g} kb/s"


def _players(clip: Clip, rate: int) -> str:
    items = []
    for sound in clip.sounds:
        bitrate = said(sound)
        ratio = "" if sound.snr is None else f" <span>SNR {sound.snr:.1f} dB</span>"
        label = html.escape(f"{clip.name}, {bitrate}")
        kind = ' class="original"' if sound.kbps is None else ""
        items.append(
            f"<li{kind}><p><b>{bitrate}</b>{ratio}</p>"
            f'<audio controls preload="metadata" aria-label="{label}" '
            f'src="{_sound(sound.samples[: SECONDS * rate], rate)}"></audio></li>'
        )
    cut = len(clip.sounds[0].samples) > SECONDS * rate
    note = f"<p>The first {SECONDS} s; the WAV files beside this page are whole.</p>" if cut else ""
    return _section(f"Listen: {clip.name}", f"{note}<ul>\n" + "\n".join(items) + "\n</ul>")


def _sound(samples: np.ndarray, rate: int) -> str:
    content = io.BytesIO()
    with wav.writing(content, rate) as write:
        write(samples)
    return f"data:audio/wav;base64,{base64.b64encode(content.getvalue()).decode()}"


def _curves(clips: Sequence[Clip]) -> str:
    """Return signal-to-noise ratios over bitrates, one line per clip, as SVG."""
    lines = [
        (clip.name, [(s.kbps, s.snr) for s in clip.sounds if s.kbps and s.snr is not None])
        for clip in clips
    ]
    points = [point for _, line in lines for point in line if np.isfinite(point[1])]
    most = max((x for x, _ in points), default=1.0)
    low = min(0.0, min((y for _, y in points), default=0.0))
    high = max((y for _, y in points), default=1.0) * 1.08
    across, down = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * x / most, TOP + down * (high - y) / max(high - low, 1e-9)

    parts = [*_ticks(most, low, high, place)]
    for number, (name, line) in enumerate(lines):
        spots = [place(x, y) for x, y in line if np.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in spots)
        y = TOP + 16 + 18 * number
        parts.append(
            f'<g class="line{number % 2}"><polyline points="{path}"/>{dots}'
            f'<circle cx="{LEFT + 16}" cy="{y - 4}" r="3.5"/></g>'
            f'<text x="{LEFT + 26}" y="{y}">{html.escape(name)}</text>'
        )
    title = "Signal-to-noise ratio in dB over bitrate in kb/s, one line per clip"
    return _drawing(title, HIGH, parts, "bitrate, kb/s", "SNR, dB")


def _ticks(most: float, low: float, high: float, place: Any) -> list[str]:
    parts = []
    for value in _round(0, most):
        x, y = place(value, low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" class="middle">{value:g}</text>')
    for value in _round(low, high):
        x, y = place(0, value)
        end = WIDE - RIGHT
        parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}H{end}"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" class="end">{value:g}</text>')
    return parts


def _round(low: float, high: float) -> list[float]:
    """Return about five round numbers from `low` to `high`."""
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9)))
    step *= next(each for each in (0.1, 0.2, 0.5, 1, 2) if (high - low) / (step * each) <= 6)
    return [float(each) for each in step * np.arange(np.ceil(low / step), high / step + 1e-9)]


def _drawing(title: str, high: float, parts: Sequence[str], across: str, up: str) -> str:
    middle = (TOP + high - BOTTOM) / 2
    return (
        f'<svg viewBox="0 0 {WIDE} {high:g}" role="img" aria-label="{html.escape(title)}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}"
        f'<text x="{(LEFT + WIDE - RIGHT) / 2}" y="{high - 6:g}" class="middle">{across}</text>'
        f'<text transform="translate(12 {middle:g}) rotate(-90)" class="middle">{up}</text></svg>'
    )


def some(clip: Clip) -> list[Sound]:
    """Return the original, the lowest bitrate, one between, and the highest."""
    heard = clip.sounds[1:]
    chosen = sorted({0, (len(heard) - 1) // 3, len(heard) - 1})
    return [clip.sounds[0], *(heard[each] for each in chosen)]


def _spectrograms(clip: Clip, rate: int) -> str:
    loudest, drawn = None, []
    for sound in some(clip):
        found = plot.decibels(sound.samples[: SECONDS * rate])
        loudest = float(found.max()) if loudest is None else loudest
        title = f"{clip.name}, {said(sound)}"
        picture = _spectrogram(f"Spectrogram of {title}", found - loudest, sound.samples, rate)
        drawn.append(f"<figure>{picture}<figcaption>{html.escape(title)}</figcaption></figure>")
    scale = "".join(f"#{each} {12.5 * n:g}%," for n, each in enumerate(PALETTE))[:-1]
    bar = (
        f'<p class="scale">-{RANGE} dB <i style="background:linear-gradient(to right,{scale})"></i>'
        " 0 dB of the loudest point of the original</p>"
    )
    return f'<div class="figures">{"".join(drawn)}</div>{bar}'


def _spectrogram(title: str, found: np.ndarray, samples: np.ndarray, rate: int) -> str:
    high = 190
    across, down = WIDE - LEFT - RIGHT, high - TOP - BOTTOM
    seconds, top = min(len(samples) / rate, SECONDS), rate / 2000
    parts = [
        f'<image x="{LEFT}" y="{TOP}" width="{across}" height="{down}" preserveAspectRatio="none" '
        f'href="{_png(found)}"/>'
    ]
    for value in _round(0, seconds):
        x = LEFT + across * value / seconds
        parts.append(f'<text x="{x:.1f}" y="{high - BOTTOM + 16}" class="middle">{value:g}</text>')
    for value in _round(0, top):
        y = TOP + down * (1 - value / top) + 4
        parts.append(f'<text x="{LEFT - 6}" y="{y:.1f}" class="end">{value:g}</text>')
    return _drawing(title, high, parts, "time, s", "frequency, kHz")


def _png(found: np.ndarray) -> str:
    """Return dB (frames, frequencies), 0 the brightest, as a PNG of 256 colours in a data URI."""
    light = np.clip(255 * (1 + found / RANGE), 0, 255).astype(np.uint8).T[::-1]
    high, wide = light.shape
    lines = np.zeros((high, wide + 1), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = light
    anchors = np.array([list(bytes.fromhex(each)) for each in PALETTE], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    colours = np.stack(
        [np.interp(places, np.arange(len(anchors)), each) for each in anchors.T], axis=1
    )
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", wide, high, 8, 3, 0, 0, 0)),
            (b"PLTE", colours.round().astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return (
        '<div class="scrolls" role="region" aria-label="Numbers of each bitrate" tabindex="0">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )
