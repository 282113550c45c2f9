"""Importing one module of a package, past what the package would import beside it."""

import importlib.util
import sys
import warnings
from importlib import import_module
from types import ModuleType


def imported(name, *packages):
    """Import a module past the ``__init__`` of packages, which would import sound libraries."""
    for each in packages:
        if each not in sys.modules:
            spec = importlib.util.find_spec(each)
            assert spec is not None, f"{each} is not installed"
            stand_in = ModuleType(each)
            stand_in.__path__ = list(spec.submodule_search_locations or [])
            sys.modules[each] = stand_in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def inside(name):
    """Import a module past all packages that it is in."""
    parts = name.split(".")
    return imported(name, *(".".join(parts[:n]) for n in range(1, len(parts))))


def stand_in(monkeypatch, name, **content):
    """Put a module in the place of one that is not installed, for one test."""
    module = ModuleType(name)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module
