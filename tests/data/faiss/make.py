"""Make the Faiss indexes again: ``python tests/data/faiss/make.py``, with faiss-cpu installed.

Each is written by Faiss itself, and beside it the index as `rvq_np` tells users to extract it.
"""

from pathlib import Path

import faiss
import numpy as np

HERE = Path(__file__).parent
KINDS = ("IDMap,RQ3x3", "PCA4,RQ3x3", "OPQ4,RQ3x3", "IVF4,RQ3x3", "RCQ3x3")


def extracted(index):
    """The code that rvq_np prints for users, in one function."""
    if isinstance(index, (faiss.IndexIDMap, faiss.IndexPreTransform)):
        return faiss.downcast_index(index.index)
    inner = faiss.IndexResidualQuantizer(index.d, index.rq.M, 1)
    inner.rq = index.rq
    return inner


def main():
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    for name in KINDS:
        index = faiss.index_factory(8, name)
        index.train(x)
        file = HERE / f"{name.replace(',', '-')}.faissindex"
        faiss.write_index(index, str(file))
        inner = HERE / f"{name.replace(',', '-')}-inner.faissindex"
        index = faiss.read_index(str(file))  # which must live as long as its parts are used
        faiss.write_index(extracted(index), str(inner))


if __name__ == "__main__":
    main()
