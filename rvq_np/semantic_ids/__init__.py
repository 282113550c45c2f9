"""Semantic IDs: from embeddings to unique short code sequences, to tokens, and back.

An ID is one column of codes (Q, N): what `rvq_np.encode` returns for an item, or after `resolve`
a code sequence that no other item has.  All functions are pure functions on codes and codebooks.

=============  =================================================================================
`assign`       unique IDs from embeddings: encode, candidates, resolve in one call
`candidates`   the k best code sequences of each item, with their squared distances
`balance`      codes of a stage under a capacity per codeword; `fit_balanced` trains it
`resolve`      unique IDs: items move along their candidates, or an ID gets one more code
`stats`        how many items share IDs, and how evenly codewords are used
`pack`         IDs as integers; `unpack` turns them back
`to_tokens`    IDs as text or as tokens of a model's `Vocabulary`; `from_tokens` turns them back
`Trie`         which code may follow, which item has an ID; constrained generation
`embeddings`   a column of lists of pyarrow, polars or pandas as an array
`write`        IDs as Parquet, CSV, JSON or a torch tensor, with a manifest; `append`, `read`
=============  =================================================================================
"""

from .assign import assign as assign
from .balance import Balanced as Balanced
from .balance import balance as balance
from .balance import fit_balanced as fit_balanced
from .candidates import Candidates as Candidates
from .candidates import candidates as candidates
from .columns import embeddings as embeddings
from .files import Ids as Ids
from .files import append as append
from .files import read as read
from .files import write as write
from .measures import Statistics as Statistics
from .measures import shared_prefixes as shared_prefixes
from .measures import stats as stats
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
from .tokens import from_tokens as from_tokens
from .tokens import pack as pack
from .tokens import to_tokens as to_tokens
from .tokens import unpack as unpack
from .trie import Trie as Trie
from .vocabulary import Vocabulary as Vocabulary

__all__ = [
    "Balanced",
    "Candidates",
    "Ids",
    "Resolved",
    "Statistics",
    "Trie",
    "Vocabulary",
    "append",
    "assign",
    "balance",
    "candidates",
    "embeddings",
    "fit_balanced",
    "from_tokens",
    "pack",
    "read",
    "resolve",
    "shared_prefixes",
    "stats",
    "to_tokens",
    "unpack",
    "write",
]


def __dir__() -> list[str]:
    return sorted(__all__)
