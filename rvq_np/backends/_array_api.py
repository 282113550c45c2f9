"""Any library that follows the array API standard, on the device where its arrays live.

Scores are computed where the array is, in float64 where the device has it: some libraries round
the factors of a float32 product further (TF32, bfloat16) and no bound on that is known.  Where
there is no float64, products are formed element by element, which rounds as IEEE says.  Rows in
which more than one codeword comes within the error bound travel to the host, and are decided there
by the kernels for NumPy arrays; so are beams.  Only those rows and their codes are copied.

The files named after a library hand their device arrays to this one.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

from ..arrays import asarray, namespace, to_numpy
from ..kernels import columns, dispatch, tables
from . import Entered

ENGINE = sys.modules[__name__]
STAYS = False
SCORES = 1 << 22  # scores held at once on the device


def enter(x: Any) -> Entered:
    return Entered(ENGINE, x, None)


def extent_later(x: Any, by_row: bool = False) -> Any:
    """The ends are known at once."""
    xp, axis = namespace(x), None
    if by_row:
        x, axis = xp.reshape(x, (x.shape[0], -1)), 1
    ends = [to_numpy(each(x, axis=axis)) for each in (xp.min, xp.max)]
    return lambda: ends


class DeviceStage(NamedTuple):
    """One stage on the device, beside the host's tables it was made of."""

    codebook: Any  # (K, C), the screen's float type
    half: Any  # (K,)
    bounds: np.ndarray  # (7,), see `columns.BOUNDS`, for the screen's float type
    table: Any  # (K, D), the working float type
    weight_in: Any  # (D, C) or None, the screen's float type
    bias_in: Any
    here: Any  # `tables.Tables`


def prepare(codebooks: Any, like: Any) -> Any:
    """Return the stages, as `DeviceStage`, for vectors on the device of `like`."""
    from array_api_compat import device

    xp, where = namespace(like), device(like)
    dtype = dispatch.working_dtype(_numpy_dtype(xp, like), codebooks.dtype)
    screen = np.dtype(np.float64) if _has_float64(xp, where) else dtype

    def there(array: Any) -> Any:
        return None if array is None else xp.asarray(array, device=where)

    stages = []
    for here in dispatch.prepare(codebooks, dtype):
        half = np.minimum(here.half64, np.finfo(screen).max).astype(screen)
        half[np.isinf(here.half)] = np.inf
        stages.append(
            DeviceStage(
                codebook=there(here.codebook.astype(screen)),
                half=there(half),
                bounds=tables.error_bounds(here.half64, here.codebook.shape[1], screen),
                table=there(here.table),
                weight_in=there(None if here.weight_in is None else here.weight_in.astype(screen)),
                bias_in=there(None if here.bias_in is None else here.bias_in.astype(screen)),
                here=here,
            )
        )
    return tuple(stages)


def prepare_map(linear: Any, like: Any) -> Any:
    """Return weight (D, C) and bias (C,) on the device of `like`, float64 where it has that."""
    from array_api_compat import device

    xp, where = namespace(like), device(like)
    wide = np.float64 if _has_float64(xp, where) else np.float32
    arrays = (linear.weight.T, linear.bias)
    return tuple(xp.asarray(np.array(each, wide, order="C"), device=where) for each in arrays)


def project(x: Any, prepared: Any, dtype: Any) -> Any:
    xp, (weight, bias) = namespace(x), prepared
    mapped = xp.matmul(xp.astype(x, weight.dtype), weight) + bias
    expected = dispatch.working_dtype(_numpy_dtype(xp, x), dtype)
    return xp.astype(mapped, asarray(np.empty(0, expected), x).dtype)


def encode(x: Any, stages: Any, beam_size: int = 1) -> Any:
    xp = namespace(x)
    if beam_size > 1:
        here = tables.Stages(stage.here for stage in stages)
        return asarray(dispatch.encode(to_numpy(x), here, beam_size), x)
    rows = xp.astype(x, stages[0].table.dtype)
    codes = []
    for stage in stages:
        chosen = _nearest(xp, _projected(xp, rows, stage), stage)
        rows = rows - xp.take(stage.table, chosen, axis=0)
        codes.append(chosen)
    return xp.astype(xp.stack(codes), xp.int32)


def decode(codes: Any, stages: Any) -> Any:
    xp = namespace(codes)
    total = None
    for q in range(codes.shape[0]):
        codewords = xp.take(stages[q].table, codes[q, :], axis=0)
        total = codewords + 0.0 if total is None else total + codewords  # + 0.0: never -0.0
    if total is None:
        table = stages[0].table
        total = xp.zeros((codes.shape[1], table.shape[1]), dtype=table.dtype, device=table.device)
    return total


