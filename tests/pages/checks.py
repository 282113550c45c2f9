"""What is wrong with a page that is open, and with the links of all pages."""

from __future__ import annotations

import json
import posixpath
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Each line of the answer is a fault of the page, as a reader would see it.
LOOK = """
(() => {
  const found = [];
  const say = (what, node) => found.push(what + ": " + (node.textContent || node.outerHTML).trim().slice(0, 80));
  const article = document.querySelector(".bd-article") || document.body;
  const room = document.documentElement.clientWidth;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const box = heading.getBoundingClientRect();
    if (!box.width || !heading.checkVisibility()) continue;
    if (box.right > room + 1 || box.left < -1 || heading.scrollWidth > heading.clientWidth + 1)
      say("a heading is cut off", heading);
  }
  if (document.documentElement.scrollWidth > room + 1)
    found.push(`the page is ${document.documentElement.scrollWidth} pixels wide, the window ${room}`);
  for (const table of article.querySelectorAll("table")) {
    const frame = table.parentElement;
    if (table.getBoundingClientRect().right > room + 1 && getComputedStyle(frame).overflowX === "visible")
      say("a table is cut off and does not scroll", table);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!(image.getAttribute("alt") || "").trim() && image.getAttribute("role") !== "presentation")
      found.push("a picture without a text: " + image.getAttribute("src"));
    if (image.complete && !image.naturalWidth && image.checkVisibility())
      found.push("a picture that does not load: " + image.getAttribute("src"));
  }
  let rank = 0;
  for (const heading of article.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.tagName[1]);
    if (next > rank + 1) say(`a heading of rank ${next} after one of rank ${rank}`, heading);
    rank = next;
  }
  const tops = article.querySelectorAll("h1").length;
  if (tops !== 1) found.push(`${tops} headings of rank 1`);
  if (!document.documentElement.lang) found.push("the page has no language");
  return found;
})()
"""
AXE = """
axe.run(document, {resultTypes: ["violations"], runOnly: RULES}).then(result => result.violations.flatMap(
  each => each.nodes.slice(0, 3).map(node => `axe, ${each.id}: ${node.target.join(" ")}`)))
"""
RULES = [
    "color-contrast", "image-alt", "heading-order", "link-name", "button-name", "document-title",
    "html-has-lang", "list", "listitem", "duplicate-id-aria", "label", "aria-valid-attr-value",
    "scrollable-region-focusable", "svg-img-alt", "link-in-text-block",
]  # fmt: skip


def looked_at(browser: Any, here: str, axe: str | None) -> list[str]:
    """Return the faults of the page that is open; `here` begins the addresses of the site."""
    faults = list(browser.evaluate(LOOK))
    if axe is not None:
        browser.evaluate(axe + ";0")
        faults += browser.evaluate(AXE.replace("RULES", json.dumps(RULES)))
    return faults + list(_errors(browser.events, here))


def _errors(events: list[dict[str, Any]], here: str) -> Any:
    for event in events:
        parameters = event.get("params", {})
        method = event.get("method")
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            if details.get("url", here).startswith(here):
                yield f"console: {details['text']} {details.get('exception', {}).get('description')}"
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            yield f"console: {parameters['args'][0].get('value')}"
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            if entry.get("url", here).startswith(here):  # others cannot be reached everywhere
                yield f"console: {entry['text']} {entry.get('url', '')}"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif value and ((tag, name) in LINKS):
                self.targets.append(value)


LINKS = {("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"), ("audio", "src")}


def broken_links(site: Path) -> list[str]:
    """Return the links within the site that lead to no file, or to no place in it."""
    pages = {}
    for path in site.rglob("*.html"):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        pages[path.relative_to(site).as_posix()] = page
    faults = []
    for name, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            to = posixpath.join(to, "index.html") if (site / to).is_dir() else to
            if to not in pages and not (site / to).is_file():
                faults.append(f"{name}: a link to {target}, which is not there")
            elif (parts.fragment and to in pages and to != name) or (path == "" and parts.fragment):
                if unquote(parts.fragment) not in pages[to].anchors:
                    faults.append(f"{name}: a link to {target}, a place that is not in that page")
    return sorted(set(faults))
