"""Semantic IDs: IDs given out in order, an auction under capacities, paths in a trie.

Loops over plain arrays, one body for both engines: `compiled.ids` compiles these functions, here
Python runs them.  All sums and comparisons are of single float64 numbers, so both give the same.

    ids     (P,)     int64    an ID by its number
    free    (I,)     int64    how many more items an ID takes
    codes   (V,)     unsigned the code of each node of a trie, in the order of depth, then of IDs
    first   (V' + 1,)         children of node v, above the last depth: ``first[v] ... first[v+1]``
    near    (n, m)   int32    codewords that an item may get, ``-1``: none
    apart   (n, m)   float64  their squared distances
"""

import numpy as np


def take(order, items, ids, free, places):
    """Give each item the first ID in `order` that is free; `places` (N,): which pair, or -1."""
    for pair in order:
        item, chosen = items[pair], ids[pair]
        if places[item] < 0 and free[chosen] > 0:
            places[item] = pair
            free[chosen] -= 1


def descend(codes, first, roots, prefixes, nodes):
    """Write the node (n,) of each of `prefixes` (n, t), or -1 where the trie has none."""
    for n in range(prefixes.shape[0]):
        node, low, high = -1, 0, roots
        for depth in range(prefixes.shape[1]):
            code, node = prefixes[n, depth], -1
            end = high
            while low < high:
                middle = (low + high) // 2
                if codes[middle] < code:
                    low = middle + 1
                else:
                    high = middle
            if low < end and codes[low] == code:
                node = low
            if node < 0:
                break
            if depth + 1 < prefixes.shape[1]:
                low, high = first[node], first[node + 1]
        nodes[n] = node


def allow(codes, first, nodes, mask):
    """Set ``mask[n, code]`` for the children of each node (n,); no child of a node below 0."""
    for n in range(nodes.shape[0]):
        if nodes[n] >= 0:
            for child in range(first[nodes[n]], first[nodes[n] + 1]):
                mask[n, codes[child]] = True


def auction(
    queue, state, near, apart, bounds, prices, capacity, epsilon, heap, offers, filled, bids, left
):
    """Let items offer for codewords until none is left that knows its two best ones.

    `queue` (N,) int64 is a ring of waiting items: ``state[0]`` is the first, ``state[1]`` how many.
    An item offers the price at which its second best codeword would be as good, and `epsilon` more.
    A codeword holds the `capacity` highest offers, of equal ones the lower items, in a heap:
    `heap` (K, capacity) items, `offers` (K, capacity), `filled` (K,).  Its price is the lowest of
    them once it is full, 0 before.  Items whose second best value is above their bound, that is,
    who may have missed a codeword, are written to `left`, as many as are returned.  Ends early
    after `bids` offers; ``state[2]`` counts them.
    """
    lost, n_items = 0, queue.shape[0]
    while state[1] > 0 and state[2] < bids:
        item = queue[state[0]]
        state[0] = (state[0] + 1) % n_items
        state[1] -= 1
        best, value, second = -1, np.inf, np.inf
        for place in range(near.shape[1]):
            codeword = near[item, place]
            if codeword < 0:
                break
            cost = apart[item, place] + prices[codeword]
            if cost < value or (cost == value and codeword < best):
                best, value, second = codeword, cost, value
            elif cost < second:
                second = cost
        if second > bounds[item] or best < 0:
            left[lost] = item
            lost += 1
            continue
        state[2] += 1
        offer = prices[best] + (second - value) + epsilon
        count = filled[best]
        if count < capacity:
            filled[best] = count + 1
            place = count
            while place > 0:  # up, while it is lower than what is above
                above = (place - 1) // 2
                if offers[best, above] < offer or (
                    offers[best, above] == offer and heap[best, above] > item
                ):
                    break
                offers[best, place], heap[best, place] = offers[best, above], heap[best, above]
                place = above
            offers[best, place], heap[best, place] = offer, item
        else:
            queue[(state[0] + state[1]) % n_items] = heap[best, 0]
            state[1] += 1
            place = 0
            while 2 * place + 1 < capacity:  # down, while what is below is lower
                below = 2 * place + 1
                if below + 1 < capacity and (
                    offers[best, below + 1] < offers[best, below]
                    or (
                        offers[best, below + 1] == offers[best, below]
                        and heap[best, below + 1] > heap[best, below]
                    )
                ):
                    below += 1
                if offer < offers[best, below] or (
                    offer == offers[best, below] and item > heap[best, below]
                ):
                    break
                offers[best, place], heap[best, place] = offers[best, below], heap[best, below]
                place = below
            offers[best, place], heap[best, place] = offer, item
        if filled[best] == capacity:
            # Prices are squares of float32 numbers: what a search with a price per codeword sees.
            root = np.float32(np.sqrt(offers[best, 0]))
            if np.float64(root) * np.float64(root) < offers[best, 0]:
                root = np.nextafter(root, np.float32(np.inf))
            prices[best] = np.float64(root) * np.float64(root)
    return lost