def tally(x: Any, codes: Any, stages: Any) -> Any:
    """The sums are float64 and want a scatter, which the standard lacks: they run on the host."""
    return dispatch.tally(to_numpy(x), to_numpy(codes), [stage.here for stage in stages])


def _nearest(xp: Any, rows: Any, stage: Any) -> Any:
    """Return codes (n,) of one stage: the device's where its bound decides, else the host's."""
    if rows.shape[0] == 0:
        return asarray(np.empty(0, np.int32), rows)
    has_wide = stage.codebook.dtype == getattr(xp, "float64", None)
    step = max(
        1, SCORES // (stage.codebook.shape[0] * (1 if has_wide else stage.codebook.shape[1]))
    )
    parts = []
    for start in range(0, rows.shape[0], step):
        part = rows[start : min(start + step, rows.shape[0]), :]
        with np.errstate(over="ignore", invalid="ignore"):  # for libraries made of NumPy
            codes, decided = _screened(xp, part, stage, has_wide)
        if not bool(xp.all(decided)):
            codes = _settled(xp, part, codes, decided, stage)
        parts.append(codes)
    return xp.concat(parts) if len(parts) > 1 else parts[0]


def _screened(xp: Any, rows: Any, stage: Any, has_wide: Any) -> Any:
    """Return the best codeword of each row (n,) by computed scores, and where the bound decides."""
    wide = xp.astype(rows, stage.codebook.dtype)
    if has_wide:
        scores = stage.half - xp.matmul(wide, xp.matrix_transpose(stage.codebook))
    else:
        scores = stage.half - xp.sum(wide[:, None, :] * stage.codebook[None, :, :], axis=2)
    lost = wide.shape[1] * 2.0 * float(xp.finfo(wide.dtype).smallest_normal)
    norms = xp.sqrt(xp.sum(wide * wide, axis=1) + lost)
    bounds = stage.bounds.tolist()
    size = norms * bounds[columns.LARGEST_NORM] + bounds[columns.LARGEST_HALF]
    # The norm itself is rounded, by at most the same share: twice the bound covers it.
    slack = 2.0 * (bounds[columns.SHARE] * size + bounds[columns.LEAST])
    limit = xp.min(scores, axis=1) + 2.0 * slack
    close = xp.sum(xp.astype(scores <= limit[:, None], xp.int32), axis=1)
    decided = (close == 1) & (size < bounds[columns.OVERFLOW])
    return xp.astype(xp.argmin(scores, axis=1), xp.int32), decided


def _settled(xp: Any, rows: Any, codes: Any, decided: Any, stage: Any) -> Any:
    """Return `codes` with the undecided rows decided on the host."""
    open_rows = xp.nonzero(~decided)[0]
    all_codes = to_numpy(codes).copy()
    settled = np.empty(open_rows.shape[0], np.int32)
    few = np.array(to_numpy(xp.take(rows, open_rows, axis=0)), order="C")
    dispatch.nearest(few, stage.here, settled)
    all_codes[to_numpy(open_rows)] = settled
    return asarray(all_codes, codes)


def _projected(xp: Any, rows: Any, stage: Any) -> Any:
    if stage.weight_in is None:
        return rows
    wide = xp.astype(rows, stage.weight_in.dtype)
    mapped = xp.matmul(wide, stage.weight_in) + stage.bias_in
    if stage.here.unit:
        mapped = mapped / _at_least(xp, xp.max(xp.abs(mapped), axis=1, keepdims=True))
        norms = xp.sqrt(xp.sum(mapped * mapped, axis=1, keepdims=True))
        mapped = mapped / _at_least(xp, norms)
    return xp.astype(mapped, rows.dtype)


def _at_least(xp: Any, sizes: Any) -> Any:
    """Return `sizes`, one where they are zero: what is divided by them is zero as well."""
    return xp.where(sizes > 0, sizes, xp.ones_like(sizes))


def _numpy_dtype(xp: Any, x: Any) -> Any:
    for name in ("float16", "float64"):
        if x.dtype == getattr(xp, name, None):
            return np.dtype(name)
    return np.dtype(np.float32)


def _has_float64(xp: Any, where: Any) -> Any:
    try:
        return bool(xp.zeros(1, dtype=xp.float64, device=where).dtype == xp.float64)
    except (AttributeError, ValueError, TypeError, RuntimeError):
        return False
