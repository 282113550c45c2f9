"""A cluster of Dask on this machine, with ten times the patience that a busy machine needs."""

import contextlib

import dask
import distributed

PATIENCE = 600  # seconds until what has not happened is a failure
SETTINGS = {
    "distributed.comm.timeouts.connect": f"{PATIENCE}s",
    "distributed.comm.timeouts.tcp": f"{PATIENCE}s",
    "distributed.scheduler.worker-ttl": None,  # a worker that is slow is not dead
    "distributed.scheduler.allowed-failures": 9,
}


@contextlib.contextmanager
def local(n_workers=2, processes=True):
    """Yield a `LocalCluster` of workers with one thread each."""
    with (
        dask.config.set(SETTINGS),
        distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=processes,
            dashboard_address=":0",
        ) as made,
    ):
        yield made


@contextlib.contextmanager
def client_of(cluster, n_workers=2):
    """Yield a client, when all workers are there."""
    with distributed.Client(cluster, timeout=PATIENCE) as client:
        client.wait_for_workers(n_workers, timeout=PATIENCE)
        yield client


def everywhere(client, function):
    """Return what `function` returns on each worker that answers: one may have died just now."""
    found = client.run(function, on_error="return")
    return [each for each in found.values() if not isinstance(each, Exception)]
