"""The kernels in NumPy, see `engine`; files are named as in `rvq_np.kernels.compiled`."""
