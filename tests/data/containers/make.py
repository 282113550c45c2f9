"""Write the committed files again: ``python tests/data/containers/make.py``.

They were written once, by format version 1, and must be read for ever. Run this for a new version
only, into files of new names.
"""

from pathlib import Path

import numpy as np

from rvq_np import Codebooks, Stage, bitstream

HERE = Path(__file__).parent


def cases():
    """Yield name, codes and the arguments of `bitstream.write`."""
    rng = np.random.default_rng(1)
    yield "packed", rng.integers(0, 1000, (3, 50)), {"sizes": [1000, 1024, 1023]}
    dropped = rng.integers(-1, 5, (2, 2, 3, 7))
    yield "dropped", dropped, {"sizes": [5, 8], "frame_rate": (44100, 512), "chunk_frames": 4}
    uneven = np.minimum(rng.geometric(0.4, (2, 3000)), 40) - 1
    yield "coded", uneven, {"sizes": [40, 64], "frame_rate": 75}
    strided = [rng.integers(0, 9, (2, 12 // stride)) for stride in (4, 2, 1)]
    yield "strided", strided, {"sizes": [9, 9, 9], "strides": [4, 2, 1], "chunk_frames": 8}
    books = Codebooks([Stage(rng.standard_normal((16, 2)).astype(np.float32)) for _ in range(2)])
    yield "fingerprint", rng.integers(0, 16, (2, 20)), {"codebooks": books}
    yield "empty", np.empty((2, 3, 0), np.int32), {"sizes": [1, 70000]}
    yield "large", rng.integers(0, 2**31 - 1, (1, 9)), {"sizes": [2**31 - 1]}


if __name__ == "__main__":
    for name, codes, arguments in cases():
        bitstream.write(HERE / f"{name}.rvq", codes, **arguments)
        levels = codes if isinstance(codes, list) else list(codes)
        np.savez_compressed(
            HERE / f"{name}.npz",
            **{f"level_{n}": each.astype(np.int32) for n, each in enumerate(levels)},
        )
    bitstream.append(HERE / "dropped.rvq", next(c for n, c, _ in cases() if n == "dropped"))
