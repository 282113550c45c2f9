"""Search, decoding and sums over plain arrays, on three engines; nothing of ours from above.

What is done is the same on each engine, and so are codes and vectors, bit for bit.

====================  ====================  ========================  ====================
what                  NumPy, in `plain`     Numba, in `compiled`      CUDA, in `cuda`
====================  ====================  ========================  ====================
the list of all       engine.py             engine.py                 driver.py
search                search.py             search.py                 encode.cu, search.py
beam search           beam.py               beam.py                   beam.cu
exact comparison      exact.py              sift.py, exact.py         exact.cuh
decoding and sums     gather.py             gather.py                 gather.cu
training steps        averages.py           averages.py               CuPy
linear maps           maps.py, fold.py      maps.py, fold.py          cuBLAS, by CuPy
codes in bits         bits.py               bits.py                   none
semantic IDs          ids.py                ids.py                    none
====================  ====================  ========================  ====================

`dispatch` is what backends call for arrays in host memory: it chooses between the engines of
`plain` and `compiled`, which have the same functions; `tiles` holds the threads.  `tables` makes
what a search reads from a stage; `columns`, in each engine that has tables of its own, names their
columns; `plain.places` says from where a stage is seen, `plain.seen` and
`compiled.packing` lay it out for a screening pass.  `steps` takes a batch through stages that
learn; `totals` adds up without rounding.  `compiling` tells those who show progress that a kernel
is being compiled; a library of the kernels that `compiled.entries` lists, which ``rvq-np compile``
makes, needs no compiler: `prebuilt` opens it.

Kernels check nothing and raise nothing: shapes, types and codes have been validated above.
"""
