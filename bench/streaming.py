"""What a frame costs while the signal comes, at the shapes of published codecs."""

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
    """How long does a frame take as it comes, beside one call and the torch modules?"""
    rows = []
    with fixed_threads(threads):
        for name, (quantizer, rival, theirs) in _models().items():
            block = quantizer.block
            x = np.random.default_rng(1).standard_normal((512, quantizer.dim)).astype(np.float32)
            stream = StreamEncoder(quantizer)
            calls: dict[str, tuple[Frames, int]] = {"push, one frame": (stream.push, 1)}
            calls["encode, a block"] = (lambda some, q=quantizer: rvq_np.encode(some, q), block)
            if theirs is not None:
                calls[rival] = (theirs, block)
            for what, (call, frames) in calls.items():
                print(f"streaming, {name}: {what}", flush=True)
                taken = _each(call, x, frames, setting.singles // 4)
                middle, late = np.percentile(taken, (50, 99))
                mean = float(taken.mean()) / frames
                rows.append((name, what, str(block - 1), duration(middle), duration(late),
                             duration(mean)))  # fmt: skip
    note = (
        "Frames in a row, each another one. A frame waits for as many others as the third column "
        "says. Percentiles are of a call, the mean is of a frame: where a block is coded with its "
        "last frame, most pushes only keep theirs. torch's modules decode as well, all but "
        "EnCodec's formula and Mimi's; theirs get whole blocks."
    )
    header = ("model", "", "frames waited for", "p50", "p99", "mean a frame")
    return Answer([Table(f"Streaming; {plural(threads)}", note, header, rows, words=2)])


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
    """Return per model our quantizer, what the other is, and the other's encoder of frames."""
    _, words = problems.FRAME.data()
    _, levels = problems.mapped(1)
    snac = problems.mapped(1, dim=768, words=4096, levels=len(STRIDES))[1]
    semantic, acoustic = _stack(1), _stack(7)
    return {
        "EnCodec, 8 levels": (
            Codebooks(words), "torch, EnCodec's formula",
            _rival(lambda: peers.torch_encodec(words).run),
        ),
        "DAC, 9 levels": (
            _factorized(levels, [1] * 9), "torch, DAC's module",
            _rival(lambda: peers.dac_torch(levels).run),
        ),
        "SNAC, 3 levels": (
            _factorized(snac, STRIDES), "torch, SNAC's module", _rival(lambda: _snac(snac)),
        ),
        "Mimi, 8 levels": (
            Parallel([semantic, acoustic]), "torch, Mimi's in transformers",
            _rival(lambda: _mimi(semantic, acoustic)),
        ),
    }  # fmt: skip


def _rival(make: Callable[[], Frames]) -> Frames | None:
    try:
        return make()
    except ImportError:
        return None


def _factorized(levels: list[problems.Mapped], strides) -> Codebooks:
    return Codebooks(
        Stage(each.words, Linear(each.weight_in, each.bias_in),
              Linear(each.weight_out, each.bias_out), "cosine", stride)
        for each, stride in zip(levels, strides, strict=True)
    )  # fmt: skip


def _stack(levels: int) -> Projected:
    rng = np.random.default_rng(levels)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    into = Linear(normal(256, 512) / 512**0.5, np.zeros(256, np.float32))
    out = Linear(normal(512, 256) / 16, np.zeros(512, np.float32))
    return Projected(normal(levels, 2048, 256), into, out)


def _snac(levels: list[problems.Mapped]) -> Frames:
    import torch
    from snac.vq import ResidualVectorQuantize

    dim, size = levels[0].weight_in.shape[1], len(levels[0].words)
    made = ResidualVectorQuantize(dim, size, levels[0].words.shape[1], list(STRIDES)).eval()

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
            layer.codebook.embed_sum.data.copy_(torch.from_numpy(stage.words.copy()))

    @torch.inference_mode()
    def run(x):
        return made.encode(torch.from_numpy(x).t()[None])

    return run
