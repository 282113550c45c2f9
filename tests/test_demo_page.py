"""The page of the demo: whole in one file, and in a browser every player has its sound."""

import base64
import io
import re
import struct
import wave
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from pages import browser, checks

from rvq_np.demo import page

RATE = 16000
VOID = {"meta", "link"}


def clips(names=("one", "the second <clip>"), seconds=0.5):
    rng = np.random.default_rng(0)
    tone = 0.4 * np.sin(np.arange(int(RATE * seconds)) * 0.3)
    for name in names:
        noises = [(kbps, 5.0 + 4 * n, tone + rng.normal(0, 0.1 / (n + 1), len(tone)))
                  for n, kbps in enumerate((2.5, 5.0, 7.5, 10.0, 12.5))]  # fmt: skip
        sounds = [page.Sound(None, None, tone), *(page.Sound(*each) for each in noises)]
        yield page.Clip(name, sounds)


def text(**options):
    table = (["stages", "kb/s"], [["1", "2.5"], ["2", "5.0"]])
    return page.made("Speech & codes", "About <it>.", list(clips(**options)), RATE, table)


class Read(HTMLParser):
    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.said = [], [], ""
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.mark.quick
def test_it_is_one_file_whose_tags_match():
    content = text()
    read = Read(content)
    assert content.startswith('<!doctype html>\n<html lang="en">')
    for _, attributes in read.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in content
    assert "url(" not in content
    assert "About <it>." in read.said
    assert "Listen: the second <clip>" in read.said
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all(
        "meta"
    )
    headings = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert headings == [1, 2, 2, 2, 2, 2]
    scopes = [each.get("scope") for each in read.all("th")]
    assert scopes == ["col", "col"]


@pytest.mark.quick
def test_every_picture_and_player_has_a_text():
    read = Read(text())
    assert len(read.all("svg")) == 1 + 4
    for each in read.all("svg"):
        assert each["role"] == "img"
        assert len(each["aria-label"]) > 20
    labels = [each["aria-label"] for each in read.all("audio")]
    assert len(set(labels)) == len(labels) == 12
    assert labels[:2] == ["one, original", "one, 2.5 kb/s"]


@pytest.mark.quick
def test_players_hold_the_sounds_cut_where_they_are_long():
    (clip,) = clips(("one",))
    for given, held in ((clip, 8000), (next(clips(("long",), page.SECONDS + 1)), 320000)):
        content = page.made("T", "A", [given], RATE, ([], []))
        assert ("The first 20 s; the WAV files beside this page are whole." in content) == (
            held == 320000
        )
        for sound, each in zip(given.sounds, Read(content).all("audio"), strict=True):
            raw = base64.b64decode(each["src"].removeprefix("data:audio/wav;base64,"))
            with wave.open(io.BytesIO(raw)) as file:
                assert (file.getframerate(), file.getnframes()) == (RATE, held)
                samples = np.frombuffer(file.readframes(held), "<i2") / 32768
            expected = np.clip(sound.samples[:held], -1, 1)
            np.testing.assert_allclose(samples, expected, atol=1e-4)


@pytest.mark.quick
def test_spectrograms_are_png_of_the_palette():
    found = np.array([[0.0, -80.0], [-40.0, -200.0], [10.0, -80.0]])  # frames, frequencies
    raw = base64.b64decode(page._png(found).removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(raw):
        (size,) = struct.unpack_from(">I", raw, place)
        kind, data = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + size]
        assert struct.unpack_from(">I", raw, place + 8 + size)[0] == zlib.crc32(kind + data)
        chunks[kind], place = data, place + 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 2, 8, 3, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == bytes([0, 0, 0, 0, 0, 255, 127, 255])
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(256, 3)
    assert palette[0].tolist() == [0, 0, 4]
    assert palette[255].tolist() == [0xFC, 0xFD, 0xBF]


@pytest.mark.quick
def test_curves_are_where_their_numbers_are():
    content = page._curves(list(clips()))
    (points,) = set(re.findall(r'<polyline points="(.*?)"', content))  # both clips have the same
    xs, ys = np.array([each.split(",") for each in points.split()], float).T
    np.testing.assert_allclose(np.diff(xs), np.diff(xs)[0], atol=0.2)
    np.testing.assert_allclose(np.diff(ys), np.diff(ys)[0], atol=0.2)
    assert ys[0] > ys[-1]  # up is more
    silent = page.Clip("s", [page.Sound(None, None, np.zeros(9)),
                             page.Sound(2.5, float("inf"), np.zeros(9))])  # fmt: skip
    assert "nan" not in page.made("T", "A", [silent], RATE, ([], []))


# What the page measures of itself, once every player has its sound or an error.
ASKED = """
(async () => {
  const audio = [...document.querySelectorAll("audio")];
  const ready = each => each.readyState >= 1 || each.error ? null : new Promise(done => {
    each.addEventListener("loadedmetadata", done);
    each.addEventListener("error", done);
  });
  await Promise.all(audio.map(ready));
  const clipped = [...document.querySelectorAll("h1,h2,h3,p,li,figcaption")].filter(each => {
    const box = each.getBoundingClientRect();
    return each.scrollWidth > each.clientWidth + 1 || box.left < 0 || box.right > innerWidth + 1;
  });
  const colours = getComputedStyle(document.body);
  return {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    durations: audio.map(each => Number.isFinite(each.duration) ? each.duration : null),
    clipped: clipped.map(each => each.textContent),
    images: document.querySelectorAll("svg image").length,
    small: [...document.querySelectorAll("svg text")].filter(
      each => each.getBoundingClientRect().height < 9).map(each => each.textContent),
    background: colours.backgroundColor, text: colours.color,
    resources: performance.getEntriesByType("resource").map(each => each.name)
      .filter(each => !each.startsWith("data:")),
  };
})()
"""


def measured(path, width, scheme="light"):
    """Return what `ASKED` finds in a page, `width` pixels wide, and its console errors."""
    with browser.running(browser.found()) as chromium:
        chromium.window(width, 1500, scheme)
        chromium.open(path.as_uri())
        found = chromium.evaluate(ASKED)
        return found, list(checks.errors_of(chromium.events, "file:"))


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser_every_player_loads_and_nothing_is_clipped(width, dark, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(text(names=("one", "a_name_without_a_space" * 4)), "utf-8")
    found, errors = measured(path, width, "dark" if dark else "light")
    assert errors == []
    assert found["width"] == width
    assert found["page"] <= width  # nothing to scroll to the side
    assert found["durations"] == [0.5] * 12
    assert found["clipped"] == []
    assert found["small"] == []
    assert found["images"] == 4
    assert found["resources"] == []
    ground, letters = (_light(found[name]) for name in ("background", "text"))
    assert (ground < letters) == dark
    ratio = (max(ground, letters) + 0.05) / (min(ground, letters) + 0.05)
    assert ratio > 7  # WCAG's AAA


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium")
def test_a_browser_finds_what_is_wrong(tmp_path):
    """So that the test above can fail."""
    path = tmp_path / "index.html"
    broken = text().replace("data:audio/wav;base64,UklGR", "data:audio/wav;base64,AAAAA", 1)
    broken = broken.replace("<h1>", '<h1 style="width:40px;white-space:nowrap">')
    broken = broken.replace("</main>", "<script>console.error('seen')</script></main>")
    path.write_text(broken, "utf-8")
    found, errors = measured(path, 390)
    assert len(errors) == 1
    assert found["durations"].count(None) == 1
    assert found["clipped"] == ["Speech & codes"]


def _light(colour):
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = np.array([int(each) for each in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
