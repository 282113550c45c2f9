"""Small implementations with one fault each, for tests that the kit notices it."""

import json
import pickle
import time
import zlib
from types import SimpleNamespace

import numpy as np

import rvq_np
from rvq_np.testing import oracle

# encode and decode ---------------------------------------------------------------------------


def greedy(pick, rounding=np.float32):
    """Return an encode that chooses by ``pick(residual, codewords)``, over rows."""

    def encode(x, books):
        residual, codes = x.astype(rounding), []
        for codewords in books:
            codes.append(pick(residual, codewords))
            residual = (residual - codewords[codes[-1]]).astype(rounding)
        return np.array(codes, np.int32).reshape(len(books), len(x))

    return encode


def scores(residual, codewords, dtype):
    codewords, residual = codewords.astype(dtype), residual.astype(dtype)
    with np.errstate(all="ignore"):
        return (codewords * codewords).sum(axis=1) / 2 - residual @ codewords.T


def pick_exactly(residual, codewords):
    return [oracle.nearest(list(map(oracle.Fraction, row)), codewords) for row in residual.tolist()]


def pick_last_on_a_tie(residual, codewords):
    found = scores(residual, codewords, np.float64)
    return found.shape[1] - 1 - found[:, ::-1].argmin(axis=1)


def pick_with_a_clamp(residual, codewords):
    """Distances below 1e-4 count as equal."""
    apart = np.square(residual[:, None].astype(np.float64) - codewords).sum(axis=2)
    return np.maximum(apart, 1e-8).argmin(axis=1)


def pick_around_the_mean(residual, codewords):
    """Fewer digits are lost, but a vector's codes depend on the others."""
    mean = residual.mean(axis=0)
    with np.errstate(all="ignore"):
        codewords = (codewords - mean).astype(np.float16)
        apart = np.square((residual - mean)[:, None] - codewords).sum(axis=2)
    return apart.argmin(axis=1)


def encode_without_the_last_stage(x, books):
    codes = rvq_np.encode(x, books).copy()
    codes[-1] = 0
    return codes


def encode_all_stages_always(x, books):
    codes = rvq_np.encode(x, books)
    return codes if len(books) % 2 else codes[:1]


def encode_looking_ahead(x, books):
    return rvq_np.encode(x, books, beam_size=2) if len(x) else rvq_np.encode(x, books)


def encode_in_place(x, books):
    codes = rvq_np.encode(x, books)
    x -= rvq_np.decode(codes, books)
    return codes


def encode_nothing_in_one_row(x, books):
    return rvq_np.encode(x, books) if len(x) else np.zeros((len(books), 1), np.int32)


def decode_without_the_last_stage(codes, books):
    return rvq_np.decode(codes[:-1], books) if len(codes) > 1 else rvq_np.decode(codes, books)


def decode_backwards(codes, books):
    named = [codewords[code] for codewords, code in zip(books, codes, strict=False)]
    return sum(named[::-1], np.zeros_like(named[0]))


def decode_filled_with_zeros(codes, books):
    whole = np.zeros((len(books), codes.shape[1]), codes.dtype)
    whole[: len(codes)] = codes
    return rvq_np.decode(whole, books)


def decode_unit_codewords(codes, books):
    lengths = np.maximum(np.linalg.norm(books, axis=2, keepdims=True), 1)
    return rvq_np.decode(codes, (books / lengths).astype(books.dtype))


ENCODERS = {
    "last on a tie": greedy(pick_last_on_a_tie),
    "float32 sums": greedy(lambda r, w: scores(r, w, np.float32).argmin(axis=1)),
    "float64 sums, not settled": greedy(lambda r, w: scores(r, w, np.float64).argmin(axis=1)),
    "a clamp at 1e-4": greedy(pick_with_a_clamp),
    "half precision": greedy(lambda r, w: scores(r, w, np.float16).argmin(axis=1)),
    "residual not rounded": greedy(pick_exactly, np.float64),
    "depends on the batch": greedy(pick_around_the_mean),
    "no last stage": encode_without_the_last_stage,
    "stages ignored": encode_all_stages_always,
    "looks ahead": encode_looking_ahead,
    "in place": encode_in_place,
    "a code for no vectors": encode_nothing_in_one_row,
    "float codes": lambda x, books: rvq_np.encode(x, books).astype(np.float32),
}
DECODERS = {
    "no last stage": decode_without_the_last_stage,
    "another order": decode_backwards,
    "zeros for missing stages": decode_filled_with_zeros,
    "codewords made unit length": decode_unit_codewords,
}

# gradients -----------------------------------------------------------------------------------


