"""The autoencoder in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from data import FRAME_RATE
from network import DECODER, ENCODER
from training import BETAS, EPSILON, SEED, Run, Start, follow

from rvq_np.grad.jax import ResidualVectorQuantizer


def train(start: Start, every: int, seed: int = SEED) -> Run:
    """Train as `in_torch` does, with draws of its own."""
    rvq = ResidualVectorQuantizer(**start.rvq.config.as_dict())
    parameters, state = rvq.of(start.rvq)  # no parameters: this quantizer has no projections
    weights = jax.tree.map(jnp.asarray, start.weights)
    moments = (jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights))
    keys = iter(jax.random.split(jax.random.key(seed), len(start.batches)))
    count = 0

    def loss(weights, state, x, key):
        latent = convolved(weights, ENCODER, x)
        result, state = rvq.apply(parameters, state, latent, FRAME_RATE, train=True, key=key)
        error = jnp.square(convolved(weights, DECODER, result.quantized) - x).mean()
        return error + result.penalty, (error, state)

    differentiated = jax.jit(jax.grad(loss, has_aux=True))

    def step(batch, rate):
        nonlocal weights, state, moments, count
        gradients, (error, state) = differentiated(weights, state, batch, next(keys))
        count += 1
        weights, moments = adam(weights, moments, gradients, count, rate)
        return error.item()

    def trained():
        return jax.tree.map(np.asarray, weights), rvq.to_numpy(parameters, state)

    return follow(start, step, trained, every)


@jax.jit
def adam(weights, moments, gradients, count, rate):
    """Return weights and moments after a step of Adam, as in torch.optim.Adam."""
    one, two = BETAS
    first = jax.tree.map(lambda m, g: one * m + (1 - one) * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: two * v + (1 - two) * g * g, moments[1], gradients)

    def moved(weight, m, v):
        root = jnp.sqrt(v / (1 - two**count)) + EPSILON
        return weight - rate * (m / (1 - one**count)) / root

    return jax.tree.map(moved, weights, first, second), (first, second)


def convolved(weights, layers, x):
    """Return (B, C, T) after the encoder or the decoder."""
    for name, _, _, taps in layers:
        if name != layers[0][0]:
            x = jax.nn.elu(x)
        x = jax.lax.conv_general_dilated(
            x, weights[f"{name}.weight"], (1,), [(taps // 2, taps // 2)],
            dimension_numbers=("NCH", "OIH", "NCH"),
        ) + weights[f"{name}.bias"][:, None]  # fmt: skip
    return x
