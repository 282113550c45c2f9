"""The part of quantizing no framework differentiates: search, decoding and training, outside it.

A tensor framework wraps one function, `run`, as an operation it cannot look into, and one that
says the shapes of what comes back, `shapes`.  What the operation is to do is a `Spec`, a value
that is also a string, for frameworks whose operations take no objects.  The quantizer's arrays
come as arguments, those that are `needed`, or are those of a quantizer that was `hold` of.
"""

from __future__ import annotations

import itertools
import json
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .. import arrays, passes
from .. import train as training
from ..codebooks import Codebooks
from ..config import Config
from ..errors import BackendError, RvqError
from ..kernels.tables import lent as lent
from ..layout import Batch
from ..quantizer import ResidualVectorQuantizer

REMEMBERED = 4  # quantizers whose prepared tables are kept from call to call


@dataclass(frozen=True)
class Spec:
    """What one pass is to do.

    Attributes
    ----------
    config : Config
    sample_rate, bandwidth
        As for `rvq_np.ResidualVectorQuantizer`.
    training : bool
        Whether to train and to drop levels.
    moving : bool
        Whether training moves the words; False where a framework's optimizer does.
    poison : bool
        Whether bad values give NaN and codes of -1 instead of an error: for callbacks, which must
        not raise.
    held : int
        Number of a quantizer `hold` was called with; 0: its arrays come as arguments.
    hook : int
        Number of an all-reduce `hold` was called with; 0: none.
    """

    config: Config
    sample_rate: float
    bandwidth: float | None = None
    training: bool = False
    moving: bool = True
    poison: bool = False
    held: int = 0
    hook: int = 0

    @property
    def n_q(self) -> int:
        """Levels in use."""
        return self.config.levels_for(self.sample_rate, self.bandwidth)

    def text(self) -> str:
        """Return the spec as JSON."""
        return _text(self)


@lru_cache(maxsize=256)
def _text(spec: Spec) -> str:
    return json.dumps(asdict(spec))


@lru_cache(maxsize=256)
def parse(text: str) -> Spec:
    """Return the spec that `text` was made of."""
    entries = json.loads(text)
    return Spec(Config.from_dict(entries.pop("config")), **entries)


_held: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers: dict[int, tuple[weakref.ref[Any], int]] = {}  # by id, which a later object may have
_next = itertools.count(1)  # no number is used twice: compiled code may outlive what it names
_held_lock = threading.Lock()


def hold(thing: Any) -> int:
    """Return a number by which `run` finds a quantizer or all-reduce, as long as it lives.

    The same for the same object, and never that of another one, not even of one that is gone.
    """
    place = id(thing)

    def forget(reference: Any) -> None:
        if _numbers.get(place, (None,))[0] is reference:
            del _numbers[place]

    with _held_lock:
        known = _numbers.get(place)
        if known is not None and known[0]() is thing:
            return known[1]
        number = next(_next)
        _numbers[place] = (weakref.ref(thing, forget), number)
        _held[number] = thing
        return number


def names(config: Config) -> list[str]:
    """Return the names of all arrays of a quantizer, as in a state dict, in their order."""
    return list(training.shapes(config))


def needed(spec: Spec) -> list[str]:
    """Return the names of the arrays `run` takes: in eval without the statistics of words."""
    every = names(spec.config)
    if spec.training:
        return every
    return [name for name in every if not is_state(name) or name.endswith(".embed")]


def is_state(name: str) -> bool:
    """Return whether training in `run` changes the array: all but the projections."""
    return "_codebook." in name


