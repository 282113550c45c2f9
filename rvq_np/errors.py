"""Every exception and warning raised on purpose.

All errors derive from `RvqError`, and each concrete one from the builtin a caller would
expect as well, so ``except ValueError`` keeps working.  A message says which call, what it
got, what it wanted and what to do.  Nothing is half-changed when one of these is raised.
"""


class RvqError(Exception):
    """Base of every error raised on purpose."""


class ShapeError(RvqError, ValueError):
    """An array has the wrong rank or the wrong length along an axis."""


class DtypeError(RvqError, TypeError):
    """An array holds the wrong kind of numbers: codes want integers, vectors want floats."""


class ParameterError(RvqError, ValueError):
    """A number or option is outside what it may be."""


class LevelsError(RvqError, ValueError):
    """More levels than there are, or fewer than one, or a range that is empty."""


class StageIndexError(LevelsError, IndexError):
    """An index names none of the stages of a quantizer."""


class CodeRangeError(RvqError, IndexError):
    """A code names no word of its codebook."""


class NonFiniteError(RvqError, ValueError):
    """NaN or infinity where only finite numbers have a meaning."""


class BackendError(RvqError, TypeError):
    """No backend serves this array, or arrays of several libraries were mixed."""


class StateError(RvqError, ValueError):
    """A state dict has missing, extra or misshaped entries."""


class ModelFileError(RvqError, ValueError):
    """A model file is truncated, foreign or contradicts itself."""


class CheckpointError(RvqError, ValueError):
    """A published model's file is damaged, foreign, or of no known family."""


class BitstreamError(RvqError, ValueError):
    """A file of codes is truncated, damaged, foreign, or of other codebooks."""


class InputFileError(RvqError, ValueError):
    """A data file given to the command line cannot be used."""


class NotInitializedWarning(UserWarning):
    """Codebooks that were never trained or loaded are in use: the words are random."""
