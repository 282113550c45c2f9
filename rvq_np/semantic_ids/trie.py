"""The IDs of a catalogue as a trie in arrays: which code may follow, which items have an ID."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..errors import CodeRangeError, InputFileError, LevelsError, ShapeError
from ..files import safetensors
from ..kernels import dispatch
from . import _codes, generate
from .vocabulary import Vocabulary

ARRAYS = ("_codes", "_first", "_items", "_begins", "_leaf_of")


class Trie:
    """The IDs of items as a trie: codes that may follow a prefix, items of an ID, ID of an item.

    Parameters
    ----------
    codes : array (Q, N), integer
        IDs, one column per item. Several items may have the same ID.
    sizes : sequence of Q int, optional
        Codewords per stage; by default one more than the largest code of each stage.

    Attributes
    ----------
    sizes : tuple of int
    n_items, n_ids : int
    nbytes : int
        Bytes of all arrays.

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError, LevelsError, ParameterError
        If codes are not (Q, N) integers from 0 and below the sizes, or there are no items.

    Notes
    -----
    Built by a radix sort: time and memory are linear in the items. With three stages of 256
    codewords, 10 million items take 9 bytes per item.

    Examples
    --------
    >>> import numpy as np
    >>> trie = Trie(np.array([[0, 0, 2], [1, 3, 3]]))
    >>> trie.next(()), trie.next((0,)), trie.next((1,))
    (array([0, 2], dtype=uint8), array([1, 3], dtype=uint8), array([], dtype=uint8))
    >>> trie.mask([[0], [2]])
    array([[False,  True, False,  True],
           [False, False, False,  True]])
    >>> trie.items((2, 3)), trie.id_of(1)
    (array([2], dtype=int32), (0, 3))
    """

    sizes: tuple[int, ...]
    n_items: int
    n_ids: int
    _starts: tuple[int, ...]  # the first node of each depth, and the number of nodes
    _codes: np.ndarray  # (V,) the code of each node, depth by depth, in the order of the IDs
    _first: np.ndarray  # (V' + 1,) the first child of each node above the last depth
    _items: np.ndarray  # (N,) items in the order of their IDs
    _begins: np.ndarray  # (n_ids + 1,) where the items of an ID begin; empty: each has one
    _leaf_of: np.ndarray  # (N,) which ID an item has

    def __init__(self, codes: Any, sizes: Sequence[int] | None = None):
        found = _codes.checked("Trie", codes)
        if found.shape[1] == 0:
            raise ShapeError("Trie: got no items; expected at least one.")
        if sizes is None:
            sizes = [int(row.max()) + 1 for row in found]
        self.sizes = _codes.sizes_of("Trie", sizes, found)
        self.n_items = found.shape[1]
        ordered = _codes.order(found)
        index = np.int32 if self.n_items * len(found) < 1 << 31 else np.int64
        kind = np.min_scalar_type(max(self.sizes) - 1)
        nodes, first, total = [], [], 0
        place = None  # of each item, in order: its node at the depth above
        for row, new in zip(found, _codes.beginnings(found, ordered), strict=True):
            here = np.flatnonzero(new)
            if place is not None:
                above = place[here]  # the nodes above, in order, each as often as it has children
                begins = np.flatnonzero(np.diff(above, prepend=-1))
                first.append((begins + total).astype(index))
            nodes.append(row[ordered[here]].astype(kind))
            total += len(here)
            place = (np.cumsum(new) - 1).astype(index)
        assert place is not None
        self._starts = (0, *np.cumsum([len(each) for each in nodes]).tolist())
        self._codes = np.concatenate(nodes)
        self._first = np.concatenate([*first, np.array([total], index)])
        self.n_ids = len(nodes[-1])
        self._items = ordered.astype(index)
        shared = self.n_ids < self.n_items
        starts = np.append(np.flatnonzero(new), self.n_items)
        self._begins = (starts if shared else starts[:0]).astype(index)
        self._leaf_of = np.empty(self.n_items, index)
        self._leaf_of[ordered] = place

    def __repr__(self) -> str:
        return f"Trie({self.n_items} items, {self.n_ids} IDs, sizes {self.sizes})"

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in ARRAYS)

    def next(self, prefix: Sequence[int]) -> np.ndarray:
        """Return the codes that may follow a prefix of fewer than Q codes, ascending.

        Parameters
        ----------
        prefix : sequence of int

        Returns
        -------
        codes : numpy.ndarray (n,), unsigned
            A view; it is empty if no ID begins with the prefix.

        Raises
        ------
        LevelsError
            If the prefix has Q codes or more.

        Examples
        --------
        >>> import numpy as np
        >>> Trie(np.array([[0, 0, 2], [1, 3, 3]])).next([0])
        array([1, 3], dtype=uint8)
        """
        if len(prefix) >= len(self.sizes):
            raise LevelsError(
                f"Trie.next: the prefix has {len(prefix)} codes; expected 0 to "
                f"{len(self.sizes) - 1}."
            )
        low, high = self._children(self._node(prefix))
        return self._codes[low:high]

    def mask(self, prefixes: Any) -> np.ndarray:
        """Return which codes may follow each of some prefixes of equal length.

        Parameters
        ----------
        prefixes : array (n, t), integer, ``t < Q``
            Codes, one row per prefix; no ID has a prefix with -1 or another number that is not a
            code.

        Returns
        -------
        mask : numpy.ndarray (n, sizes[t]), bool
            All False in the row of a prefix that no ID has.

        Raises
        ------
        ShapeError, LevelsError
            If prefixes are not integers (n, t), or t is not below Q.
        """
        given = np.asarray(prefixes)
        given = given.astype(np.int64) if given.size == 0 else given
        if given.ndim != 2 or given.dtype.kind not in "iu":
            raise ShapeError(
                f"Trie.mask: prefixes are {given.dtype} of shape {given.shape}; expected integers "
                "(n, t)."
            )
        depth = given.shape[1]
        if depth >= len(self.sizes):
            raise LevelsError(
                f"Trie.mask: prefixes have {depth} codes; expected 0 to {len(self.sizes) - 1}."
            )
        mask = np.zeros((len(given), self.sizes[depth]), bool)
        if depth == 0:
            mask[:, self._codes[: self._starts[1]]] = True
            return mask
        nodes = self._nodes(given)
        dispatch.ids(len(given)).allow(self._codes, self._first, nodes, mask)
        return mask

    def _nodes(self, prefixes: np.ndarray) -> np.ndarray:
        """Return the node (n,) of each prefix (n, t), ``t > 0``, -1 where there is none."""
        nodes = np.empty(len(prefixes), np.int64)
        given = np.ascontiguousarray(prefixes, np.int64)
        using = dispatch.ids(8 * given.size)
        using.descend(self._codes, self._first, self._starts[1], given, nodes)
        return nodes

    def _node(self, prefix: Sequence[int]) -> int:
        """Return the node of a prefix; -1 of none, -2 of the empty one."""
        node, codes, kind = -2, self._codes, self._codes.dtype.type
        low, high = 0, self._starts[1]
        for size, code in zip(self.sizes, prefix, strict=False):
            if not 0 <= code < size:
                return -1
            if node != -2:
                low, high = int(self._first[node]), int(self._first[node + 1])
            node = low + int(codes[low:high].searchsorted(kind(code)))
            if node == high or codes[node] != code:
                return -1
        return node

    def _children(self, node: int) -> tuple[int, int]:
        if node == -2:
            return 0, self._starts[1]
        return (int(self._first[node]), int(self._first[node + 1])) if node >= 0 else (0, 0)

    def items(self, codes: Sequence[int]) -> np.ndarray:
        """Return the items that have an ID, ascending; empty if there are none.

        Raises
        ------
        LevelsError
            If `codes` are not Q codes.
        """
        if len(codes) != len(self.sizes):
            raise LevelsError(
                f"Trie.items: got {len(codes)} codes; expected {len(self.sizes)}, a whole ID."
            )
        node = self._node(codes)
        if node < 0:
            return self._items[:0]
        leaf = node - self._starts[-2]
        if not len(self._begins):
            return self._items[leaf : leaf + 1]
        return self._items[int(self._begins[leaf]) : int(self._begins[leaf + 1])]

    def find(self, codes: Any) -> np.ndarray:
        """Return the first item of each of many IDs, -1 where no item has it.

        Parameters
        ----------
        codes : array (Q, n), integer

        Returns
        -------
        items : numpy.ndarray (n,), int64
        """
        found = _codes.checked("Trie.find", codes, dropped=True)
        if len(found) != len(self.sizes):
            raise LevelsError(
                f"Trie.find: got {len(found)} rows of codes; expected {len(self.sizes)}."
            )
        nodes = self._nodes(found.T)
        leaves = np.maximum(nodes - self._starts[-2], 0)
        first = self._begins[leaves] if len(self._begins) else leaves
        return np.where(nodes >= 0, self._items[first], -1).astype(np.int64)

    def id_of(self, item: int) -> tuple[int, ...]:
        """Return the ID of an item.

        Raises
        ------
        CodeRangeError
            If there is no item with this number.
        """
        number = arguments.integer("Trie.id_of", "item", item)
        if not 0 <= number < self.n_items:
            raise CodeRangeError(f"Trie.id_of: item is {number}; expected 0 to {self.n_items - 1}.")
        return tuple(self.ids_of([number])[:, 0].tolist())

    def ids_of(self, items: Any) -> np.ndarray:
        """Return the IDs (Q, n), int32, of some items (n,)."""
        numbers = np.asarray(items)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ShapeError(
                f"Trie.ids_of: items are {numbers.dtype} of shape {numbers.shape}; expected "
                "integers (n,)."
            )
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.n_items):
            raise CodeRangeError(
                f"Trie.ids_of: items reach from {numbers.min()} to {numbers.max()}; expected 0 to "
                f"{self.n_items - 1}."
            )
        codes = np.empty((len(self.sizes), len(numbers)), np.int32)
        nodes = self._starts[-2] + self._leaf_of[numbers.astype(np.int64)].astype(np.int64)
        for depth in range(len(self.sizes) - 1, -1, -1):
            codes[depth] = self._codes[nodes]
            if depth:
                above = self._first[self._starts[depth - 1] : self._starts[depth]]
                nodes = self._starts[depth - 1] + np.searchsorted(
                    above, nodes.astype(above.dtype), side="right"
                ) - 1  # fmt: skip
        return codes

    def prefix_allowed_tokens_fn(
        self, vocabulary: Vocabulary, prompt: int | None = None, *, end: int | None = None
    ) -> generate.AllowedTokens:
        """Return a function for the argument of the same name of transformers' ``generate``.

        Parameters
        ----------
        vocabulary : Vocabulary
            A vocabulary with the same sizes.
        prompt : int, optional
            Number of tokens before an ID: 1 for an encoder-decoder model, which starts with one
            token. By default an ID begins after the last ``vocabulary.begin``.
        end : int, optional
            The token that follows a whole ID, usually the one that ends a sequence; by default
            ``vocabulary.end``.

        Returns
        -------
        allowed : callable
            ``allowed(batch, tokens)`` is the list of tokens that may follow.

        Raises
        ------
        ParameterError
            If the vocabulary has other sizes, or there is neither `prompt` nor ``begin``, or no
            `end`.
        """
        return generate.AllowedTokens(self, vocabulary, prompt, end)

    def logits_processor(
        self, vocabulary: Vocabulary, prompt: int | None = None, *, end: int | None = None
    ) -> generate.OnlyIds:
        """Return a logits processor for torch: minus infinity for tokens that lead to no ID.

        As `prefix_allowed_tokens_fn`, for a whole batch at once.
        """
        return generate.OnlyIds(self, vocabulary, prompt, end)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trie to a safetensors file, atomically."""
        path = arguments.path("Trie.save", "path", path)
        about = {"sizes": self.sizes, "starts": self._starts, "n_items": self.n_items}
        contents = {name: getattr(self, name) for name in ARRAYS}
        safetensors.write(path, contents, {safetensors.KEY: safetensors.description(trie=about)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mapped: bool = True) -> Trie:
        """Read what `save` wrote; `mapped`: items stay in the file until they are read.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        InputFileError
            If it is not a file of `save`, truncated, damaged, or of a later version.
        """
        path = arguments.path("Trie.load", "path", path)
        made = cls.__new__(cls)
        try:
            entries, metadata = safetensors.read_header(Path(path))
            known = json.loads(metadata.get(safetensors.KEY, "{}"))
            if "trie" not in known:
                raise ValueError("it holds no trie")
            if known["version"] != safetensors.VERSION:
                raise ValueError(
                    f"it has version {known['version']!r}; this release reads {safetensors.VERSION}"
                )
            if max(entry.stop for entry in entries.values()) != os.path.getsize(path):
                raise ValueError("its bytes do not end with its arrays")
            about = known["trie"]
            made.sizes = _codes.sizes_of("Trie.load", about["sizes"])
            made._starts = tuple(int(each) for each in about["starts"])
            made.n_items = int(about["n_items"])
            for name in ARRAYS:
                entry = entries[name]
                setattr(made, name, entry.mapped() if mapped else entry.read())
            made.n_ids = made._starts[-1] - made._starts[-2]
            made._check()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            what = str(error).removeprefix("load: ")
            raise InputFileError(
                f"Trie.load: {str(path)!r} is not a complete file of Trie.save ({what}). Write it "
                "again."
            ) from error
        return made

    def _check(self) -> None:
        """Raise ValueError unless the arrays are as the kernels, which check nothing, need them."""
        starts, first, shared = self._starts, self._first, self.n_ids < self.n_items
        lengths = [starts[-1], starts[-2] + 1, self.n_items, self.n_ids + 1 if shared else 0,
                   self.n_items]  # fmt: skip
        if len(starts) != len(self.sizes) + 1 or starts[0] != 0 or self.n_ids < 1:
            raise ValueError("its depths are not those of its sizes")
        arrays = [getattr(self, each) for each in ARRAYS]
        if any(each.ndim != 1 or each.dtype.kind not in "iu" for each in arrays):
            raise ValueError("its arrays are not of whole numbers")
        if [len(each) for each in arrays] != lengths:
            raise ValueError("its arrays have other lengths than its header says")
        for low, high, size in zip(starts[:-1], starts[1:], self.sizes, strict=True):
            if low >= high or self._codes[low:high].max() >= size:
                raise ValueError("its codes are not of its sizes")
        begins = np.asarray(first, np.int64)
        apart = np.diff(begins)
        if (apart < 1).any() or begins[-1] != starts[-1] or begins[0] != starts[1]:
            raise ValueError("its nodes have no children in order")
