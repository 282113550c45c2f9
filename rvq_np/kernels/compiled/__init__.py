"""The kernels compiled by Numba: `engine` lists them; importing it imports Numba.

`packing` and `panels` lay codebooks out for the screening pass of `search`, `fold` and `beam`, and
`rows` makes rows ready for it; below them are `screens`, `simd`, `maps` and `differences`, vector
kernels that `build` writes in LLVM IR for a `target`; `columns` names columns of tables; `sift`
and `exact` decide what a screen leaves; `follow` keeps nearest codewords up to date while they
move, for k-means; `averages` is what a training step does beside the search.
"""
