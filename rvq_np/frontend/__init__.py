"""Front ends: how the vectors of a model are made, which model files record.

=====================  ==========================================================================
`FrontEnd`             the record: samples, an MDCT, the latents of an encoder, or embeddings
`Analysis`             samples to vectors, part by part, where the library computes them
`Synthesis`            vectors back to samples
`frontend.mdct`        the modified discrete cosine transform
=====================  ==========================================================================

A quantizer cannot detect vectors of another front end: it encodes them, and the decoded sound is
bad.  If a file records no front end, as all files before 2026-12, its front end is unknown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..errors import ParameterError
from . import mdct

KINDS = ("samples", "mdct", "latents", "embeddings")
OF_SOUND = ("samples", "mdct")  # those that are computed here
MOST = 1 << 31  # samples per vector, and per second


@dataclass(frozen=True)
class FrontEnd:
    """The front end of a model: how its vectors are made.

    Parameters
    ----------
    kind : {"samples", "mdct", "latents", "embeddings"}
        Consecutive frames of samples; coefficients of the modified discrete cosine transform of
        samples, as in the demo; output of the encoder of a neural codec; other vectors.
    dim : int, optional
        For samples and mdct: the samples per vector, which are the dimension D.
    rate : int, optional
        For samples and mdct: the samples per second of the sound that the model was trained on.
        None: any.
    of : str, optional
        For latents: the encoder, as ``"encodec"``; for embeddings: the model, if known.

    Raises
    ------
    ParameterError
        If a value is invalid, or does not belong to this kind.

    Examples
    --------
    >>> print(FrontEnd("mdct", 64, 16000))
    MDCT of sound, 64 samples per vector, 16000 Hz
    >>> print(FrontEnd("latents", of="encodec"))
    latents of the encodec encoder
    """

    kind: str
    dim: int | None = None
    rate: int | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise arguments.refused("FrontEnd", "kind", self.kind, f"one of {', '.join(KINDS)}")
        if self.kind in OF_SOUND:
            if self.of is not None:
                raise arguments.refused("FrontEnd", "of", self.of, f"None for {self.kind}")
            self._set("dim", arguments.whole("FrontEnd", "dim", self.dim, 1, MOST))
            if self.rate is not None:
                self._set("rate", arguments.whole("FrontEnd", "rate", self.rate, 1, MOST))
            return
        for name in ("dim", "rate"):
            if getattr(self, name) is not None:
                value = getattr(self, name)
                raise arguments.refused("FrontEnd", name, value, f"None for {self.kind}")
        if self.of is not None and not isinstance(self.of, str):
            raise arguments.refused("FrontEnd", "of", self.of, "a name or None")
        if self.kind == "latents" and not self.of:
            raise arguments.refused("FrontEnd", "of", self.of, "the name of the encoder")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_of_sound(self) -> bool:
        """Whether the library computes this front end: for samples and mdct."""
        return self.kind in OF_SOUND

    def vectors(self, samples: int) -> int:
        """Return how many vectors a number of samples gives."""
        assert self.dim is not None
        return -(-samples // self.dim) + (self.kind == "mdct")

    def samples(self, vectors: int) -> int:
        """Return how many samples a number of vectors gives."""
        assert self.dim is not None
        return max(0, vectors - (self.kind == "mdct")) * self.dim

    def as_dict(self) -> dict[str, Any]:
        """Return the values that are not None, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Any) -> FrontEnd:
        """Return the front end of what `as_dict` returned; ParameterError for anything else."""
        known = {"kind", "dim", "rate", "of"}
        if not isinstance(values, dict) or not {"kind"} <= set(values) <= known:
            raise ParameterError(
                f"FrontEnd: got {values!r}; expected a dictionary with kind, dim, rate and of."
            )
        return cls(**values)

    def __str__(self) -> str:
        if self.kind == "latents":
            return f"latents of the {self.of} encoder"
        if self.kind == "embeddings":
            return "embeddings" + (f" of {self.of}" if self.of else "")
        name = "MDCT of sound" if self.kind == "mdct" else "samples of sound"
        rate = f", {self.rate} Hz" if self.rate is not None else ""
        return f"{name}, {self.dim} samples per vector{rate}"


class Analysis:
    """Samples to vectors, in parts of any number of whole vectors; remembers the last samples.

    An MDCT begins with half a window of silence, and needs as many vectors as
    `FrontEnd.vectors` says: the samples after the last are zeros.
    """

    def __init__(self, front_end: FrontEnd):
        self.front_end = front_end
        self._last = np.zeros(front_end.dim or 0)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the vectors (n, D), float32, of the next n * D samples."""
        dim = len(self._last)
        if self.front_end.kind == "samples":
            return samples.astype(np.float32).reshape(-1, dim)
        if not len(samples):
            return np.empty((0, dim), np.float32)
        content = np.concatenate([self._last, samples])
        self._last = content[-dim:].copy()
        return mdct.of_windows(content, dim)


class Synthesis:
    """Vectors to samples, in parts; an MDCT gives those of a vector when the next one is there."""

    def __init__(self, front_end: FrontEnd):
        self.front_end = front_end
        self._half: np.ndarray | None = None

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return the next samples, of vectors (n, D)."""
        if self.front_end.kind == "samples":
            return vectors.reshape(-1)
        if not len(vectors):
            return np.empty(0)
        dim = vectors.shape[1]
        windows = mdct.windows(vectors)
        samples = windows[:, :dim]
        samples[1:] += windows[:-1, dim:]
        if self._half is None:
            samples = samples[1:]
        else:
            samples[0] += self._half
        self._half = windows[-1, dim:].copy()
        return samples.reshape(-1)


__all__ = ["Analysis", "FrontEnd", "Synthesis"]


def __dir__() -> list[str]:
    return sorted(__all__)
