"""The part of quantizing no framework differentiates: search, decoding and training, outside it.

A tensor framework wraps one function, `run`, as an operation it cannot look into, and one that
says the shapes of what comes back, `shapes`.  What the operation is to do is a `Spec`, a value
that is also a string, for frameworks whose operations take no objects.  The quantizer's arrays
come as arguments, those that are `given_names`, or are those of a quantizer with a number
(`_references`).

Vectors come as rows (N, D), checked, float32 or float64, zeros where there is padding, and go as
rows.  Nothing here checks them again but that they are finite, which only values tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .. import arrays, backends, names
from .. import train as training
from ..codec import validation
from ..config import CLASS, Config
from ..errors import NonFiniteError, RvqError
from ..quantizer import layout, passes
from ._cache import Prepared, keep, prepared
from ._names import all_names, codebook_name, is_state, search_names, state_names
from ._references import object_of
from ._remembered import Remembered, arrays_of, collected_of
from ._remembered import shapes as waiting_shapes

POISON = -2  # codes of vectors that cannot be quantized: no codeword, and not dropped either


@dataclass(frozen=True)
class Spec:
    """What one pass is to do; see `spec_of`.

    Attributes
    ----------
    config : Config
    sample_rate : float
        Vectors per second.
    stages : int
        How many of the first are in use; 0: all.
    training : bool
        Whether to train and to drop stages.
    moving : bool
        Whether training moves the codewords; False where a framework's optimizer does.
    poison : bool
        Whether bad values give NaN and codes of `POISON` instead of an error: for callbacks, which
        must not raise.
    quantizer : int
        Number of a quantizer without a framework; 0: its arrays come as arguments.
    all_reduce : int
        Number of an all-reduce; 0: none.
    frozen : tuple of int
        Stages that training leaves as they are.
    remembered : int
        Number of a `Remembered`, which says so, too, and is changed; 0: none.
    collects : bool
        Whether the vectors that wait are arrays of the state, `names.WAITING`.
    """

    config: Config
    sample_rate: float
    stages: int = 0
    training: bool = False
    moving: bool = True
    poison: bool = False
    quantizer: int = 0
    all_reduce: int = 0
    frozen: tuple[int, ...] = ()
    remembered: int = 0
    collects: bool = False

    @cached_property
    def n_q(self) -> int:
        """Stages in use."""
        return self.stages or self.config.n_q

    @cached_property
    def costs(self) -> np.ndarray:
        """kb/s of the first stages, none to all of them."""
        return self.config.costs(self.sample_rate)

    @cached_property
    def text(self) -> str:
        """The spec as JSON."""
        return json.dumps(asdict(self))

    @property
    def returns_state(self) -> bool:
        """Whether `run` gives codewords and a new state, too."""
        return self.training and not self.quantizer

    @property
    def given_names(self) -> tuple[str, ...]:
        """The names of the arrays `run` takes: in eval without the statistics of codewords."""
        if not self.training:
            return search_names(self.config)
        return all_names(self.config) + (names.WAITING if self.collects else ())

    @property
    def moved_names(self) -> tuple[str, ...]:
        """The names of the arrays of the state that `run` gives."""
        return state_names(self.config) + (names.WAITING if self.collects else ())


def spec_of(
    config: Config, sample_rate: Any, bandwidth: Any, n_q: Any = None, **options: Any
) -> Spec:
    """Return a `Spec`, the same one for the same arguments: any real numbers.

    Raises
    ------
    ParameterError, LevelsError
        As `rvq_np.ResidualVectorQuantizer.forward` for these arguments.
    """
    return _spec(config, *config.asked(CLASS, sample_rate, bandwidth, n_q), **options)


@lru_cache(maxsize=256)
def _spec(config: Config, sample_rate: float, stages: int, **options: Any) -> Spec:
    return Spec(config, sample_rate, stages, **options)


@lru_cache(maxsize=256)
def parse(text: str) -> Spec:
    """Return the spec that `text` was made of."""
    entries = json.loads(text)
    entries["frozen"] = tuple(entries["frozen"])
    return Spec(Config.from_dict(entries.pop("config")), **entries)


def shapes(spec: Spec, rows: Any, shape: Sequence[Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """Return (shape, dtype) of what `run` gives; None stands for the float type of the rows.

    `rows`: N; `shape`: (B, T) or (N,). Sizes may be whatever a framework has for them.
    """
    drops = spec.training and spec.config.quantizer_dropout
    given: list[tuple[tuple[Any, ...], Any]] = [
        ((spec.n_q, rows), np.int32),
        ((rows, spec.config.dimension), None),
        ((rows,), np.int32),
        ((shape[0],) if drops else (), np.float32),
    ]
    if spec.returns_state:
        entries = {**training.shapes(spec.config), **waiting_shapes(spec.config)}
        listed = [*map(codebook_name, range(spec.n_q)), *spec.moved_names]
        given += [(entries[name], np.float32) for name in listed]
    return given


def run(
    spec: Spec, rows: Any, valid: Any, shape: Sequence[int], seed: Any, given: Sequence[Any]
) -> list[Any]:
    """Quantize a batch and, if the spec says so, train on it.

    Parameters
    ----------
    spec : Spec
    rows : array (N, D)
        Of any library with a backend.
    valid : array (N,), bool, or None
        Which rows are no padding; None: all.
    shape : sequence of int
        How many vectors there are, as the caller counts them: (B, T) or (N,).
    seed : array (2,), int, or None
        For training.
    given : sequence of array
        The quantizer's arrays, ``spec.given_names``; none for a quantizer with a number.

    Returns
    -------
    outputs : list of array
        Codes (n_q, N) and the rows they decode to, typed as `rows`, both in its library; then as
        NumPy the stages that make up each row (N,), 0 for padding, and the bandwidth; in
        training, of arrays that came as arguments, also the codebook (K, C) of every stage in use
        that the codes name, and all new arrays of the state, ``spec.moved_names``.

    Raises
    ------
    RvqError
        As `rvq_np.ResidualVectorQuantizer.forward`, unless the spec says poison.
    """
    try:
        passed = pass_of(spec, rows, valid, shape, seed, given)
    except RvqError:
        if not spec.poison:
            raise
        return poisoned(spec, rows, shape, given)
    outputs = outputs_of(passed)
    if spec.returns_state:
        outputs += [stage.codebook.copy() for stage in passed.codebooks.stages[: spec.n_q]]
        outputs += state_of(passed.states)
        if spec.collects:
            outputs += arrays_of(spec.config, passed.collected)
    return outputs


def run_mapped(
    spec: Spec, axes: int, rows: Any, valid: Any, shape: Sequence[int], seed: Any,
    given: Sequence[Any],
) -> list[Any]:  # fmt: skip
    """`run` for NumPy arrays with `axes` more axes in front: of the mapped length, or of one.

    A mapped axis of the rows makes more rows of them; where the quantizer itself is mapped, or
    trains, one runs after the other.
    """
    every = [rows, valid, seed, *given]
    lead = np.broadcast_shapes(*(each.shape[:axes] for each in every if each is not None))
    if not spec.training and all(set(each.shape[:axes]) <= {1} for each in given):
        broad = [each if each is None else np.broadcast_to(each, lead + each.shape[axes:])
                 for each in (rows, valid)]  # fmt: skip
        flat: list[Any] = [each if each is None else each.reshape(-1, *each.shape[len(lead) + 1 :])
                           for each in broad]  # fmt: skip
        given = [each.reshape(each.shape[axes:]) for each in given]
        codes, quantized, active, bandwidth = run(
            spec, flat[0], flat[1], flat[0].shape[:1], None, given
        )
        return [
            np.moveaxis(codes.reshape(spec.n_q, *lead, -1), 0, axes),
            quantized.reshape(*lead, -1, quantized.shape[1]),
            active.reshape(*lead, -1),
            np.broadcast_to(bandwidth, lead),
        ]
    whole = [None if each is None else np.broadcast_to(each, lead + each.shape[axes:])
             for each in every]  # fmt: skip
    runs = []
    for place in np.ndindex(lead):
        rows, valid, seed, *given = (None if each is None else each[place] for each in whole)
        runs.append(run(spec, rows, valid, shape, seed, given))
    return [np.stack(parts).reshape(lead + parts[0].shape) for parts in zip(*runs, strict=True)]


def pass_of(
    spec: Spec, rows: Any, valid: Any, shape: Sequence[int], seed: Any, given: Sequence[Any]
) -> passes.Pass:
    """Do what `run` does; return all that its outputs are made of, and keep the new state."""
    if spec.quantizer:
        rvq = object_of(spec.quantizer)
        rvq._warn_if_random(0, spec.n_q)
        quantizer = Prepared(spec.config, (), None, rvq.codebooks)
    else:
        listed, held = spec.given_names, given
        if spec.collects:
            listed, held = listed[: -len(names.WAITING)], given[: -len(names.WAITING)]
        quantizer = prepared(spec.config, listed, held)
    batch = batch_of_rows(quantizer, rows, valid, shape)
    numbers = None
    remembered = object_of(spec.remembered) if spec.remembered else Remembered(frozen=spec.frozen)
    if spec.training:
        if spec.collects:
            remembered.collected = collected_of(spec.config, given[-len(names.WAITING) :])
        numbers = [int(part) % (1 << 32) for part in arrays.to_numpy(seed)]
    with batch.there():
        passed = passes.forward(
            quantizer.states, quantizer.projections, quantizer.codebooks, batch, spec.config,
            spec.n_q, spec.costs, seed=numbers, moving=spec.moving,
            all_reduce=object_of(spec.all_reduce) if spec.all_reduce else training.ALONE,
            collected=remembered.collected, frozen=remembered.frozen,
        )  # fmt: skip
    if spec.training:
        keep(spec.config, passed.states, quantizer.projections, passed.codebooks)
        remembered.collected = passed.collected
    return passed


def batch_of_rows(quantizer: Prepared, rows: Any, valid: Any, shape: Sequence[int]) -> layout.Batch:
    """Return rows that were checked as a batch, or raise NonFiniteError."""
    entered = backends.enter(rows)
    with entered.there():
        if 0 not in rows.shape:
            _finite(entered.array, quantizer.codebooks, shape)
    kept = None if valid is None else arrays.to_numpy(valid)
    return layout.Batch.of_rows(entered, kept, int(shape[0]))


def _finite(rows: Any, codebooks: Any, shape: Sequence[int]) -> None:
    try:
        validation.finite("quantize", rows, codebooks)
    except NonFiniteError:
        if len(shape) == 2:  # the place as the caller counts
            vectors = layout.as_vectors(rows, (shape[0], shape[1]))
            validation.finite("quantize", vectors, codebooks)
        raise


def poisoned(spec: Spec, rows: Any, shape: Sequence[int], given: Sequence[Any]) -> list[Any]:
    """Return what `run` gives for NumPy rows it cannot quantize; the state stays as it was."""
    outputs: list[Any] = []
    for size, dtype in shapes(spec, len(rows), shape)[:4]:
        whole = dtype is np.int32
        outputs.append(np.full(size, POISON if whole else np.nan, dtype or rows.dtype))
    outputs[2][:] = spec.n_q  # the losses of all rows are NaN
    if spec.returns_state:
        named = dict(zip(spec.given_names, map(arrays.to_numpy, given), strict=True))
        listed = [*map(codebook_name, range(spec.n_q)), *spec.moved_names]
        outputs += [named[name] for name in listed]
    return outputs


def outputs_of(passed: passes.Pass) -> list[Any]:
    """Return the first four outputs of `run`, in rows even where the batch was none."""
    quantized, batch = passed.quantized, passed.batch
    with batch.there():
        if quantized.dtype != batch.rows.dtype:
            quantized = arrays.namespace(quantized).astype(quantized, batch.rows.dtype)
        codes, quantized = batch.entered.out(passed.codes), batch.entered.out(quantized)
    bandwidth = np.asarray(passed.bandwidth, dtype=np.float32)
    return [codes, quantized, passed.active(), bandwidth]


def state_of(states: Sequence[Any]) -> list[np.ndarray]:
    """Return copies of the arrays of a state in their order."""
    return [value.copy() for name, value in training.entries(states).items() if is_state(name)]


def decode(config: Config, given: Sequence[Any], codes: np.ndarray, start: int) -> np.ndarray:
    """Return what codes (n, ...) from stage `start` on decode to; NaN where that is nothing."""
    try:
        quantizer = prepared(config, search_names(config), given).quantizer
        return np.asarray(quantizer.decode(codes, start))
    except RvqError:
        shape = (codes.shape[1], config.dimension, *codes.shape[2:])
        return np.full(shape, np.nan, np.float32)
