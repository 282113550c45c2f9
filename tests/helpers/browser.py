"""A page in headless Chromium: what it measures of itself there, and what it says is wrong."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
)  # fmt: skip
# A window is 500 pixels wide at least, so the page is in a frame of the width that is asked for.
FRAME = """<!doctype html><html style="color-scheme: light dark"><title>frame</title>
<link rel="icon" href="data:,">
<script>
addEventListener("message", event => {
  const answer = document.createElement("pre");
  answer.id = "measured";
  answer.textContent = event.data;
  document.body.append(answer);
});
</script>
<body style="margin: 0"><iframe srcdoc="%s" width="%d" height="1500" style="border: 0"></iframe>
"""
# Runs in a copy of the page, and reports to the frame.
ASKED = """
<script>
addEventListener("load", async () => {
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
  const found = {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    durations: audio.map(each => each.duration),
    clipped: clipped.map(each => each.textContent),
    images: document.querySelectorAll("svg image").length,
    small: [...document.querySelectorAll("svg text")].filter(
      each => each.getBoundingClientRect().height < 9).map(each => each.textContent),
    background: colours.backgroundColor, text: colours.color,
    resources: performance.getEntriesByType("resource").map(each => each.name)
      .filter(each => !each.startsWith("data:")),
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""


def path():
    """Return the program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def measured(page, folder, width, dark=False):
    """Return what `ASKED` finds in a page, `width` pixels wide, and its console errors."""
    copy = folder / f"measured-{width}-{dark}.html"
    asking = page.read_text("utf-8").replace("</body>", f"{ASKED}</body>")
    copy.write_text(FRAME % (escape(asking), width), "utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [path(), *FLAGS, scheme, "--window-size=1500,1500", "--timeout=20000",
         f"--user-data-dir={folder / f'profile-{width}-{dark}'}", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), errors
