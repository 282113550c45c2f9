"""Do the codes of a signal depend on what is in the batch with it? A report, and a pytest class.

A codec may encode a signal otherwise beside others than alone: matrix products of other shapes add
up in other orders, padding leaks into convolutions and attention, and a residual that lies near the
border between two codewords then falls to the other side; all later stages follow.  Where the
latents and the quantizer are at hand, the report says whose doing a change was: exact codes of both
latents that are equal lay it on the quantizer's arithmetic, others on the network before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..errors import ParameterError, ShapeError

Encode = Callable[[list[Any]], Sequence[Any]]


@dataclass(frozen=True)
class Drift:
    """What changed in the codes of signals, encoded in two ways.

    Attributes
    ----------
    way : str
        How they were encoded the second time.
    frames : int
        All that were compared.
    changed : int
        Frames of which a code changed.
    first : tuple of int
        Per stage, the frames whose first change is there. Later stages quantize another residual
        from there on, so what they change says nothing.
    by_quantizer : int or None
        Of the changed frames, those whose exact codes are the same for both latents: the quantizer
        alone made them differ. None where no latents were given.
    """

    way: str
    frames: int
    changed: int
    first: tuple[int, ...]
    by_quantizer: int | None = None

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.way}: none of {self.frames} frames changed"
        starts = ", ".join(f"{count} at stage {q}" for q, count in enumerate(self.first) if count)
        share = "" if self.by_quantizer is None else f"; {self.by_quantizer} by the quantizer alone"
        percent = 100 * self.changed / self.frames
        return (
            f"{self.way}: {self.changed} of {self.frames} frames changed ({percent:.3g} %), first "
            f"{starts}{share}"
        )


def batch_drifts(
    encode: Encode,
    signals: Sequence[Any],
    *,
    latents: Encode | None = None,
    quantizer: Any = None,
    variants: Mapping[str, Encode] | None = None,
) -> list[Drift]:
    """Encode signals alone and in batches, and return what changed.

    Parameters
    ----------
    encode : callable
        ``encode(signals)`` takes a list of arrays whose last axis is time, pads them as the codec
        does, encodes them as one batch, and returns for each its codes, integers (Q, frames), those
        of padding cut off.
    signals : sequence of array
        Two or more, of at least two lengths.
    latents : callable, optional
        ``latents(signals)``: for the same batch the vectors that the quantizer gets, (frames, D).
    quantizer : Codebooks or Composed, optional
        The codec's quantizer, as `rvq_np.checkpoints.load` returns it. With `latents`, the report
        says whether the encoder or the quantizer causes a change.
    variants : mapping of str to callable, optional
        Other ways to encode that should give the same codes, such as another float type or number
        of threads; each gets one signal at a time.

    Returns
    -------
    drifts : list of Drift
        "again": encoded alone, a second time. "beside others": in a batch of one length. "in
        another place": there, the order reversed. "beside longer ones": all in one batch, padded.
        Then one for each variant.

    Raises
    ------
    ParameterError
        If there are fewer than two signals or lengths, or one of `latents` and `quantizer`, or an
        argument has an invalid value.
    ShapeError
        If `encode` returns other than one array (Q, frames) a signal, of as many frames each time.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import encode
    >>> books = np.float32([[[0], [1], [2]]])
    >>> signals = [np.float32([0, 1, 2, 0]), np.float32([2, 2])]
    >>> each = lambda batch: [encode(x[:, None], books) for x in batch]
    >>> print(*batch_drifts(each, signals), sep="\\n")
    again: none of 6 frames changed
    beside others: none of 4 frames changed
    in another place: none of 4 frames changed
    beside longer ones: none of 6 frames changed
    """
    lengths = _check("batch_drifts", encode, signals, latents, quantizer, variants)
    ways = _ways(list(signals), min(lengths))
    drifts = [_drift(way, encode, one, encode, other, latents, quantizer)
              for way, one, other in ways]  # fmt: skip
    alone = [[each] for each in signals]
    for name, variant in (variants or {}).items():
        drifts.append(_drift(name, encode, alone, variant, alone, None, None))
    return drifts


def _check(
    call: str, encode: Any, signals: Any, latents: Any, quantizer: Any, variants: Any
) -> set[int]:
    """Return the lengths of the signals; raise if an argument is invalid."""
    arguments.function(call, "encode", encode)
    if latents is not None:
        arguments.function(call, "latents", latents)
    if variants is not None:
        arguments.kind(call, "variants", variants, Mapping)
        for name, variant in variants.items():
            arguments.function(call, f"variants[{name!r}]", variant)
    if not isinstance(signals, Sequence) or not all(map(np.ndim, signals)):
        raise arguments.refused(call, "signals", signals, "a list of arrays")
    lengths = {np.shape(each)[-1] for each in signals}
    if len(lengths) < 2:
        raise ParameterError(
            f"{call}: got {len(signals)} signals of lengths {sorted(lengths)}; expected two "
            "or more, of two lengths at least."
        )
    if (latents is None) != (quantizer is None):
        raise ParameterError(f"{call}: expected both of latents and quantizer, or neither.")
    return lengths


def _ways(signals: list[Any], shortest: int) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield each way with the batches of both times, whose signals are in the same order."""
    alone = [[each] for each in signals]
    yield "again", alone, alone
    cut = [each[..., :shortest] for each in signals]
    yield "beside others", [[each] for each in cut], [cut]
    yield "in another place", [cut], [_Reversed(cut)]
    yield "beside longer ones", alone, [signals]


