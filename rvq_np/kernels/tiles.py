"""Threads: a function of (start, stop) run over tiles of rows.

A tile is the same work whoever runs it, so the number of threads never shows in a result.
Kernels release the interpreter lock, hence plain Python threads: no threading layer that aborts
under other threads or after a fork, and no global setting to change.
"""

import collections
import contextlib
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

_own = threading.local()  # whose `working` is true while a thread does its share
_asked: ContextVar[int | None] = ContextVar("rvq_np_threads", default=None)


def at_most(count):
    """Return a context: so many threads for what this thread does inside; None: as ever."""
    return contextlib.nullcontext() if count is None else _at_most(count)


@contextlib.contextmanager
def _at_most(count):
    token = _asked.set(count)
    try:
        yield
    finally:
        _asked.reset(token)


def threads():
    """Return how many threads to use.

    What was asked for, else ``RVQ_NP_NUM_THREADS``, else the cores we may run on.
    """
    if _asked.get() is not None:
        return _asked.get()
    asked = os.environ.get("RVQ_NP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(workers):
    return ThreadPoolExecutor(workers, thread_name_prefix="rvq_np")


if hasattr(os, "register_at_fork"):  # a pool outlives a fork without its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(function, items):
    """Return ``[function(item) for item in items]``, shared among the threads, in order.

    The calling thread takes its share: waking another takes longer than a small item.  What a
    share spreads again it does alone, as all threads are at work.
    """
    items, most = list(items), threads()
    workers = 1 if getattr(_own, "working", False) else min(most, len(items))
    if workers < 2:
        return [function(item) for item in items]
    results = [None] * len(items)
    waiting = collections.deque(range(len(items)))  # which is safe to share

    def work():
        _own.working = True
        try:
            while True:
                try:
                    place = waiting.popleft()
                except IndexError:
                    return
                results[place] = function(items[place])
        except BaseException:
            waiting.clear()
            raise
        finally:
            _own.working = False

    others = [_pool(most - 1).submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        for each in others:
            if not each.cancel():  # it began: another call may keep all threads busy for long
                each.result()  # or an exception is lost
    return results


def over_rows(function, rows, tile):
    """Return ``function(start, stop)`` of every `tile` of `rows` rows."""
    if 0 < rows <= tile:
        return [function(0, rows)]
    return spread(lambda start: function(start, min(start + tile, rows)), range(0, rows, tile))
