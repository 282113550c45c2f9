"""A fit that can go on where it was interrupted: its finished stages, in a file.

After each stage the file is replaced atomically.  It holds the stages, how the generator stood
when the fit began and now, and what the fit was asked to do, so that one that goes on ends bit for
bit as if it had never stopped.  When the fit is done the file is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import arrays
from ..errors import ModelFileError, StateError
from ..files import atomic, safetensors
from .chunked import Chunks
from .state import CodebookState

LOOKED_AT = 64  # rows of the data that tell it from other data


class Checkpoint:
    """The file of one fit; without a path nothing is kept."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        x: Any,
        rng: np.random.Generator,
        asked: Mapping[str, Any],
    ):
        self.path, self.rng = path, rng
        self.states: list[CodebookState] = []
        self.after: Any = None
        if path is None:
            return
        self.asked = {**asked, "data": _reported(x)}
        self.begin = _plain(rng.bit_generator.state)
        atomic.check(path)  # now, not after the first stage
        if Path(path).exists():
            self._load(path)
            rng.bit_generator.state = self.begin

    def _load(self, path: str | os.PathLike[str]) -> None:
        tensors, about = safetensors.load(path)
        if not isinstance(about, dict) or about.get("kind") != "fit":
            raise ModelFileError(
                f"fit: {str(path)!r} is not a resume file of a fit. Name another file."
            )
        if about.get("asked") != _plain(self.asked):
            raise StateError(
                f"fit: {str(path)!r} is the resume file of another fit, {about.get('asked')}; this "
                f"is {_plain(self.asked)}. Remove it, or name another file."
            )
        stood = self.rng.bit_generator.state
        try:
            for state in (about["after"], about["begin"]):
                self.rng.bit_generator.state = state
            self.states = self._stages(tensors, about["stages"])
        except Exception as error:  # NumPy's generators raise what they like
            self.rng.bit_generator.state = stood
            raise ModelFileError(
                f"fit: {str(path)!r} is a damaged resume file, or of another generator "
                f"({error!r}). Remove it, and the fit starts from the beginning."
            ) from error
        self.begin, self.after = about["begin"], about["after"]

    def _stages(self, tensors: Mapping[str, np.ndarray], count: Any) -> list[CodebookState]:
        n_q, size, widths = (self.asked[name] for name in ("n_q", "size", "widths"))
        if type(count) is not int or not 1 <= count <= n_q:
            raise ValueError(f"{count!r} stages of {n_q}")
        states = []
        sizes = size if isinstance(size, list) else [size] * n_q
        for stage, (width, size) in enumerate(zip(widths[:count], sizes, strict=False)):
            shapes = {"codebook": (size, width), "sums": (size, width), "counts": (size,)}
            parts = [tensors[f"{stage}.{name}"] for name in shapes]
            if [each.shape for each in parts] != list(shapes.values()):
                raise ValueError(f"stage {stage} has shapes {[each.shape for each in parts]}")
            codebook, sums, counts = parts
            state = CodebookState(codebook, sums, counts, True)
            placed = tensors.get(f"{stage}.placed")
            states.append(state if placed is None else state.knowing(placed.reshape(size)))
        return states

    def resume(self) -> None:
        """Let the generator go on from where it stood after the last finished stage."""
        if self.after is not None:
            self.rng.bit_generator.state = self.after

    def keep(self, state: CodebookState) -> None:
        """Add a stage that is finished."""
        self.states.append(state)
        if self.path is None:
            return
        tensors = {
            f"{stage}.{name}": getattr(each, name)
            for stage, each in enumerate(self.states)
            for name in ("codebook", "sums", "counts", "placed")
        }
        about = {
            "kind": "fit", "asked": _plain(self.asked), "begin": self.begin,
            "after": _plain(self.rng.bit_generator.state), "stages": len(self.states),
        }  # fmt: skip
        safetensors.save(self.path, tensors, about)

    def finish(self) -> None:
        """Remove the file: the fit is done."""
        if self.path is not None:
            atomic.remove(self.path)


def _reported(x: Any) -> str:
    """Return what tells data from other data, without reading all of them."""
    rows = np.linspace(0, x.shape[0] - 1, min(LOOKED_AT, x.shape[0])).astype(np.int64)
    some = x.take(rows) if isinstance(x, Chunks) else arrays.to_numpy(arrays.take(x, rows))
    digest = hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()[:16]
    return f"{some.dtype} {tuple(x.shape)} {digest}"


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value, default=lambda each: each.tolist()))
