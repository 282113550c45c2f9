"""Links of the site are followed; what needs Chromium is proved by ``python -m pages`` itself."""

from pathlib import Path

import pytest
from pages import browser, checks

pytestmark = pytest.mark.quick


def write(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<html><body>{body}</body></html>")


def test_links_that_lead_somewhere_are_no_faults(tmp_path):
    links = '<a href="guide/one.html#place">1</a> <a href="#here">2</a> <a href="guide/">3</a>'
    write(
        tmp_path, "index.html", f'{links} <a href="https://example.org/no">4</a><p id="here"></p>'
    )
    write(tmp_path, "guide/one.html", '<h2 id="place">x</h2> <img src="../a%20b.png">')
    write(tmp_path, "guide/index.html", '<a href="../index.html">back</a>')
    (tmp_path / "a b.png").write_bytes(b"")
    assert checks.broken_links(tmp_path) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ('<a href="two.html">', "two.html, which is not there"),
        ('<img src="no.png">', "no.png, which is not there"),
        ('<a href="one.html#no">', "one.html#no, a place that is not in that page"),
        ('<a href="#no">', "#no, a place that is not in that page"),
        ('<script src="no.js"></script>', "no.js, which is not there"),
    ],
)
def test_links_that_lead_nowhere_are_found(tmp_path, link, fault):
    write(tmp_path, "one.html", link)
    assert checks.broken_links(tmp_path) == [f"one.html: a link to {fault}"]


def test_without_a_browser_it_says_so_and_has_a_status_of_its_own(tmp_path, monkeypatch, capsys):
    from pages import __main__ as command

    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    monkeypatch.setattr("sys.argv", ["pages", str(tmp_path)])
    assert command.main() == 3
    assert "NOT LOOKED AT" in capsys.readouterr().err


def test_a_browser_that_does_not_start_is_none(tmp_path, monkeypatch, capsys):
    from pages import __main__ as command

    monkeypatch.setattr(browser.shutil, "which", lambda name: "/bin/false")
    monkeypatch.setattr("sys.argv", ["pages", str(tmp_path)])
    assert command.main() == 3
    assert "/bin/false does not start" in capsys.readouterr().err


def test_errors_of_other_sites_are_not_errors_of_these_pages():
    entry = dict(level="error", text="net::ERR")
    events = [
        {"method": "Log.entryAdded", "params": {"entry": entry | {"url": "https://cdn.org/x.js"}}},
        {"method": "Log.entryAdded", "params": {"entry": entry | {"url": "http://here/x.js"}}},
    ]
    assert list(checks.errors_of(events, "http://here")) == ["console: net::ERR http://here/x.js"]
