"""Linear maps of rows, summed in float64."""

import numpy as np

from ..tables import normalized

ROWS = 4096  # rows that are mapped at a time


def project(rows, stage):
    """Return `rows` as the stage searches them: themselves, or through ``into``."""
    if stage.into is None:
        return rows
    into = stage.into
    with np.errstate(all="ignore"):  # numpy#28687: Arm's BLAS tells of divisions
        mapped = (rows.astype(np.float64) @ into.weight + into.bias).astype(rows.dtype)
    return normalized(mapped) if stage.unit else mapped


def transform(rows, linear, dtype=None):
    """Return the rows (n, D) mapped by a `tables.Map`: (n, C), summed in float64."""
    out = np.empty((len(rows), linear.shape[1]), dtype or rows.dtype)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].astype(np.float64)
        with np.errstate(all="ignore"):
            out[start : start + ROWS] = part @ linear.weight + linear.bias
    return out
