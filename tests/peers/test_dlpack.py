"""Torch and JAX arrays on a GPU, shared with CuPy: the way there and back, without a GPU.

Arrays in host memory pose as arrays on a GPU, and the emulated GPU computes on them.  What is
shown is that nothing is copied on the way, and that every call takes that way; no evidence for a
GPU, nor for the streams of torch and JAX.
"""

import contextlib
import importlib
import platform
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.emulated import fake_cupy

import rvq_np
import rvq_np.backends.jax
import rvq_np.backends.torch
from rvq_np import backends, codec, train
from rvq_np.backends import _dlpack
from rvq_np.errors import NonFiniteError
from rvq_np.grad import _torch_eager
from rvq_np.grad.torch import ResidualVectorQuantizer
from rvq_np.testing import backend_tests

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64",
    reason="the emulated GPU is built by g++, for x86-64",
)
CALLS = []


WATCHED = "extent_later", "prepare", "encode", "decode", "tally", "project", "add_up", "searched"


def watched(name, function):
    """Return a function that notes that it was called, and with what."""

    def call(*given, **named):
        CALLS.append((name, given))
        result = function(*given, **named)
        return watched("again", result) if name == "assign" else result

    return call


def to_torch(array):
    return torch.from_numpy(array._here)


def to_jax(array):
    return jnp.asarray(array._here)


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch):
    CALLS.clear()
    for module, back in ((rvq_np.backends.torch, to_torch), (rvq_np.backends.jax, to_jax)):
        monkeypatch.setattr(module, "_gpu", lambda x, back=back: (contextlib.nullcontext, back))
    with fake_cupy.installed():
        cuda = importlib.import_module("rvq_np.kernels.cuda.driver")
        for name in (*WATCHED, "assign"):
            monkeypatch.setattr(cuda, name, watched(name, getattr(cuda, name)))
        yield


TestTorch = backend_tests(
    put=torch.tensor, get=torch.Tensor.numpy, dtypes=("float16", "float32", "float64")
)
TestJax = backend_tests(put=jnp.asarray, get=np.asarray)


@pytest.mark.parametrize("make", [torch.tensor, jnp.asarray], ids=["torch", "JAX"])
def test_the_memory_is_lent_not_copied(make, rng):
    books = rng.standard_normal((2, 20, 6)).astype(np.float32)
    x = make(rng.standard_normal((30, 6)).astype(np.float32))
    rvq_np.encode(x, books)
    (shared,) = [arguments[0] for name, arguments in CALLS if name == "encode"]
    pointer = x.data_ptr() if isinstance(x, torch.Tensor) else x.unsafe_buffer_pointer()
    assert shared.data.ptr == pointer
    assert [name for name, _ in CALLS] == ["extent_later", "prepare", "encode"]


def test_bfloat16_is_widened_before_it_is_lent(rng):
    books = rng.standard_normal((2, 20, 6)).astype(np.float32)
    x = rng.standard_normal((30, 6)).astype(np.float32)
    for there in (torch.tensor(x).bfloat16(), jnp.asarray(x).astype(jnp.bfloat16)):
        wide = np.array(there.tolist(), np.float32)
        codes = rvq_np.encode(there, books)
        assert type(codes) is not fake_cupy.ndarray
        np.testing.assert_array_equal(np.asarray(codes), rvq_np.encode(wide, books))


def test_bfloat16_of_cupy_is_what_it_is_in_float32(rng):
    """CuPy 14 has such arrays, by the type of ml_dtypes, and few functions for them."""
    small = rng.standard_normal((40, 6)) * 2.0 ** rng.integers(-130, 3, (40, 1))
    x = small.astype(jnp.bfloat16)  # numbers below 2**-126 among them
    wide, books = x.astype(np.float32), rng.standard_normal((3, 20, 6)).astype(np.float32)
    books[:, ::2] *= np.float32(2.0**-128)
    there = fake_cupy.asarray(x)
    for beam_size in (1, 3):
        codes = rvq_np.encode(there, books, beam_size=beam_size)
        expected = rvq_np.encode(wide, books, beam_size=beam_size)
        np.testing.assert_array_equal(codes.get(), expected)
    found = codec.tally(there, codes, books)
    for one, other in zip(found, codec.tally(wide, codes.get(), books), strict=True):
        np.testing.assert_array_equal(one, other)
    found, expected = (train.kmeans(each, 8, 4, np.random.default_rng(0)) for each in (there, wide))
    np.testing.assert_array_equal(found.codebook, expected.codebook)
    x[7, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"holds nan at \(7, 3\)"):
        rvq_np.encode(fake_cupy.asarray(x), books)


