"""NumPy arrays: the compiled kernels where Numba is there, plain NumPy where it is not."""

from ..kernels import host


def prepare(codebooks, like):
    return host.prepare(codebooks, like.dtype)


def encode(x, prepared, beam_size=1):
    return host.encode(x, prepared, beam_size)


def decode(codes, prepared):
    return host.decode(codes, prepared)


def tally(x, codes, prepared):
    return host.tally(x, codes, prepared)
