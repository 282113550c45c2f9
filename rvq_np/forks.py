"""Locks that a fork never finds held: a child would have the lock, not the thread that releases it.

`lock` makes the locks of this package that are held for long, as while kernels are imported and
compiled.  A fork waits until they are free, and Numba's as well: a child of a process in which
another thread was loading kernels has them whole.  `renewed` is for locks that may be held for
hours, such as that of a quantizer in `fit`: a child gets new ones instead.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from typing import Any

_waited_for: list[Any] = []
_renewed: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Any] = []


def lock() -> Any:
    """Return a lock, reentrant, that forks wait for; one for a module, kept as long as that is."""
    made = threading.RLock()
    _waited_for.append(made)
    return made


def renewed(owner: Any) -> Any:
    """Return a lock, reentrant, for ``owner._turn``; in a child of a fork that is a new one."""
    _renewed.add(owner)
    return threading.RLock()


def _before() -> None:
    compiler = sys.modules.get("numba.core.compiler_lock")  # always taken after ours
    theirs = getattr(getattr(compiler, "global_compiler_lock", None), "_lock", None)
    for each in [*_waited_for, *([] if theirs is None else [theirs])]:
        each.acquire()
        _held.append(each)


def _after() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _after()
    for owner in list(_renewed):
        vars(owner)["_turn"] = threading.RLock()
    for name, module in list(sys.modules.items()):  # up to Python 3.11 each has a lock
        if name.partition(".")[0] != __package__:
            continue
        for each in vars(module).values():
            for part in vars(each).values() if isinstance(each, type) else ():
                if isinstance(part, functools.cached_property) and hasattr(part, "lock"):
                    part.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
