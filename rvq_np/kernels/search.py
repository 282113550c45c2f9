"""The word nearest to each row, exactly: a screen, float64, then expansions.  Compiled by Numba.

    rows    (n, D)  T        what earlier stages left over; T is float32 or float64
    words   (K, D)  T        the codebook
    panel   (D, K+) T        the same, transposed; rows begin cache lines, so they may be longer
    half    (K,)    T        half the squared norm of each word; inf: a repeat, never chosen
    half64  (K,)    float64  the same before rounding to T
    bounds  (7,)    float64  what the error bound needs, see `tables.error_bounds`
    codes   (n,)    int32    out; -1 where the numbers are outside what the last tier can hold

The score of a word is ``half[k] - <row, word>``: half the squared distance less a part no word
can change.  Each tier carries a bound on its error, and only the words whose scores lie within
twice the bound of the best go on to the next:

1. scores in T, all words; the sum may be fused and in any order, the bound covers it;
2. scores in float64, the few words left;
3. the sign of the exact difference of two scores, by error-free transformations (Dekker 1971,
   Shewchuk 1997): products split in two, summed in a growing expansion.

An exact tie goes to the lowest index, as words are visited in order and replaced only when
strictly worse.  About ``2 * n * K * D`` operations; tiers 2 and 3 are rare on ordinary data.
"""

import numpy as np

from .jit import kernel

BLOCK = 4  # rows that share one pass over the panel: each word loaded serves four rows


@kernel
def nearest(rows, words, panel, half, half64, bounds, codes):
    n_rows, n_words = rows.shape[0], words.shape[0]
    width = panel.shape[1]
    store = np.empty(BLOCK * width + 16, rows.dtype)
    first = (-store.ctypes.data % 64) // store.itemsize  # rows begin cache lines, as in the panel
    scores = store[first : first + BLOCK * width].reshape(BLOCK, width)
    close = np.empty(n_words, np.int64)
    close_scores = np.empty(n_words, np.float64)
    partials = np.empty(1100, np.float64)  # a non-adjacent expansion over float64's 2100 bits
    start = 0
    while start < n_rows:
        count = min(BLOCK, n_rows - start)
        if count == BLOCK:
            _score_block(rows, start, panel, half, scores)
        else:
            for i in range(count):
                _score_row(rows[start + i], panel, half, scores[i, :n_words])
        for i in range(count):
            row = rows[start + i]
            codes[start + i] = _pick(
                row, words, half, half64, bounds, scores[i, :n_words], close, close_scores, partials
            )
        start += count


@kernel(fastmath={"contract"})
def _score_block(rows, start, panel, half, scores):
    dim, n_words = panel.shape[0], half.shape[0]
    s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
    for k in range(n_words):
        s0[k] = half[k]
        s1[k] = half[k]
        s2[k] = half[k]
        s3[k] = half[k]
    d = 0
    while d + 3 < dim:  # four dimensions a pass: a quarter of the loads and stores of the sums
        p, q, u, v = panel[d], panel[d + 1], panel[d + 2], panel[d + 3]
        r0, r1, r2, r3 = rows[start], rows[start + 1], rows[start + 2], rows[start + 3]
        a0, b0, c0, e0 = r0[d], r0[d + 1], r0[d + 2], r0[d + 3]
        a1, b1, c1, e1 = r1[d], r1[d + 1], r1[d + 2], r1[d + 3]
        a2, b2, c2, e2 = r2[d], r2[d + 1], r2[d + 2], r2[d + 3]
        a3, b3, c3, e3 = r3[d], r3[d + 1], r3[d + 2], r3[d + 3]
        for k in range(n_words):
            s0[k] = s0[k] - a0 * p[k] - b0 * q[k] - c0 * u[k] - e0 * v[k]
            s1[k] = s1[k] - a1 * p[k] - b1 * q[k] - c1 * u[k] - e1 * v[k]
            s2[k] = s2[k] - a2 * p[k] - b2 * q[k] - c2 * u[k] - e2 * v[k]
            s3[k] = s3[k] - a3 * p[k] - b3 * q[k] - c3 * u[k] - e3 * v[k]
        d += 4
    while d < dim:
        p = panel[d]
        for i in range(BLOCK):
            a, s = rows[start + i, d], scores[i]
            for k in range(n_words):
                s[k] -= a * p[k]
        d += 1


@kernel(fastmath={"contract"})
def _score_row(row, panel, half, scores):
    dim, n_words = panel.shape[0], half.shape[0]
    for k in range(n_words):
        scores[k] = half[k]
    for d in range(dim):
        a, p = row[d], panel[d]
        for k in range(n_words):
            scores[k] -= a * p[k]


