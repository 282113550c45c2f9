"""
Choosing the size of the training set
=====================================

The error on the training vectors says little: with one vector per codeword it is zero. Measure the
error on held-out vectors instead. It falls with the number of training vectors per codeword.
"""

import matplotlib.pyplot as plt
import numpy as np

import rvq_np
from rvq_np import demo
from rvq_np.frontend import mdct

x = np.concatenate(
    [
        mdct.forward(clip.samples, 64, offset)
        for clip in demo.shipped_clips("train")
        for offset in range(0, 64, 8)
    ]
)
heldout = np.concatenate([mdct.forward(clip.samples, 64) for clip in demo.shipped_clips("heldout")])
rng = np.random.default_rng(0)
x = x[rng.permutation(len(x))]
print(len(x), "vectors to train on")

# %%
# Four stages of 128 codewords are trained on an increasing number of vectors. With
# ``rows_per_codeword=None``, ``fit`` uses all vectors that it gets.

per_codeword = [2, 4, 8, 16, 32, 64, 128, 256]
curves = {"training vectors": [], "held-out vectors": []}
for rows in per_codeword:
    some = x[: rows * 128]
    rvq = rvq_np.ResidualVectorQuantizer(64, 64, n_q=4, bins=128, kmeans_iters=10, rng=0)
    books = rvq.fit(some, rows_per_codeword=None).codebooks
    for name, data in zip(curves, (some, heldout), strict=True):
        decoded = rvq_np.decode(rvq_np.encode(data, books), books)
        curves[name].append(float(np.square(data - decoded).sum() / np.square(data).sum()))

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, errors in curves.items():
    axes.plot(per_codeword, errors, "o-", label=name)
axes.set(xlabel="training vectors per codeword", ylabel="error / energy")
axes.set_xscale("log", base=2)
axes.set_xticks(per_codeword, map(str, per_codeword))
axes.set_title("4 stages of 128 codewords on speech")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %%
# The gap between the curves shows the overfitting to the training vectors.

for rows, *errors in zip(per_codeword, *curves.values(), strict=True):
    print(f"{rows:4} per codeword: {errors[0]:.3f} in training, {errors[1]:.3f} held out")
