"""A GPU and a CuPy without a GPU, for the host logic and the source of the CUDA kernels.

Nothing here is evidence for a GPU: no driver, no CUDA, no tensor core takes part.
"""
