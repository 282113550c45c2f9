"""Correctness and speed of rvq_np on an NVIDIA GPU: ``python -m bench.gpu`` runs all benchmarks.

`questions` lists the benchmarks, the most important first. `codes`, `sums`, `kit` and `sanitizer`
check correctness; `ceilings` measures the rates of the GPU, `speed` those of all `implementations`.
Benchmarks run in their own processes (`worker`), so that a kernel that crashes or never ends costs
one benchmark; `context` writes results row by row, `report` formats the rows as Markdown. Only CuPy
is required; torch and others are measured where they are installed. ``--dry-run`` runs everything
on the emulated GPU of ``tests/helpers/emulated``: its times mean nothing.
"""
