"""Is rvq_np right and fast on an NVIDIA card?  ``python -m bench.gpu`` asks all of it in one run.

`questions` lists what is asked, in the order of importance. `codes`, `sums`, `kit` and `sanitizer`
ask whether it is right; `ceilings` measures what the card can do, `speed` how near we come, beside
the `contestants`. Questions are answered in processes of their own (`worker`), so that a kernel
that crashes or never ends costs one answer; `desk` writes answers down row by row, `report` makes
Markdown of the rows. Nothing but CuPy has to be installed; torch and others compete where they
are. ``--dry-run`` goes through everything on the emulated card of ``tests/helpers/emulated``: no
figure of that means anything.
"""
