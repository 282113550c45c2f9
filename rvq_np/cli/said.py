"""What a command says when it is done: lines for people, or one JSON object with ``--json``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np


def result(
    options: argparse.Namespace, about: dict[str, Any], lines: Iterable[str], to: Any = None
) -> None:
    """Print `lines`, or `about` as JSON where that was asked for, to a stream."""
    stream = sys.stdout if to is None else to
    if options.json:
        print(json.dumps(plain(about), indent=1), file=stream)
    else:
        for line in lines:
            print(line, file=stream)


def plain(value: Any) -> Any:
    """Return a value of JSON: NumPy's numbers as Python's, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
