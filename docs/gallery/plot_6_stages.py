"""
Choosing stages and codebook size
=================================

At equal bits, are few stages with many codewords better, or many stages with few codewords? The
curves show the error on held-out speech, and the work of encoding.
"""

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

# %%
# Every quantizer uses up to 40 bits per vector. A prefix of the codes is the result of fewer
# stages, so each quantizer is trained once.

figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
for bins in (4, 16, 64, 256):
    bits = int(np.log2(bins))
    n_q = 40 // bits
    rvq = rvq_np.ResidualVectorQuantizer(64, 64, n_q=n_q, bins=bins, kmeans_iters=15, rng=0)
    books = rvq.fit(x).codebooks
    codes = rvq_np.encode(heldout, books)
    counts = np.arange(1, n_q + 1)
    errors = [
        np.square(heldout - rvq_np.decode(codes[:n], books)).sum() / np.square(heldout).sum()
        for n in counts
    ]
    panels[0].plot(bits * counts, errors, "o-", markersize=4, label=f"{bins} codewords")
    panels[1].plot(bins * counts, errors, "o-", markersize=4, label=f"{bins} codewords")
panels[0].set(xlabel="bits per vector", ylabel="held-out error / energy", yscale="log")
panels[0].set_title("error at equal bits")
panels[1].set(xlabel="codewords compared per vector", xscale="log")
panels[1].set_title("error at equal work of encoding")
for axes in panels:
    axes.grid(alpha=0.3, which="both")
panels[1].legend(frameon=False)
plt.show()

# %%
# Left: at equal bits, larger codebooks have the smaller error, if there are enough vectors to train
# them (:ref:`sphx_glr_auto_gallery_plot_7_training_set.py`). Right: at equal work, smaller
# codebooks have the smaller error.
