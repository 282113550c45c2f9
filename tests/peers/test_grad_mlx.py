"""MLX: the bits of the class, the gradients of its products, eagerly; refused where it traces."""

import warnings

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
import pytest
from helpers import shim, shim_training
from mlx.utils import tree_flatten

import rvq_np
from rvq_np import grad
from rvq_np.errors import (
    BackendError,
    DtypeError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    StateError,
)
from rvq_np.grad.mlx import ResidualVectorQuantizer
from rvq_np.train import AllReduce

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


works = lambda name: pytest.mark.transform("mlx", name)  # noqa: E731
refused = lambda name: pytest.mark.transform("mlx", name, refused=True)  # noqa: E731


@pytest.fixture(autouse=True)
def _on_the_processor():
    mx.set_default_device(mx.cpu)  # for float64


def array(values, dtype):
    return mx.array(np.asarray(values), {"bool": mx.bool_}.get(dtype) or getattr(mx, dtype))


def as_numpy(x):
    return np.array(x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x)


def gradient(function, x):
    return mx.value_and_grad(function)(x)


FRAMEWORK = shim.Framework(
    array, as_numpy, gradient, foreign=np.ones(3, bool),
    dtypes=("float16", "bfloat16", "float32", "float64"),
)  # fmt: skip
TestShim = works("grad")(shim.shim_tests(FRAMEWORK))
TestTraining = works("grad, a quantizer in train mode")(shim_training.training_tests(FRAMEWORK))


def made(codebook_dim=4, *, bins=8, seed=1, **arguments):
    mx.random.seed(seed)
    return ResidualVectorQuantizer(
        6, codebook_dim, n_q=3, bins=bins, commitment_weight=0.7, **arguments
    )


@pytest.fixture(params=[(6, "ema"), (4, "ema"), (4, "gradient")], ids=str)
def module(request):
    codebook_dim, how = request.param
    return made(codebook_dim, codebook_training=how)


def batch(*shape, seed=2):
    values = np.random.default_rng(seed).standard_normal(shape or (4, 6, 20))
    return mx.array(values.astype(np.float32))


def named(tree):
    """Return arrays by ESPnet's names."""
    return {
        name.replace("codebook", "_codebook"): np.array(value) for name, value in tree_flatten(tree)
    }


def loss_of(result, weights):
    total = (result.quantized * weights).sum() + 3 * result.penalty
    if result.quantization_loss is not None:
        total = total - 2 * result.quantization_loss
    return total


class Draws:
    """A generator that draws what a module draws for one step."""

    def __init__(self, seed):
        self.seed = seed

    def integers(self, *_, **__):
        mx.random.seed(self.seed)
        return np.array(mx.random.randint(0, (1 << 32) - 1, (2,), dtype=mx.uint32))


