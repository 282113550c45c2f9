"""Torch tensors in host memory: the bits of NumPy, without a copy, and nothing for autograd."""

import numpy as np
import pytest
import torch
from helpers import contract

import rvq_np
from rvq_np import QuantizedResult
from rvq_np.arrays import to_numpy
from rvq_np.errors import BackendError, DtypeError
from rvq_np.testing import backend_tests


def as_numpy(tensor):
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.numpy()


TORCH = contract.Library(
    kind=torch.Tensor,
    array=lambda values, dtype: torch.tensor(np.asarray(values)).to(getattr(torch, dtype)),
    numpy=as_numpy,
    pointer=lambda tensor: tensor.data_ptr(),
    device=lambda tensor: tensor.device,
    dtypes=("float16", "bfloat16", "float32", "float64"),
)

TestTorch = contract.library_tests(TORCH)
TestDefinition = contract.definition_tests(TORCH)
TestDefinitionFloat64 = contract.definition_tests(TORCH, "float64")
TestKit = backend_tests(
    put=torch.tensor, get=torch.Tensor.numpy, dtypes=("float16", "float32", "float64")
)


@pytest.fixture
def books():
    return contract.normal(3, 40, 6)


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every second": lambda x: torch.repeat_interleave(x, 2, dim=1)[:, ::2],
    "offset": lambda x: torch.cat([x, x], dim=1)[:, 6:],
    "repeated": lambda x: x[:1].expand(50, 6),
}


@pytest.mark.parametrize("dtype", TORCH.dtypes)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_the_codes_of_numpy_without_a_copy(layout, dtype, books):
    x = LAYOUTS[layout](TORCH.array(contract.normal(50, 6), dtype))
    assert not x.is_contiguous()
    with contract.captured("encode") as calls:
        codes = rvq_np.encode(x, books)
    np.testing.assert_array_equal(codes.numpy(), rvq_np.encode(as_numpy(x.contiguous()), books))
    if dtype != "bfloat16":
        shared = calls[0][0]
        assert np.shares_memory(shared, x.numpy())
        assert shared.ctypes.data == x.data_ptr()
        assert shared.strides == tuple(step * x.itemsize for step in x.stride())


@pytest.mark.parametrize("layout", ["permuted", "every second"])
def test_the_class_takes_any_memory_layout(layout):
    x = torch.tensor(contract.normal(4, 6, 17))
    odd = x.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    if layout == "every second":
        odd = torch.repeat_interleave(x, 2, dim=2)[:, :, ::2]
    assert not odd.is_contiguous()
    one, other = contract.quantizers()
    for _ in range(2):
        for mine, theirs in zip(one(x, 50), other(odd, 50), strict=True):
            assert torch.equal(mine, theirs)
    codes = one.eval().encode(odd, 50)
    strided = torch.repeat_interleave(codes, 2, dim=2)[:, :, ::2]
    assert torch.equal(one.decode(strided), one.decode(codes))


