"""Cost of the first codes of a published codec: installed bytes, start-up time, memory.

The checkpoint is an EnCodec of the published size with random weights, as transformers saves it.
Each fresh process computes the codes of one frame with 8 stages.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

import rvq_np

from .machine import ROOT
from .process import run
from .report import Answer, Table, duration
from .setting import Setting

# Not ru_maxrss, which includes the process before exec.
PEAK = """
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")))
"""
OURS = """
import sys
import numpy as np
from rvq_np import checkpoints, encode
codes = encode(np.ones((1, 128), np.float32), checkpoints.load(sys.argv[1])[:8])
"""
WITHOUT_NUMBA = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
"""
THEIRS = """
import sys
import torch
from transformers import EncodecModel
model = EncodecModel.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    codes = model.quantizer.encode(torch.ones(1, 128, 1), bandwidth=6.0)
"""
MAKE = """
import sys
import torch
from transformers import EncodecConfig, EncodecModel
model = EncodecModel(EncodecConfig())
for layer in model.quantizer.layers:
    layer.codebook.embed.normal_()
model.save_pretrained(sys.argv[1])
"""


def footprint(setting: Setting, threads: int) -> Answer:
    """What do first codes cost: on disk, in time, in memory?"""
    core = _core()
    itself = _size(
        each for each in Path(rvq_np.__file__).parent.rglob("*") if "__pycache__" not in each.parts
    )
    ours = itself + _installed(core)
    narrow = itself + _installed(core, {"numba", "llvmlite"})
    runtimes = {
        "rvq_np": (ours, OURS, "whole"),
        "rvq_np, from its own file": (ours, OURS, "small"),
        "rvq_np without Numba": (narrow, WITHOUT_NUMBA + OURS, "small"),
    }
    theirs = _installed(["torch", "transformers"])
    if theirs:
        runtimes["torch and transformers"] = (theirs, THEIRS, "whole")
    with tempfile.TemporaryDirectory() as folder:
        if run(["-c", MAKE, folder], HF_HUB_OFFLINE="1") is None:
            return Answer([])  # transformers is not installed
        sizes = {"whole": _size([Path(folder, "model.safetensors")])}
        small = os.path.join(folder, "small.safetensors")
        run(["-m", "rvq_np", "convert", folder, "-o", small, "--n-q", "8"])
        sizes["small"] = _size([Path(small)])
        places = {"whole": folder, "small": small}
        seconds: dict[str, list[float]] = {name: [] for name in runtimes}
        peaks: dict[str, list[float]] = {name: [] for name in runtimes}
        for turn in range(3 if setting.quick else 8):
            print(f"footprint: round {turn}", file=sys.stderr, flush=True)
            for name, (_, script, place) in runtimes.items():
                each = run(["-c", script + PEAK, places[place]], HF_HUB_OFFLINE="1")
                if turn > 0 and each is not None:  # the first warms file caches
                    seconds[name].append(each[0])
                    peaks[name].append(float(each[1].split()[-1]))
    rows = [
        (
            name, _mib(installed), _mib(sizes[place]),
            duration(statistics.median(seconds[name])), _mib(statistics.median(peaks[name])),
        )
        for name, (installed, _, place) in runtimes.items()
        if seconds[name]
    ]  # fmt: skip
    note = (
        "EnCodec of the published size with random weights. Installed: the files of the packages "
        "and of all they require, torch as a CPU build; Python itself is not counted. To first "
        "codes: a whole process that loads the checkpoint and encodes one frame with 8 stages. The "
        "small file is `rvq-np convert --n-q 8`."
    )
    header = ("", "installed", "checkpoint", "to first codes", "peak memory")
    return Answer([Table("Footprint", note, header, rows)])


def _installed(names: Iterable[str], without: Iterable[str] = ()) -> int:
    """Return the bytes of the packages and of all they require; 0 if one is not here."""
    waiting, seen = list(names), set(without)
    total = 0
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            return 0
        total += _bytes(found)
        waiting += _required(found)
    return total


def _core() -> list[str]:
    """Return what rvq_np requires, from the checkout: it need not be installed."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [Requirement(each).name for each in content["project"]["dependencies"]]


def _required(found: Distribution) -> list[str]:
    parsed = [Requirement(each) for each in found.requires or ()]
    return [
        each.name for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})
    ]


def _bytes(found: Distribution) -> int:
    files = [Path(str(each.locate())) for each in found.files or ()]
    return _size(each for each in files if "__pycache__" not in each.parts)


def _size(files: Iterable[Path]) -> int:
    return sum(each.stat().st_size for each in files if each.is_file())


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