@works("grad")
@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
@pytest.mark.parametrize("dropout", [False, 0.75])
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_has_the_values_gradients_and_state_of_the_class(module, masked, dropout, estimator):
    """From k-means on: the first step, and the second, which replaces codewords."""
    how = module.codebook_training
    module = made(
        module.config.codebook_dim, codebook_training=how, quantizer_dropout=dropout,
        estimator=estimator,
    )  # fmt: skip
    mask = np.random.default_rng(0).random((4, 20)) < 0.7 if masked else None
    there = None if mask is None else mx.array(mask)
    weights = batch(seed=7)
    for step in range(2):
        x = batch(seed=step)
        rvq = module.to_numpy()
        rvq._rng = Draws(step)
        before = rvq.state_dict()
        results = []

        def loss(parameters, x, module=module, results=results):
            module.update(parameters)  # as nn.value_and_grad, which wants at least one of them
            results.append(module(x, RATE, mask=there))
            return loss_of(results[0], weights)

        mx.random.seed(step)
        to_parameters, to_x = mx.grad(loss, argnums=(0, 1))(module.trainable_parameters(), x)
        after, result = named(module.parameters()), results[0]
        expected, vjp = grad.quantize_vjp(np.array(x), rvq, RATE, mask=mask, estimator=estimator)
        np.testing.assert_array_equal(np.array(result.codes), expected.codes)
        np.testing.assert_array_equal(np.array(result.quantized), expected.quantized)
        np.testing.assert_array_equal(np.array(result.bandwidth), expected.bandwidth)
        assert result.penalty.item() == pytest.approx(float(expected.penalty), rel=1e-5)
        assert (result.quantization_loss is not None) == bool(dropout or how == "gradient")
        for name, value in rvq.state_dict().items():
            if how == "ema":
                np.testing.assert_array_equal(after[name], value, err_msg=name)
            elif step:
                np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        both = -2.0 if result.quantization_loss is not None else 0.0
        found = vjp(np.array(weights), penalty=3.0, quantization_loss=both)
        np.testing.assert_allclose(np.array(to_x), found.x, rtol=1e-4, atol=2e-6)
        to_parameters = named(to_parameters)
        assert len(to_parameters) == len(found.parameters) - 3 * (how == "ema")
        for name, value in to_parameters.items():
            np.testing.assert_allclose(
                value, found.parameters[name], rtol=1e-4, atol=2e-5, err_msg=name
            )


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_in_and_out_codes_of_single(module, dtype):
    twin = made(module.config.codebook_dim, codebook_training=module.codebook_training)
    x = batch().astype(dtype)
    for each in (module, twin):
        mx.random.seed(4)
        each(batch(), RATE)
    mx.random.seed(6)
    result = module(x, RATE)
    mx.random.seed(6)
    expected = twin(x.astype(mx.float32), RATE)
    assert result.quantized.dtype == dtype
    assert result.penalty.dtype == mx.float32
    assert mx.array_equal(result.codes, expected.codes)
    assert mx.array_equal(result.quantized, expected.quantized.astype(dtype))
    ours, theirs = named(module.parameters()), named(twin.parameters())
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
    module.set_dtype(dtype)
    assert module.eval()(x, RATE).quantized.dtype == dtype
    assert module.to_numpy().state_dict()["vq.layers.0._codebook.embed"].dtype == np.float32


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("outer", [lambda each: each, lambda each: nn.Sequential(each)])
def test_statistics_stay_float32_in_a_module_of_half_precision(module, dtype, outer):
    """A float16 count of 70,000 equal vectors overflowed, and the state was lost.

    lucidrains/vector-quantize-pytorch#10
    """
    module(batch(), RATE)
    module._put("vq.layers.0._codebook.cluster_size", np.float32([70000, *range(1, 8)]))
    before = named(module.parameters())
    outer(module).set_dtype(dtype)
    trainable = dict(tree_flatten(module.trainable_parameters()))
    learned = {name.replace("codebook", "_codebook") for name in trainable}
    for name, value in module._named().items():
        assert value.dtype == (dtype if name in learned else mx.float32)
        if name not in learned:
            np.testing.assert_array_equal(as_numpy(value), before[name])
    module.update({"vq": {"layers": [{"codebook": {"embed_avg": mx.ones((8, 1), dtype)}}]}})
    assert module.vq.layers[0].codebook.embed_avg.dtype == mx.float32
    assert module.vq.layers[0].codebook.embed_avg.shape == (8, 1)


def test_it_goes_to_the_class_without_mlx_and_back(module):
    x = batch()
    module(x, RATE)
    rvq = module.eval().to_numpy()
    back = ResidualVectorQuantizer.of(rvq, codebook_training=module.codebook_training)
    assert not back.training
    assert made().to_numpy().training
    before, after = named(module.parameters()), named(back.parameters())
    assert set(before) == set(rvq.state_dict())
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
        np.testing.assert_array_equal(rvq.state_dict()[name], value)
    assert mx.array_equal(back.encode(x, RATE), module.encode(x, RATE))
    np.testing.assert_array_equal(rvq.encode(np.array(x), RATE), np.array(module.encode(x, RATE)))