def test_results_are_lent_to_torch_without_a_copy(books):
    x = torch.tensor(contract.normal(50, 6))
    made = []
    original = contract.engine.encode

    def encode(*arguments):
        made.append(original(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract.engine, "encode", encode)
        codes = rvq_np.encode(x, books)
    assert codes.data_ptr() == made[0].ctypes.data


@pytest.fixture
def every_warning():
    """Torch warns once a process by default, so a later test would see nothing."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("every_warning")
@pytest.mark.parametrize("dtype", TORCH.dtypes)
@pytest.mark.parametrize("of_graph", [False, True])
def test_tensors_that_require_gradients_are_taken_and_nothing_is_recorded(dtype, of_graph, books):
    leaf = TORCH.array(contract.normal(4, 6, 17), dtype).requires_grad_()
    x = leaf * 2 if of_graph else leaf
    mask = torch.ones(4, 17, dtype=torch.bool)
    mask[1, 5:] = False
    plain, tracked = contract.quantizers(quantizer_dropout=0.5)
    for training in (True, False):
        plain.train(training)
        tracked.train(training)
        for expected, result in zip(
            (*plain(x.detach(), 50), *plain(x.detach(), 50, mask=mask)),
            (*tracked(x, 50), *tracked(x, 50, mask=mask)),
            strict=True,
        ):
            assert not result.requires_grad
            assert result.grad_fn is None
            assert torch.equal(result, expected)
    for result in (
        tracked.encode(x, 50),
        tracked.decode(tracked.encode(x, 50)),
        rvq_np.encode(x.mT, books),
        rvq_np.encode(torch.nn.Parameter(x[0].T.detach()), books),
        rvq_np.encode(x[0].T, books, beam_size=2),
    ):
        assert not result.requires_grad
    assert leaf.grad is None
    assert leaf.requires_grad


def test_a_tensor_that_requires_gradients_is_not_copied_either(books):
    x = torch.tensor(contract.normal(50, 6)).requires_grad_()
    with contract.captured("encode") as calls:
        rvq_np.encode(x, books)
    assert calls[0][0].ctypes.data == x.data_ptr()


def test_parameters_and_inference_tensors_are_tensors(books):
    values = contract.normal(50, 6)
    expected = rvq_np.encode(values, books)
    parameter = torch.nn.Parameter(torch.tensor(values))
    np.testing.assert_array_equal(rvq_np.encode(parameter, books), expected)
    with torch.inference_mode():
        codes = rvq_np.encode(torch.tensor(values), books)
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_array_equal(rvq_np.decode(codes, books), rvq_np.decode(expected, books))


def test_tensors_serve_as_codebooks(books):
    x = contract.normal(50, 6)
    np.testing.assert_array_equal(
        rvq_np.encode(torch.tensor(x), torch.tensor(books)), rvq_np.encode(x, books)
    )
    np.testing.assert_array_equal(
        rvq_np.encode(x, rvq_np.Codebooks([torch.tensor(each) for each in books])),
        rvq_np.encode(x, books),
    )


def test_float64_codebooks_decode_to_float64(books):
    wide = books.astype(np.float64) / 3
    codes = torch.tensor(rvq_np.encode(contract.normal(50, 6), wide))
    decoded = rvq_np.decode(codes, wide)
    assert decoded.dtype == torch.float64
    np.testing.assert_array_equal(decoded.numpy(), rvq_np.decode(codes.numpy(), wide))


def test_int64_codes_as_torch_makes_them_decode(books):
    codes = torch.randint(0, 40, (3, 50), generator=torch.Generator().manual_seed(0))
    assert codes.dtype == torch.int64
    assert torch.equal(rvq_np.decode(codes, books), rvq_np.decode(codes.int(), books))


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "complex64"])
def test_tensors_that_are_no_real_floats_are_refused(dtype, books):
    with pytest.raises(DtypeError, match=f"x has dtype {dtype}; expected floating-point"):
        rvq_np.encode(torch.ones(5, 6, dtype=getattr(torch, dtype)), books)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_codes_that_are_no_integers_are_refused(dtype, books):
    with pytest.raises(DtypeError, match=f"codes have dtype {dtype}; expected integers"):
        rvq_np.decode(torch.ones(3, 5, dtype=getattr(torch, dtype)), books)


def test_a_mask_of_numbers_is_refused():
    quantizer = contract.quantizers()[0]
    with pytest.raises(DtypeError, match=r"mask has dtype uint8; expected bool"):
        quantizer(torch.zeros(4, 6, 17), 50, mask=torch.ones(4, 17, dtype=torch.uint8))


@pytest.mark.parametrize("change", [torch.nn.Parameter, lambda x: x.clone().requires_grad_()])
def test_a_state_dict_of_parameters_loads(change):
    """What ``dict(module.named_parameters())`` and ``state_dict(keep_vars=True)`` hold."""
    quantizer = contract.quantizers(codebook_dim=4)[0]
    state = quantizer.state_dict()
    quantizer.load_state_dict({name: change(torch.tensor(value)) for name, value in state.items()})
    for name, value in quantizer.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_a_state_dict_in_half_precision_loads():
    quantizer = contract.quantizers()[0]
    for dtype in (torch.float16, torch.bfloat16):
        state = {
            name: torch.tensor(value).to(dtype) for name, value in quantizer.state_dict().items()
        }
        quantizer.load_state_dict(state)
        for name, value in quantizer.state_dict().items():
            np.testing.assert_array_equal(value, to_numpy(state[name].float()))


def test_results_compare_as_those_of_numpy():
    found = contract.quantizers(quantizer_dropout=0.5)[0](contract.normal(4, 6, 17), 50)
    there = QuantizedResult(*(torch.from_numpy(np.array(each)) for each in found))
    assert there == found
    assert there == QuantizedResult(
        *(each.clone().requires_grad_(each.is_floating_point()) for each in there)
    )
    assert there != QuantizedResult(there.quantized.bfloat16(), *there[1:])


def test_tensors_in_host_memory_use_the_tables_of_numpy(books):
    stages = rvq_np.Codebooks(books)
    x = contract.normal(50, 6)
    expected = rvq_np.encode(x, stages)
    with contract.captured("prepare") as made:
        codes = rvq_np.encode(torch.from_numpy(x), stages)
        some = rvq_np.encode(torch.from_numpy(x), stages[:2])
    assert not made
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(some, expected[:2])


@pytest.mark.parametrize("change", [lambda x: x.to_sparse(), lambda x: x.to(torch.float8_e4m3fn)])
def test_tensors_that_numpy_cannot_hold_are_refused(change, books):
    with pytest.raises(BackendError, match=r"compute on a torch\.Tensor of layout"):
        rvq_np.encode(change(torch.ones(5, 6)), books)
