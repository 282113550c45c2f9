"""The overhead of the quantizers of frameworks over the NumPy class: time, and copies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import grad
from rvq_np.kernels import dispatch

from . import problems
from .problems import Problem
from .report import Answer, Table, duration, plural
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

RATE = 50
OURS = "rvq_np, NumPy"
ROWS = (1, 64, 4096)


class Calls(NamedTuple):
    """The calls of one framework on the same vectors; ``pointer(x)`` is their address."""

    forward: Callable[[], Any]
    gradient: Callable[[], Any]
    step: Callable[[], Any]
    x: Any
    quantized: Callable[[Any], Any]
    pointer: Callable[[Any], int]


def shims(setting: Setting, threads: int) -> Answer:
    """What is the overhead of the quantizer of a framework over the NumPy class?"""
    tables = []
    dispatch.load()
    with fixed_threads(threads):
        for rows in ROWS:
            problem = setting.smaller(problems.BATCH._replace(rows=rows))
            x, codebooks = problem.data()
            made = {}
            for name, make in FRAMEWORKS.items():
                with contextlib.suppress(ImportError):
                    made[name] = make(problem, x, codebooks)
            copies = {name: _copies(calls) for name, calls in made.items()}
            columns = []
            for what in ("forward", "gradient", "step"):
                calls = {name: getattr(each, what) for name, each in made.items()}
                for call in calls.values():
                    call()
                label = f"shims, {what}, {problem.label}, {plural(threads)}"
                columns.append(round_robin(calls, setting.rounds, label))
            lines = [
                (name, *(f"{duration(each[name])}" for each in columns),
                 duration(columns[0][name] - columns[0][OURS]), copies[name])
                for name in made
            ]  # fmt: skip
            header = ("", "forward", "with gradient", "training step", "forward, above", "copied")
            title = f"Shims, {problem.label}; {plural(threads)}"
            tables.append(Table(title, NOTE if rows == ROWS[0] else "", header, lines))
    return Answer(tables)


NOTE = (
    "Vectors (N, D), float32. Forward: eval, codes and vectors. With gradient: also that of a sum "
    "of squares to x. Training step: forward and gradient in train mode, updating the codebooks. "
    "JAX is compiled by jit, torch is eager; both wait for the result. Copied: whether vectors "
    "are copied before the kernel, and the result after it."
)


def _copies(calls: Calls) -> str:
    """Return which of the input and output vectors are copied: at another address in the kernel."""
    with _watched() as seen:
        result = calls.forward()
    given, made = seen["encode"], seen["decode"]
    ways = [
        "in" * (calls.pointer(calls.x) != given),
        "out" * (calls.pointer(calls.quantized(result)) != made),
    ]
    return " and ".join(filter(None, ways)) or "nothing"


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, int]]:
    """Yield the addresses from which the kernels read vectors, and to which they write them."""
    seen: dict[str, int] = {}
    encode, decode = dispatch.encode, dispatch.decode

    def encoding(x, *rest, **named):
        seen["encode"] = x.ctypes.data
        return encode(x, *rest, **named)

    def decoding(*arguments, **named):
        vectors = decode(*arguments, **named)
        seen["decode"] = vectors.ctypes.data
        return vectors

    dispatch.encode, dispatch.decode = encoding, decoding
    try:
        yield seen
    finally:
        dispatch.encode, dispatch.decode = encode, decode


def _quantizer(problem: Problem, codebooks: np.ndarray) -> rvq_np.ResidualVectorQuantizer:
    """Return a trained quantizer of these codebooks, without dead-code replacement."""
    rvq = rvq_np.ResidualVectorQuantizer(
        problem.dim, problem.dim, n_q=problem.stages, bins=problem.size,
        threshold_ema_dead_code=0, kmeans_init=False, rng=0,
    )  # fmt: skip
    state = rvq.state_dict()
    for q, codebook in enumerate(codebooks):
        state[f"vq.layers.{q}._codebook.embed"] = codebook
        state[f"vq.layers.{q}._codebook.embed_avg"] = codebook
        state[f"vq.layers.{q}._codebook.cluster_size"] = np.ones(len(codebook), np.float32)
    rvq.load_state_dict(state)
    return rvq


def _numpy(problem: Problem, x: np.ndarray, codebooks: np.ndarray) -> Calls:
    still, moving = (_quantizer(problem, codebooks) for _ in range(2))
    still.eval()

    def gradient(rvq):
        result, vjp = grad.quantize_vjp(x, rvq, RATE)
        return vjp(2 * result.quantized, penalty=1.0)

    return Calls(
        lambda: still(x, RATE), lambda: gradient(still), lambda: gradient(moving), x,
        lambda result: result.quantized, lambda array: array.ctypes.data,
    )  # fmt: skip


def _torch(problem: Problem, x: np.ndarray, codebooks: np.ndarray) -> Calls:
    import torch

    from rvq_np.grad.torch import ResidualVectorQuantizer

    still, moving = (ResidualVectorQuantizer.of(_quantizer(problem, codebooks)) for _ in range(2))
    still.eval()
    given = torch.from_numpy(x)

    def forward():
        with torch.no_grad():
            return still(given, RATE)

    def gradient(module):
        tensor = given.detach().requires_grad_()
        result = module(tensor, RATE)
        (result.quantized.square().sum() + result.penalty).backward()
        return tensor.grad

    return Calls(
        forward, lambda: gradient(still), lambda: gradient(moving), given,
        lambda result: result.quantized, torch.Tensor.data_ptr,
    )  # fmt: skip


def _jax(problem: Problem, x: np.ndarray, codebooks: np.ndarray) -> Calls:
    import jax

    from rvq_np.grad.jax import ResidualVectorQuantizer

    config = _quantizer(problem, codebooks)
    rvq = ResidualVectorQuantizer(**config.config.as_dict())
    parameters, state = rvq.of(config)
    given, key = jax.numpy.asarray(x), jax.random.key(0)

    def loss(x, state, train):
        result, state = rvq.apply(parameters, state, x, RATE, train=train, key=key)
        return (result.quantized**2).sum() + result.penalty, state

    forward = jax.jit(lambda x, state: rvq.apply(parameters, state, x, RATE)[0])
    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)
    return Calls(
        lambda: jax.block_until_ready(forward(given, state)),
        lambda: jax.block_until_ready(gradient(given, state, False)),
        lambda: jax.block_until_ready(gradient(given, state, True)),
        given, lambda result: result.quantized, lambda array: array.unsafe_buffer_pointer(),
    )  # fmt: skip


FRAMEWORKS = {OURS: _numpy, "torch": _torch, "JAX": _jax}
