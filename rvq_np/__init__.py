"""Residual vector quantization without a deep-learning framework.

The modules and packages, lowest layer first: each one imports only from lower layers.

=====================  =======================================================================
`rvq_np.errors`        every exception raised on purpose
`rvq_np.forks`         locks that no child process inherits while they are held
`rvq_np.files`         atomic writing of files, safetensors, audio
`rvq_np.arguments`     numbers, functions and paths among arguments, checked by name
`rvq_np.display`       how a notebook displays the values of the package
`rvq_np.names`         the names of arrays in a state dict
`rvq_np.kernels`       search, decoding and sums over plain arrays, in three engines
`rvq_np.arrays`        conversion of arrays of any library to NumPy and back
`rvq_np.backends`      one file per array library: the type of the array selects the file
`rvq_np.config`        the arguments of a quantizer, checked; stages and bandwidth
`rvq_np.codebooks`     `Codebooks`, `Stage`, `Projected`, …: quantizers as frozen values
`rvq_np.codec`         `encode`, `decode`, `StreamEncoder`: the other packages use them
`rvq_np.train`         k-means, moving averages, dead-code replacement, as pure functions
`rvq_np.checkpoints`   one file per family of published models
`rvq_np.export`        codebooks and codes for other programs, one file per format
`rvq_np.frontend`      front ends: samples, an MDCT, latents of an encoder
`rvq_np.bitstream`     the file format for codes
`rvq_np.quantizer`     `ResidualVectorQuantizer`: the class, without torch
`rvq_np.semantic_ids`  unique IDs of items, tokens, a trie, files of IDs
`rvq_np.grad`          one file per autograd framework
`rvq_np.testing`       the oracle, and tests for any residual quantizer
`rvq_np.cli`           the command ``rvq-np``
`rvq_np.plot`          plots, with matplotlib
`rvq_np.sklearn`       a transformer for scikit-learn
`rvq_np.demo`          RVQ of recorded speech, from training to WAV files
=====================  =======================================================================

Importing the package loads only the standard library. Each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Codebooks": "codebooks",
    "FewVectorsWarning": "errors",
    "FrontEnd": "frontend",
    "Grouped": "codebooks",
    "Linear": "codebooks",
    "Normalized": "codebooks",
    "Parallel": "codebooks",
    "Projected": "codebooks",
    "NotInitializedWarning": "errors",
    "QuantizedResult": "quantizer",
    "ResidualVectorQuantizer": "quantizer",
    "RvqError": "errors",
    "Stage": "codebooks",
    "StreamEncoder": "codec.streaming",
    "TooFewVectorsWarning": "errors",
    "UnstableTrainingWarning": "errors",
    "decode": "codec",
    "encode": "codec",
    "warmup": "codec",
}
_MODULES = (
    "arguments",
    "arrays",
    "backends",
    "bitstream",
    "checkpoints",
    "cli",
    "codebooks",
    "codec",
    "config",
    "demo",
    "display",
    "errors",
    "export",
    "files",
    "forks",
    "frontend",
    "grad",
    "kernels",
    "names",
    "plot",
    "quantizer",
    "semantic_ids",
    "sklearn",
    "testing",
    "train",
)

_PUBLIC = tuple(  # those that users call; the others serve them
    each
    for each in _MODULES
    if each
    not in ("arguments", "arrays", "config", "display", "files", "forks", "kernels", "names")
)

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from .codebooks import Codebooks as Codebooks
    from .codebooks import Grouped as Grouped
    from .codebooks import Linear as Linear
    from .codebooks import Normalized as Normalized
    from .codebooks import Parallel as Parallel
    from .codebooks import Projected as Projected
    from .codebooks import Stage as Stage
    from .codec import decode as decode
    from .codec import encode as encode
    from .codec import warmup as warmup
    from .codec.streaming import StreamEncoder as StreamEncoder
    from .errors import FewVectorsWarning as FewVectorsWarning
    from .errors import NotInitializedWarning as NotInitializedWarning
    from .errors import RvqError as RvqError
    from .errors import TooFewVectorsWarning as TooFewVectorsWarning
    from .errors import UnstableTrainingWarning as UnstableTrainingWarning
    from .frontend import FrontEnd as FrontEnd
    from .quantizer import QuantizedResult as QuantizedResult
    from .quantizer import ResidualVectorQuantizer as ResidualVectorQuantizer


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC])
