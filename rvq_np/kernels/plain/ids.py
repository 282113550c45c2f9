"""Semantic IDs: IDs given out in order, free IDs near to items, an auction, paths in a trie.

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


def seek(
    terms, squares, begin, pairs, place, turned, own, codes, first, shut, roots, few, costs, paths,
    row, total, beam, nodes, trail, heap, rank, made,
):  # fmt: skip
    """Write the nearest free IDs of each item: what they add to its squared distance, and codes.

    A beam search that no full ID, and no beginning of full IDs only, gets into.

    `terms` (n, S): products of items and codewords, all stages one after the other, stage q from
    ``begin[q]`` on; `squares` (S,): of codewords.  `pairs`: twice the products of the codewords of
    two stages, ``q < r``, (K, K') from ``place[q, r]`` on; or empty: then `turned` (D, S) are the
    codewords.  `own` (Q, n) int32: the codes that costs are counted from.  `codes`, `first`,
    `roots`: a trie of the full IDs; `shut`: whether a node has full IDs only.  `few` hypotheses are
    kept; `costs` (n, L) and `paths` (n, L, Q) are ascending by cost, then by hypothesis, then by
    code; infinity where there are fewer.  The rest are places to work in: `row` (K,), `total` (D,),
    and for so many hypotheses as there may be `beam`, `nodes`, `trail` (.., Q), `heap`, `rank` and
    `made` (.., Q).
    """
    n_q, most = own.shape[0], costs.shape[1]
    for n in range(terms.shape[0]):
        base = 0.0
        for r in range(n_q):
            k = begin[r] + own[r, n]
            base = base + (squares[k] - 2.0 * terms[n, k])
            size = begin[r + 1] - begin[r]
            for q in range(r):
                if pairs.shape[0] > 0:
                    base += pairs[place[q, r] + own[q, n] * size + own[r, n]]
                else:
                    dot = 0.0
                    for d in range(turned.shape[0]):
                        dot += turned[d, begin[q] + own[q, n]] * turned[d, k]
                    base += 2.0 * dot
        alive = 1
        beam[0], nodes[0] = 0.0, -2  # nothing chosen yet: the root
        for r in range(n_q):
            start, size, last = begin[r], begin[r + 1] - begin[r], r == n_q - 1
            keep, held = most if last else few, 0
            for h in range(alive):
                for j in range(size):
                    row[j] = beam[h] + (squares[start + j] - 2.0 * terms[n, start + j])
                for q in range(r):
                    if pairs.shape[0] > 0:
                        here = place[q, r] + trail[h, q] * size
                        for j in range(size):
                            row[j] += pairs[here + j]
                    else:
                        for j in range(size):
                            total[j] = 0.0
                        for d in range(turned.shape[0]):
                            number = turned[d, begin[q] + trail[h, q]]
                            for j in range(size):
                                total[j] += number * turned[d, start + j]
                        for j in range(size):
                            row[j] += 2.0 * total[j]
                low, high = 0, 0
                if nodes[h] == -2:
                    high = roots
                elif nodes[h] >= 0:
                    low, high = first[nodes[h]], first[nodes[h] + 1]
                for child in range(low, high):
                    if last or shut[child]:
                        row[codes[child]] = np.inf
                for j in range(size):
                    cost = row[j]
                    if held < keep:
                        if cost == np.inf:
                            continue
                        at = held
                        held += 1
                        while at > 0:  # up, while it is dearer than what is above
                            above = (at - 1) // 2
                            if heap[above] > cost:  # of equal ones the later is dearer
                                break
                            heap[at], rank[at] = heap[above], rank[above]
                            at = above
                        heap[at], rank[at] = cost, h * size + j
                    elif cost < heap[0]:
                        at = 0
                        while 2 * at + 1 < held:  # down, while what is below is dearer
                            below = 2 * at + 1
                            if below + 1 < held and (
                                heap[below + 1] > heap[below]
                                or (
                                    heap[below + 1] == heap[below] and rank[below + 1] > rank[below]
                                )
                            ):
                                below += 1
                            if cost >= heap[below]:
                                break
                            heap[at], rank[at] = heap[below], rank[below]
                            at = below
                        heap[at], rank[at] = cost, h * size + j
            for end in range(held - 1, 0, -1):  # ascending: the dearest goes to the end
                cost, mine = heap[end], rank[end]
                heap[end], rank[end] = heap[0], rank[0]
                at = 0
                while 2 * at + 1 < end:
                    below = 2 * at + 1
                    if below + 1 < end and (
                        heap[below + 1] > heap[below]
                        or (heap[below + 1] == heap[below] and rank[below + 1] > rank[below])
                    ):
                        below += 1
                    if cost > heap[below] or (cost == heap[below] and mine > rank[below]):
                        break
                    heap[at], rank[at] = heap[below], rank[below]
                    at = below
                heap[at], rank[at] = cost, mine
            for i in range(held):
                h, j = rank[i] // size, rank[i] % size
                for q in range(r):
                    made[i, q] = trail[h, q]
                made[i, r] = j
                if last:
                    continue
                low, high = 0, 0
                if nodes[h] == -2:
                    high = roots
                elif nodes[h] >= 0:
                    low, high = first[nodes[h]], first[nodes[h] + 1]
                end = high
                while low < high:
                    middle = (low + high) // 2
                    if codes[middle] < j:
                        low = middle + 1
                    else:
                        high = middle
                found = low < end and codes[low] == j
                rank[i] = low if found else -1
            alive = held
            for i in range(held):
                beam[i], nodes[i] = heap[i], rank[i]
                for q in range(r + 1):
                    trail[i, q] = made[i, q]
        for i in range(most):
            costs[n, i] = beam[i] - base if i < alive else np.inf
            if i < alive:
                for q in range(n_q):
                    paths[n, i, q] = trail[i, q]


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
