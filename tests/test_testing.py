"""The shipped kit: our own code passes it."""

import json
import warnings
import zlib
from types import SimpleNamespace

import numpy as np

import rvq_np
from rvq_np import grad
from rvq_np.testing import backend_tests, container_tests, gradient_tests, training_tests

RATE = 50
TYPES = ("float16", "float32", "float64")

TestNumPyArrays = backend_tests(
    put=np.array, get=np.asarray, dtypes=("float16", "float32", "float64")
)


def quantizer_of(codebooks, **options):
    """Return a quantizer that holds these words and will not replace them."""
    n_q, bins, dim = codebooks.shape
    rvq = rvq_np.ResidualVectorQuantizer(
        dim, dim, n_q, bins, threshold_ema_dead_code=0, rng=0, **options
    )
    state = rvq.state_dict()
    for level, words in enumerate(codebooks):
        name = f"vq.layers.{level}._codebook."
        state[name + "embed"] = state[name + "embed_avg"] = words
        state[name + "inited"] = np.ones(1, np.float32)
    rvq.load_state_dict(state)
    return rvq


def value_and_gradients(x, codebooks, weight, cotangent):
    rvq = quantizer_of(codebooks, commitment_weight=weight)
    result, vjp = grad.quantize_vjp(x, rvq, RATE)
    return result.quantized, result.codes, result.penalty, vjp(cotangent, penalty=1.0).x


def codebook_loss_gradient(x, codebooks):
    _, vjp = grad.quantize_vjp(x, quantizer_of(codebooks), RATE)
    return vjp(quantization_loss=1.0).x


TestGradients = gradient_tests(
    value_and_gradients=value_and_gradients, codebook_loss_gradient=codebook_loss_gradient
)
TestGradientsFloat64 = gradient_tests(
    value_and_gradients=value_and_gradients,
    codebook_loss_gradient=codebook_loss_gradient,
    dtype=np.float64,
)


class Ours:
    """`ResidualVectorQuantizer` as the kit trains it, by public names only."""

    def __init__(self):
        self.rvq = self.fresh()

    def fresh(self, seed=0):
        return rvq_np.ResidualVectorQuantizer(3, 3, 2, 8, decay=0.5, kmeans_iters=10, rng=seed)

    def train(self, x, mask, seed):
        rvq = self.fresh(seed)
        rvq.load_state_dict(self.rvq.state_dict())
        rvq(x, RATE, mask=mask)
        self.rvq = rvq

    def eval(self, x):
        self.rvq.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rvq_np.NotInitializedWarning)
            return self.rvq(x, RATE).codes

    def words(self):
        return np.stack([stage.words for stage in self.rvq.codebooks])

    def counts(self):
        state = self.rvq.state_dict()
        return np.stack([state[f"vq.layers.{q}._codebook.cluster_size"] for q in range(2)])

    def save(self):
        return self.rvq.state_dict()

    def load(self, saved):
        self.rvq = self.fresh()
        self.rvq.load_state_dict(saved)


TestTraining = training_tests(make=Ours, dimension=3)


class Damaged(ValueError):
    pass


def write(path, codes, *, sizes):
    """The smallest container that keeps the promises: JSON, numbers, and a CRC32 of both."""
    for level, size in zip(codes, sizes, strict=True):
        if level.size and (level.min() < -1 or level.max() >= size):
            raise IndexError(f"write: codes outside -1 to {size - 1}")
    head = json.dumps({"shape": codes.shape, "sizes": sizes}).encode()
    body = len(head).to_bytes(4, "little") + head + codes.astype("<i4").tobytes()
    path.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))


def read(path, n_q=None):
    content = path.read_bytes()
    body, crc = content[:-4], content[-4:]
    if len(content) < 8 or zlib.crc32(body) != int.from_bytes(crc, "little"):
        raise Damaged("read: the checksum differs")
    length = int.from_bytes(body[:4], "little")
    try:
        head = json.loads(body[4 : 4 + length])
        codes = np.frombuffer(body[4 + length :], "<i4").reshape(head["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"read: {error}") from error
    return SimpleNamespace(codes=codes[:n_q], sizes=head["sizes"][:n_q])


TestContainer = container_tests(write=write, read=read, error=Damaged)