class _Reversed(list):
    """A batch that is encoded in the reverse order, and whose results are put in order again."""


def _each(function: Encode, batches: Sequence[Any]) -> list[np.ndarray]:
    found: list[Any] = []
    for batch in batches:
        reverse = isinstance(batch, _Reversed)
        results = list(function(list(batch)[::-1] if reverse else list(batch)))
        if len(results) != len(batch):
            raise ShapeError(
                f"batch_drifts: encode returned {len(results)} arrays for {len(batch)} signals."
            )
        found.extend(results[::-1] if reverse else results)
    return [np.asarray(each) for each in found]


def _drift(
    way: str,
    encode: Encode,
    one: list[Any],
    variant: Encode,
    other: list[Any],
    latents: Encode | None,
    quantizer: Any,
) -> Drift:
    before, after = _each(encode, one), _each(variant, other)
    for a, b in zip(before, after, strict=True):
        if a.ndim != 2 or a.shape != b.shape:
            raise ShapeError(
                f"batch_drifts: encode returned codes of shapes {a.shape} and, {way}, {b.shape}; "
                "expected (Q, frames), the same both times. Cut off the codes of padding."
            )
    differs = np.concatenate([a != b for a, b in zip(before, after, strict=True)], axis=1)
    changed = differs.any(axis=0)
    first = np.bincount(differs.argmax(axis=0)[changed], minlength=len(differs))
    share = None
    if latents is not None and changed.any():
        exact = [_exact(latents, batches, quantizer, len(differs)) for batches in (one, other)]
        share = int((changed & (exact[0] == exact[1]).all(axis=0)).sum())
    elif latents is not None:
        share = 0
    return Drift(way, differs.shape[1], int(changed.sum()), tuple(first.tolist()), share)


def _exact(latents: Encode, batches: list[Any], quantizer: Any, n_q: int) -> np.ndarray:
    from ..codec import encode

    rows = np.concatenate([each.astype(np.float32) for each in _each(latents, batches)])
    return np.asarray(encode(rows, quantizer, n_q=n_q))


def batch_invariance_tests(
    *,
    encode: Encode,
    signals: Sequence[Any],
    latents: Encode | None = None,
    quantizer: Any = None,
    variants: Mapping[str, Encode] | None = None,
    tolerance: float = 0.0,
) -> type:
    """Build a pytest class that fails where codes depend on the batch; name it ``Test...``.

    Parameters
    ----------
    encode : callable
        ``encode(signals)``: a list of arrays in, codes (Q, frames) of each out, see `batch_drifts`.
    signals : sequence of array
        Two or more, of at least two lengths; time on the last axis.
    latents : callable, optional
        ``latents(signals)``: the vectors that the quantizer gets for the same signals.
    quantizer : Codebooks or Composed, optional
        With `latents`, the report says whether the encoder or the quantizer causes a change.
    variants : mapping of str to callable, optional
        Other ways to encode that should give the same codes.
    tolerance : float, optional
        The share of frames that may change, 0 by default.

    Returns
    -------
    tests : type
        One test for each way to encode; the message of a failure is the report of `Drift`.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import encode
    >>> books = np.float32([[[0], [1], [2]]])
    >>> TestMine = batch_invariance_tests(
    ...     encode=lambda batch: [encode(x[:, None], books) for x in batch],
    ...     signals=[np.float32([0, 1, 2, 0]), np.float32([2, 2])],
    ... )
    >>> sorted(name for name in vars(TestMine) if name.startswith("test"))[0]
    'test_a_signal_has_as_many_frames_in_a_batch_as_alone'
    """
    _check("batch_invariance_tests", encode, signals, latents, quantizer, variants)
    tolerance = arguments.number("batch_invariance_tests", "tolerance", tolerance, 0, 1)
    found: list[Drift] = []

    def check(way: str) -> None:
        if not found:
            more: dict[str, Any] = {"latents": latents, "quantizer": quantizer}
            found.extend(batch_drifts(encode, signals, variants=variants, **more))
        for drift in found:
            if drift.way == way:
                assert drift.changed <= tolerance * drift.frames, str(drift)

    class Tests:
        def test_codes_are_the_same_again(self) -> None:
            """The same call gives the same codes, whatever its threads do.

            No report known.
            """
            check("again")

        def test_a_signal_has_as_many_frames_in_a_batch_as_alone(self) -> None:
            """Codes of padding are cut off where the signal ends, and nowhere else.

            huggingface/transformers#35166
            """
            alone, padded = _each(encode, [[each] for each in signals]), _each(encode, [signals])
            assert [each.shape for each in alone] == [each.shape for each in padded]

        def test_codes_do_not_depend_on_other_signals(self) -> None:
            """A signal has the same codes alone and beside others of its length.

            sgl-project/sglang-omni#774
            """
            check("beside others")

        def test_codes_do_not_depend_on_the_place_in_the_batch(self) -> None:
            """The order of a batch does not matter.

            sgl-project/sglang-omni#774
            """
            check("in another place")

        def test_codes_do_not_depend_on_longer_signals_in_the_batch(self) -> None:
            """Padding takes part in nothing.

            huggingface/transformers#43377
            """
            check("beside longer ones")

        def test_codes_do_not_depend_on_the_variant(self) -> None:
            """Other float types or numbers of threads, as given, have the same codes.

            sgl-project/sglang-omni#774
            """
            for name in variants or {}:
                check(name)

    return Tests
