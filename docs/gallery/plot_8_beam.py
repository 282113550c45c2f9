"""
Choosing the beam size
======================

Greedy search takes the nearest codeword at each stage. Beam search keeps several hypotheses. It
usually finds codes with a smaller error, and takes longer. Decoding takes the same time.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import rvq_np
from rvq_np import demo
from rvq_np.frontend import mdct

vectors = {
    kind: np.concatenate([mdct.forward(clip.samples, 64) for clip in demo.shipped_clips(kind)])
    for kind in ("train", "heldout")
}
x, heldout = vectors["train"], vectors["heldout"]
rvq = rvq_np.ResidualVectorQuantizer(64, 64, n_q=8, bins=128, kmeans_iters=15, rng=0).fit(x)
rvq_np.encode(heldout, rvq.codebooks, beam_size=2)  # loads the kernels

# %%
beams = [1, 2, 4, 8, 16, 32]
errors, milliseconds = [], []
for beam_size in beams:
    started = time.perf_counter()
    codes = rvq_np.encode(heldout, rvq.codebooks, beam_size=beam_size)
    milliseconds.append(1000 * (time.perf_counter() - started))
    decoded = rvq_np.decode(codes, rvq.codebooks)
    errors.append(float(np.square(heldout - decoded).sum() / np.square(heldout).sum()))

figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
panels[0].plot(beams, errors, "o-")
panels[0].set(ylabel="held-out error / energy", ylim=(0, None))
panels[1].plot(beams, milliseconds, "o-", color="tab:orange")
panels[1].set(ylabel=f"milliseconds for {len(heldout)} vectors", ylim=(0, None))
for axes in panels:
    axes.set(xlabel="beam size")
    axes.set_xscale("log", base=2)
    axes.set_xticks(beams, map(str, beams))
    axes.grid(alpha=0.3)
plt.show()

# %%
# Times are from the machine that built this page, one run each.

for row in zip(beams, errors, milliseconds, strict=True):
    print("beam {:2}: error {:.4f}, {:.1f} ms".format(*row))
