"""Kernels for NVIDIA GPUs, in CUDA C++: text that `rvq_np.backends.cupy` has compiled.

``codewords.cu`` rounds the codewords of a stage, ``encode.cu`` searches through all stages with
them, ``beam.cu`` is a beam search's stage, ``gather.cu`` decoding and sums; ``exact.cuh`` tells two
codewords apart in whole numbers, ``device.cuh`` holds what is special to a GPU.
"""

from __future__ import annotations

import functools
import re
from importlib import resources


@functools.cache
def source(name: str) -> str:
    """Return the text of a file here with all that it includes: nothing else decides what it is.

    A compiler's cache that knows only the text of a program would not see an included file change.
    """
    seen = set()

    def inlined(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        text = resources.files(__name__).joinpath(file).read_text(encoding="utf-8")
        text = text.replace("#pragma once\n", "")
        return re.sub(r'#include "(.*)"\n', lambda found: inlined(found[1]), text)

    return inlined(name)
