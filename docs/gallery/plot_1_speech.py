"""
Speech at eight bitrates
========================

Train a quantizer on 27 seconds of speech. Encode a held-out sentence with one to eight stages, and
listen to the results. ``rvq-np demo`` does the same, see :doc:`/speech`.
"""

# %%
# The clips are part of the package. A vector is 64 coefficients of an invertible transform (MDCT),
# so the quantizer causes all of the error. A stage of 1024 codewords costs 10 bits per vector.

import matplotlib.pyplot as plt
from IPython.display import Audio

from rvq_np import demo

rvq = demo.train(demo.shipped_clips("train"))
clip = demo.shipped_clips("heldout")[0]
rvq

# %%
# The sentence as it was recorded:

Audio(clip.samples, rate=demo.RATE, normalize=False)

# %%
# One stage, 2.5 kb/s:

decoded = {n_q: demo.reconstruct(rvq, clip, n_q) for n_q in range(1, 9)}
Audio(decoded[1], rate=demo.RATE, normalize=False)

# %%
# Two stages, 5 kb/s:

Audio(decoded[2], rate=demo.RATE, normalize=False)

# %%
# Three stages, 7.5 kb/s:

Audio(decoded[3], rate=demo.RATE, normalize=False)

# %%
# Four stages, 10 kb/s:

Audio(decoded[4], rate=demo.RATE, normalize=False)

# %%
# Five stages, 12.5 kb/s:

Audio(decoded[5], rate=demo.RATE, normalize=False)

# %%
# Six stages, 15 kb/s:

Audio(decoded[6], rate=demo.RATE, normalize=False)

# %%
# Seven stages, 17.5 kb/s:

Audio(decoded[7], rate=demo.RATE, normalize=False)

# %%
# All eight stages, 20 kb/s:

Audio(decoded[8], rate=demo.RATE, normalize=False)

# %%
# Rate and distortion. Each stage adds about two decibels. A beam search finds better codes at
# the same bitrate.

kbps = [2.5 * n_q for n_q in decoded]
greedy = [demo.signal_to_noise(clip.samples, each) for each in decoded.values()]
beam = [
    demo.signal_to_noise(clip.samples, demo.reconstruct(rvq, clip, n_q, beam_size=8))
    for n_q in decoded
]

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(kbps, greedy, "o-", label="greedy search")
axes.plot(kbps, beam, "s--", label="beam search, 8 hypotheses")
axes.set(xlabel="bitrate, kb/s", ylabel="signal-to-noise ratio, dB")
axes.set_title("A held-out sentence, by number of stages")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %%
# Spectrograms of the original, and of the sentence decoded from eight stages and from one.

figure, panels = plt.subplots(3, 1, figsize=(7, 6), layout="constrained", sharex=True)
sounds = {"original": clip.samples, "8 stages": decoded[8], "1 stage": decoded[1]}
for axes, (title, samples) in zip(panels, sounds.items(), strict=True):
    *_, image = axes.specgram(
        samples, NFFT=512, Fs=demo.RATE, noverlap=384, cmap="magma", vmin=-140, vmax=-40
    )
    axes.set(ylabel="frequency, Hz")
    axes.set_title(title, loc="left")
panels[-1].set_xlabel("time, s")
figure.colorbar(image, ax=panels, label="power, dB")
plt.show()
