"""Small valid files, with everything the formats have."""

import io
import tempfile
from pathlib import Path

import numpy as np

from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage, bitstream, checkpoints


def containers():
    """Return files of codes: packed, dropped, range coded; streams, strides, chunks, appended."""
    rng = np.random.default_rng(0)
    books = rng.standard_normal((2, 9, 3)).astype(np.float32)
    uneven = np.minimum(rng.geometric(0.6, (2, 900)), 8) - 1
    cases = [
        (rng.integers(0, 9, (2, 20)), {"codebooks": books}),
        (rng.integers(-1, 5, (2, 2, 3, 8)), {"sizes": [5, 8], "frame_rate": (44100, 512)}),
        (uneven, {"sizes": [8, 8], "chunk_frames": 500}),
        (np.where(rng.random((2, 900)) < 0.2, -1, uneven), {"sizes": [8, 16]}),
        ([rng.integers(0, 9, 12 // stride) for stride in (4, 2, 1)],
         {"sizes": [9, 9, 9], "strides": [4, 2, 1], "chunk_frames": 8}),
        (np.zeros((1, 30), int), {"sizes": [1], "chunk_frames": 7}),
        (np.empty((2, 0, 5), int), {"sizes": [4, 4]}),
        (rng.integers(0, 5, (2, 11)), {"sizes": [5, 300]}),  # which end within a byte
    ]  # fmt: skip
    made = []
    for codes, arguments in cases:
        file = io.BytesIO()
        bitstream.write(file, codes, **arguments)
        made.append(file.getvalue())
        if np.size(codes[0]):
            bitstream.append(file, codes)
            made.append(file.getvalue())
    return made


def safetensors():
    """Return checkpoints: files of ours of every kind, and names of other families."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    maps = Linear(normal(2, 3), normal(2)), Linear(normal(3, 2), normal(3))
    stage = Stage(normal(4, 2), *maps, "cosine", 2)
    stack = Projected(normal(2, 4, 2), *maps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        made = []
        for quantizer in (
            Codebooks([stage, stage]), Parallel([stack, stack]), Grouped([stack, normal(1, 4, 2)]),
        ):  # fmt: skip
            checkpoints.save(path, quantizer)
            made.append(path.read_bytes())
        for family in ("encodec", "vector_quantize_pytorch"):
            checkpoints.save(path, normal(2, 4, 2), family)
            made.append(path.read_bytes())
        checkpoints.save(path, Codebooks([Stage(normal(4, 2), *maps)]), "espnet")
        return [*made, path.read_bytes()]
