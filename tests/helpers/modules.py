"""Modules of torch against what is loaded of them here: the same codes, the same vectors."""

import numpy as np
import torch
from safetensors.torch import save_file

import rvq_np

from . import regret


def randomize(module, names=("embed", "embed_sum")):
    for name, value in module.state_dict().items():
        last = name.rpartition(".")[2]
        if last in ("inited", "initialized"):
            value.fill_(1)
        elif last in ("cluster_size", "cluster_usage"):
            value.copy_(0.5 + torch.rand_like(value))
        else:
            width = value.shape[1] if value.ndim > 1 and last == "weight" else 1
            value.copy_(torch.randn_like(value) * max(width, 1) ** -0.5)


def saved(folder, prefix, module, **beside):
    tensors = {f"{prefix}{name}": value for name, value in module.state_dict().items()} | beside
    tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def assert_equal(quantizer, x, codes, decode, *, through=False, cdist=False):
    """Assert that codes (Q, B, T) of `x` (B, D, T), and what any decode to, are those of ours."""
    rows = np.moveaxis(x.numpy(), 1, 2)
    mine = rvq_np.encode(rows, quantizer)
    theirs = codes.numpy()
    assert mine.shape == theirs.shape
    flat = rows.reshape(-1, rows.shape[2])
    for each in (mine, theirs):
        some = [stage.reshape(-1) for stage in each]
        regret.assert_nearest(flat, some, quantizer, through=through, cdist=cdist)
    assert (mine != theirs).any(axis=0).mean() <= 0.01
    drawn = np.stack([np.random.default_rng(q).integers(0, size, theirs.shape[1:])
                      for q, size in enumerate(quantizer.sizes)])  # fmt: skip
    with torch.no_grad():
        vectors = np.moveaxis(decode(torch.from_numpy(drawn)).numpy(), 1, 2)
    some = [stage.reshape(-1) for stage in drawn]
    for each in (vectors, rvq_np.decode(drawn, quantizer)):
        regret.assert_decodes(each.reshape(-1, quantizer.dim), some, quantizer)
