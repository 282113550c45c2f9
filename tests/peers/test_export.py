"""What is handed back loads in the families' own modules: the same codes, the same vectors."""

import numpy as np
import pytest
import torch
from helpers import published, regret
from safetensors.torch import load_file
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Projected, Stage, checkpoints

RARE = 0.01


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def codewords(rng, *shape):
    return normal(rng, *shape) * np.float32(0.7) ** np.arange(shape[0])[:, None, None]


def linear(rng, inputs, outputs):
    return Linear(normal(rng, outputs, inputs) / inputs**0.5, normal(rng, outputs) / 4)


def between(rng, dim=8, width=4):
    return Projected(codewords(rng, 3, 16, width), linear(rng, dim, width), linear(rng, width, dim))


def mapped(rng):
    return Codebooks(
        [Stage(each, linear(rng, 8, 4), linear(rng, 4, 8)) for each in codewords(rng, 3, 16, 4)]
    )


def cosine(rng):
    books = normal(rng, 3, 16, 8)
    books /= np.linalg.norm(books, axis=2, keepdims=True)
    return Codebooks([Stage(each, metric="cosine") for each in books])


def of_espnet(width):
    made = published.Espnet(8, width, 3, 16, threshold_ema_dead_code=2)
    return made, lambda x: made.vq.encode(x, n_q=3), made.decode


def of_encodec():
    module = published.imported("encodec.quantization")
    made = module.ResidualVectorQuantizer(8, 3, 16)
    return made, lambda x: made.vq.encode(x, n_q=3), made.decode


def of_residual_vq(kind=ResidualVQ, **arguments):
    made = kind(dim=8, num_quantizers=3, codebook_size=16, **arguments)

    def encode(x):
        codes = made(x.transpose(1, 2))[1]
        if kind is ResidualVQ:
            return codes.movedim(-1, 0)
        codes = codes.permute(3, 0, 1, 2)  # (G, B, T, Q), here groups take turns
        return codes.reshape(-1, *codes.shape[2:])

    def decode(codes):
        if kind is ResidualVQ:
            return made.get_output_from_indices(codes.movedim(0, -1)).transpose(1, 2)
        codes = codes.reshape(3, 2, *codes.shape[1:]).permute(1, 2, 3, 0)
        return made.get_output_from_indices(codes).transpose(1, 2)

    return made, encode, decode


CASES = {
    "espnet": ("espnet", lambda rng: Codebooks(codewords(rng, 3, 16, 8)), lambda: of_espnet(8)),
    "espnet, projected": ("espnet", mapped, lambda: of_espnet(4)),
    "encodec": ("encodec", lambda rng: Codebooks(codewords(rng, 3, 16, 8)), of_encodec),
    "ResidualVQ": (
        "vector_quantize_pytorch", lambda rng: Codebooks(codewords(rng, 3, 16, 8)), of_residual_vq,
    ),
    "ResidualVQ, cosine": (
        "vector_quantize_pytorch", cosine, lambda: of_residual_vq(use_cosine_sim=True),
    ),
    "ResidualVQ, projected": (
        "vector_quantize_pytorch", between, lambda: of_residual_vq(codebook_dim=4),
    ),
    "GroupedResidualVQ": (
        "vector_quantize_pytorch",
        lambda rng: Grouped([codewords(rng, 3, 16, 4), codewords(rng, 3, 16, 4)]),
        lambda: of_residual_vq(GroupedResidualVQ, groups=2),
    ),
    "GroupedResidualVQ, projected": (
        "vector_quantize_pytorch",
        lambda rng: Grouped([between(rng, 4, 3), between(rng, 4, 3)]),
        lambda: of_residual_vq(GroupedResidualVQ, groups=2, codebook_dim=3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_module_has_our_codes_and_vectors(case, rng, tmp_path):
    family, make, build = CASES[case]
    quantizer = make(rng)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module, encode, decode = build()
    checkpoints.save(tmp_path / "a.safetensors", quantizer, family)
    module.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    module.eval()
    x = normal(rng, 2, 8, 150)
    codes = rvq_np.encode(x.swapaxes(1, 2), quantizer)
    with torch.no_grad():
        theirs = encode(torch.from_numpy(x)).numpy()
        back = decode(torch.from_numpy(codes.astype(np.int64))).numpy()
    assert theirs.shape == codes.shape
    assert (theirs != codes).any(axis=0).mean() <= RARE
    ours = rvq_np.decode(codes, quantizer).swapaxes(1, 2)
    np.testing.assert_allclose(back, ours, rtol=0, atol=2e-6 * np.abs(ours).max())
    if isinstance(quantizer, Codebooks):  # the judge knows stages
        regret.assert_nearest(x.swapaxes(1, 2).reshape(-1, 8), theirs.reshape(3, -1), quantizer)


@pytest.mark.parametrize("case", ["espnet", "encodec"])
def test_training_goes_on_without_replacing_every_codeword(case, rng, tmp_path):
    """Modules that expire codewords below a count of 2 would replace codewords without a count."""
    family, make, build = CASES[case]
    quantizer = make(rng)
    module = build()[0]
    checkpoints.save(tmp_path / "a.safetensors", quantizer, family)
    module.load_state_dict(load_file(tmp_path / "a.safetensors"))
    module.train()
    module(torch.from_numpy(normal(rng, 2, 8, 150)), 50)
    moved = module.vq.layers[0]._codebook.embed.numpy() - quantizer.stages[0].codebook
    assert 0 < np.abs(moved).max() < 0.2
