"""Faults of semantic IDs."""

from ._fault import Fault

RESOLVE = "tests/test_ids_resolve.py"
FAULTS = (
    Fault(
        "unique IDs: of an ID that is too full, those that lose least stay",
        "_split",
        "weight[own] = -_losses(",
        "weight[own] = _losses(",
        f"{RESOLVE}::test_the_items_that_would_lose_most_stay",
    ),
    Fault(
        "unique IDs: published IDs take no place",
        "_relocated",
        "_codes.keys(codes[:, staying], flat[:, usable], prior)",
        "_codes.keys(codes[:, staying], flat[:, usable], prior[:, :0])",
        f"{RESOLVE}::test_who_moves_where_is_as_defined",
    ),
    Fault(
        "unique IDs: items take their candidates in their own order",
        "_relocated",
        'np.argsort(costs, kind="stable")',
        "np.arange(len(costs))",
        f"{RESOLVE}::test_the_cheapest_move_is_the_first",
    ),
    Fault(
        "unique IDs: a new suffix repeats the largest published one",
        "_numbered",
        "np.maximum.reduceat(held[ordered], begin) + 1",
        "np.maximum(np.maximum.reduceat(held[ordered], begin), 0)",
        f"{RESOLVE}::test_with_a_suffix_every_id_is_unique_and_published_ones_stay",
    ),
    Fault(
        "unique IDs: codes above 16 bits are ordered by their low digits alone",
        "order",
        "(row & 0xFFFF).astype(np.uint16), (row >> 16).astype(np.uint16)",
        "(row & 0xFFFF).astype(np.uint16)",
        f"{RESOLVE}::test_the_order_of_codes_is_that_of_a_stable_sort",
    ),
    Fault(
        "free IDs: hypotheses go where all IDs are full",
        "seek",
        "if last or shut[child]:",
        "if last:",
        "tests/test_ids_free.py::test_all_items_get_an_id_however_few_hypotheses_there_are",
    ),
    Fault(
        "free IDs: items take them in their own order",
        "_given",
        'np.argsort(costs.ravel()[usable], kind="stable")',
        "np.arange(len(usable))",
        "tests/test_ids_free.py::test_the_cheapest_move_is_made_first_among_all_free_ids",
    ),
    Fault(
        "free IDs: the answers of equal items are given to others",
        "Seeker.nearest",
        "cost[place], path[place]",
        "cost[place[::-1]], path[place[::-1]]",
        "tests/test_ids_free.py::test_the_cheapest_move_is_made_first_among_all_free_ids",
    ),
    Fault(
        "free IDs: sums of products are rounded",
        "Products.__init__",
        "(codewords.shape[1] * added).bit_length()) // 2",
        "(codewords.shape[1] * added).bit_length()) // 2 + 6",
        "tests/test_ids_free.py::test_products_are_those_of_the_vectors",
    ),
    Fault(
        "candidates: a compiled beam returns its best hypothesis again and again",
        "compiled/beam.py:encode",
        "history[here + place, q] if place < alive[n]",
        "history[here, q] if place < alive[n]",
        "tests/test_ids_candidates.py::test_candidates_are_the_whole_beam",
    ),
    Fault(
        "balance: of equal offers the lower item loses its codeword",
        "auction",
        "offer == offers[best, below] and item > heap[best, below]",
        "offer == offers[best, below] and item < heap[best, below]",
        "tests/test_ids_balance.py::test_the_auction_is_that_of_its_definition",
    ),
    Fault(
        "balance: codewords that an item does not know of are never looked for",
        "auction",
        "if second > bounds[item] or best < 0:",
        "if best < 0:",
        "tests/test_ids_balance.py::test_every_path_assigns_the_same",
    ),
    Fault(
        "trie: a prefix finds the codes of its neighbour",
        "descend",
        "if low < end and codes[low] == code:",
        "if low < end:",
        "tests/test_ids_trie.py::test_what_may_follow_and_who_has_an_id",
    ),
    Fault(
        "trie: codes of a damaged file reach the kernels",
        "Trie._check",
        "if low >= high or self._codes[low:high].max() >= size:",
        "if low >= high:",
        "tests/test_ids_trie.py::test_a_damaged_file_is_refused_or_read_the_same",
    ),
    Fault(
        "files of IDs: a file that changed is read",
        "semantic_ids/files.py:read",
        'if digest != part["sha256"]:',
        'if digest == "":',
        "tests/test_ids_files.py::test_damaged_files_are_refused",
    ),
    Fault(
        "squares of what a path leaves are rounded to float32",
        "compiled/gather.py:path_distances",
        "wide = np.float64(left)",
        "wide = left",
        "tests/test_ids_candidates.py::test_distances_are_rounded_as_the_definition_says",
    ),
)
