"""How often each word was chosen and the sum of the rows that chose it.  Compiled.

rows    (n, D)  float32 or float64  what the stage quantized
codes   (n,)    int32
counts  (K,)    float64             added to
sums    (K, D)  float64             added to, in the order of the rows
"""

from .jit import kernel


@kernel
def tally(rows, codes, counts, sums):
    for n in range(rows.shape[0]):
        code = codes[n]
        counts[code] += 1.0
        row = rows[n]
        total = sums[code]
        for d in range(rows.shape[1]):
            total[d] += row[d]