def shapes(spec: Spec, x_shape: Sequence[Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """Return (shape, dtype) of what `run` gives; None stands for the float type of the vectors."""
    batch, time = x_shape[0], tuple(x_shape[2:])
    rows = batch * time[0] if time else batch
    dropped = spec.training and spec.config.quantizer_dropout
    given: list[tuple[tuple[Any, ...], Any]] = [
        ((spec.n_q, batch, *time), np.int32),
        (tuple(x_shape), None),
        ((rows,), np.int32),
        ((batch,) if dropped else (), np.float32),
    ]
    if spec.training and not spec.held:
        entries = training.shapes(spec.config)
        words = [shape for name, shape in entries.items() if name.endswith(".embed")]
        state = [shape for name, shape in entries.items() if is_state(name)]
        given += [(shape, np.float32) for shape in (*words[: spec.n_q], *state)]
    return given


def run(spec: Spec, x: Any, mask: Any, seed: Any, tensors: Sequence[Any]) -> list[Any]:
    """Quantize a batch and, if the spec says so, train on it.

    Parameters
    ----------
    spec : Spec
    x : array (B, D, T) or (N, D)
        Of any library with a backend.
    mask : array (B, T) or (N,), bool, or None
    seed : array (2,), int, or None
        For training; a held quantizer draws from its own generator.
    tensors : sequence of array
        The quantizer's arrays, see `needed`; none for a held one.

    Returns
    -------
    outputs : list of array
        Codes (n_q, B, T) or (n_q, N) and the vectors they decode to, shaped and typed as `x`,
        both in its library; then as NumPy the levels that make up each row (N,), 0 for padding,
        the bandwidth; in training, of arrays that came as arguments, also the words (K, C) of
        every level in use that the codes name, and all new arrays of the state, see `is_state`.

    Raises
    ------
    RvqError
        As `rvq_np.ResidualVectorQuantizer.forward`, unless the spec says poison.
    """
    try:
        return _run(spec, x, mask, seed, tensors)
    except RvqError:
        if not spec.poison:
            raise
        return poisoned(spec, x, tensors)


def run_mapped(
    spec: Spec, axes: int, x: Any, mask: Any, seed: Any, tensors: Sequence[Any]
) -> list[Any]:
    """`run` for NumPy arrays with `axes` more axes in front: of the mapped length, or of one.

    A mapped axis of the vectors becomes part of the batch; where the quantizer itself is mapped,
    or trains, one runs after the other.
    """
    given = [x, mask, seed, *tensors]
    lead = np.broadcast_shapes(*(each.shape[:axes] for each in given if each is not None))
    together = not spec.training and all(set(each.shape[:axes]) <= {1} for each in tensors)
    if together:
        flat = [
            None if each is None else np.broadcast_to(each, lead + each.shape[axes:])
            for each in (x, mask)
        ]
        x, mask = (None if each is None else each.reshape(-1, *each.shape[axes + 1 :])
                   for each in flat)  # fmt: skip
        tensors = [each.reshape(each.shape[axes:]) for each in tensors]
        codes, quantized, active, bandwidth = run(spec, x, mask, None, tensors)
        codes = codes.reshape(spec.n_q, *lead, -1, *codes.shape[2:])
        return [
            np.moveaxis(codes, 0, axes),
            quantized.reshape(*lead, -1, *quantized.shape[1:]),
            active.reshape(*lead, -1),
            np.broadcast_to(bandwidth, lead),
        ]
    whole = [None if each is None else np.broadcast_to(each, lead + each.shape[axes:])
             for each in given]  # fmt: skip
    runs = []
    for place in np.ndindex(lead):
        x, mask, seed, *tensors = (None if each is None else each[place] for each in whole)
        runs.append(run(spec, x, mask, seed, tensors))
    return [np.stack(parts).reshape(lead + parts[0].shape) for parts in zip(*runs, strict=True)]


def poisoned(spec: Spec, x: Any, tensors: Sequence[Any]) -> list[Any]:
    """Return what `run` gives for NumPy vectors it cannot quantize; the state stays as it was."""
    outputs: list[Any] = []
    for shape, dtype in shapes(spec, x.shape)[:4]:
        whole = dtype is np.int32
        outputs.append(np.full(shape, -1 if whole else np.nan, dtype or x.dtype))
    outputs[2][:] = spec.n_q  # the losses of all rows are NaN
    if spec.training and not spec.held:
        named = dict(zip(names(spec.config), map(arrays.to_numpy, tensors), strict=True))
        words = [tensor for name, tensor in named.items() if name.endswith(".embed")]
        state = [tensor for name, tensor in named.items() if is_state(name)]
        outputs += [*words[: spec.n_q], *state]
    return outputs


def outputs_of(passed: passes.Pass) -> list[Any]:
    """Return the first four outputs of `run`."""
    return [
        passed.batch.codes(passed.codes),
        passed.batch.vectors(passed.quantized),
        passed.active(),
        np.asarray(passed.bandwidth, dtype=np.float32),
    ]


def entries_of(codebooks: Codebooks) -> dict[str, np.ndarray]:
    """Return words and projections by their names: what the gradients of a pass are of."""
    named = {}
    for level, stage in enumerate(codebooks.stages):
        layer = f"vq.layers.{level}."
        named[f"{layer}_codebook.embed"] = stage.words
        for name, linear in (("project_in", stage.project_in), ("project_out", stage.project_out)):
            if linear is not None:
                named[f"{layer}{name}.weight"] = linear.weight
                named[f"{layer}{name}.bias"] = linear.bias
    return named


def state_of(states: Sequence[Any], projections: training.Projections) -> list[np.ndarray]:
    """Return copies of the arrays of a state in their order."""
    entries = training.entries(states, projections)
    return [value.copy() for name, value in entries.items() if is_state(name)]


def decode(config: Config, tensors: Sequence[Any], codes: np.ndarray, start: int) -> np.ndarray:
    """Return what codes (n, ...) from level `start` on decode to; NaN where that is nothing."""
    try:
        return np.asarray(recall(config, tensors).quantizer.decode(codes, start))
    except RvqError:
        shape = (codes.shape[1], config.dimension, *codes.shape[2:])
        return np.full(shape, np.nan, np.float32)


def _run(spec: Spec, x: Any, mask: Any, seed: Any, tensors: Sequence[Any]) -> list[Any]:
    passed = passed_by(spec, x, mask, seed, tensors)
    outputs = outputs_of(passed)
    if spec.training and not spec.held:
        outputs += [stage.words.copy() for stage in passed.codebooks.stages[: spec.n_q]]
        outputs += state_of(passed.states, None)
    return outputs


def passed_by(spec: Spec, x: Any, mask: Any, seed: Any, tensors: Sequence[Any]) -> passes.Pass:
    """Do what `run` does; return all that its outputs are made of, and remember the new state."""
    if spec.held:
        return _find(spec.held).passed("quantize", x, spec.sample_rate, spec.bandwidth, mask)
    known = recall(spec.config, tensors)
    batch = Batch("quantize", x, known.codebooks, mask)
    numbers = arrays.to_numpy(seed) if spec.training else ()
    given = [int(part) % (1 << 32) for part in numbers] if spec.training else None
    per_level = spec.config.bandwidth_per_quantizer(spec.sample_rate)
    passed = passes.forward(
        known.states, known.projections, known.codebooks, batch, spec.config, spec.n_q,
        per_level, seed=given, moving=spec.moving,
        all_reduce=_find(spec.hook) if spec.hook else training.ALONE,
    )  # fmt: skip
    if spec.training:
        _remember(spec.config, passed.states, known.projections, passed.codebooks)
    return passed


def _find(number: int) -> Any:
    try:
        return _held[number]
    except KeyError:
        raise BackendError(
            "quantize: the quantizer or all_reduce this was traced with is gone; keep it as long "
            "as what was compiled with it."
        ) from None


@dataclass(frozen=True)
class Known:
    """A quantizer made of arrays, and those arrays."""

    config: Config
    tensors: list[np.ndarray]
    states: tuple[training.CodebookState, ...]
    projections: training.Projections
    codebooks: Codebooks

    @cached_property
    def needed(self) -> list[np.ndarray]:
        """Those of the arrays that are `needed` in eval."""
        wanted = set(needed(Spec(self.config, 1.0)))
        named = zip(names(self.config), self.tensors, strict=True)
        return [tensor for name, tensor in named if name in wanted]

    @cached_property
    def quantizer(self) -> ResidualVectorQuantizer:
        """The quantizer without a framework, in eval: for what needs no gradient."""
        return ResidualVectorQuantizer.made_of(self.config, self.states, self.projections).eval()


_known: deque[Known] = deque(maxlen=REMEMBERED)
_known_lock = threading.Lock()


def recall(config: Config, tensors: Sequence[Any]) -> Known:
    """Return the quantizer of these arrays, the same one again as long as they hold the same.

    Their contents are compared, at the speed of memory: frameworks change arrays in place, and
    neither identity nor version counters tell of all of it.
    """
    given = [arrays.to_numpy(tensor) for tensor in tensors]
    with _known_lock:
        recent = [known for known in _known if known.config == config]
    some = len(given) < len(names(config))
    nearest, most = None, set[str]()
    for known in reversed(recent):
        listed = needed(Spec(config, 1.0)) if some else names(config)
        ours = known.needed if some else known.tensors
        same = {name for name, a, b in zip(listed, ours, given, strict=True) if _same(a, b)}
        if len(same) == len(listed):
            return known
        if len(same) > len(most):
            nearest, most = known, same
    if some:
        return _remember(config, *_without_statistics(config, given))
    named = dict(zip(names(config), given, strict=True))
    if nearest is None:
        return _remember(config, *training.from_state_dict(named, config))
    # An optimizer has moved the projections, say: what is the same is not looked at again.
    made = training.from_state_dict(named, config, most, nearest.states, nearest.projections)
    return _remember(config, *made, nearest.codebooks)


def _without_statistics(config: Config, given: list[np.ndarray]) -> tuple[Any, Any]:
    """Return states and projections made of the arrays that are `needed` in eval."""
    named = dict(zip(needed(Spec(config, 1.0)), given, strict=True))
    for name, shape in training.shapes(config).items():
        if name not in named:
            named[name] = np.ones(shape, np.float32)
    return training.from_state_dict(named, config)


def _remember(
    config: Config,
    states: Any,
    projections: training.Projections,
    before: Codebooks | None = None,
) -> Known:
    tensors = list(training.entries(states, projections).values())
    codebooks = training.codebooks_of(states, projections, before)
    known = Known(config, tensors, tuple(states), projections, codebooks)
    with _known_lock:
        _known.append(known)
    return known


def _same(ours: np.ndarray, given: np.ndarray) -> bool:
    """Whether both hold the same bits, which is quicker to tell than the same numbers."""
    if ours.dtype != given.dtype or not given.flags.c_contiguous:
        return bool(np.array_equal(ours, given))
    whole = np.uint64 if ours.nbytes % 8 == 0 else np.uint32
    flat, other = ours.reshape(-1).view(whole), given.reshape(-1).view(whole)
    # The first few tell most different arrays apart.
    return bool((flat[:8] == other[:8]).all() and (flat == other).all())
