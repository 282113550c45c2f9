"""Loops over plain arrays: NumPy and Numba only, nothing of ours from other rooms.

`search` and `gather` hold the compiled kernels; `plain` holds the same functions,
with the same arguments, for a machine without Numba.  A kernel checks nothing, raises nothing
and writes its result into its last argument: every shape, dtype and code has been validated
above.  `tables` makes what a kernel reads from a stage's words (`measure`, compiled, their norms
and repeats), `places` says from where a stage is seen, which `pack` lays out for the compiled
screens and `seen` for those of NumPy; `settle` and `exact` settle what they cannot separate, `beam`
keeps several hypotheses, `maps` are linear maps, `steps` is a batch on its way through stages that
learn (`averages`, compiled), `tiles` holds the threads, and `host` puts the pieces together for
NumPy arrays.
"""
