"""Semantic IDs: the loops of `plain.ids`, compiled by Numba."""

from ..plain import ids as plain
from .jit import kernel

take = kernel(plain.take)
descend = kernel(plain.descend)
seek = kernel(plain.seek)
allow = kernel(plain.allow)
auction = kernel(plain.auction)
