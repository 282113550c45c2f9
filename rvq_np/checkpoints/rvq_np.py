"""This library's own format for any quantizer, compact, as `rvq_np.checkpoints.save` writes it.

Tensors are named by their place, ``rvq_np.parts.1.stages.0.codebook``; the metadata describe how
they are composed.  An array used in several places is stored once.  Arrays that float16 represents
exactly are stored as float16: a model published in half precision takes no more space here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..codebooks import Codebooks, Quantizer
from ..codebooks.composed import Composed, Grouped, Normalized, Parallel, Projected
from ..codebooks.stage import Linear, Stage
from ..errors import CheckpointError, RvqError
from ..files import safetensors
from ..frontend import FrontEnd

PREFIX = "rvq_np."


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 9 if any(name.startswith(PREFIX) for name in tensors) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    try:
        about = json.loads(tensors.metadata[safetensors.KEY])
        version, plan = about["version"], about["codebooks"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has tensors of the format of rvq_np, but not its "
            f"metadata ({error!r})."
        ) from error
    if version != safetensors.VERSION:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has format version {version!r}; this release reads "
            f"{safetensors.VERSION!r}. Upgrade rvq_np."
        )
    try:
        return _Reader(tensors).quantizer(plan)
    except (RvqError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has inconsistent metadata: {error!r}."
        ) from error


def front_end(tensors: Any) -> FrontEnd | None:
    try:
        recorded = json.loads(tensors.metadata[safetensors.KEY]).get("front_end")
        return None if recorded is None else FrontEnd.from_dict(recorded)
    except RvqError as error:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has inconsistent metadata: {error}"
        ) from error


def written(quantizer: Quantizer, front: FrontEnd | None) -> tuple[dict[str, np.ndarray], str]:
    """Return all tensors of a quantizer by name, and the metadata that describe them."""
    writer = _Writer()
    plan = writer.quantizer(quantizer, quantizer.n_q, PREFIX)
    recorded = None if front is None else front.as_dict()
    return writer.tensors, safetensors.description(codebooks=plan, front_end=recorded)


class _Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.names: dict[int, str] = {}

    def quantizer(self, value: Any, n_q: int, place: str) -> dict[str, Any]:
        if isinstance(value, Codebooks):
            stages = value.stages[:n_q]
            return {"stages": [self.stage(each, f"{place}stages.{n}.")
                               for n, each in enumerate(stages)]}  # fmt: skip
        shares = value.shares(n_q)
        parts = list(zip(value.parts, shares, strict=True))
        if value.KIND in ("parallel", "normalized"):
            parts = [(part, share) for part, share in parts if share]
        plans = [self.quantizer(part, max(share, 1), f"{place}parts.{n}.")
                 for n, (part, share) in enumerate(parts)]  # fmt: skip
        plan: dict[str, Any] = {value.KIND: plans, "levels": n_q}
        if value.maps():
            plan["maps"] = [self.linear(linear, f"{place}{name}.")
                            for name, linear in zip(_MAPS, value.maps(), strict=True)]  # fmt: skip
        return plan

    def stage(self, stage: Stage, place: str) -> dict[str, Any]:
        plan: dict[str, Any] = {"words": self.tensor(stage.codebook, f"{place}words")}
        if stage.project_in is not None and stage.project_out is not None:
            plan["maps"] = [self.linear(stage.project_in, f"{place}project_in."),
                            self.linear(stage.project_out, f"{place}project_out.")]  # fmt: skip
        if stage.metric != "euclidean":
            plan["metric"] = stage.metric
        if stage.stride != 1:
            plan["stride"] = stage.stride
        return plan

    def linear(self, linear: Linear, place: str) -> list[str]:
        return [self.tensor(linear.weight, f"{place}weight"),
                self.tensor(linear.bias, f"{place}bias")]  # fmt: skip

    def tensor(self, array: np.ndarray, name: str) -> str:
        if id(array) not in self.names:
            self.names[id(array)] = name
            with np.errstate(over="ignore", under="ignore"):
                half = array.astype(np.float16)
            exact = array.dtype == np.float32 and _same(half.astype(np.float32), array)
            self.tensors[name] = half if exact else array
        return self.names[id(array)]


class _Reader:
    def __init__(self, tensors: Any):
        self.tensors = tensors
        self.stages: dict[str, Any] = {}

    def quantizer(self, plan: dict[str, Any]) -> Codebooks | Composed:
        if "stages" in plan:
            return Codebooks([self.stage(each) for each in plan["stages"]])
        (kind,) = sorted(set(plan) & set(_KINDS))
        parts = [self.quantizer(each) for each in plan[kind]]
        n_q = plan["levels"]
        if kind == Projected.KIND:
            (inner,) = parts
            made: Composed = Projected(inner, *self.maps(plan["maps"]))
        else:
            made = _KINDS[kind](parts)
        if type(n_q) is not int or not 1 <= n_q <= made.n_q:
            raise ValueError(f"got {n_q!r} stages; expected 1 to {made.n_q}")
        return made[:n_q]

    def stage(self, plan: dict[str, Any]) -> Stage:
        key = json.dumps(plan, sort_keys=True)
        if key not in self.stages:  # a stage used several times is one object
            into, out = self.maps(plan["maps"]) if "maps" in plan else (None, None)
            metric, stride = plan.get("metric", "euclidean"), plan.get("stride", 1)
            self.stages[key] = Stage(self.tensors[plan["words"]], into, out, metric, stride)
        return self.stages[key]

    def maps(self, names: list[list[str]]) -> tuple[Linear, Linear]:
        into, out = (Linear(self.tensors[weight], self.tensors[bias]) for weight, bias in names)
        return into, out


_KINDS: dict[str, Any] = {each.KIND: each for each in (Projected, Parallel, Grouped, Normalized)}
_MAPS = ("project_in", "project_out")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()  # -0.0 is not 0.0
