"""What the modules of torch and MLX share: how they describe themselves, what they remember."""

from __future__ import annotations

from ..config import Config
from ._remembered import Remembered


class Described:
    """A module that has a `Config`."""

    config: Config
    _remembered: Remembered

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
        return ", ".join(f"{name}={value!r}" for name, value in self.config.as_dict().items())

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
