"""One vocabulary, docs/glossary.md: words that had a second name do not come back."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD = {
    r"words?": "codeword or codebook",
    r"levels?": "stage",
    r"cards?": "GPU",
    r"crowds?": "processes",
    r"rooms?": "package or module",
    r"contestants?|rivals?": "implementation",
    r"wanted|told": "expected",
    r"nobody": "no row, no call",
    r"lent": "shared",
    r"mended?": "fixed",
    r"anew|new life": "again",
}
# What the words mean where they are right: machine words, cache and import levels, a logger's,
# names of files that exist, and "top-level" of a package.
RIGHT = (
    r"(second|first|last|top|import|log|high|low|bitrate|hierarchy)[- ]levels?|level=|node\.level",
    r"32-bit words|64-bit words|cards-002",
    r"grid-item-card",  # of sphinx-design
    r"\bLEVELS\b",
)
# Files of bits are in machine words; the glossary has the names that others use; the items of a
# notebook are English words.
EXEMPT = {"bits.py", "glossary.md", "item_ids.md"}
ENTRIES = r"[\"'](words|levels)[\"']|\.words\b|\}words\b|KeyError\W+levels"
KINDS = {".py", ".md", ".rst", ".toml", ".c", ".cu", ".cuh", ".hpp"}


def texts():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    paths = map(ROOT.joinpath, listed) if listed else ROOT.rglob("*")
    for path in paths:
        parts = path.relative_to(ROOT).parts
        if path.suffix in KINDS and parts[0] in ("rvq_np", "docs", "tests", "bench", "README.md"):
            if parts[:2] == ("tests", "data") or path == Path(__file__) or path.name in EXEMPT:
                continue
            if not {"_build", "generated", "__pycache__"} & set(parts) and path.is_file():
                yield path, path.read_text(encoding="utf-8")


def found(text):
    """Yield (number of the line, old word, what to say instead) for each old word of a text."""
    for number, line in enumerate(text.splitlines(), 1):
        rest = re.sub("|".join((*RIGHT, ENTRIES)), "", line, flags=re.IGNORECASE)
        for old, new in OLD.items():
            for each in re.findall(rf"\b(?:{old})\b", rest, re.IGNORECASE):
                yield number, each, new


@pytest.mark.quick
def test_no_text_has_an_old_word():
    texts_read = list(texts())
    assert len(texts_read) > 200
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {old!r}; say {new}"
        for path, text in texts_read for number, old, new in found(text)
    ]  # fmt: skip
    assert not lines, "\n".join(lines)


@pytest.mark.quick
def test_an_old_word_is_found():
    assert list(found("a\nThe Words of a stage")) == [(2, "Words", "codeword or codebook")]
    assert not list(found("import levels, codewords, plan['levels'], a top-level package"))
