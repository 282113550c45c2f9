"""Keras: the layer on the torch and JAX backends. TensorFlow is in test_grad_tensorflow."""

import pytest
from helpers import keras_backends


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            "torch",
            marks=pytest.mark.transform(
                "keras on torch", "fit, torch.compile with a graph break, save and load"
            ),
        ),
        pytest.param(
            "jax",
            marks=pytest.mark.transform("keras on jax", "fit, jit(grad), save and load"),
        ),
    ],
)
def test_the_layer_keeps_its_promises_on(backend):
    keras_backends.check_cases(backend)


def test_a_backend_that_cannot_train_is_refused_by_name():
    ran = keras_backends.python("numpy", "-c", "import rvq_np.grad.keras")
    assert ran.returncode != 0
    assert "BackendError" in ran.stderr
    assert "KERAS_BACKEND" in ran.stderr
