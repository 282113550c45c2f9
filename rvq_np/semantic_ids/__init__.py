"""Semantic IDs: from embeddings to unique short code sequences, to tokens, and back."""

from .candidates import Candidates as Candidates
from .candidates import candidates as candidates
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
