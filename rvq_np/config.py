"""What a quantizer is asked to be: the seed's arguments as one checked, frozen value.

The arithmetic between stages and bandwidth lives here too, as it needs nothing else.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

import numpy as np

from . import arguments
from .errors import LevelsError, ParameterError

CLASS = "ResidualVectorQuantizer"


@dataclass(frozen=True)
class Config:
    """Arguments of `rvq_np.ResidualVectorQuantizer`; see there for what each one means.

    Raises
    ------
    ParameterError
        Naming the argument, what it is and what it may be.
    """

    dimension: int = 256
    codebook_dim: int | None = 512
    n_q: int = 8
    bins: int = 1024
    decay: float = 0.99
    kmeans_init: bool = True
    kmeans_iters: int = 50
    threshold_ema_dead_code: float | None = 2
    quantizer_dropout: bool | float = False
    commitment_weight: float = 1.0
    epsilon: float = 1e-5
    relative_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.codebook_dim is None:
            object.__setattr__(self, "codebook_dim", self.dimension)
        for name in ("dimension", "codebook_dim", "n_q", "bins", "kmeans_iters"):
            value = getattr(self, name)
            lowest = 0 if name == "kmeans_iters" else 1
            if not _is_whole(value) or value < lowest:
                _refuse(name, value, f"a whole number from {lowest}")
            object.__setattr__(self, name, int(value))
        for name in ("decay", "quantizer_dropout"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                _refuse(name, getattr(self, name), "a number from 0 to 1")
        for name in ("threshold_ema_dead_code", "commitment_weight", "epsilon"):
            if name == "threshold_ema_dead_code" and self.threshold_ema_dead_code is None:
                continue
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                _refuse(name, getattr(self, name), "a finite number from 0")
        relative = self.relative_threshold
        if relative is not None and (not _is_number(relative) or not 0 <= relative <= 1):
            _refuse("relative_threshold", relative, "None or a number from 0 to 1")

    @property
    def paced(self) -> bool:
        """Whether first codewords wait for enough vectors, and the rule for dead ones is ours."""
        return self.threshold_ema_dead_code is None and self.relative_threshold is None

    @property
    def projects(self) -> bool:
        """Whether the codebooks live in another space than the vectors."""
        return self.codebook_dim != self.dimension

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments as plain JSON values."""
        plain = {}
        for name, value in asdict(self).items():
            plain[name] = value.item() if isinstance(value, np.generic) else value
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Return the config of `values`, which must name every argument and no other."""
        names = {each.name for each in fields(cls)}
        wrong = sorted(names.symmetric_difference(values))
        if wrong:
            raise ParameterError(
                f"Config: {', '.join(wrong)} missing or unknown; expected exactly "
                f"{', '.join(sorted(names))}."
            )
        return cls(**values)

    def bandwidth_per_quantizer(self, sample_rate: float, call: str = CLASS) -> float:
        """Return kb/s per stage at `sample_rate` vectors per second; `call`: who asks."""
        rate = _real(sample_rate)
        if rate is None or rate <= 0:
            _refuse("sample_rate", sample_rate, "a positive number of vectors per second", call)
        return math.log2(self.bins) * rate / 1000

    def stages_for(self, sample_rate: float, bandwidth: float | None, call: str = CLASS) -> int:
        """Return how many stages fit into `bandwidth` kb/s: at least one, at most all.

        The quotient of an exact bitrate may round to just below a whole number, so it is nudged
        up by a relative 1e-9 (ESPnet loses a stage in 313 of 2464 such cases, this in none).
        """
        per_stage = self.bandwidth_per_quantizer(sample_rate, call)
        if bandwidth is None:
            return self.n_q
        spent = _real(bandwidth)
        if spent is None or spent < 0:
            _refuse("bandwidth", bandwidth, "kb/s from 0, where 0 and None mean all stages", call)
        if spent == 0 or per_stage == 0:
            return self.n_q
        fitting = math.floor(min(spent / per_stage * (1 + 1e-9), self.n_q))
        return max(1, fitting)

    def check_start(self, call: str, st: int | None, n_q: int) -> int:
        """Return the first stage as an int, 0 for None, or raise LevelsError."""
        if st is None:
            return 0
        if not _is_whole(st) or not 0 <= st < n_q:
            raise LevelsError(
                f"{call}: st is {st!r}; choose 0 to {n_q - 1}, the stages in use here."
            )
        return int(st)


def _is_number(value: Any) -> bool:
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return isinstance(value, kinds) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _real(value: Any) -> float | None:
    """Return a finite number as a float, None for anything else."""
    if _is_number(value):
        return float(value)
    try:
        return arguments.number("", "", value)
    except ParameterError:
        return None


def _refuse(name: str, value: Any, expected: str, call: str = CLASS) -> NoReturn:
    raise ParameterError(f"{call}: {name} is {value!r}; expected {expected}.")
