"""The kernels compiled by Numba: `engine` lists them; importing it imports Numba.

`packing` lays codebooks out for the screening pass of `search` and `beam`, with `simd`, `maps` and
`differences` below them; `exact` decides what a screen leaves; `follow` keeps nearest codewords up
to date while they move, for k-means; `averages` is what a training step does beside the search.
"""
