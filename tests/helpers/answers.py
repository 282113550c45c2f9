"""What one machine computes, to be compared with another: `python tests/helpers/answers.py`.

Prints JSON: what computes (`engine`), which compilers have been imported, and a SHA-256 of each
answer, by name.  Needs nothing but rvq_np and what it needs to run, and no pytest, so that any
machine and installation can be asked.  Those whose name begins with "projected" are defined up to
rounding only: compiled kernels agree on them, and NumPy's matrix product need not.
"""

import hashlib
import io
import json
import os
import platform
import sys

import numpy as np

import rvq_np
from rvq_np import bitstream
from rvq_np.kernels import dispatch, prebuilt


def answers():
    """Yield names and arrays or bytes: codes, vectors, sums, states of training, containers."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for dim, size in ((9, 40), (32, 256), (128, 300)):
            x = rng.standard_normal((200, dim)).astype(dtype)
            books = rng.standard_normal((3, size, dim)).astype(dtype)
            x[1], x[2] = (books[0, 0] + books[0, 1]) / 2, 0  # a tie, and zero
            x[3:20] += 1000
            books[1, 5:9] = books[1, 4]  # equal codewords, and nearly equal ones
            books[1, 20:30] = books[1, 19] + rng.standard_normal((10, dim)) * 1e-6
            books = rvq_np.Codebooks(list(books))
            name = f"{np.dtype(dtype)} {dim} {size}"
            codes = rvq_np.encode(x, books)
            yield f"{name} codes", codes
            yield f"{name} beam", rvq_np.encode(x[:50], books, beam_size=4)
            yield f"{name} vectors", rvq_np.decode(codes, books)
            yield from _sums(name, x, codes, books)
            for compress in (False, True):
                file = io.BytesIO()
                bitstream.write(file, codes, sizes=[size] * 3, compress=compress)
                yield f"{name} container, {compress=}", file.getvalue()
                file.seek(0)
                yield f"{name} container read, {compress=}", bitstream.read(file).codes
        x = rng.standard_normal((300, 9)).astype(dtype)
        for width, kind in ((9, ""), (4, "projected, "), (20, "projected, ")):
            kind = f"{kind}{np.dtype(dtype)} {width}"
            rvq = rvq_np.ResidualVectorQuantizer(9, codebook_dim=width, n_q=2, bins=16, rng=0)
            rvq(x, 50), rvq(x, 50)
            yield f"{kind} trained", _whole(rvq.state_dict())
            rvq = rvq_np.ResidualVectorQuantizer(9, codebook_dim=width, n_q=2, bins=16, rng=0)
            rvq.fit(x).eval()
            yield f"{kind} fitted", _whole(rvq.state_dict())
            yield f"{kind} codes", rvq.encode(x, 50)


def _sums(name, x, codes, books):
    for what, each in zip(("counts", "sums"), rvq_np.codec.tally(x, codes, books), strict=True):
        yield f"{name} {what}", np.concatenate([np.ravel(one) for one in each])


def _whole(state):
    return b"".join(np.asarray(each).tobytes() for each in state.values())


def engine():
    """Return what computes."""
    library = prebuilt.library()
    if library is not None:
        return f"library for {library.target}"
    return "NumPy" if dispatch.load().__name__.endswith("plain.engine") else "Numba"


def digest(answer):
    """Return the SHA-256 of an array, with its type and shape, or of bytes."""
    if isinstance(answer, bytes):
        return hashlib.sha256(answer).hexdigest()
    kind = f"{answer.dtype.str} {answer.shape} ".encode()
    return hashlib.sha256(kind + np.ascontiguousarray(answer).tobytes()).hexdigest()


if __name__ == "__main__":
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rvq_np": os.path.dirname(rvq_np.__file__),
        "engine": engine(),
        "answers": {name: digest(each) for name, each in answers()},
    }
    found["compiler"] = sorted({"numba", "llvmlite"} & set(sys.modules))
    print(json.dumps(found, indent=1))
