"""What the modules of torch and MLX share: how they describe themselves."""

from __future__ import annotations

from ..config import Config


class Described:
    """A module that has a `Config`."""

    config: Config

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.as_dict().items())

    _extra_repr = extra_repr  # MLX's name for it

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        """Return kb/s per stage."""
        return self.config.bandwidth_per_quantizer(sample_rate)

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: float, bandwidth: float | None = None
    ) -> int:
        """Return how many stages fit into `bandwidth` kb/s."""
        return self.config.stages_for(sample_rate, bandwidth)
