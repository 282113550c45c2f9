"""
What codebooks look like
========================

Vectors of two dimensions can be drawn. The codewords of stage 0 cover the data, and those of stage
1 the residuals. A decoded vector is the sum of one codeword of each stage.
"""

import matplotlib.pyplot as plt
import numpy as np

import rvq_np

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 4000)
radius = 1 + 0.12 * rng.standard_normal(4000)
x = np.stack([radius * np.cos(angle), 0.7 * radius * np.sin(2 * angle)], axis=1).astype("f4")

rvq = rvq_np.ResidualVectorQuantizer(dimension=2, codebook_dim=2, n_q=2, bins=16, rng=0).fit(x)
first, second = (stage.codebook for stage in rvq.codebooks.stages)
codes = rvq_np.encode(x, rvq.codebooks)
residual = x - rvq_np.decode(codes[:1], rvq.codebooks)

# %%
# Left: each vector has the colour of its code of stage 0. Middle: the residuals after stage 0, and
# the codewords of stage 1. Right: all 256 sums, from 32 stored codewords.

sums = (first[:, None] + second[None]).reshape(-1, 2)
figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
panels[0].scatter(*x.T, c=codes[0], s=3, cmap="tab20")
panels[0].scatter(*first.T, c="black", marker="x", s=40)
panels[0].set_title("stage 0: vectors and codewords")
panels[1].scatter(*residual.T, c=codes[1], s=3, cmap="tab20")
panels[1].scatter(*second.T, c="black", marker="x", s=40)
panels[1].set_title("stage 1: residuals and codewords")
panels[2].scatter(*x.T, c="lightgrey", s=3)
panels[2].scatter(*sums.T, c="tab:red", s=6)
panels[2].set_title("all decoded vectors")
for axes in panels:
    axes.set_aspect("equal")
    axes.set(xlabel="first component", ylabel="second component")
plt.show()

# %%
# The mean squared error of one stage and of both:

for n in (1, 2):
    print(n, float(np.square(x - rvq_np.decode(codes[:n], rvq.codebooks)).mean()))
