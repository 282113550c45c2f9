"""One rank of a training run: ``python ranks.py KIND RANK SIZE DATA OUT [ADDRESS]``.

KIND is ``alone``, ``gloo`` (torch.distributed) or ``mpi`` (mpi4py, which knows rank and size).
For each array of DATA, a rank trains a quantizer on its share of every batch; it writes the states
to OUT-RANK.npz.
"""

import os
import sys

import numpy as np

import rvq_np
from rvq_np.train import ALONE, AllReduce

RATE = 50


def hook(kind, rank, size, address):
    """Return the AllReduce of a kind, its rank and its size."""
    if kind == "gloo":
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=size)

        def add_up(buffer):
            total = torch.from_numpy(buffer)
            dist.all_reduce(total)
            return total.numpy()

        return AllReduce(add_up, rank, size)
    if kind == "mpi":
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        return AllReduce(comm.allreduce, comm.rank, comm.size)
    return ALONE


def main(kind, rank, size, data, out, address=None):
    """Train on the rows of this rank."""
    all_reduce = hook(kind, int(rank), int(size), address)
    state = {}
    for name, batches in np.load(data).items():
        rvq = rvq_np.ResidualVectorQuantizer(
            6, 6, n_q=2, bins=8, decay=0.5, threshold_ema_dead_code=8, rng=7, all_reduce=all_reduce
        )
        for batch in batches:
            rvq(np.array_split(batch, all_reduce.size)[all_reduce.rank], RATE)
        state.update({f"{name}:{key}": value for key, value in rvq.state_dict().items()})
    np.savez(f"{out}-{all_reduce.rank}.npz", **state)
    if kind == "gloo":
        import torch.distributed as dist

        dist.barrier()
        os._exit(0)  # gloo's threads may outlive the interpreter and abort it; that is not tested


if __name__ == "__main__":
    main(*sys.argv[1:])
