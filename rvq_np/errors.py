"""Every exception and warning raised on purpose.

All errors derive from `RvqError`. Each concrete error also derives from the matching builtin
exception, so ``except ValueError`` keeps working.  A message names the call, and says what it got,
what is expected and what to do.  When one of these is raised, no state has changed.
"""

from __future__ import annotations

import os
import sys
import warnings

__all__ = [
    "BackendError",
    "BitstreamError",
    "CheckpointError",
    "ClusterError",
    "CodeRangeError",
    "DtypeError",
    "FewVectorsWarning",
    "InputFileError",
    "LevelsError",
    "MissingExtraError",
    "ModelFileError",
    "NonFiniteError",
    "NotInitializedWarning",
    "ParameterError",
    "PartsError",
    "RvqError",
    "ShapeError",
    "SingleThreadWarning",
    "StageIndexError",
    "StateError",
    "TooFewVectorsWarning",
    "UnstableTrainingWarning",
]


def __dir__() -> list[str]:
    return sorted(__all__)


_PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def warn(message: str, category: type[Warning]) -> None:
    """Warn with the line of the user's program that called the package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


class RvqError(Exception):
    """Base of every error raised on purpose."""


class ShapeError(RvqError, ValueError):
    """An array has the wrong rank or the wrong length along an axis."""


class DtypeError(RvqError, TypeError):
    """An array has the wrong dtype: codes must be integers, vectors floats."""


class ParameterError(RvqError, ValueError):
    """A number or option has an invalid value."""


class LevelsError(RvqError, ValueError):
    """A number of stages is too large or below one, or a range of stages is empty."""


class StageIndexError(LevelsError, IndexError):
    """An index is not that of any stage of the quantizer."""


class CodeRangeError(RvqError, IndexError):
    """A code is out of the range of its codebook."""


class NonFiniteError(RvqError, ValueError):
    """An array holds NaN or infinity where finite numbers are expected."""


class BackendError(RvqError, TypeError):
    """No backend supports this array, or arrays of several libraries were mixed."""


class StateError(RvqError, ValueError):
    """A state dict has missing or extra entries, or entries of wrong shapes."""


class ModelFileError(RvqError, ValueError):
    """A model file is truncated, of another format, or inconsistent."""


class CheckpointError(RvqError, ValueError):
    """The file of a published model is damaged, of another format, or of no known family."""


class PartsError(CheckpointError):
    """A checkpoint holds several quantizers, and none was chosen.

    Attributes
    ----------
    family : str or None
        The family of the file, if it was detected.
    parts : tuple of str
        What ``load(path, part=...)`` takes.
    """

    def __init__(self, message: str, parts: tuple[str, ...] = (), family: str | None = None):
        super().__init__(message)
        self.parts, self.family = parts, family

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (*self.args, self.parts, self.family)


class BitstreamError(RvqError, ValueError):
    """A file of codes is truncated, damaged, of another format, or of other codebooks."""


class MissingExtraError(RvqError, ImportError):
    """A function needs a package that is not installed, part of an extra of rvq-np."""


class InputFileError(RvqError, ValueError):
    """A data file given to the command line cannot be used."""


class ClusterError(RvqError, RuntimeError):
    """A cluster lost its scheduler or its workers, or a worker has other package versions."""


class FewVectorsWarning(UserWarning):
    """There are fewer distinct vectors to train on than codewords: some can never be chosen.

    Training continues all the same. `TooFewVectorsWarning` is about refinement, which is then not
    done.
    """


class NotInitializedWarning(UserWarning):
    """Codebooks are used that were never trained or loaded: their codewords are random."""


class TooFewVectorsWarning(UserWarning):
    """Refinement was not done: there are fewer vectors to refit to than codewords.

    The codebooks are those of k-means. `FewVectorsWarning` is about k-means itself.
    """


class UnstableTrainingWarning(UserWarning):
    """Training replaces most codewords at every step, so the codebooks do not improve."""


class SingleThreadWarning(UserWarning):
    """JAX has one thread, so a compiled function with a callback may wait for ever."""
