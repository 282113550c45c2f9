"""Benchmarks of rvq_np, compared with the libraries one would use instead.

`problems` has the sizes and the data, `peers` the implementations for encoding, `threads` sets the
number of threads of all libraries, `timing` measures implementations in turns. `questions` lists
the benchmarks; they are in `encoding`, `grid`, `decoding`, `training` and `process`, and for whole
quantizers as users run them in `defaults` and `home`. `report` formats results as tables, `machine`
describes the machine, `plotting` draws the curves. ``python -m bench`` from the root of the
checkout runs all benchmarks; ``pytest bench --benchmark-only`` measures encoding only; ``python -m
bench.gpu`` is for NVIDIA GPUs. See ``README.md``.
"""
