"""What `test_grad_jax` runs in a process of its own, where the CPU poses as two devices."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from rvq_np.grad.jax import ResidualVectorQuantizer, psum

SIZE, ROWS, RATE = 2, 48, 50


def batch(step):
    return np.random.default_rng(step).standard_normal((ROWS, 6)).astype(np.float32)


def quantizer(codebook_dim, **arguments):
    rvq = ResidualVectorQuantizer(6, codebook_dim, n_q=3, bins=8, decay=0.7, **arguments)
    parameters, state = rvq.init(0)
    # Codewords that were never initialized would be found by k-means, which needs all rows at once.
    return rvq, *rvq.initialize(parameters, state, jnp.asarray(batch(99)), 1)


def mapped(rvq, way):
    """Return a step on all devices: gradients of the mean loss, and the new state of each."""

    def loss(parameters, state, x, key):
        result, state = rvq.apply(
            parameters, state, x, RATE, train=True, key=key, all_reduce=psum("devices")
        )
        return (result.quantized**2).mean() + result.penalty, (state, result.codes)

    def step(parameters, state, x, key):
        gradients, (state, codes) = jax.grad(loss, has_aux=True)(parameters, state, x, key)
        gradients = jax.tree.map(lambda each: jax.lax.pmean(each, "devices"), gradients)
        return gradients, state, codes

    if way == "pmap":
        return jax.pmap(step, axis_name="devices", in_axes=(None, None, 0, None))
    mesh = jax.make_mesh((SIZE,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere, shared = PartitionSpec(), PartitionSpec("devices")

    def one(parameters, state, x, key):
        gradients, state, codes = step(parameters, state, x[0], key)
        return jax.tree.map(lambda each: each[None], (gradients, state, codes))

    return jax.jit(
        jax.shard_map(
            one, mesh=mesh, in_specs=(everywhere, everywhere, shared, everywhere),
            out_specs=shared, check_vma=False,
        )
    )  # fmt: skip


def main(way, codebook_dim, threshold):
    rvq, parameters, state = quantizer(codebook_dim, threshold_ema_dead_code=threshold)
    step = mapped(rvq, way)
    alone = state
    replaced = 0
    for turn in range(3):
        key = jax.random.key(turn)
        x = batch(turn)
        gradients, states, codes = step(parameters, state, x.reshape(SIZE, -1, 6), key)
        for value in jax.tree.leaves((states, gradients)):
            np.testing.assert_array_equal(value[0], value[1])
        before = state
        state = {name: jnp.asarray(np.asarray(value[0])) for name, value in states.items()}
        result, alone = rvq.apply(parameters, before, jnp.asarray(x), RATE, train=True, key=key)
        np.testing.assert_array_equal(np.concatenate(list(codes), axis=1), result.codes)
        for name, value in alone.items():
            ours, theirs = np.asarray(state[name]), np.asarray(value)
            book = name.rpartition(".")[0]
            kept = np.asarray(state[f"{book}.cluster_size"]) != threshold
            if threshold:  # replaced codewords come from other rows than one device draws
                replaced += (~kept).sum()
                fresh = np.asarray(state[f"{book}.embed"])[~kept]
                if len(fresh) and book.endswith("0._codebook") and codebook_dim == 6:
                    apart = np.abs(fresh[:, None] - x).max(axis=2).min(axis=1)
                    np.testing.assert_allclose(apart, 0, atol=1e-6)
                if not name.endswith("inited"):
                    ours, theirs = ours[kept], theirs[kept]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name)
    assert bool(replaced) == bool(threshold)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
