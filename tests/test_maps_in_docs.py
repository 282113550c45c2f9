"""The maps of the package name what is there: all of it, and nothing else."""

import importlib
import re
from pathlib import Path

import pytest

import rvq_np
from rvq_np import kernels

PACKAGE = Path(rvq_np.__file__).parent
MODULES = {
    each.stem for each in PACKAGE.iterdir()
    if (each.suffix == ".py" or each.is_dir()) and not each.stem.startswith(("_", "py."))
} - {"py"}  # fmt: skip
KERNELS = {
    each.relative_to(PACKAGE / "kernels").as_posix()
    for each in (PACKAGE / "kernels").rglob("*.py") if not each.stem.startswith("_")
}  # fmt: skip


def test_every_module_is_on_the_map_and_an_attribute_of_the_package():
    """`rvq_np.codec.streaming` was an AttributeError, until something else had imported it."""
    assert set(re.findall(r"^`rvq_np\.(\w+)` ", rvq_np.__doc__, re.MULTILINE)) == MODULES
    assert set(rvq_np._MODULES) == MODULES
    assert list(rvq_np._MODULES) == sorted(rvq_np._MODULES)


@pytest.mark.parametrize("name", sorted(MODULES - {"plot", "sklearn"}))  # which need others
def test_modules_are_fetched_when_first_used(name):
    assert rvq_np.__getattr__(name) is importlib.import_module(f"rvq_np.{name}")


def test_every_kernel_module_is_on_both_maps():
    page = (PACKAGE.parent / "docs" / "api" / "kernels.md").read_text()
    rows = re.findall(r"^\| `([\w/]+\.py)` \|(.*)", page, re.MULTILINE)
    listed = set()
    for name, text in rows:  # a row of two descriptions names a file of both engines
        columns = text.count("|")
        listed |= {name} if columns == 1 else {f"plain/{name}", f"compiled/{name}"}
    assert listed == KERNELS
    names = {Path(each).stem for each in KERNELS}
    on_map = set(re.findall(r"(\w+)\.py", kernels.__doc__))
    on_map |= set(re.findall(r"`(?:plain\.|compiled\.|cuda\.)?(\w+)`", kernels.__doc__))
    assert on_map - {"plain", "compiled", "cuda"} <= names
    small = {
        "differences",
        "fingerprints",
        "follow",
        "jit",
        "launch",
        "measure",
        "simd",
        "build",
        "panels",
        "rows",
        "screens",
        "target",
        "targets",
        "emit",
        "linking",
    }
    assert names - on_map <= small
