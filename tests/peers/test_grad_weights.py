"""Weights that change behind the back of a module: codes are always those of what they hold now.

A version counter of torch sees few of these ways; every test changes codewords so that the codes
must change, twice, so that a remembered first answer would be found out.
"""

import copy
import io
import threading

import numpy as np
import pytest
import torch

from rvq_np.grad import _cache
from rvq_np.grad.torch import ResidualVectorQuantizer
from rvq_np.kernels import dispatch

torch.set_num_threads(1)
RATE = 50


def made(codebook_dim=6):
    torch.manual_seed(1)
    return ResidualVectorQuantizer(6, codebook_dim, n_q=2, bins=8, kmeans_init=False).eval()


def codebook(module):
    return module.vq.layers[1]._codebook.embed


def rolled(module, by=1):
    """Return the codewords in another order: every code of the stage must change."""
    return torch.roll(codebook(module), by, 0).clone()


def in_place(module, new):
    with torch.no_grad():
        codebook(module).copy_(new)


def by_data(module, new):
    codebook(module).data.copy_(new)


def by_numpy(module, new):
    codebook(module).detach().numpy()[:] = new.numpy()


def by_dlpack(module, new):
    torch.from_dlpack(codebook(module).detach()).copy_(new)


def by_a_view(module, new):
    codebook(module).data.view(-1)[: new.numel()].copy_(new.reshape(-1))


def by_set(module, new):
    with torch.no_grad():
        codebook(module).set_(new)


def by_another_storage(module, new):
    codebook(module).data = new


def by_another_buffer(module, new):
    module.vq.layers[1]._codebook.embed = new


def by_state_dict(module, new):
    module.load_state_dict({**module.state_dict(), "vq.layers.1._codebook.embed": new})


def by_assigned_state_dict(module, new):
    module.load_state_dict({**module.state_dict(), "vq.layers.1._codebook.embed": new}, assign=True)


def in_inference_mode(module, new):
    with torch.inference_mode():
        codebook(module).copy_(new)


def by_another_thread(module, new):
    thread = threading.Thread(target=by_data, args=(module, new))
    thread.start()
    thread.join()


def by_shared_memory(module, new):
    """As another process does to weights that are shared: counters here do not see it."""
    codebook(module).share_memory_()
    storage = codebook(module).untyped_storage()
    torch.tensor([], dtype=torch.float32).set_(storage, 0, new.shape).copy_(new)


def by_foreach(module, new):
    torch._foreach_copy_([codebook(module).data], [new])


WAYS = [
    in_place, by_data, by_numpy, by_dlpack, by_a_view, by_set, by_another_storage,
    by_another_buffer, by_state_dict, by_assigned_state_dict, in_inference_mode,
    by_another_thread, by_shared_memory, by_foreach,
]  # fmt: skip


@pytest.fixture(params=["fingerprints", "comparison"])
def _recognized(request, monkeypatch):
    """By fingerprints whatever the size, and by comparison, as where there is little to read."""
    dispatch.load()
    monkeypatch.setattr(_cache, "COMPARED", 0 if request.param == "fingerprints" else 1 << 60)


@pytest.mark.usefixtures("_recognized")
@pytest.mark.parametrize("way", WAYS)
def test_codes_are_those_of_the_weights_as_they_are_now(way):
    module = made()
    x = torch.randn(30, 6)
    with torch.no_grad():
        for _ in range(2):
            before = module(x, RATE).codes, module.encode(x, RATE)
            way(module, rolled(module))
            after = module(x, RATE).codes
            expected = module.to_numpy().encode(x.numpy(), RATE)
            np.testing.assert_array_equal(after.numpy(), expected)
            np.testing.assert_array_equal(module.encode(x, RATE).numpy(), expected)
            assert (after[1] != before[0][1]).all()
            assert torch.equal(*before)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"foreach": False}])
def test_what_an_optimizer_moves_is_seen(options):
    module = made(4)
    optimizer = torch.optim.SGD(module.parameters(), 0.5, **options)
    x = torch.randn(30, 6)
    for _ in range(3):
        optimizer.zero_grad()
        result = module(x, RATE)
        (result.quantized - x).square().sum().backward()
        optimizer.step()
        rvq = module.to_numpy()
        np.testing.assert_array_equal(module(x, RATE).codes.numpy(), rvq.encode(x.numpy(), RATE))
        np.testing.assert_array_equal(module.encode(x, RATE).numpy(), rvq.encode(x.numpy(), RATE))


def test_every_single_bit_is_seen():
    """Of arrays of all lengths around those that end a block, and of all parts of them."""
    rng = np.random.default_rng(0)
    dispatch.load()
    for size in (1, 2, 3, 7, 1023, 1024, 1025, 2048, 3001):
        array = rng.standard_normal(size).astype(np.float32)
        (before,) = _cache.fingerprints([array])
        for place in {0, size // 2, size - 1}:
            for bit in range(32):
                array.view(np.uint32)[place] ^= np.uint32(1 << bit)
                assert _cache.fingerprints([array]) != [before], (size, place, bit)
                array.view(np.uint32)[place] ^= np.uint32(1 << bit)
        assert _cache.fingerprints([array]) == [before]


def test_changes_that_cancel_in_sums_are_seen():
    dispatch.load()
    array = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    changes = [array[::-1], -array, np.roll(array, 2), np.roll(array, 1, 1), array[:, ::-1]]
    prints = _cache.fingerprints([array, *changes])
    assert len(set(prints)) == len(prints)


def test_arrays_of_any_kind_have_the_fingerprint_of_what_they_hold():
    """Read-only, misaligned and many at once, by one thread or several."""
    dispatch.load()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size).astype(np.float32) for size in (5, 600_000, 8, 700_001)]
    prints = [_cache.fingerprints([each])[0] for each in arrays]
    assert _cache.fingerprints(arrays) == prints
    with _cache.tiles.at_most(3):
        assert _cache.fingerprints(arrays) == prints
    memory = np.zeros(600_001, np.float32)
    for each in arrays[:3]:
        shifted = memory[1 : 1 + each.size]
        shifted[:] = each
        frozen = each.copy()
        frozen.setflags(write=False)
        assert _cache.fingerprints([shifted]) == _cache.fingerprints([frozen])
        assert _cache.fingerprints([frozen]) == _cache.fingerprints([each])


def test_the_quantizer_is_prepared_once_as_long_as_nothing_changes():
    module = made()
    x = torch.randn(5, 6)
    with torch.no_grad():
        module(x, RATE)
        known = list(_cache._recent)
        module(x, RATE)
        module.encode(x, RATE)
        assert list(_cache._recent) == known
        module.double()(x, RATE)  # the same numbers in another type
        assert list(_cache._recent) == known
        other = copy.deepcopy(module)
        file = io.BytesIO()
        torch.save(other.state_dict(), file)
        assert torch.equal(other(x, RATE).codes, module(x, RATE).codes)
        assert list(_cache._recent) == known
