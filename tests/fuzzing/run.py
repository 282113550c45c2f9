"""So many inputs, each from a generator of its own: any one can be replayed alone."""

import contextlib
import datetime
import json
import platform
import random
import resource
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch

from . import models, places, targets

TARGETS = {**targets.TARGETS, **models.TARGETS, **places.TARGETS}
RECORD = Path(__file__).parents[2] / "docs" / "reliability.json"
GROWTH = 1 << 30  # bytes an input may make the process grow by, before it is out of memory
SHOWN = 5  # findings that are printed


@dataclass
class Result:
    """What came of a run."""

    target: str
    inputs: int
    seed: int
    accepted: int = 0
    refused: int = 0
    findings: int = 0
    seconds: float = 0.0
    grown: int = 0  # bytes the process grew by
    kinds: dict[str, int] = field(default_factory=dict)


def fuzz(name, inputs, seed, first=0):
    """Return the `Result` of reading `inputs` damaged files."""
    dispatch.load()
    target, result = TARGETS[name](), Result(name, inputs, seed)
    for number in range(20):  # compiles, and lays out tables
        with contextlib.suppress(Exception):
            target.accepts(target.input(random.Random(number), {}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    with _bounded(), warnings.catch_warnings(), contextlib.closing(target):
        warnings.simplefilter("error")
        for number in range(first, first + inputs):
            made = target.input(random.Random(f"{seed} {number}"), result.kinds)
            try:
                if target.accepts(made):
                    result.accepted += 1
                else:
                    result.refused += 1
            except (Exception, SystemExit) as error:
                result.findings += 1
                if result.findings <= SHOWN:
                    print(f"input {number} of seed {seed}: {error!r}", file=sys.stderr)
                    traceback.print_exc()
    result.seconds = round(time.perf_counter() - begun, 1)
    result.grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return result


class _bounded:
    """A limit of memory for the process: what asks for more is a finding."""

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + GROWTH, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def record(result):
    """Add a run to the committed record."""
    reported = json.loads(RECORD.read_text()) if RECORD.exists() else {"fuzzing": []}
    reported["fuzzing"].append(
        {
            **{name: value for name, value in asdict(result).items() if name != "kinds"},
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "rvq_np": rvq_np.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
    )
    RECORD.write_text(json.dumps(reported, indent=1) + "\n")
