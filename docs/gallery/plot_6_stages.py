"""
Choosing stages and codebook size
=================================

At equal bits: few stages with many codewords, or many stages with few? Error on held-out speech,
and what encoding costs.
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
# Every quantizer may spend up to 40 bits a vector. A prefix of the stages is the answer of fewer
# stages, so each is trained once.

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
panels[0].set_title("what it stores")
panels[1].set(xlabel="codewords compared per vector", xscale="log")
panels[1].set_title("what encoding costs")
for axes in panels:
    axes.grid(alpha=0.3, which="both")
panels[1].legend(frameon=False)
plt.show()

# %%
# Left: at equal bits larger codebooks have the smaller error, as long as there are vectors
# enough to train them (:ref:`sphx_glr_auto_gallery_plot_7_training_set.py`). Right: at equal
# work smaller codebooks do.
