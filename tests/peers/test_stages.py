"""``n_q=``, no sample rate, and what they say of themselves: as the class, in every framework."""

import re

import jax
import jax.numpy as jnp
import mlx.core as mx
import numpy as np
import pytest
import torch

import rvq_np
from rvq_np import grad
from rvq_np.errors import LevelsError, ParameterError
from rvq_np.grad.jax import ResidualVectorQuantizer as InJax
from rvq_np.grad.mlx import ResidualVectorQuantizer as InMlx
from rvq_np.grad.torch import ResidualVectorQuantizer as InTorch

X = np.random.default_rng(0).standard_normal((2, 6, 20)).astype(np.float32)
SHAPE = {"dimension": 6, "codebook_dim": 6, "n_q": 3, "bins": 8}


def trained():
    rvq = rvq_np.ResidualVectorQuantizer(**SHAPE, rng=0)
    rvq(np.random.default_rng(1).standard_normal((200, 6)).astype(np.float32))
    return rvq.eval()


class Jax:
    """The pure functions as an object with arrays, as the others are."""

    def __init__(self, rvq):
        self.rvq = InJax(**rvq.config.as_dict())
        self.arrays = self.rvq.of(rvq)

    def __call__(self, x, *given, **named):
        return self.rvq.apply(*self.arrays, x, *given, **named)[0]

    def encode(self, x, *given, **named):
        return self.rvq.encode(*self.arrays, x, *given, **named)

    def decode(self, codes, *given, **named):
        return self.rvq.decode(*self.arrays, codes, *given, **named)


MADE = {
    "torch": (InTorch.of, torch.from_numpy), "jax": (Jax, jnp.asarray), "mlx": (InMlx.of, mx.array),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_stages_are_asked_for_as_of_the_class(name):
    rvq = trained()
    of, array = MADE[name]
    module, x = of(rvq), array(X)
    for n in (1, 2, 3):
        expected, result = rvq(X, n_q=n), module(x, n_q=n)
        np.testing.assert_array_equal(np.asarray(result.codes), expected.codes)
        np.testing.assert_array_equal(np.asarray(result.quantized), expected.quantized)
        assert float(result.bandwidth) == 3 * n  # bits per vector
        assert float(module(x, 50, n_q=n).bandwidth) == pytest.approx(0.15 * n)
        np.testing.assert_array_equal(np.asarray(module.encode(x, n_q=n)), expected.codes)
        decoded = module.decode(module.encode(x), n_q=n)
        np.testing.assert_array_equal(np.asarray(decoded), expected.quantized)
        gradient = grad.quantize(x, rvq, n_q=n)
        np.testing.assert_array_equal(np.asarray(gradient.codes), expected.codes)
    np.testing.assert_array_equal(
        np.asarray(module.encode(x, st=1, n_q=2)), rvq.encode(X, st=1, n_q=2)
    )
    for call in (module, module.encode):
        with pytest.raises(ParameterError, match="got bandwidth=1 and n_q=2; expected one of them"):
            call(x, 50, 1, n_q=2)
        with pytest.raises(
            ParameterError, match="got bandwidth=1 and no sample_rate; expected both"
        ):
            call(x, bandwidth=1)
        with pytest.raises(LevelsError, match="n_q is 4; expected 1 to 3"):
            call(x, n_q=4)
    with pytest.raises(LevelsError, match="decode: n_q is 4; expected 1 to 3"):
        module.decode(module.encode(x), n_q=4)


def test_stages_are_asked_for_where_frameworks_compile():
    rvq = trained()
    module = InTorch.of(rvq)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    np.testing.assert_array_equal(compiled(torch.from_numpy(X), n_q=2).codes, rvq.encode(X, n_q=2))
    codes = jax.jit(lambda x: grad.quantize(x, rvq, n_q=2).codes)(jnp.asarray(X))
    np.testing.assert_array_equal(codes, rvq.encode(X, n_q=2))


def test_modules_say_what_state_they_are_in():
    shape = "3 stages of 8 codewords, dimension=6, codebook_dim=6"
    for cls, array in ((InTorch, torch.from_numpy), (InMlx, mx.array)):
        module = cls(**SHAPE)
        assert f"untrained, train mode, {shape}" in repr(module)
        module(array(X))
        assert re.search(rf"\W{'trained'}, train mode, {shape}", repr(module))
        assert f"trained, eval mode, {shape}" in repr(
            module.eval() if cls is InTorch else module.train(False)
        )
    assert f"{shape}" in repr(InTorch(**SHAPE).to("meta"))
    assert "trained" not in repr(InTorch(**SHAPE).to("meta"))
    assert repr(InJax(**SHAPE)) == f"ResidualVectorQuantizer({shape})"
    assert "codebook_dim=4 (not 6: each stage has linear maps" in repr(
        InJax(**{**SHAPE, "codebook_dim": 4})
    )
