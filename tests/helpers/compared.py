"""Compare what machines computed: `python -m helpers.compared HERE.json THERE.json=ENGINE ...`.

Each file is the output of `answers`. Fails where an answer differs, where another engine computed
than was expected, and where an engine without a compiler imported one.
"""

import json
import sys
from pathlib import Path


def compare(here, there, engine):
    """Return what is wrong with the answers of another machine, a line each."""
    wrong = []
    if there["engine"] != engine:
        wrong.append(f"computed by {there['engine']}, expected {engine}")
    if there["compiler"]:
        wrong.append(f"imported {' and '.join(there['compiler'])}")
    if there["answers"].keys() != here["answers"].keys() or not here["answers"]:
        wrong.append("other answers than here")
    for name, answer in there["answers"].items():
        rounded = name.startswith("projected") and engine == "NumPy"  # not defined bit for bit
        if not rounded and answer != here["answers"].get(name):
            wrong.append(f"{name} is not what it is here")
    return wrong


def main(here, *others):
    """Print what was compared, and exit with what is wrong."""
    expected = json.loads(Path(here).read_text())
    wrong = []
    for each in others:
        path, _, engine = each.partition("=")
        there = json.loads(Path(path).read_text())
        found = compare(expected, there, engine)
        computed = f"{there['machine']}, Python {there['python']}, NumPy {there['numpy']}, {engine}"
        same = len(there["answers"])
        print(f"{computed}: {f'{same} answers are the same' if not found else 'differs'}")
        wrong += [f"{engine}: {line}" for line in found]
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
