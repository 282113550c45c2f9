"""
Which codewords are used
========================

A code carries most information when all codewords are used equally often. This example counts the
use of codewords on speech, for two quantizers. One was fitted. The other was trained on batches
that are too small for its rule of dead-code replacement.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import rvq_np
from rvq_np import demo
from rvq_np.frontend import mdct

x = np.concatenate([mdct.forward(clip.samples, 64) for clip in demo.shipped_clips("train")])
print(x.shape)


def new(**options):
    return rvq_np.ResidualVectorQuantizer(64, 64, n_q=6, bins=128, rng=0, **options)


fitted = new().fit(x)

# %%
# ESPnet's rule replaces a codeword whose averaged count is below two. With 100 vectors per batch,
# that holds for nearly all of the 128 codewords, at every step. The library warns about this.

collapsed = new(threshold_ema_dead_code=2)
rng = np.random.default_rng(0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", rvq_np.UnstableTrainingWarning)
    for _ in range(40):
        collapsed(x[rng.choice(len(x), 100)], sample_rate=250)

# %%
# Rows are stages, columns are codewords, most used first.

figure, panels = plt.subplots(2, 1, figsize=(8, 5), layout="constrained", sharex=True)
for axes, (title, rvq) in zip(
    panels, {"fitted": fitted, "batches of 100, ESPnet's rule": collapsed}.items(), strict=True
):
    codes = rvq_np.encode(x, rvq.codebooks)
    counts = np.stack([np.sort(np.bincount(row, minlength=128))[::-1] for row in codes])
    shares = 100 * counts / len(x)
    image = axes.imshow(shares, aspect="auto", cmap="viridis", vmax=5)
    axes.set(ylabel="stage")
    axes.set_title(title, loc="left")
    shown = ", ".join(f"{np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()):.0f}" for p in shares / 100)
    print(f"{title}: perplexity of stages 0 to 5: {shown}, of 128")
panels[-1].set_xlabel("codewords, most used first")
figure.colorbar(image, ax=panels, label="of all vectors, %")
plt.show()
