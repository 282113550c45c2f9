"""
Recall over bytes
=================

Search among compressed vectors: of how many queries is the true nearest neighbour among the
first R found? The vectors are the embeddings of tokens that the package wordllama ships (MIT
licence), 256 numbers, 1024 bytes each.
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
# One quantizer of eight stages of 256 codewords: a byte a stage. Fewer bytes are fewer stages of
# it.

rvq = rvq_np.ResidualVectorQuantizer(256, 256, n_q=8, bins=256, kmeans_iters=10, rng=0).fit(x)
nearest = (queries @ x.T).argmax(axis=1)
ranks = np.arange(1, 101)


def recall(decoded):
    """Return, for each R, how many queries have their nearest among the first R found."""
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
