"""What the modules of torch and MLX share: how they describe themselves, what they remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import names
from ..config import Config
from ..quantizer import shown
from ._remembered import Remembered


class Described:
    """A module that has a `Config`."""

    config: Config
    training: bool
    _remembered: Remembered
    _named: Callable[..., dict[str, Any]]

    @property
    def frozen(self) -> tuple[int, ...]:
        """The stages that training leaves as they are."""
        return tuple(sorted(self._remembered.frozen))

    @property
    def vectors_awaited(self) -> int:
        """How many more vectors training needs before it makes its first codewords once more.

        As `rvq_np.ResidualVectorQuantizer.vectors_awaited`. Not in the state dict: after
        ``load_state_dict`` nothing is waited for.
        """
        return self._remembered.awaited(self.config)

    def extra_repr(self) -> str:
        return ", ".join([*self._state(), *shown.of_arguments(self.config)])

    def _state(self) -> list[str]:
        """Return in text whether stages are trained, and the mode, where values are known."""
        trained = self._trained()
        return [] if trained is None else shown.of_training(trained, self.training)

    def _trained(self) -> list[bool] | None:
        """Return per stage whether its codewords were trained or loaded; None: unknown."""
        named = self._named()
        pairs = [
            [named[names.book(q, each)] for each in (names.INITIALIZED, names.COUNTS)]
            for q in range(self.config.n_q)
        ]
        if any(getattr(each, "is_meta", False) for pair in pairs for each in pair):
            return None
        # Random codewords that were asked for have counts of one.
        return [bool((done > 0).all()) and bool((counts != 1).any()) for done, counts in pairs]

    _extra_repr = extra_repr  # MLX's name for it

    def get_bandwidth_per_quantizer(self, sample_rate: float, stage: int | None = None) -> float:
        """Return kb/s of a stage; without `stage` that of any, where all have as many codewords."""
        return self.config.bandwidth_per_quantizer(
            sample_rate, stage, "get_bandwidth_per_quantizer"
        )

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: float, bandwidth: float | None = None
    ) -> int:
        """Return how many stages fit into `bandwidth` kb/s."""
        return self.config.stages_for(sample_rate, bandwidth)
