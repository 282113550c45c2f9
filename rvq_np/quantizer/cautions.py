"""What a quantizer warns of, once: random codewords, and training that replaces most of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import Config
from ..errors import NotInitializedWarning, UnstableTrainingWarning, warn

UNSTABLE = 5  # steps running in which most codewords were replaced, before a warning


class Cautions:
    """The warnings of `ResidualVectorQuantizer`, and what it remembers for them."""

    config: Config
    _states: Sequence[Any]
    _churn: list[int]  # per stage, how many steps running replaced most of its codewords
    _warned = False
    _warned_unstable = False  # also of objects pickled before there was such an attribute

    def _warn_if_replaced(self, replaced: tuple[int, ...]) -> None:
        """Warn once if most codewords of a stage are replaced in several steps running."""
        for stage, count in enumerate(replaced):
            size = self.config.sizes[stage]
            most = 2 * count > size
            self._churn[stage] = self._churn[stage] + 1 if most else 0
            if self._churn[stage] == UNSTABLE and not self._warned_unstable:
                self._warned_unstable = True
                warn(
                    f"forward: {count} of {size} codewords of stage {stage} were replaced in "
                    f"this step, and more than half in each of the last {UNSTABLE}: the codebook "
                    "does not learn. Batches hold too few distinct vectors for "
                    f"threshold_ema_dead_code={self.config.threshold_ema_dead_code}; pass None, "
                    "which suits batches of any size.",
                    UnstableTrainingWarning,
                )

    def _warn_if_random(self, start: int, stop: int) -> None:
        used = self._states[start:stop]
        if not self._warned and not all(state.initialized for state in used):
            self._warned = True
            warn(
                "these codebooks were never trained or loaded: their codewords are random. Train "
                "them with fit() or in train mode, or load a model.",
                NotInitializedWarning,
            )
