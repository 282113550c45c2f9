"""The demo's speech as the network sees it: MDCT frames, in batches to train on and held out.

Two MDCT vectors of 64 numbers make a frame of 128, so there are 125 frames a second.  The
transform is orthonormal: an error in frames is the error in samples.
"""

from __future__ import annotations

import functools

import numpy as np

from rvq_np import demo
from rvq_np.demo import mdct

VECTOR = 64
FRAME = 2 * VECTOR
FRAME_RATE = demo.RATE / FRAME
OFFSETS = 8  # each training clip is cut into vectors from so many starting points
BATCH = 16
LENGTH = 64  # frames in a segment: half a second


def frames(samples: np.ndarray, offset: int = 0) -> np.ndarray:
    """Return samples (N,) as frames (FRAME, T), float32, the training clips' power being one."""
    vectors = mdct.forward(samples, VECTOR, offset)
    whole = vectors[: len(vectors) // 2 * 2].reshape(-1, FRAME)
    return np.ascontiguousarray(whole.T) / np.float32(loudness())


@functools.cache
def loudness() -> float:
    """Return the root mean square of the training clips' samples."""
    samples = np.concatenate([clip.samples for clip in demo.shipped_clips("train")])
    return float(np.sqrt(np.square(samples).mean()))


def training() -> list[np.ndarray]:
    """Return the training clips, frames (FRAME, T) each."""
    return [frames(clip.samples) for clip in demo.shipped_clips("train")]


def held_out() -> list[np.ndarray]:
    """Return the held-out clips, frames (FRAME, T) each."""
    return [frames(clip.samples) for clip in demo.shipped_clips("heldout")]


def batches(steps: int, seed: int) -> np.ndarray:
    """Return training batches (steps, BATCH, FRAME, LENGTH): segments drawn at random.

    Every segment of every clip is as likely as any other, whatever the length of its clip.
    """
    sources = [
        frames(clip.samples, offset)
        for clip in demo.shipped_clips("train")
        for offset in range(0, VECTOR, VECTOR // OFFSETS)
    ]
    starts = [
        (source, start)
        for source in range(len(sources))
        for start in range(sources[source].shape[1] - LENGTH + 1)
    ]
    drawn = np.random.default_rng(seed).integers(len(starts), size=(steps, BATCH))
    made = np.empty((steps, BATCH, FRAME, LENGTH), np.float32)
    for place, which in np.ndenumerate(drawn):
        source, start = starts[which]
        made[place] = sources[source][:, start : start + LENGTH]
    return made
