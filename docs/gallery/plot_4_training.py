"""
Training on batches
===================

The error on held-out speech while a quantizer trains batch by batch, as inside a network. The
dashed line is the error after ``fit`` on all vectors. Small batches need a rule for unused
codewords; see :doc:`/quality`.
"""

import warnings

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


def new(**options):
    return rvq_np.ResidualVectorQuantizer(64, 64, n_q=4, bins=128, rng=0, **options)


def error(rvq):
    decoded = rvq_np.decode(rvq_np.encode(heldout, rvq.codebooks), rvq.codebooks)
    return float(np.square(heldout - decoded).sum() / np.square(heldout).sum())


# %%
# The default waits until there were enough vectors to make the first codewords. Then it replaces
# only codewords that stay unused.

rules = {"default": None, "0: never replace": 0, "2: ESPnet's rule": 2}
curves = {}
for name, threshold in rules.items():
    rvq = new(threshold_ema_dead_code=threshold)
    rng = np.random.default_rng(0)
    curves[name] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rvq_np.UnstableTrainingWarning)
        for step in range(150):
            rvq(x[rng.choice(len(x), 128)], sample_rate=250)
            if step % 5 == 4:
                curves[name].append((step + 1, error(rvq)))

offline = error(new().fit(x))

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, curve in curves.items():
    axes.plot(*zip(*curve, strict=True), label=f"threshold_ema_dead_code, {name}")
axes.axhline(offline, color="black", linestyle="--", label="fit on all vectors")
axes.set(xlabel="steps of 128 vectors", ylabel="held-out error / energy", yscale="log")
axes.set_title("4 stages of 128 codewords on speech")
axes.grid(alpha=0.3, which="both")
axes.legend(frameon=False)
plt.show()
