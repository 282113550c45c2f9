"""Search, decoding and sums over plain arrays, on three engines; nothing of ours from above.

What is done is the same on each engine, and so are codes and vectors, bit for bit.

====================  ====================  ========================  ====================
what                  NumPy                 Numba                     CUDA, in `cuda`
====================  ====================  ========================  ====================
search                `plain`               `search`                  encode.cu
beam search           `beam`                `hypotheses`              beam.cu
exact comparison      `exact`               `settle`                  exact.cuh
decoding and sums     `plain`               `gather`                  gather.cu
linear maps           `plain`               `maps`, `fold`            cuBLAS, by CuPy
codes in bits         `plain_bits`          `bits`                    none
====================  ====================  ========================  ====================

`host` is what backends call for arrays in host memory: it chooses between `plain` and `compiled`,
which have the same functions; `compiled` puts the kernels of Numba together and `tiles` holds the
threads.  `tables` makes what a search reads from a stage (`measure`: norms and repeats of
codewords), `places` says from where a stage is seen, `seen` and `pack` lay it out for a screening
pass, with `simd` and `differences` below them.  `follow` keeps nearest codewords up to date while
they move, for k-means; `steps` takes a batch through stages that learn (`averages`, compiled).
`fingerprints` says whether an array holds what it held.  `jit` decorates compiled kernels.

Kernels check nothing and raise nothing: shapes, types and codes have been validated above.
"""