def test_weights_saved_are_all_there_is(module, tmp_path):
    x = batch()
    module(x, RATE)
    path = str(tmp_path / "model.safetensors")
    module.save_weights(path)
    again = made(module.config.codebook_dim, codebook_training=module.codebook_training, seed=9)
    again.load_weights(path)
    assert mx.array_equal(again.eval().encode(x, RATE), module.eval().encode(x, RATE))
    assert again.to_numpy().is_initialized


def test_only_what_an_optimizer_may_move_is_trainable(module):
    projections = 12 if module.config.projects else 0
    codewords = 3 if module.codebook_training == "gradient" else 0
    count = lambda: len(tree_flatten(module.trainable_parameters()))  # noqa: E731
    assert count() == projections + codewords
    assert len(tree_flatten(module.parameters())) == 12 + projections
    module.freeze()
    assert count() == 0
    module.unfreeze()
    assert count() == projections + codewords
    module = made(
        module.config.codebook_dim, codebook_training=module.codebook_training,
        quantizer_dropout=0.5,
    )  # fmt: skip
    whole = nn.Sequential(nn.Linear(6, 6), module)
    whole.freeze()
    whole.unfreeze()
    reported = nn.value_and_grad(whole, lambda x: loss_of(module(x, RATE), x))(batch())[1]
    reported = reported["layers"][1]
    assert len(tree_flatten(reported)) == projections + codewords
    module.unfreeze(keys=["cluster_size"])
    assert len(tree_flatten(module.trainable_parameters())) == projections + codewords


def test_codes_decode_to_the_quantized_vectors_with_gradients_to_the_decoder(module):
    x = batch()
    module(x, RATE)
    module.eval()
    result = module(x, RATE)
    assert mx.array_equal(module.decode(result.codes), result.quantized)
    rvq = module.to_numpy()
    later = rvq.decode(np.array(result.codes[1:]), st=1)
    np.testing.assert_array_equal(np.array(module.decode(result.codes[1:], st=1)), later)
    assert mx.array_equal(module.encode(x, RATE), result.codes)
    assert module.encode(x, RATE, st=1, beam_size=2).shape == (2, 4, 20)
    rows = result.codes.reshape(3, -1)
    assert mx.array_equal(module.decode(rows), result.quantized.transpose(0, 2, 1).reshape(-1, 6))
    weights = batch(seed=3)
    if module.config.projects:
        _, reported = nn.value_and_grad(
            module, lambda codes: (module.decode(codes) * weights).sum()
        )(result.codes[:2])  # fmt: skip
        reported, entries = named(reported), rvq.state_dict()
        shared = np.moveaxis(np.array(weights), 1, 2).reshape(-1, 6)
        for stage in range(3):
            codewords = entries[f"vq.layers.{stage}._codebook.embed"][np.array(rows[stage])]
            expected = shared.T @ codewords if stage < 2 else np.zeros((6, 4))
            name = f"vq.layers.{stage}.project_out.weight"
            np.testing.assert_allclose(reported[name], expected, rtol=1e-4, atol=1e-5)


@works("grad of grad")
def test_second_derivatives_are_those_of_straight_through(rng):
    rvq = shim.trained().eval()
    x, expected = batch(), batch(seed=3)

    def slope(x):
        first = mx.grad(lambda x: (grad.quantize(x, rvq, RATE).quantized ** 3).sum())(x)
        return (first * expected).sum()

    quantized = grad.quantize(x, rvq, RATE).quantized
    np.testing.assert_allclose(
        np.array(mx.grad(slope)(x)), np.array(6 * quantized * expected), rtol=1e-5, atol=1e-6
    )


@works("jvp")
def test_forward_mode_is_straight_through():
    rvq = shim.trained(4).eval()
    x, towards = batch(), batch(seed=3)
    values, moved = mx.jvp(lambda x: grad.quantize(x, rvq, RATE).quantized, [x], [towards])
    assert mx.array_equal(values[0], grad.quantize(x, rvq, RATE).quantized)
    assert mx.array_equal(moved[0], towards)


