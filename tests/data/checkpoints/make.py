"""Make the golden files again: ``python tests/data/checkpoints/make.py``, with the peers installed.

For each model a checkpoint as its package saves it, here with the quantizer alone, some vectors,
and the codes, one a frame, and the decoded vectors that the package itself gives for them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from helpers import published  # noqa: E402

LEFT_OUT = {  # others show the same; a HiFiCodec has 512 channels or none
    "espnet", "espnet-bare", "faiss-norms", "hificodec", "hificodec-bare", "snac-44khz",
    "mimi-two-semantic", "mimi-hf-without-maps", "grouped-residual-vq",
}  # fmt: skip


def main():
    versions = {}
    for name in sorted(set(published.BUILDERS) - LEFT_OUT):
        model = published.build(name, seed=1)
        torch.manual_seed(2)
        x = torch.randn(1, model.dim, 24)
        with torch.no_grad():
            codes = model.encode(x, len(model.sizes))
            if len(set(model.strides)) == 1:
                codes = torch.as_tensor(np.asarray(codes))
            levels = zip(codes, model.strides, strict=True)
            frames = np.stack([np.repeat(level[0], stride) for level, stride in levels])
            decoded = torch.as_tensor(np.asarray(model.decode(codes)))
        if model.content:
            (HERE / f"{name}.faissindex").write_bytes(model.content)
        else:
            tensors = {key: value.clone().contiguous() for key, value in model.tensors.items()}
            save_file(tensors, HERE / f"{name}.safetensors")
        np.savez_compressed(
            HERE / f"{name}.npz",
            x=x[0].T.numpy(),
            codes=frames.astype(np.int32),
            decoded=decoded[0].T.numpy(),
        )
        versions[name] = {
            "family": model.family,
            "package": model.package,
            "version": model.version,
            "torch": torch.__version__,
            "config": model.config,
            "asked": model.asked,
        }
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
