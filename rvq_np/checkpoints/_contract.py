"""What the file of a family has.

A module is a `Family`, or, if its files are not safetensors, a `BinaryFamily`.  One whose files
have several quantizers is a `FamilyOfParts`, one whose names a message may list a `NamedFamily`,
one that codebooks can be exported to an `Exporter`, one that is no neural codec is `OfVectors`.
What it does not read but knows of is in `Beside`, and the settings of a config that it reads in
`Configured`; see `_accounts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np

from ..codebooks import Quantizer
from ..frontend import FrontEnd
from ._nearest import Forms


class Family(Protocol):
    """A family of safetensors checkpoints."""

    def matches(self, tensors: Any, config: dict[str, Any]) -> int:
        """Return how many marks of the family a checkpoint has, 0 if one is missing that all have.

        Marks are kinds of names of tensors, and settings of the JSON config beside it, ``{}`` if
        there is none. The family with the most marks has the file, so that a special case wins over
        what it is a case of, and no family needs to know of others. Called only where the caller
        named no family.
        """

    def build(self, tensors: Any, config: dict[str, Any]) -> Quantizer:
        """Return the quantizer.

        `tensors`: a mapping that reads a tensor when it is accessed, as float32 or float64; a
        missing name raises `CheckpointError`. What it does not read is accounted for afterwards: a
        tensor beside the codebooks, within what `_stack.one_prefix` or `_stack.scope` noted as
        theirs, that is not of training (`_accounts.TRAINING`), has the file refused by name.
        """


@runtime_checkable
class FamilyOfParts(Protocol):
    """A family whose files have several quantizers; it is a `Family` but for ``build``."""

    NAMES: Forms  # as of a `NamedFamily`

    def matches(self, tensors: Any, config: dict[str, Any]) -> int:
        """Return how many marks of the family a checkpoint has, as a `Family` does."""

    def parts(self, tensors: Any, config: dict[str, Any]) -> dict[str, str]:
        """Return what each quantizer is, by the name that ``load(part=)`` takes."""

    def build(self, tensors: Any, config: dict[str, Any], part: str) -> Quantizer:
        """Return the quantizer of that name."""


@runtime_checkable
class NamedFamily(Protocol):
    """A family whose names the message lists where no family matches.

    ``NAMES``: per form of the family, how the names of the first stage end.
    """

    NAMES: Forms


@runtime_checkable
class BinaryFamily(Protocol):
    """A family whose files are not safetensors."""

    def recognizes(self, head: bytes) -> bool:
        """Whether a file that begins with these bytes is of the program."""

    def parse(self, file: BinaryIO, path: Path) -> Quantizer:
        """Return the quantizer from the open file, at its beginning."""


@runtime_checkable
class OfVectors(Protocol):
    """A family that is no neural codec; the vectors of a codec are the latents of its encoder."""

    def front_end(self, tensors: Any) -> FrontEnd | None:
        """Return what the vectors are, None where that is unknown."""


@runtime_checkable
class Exporter(Protocol):
    """A family to which codebooks can be exported."""

    def entries(self, quantizer: Any, counts: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors, by the names that ``load_state_dict`` of its quantizer expects.

        `counts` has one array (K,) per stage: how often each codeword was chosen, as a moving
        average. Raises `ParameterError` where the family cannot hold such a quantizer.
        """


@runtime_checkable
class Beside(Protocol):
    """A family with further tensors beside its codebooks.

    ``BESIDE``: regular expressions of names of tensors that do not change what is computed.
    """

    BESIDE: tuple[str, ...]


@runtime_checkable
class Configured(Protocol):
    """A family that settings of the config change.

    ``SETTINGS``: those of `_accounts.SETTINGS` that ``build`` reads.
    """

    SETTINGS: tuple[str, ...]
