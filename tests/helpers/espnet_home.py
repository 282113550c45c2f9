"""ESPnet's SoundStream, small, with ESPnet's quantizer or ours in it; and speech to train it on.

Its module imports packages that the generator never uses: they are empty while it is
imported, and gone afterwards.
"""

import contextlib
import copy
import importlib
import random
import sys
import types
import warnings

import numpy as np
import torch

from rvq_np import demo

UNUSED = ("humanfriendly", "librosa", "torchaudio", "torch_complex", "torch_complex.tensor")
CLIPS, LENGTH = 4, 9600  # samples: 120 frames a batch

# 16 kHz over 320 samples a frame: 50 frames a second, and 0.25 kb/s for a stage of 32 codewords.
SMALL = {
    "sample_rate": demo.RATE,
    "hidden_dim": 32,
    "encdec_n_filters": 8,
    "encdec_ratios": [8, 5, 4, 2],
    "encdec_lstm": 1,
    "quantizer_n_q": 4,
    "quantizer_bins": 32,
    "quantizer_kmeans_iters": 10,
    "quantizer_target_bandwidth": [0.5, 1.0],
}


class _Empty(types.ModuleType):
    """A package of which any name can be imported: a class, as annotations use some."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def unused_packages():
    """Have packages that are only imported be empty modules, where they are not installed.

    Nor does it matter here which of torch's names ESPnet uses are deprecated.
    """
    made = []
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = _Empty(name)
            made.append(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in made:  # others ask whether they are installed, and would believe it
            del sys.modules[name]


def codec(name):
    """Return the module of one of ESPnet's codecs, such as "soundstream"."""
    with unused_packages():
        return importlib.import_module(f"espnet2.gan_codec.{name}.{name}")


def generator(quantizer=None, name="soundstream", seed=0, **changed):
    """Return a small generator, built by ESPnet's own code; with `quantizer` for its class.

    The class is put in the place of ESPnet's in the codec's module, so it is built, and called,
    with the arguments that are written there.
    """
    module = codec(name)
    theirs = module.ResidualVectorQuantizer
    kind = getattr(module, {"soundstream": "SoundStreamGenerator", "dac": "DACGenerator"}[name])
    try:
        module.ResidualVectorQuantizer = quantizer or theirs
        with torch.random.fork_rng(), unused_packages():
            torch.manual_seed(seed)
            return kind(**{**SMALL, **changed})
    finally:
        module.ResidualVectorQuantizer = theirs


def speech(seed=0):
    """Return a batch (CLIPS, 1, LENGTH) cut from the demo's clips, its power being one.

    A little noise tells silent frames apart, which would all lie between the same two codewords.
    """
    clips = [clip.samples for clip in demo.shipped_clips("train")]
    rng = np.random.default_rng(seed)
    batch = np.empty((CLIPS, 1, LENGTH), np.float32)
    for place in range(CLIPS):
        clip = clips[rng.integers(len(clips))]
        start = rng.integers(len(clip) - LENGTH + 1)
        batch[place] = clip[start : start + LENGTH]
    batch /= np.sqrt(np.square(batch).mean())
    batch += 0.05 * rng.standard_normal(batch.shape, dtype=np.float32)
    return torch.from_numpy(batch)


def distance(made, audio):
    """Return how far two batches of audio are apart: spectra of two lengths, and their logs.

    Of samples alone a network learns nothing in a few steps but silence.
    """
    total = 0.0
    for length in (256, 1024):
        window = torch.hann_window(length, dtype=made.dtype)
        one, other = (
            torch.stft(each[:, 0], length, length // 4, window=window, return_complex=True).abs()
            for each in (made, audio)
        )
        total = total + (one - other).norm() / other.norm()
        total = total + ((one + 0.01).log() - (other + 0.01).log()).abs().mean()
    return total / 2


def begin(generator, audio):
    """Have the encoder's channels vary as much as each other, and find the codewords.

    A new encoder gives nearly the same vector for every frame, and few codewords are chosen. They
    are found again as long as float32 and float64 choose differently among them.
    """
    with torch.no_grad():
        last, x = generator.encoder.model[-1].conv.conv, generator.encoder(audio)
        mean, deviation = x.mean((0, 2)), x.std((0, 2))
        last.weight = last.weight / deviation[:, None, None]
        last.bias[:] = (last.bias - mean) / deviation
    fresh = copy.deepcopy(generator.quantizer.state_dict())
    for seed in range(20):
        torch.manual_seed(seed)
        generator.quantizer.load_state_dict(fresh)
        with torch.no_grad():
            generator.quantizer(generator.encoder(audio), generator.frame_rate)
            exact = copy.deepcopy(generator).double()
            if torch.equal(exact.encode(audio.double()), generator.encode(audio)):
                return
    raise AssertionError("a vector lies between two codewords, whatever k-means starts from")


def train(generator, audio, steps, *, projections=True, seed=0):
    """Train on one batch by reconstruction and commitment; return both losses (steps, 2).

    `projections`: whether those of the quantizer train as well. `seed` is of torch's draws; the
    bandwidths that the generator picks by `random` are always the same ones.
    """
    random.seed(0)
    torch.manual_seed(seed)
    # The decoder learns first: else codewords, which move by a hundredth a step, lose the encoder.
    parts = [(generator.encoder, 1e-4), (generator.decoder, 1e-3)]
    parts += [(generator.quantizer, 1e-3)] if projections else []
    groups = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.9))
    losses = []
    for _ in range(steps):
        made, commitment, _, _ = generator(audio)
        error = distance(made, audio)
        optimizer.zero_grad()
        (error + commitment).backward()
        optimizer.step()
        losses.append((error.item(), commitment.item()))
    return np.array(losses)