@kernel(fastmath={"nnan", "nsz"})  # `_pick` calls this only where no score can be NaN
def _lowest(scores):
    low = scores[0]
    for k in range(scores.shape[0]):
        low = min(low, scores[k])
    return low


@kernel
def _pick(row, words, half, half64, bounds, scores, close, close_scores, partials):
    """Return the winner of one row: the screen's, if no other word comes within the bound."""
    squares = 0.0
    for d in range(row.shape[0]):
        squares += np.float64(row[d]) * np.float64(row[d])
    size = np.sqrt(squares) * bounds[0] + bounds[1]  # |row| |word| + |word|^2 / 2, at most
    n_close = 0
    if size < bounds[6]:
        slack = bounds[2] * size + bounds[3]
        low = np.float64(_lowest(scores))
        limit = row.dtype.type(low + 2.0 * slack)
        for k in range(scores.shape[0]):
            n_close += scores[k] <= limit
        if n_close == 1:
            for k in range(scores.shape[0]):
                if scores[k] <= limit:
                    return k
        n_close = 0
        for k in range(scores.shape[0]):
            if scores[k] <= limit and half[k] < np.inf:
                close[n_close] = k
                n_close += 1
    else:  # T may overflow: nothing the screen said can be used
        for k in range(scores.shape[0]):
            if half[k] < np.inf:
                close[n_close] = k
                n_close += 1
    return _settle(row, words, half64, bounds, size, close, n_close, close_scores, partials)


@kernel
def _settle(row, words, half64, bounds, size, close, n_close, close_scores, partials):
    """Decide among the words the screen could not tell apart."""
    low = np.inf
    for i in range(n_close):
        word = words[close[i]]
        dot = 0.0
        for d in range(row.shape[0]):  # the casts matter: float32 * float32 rounds to float32
            dot += np.float64(row[d]) * np.float64(word[d])
        close_scores[i] = half64[close[i]] - dot
        low = min(low, close_scores[i])
    limit = low + 2.0 * (bounds[4] * size + bounds[5])
    if not (size < 1e300 and np.isfinite(limit)):
        limit = np.inf
    best = -1
    for i in range(n_close):
        if close_scores[i] <= limit or limit == np.inf:
            if best < 0:
                best = close[i]
            else:
                order = _compare(row, words[best], words[close[i]], partials)
                if order == 2:
                    return -1
                if order < 0:
                    best = close[i]
    return best


@kernel
def _compare(row, a, b, partials):
    """Return the sign of ``|row - b|^2 - |row - a|^2``, exact; 2 if out of range."""
    count = 0
    for d in range(row.shape[0]):
        r, x, y = np.float64(row[d]), np.float64(a[d]), np.float64(b[d])
        if _out_of_range(r) or _out_of_range(x) or _out_of_range(y):
            return 2
        if x != y:
            count = _grow_product(partials, count, y, y)
            count = _grow_product(partials, count, -x, x)
            count = _grow_product(partials, count, -2.0 * r, y)
            count = _grow_product(partials, count, 2.0 * r, x)
    if count == 0:
        return 0
    return 1 if partials[count - 1] > 0.0 else -1  # the last partial outweighs the others


@kernel
def _out_of_range(value):
    """Whether a product with such a number may overflow, or its error underflow."""
    size = abs(value)
    return not (size == 0.0 or (size > 1e-144 and size < 1e150))


@kernel
def _grow_product(partials, count, x, y):
    """Add the exact product ``x * y`` to an expansion: Dekker's product, Veltkamp's split."""
    high = x * y
    if high == 0.0:
        return count
    t = 134217729.0 * x
    x_high = t - (t - x)
    x_low = x - x_high
    t = 134217729.0 * y
    y_high = t - (t - y)
    y_low = y - y_high
    low = x_low * y_low - (((high - x_high * y_high) - x_low * y_high) - x_high * y_low)
    return _grow(partials, _grow(partials, count, low), high)


@kernel
def _grow(partials, count, x):
    """Add `x` to a non-overlapping expansion in ascending order; zeros are dropped."""
    kept = 0
    for i in range(count):
        y = partials[i]
        total = x + y
        y_part = total - x
        error = (x - (total - y_part)) + (y - y_part)
        if error != 0.0:
            partials[kept] = error
            kept += 1
        x = total
    if x != 0.0:
        partials[kept] = x
        kept += 1
    return kept
