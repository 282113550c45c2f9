"""What one process of a DistributedDataParallel run does; `test_grad_torch` starts several.

``python ranks_in_torch.py RANK SIZE FILE OUT``: meet at FILE, train on this rank's share of the
batches, write what is left in the end to OUT.
"""

import itertools
import os
import sys

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from rvq_np.grad.torch import ResidualVectorQuantizer

STEPS, ROWS = 4, 48


class Network(torch.nn.Module):
    def __init__(self, codebook_dim, dropout):
        super().__init__()
        self.into = torch.nn.Linear(6, 6)
        self.quantizer = ResidualVectorQuantizer(
            6, codebook_dim, n_q=3, bins=8, decay=0.7, threshold_ema_dead_code=5,
            quantizer_dropout=dropout,
        )  # fmt: skip

    def forward(self, x):
        result = self.quantizer(self.into(x), 50)
        return result


def shares(step, size):
    """Return the batch of each rank; they differ in length."""
    x = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(step))
    cuts = torch.linspace(0, ROWS, size + 1).long()
    cuts[1:-1] += 5
    return [x[a:b] for a, b in itertools.pairwise(cuts)]


def run(rank, size, network):
    """Train; return the arrays of the quantizer after each step."""
    seen = []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)  # the codewords are what is compared
    for step in range(STEPS):
        # Only the first rank's draws may count.
        torch.manual_seed(step if rank == 0 else 100 * rank + step)
        result = network(shares(step, size)[rank])
        loss = result.quantized.square().mean() + result.penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        inner = getattr(network, "module", network)
        seen.append([value.numpy().copy() for value in inner.quantizer.state_dict().values()])
    return seen


def main(rank, size, file, out, codebook_dim, dropout):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=size
    )
    torch.manual_seed(0)
    network = DistributedDataParallel(Network(codebook_dim, dropout), broadcast_buffers=False)
    seen = run(rank, size, network)
    np.savez(out, *[array for step in seen for array in step])
    torch.distributed.barrier()
    os._exit(0)  # taking down gloo under a busy machine can hang, and is not what is tested


if __name__ == "__main__":
    rank, size, file, out, codebook_dim, dropout = sys.argv[1:]
    main(int(rank), int(size), file, out, int(codebook_dim), float(dropout))
