"""Tasks of Dask: how `fit` runs them, by the scheduler in use, and what their failures mean."""

from __future__ import annotations

import contextlib
import copy
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from ..errors import ClusterError, RvqError


def one_key(value: Any) -> Any:
    """Return `value` as one key of the graph, which moves to each worker once."""
    import dask

    return dask.delayed(value, name=f"rvq_np-shared-{uuid.uuid4().hex}", traverse=False)


def computed(call: str, tasks: list[Any]) -> list[Any]:
    """Run tasks on the scheduler in use; return their results."""
    import dask

    with _failures(call), _large():
        return list(dask.compute(*tasks))


def elsewhere(call: str, function: Any, *others: Any) -> Any:
    """Return ``function(*others)``, by a task.

    The last of `others` is a generator, which goes on from where the task left it.
    """
    import dask

    result, state = computed(call, [dask.delayed(_called)(function, others)])[0]
    others[-1].bit_generator.state = state
    return result


def _called(function: Any, others: Any) -> tuple[Any, Any]:
    others = copy.deepcopy(others)  # a task may run again
    with sharing():
        return function(*others), others[-1].bit_generator.state


def kept_on_workers(call: str, tasks: list[Any]) -> list[Any]:
    """Run tasks, whose results stay where they are made; return tasks that give them."""
    import dask

    with _failures(call), _large():
        return list(dask.persist(*tasks))


def homes() -> list[Any]:
    """Return the workers of the cluster in use, once for each thread; [None] if there is none."""
    client = _client()
    if client is None:
        return [None]
    known = client.scheduler_info(n_workers=-1).get("workers", {})  # none: the scheduler is lost
    slots = [address for address in sorted(known) for _ in range(known[address]["nthreads"])]
    return slots or [None]


def at_home(home: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which tasks made are for one of the workers.

    They run elsewhere if that worker dies. Without this, Dask moves what tasks work on to workers
    that have nothing to do, and what is kept beside it is lost.
    """
    if home is None:
        return contextlib.nullcontext()
    import dask

    found: contextlib.AbstractContextManager[Any] = dask.annotate(
        workers=[home], allow_other_workers=True
    )
    return found


def sharing() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a task uses as many threads as the worker it runs on has."""
    from ..backends import dask

    found: contextlib.AbstractContextManager[Any] = dask.sharing()
    return found


def same_versions(call: str) -> None:
    """Raise ClusterError unless all workers have the versions that this process has."""
    client = _client()
    if client is None:
        return
    with _failures(call):
        found = client.run(_versions)
    ours = _versions()
    for worker, theirs in sorted(found.items()):
        if theirs != ours:
            raise ClusterError(
                f"{call}: the worker {worker} has {theirs}; this process has {ours}. Expected the "
                "same. Install them there and start the worker again."
            )


def _versions() -> dict[str, str]:
    from .. import __version__

    return {"rvq_np": __version__, "numpy": np.__version__}


def _client() -> Any:
    """Return the client of a cluster, if one is in use."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _large() -> contextlib.AbstractContextManager[Any]:
    """Return a context without a cluster's advice on large graphs: codewords travel in them.

    Without a cluster nothing is set. If `distributed` were first imported in the context, all of
    its defaults would end with it.
    """
    if _client() is None:
        return contextlib.nullcontext()
    import dask

    found: contextlib.AbstractContextManager[Any] = dask.config.set(
        {"distributed.admin.large-graph-warning-threshold": 1 << 60}
    )
    return found


@contextlib.contextmanager
def _failures(call: str) -> Iterator[None]:
    """Turn what says that the cluster failed, not its tasks, into ClusterError."""
    try:
        yield
    except RvqError:
        raise
    except (Exception, CancelledError) as error:
        ours = type(error).__module__.partition(".")[0] == "distributed"
        if ours or (_client() is not None and isinstance(error, (OSError, CancelledError))):
            raise ClusterError(
                f"{call}: the cluster did not finish its tasks ({type(error).__name__}: {error}). "
                "Nothing was changed. Start it again; with checkpoint= the fit continues after the "
                "last finished stage."
            ) from error
        raise
