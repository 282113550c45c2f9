"""
Recall over bytes
=================

Search among compressed vectors. Recall@R is the share of queries whose true nearest neighbour is
among the first R results. The vectors are embeddings of tokens from the package wordllama (MIT
licence). Each has 256 dimensions, 1024 bytes.
"""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import rvq_np

folder = Path(importlib.util.find_spec("wordllama").origin).parent
(table,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
table = table.astype("f4")
table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)
order = np.random.default_rng(0).permutation(len(table))
queries, x = table[order[:300]], table[order[300:12300]]
print(x.shape)

# %%
# One quantizer has eight stages of 256 codewords: one byte per stage. For fewer bytes, only its
# first stages are used.

rvq = rvq_np.ResidualVectorQuantizer(256, 256, n_q=8, bins=256, kmeans_iters=10, rng=0).fit(x)
nearest = (queries @ x.T).argmax(axis=1)
ranks = np.arange(1, 101)


def recall(decoded):
    """Return, for each R, the share of queries whose nearest is among the first R."""
    distances = np.square(decoded).sum(axis=1) - 2 * queries @ decoded.T
    own = distances[np.arange(len(queries)), nearest]
    position = (distances < own[:, None]).sum(axis=1)
    return [(position < r).mean() for r in ranks]


figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
for beam_size, style in ((1, "--"), (8, "-")):
    for n, colour in ((2, "tab:blue"), (4, "tab:orange"), (8, "tab:green")):
        codes = rvq_np.encode(x, rvq.codebooks, n_q=n, beam_size=beam_size)
        curve = recall(rvq_np.decode(codes, rvq.codebooks))
        search = "greedy" if beam_size == 1 else f"beam {beam_size}"
        axes.plot(ranks, curve, style, color=colour, label=f"{n} bytes, {search}")
        print(f"{n} bytes, {search}: recall@10 {curve[9]:.2f}, recall@100 {curve[99]:.2f}")
axes.set(xlabel="R", ylabel="recall@R", xscale="log", ylim=(0, 1))
axes.set_title("300 queries, 12,000 embeddings of 1024 bytes")
axes.grid(alpha=0.3, which="both")
axes.legend(frameon=False, fontsize=9)
plt.show()
