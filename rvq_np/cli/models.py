"""The model file of a command: one of ours, or a published checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from .. import names
from ..codebooks import Quantizer
from ..errors import NotInitializedWarning, warn
from ..files import safetensors
from . import inputs


@dataclass(frozen=True)
class Model:
    """A quantizer and its origin.

    Attributes
    ----------
    quantizer : Codebooks or Composed
    kind : str
        The family of models.
    path : str
    front_end : FrontEnd or None
        What its vectors are made of, if that is known.
    rvq : ResidualVectorQuantizer or None
        If the file has training state.
    """

    quantizer: Quantizer
    kind: str
    path: str
    front_end: Any = None
    rvq: Any = None

    @classmethod
    def of(
        cls,
        command: str,
        path: str,
        family: str | None = None,
        part: str | None = None,
        names: str | None = None,
    ) -> Model:
        """Return the model of a file, or of a directory with weights, or its `part`.

        `names`: a JSON file of the names that the family has for tensors of the file.
        """
        inputs.kind(command, path, "info" if command == "info" else "model")
        given = None if names is None else inputs.names(command, names)
        if family is None and given is None and safetensors.is_model(path):
            from ..quantizer import ResidualVectorQuantizer

            rvq = ResidualVectorQuantizer.load(path)
            kind = "ResidualVectorQuantizer of rvq_np"
            return cls(rvq.codebooks, kind, path, rvq.front_end, rvq)
        from .. import checkpoints

        found, quantizer, front_end = checkpoints.load_whole(path, family, part, given)
        return cls(quantizer, found, path, front_end)

    @classmethod
    def asked(cls, command: str, options: argparse.Namespace) -> Model:
        """Return the model of the options that every command with a model has."""
        return cls.of(command, options.model, options.family, options.part, options.names)

    @property
    def counts(self) -> list[Any] | None:
        """How often each codeword was chosen in training, one array per stage, if known."""
        if self.rvq is None:
            return None
        state = self.rvq.state_dict()
        return [state[names.book(n, names.COUNTS)] for n in range(self.rvq.n_q)]

    def first(self, n_q: int | None) -> Any:
        """Return the quantizer with its first `n_q` stages; all stages for None."""
        from ..codec import validation

        available = self.quantizer.n_q
        n_q = available if n_q is None else validation.stage_count("encode", n_q, 1, available)
        return self.quantizer[:n_q]

    def warn_if_random(self) -> None:
        if self.rvq is not None and not self.rvq.is_initialized:
            warn("this model was never trained: its codewords are random.", NotInitializedWarning)
