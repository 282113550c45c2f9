"""Residual vector quantization without a deep-learning framework.

A map of the modules and packages, from the ground up; imports only point down.

=====================  =======================================================================
`rvq_np.errors`        every exception raised on purpose
`rvq_np.forks`         locks that no child process inherits while they are held
`rvq_np.files`         files that are written whole or not at all, safetensors, audio
`rvq_np.arguments`     numbers, functions and paths among arguments, checked by name
`rvq_np.display`       what values show of themselves in a notebook
`rvq_np.names`         the names of arrays in a state dict
`rvq_np.kernels`       search, decoding and sums over plain arrays, on three engines
`rvq_np.arrays`        arrays of any library: the way here and the way back
`rvq_np.backends`      one file per array library: the array decides who computes
`rvq_np.config`        the arguments of a quantizer, checked; stages and bandwidth
`rvq_np.codebooks`     `Codebooks`, `Stage`, `Projected`, …: quantizers as frozen values
`rvq_np.codec`         `encode`, `decode`, `StreamEncoder`: what the rest is built on
`rvq_np.train`         k-means, moving averages, dead codewords; state in, new state out
`rvq_np.checkpoints`   one file per family of published models
`rvq_np.export`        codebooks and codes for other programs, one file per format
`rvq_np.frontend`      what vectors are made of: samples, an MDCT, latents of an encoder
`rvq_np.bitstream`     the container for codes
`rvq_np.quantizer`     `ResidualVectorQuantizer`: the class, torch-free
`rvq_np.semantic_ids`  unique IDs of items, tokens, a trie, their files
`rvq_np.grad`          one file per autograd framework
`rvq_np.testing`       the oracle, for proving any implementation right
`rvq_np.cli`           the command ``rvq-np``
`rvq_np.plot`          pictures, with matplotlib
`rvq_np.sklearn`       a transformer for scikit-learn
`rvq_np.demo`          what RVQ does to real speech
=====================  =======================================================================

Importing this loads nothing but the standard library: each name below is fetched when first used.
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
