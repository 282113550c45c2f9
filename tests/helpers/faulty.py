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
    """Return an encode that chooses by ``pick(residual, words)``, over rows."""

    def encode(x, books):
        residual, codes = x.astype(rounding), []
        for words in books:
            codes.append(pick(residual, words))
            residual = (residual - words[codes[-1]]).astype(rounding)
        return np.array(codes, np.int32).reshape(len(books), len(x))

    return encode


def scores(residual, words, dtype):
    words, residual = words.astype(dtype), residual.astype(dtype)
    with np.errstate(all="ignore"):
        return (words * words).sum(axis=1) / 2 - residual @ words.T


def pick_exactly(residual, words):
    return [oracle.nearest(list(map(oracle.Fraction, row)), words) for row in residual.tolist()]


def pick_last_on_a_tie(residual, words):
    found = scores(residual, words, np.float64)
    return found.shape[1] - 1 - found[:, ::-1].argmin(axis=1)


def pick_with_a_clamp(residual, words):
    """Distances below 1e-4 count as equal."""
    apart = np.square(residual[:, None].astype(np.float64) - words).sum(axis=2)
    return np.maximum(apart, 1e-8).argmin(axis=1)


def pick_around_the_mean(residual, words):
    """Fewer digits are lost, but a vector's codes depend on the others."""
    mean = residual.mean(axis=0)
    with np.errstate(all="ignore"):
        words = (words - mean).astype(np.float16)
        apart = np.square((residual - mean)[:, None] - words).sum(axis=2)
    return apart.argmin(axis=1)


def encode_without_the_last_level(x, books):
    codes = rvq_np.encode(x, books).copy()
    codes[-1] = 0
    return codes


def encode_all_levels_always(x, books):
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


def decode_without_the_last_level(codes, books):
    return rvq_np.decode(codes[:-1], books) if len(codes) > 1 else rvq_np.decode(codes, books)


def decode_backwards(codes, books):
    named = [words[code] for words, code in zip(books, codes, strict=False)]
    return sum(named[::-1], np.zeros_like(named[0]))


def decode_filled_with_zeros(codes, books):
    whole = np.zeros((len(books), codes.shape[1]), codes.dtype)
    whole[: len(codes)] = codes
    return rvq_np.decode(whole, books)


def decode_unit_words(codes, books):
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
    "no last level": encode_without_the_last_level,
    "levels ignored": encode_all_levels_always,
    "looks ahead": encode_looking_ahead,
    "in place": encode_in_place,
    "a code for no vectors": encode_nothing_in_one_row,
    "float codes": lambda x, books: rvq_np.encode(x, books).astype(np.float32),
}
DECODERS = {
    "no last level": decode_without_the_last_level,
    "another order": decode_backwards,
    "zeros for missing levels": decode_filled_with_zeros,
    "words made unit length": decode_unit_words,
}

# gradients -----------------------------------------------------------------------------------


def gradients(
    *, times=None, detach=True, codebook=0.0, straight=True, decoded=True, levels=None, mean=True,
    root=False,
):  # fmt: skip
    """Return a value_and_gradients, by hand; each argument is the switch of a fault."""

    def value_and_gradients(x, books, weight, cotangent):
        codes = rvq_np.encode(x.astype(np.float32), books.astype(np.float32))
        quantized = np.zeros_like(x)
        losses, gradient = [], (1.0 if straight else 0.0) * cotangent.astype(np.float64)
        if times == "levels":
            gradient *= len(books)
        for level, (words, code) in enumerate(zip(books, codes, strict=True)):
            left = x.astype(np.float64) - quantized - words[code]
            quantized = quantized + words[code]
            losses.append(np.square(left).mean())
            share = 2 * left / left.size
            if root:
                with np.errstate(all="ignore"):
                    share = share * np.sqrt(losses[-1]) / np.sqrt(np.square(left).mean())
            reached = (detach or level == 0) and (levels is None or level < levels)
            gradient = gradient + weight * share / (len(books) if mean else 1) * reached
            gradient = gradient + codebook * weight * share / len(books)
        if not decoded:
            quantized = x + (quantized - x)
        total = np.mean(losses) if mean else np.sum(losses)
        return quantized, codes, weight * total, gradient

    return value_and_gradients


GRADIENTS = {
    "times the levels": gradients(times="levels"),
    "residual not detached": gradients(detach=False),
    "codebook loss to the encoder": gradients(codebook=-1.0),
    "straight-through forgotten": gradients(straight=False),
    "x + (words - x)": gradients(decoded=False),
    "two levels at most": gradients(levels=2),
    "a sum for the mean": gradients(mean=False),
    "a square root": gradients(root=True),
}

# containers ----------------------------------------------------------------------------------


class Damaged(ValueError):
    """What `read` declares to raise, where a fault is that it raises something else."""


def container(
    *, check=True, bits=None, zero=False, all_levels=False, frames=False, stamp=False, mode="wb",
    errors=ValueError,
):  # fmt: skip
    """Return write and read; each argument is the switch of a fault."""

    def write(path, codes, *, sizes):
        for level, size in zip(codes, sizes, strict=True):
            if bits is None and level.size and (level.min() < -1 or level.max() >= size):
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
        return SimpleNamespace(codes=codes if all_levels else codes[:n_q], sizes=sizes)

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
    "all levels always": container(all_levels=True),
    "as many frames as there are": container(check=False, frames=True),
    "the time of day": container(stamp=True),
    "appends": container(mode="ab"),
    "another exception": container(check=False, errors=ZeroDivisionError),
    "a pickle": {"write": write_pickle, "read": read_pickle},
}
