"""The configuration of a quantizer: the arguments of the class as one checked, frozen value.

The arithmetic between stages and bandwidth lives here too, as it needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

import numpy as np

from . import arguments
from .errors import LevelsError, ParameterError

CLASS = "ResidualVectorQuantizer"
NUDGE = 1 + 1e-9  # of a quotient that may round to just below a whole number
IN_BITS = 1000.0  # vectors per second at which kb/s are bits per vector


@dataclass(frozen=True)
class Config:
    """Arguments of `rvq_np.ResidualVectorQuantizer`; see there for what each one means.

    Raises
    ------
    ParameterError
        If an argument has an invalid value. The message names it and says what is expected.
    """

    dimension: int = 256
    codebook_dim: int | None = 512
    n_q: int = 8
    bins: int | Sequence[int] = 1024  # an int, or a tuple of those that differ
    decay: float = 0.99
    kmeans_init: bool = True
    kmeans_iters: int = 50
    threshold_ema_dead_code: float | None = None
    quantizer_dropout: bool | float = False
    commitment_weight: float = 1.0
    epsilon: float = 1e-5
    relative_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.codebook_dim is None:
            object.__setattr__(self, "codebook_dim", self.dimension)
        for name in ("dimension", "codebook_dim", "n_q", "kmeans_iters"):
            value = getattr(self, name)
            lowest = 0 if name == "kmeans_iters" else 1
            found = arguments.whole_of(value)
            if found is None or found < lowest:
                _refuse(name, value, f"a whole number from {lowest}")
            object.__setattr__(self, name, found)
        object.__setattr__(self, "bins", arguments.sizes(CLASS, "bins", self.bins, self.n_q))
        init = arguments.flag(CLASS, "kmeans_init", self.kmeans_init)
        object.__setattr__(self, "kmeans_init", init)
        for name in ("decay", "quantizer_dropout"):
            self._number(name, 1, "a number from 0 to 1")
        for name in ("threshold_ema_dead_code", "commitment_weight", "epsilon"):
            if name == "threshold_ema_dead_code" and self.threshold_ema_dead_code is None:
                continue
            self._number(name, math.inf, "a finite number from 0")
        if self.relative_threshold is not None:
            self._number("relative_threshold", 1, "None or a number from 0 to 1")

    def _number(self, name: str, highest: float, expected: str) -> None:
        """Make an argument a plain number from 0 to `highest`, or raise."""
        value = getattr(self, name)
        found = arguments.real_of(value)
        if found is None or not 0 <= found <= highest:
            _refuse(name, value, expected)
        object.__setattr__(self, name, arguments.plain(value))

    @property
    def paced(self) -> bool:
        """Whether first codewords wait for enough vectors, and the rule for dead ones is ours."""
        return self.threshold_ema_dead_code is None and self.relative_threshold is None

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each stage."""
        bins: Any = self.bins
        return bins if isinstance(bins, tuple) else (bins,) * self.n_q

    @property
    def projects(self) -> bool:
        """Whether the codebooks live in another space than the vectors."""
        return self.codebook_dim != self.dimension

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments as plain JSON values; several sizes as a list."""
        values = asdict(self)
        if isinstance(self.bins, tuple):
            values["bins"] = list(self.bins)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Return the config of `values`, which must name every argument and no other."""
        if not isinstance(values, Mapping):
            raise ParameterError(
                f"Config: config is a {type(values).__name__}; expected a mapping of arguments."
            )
        names = {each.name for each in fields(cls)}
        wrong = sorted(names.symmetric_difference(values))
        if wrong:
            raise ParameterError(
                f"Config: {', '.join(wrong)} missing or unknown; expected exactly "
                f"{', '.join(sorted(names))}."
            )
        return cls(**values)

    def bandwidth_per_quantizer(
        self, sample_rate: float, stage: int | None = None, call: str = CLASS
    ) -> float:
        """Return kb/s of a stage, None: of any, at `sample_rate` vectors per second.

        `call`: who asks.
        """
        rate = self.rate(sample_rate, call)
        if stage is not None:
            stage = arguments.whole(call, "stage", stage, 0, self.n_q - 1)
        elif isinstance(self.bins, tuple):
            raise ParameterError(
                f"{call}: stages have {', '.join(map(str, self.bins))} codewords, so each has "
                "a bandwidth of its own; expected stage, the number of one of them."
            )
        return math.log2(self.sizes[stage or 0]) * rate / 1000

    def rate(self, sample_rate: Any, call: str = CLASS) -> float:
        """Return vectors per second as a plain number, or raise ParameterError."""
        rate = arguments.real_of(sample_rate)
        if rate is None or rate <= 0:
            _refuse("sample_rate", sample_rate, "a positive number of vectors per second", call)
        return rate

    def costs(self, sample_rate: float, call: str = CLASS) -> np.ndarray:
        """Return kb/s of the first stages, none to all of them, float64 (n_q + 1,)."""
        if not isinstance(self.bins, tuple):
            per_stage = self.bandwidth_per_quantizer(sample_rate, call=call)
            return per_stage * np.arange(self.n_q + 1)
        rate = self.rate(sample_rate, call)
        bits = np.cumsum([0.0, *map(math.log2, self.bins)])
        return bits * rate / 1000

    def stages_for(self, sample_rate: float, bandwidth: float | None, call: str = CLASS) -> int:
        """Return how many stages fit into `bandwidth` kb/s: at least one, at most all.

        The quotient of an exact bitrate may round to just below a whole number, so it is nudged
        up by a relative 1e-9 (ESPnet loses a stage in 313 of 2464 such cases, this in none).
        """
        costs = self.costs(sample_rate, call)
        spent = self.budget(sample_rate, bandwidth, call)
        if not spent or costs[-1] == 0:
            return self.n_q
        if isinstance(self.bins, tuple):
            fitting = int(np.flatnonzero(costs <= spent * NUDGE)[-1])
        else:
            per_stage = float(costs[1])
            fitting = math.floor(min(spent / per_stage * NUDGE, self.n_q))
        return max(1, fitting)

    def asked(
        self, call: str, sample_rate: Any, bandwidth: Any, n_q: Any = None
    ) -> tuple[float, int]:
        """Return vectors per second and the stages in use: `n_q` of them, or what `bandwidth` buys.

        Without `sample_rate` the rate is `IN_BITS`, at which kb/s are bits per vector.
        """
        if n_q is not None:
            if bandwidth is not None:
                raise ParameterError(
                    f"{call}: got bandwidth={bandwidth!r} and n_q={n_q!r}; expected one of them. "
                    "n_q is the number of stages, bandwidth the kb/s that they may need."
                )
            return self._rate_or_bits(sample_rate, call), self.stage_count(call, n_q)
        if sample_rate is None and bandwidth is not None:
            raise ParameterError(
                f"{call}: got bandwidth={bandwidth!r} and no sample_rate; expected both, as the "
                "kb/s of a stage depend on the vectors per second. Pass sample_rate, or n_q, the "
                "number of stages, instead of bandwidth."
            )
        rate = self._rate_or_bits(sample_rate, call)
        return rate, self.stages_for(rate if bandwidth is None else sample_rate, bandwidth, call)

    def _rate_or_bits(self, sample_rate: Any, call: str) -> float:
        return IN_BITS if sample_rate is None else self.rate(sample_rate, call)

    def stage_count(self, call: str, n_q: Any, lowest: int = 1) -> int:
        """Return a number of stages as an int from `lowest` to all, or raise LevelsError."""
        found = arguments.whole_of(n_q)
        if found is None or not lowest <= found <= self.n_q:
            raise LevelsError(
                f"{call}: n_q is {n_q!r}; expected {lowest} to {self.n_q}, as there are {self.n_q} "
                "stages."
            )
        return found

    def budget(self, sample_rate: Any, bandwidth: Any, call: str = CLASS) -> float | None:
        """Return `bandwidth` as a plain number of kb/s, or None.

        What a type narrower than float64 may have been rounded by is added, so that a bandwidth
        that a result reports as float32 buys as many stages again.
        """
        if bandwidth is None:
            return None
        spent = arguments.real_of(bandwidth)
        if spent is None or spent < 0:
            _refuse("bandwidth", bandwidth, "kb/s from 0, where 0 and None mean all stages", call)
        rounded = arguments.rounding(bandwidth) + arguments.rounding(sample_rate)
        return spent * (1 + rounded)

    def check_start(self, call: str, st: int | None, n_q: int) -> int:
        """Return the first stage as an int, 0 for None, or raise LevelsError."""
        if st is None:
            return 0
        found = arguments.whole_of(st)
        if found is None or not 0 <= found < n_q:
            raise LevelsError(
                f"{call}: st is {st!r}; expected 0 to {n_q - 1}, as {n_q} stages are in use."
            )
        return found

    def first_stages(self, call: str, codes: Any, st: int | None, n_q: int | None) -> Any:
        """Return those of codes (n, ...) from stage `st` on that are of the first `n_q` stages."""
        if n_q is None or not codes.shape:  # an array of no rank is refused elsewhere
            return codes
        start = self.check_start(call, st, self.n_q)
        stop, there = self.stage_count(call, n_q, start + 1), start + codes.shape[0]
        if stop > there:
            raise LevelsError(
                f"{call}: n_q is {stop}, and codes are of the stages {start} to {there - 1}; "
                f"expected n_q up to {there}."
            )
        return codes[: stop - start]


def _refuse(name: str, value: Any, expected: str, call: str = CLASS) -> NoReturn:
    raise ParameterError(f"{call}: {name} is {value!r}; expected {expected}.")