@works("checkpoint, in eval")
def test_checkpointing_in_eval_gives_the_same():
    rvq = shim.trained(4).eval()
    call = lambda x: (grad.quantize(x, rvq, RATE).quantized ** 2).sum()  # noqa: E731
    assert mx.array_equal(mx.grad(mx.checkpoint(call))(batch()), mx.grad(call)(batch()))


def transforms():
    rvq, module = shim.trained(4), made()
    return {
        "quantize": lambda x: grad.quantize(x, rvq, RATE).quantized,
        "gradient": mx.grad(lambda x: grad.quantize(x, rvq, RATE).quantized.sum()),
        "module": lambda x: module(x, RATE).quantized,
        "encode": lambda x: module.encode(x, RATE),
        "decode": lambda x: module.decode((x[:, 0] > 0).astype(mx.int32)[:, None]),
    }, rvq, module  # fmt: skip


@refused("mx.compile")
@pytest.mark.parametrize("name", transforms()[0])
def test_compiling_is_refused_by_name(name):
    calls, rvq, module = transforms()
    before = {**rvq.state_dict(), **named(module.parameters())}
    with pytest.raises(BackendError, match=r"under mx\.compile and mx\.vmap"):
        mx.compile(calls[name])(batch(3, 6))
    after = {**rvq.state_dict(), **named(module.parameters())}
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


@refused("mx.vmap")
@pytest.mark.parametrize("name", transforms()[0])
def test_mapping_is_refused_by_name(name):
    calls, _, _ = transforms()
    with pytest.raises(BackendError, match=r"under mx\.compile and mx\.vmap"):
        mx.vmap(calls[name])(batch(2, 3, 6))


def test_a_compiled_network_around_an_eager_quantizer():
    rvq = shim.trained().eval()
    after = mx.compile(lambda x: (x**2).sum())
    found = mx.grad(lambda x: after(grad.quantize(x, rvq, RATE).quantized))(batch())
    quantized = grad.quantize(batch(), rvq, RATE).quantized
    np.testing.assert_allclose(np.array(found), np.array(2 * quantized), rtol=1e-6)


def test_draws_follow_the_seed_of_mlx():
    states = []
    for seed in (3, 3, 4):
        module = made(quantizer_dropout=True)
        mx.random.seed(seed)
        module(batch(), RATE)
        states.append(module.vq.layers[2].codebook.embed)
    assert mx.array_equal(states[0], states[1])
    assert not mx.array_equal(states[0], states[2])
    assert not mx.array_equal(made(seed=1).vq.layers[0].codebook.embed,
                              made(seed=2).vq.layers[0].codebook.embed)  # fmt: skip


def test_statistics_are_added_up_by_the_hook():
    asked = []

    def add_up(buffer):
        asked.append(buffer.size)
        return buffer

    module = made(all_reduce=AllReduce(add_up, 0, 1))
    module(batch(), RATE)
    module.eval()(batch(), RATE)
    alone = made()
    alone(batch(), RATE)
    assert asked
    for name, value in named(alone.parameters()).items():
        np.testing.assert_array_equal(named(module.parameters())[name], value)


