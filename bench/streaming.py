"""The time per frame of a stream, at the shapes of published codecs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import rvq_np
from rvq_np import Codebooks, Linear, Parallel, Projected, Stage, StreamEncoder

from . import peers, problems
from .report import Answer, Table, duration, plural
from .setting import Setting
from .threads import fixed_threads
from .timing import singles

Frames = Callable[[np.ndarray], object]
STRIDES = (4, 2, 1)


def streaming(setting: Setting, threads: int) -> Answer:
    """How long does a frame of a stream take, compared with one call and the torch modules?"""
    rows = []
    with fixed_threads(threads):
        for name, (quantizer, baseline, theirs) in _models().items():
            block = quantizer.block
            x = np.random.default_rng(1).standard_normal((512, quantizer.dim)).astype(np.float32)
            stream = StreamEncoder(quantizer)
            calls: dict[str, tuple[Frames, int]] = {"push, one frame": (stream.push, 1)}
            calls["encode, a block"] = (lambda some, q=quantizer: rvq_np.encode(some, q), block)
            if theirs is not None:
                calls[baseline] = (theirs, block)
            for what, (call, frames) in calls.items():
                print(f"streaming, {name}: {what}", flush=True)
                taken = _each(call, x, frames, setting.singles // 4)
                middle, late = np.percentile(taken, (50, 99))
                mean = float(taken.mean()) / frames
                rows.append((name, what, str(block - 1), duration(middle), duration(late),
                             duration(mean)))  # fmt: skip
    note = (
        "Consecutive, different frames. A frame waits for as many others as in the third column. "
        "Percentiles are per call, the mean is per frame: a block is encoded with its last "
        "frame, so most pushes only store theirs. torch's modules decode as well, except EnCodec's "
        "formula and Mimi's; they get whole blocks."
    )
    header = ("model", "", "frames waited for", "p50", "p99", "mean a frame")
    return Answer([Table(f"Streaming; {plural(threads)}", note, header, rows, text_columns=2)])


def _each(call: Frames, x: np.ndarray, frames: int, count: int) -> np.ndarray:
    place = 0

    def once() -> None:
        nonlocal place
        call(x[place : place + frames])
        place = (place + frames) % len(x)

    for _ in range(20):
        once()
    return singles(once, count)


def _models() -> dict[str, tuple[object, str, Frames | None]]:
    """Return per model our quantizer, the name of the baseline, and its encoder of frames."""
    _, codebooks = problems.FRAME.data()
    _, stages = problems.mapped(1)
    snac = problems.mapped(1, dim=768, size=4096, stages=len(STRIDES))[1]
    semantic, acoustic = _stack(1), _stack(7)
    return {
        "EnCodec, 8 stages": (
            Codebooks(codebooks), "torch, EnCodec's formula",
            _baseline(lambda: peers.torch_encodec(codebooks).run),
        ),
        "DAC, 9 stages": (
            _factorized(stages, [1] * 9), "torch, DAC's module",
            _baseline(lambda: peers.dac_torch(stages).run),
        ),
        "SNAC, 3 stages": (
            _factorized(snac, STRIDES), "torch, SNAC's module", _baseline(lambda: _snac(snac)),
        ),
        "Mimi, 8 stages": (
            Parallel([semantic, acoustic]), "torch, Mimi's in transformers",
            _baseline(lambda: _mimi(semantic, acoustic)),
        ),
    }  # fmt: skip


def _baseline(make: Callable[[], Frames]) -> Frames | None:
    try:
        return make()
    except ImportError:
        return None


def _factorized(stages: list[problems.Mapped], strides) -> Codebooks:
    return Codebooks(
        Stage(each.codebook, Linear(each.weight_in, each.bias_in),
              Linear(each.weight_out, each.bias_out), "cosine", stride)
        for each, stride in zip(stages, strides, strict=True)
    )  # fmt: skip


def _stack(stages: int) -> Projected:
    rng = np.random.default_rng(stages)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    into = Linear(normal(256, 512) / 512**0.5, np.zeros(256, np.float32))
    out = Linear(normal(512, 256) / 16, np.zeros(512, np.float32))
    return Projected(normal(stages, 2048, 256), into, out)


def _snac(stages: list[problems.Mapped]) -> Frames:
    import torch
    from snac.vq import ResidualVectorQuantize

    dim, size = stages[0].weight_in.shape[1], len(stages[0].codebook)
    made = ResidualVectorQuantize(dim, size, stages[0].codebook.shape[1], list(STRIDES)).eval()

    @torch.inference_mode()
    def run(x):
        return made(torch.from_numpy(x).t()[None])

    return run


def _mimi(semantic: Projected, acoustic: Projected) -> Frames:
    import torch
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiSplitResidualVectorQuantizer

    made = MimiSplitResidualVectorQuantizer(MimiConfig(num_quantizers=8)).eval()
    stacks = made.semantic_residual_vector_quantizer, made.acoustic_residual_vector_quantizer
    for stack, ours in zip(stacks, (semantic, acoustic), strict=True):
        for layer, stage in zip(stack.layers, ours.stages, strict=True):
            layer.codebook.embed_sum.data.copy_(torch.from_numpy(stage.codebook.copy()))

    @torch.inference_mode()
    def run(x):
        return made.encode(torch.from_numpy(x).t()[None])

    return run
