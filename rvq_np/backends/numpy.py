"""NumPy arrays: the compiled kernels where Numba is there, plain NumPy where it is not."""

from ..kernels import host, tables


def prepare(codebooks, like):
    return host.prepare(codebooks, like.dtype)


def prepare_map(linear, like):
    return tables.map_of(linear)


def project(x, prepared, dtype):
    return host.project(x, prepared, dtype)


def encode(x, prepared, beam_size=1):
    return host.encode(x, prepared, beam_size)


def decode(codes, prepared):
    return host.decode(codes, prepared)


def tally(x, codes, prepared):
    return host.tally(x, codes, prepared)
