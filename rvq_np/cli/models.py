"""The model file of a command: one of ours, or a published checkpoint."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ..files import safetensors


@dataclass(frozen=True)
class Model:
    """A quantizer and its origin.

    Attributes
    ----------
    quantizer : Codebooks or Composed
    kind : str
        The family of models.
    rvq : ResidualVectorQuantizer or None
        If the file has training state.
    """

    quantizer: Any
    kind: str
    rvq: Any = None

    @classmethod
    def of(cls, path: str, family: str | None = None, part: str | None = None) -> Model:
        """Return the model of a file, or of a directory with weights, or of its `part`."""
        if family is None and safetensors.is_model(path):
            from ..quantizer import ResidualVectorQuantizer

            rvq = ResidualVectorQuantizer.load(path)
            return cls(rvq.codebooks, "ResidualVectorQuantizer of rvq_np", rvq)
        from .. import checkpoints

        found, quantizer = checkpoints.load_as(path, family, part)
        return cls(quantizer, found)

    @property
    def counts(self) -> list[Any] | None:
        """How often each codeword was chosen in training, one array per stage, if known."""
        if self.rvq is None:
            return None
        state = self.rvq.state_dict()
        return [state[f"vq.layers.{n}._codebook.cluster_size"] for n in range(self.rvq.n_q)]

    def first(self, n_q: int | None) -> Any:
        """Return the quantizer with its first `n_q` stages; all stages for None."""
        from ..codec import validation

        available = self.quantizer.n_q
        n_q = available if n_q is None else validation.stage_count("encode", n_q, 1, available)
        return self.quantizer[:n_q]

    def warn_if_random(self) -> None:
        if self.rvq is not None and not self.rvq.is_initialized:
            print(
                "rvq-np: warning: this model was never trained: its codewords are random.",
                file=sys.stderr,
            )