def gradients(
    *, times=None, detach=True, codebook=0.0, straight=True, decoded=True, stages=None, mean=True,
    root=False,
):  # fmt: skip
    """Return a value_and_gradients, by hand; each argument is the switch of a fault."""

    def value_and_gradients(x, books, weight, cotangent):
        codes = rvq_np.encode(x.astype(np.float32), books.astype(np.float32))
        quantized = np.zeros_like(x)
        losses, gradient = [], (1.0 if straight else 0.0) * cotangent.astype(np.float64)
        if times == "stages":
            gradient *= len(books)
        for stage, (codewords, code) in enumerate(zip(books, codes, strict=True)):
            left = x.astype(np.float64) - quantized - codewords[code]
            quantized = quantized + codewords[code]
            losses.append(np.square(left).mean())
            share = 2 * left / left.size
            if root:
                with np.errstate(all="ignore"):
                    share = share * np.sqrt(losses[-1]) / np.sqrt(np.square(left).mean())
            reached = (detach or stage == 0) and (stages is None or stage < stages)
            gradient = gradient + weight * share / (len(books) if mean else 1) * reached
            gradient = gradient + codebook * weight * share / len(books)
        if not decoded:
            quantized = x + (quantized - x)
        total = np.mean(losses) if mean else np.sum(losses)
        return quantized, codes, weight * total, gradient

    return value_and_gradients


GRADIENTS = {
    "times the stages": gradients(times="stages"),
    "residual not detached": gradients(detach=False),
    "codebook loss to the encoder": gradients(codebook=-1.0),
    "straight-through forgotten": gradients(straight=False),
    "x + (codewords - x)": gradients(decoded=False),
    "two stages at most": gradients(stages=2),
    "a sum for the mean": gradients(mean=False),
    "a square root": gradients(root=True),
}

# containers ----------------------------------------------------------------------------------


class Damaged(ValueError):
    """What `read` declares to raise, where a fault is that it raises something else."""


def container(
    *, check=True, bits=None, zero=False, all_stages=False, frames=False, stamp=False, mode="wb",
    errors=ValueError,
):  # fmt: skip
    """Return write and read; each argument is the switch of a fault."""

    def write(path, codes, *, sizes):
        for stage, size in zip(codes, sizes, strict=True):
            if bits is None and stage.size and (stage.min() < -1 or stage.max() >= size):
                raise IndexError(f"write: codes outside -1 to {size - 1}")
        if bits is not None:
            codes = np.where(codes < 0, codes, codes & (2**bits - 1))
        if zero:
            codes = np.maximum(codes, 0)
        head = {"shape": codes.shape, "sizes": sizes}
        head = json.dumps(head | ({"time": time.perf_counter_ns()} if stamp else {})).encode()
        body = len(head).to_bytes(4, "little") + head + codes.astype("<i4").tobytes()
        with path.open(mode) as file:
            file.write(body + zlib.crc32(body).to_bytes(4, "little"))

    def read(path, n_q=None):
        content = path.read_bytes()
        body, crc = content[:-4], content[-4:]
        same = zlib.crc32(body) == int.from_bytes(crc, "little")
        if check and (len(content) < 8 or not same):
            raise ValueError("read: the checksum differs")
        length = int.from_bytes(body[:4], "little")
        try:
            head = json.loads(body[4 : 4 + length])
            shape, sizes, data = head["shape"], head["sizes"][:n_q], body[4 + length :]
            if frames and len(shape) == 2:  # as many as there are
                numbers = np.frombuffer(
                    content[4 + length :], "<i4", len(content[4 + length :]) // 4
                )
                shape = [shape[0], min(shape[1], len(numbers) // max(1, shape[0]))]
                codes = numbers[: shape[0] * shape[1]].reshape(shape)
            else:
                codes = np.frombuffer(data, "<i4").reshape(shape)
        except (errors, KeyError, TypeError) as error:
            raise ValueError(f"read: {error}") from error
        return SimpleNamespace(codes=codes if all_stages else codes[:n_q], sizes=sizes)

    return {"write": write, "read": read}


def write_pickle(path, codes, *, sizes):
    path.write_bytes(pickle.dumps((codes, sizes)))


def read_pickle(path, n_q=None):
    codes, sizes = pickle.loads(path.read_bytes())
    return SimpleNamespace(codes=codes[:n_q], sizes=sizes[:n_q])


CONTAINERS = {
    "no checksum": container(check=False),
    "ten bits a code": container(bits=10),
    "zero for dropped": container(zero=True),
    "all stages always": container(all_stages=True),
    "as many frames as there are": container(check=False, frames=True),
    "the time of day": container(stamp=True),
    "appends": container(mode="ab"),
    "another exception": container(check=False, errors=ZeroDivisionError),
    "a pickle": {"write": write_pickle, "read": read_pickle},
}