@pytest.mark.parametrize("masked", [False, True])
def test_the_class_takes_bfloat16_of_cupy(masked, rng):
    x = rng.standard_normal((3, 6, 15)).astype(jnp.bfloat16)
    mask = rng.random((3, 15)) < 0.7 if masked else None
    here, there = (rvq_np.ResidualVectorQuantizer(6, 6, n_q=2, bins=8, rng=0) for _ in range(2))
    expected = here.train()(x.astype(np.float32), 50, mask=mask)
    mask = None if mask is None else fake_cupy.asarray(mask)
    result = there.train()(fake_cupy.asarray(x), 50, mask=mask)
    np.testing.assert_array_equal(result.codes.get(), expected.codes)
    assert result.quantized.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.quantized.get(), expected.quantized.astype(jnp.bfloat16))
    for name, array in here.state_dict().items():
        np.testing.assert_array_equal(there.state_dict()[name], array)
    found, expected = there.fit(fake_cupy.asarray(x)), here.fit(x.astype(np.float32))
    for name, array in expected.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], array)


@pytest.mark.parametrize("make", [torch.tensor, jnp.asarray], ids=["torch", "JAX"])
def test_kmeans_goes_round_on_the_gpu(make, rng):
    x = rng.standard_normal((60, 5)).astype(np.float32)
    found = train.kmeans(make(x), 8, 4, np.random.default_rng(0))
    again = train.kmeans(x, 8, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(found.codebook, again.codebook)
    assert sum(name == "again" for name, _ in CALLS) == 4
    assert not any(name in ("tally", "encode") for name, _ in CALLS)


@pytest.mark.parametrize("make", [torch.tensor, jnp.asarray], ids=["torch", "JAX"])
@pytest.mark.parametrize("projects", [False, True])
def test_fitting_goes_round_on_the_gpu(make, projects, rng):
    x = rng.standard_normal((200, 6)).astype(np.float32)

    def fitted(x):
        rvq = rvq_np.ResidualVectorQuantizer(
            6, 3 if projects else 6, n_q=3, bins=8, kmeans_iters=4, rng=0
        )
        return rvq.fit(x, rows_per_codeword=20)

    found = fitted(make(x)).state_dict()
    assert any(name == "searched" for name, _ in CALLS)  # shared with CuPy, and not asked back
    assert not any(name in ("tally", "project") for name, _ in CALLS)
    assert sum(name == "again" for name, _ in CALLS) >= 3 * 2
    for name, array in fitted(x).state_dict().items():
        np.testing.assert_array_equal(found[name], array)


def test_an_empty_tally_is_as_on_the_host(rng):
    books = rng.standard_normal((2, 4, 3)).astype(np.float32)
    none, codes = torch.zeros((0, 3)), torch.zeros((2, 0), dtype=torch.int32)
    counts, sums = codec.tally(none, codes, books)
    assert [each.shape for each in (*counts, *sums)] == [(4,), (4,), (4, 3), (4, 3)]


def test_the_module_of_torch_trains_there(rng, monkeypatch):
    def made():
        torch.manual_seed(0)
        return ResidualVectorQuantizer(6, 6, n_q=2, bins=8, kmeans_iters=3).train()

    module, batches = made(), [torch.tensor(rng.standard_normal((3, 6, 20), np.float32))] * 3
    monkeypatch.setattr(_torch_eager, "serves", lambda x, mask, named: False)  # of host memory
    results = [module(x, 50) for x in batches]
    assert {name for name, _ in CALLS} >= {"extent_later", "encode", "decode", "add_up", "again"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rvq_np.backends.torch, "_gpu", lambda x: None)
        alone = made()
        for x, result in zip(batches, results, strict=True):
            expected = alone(x, 50)
            torch.testing.assert_close(result.codes, expected.codes, rtol=0, atol=0)
            torch.testing.assert_close(result.penalty, expected.penalty)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=0, atol=0)


def test_without_cupy_the_array_api_serves(monkeypatch):
    with fake_cupy.installed(None):
        assert not _dlpack.ready()
    with fake_cupy.installed():
        assert _dlpack.ready()


def test_arrays_in_host_memory_are_not_sent_to_a_gpu(monkeypatch):
    monkeypatch.undo()
    for x in (torch.zeros(1), jnp.zeros(1)):
        entered = backends.enter(x)
        assert entered.engine is backends.numpy
        assert entered.at is None
    assert backends.enter(torch.zeros(1, device="meta")).engine is backends._array_api