@works("nn.value_and_grad")
@pytest.mark.parametrize("how", ["ema", "gradient"])
@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_a_network_around_it_learns(how, codebook_dim):
    draws = np.random.default_rng(0)
    x = draws.standard_normal((64, 12)) @ draws.standard_normal((12, 12)) / 3
    x = mx.array(x.astype(np.float32))
    mx.random.seed(1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.out = nn.Linear(12, 6), nn.Linear(6, 12)
            self.quantizer = made(codebook_dim, codebook_training=how, bins=16)

        def __call__(self, x):
            result = self.quantizer(self.into(x), RATE)
            error = mx.square(self.out(result.quantized) - x).mean()
            total = error + result.penalty
            if result.quantization_loss is not None:
                total = total + result.quantization_loss
            return total, error

    network = Network()
    step, optimizer = nn.value_and_grad(network, network), mlx.optimizers.Adam(0.01)
    errors = []
    for _ in range(200):
        (_, error), moved = step(x)
        optimizer.update(network, moved)
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        ((np.ones((3, 6), np.float32),), BackendError, "MLX arrays"),
        ((mx.ones((3, 6), mx.int32),), DtypeError, r"mlx\.core\.float32"),
        ((mx.ones((3, 5)),), ShapeError, r"\(N, 6\)"),
        ((mx.ones((6,)),), ShapeError, r"\(N, 6\)"),
        ((mx.full((3, 6), mx.inf),), NonFiniteError, "inf"),
        ((mx.ones((3, 6)), RATE, -1), ParameterError, "bandwidth"),
        ((mx.ones((3, 6)), 0), ParameterError, "sample_rate"),
        ((mx.ones((3, 6)), RATE, None, mx.ones((4,), mx.bool_)), ShapeError, "mask"),
        ((mx.ones((3, 6)), RATE, None, mx.ones((3,))), DtypeError, "bool_"),
        ((mx.ones((3, 6)), RATE, None, np.ones(3, bool)), BackendError, "MLX arrays"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@pytest.mark.parametrize("training", [False, True])
def test_what_cannot_be_quantized_is_refused_and_nothing_changes(bad, error, text, training):
    module = made().train(training)
    before = named(module.parameters())
    arguments = bad if len(bad) > 1 else (*bad, RATE)
    with pytest.raises(error, match=text):
        module(*arguments)
    for name, value in named(module.parameters()).items():
        np.testing.assert_array_equal(before[name], value)


def test_codes_of_another_library_are_refused():
    with pytest.raises(BackendError, match="MLX arrays"):
        made().decode(np.zeros((3, 4), np.int32))


def test_arguments_are_checked_as_by_the_class():
    for wrong in ({"bins": 0}, {"codebook_training": "magic"}, {"estimator": "magic"}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            ResidualVectorQuantizer(6, 6, **wrong)


def test_random_codewords_are_reported_of_once_in_eval():
    module = made().eval()
    with pytest.warns(rvq_np.NotInitializedWarning):
        module.encode(batch(), RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.encode(batch(), RATE)


@works("grad")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bins", [(8, 4, 6), 8])
def test_small_batches_train_as_the_class_does_and_stages_can_be_frozen(bins, frozen):
    """First codewords are made once more after 32 vectors, but those of a frozen stage."""
    module = made(bins=bins)
    rvq = module.to_numpy()
    awaited, stage = [], []
    for step in range(6):
        if frozen and step in (3, 5):
            module.freeze_stages([1] if step == 3 else [])
            rvq.freeze([1] if step == 3 else [])
        x = batch(10, 6, seed=step)
        rvq._rng = Draws(step)
        expected = rvq(np.array(x), RATE)
        mx.random.seed(step)
        result = module(x, RATE)
        np.testing.assert_array_equal(np.array(result.codes), expected.codes)
        np.testing.assert_array_equal(np.array(result.quantized), expected.quantized)
        for name, value in named(module.parameters()).items():
            np.testing.assert_array_equal(value, rvq.state_dict()[name], err_msg=name)
        assert module.vectors_awaited == rvq.vectors_awaited
        assert module.frozen == rvq.frozen
        awaited.append(module.vectors_awaited)
        stage.append(np.array(module.vq.layers[1].codebook.embed))
    assert awaited == [22, 12, 2, 0, 0, 0]
    assert (stage[2] == stage[3]).all() == (stage[3] == stage[4]).all() == frozen
    assert not (stage[4] == stage[5]).all()
    half = ResidualVectorQuantizer.of(rvq)
    assert half.frozen == rvq.frozen


def test_stages_to_freeze_are_checked():
    module = made()
    with pytest.raises(ParameterError, match=r"freeze: freeze\[0\] is 3; expected .* 0 to 2"):
        module.freeze_stages([3])
    with pytest.raises(StateError, match="freeze: stage 2 has random codewords"):
        module.freeze_stages([2])
