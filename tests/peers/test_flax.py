"""A Flax autoencoder around our quantizer learns in a jitted step of Optax.

Encoder and decoder are Flax modules; the quantizer is what it is in JAX, pure functions over
dictionaries of arrays, so its projections stand in the same tree of parameters as theirs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rvq_np
from rvq_np import demo
from rvq_np.demo import mdct
from rvq_np.grad._remembered import without
from rvq_np.grad.jax import ResidualVectorQuantizer

HIDDEN, WIDTH, STAGES, CODEWORDS = 16, 8, 3, 32
RATE = demo.FRAME_RATE
STEPS = 60


class Convolutions(nn.Module):
    """Vectors (B, T, C) to (B, T, `features`)."""

    features: int

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(32, kernel_size=(5,))(x))
        return nn.Conv(self.features, kernel_size=(5,))(x)


@pytest.fixture(scope="module")
def frames():
    """MDCT frames of speech (4, 64, DIM), their power being one."""
    clips = [mdct.forward(clip.samples, demo.DIM) for clip in demo.shipped_clips("train")[:4]]
    batch = np.stack([clip[100:164] for clip in clips]).astype(np.float32)
    return jnp.asarray(batch / batch.std())


class Autoencoder:
    """Encoder, quantizer and decoder, with one tree of parameters for all three."""

    def __init__(self, frames, **arguments):
        self.encoder, self.decoder = Convolutions(HIDDEN), Convolutions(demo.DIM)
        self.quantizer = ResidualVectorQuantizer(
            HIDDEN, WIDTH, STAGES, CODEWORDS, kmeans_iters=10, **arguments
        )
        keys = jax.random.split(jax.random.key(0), 3)
        parameters, self.state = self.quantizer.init(keys[0])
        self.parameters = {
            "encoder": self.encoder.init(keys[1], frames),
            "decoder": self.decoder.init(keys[2], jnp.zeros((*frames.shape[:2], HIDDEN))),
            "quantizer": parameters,
        }

    def latents(self, parameters, frames):
        return self.encoder.apply(parameters["encoder"], frames).swapaxes(1, 2)

    def loss(self, parameters, state, frames, key):
        result, state = self.quantizer.apply(
            parameters["quantizer"], state, self.latents(parameters, frames), RATE,
            train=True, key=key,
        )  # fmt: skip
        made = self.decoder.apply(parameters["decoder"], result.quantized.swapaxes(1, 2))
        error = jnp.square(made - frames).mean()
        return error + 0.25 * result.penalty, (error, state)


def trained(frames, **arguments):
    """Return an autoencoder after `STEPS` steps, and the error of every step."""
    model = Autoencoder(frames, **arguments)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
    moments = optimizer.init(model.parameters)

    @jax.jit
    def step(parameters, moments, state, key):
        gradients, (error, state) = jax.grad(model.loss, has_aux=True)(
            parameters, state, frames, key
        )
        updates, moments = optimizer.update(gradients, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, state, error, gradients

    errors = []
    for number in range(STEPS):
        model.parameters, moments, model.state, error, gradients = step(
            model.parameters, moments, model.state, jax.random.key(number)
        )
        errors.append(float(error))
    model.gradients = gradients
    return model, errors


@pytest.fixture(scope="module")
def run(frames):
    return trained(frames)


def test_it_learns_in_a_jitted_step(run):
    model, errors = run
    assert errors[-1] < 0.5 * errors[0]
    for name, gradient in model.gradients["quantizer"].items():
        assert float(jnp.abs(gradient).max()) > 0, name


def test_reconstruction_alone_reaches_the_encoder(run, frames):
    """Through the quantizer, not by the commitment."""
    model, _ = run
    reach = jax.jit(jax.grad(lambda parameters: model.loss(
        parameters, model.state, frames, jax.random.key(0)
    )[1][0]))  # fmt: skip
    for gradient in jax.tree.leaves(reach(model.parameters)["encoder"]):
        assert float(jnp.abs(gradient).max()) > 0


def test_its_codes_are_those_of_the_numpy_class(run, frames):
    """Bit for bit, under jit and eagerly; and what they decode to."""
    model, _ = run
    x = model.latents(model.parameters, frames)
    parameters = model.parameters["quantizer"]
    result, after = jax.jit(
        lambda parameters, state, x: model.quantizer.apply(parameters, state, x, RATE)
    )(parameters, model.state, x)
    plain = rvq_np.ResidualVectorQuantizer(HIDDEN, WIDTH, STAGES, CODEWORDS).eval()
    plain.load_state_dict({**parameters, **model.state})
    codes = plain.encode(np.asarray(x), RATE)
    assert all(len(np.unique(stage)) > 8 for stage in codes)
    np.testing.assert_array_equal(result.codes, codes)
    np.testing.assert_array_equal(result.quantized, plain.decode(codes))
    np.testing.assert_array_equal(model.quantizer.encode(parameters, model.state, x, RATE), codes)
    for name, value in model.state.items():  # eval changes nothing
        np.testing.assert_array_equal(after[name], value)


def test_a_step_moves_the_codewords_as_the_numpy_class_does(run, frames):
    """Nothing expires, so nothing is drawn."""
    model, _ = run
    x = model.latents(model.parameters, frames)
    arguments = (HIDDEN, WIDTH, STAGES, CODEWORDS)
    still = ResidualVectorQuantizer(*arguments, threshold_ema_dead_code=0)
    parameters = model.parameters["quantizer"]
    _, moved = jax.jit(
        lambda state, x: still.apply(parameters, state, x, RATE, train=True, key=jax.random.key(1))
    )(model.state, x)
    plain = rvq_np.ResidualVectorQuantizer(*arguments, threshold_ema_dead_code=0)
    plain.load_state_dict({**parameters, **model.state})
    plain(np.asarray(x), RATE)
    for name, value in without(moved).items():
        np.testing.assert_array_equal(value, plain.state_dict()[name], err_msg=name)
    name = "vq.layers.0._codebook.embed"
    assert not np.array_equal(moved[name], model.state[name])


def test_it_learns_with_codewords_as_parameters(frames):
    """And with stages dropped; Optax moves the codewords, by the loss that pulls them."""
    model = Autoencoder(frames, codebook_training="gradient", quantizer_dropout=0.5)
    parameters, state = model.quantizer.initialize(
        model.parameters["quantizer"], model.state, model.latents(model.parameters, frames),
        jax.random.key(3),
    )  # fmt: skip
    model.parameters = {**model.parameters, "quantizer": parameters}
    optimizer = optax.adam(3e-3)
    moments = optimizer.init(model.parameters)

    def loss(parameters, key):
        result, _ = model.quantizer.apply(
            parameters["quantizer"], state, model.latents(parameters, frames), RATE,
            train=True, key=key,
        )  # fmt: skip
        made = model.decoder.apply(parameters["decoder"], result.quantized.swapaxes(1, 2))
        error = jnp.square(made - frames).mean()
        return error + 0.25 * result.penalty + result.quantization_loss, error

    @jax.jit
    def step(parameters, moments, key):
        gradients, error = jax.grad(loss, has_aux=True)(parameters, key)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, error

    before = parameters["vq.layers.0._codebook.embed"]
    errors = []
    for number in range(STEPS):
        model.parameters, moments, error = step(model.parameters, moments, jax.random.key(number))
        errors.append(float(error))
    assert errors[-1] < 0.7 * errors[0]
    assert not np.array_equal(model.parameters["quantizer"]["vq.layers.0._codebook.embed"], before)
