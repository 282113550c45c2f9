"""JAX arrays in host memory: the bits of NumPy, without a copy; under a transform, a clear no."""

import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from helpers import contract
from jax import numpy as jnp

import rvq_np
from rvq_np.errors import BackendError
from rvq_np.testing import backend_tests


def as_numpy(array):
    half = array.dtype in (jnp.float16, jnp.bfloat16)
    return np.asarray(array.astype(jnp.float32) if half else array)


JAX = contract.Library(
    kind=jax.Array,
    array=lambda values, dtype: jnp.asarray(values).astype(dtype),
    numpy=as_numpy,
    pointer=lambda array: array.unsafe_buffer_pointer(),
    device=lambda array: array.devices(),
    dtypes=("float16", "bfloat16", "float32"),  # no float64 unless it is switched on
)

TestJax = contract.library_tests(JAX)
TestDefinition = contract.definition_tests(JAX)
TestKit = backend_tests(put=jnp.asarray, get=np.asarray, dtypes=("float16", "float32"))


@pytest.fixture
def books():
    return contract.normal(3, 40, 6)


def test_bfloat16_is_lent_to_the_kernels_too(books):
    """JAX brings NumPy's bfloat16 along."""
    x = jnp.asarray(contract.normal(300, 6)).astype(jnp.bfloat16)
    with contract.captured("encode") as calls:
        rvq_np.encode(x, books)
    assert calls[0][0].ctypes.data == x.unsafe_buffer_pointer()


TRANSFORMS = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "jacfwd": jax.jacfwd,
    "make_jaxpr": jax.make_jaxpr,
    "eval_shape": lambda function: lambda x: jax.eval_shape(function, x),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("call", ["encode", "encode of the class", "eval", "training", "masked"])
def test_a_traced_array_is_refused_with_what_to_do(transform, call, books):
    quantizer = contract.quantizers()[0].train(call != "eval")
    before = quantizer.state_dict()
    calls = {
        "encode": lambda x: rvq_np.encode(x.swapaxes(-1, -2), books),
        "encode of the class": lambda x: quantizer.encode(x, 50),
        "eval": lambda x: quantizer(x, 50).quantized,
        "training": lambda x: quantizer(x, 50).quantized,
        "masked": lambda x: quantizer(x, 50, mask=jnp.ones(x.shape[::2], bool)).quantized,
    }
    shape = (2, 4, 6, 17) if transform == "vmap" else (4, 6, 17)
    x = jnp.asarray(contract.normal(*shape))
    with pytest.raises(BackendError, match=r"traced JAX value.*Call it outside"):
        TRANSFORMS[transform](calls[call])(x)
    for name, value in quantizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("call", ["decode", "decode of the class"])
def test_traced_codes_are_refused_with_what_to_do(call, books):
    quantizer = contract.quantizers()[0]
    calls = {
        "decode": lambda codes: rvq_np.decode(codes, books),
        "decode of the class": lambda codes: quantizer.decode(codes),
    }
    with pytest.raises(BackendError, match=r"traced JAX value.*Call it outside"):
        jax.jit(calls[call])(jnp.zeros((3, 4, 17), jnp.int32))


def test_the_gradient_of_the_penalty_is_refused():
    quantizer = contract.quantizers()[0]
    with pytest.raises(BackendError, match="traced JAX value"):
        jax.grad(lambda x: quantizer(x, 50).penalty)(jnp.asarray(contract.normal(4, 6, 17)))


def test_pure_callback_is_the_way_through_jit_that_the_message_names(books):
    x = contract.normal(50, 6)

    @jax.jit
    def encode(x):
        like = jax.ShapeDtypeStruct((3, 50), jnp.int32)
        return jax.pure_callback(lambda x: np.asarray(rvq_np.encode(np.asarray(x), books)), like, x)

    np.testing.assert_array_equal(encode(jnp.asarray(x)), rvq_np.encode(x, books))


def test_float64_codebooks_serve_where_jax_has_no_float64(books):
    """The codes are exact even so; vectors come in the widest type JAX has switched on."""
    wide = books.astype(np.float64) / 3
    x = contract.normal(50, 6)
    codes = rvq_np.encode(jnp.asarray(x), wide)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, wide))
    decoded = rvq_np.decode(codes, wide)
    assert decoded.dtype == np.float32
    expected = rvq_np.decode(np.asarray(codes), wide).astype(np.float32)
    np.testing.assert_array_equal(decoded, expected)


def test_arrays_serve_as_codebooks(books):
    x = contract.normal(50, 6)
    codes = rvq_np.encode(jnp.asarray(x), jnp.asarray(books))
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


TWO_DEVICES = """
    import warnings
    warnings.simplefilter("error")
    import jax, numpy as np, rvq_np
    from jax import numpy as jnp

    first, second = jax.devices()
    books = np.random.default_rng(0).standard_normal((3, 8, 6))
    for dtype in (np.float32, np.float64):
        rows = np.random.default_rng(1).standard_normal((4, 6, 9)).astype(dtype)
        x = jax.device_put(jnp.asarray(rows), second)
        mask = jax.device_put(jnp.ones((4, 9), bool), second)
        assert x.dtype == dtype
        for options in ({}, {"quantizer_dropout": 0.5}, {"codebook_dim": 4}):
            one, other = (
                rvq_np.ResidualVectorQuantizer(
                    **{"dimension": 6, "codebook_dim": 6, "n_q": 3, "bins": 8} | options, rng=0
                )
                for _ in range(2)
            )
            for _ in range(2):
                for mine, theirs in zip(one(rows, 50), other(x, 50, mask=mask), strict=True):
                    assert theirs.dtype == mine.dtype, (theirs.dtype, mine.dtype)
                    np.testing.assert_array_equal(theirs, mine)
                    assert theirs.devices() == {second}, (theirs.shape, theirs.devices())
        codes = rvq_np.encode(x.swapaxes(1, 2), books)
        np.testing.assert_array_equal(codes, rvq_np.encode(rows.swapaxes(1, 2), books))
        assert codes.devices() == {second}
        codes = jax.device_put(codes, second)
        vectors = rvq_np.decode(codes, books)
        assert vectors.dtype == np.float64
        np.testing.assert_array_equal(vectors, rvq_np.decode(np.asarray(codes), books))
        assert vectors.devices() == {second}

    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array([first, second]), ("batch",))
    spread = jax.device_put(jnp.asarray(rows), NamedSharding(mesh, PartitionSpec("batch")))
    assert len(spread.devices()) == 2
    for mine, theirs in zip(one(rows, 50), other(spread, 50), strict=True):
        np.testing.assert_array_equal(theirs, mine)
    print("done")
"""


def test_results_stay_on_the_device_of_the_input_and_float64_is_served_if_switched_on():
    """In a process of its own: two devices in host memory, neither of which must be the default."""
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_DEVICES)],
        env=os.environ | environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert ran.stdout == "done\n", ran.stderr
