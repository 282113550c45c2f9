"""NumPy archives of all arrays of a quantizer, and code files in the forms that others read."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import codes_of, to_numpy
from ..codebooks import Codebooks, composed
from ..errors import DtypeError, ParameterError, ShapeError
from ..files import safetensors
from ..files.atomic import NewFile

MAPS = ("project_in", "project_out")


def npz(path: str | os.PathLike[str], quantizer: Any) -> None:
    """Write all arrays of a quantizer to a NumPy archive, by simple names.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically. ``numpy.load`` reads it without pickle.
    quantizer : Codebooks, Composed or array (Q, K, D)
        Any quantizer. The arrays are ``stages.0.codebook`` and, where a stage has maps,
        ``stages.0.project_in.weight``, ``.bias`` and the same of ``project_out``. Those of a
        composed quantizer are ``parts.0.stages...``, and ``project_in.weight`` and so on for maps
        around a part. ``description`` is JSON with the kinds, metrics, strides and the order of the
        stages.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from rvq_np import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "small.npz")
    ...     export.npz(path, np.ones((2, 4, 3), np.float32))
    ...     with np.load(path) as archive:
    ...         print(sorted(archive), archive["stages.1.codebook"].shape)
    ['description', 'stages.0.codebook', 'stages.1.codebook'] (4, 3)
    """
    path, quantizer = arguments.path("export.npz", "path", path), composed.of(quantizer)
    arrays: dict[str, Any] = {}
    about = _described(quantizer, "", arrays)
    about["fingerprint"] = quantizer.fingerprint
    with NewFile(path) as new:
        np.savez(new.file, description=np.array(json.dumps(about)), **arrays)


def _described(value: Any, place: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return what describes a quantizer, and add its arrays by name."""
    if isinstance(value, Codebooks):
        stages = []
        for q, stage in enumerate(value):
            at = f"{place}stages.{q}."
            arrays[f"{at}codebook"] = stage.codebook
            maps = [(way, getattr(stage, way)) for way in MAPS]
            _add(arrays, at, [(way, linear) for way, linear in maps if linear is not None])
            stages.append({"metric": stage.metric, "stride": stage.stride})
        return {"kind": "stages", "stages": stages}
    _add(arrays, place, list(zip(MAPS, value.maps(), strict=False)))
    parts = [_described(part, f"{place}parts.{n}.", arrays) for n, part in enumerate(value.parts)]
    return {"kind": value.KIND, "parts": parts, "order": list(value.order)}


def _add(arrays: dict[str, Any], place: str, maps: list[tuple[str, Any]]) -> None:
    for way, linear in maps:
        arrays[f"{place}{way}.weight"] = linear.weight
        arrays[f"{place}{way}.bias"] = linear.bias


FORMS = ("candle", "codec.cpp")
LARGEST = 2**31 - 1  # code


def codes(path: str | os.PathLike[str], codes: Any, form: str) -> None:
    """Write codes in the format of another program.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically.
    codes : integer array (Q, T) or (Q, B, T)
        As `rvq_np.encode` returns them, without dropped codes.
    form : {"candle", "codec.cpp"}
        "candle": safetensors with ``codes`` (B, Q, T), uint32, for ``code-to-audio`` of candle's
        examples. "codec.cpp": ``.npy`` of (T, Q), int32, of one signal. codec.cpp reads this shape,
        but writes (Q, T).

    Raises
    ------
    ParameterError
        If `form` is neither, or is "codec.cpp" for several signals.
    ShapeError, DtypeError
        If `codes` are not integers >= 0 within int32, or do not have two or three axes.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from rvq_np import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "codes.npy")
    ...     export.codes(path, np.int32([[1, 2, 3], [4, 5, 6]]), "codec.cpp")
    ...     np.load(path)
    array([[1, 4],
           [2, 5],
           [3, 6]], dtype=int32)
    """
    path, rows = arguments.path("export.codes", "path", path), to_numpy(codes_of(codes))
    whole = rows.dtype.kind in "iu"
    if not whole or (rows.size and not 0 <= rows.min() <= rows.max() <= LARGEST):
        raise DtypeError(
            f"export.codes: codes has dtype {rows.dtype}"
            + (f" and numbers from {rows.min()} to {rows.max()}" if whole else "")
            + f"; expected integers from 0 to {LARGEST}, none dropped."
        )
    if rows.ndim not in (2, 3):
        raise ShapeError(
            f"export.codes: codes has shape {rows.shape}; expected (Q, T) or (Q, B, T)."
        )
    batch = rows if rows.ndim == 3 else rows[:, None]
    if form == "candle":
        tensor = np.ascontiguousarray(batch.swapaxes(0, 1)).astype(np.uint32)
        safetensors.write(path, {"codes": tensor}, {})
    elif form == "codec.cpp" and batch.shape[1] == 1:
        with NewFile(path) as new:
            np.save(new.file, np.ascontiguousarray(batch[:, 0].T).astype(np.int32))
    else:
        raise ParameterError(
            f"export.codes: form is {form!r} for {batch.shape[1]} signals; expected one of "
            f"{', '.join(FORMS)}, the last for one signal."
        )
