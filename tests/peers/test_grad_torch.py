"""PyTorch: the bits of the class, the gradients of its products, under every transform."""

import copy
import io
import itertools
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from helpers import ranks_in_torch, shim, shim_training
from torch import nn

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
from rvq_np.grad import _cache, _operation, _torch_eager
from rvq_np.grad.torch import ResidualVectorQuantizer
from rvq_np.testing import gradient_tests

torch.set_num_threads(1)

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


works = lambda name: pytest.mark.transform("torch", name)  # noqa: E731


def gradient(function, x):
    x = x.detach().requires_grad_()
    scalar, aux = function(x)
    return (scalar, aux), torch.autograd.grad(scalar, x)[0]


def array(values, dtype):
    return torch.from_numpy(np.array(values)).to(getattr(torch, dtype))


def as_numpy(tensor):
    return (tensor.float() if tensor.dtype.itemsize == 2 else tensor).detach().numpy()


FRAMEWORK = shim.Framework(
    array, as_numpy, gradient, foreign=np.ones(3, bool),
    dtypes=("float16", "bfloat16", "float32", "float64"),
)  # fmt: skip
TestShim = works("eager")(shim.shim_tests(FRAMEWORK))
TestTraining = works("eager")(shim_training.training_tests(FRAMEWORK))


def value_and_gradients(x, codebooks, weight, cotangent):
    """Run the module as `gradient_tests` asks for it, with these codewords in place of its own."""
    n_q, bins, dim = codebooks.shape
    module = ResidualVectorQuantizer(
        dim, dim, n_q, bins, threshold_ema_dead_code=0, commitment_weight=weight
    )
    state = module.state_dict()
    for stage, codewords in enumerate(torch.from_numpy(codebooks)):
        for name in ("embed", "embed_avg"):
            state[f"vq.layers.{stage}._codebook.{name}"] = codewords
        state[f"vq.layers.{stage}._codebook.inited"] = torch.ones(1)
    module.load_state_dict(state)
    x = torch.from_numpy(x).requires_grad_()
    result = module(x, RATE)
    ((result[0] * torch.from_numpy(cotangent)).sum() + result[3]).backward()
    return [as_numpy(each) for each in (result[0], result[1], result[3], x.grad)]


TestKit = gradient_tests(value_and_gradients=value_and_gradients)
del TestKit.test_the_codebook_loss_leaves_the_encoder_alone  # by moving averages: there is none


@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
@pytest.mark.parametrize("codebook_dim", [6, 4, 70])
@pytest.mark.parametrize("dropout", [False, 0.7])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_hand_are_those_of_the_operations(
    estimator, codebook_dim, dropout, masked, monkeypatch
):
    """Three steps by either way: the same values and state, gradients up to rounding."""
    ways = []
    for by_hand in (True, False):
        serves = _torch_eager.serves
        if not by_hand:
            monkeypatch.setattr(_torch_eager, "serves", lambda *given: False)
        asked = []
        with monkeypatch.context() as patch:
            run = _torch_eager.forward
            watched = lambda *given, asked=asked, run=run: asked.append(1) or run(*given)  # noqa: E731
            patch.setattr(_torch_eager, "forward", watched)
            torch.manual_seed(3)
            module = ResidualVectorQuantizer(
                6, codebook_dim, 3, 9, quantizer_dropout=dropout, estimator=estimator
            )
            x = torch.randn(4, 6, 11)
            mask = torch.arange(11) < torch.tensor([[11], [3], [0], [8]]) if masked else None
            found = []
            optimizer = (
                torch.optim.SGD(list(module.parameters()), 0.01) if codebook_dim != 6 else None
            )
            for step in range(3):
                torch.manual_seed(step)
                x = x.detach().requires_grad_()
                module.zero_grad()
                result = module(x, RATE, mask=mask)
                (result[0].square().mean() + 3 * result[3]).backward()
                found.append([x.grad, *(each.grad for each in module.parameters())])
                found.append([result[0], result[3]])
                codes = result[1]
                if optimizer:
                    optimizer.step()
            assert len(asked) == (3 if by_hand else 0)
            ways.append((found, codes, dict(module.named_buffers())))
        monkeypatch.setattr(_torch_eager, "serves", serves)
    (ours, our_codes, our_state), (theirs, codes, state) = ways
    assert torch.equal(our_codes, codes)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-6)
    for name, value in our_state.items():
        torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-6)


def test_gradients_of_gradients_are_those_of_the_operations(monkeypatch):
    torch.manual_seed(0)
    module = ResidualVectorQuantizer(6, 4, 2, 8, kmeans_init=False).eval()
    weight = module.vq.layers[0].project_out.weight
    x = torch.randn(3, 6, 5)
    found = []
    for by_hand in (True, False):
        if not by_hand:
            monkeypatch.setattr(_torch_eager, "serves", lambda *given: False)
        given = x.clone().requires_grad_()
        result = module(given, RATE)
        (slope,) = torch.autograd.grad(result[0].pow(3).sum(), given, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [given, weight]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def prepared_of(module):
    named = module._named()
    return _cache.prepared(module.config, list(named), list(named.values()))


def test_a_state_that_did_not_change_is_known_though_projections_moved(monkeypatch):
    module = ResidualVectorQuantizer(6, 4, 3, 9)
    x = torch.randn(2, 6, 20)
    module(x, RATE)
    known = prepared_of(module)
    with torch.no_grad():
        module.vq.layers[1].project_in.bias += 1
    again = prepared_of(module)
    assert again is not known
    assert all(a is b for a, b in zip(again.states, known.states, strict=True))
    same = [
        [a is b for a, b in zip(mine, other, strict=True)]
        for mine, other in zip(again.projections, known.projections, strict=True)
    ]
    assert same == [[True, True], [False, True], [True, True]]
    np.testing.assert_array_equal(again.projections[1][0].bias, known.projections[1][0].bias + 1)
    with torch.no_grad():
        module.vq.layers[2]._codebook.embed[3] += 1
    last = prepared_of(module)
    assert [a is b for a, b in zip(last.states, known.states, strict=True)] == [True, True, False]
    np.testing.assert_array_equal(last.states[2].codebook[3], known.states[2].codebook[3] + 1)
    assert not last.states[2].codebook.flags.writeable


@pytest.fixture(autouse=True)
def _compiled_afresh():
    torch.compiler.reset()


@pytest.fixture(params=[(6, "ema"), (4, "ema"), (4, "gradient")], ids=str)
def module(request):
    codebook_dim, how = request.param
    return made(codebook_dim, codebook_training=how)


def made(codebook_dim=4, *, bins=8, seed=1, **arguments):
    torch.manual_seed(seed)
    return ResidualVectorQuantizer(
        6, codebook_dim, n_q=3, bins=bins, commitment_weight=0.7, **arguments
    )


def batch(*shape, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (4, 6, 20), generator=generator)


def loss_of(result, x):
    total = (result.quantized * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum()
    total = total + 3 * result.penalty
    if result.quantization_loss is not None:
        total = total - 2 * result.quantization_loss
    return total


class Draws:
    """A generator that draws what a torch module draws for one step."""

    def __init__(self, seed):
        self.seed = seed

    def integers(self, *_, **__):
        torch.manual_seed(self.seed)
        return torch.randint(1 << 32, (2,)).numpy()


@works("eager")
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
    mask = torch.rand(4, 20, generator=torch.Generator().manual_seed(0)) < 0.7 if masked else None
    for step in range(2):
        x = batch(seed=step).requires_grad_()
        rvq = module.to_numpy()
        rvq._rng = Draws(step)
        moved = rvq.state_dict()
        torch.manual_seed(step)
        result = module(x, RATE, mask=mask)
        expected, vjp = grad.quantize_vjp(
            x.detach().numpy(), rvq, RATE, mask=None if mask is None else mask.numpy(),
            estimator=estimator,
        )  # fmt: skip
        np.testing.assert_array_equal(result.codes.numpy(), expected.codes)
        np.testing.assert_array_equal(result.quantized.detach().numpy(), expected.quantized)
        np.testing.assert_array_equal(result.bandwidth.numpy(), expected.bandwidth)
        assert result.penalty.item() == pytest.approx(float(expected.penalty), rel=1e-5)
        assert (result.quantization_loss is not None) == bool(dropout or how == "gradient")
        for name, value in rvq.state_dict().items():
            ours = module.state_dict()[name].numpy()
            if how == "ema":
                np.testing.assert_array_equal(ours, value)
            elif step:
                np.testing.assert_array_equal(ours, moved[name])
        module.zero_grad()
        loss_of(result, x).backward()
        weights = np.linspace(-1, 1, x.numel(), dtype=np.float32).reshape(x.shape)
        both = -2.0 if result.quantization_loss is not None else 0.0
        found = vjp(weights, penalty=3.0, quantization_loss=both)
        np.testing.assert_allclose(x.grad.numpy(), found.x, rtol=1e-4, atol=2e-6)
        for name, parameter in module.named_parameters():
            np.testing.assert_allclose(
                parameter.grad.numpy(), found.parameters[name], rtol=1e-4, atol=2e-5
            )
        assert len(list(module.parameters())) == len(found.parameters) - 3 * (how == "ema")


def test_it_takes_the_place_of_espnets_class():
    """Checkpoints both ways, the order of the tuple, and the codes."""
    for codebook_dim in (6, 4):
        theirs = Espnet(6, codebook_dim, n_q=3, bins=8)
        ours = made(codebook_dim)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        x = batch()
        ours(x, RATE)
        theirs.load_state_dict(ours.state_dict())
        ours.eval()
        theirs.eval()
        for one, other in zip(ours(x, RATE), theirs(x, RATE), strict=True):
            torch.testing.assert_close(one, other, check_dtype=False)
        again = made(codebook_dim, seed=9)
        again.load_state_dict(theirs.state_dict())
        assert torch.equal(again.eval()(x, RATE).codes, ours(x, RATE).codes)
        file = io.BytesIO()
        torch.save(ours.state_dict(), file)
        file.seek(0)
        again.load_state_dict(torch.load(file, weights_only=True))


def test_it_goes_to_the_class_without_torch_and_back(module):
    x = batch()
    module(x, RATE)
    rvq = module.eval().to_numpy()
    back = ResidualVectorQuantizer.of(rvq, codebook_training=module.codebook_training)
    assert not back.training
    for name, value in module.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    assert torch.equal(back.encode(x, RATE), module.encode(x, RATE))
    np.testing.assert_array_equal(rvq.encode(x.numpy(), RATE), module.encode(x, RATE).numpy())


def test_codes_decode_to_the_quantized_vectors_with_gradients_to_the_decoder(module):
    x = batch()
    module(x, RATE)
    module.eval()
    result = module(x, RATE)
    assert torch.equal(module.decode(result.codes), result.quantized)
    later = module.to_numpy().decode(result.codes[1:].numpy(), st=1)
    np.testing.assert_array_equal(module.decode(result.codes[1:], st=1).detach().numpy(), later)
    assert torch.equal(module.encode(x, RATE), result.codes)
    assert module.encode(x, RATE, st=1, beam_size=2).shape == (2, 4, 20)
    module.zero_grad()
    weights = batch(seed=3)
    vectors = module.decode(result.codes[:2])
    assert vectors.requires_grad == bool(list(module.parameters()))
    if module.config.projects:
        (vectors * weights).sum().backward()
        shared = weights.transpose(1, 2).reshape(-1, 6)
        for stage in range(3):
            layer = module.vq.layers[stage]
            codewords = layer._codebook.embed[result.codes[stage].reshape(-1).long()]
            if stage < 2:
                torch.testing.assert_close(layer.project_out.weight.grad, shared.T @ codewords)
            else:
                assert layer.project_out.weight.grad is None
    assert not result.codes.is_floating_point()


@works("torch.compile, eager and aot_eager")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("training", [False, True])
def test_compiled_whole_it_gives_the_same_bits(module, training, backend):
    module(batch(seed=8), RATE)
    module.train(training)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    outcomes = []
    for call in (compiled, module):
        module.load_state_dict(before)
        module.zero_grad()
        torch.manual_seed(5)
        x = batch().requires_grad_()
        result = call(x, RATE, mask=torch.ones(4, 20, dtype=torch.bool))
        loss_of(result, x).backward()
        grads = [x.grad, *(each.grad for each in module.parameters() if each.grad is not None)]
        state = {name: value.clone() for name, value in module.state_dict().items()}
        outcomes.append(([each for each in result if each is not None], grads, state))
    for ours, theirs in zip(outcomes[0][0][:3], outcomes[1][0][:3], strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(outcomes[0][1], outcomes[1][1])
    for name, value in outcomes[1][2].items():
        assert torch.equal(outcomes[0][2][name], value)


@works("torch.compile, inductor")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it loads
def test_inductor_gives_the_same_bits():
    module = made()
    module(batch(seed=8), RATE)
    expected = module.eval()(batch(), RATE)
    compiled = torch.compile(module, fullgraph=True, backend="inductor")
    x = batch().requires_grad_()
    result = compiled(x, RATE)
    assert torch.equal(result.codes, expected.codes)
    assert torch.equal(result.quantized, expected.quantized)
    loss_of(result, x).backward()
    weights = torch.linspace(-1, 1, x.numel()).reshape(x.shape)
    torch.testing.assert_close(x.grad, weights)


@works("torch.compile, eager and aot_eager")
def test_a_quantizer_held_by_numpy_compiles_in_eval_only():
    rvq = shim.trained().eval()
    call = torch.compile(
        lambda x: grad.quantize(x, rvq, RATE).quantized, fullgraph=True, backend="aot_eager"
    )
    x = batch()
    assert torch.equal(call(x), grad.quantize(x, rvq, RATE).quantized)
    rvq.train()
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"train mode under torch\.compile"):
        call(x)


@works("torch.func.grad, vmap, jacrev")
@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
def test_functional_gradients_and_mapping(estimator):
    module = made(estimator=estimator)
    module(batch(seed=8), RATE)
    module.eval()
    x, weights = batch(3, 2, 6, 10), batch(3, 2, 6, 10, seed=4)
    parameters = dict(module.named_parameters())

    def loss(parameters, x, weights):
        result = torch.func.functional_call(module, parameters, (x, RATE))
        return (result.quantized * weights).sum(), result.codes

    each = [torch.func.grad(loss, argnums=(0, 1), has_aux=True)(parameters, *pair)
            for pair in zip(x, weights, strict=True)]  # fmt: skip
    call = torch.func.vmap(
        torch.func.grad(loss, argnums=(0, 1), has_aux=True), in_dims=(None, 0, 0)
    )
    (to_parameters, to_x), codes = call(parameters, x, weights)
    for place, ((ours, moved), its_codes) in enumerate(each):
        assert torch.equal(codes[place], its_codes)
        torch.testing.assert_close(to_x[place], moved)
        for name, value in ours.items():
            torch.testing.assert_close(to_parameters[name][place], value)
    plain = module(x[0], RATE)
    assert torch.equal(each[0][1], plain.codes)
    rows = batch(2, 6)
    jacobian = torch.func.jacrev(lambda x: module(x, RATE).quantized)(rows)
    if estimator == "straight-through":
        torch.testing.assert_close(jacobian, torch.eye(12).reshape(2, 6, 2, 6))


@works("torch.func.grad, vmap, jacrev")
def test_mapping_the_quantizer_itself_or_a_mask():
    modules = [made(seed=seed) for seed in (1, 2)]
    for each in modules:
        each(batch(seed=8), RATE)
        each.eval()
    stacked, _ = torch.func.stack_module_state(modules)
    buffers = {name: torch.stack([dict(each.named_buffers())[name] for each in modules])
               for name, _ in modules[0].named_buffers()}  # fmt: skip
    x, mask = batch(), torch.rand(2, 4, 20, generator=torch.Generator().manual_seed(3)) < 0.5

    def call(parameters, buffers, mask):
        result = torch.func.functional_call(
            modules[0], (parameters, buffers), (x, RATE, None, mask)
        )
        return result.codes, result.quantized

    codes, quantized = torch.func.vmap(call)(stacked, buffers, mask)
    for place, each in enumerate(modules):
        expected = each(x, RATE, mask=mask[place])
        assert torch.equal(codes[place], expected.codes)
        assert torch.equal(quantized[place], expected.quantized)
    shared = torch.func.vmap(lambda mask: modules[0](x, RATE, None, mask).quantized)(mask)
    assert torch.equal(shared[0], quantized[0])


@pytest.mark.transform("torch", "training under vmap", refused=True)
def test_training_under_vmap_is_refused():
    with pytest.raises(BackendError, match="vmap"):
        torch.func.vmap(lambda x: made()(x, RATE).quantized)(batch(3, 2, 6, 10))


@works("autocast")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_neither_codes_nor_codewords(module, dtype):
    plain = made(module.config.codebook_dim, codebook_training=module.codebook_training)
    x = batch().to(dtype).requires_grad_()
    torch.manual_seed(4)
    with torch.autocast("cpu", dtype=dtype):
        result = module(x, RATE)
        total = loss_of(result, x)
    torch.manual_seed(4)
    expected = plain(x.detach().float(), RATE)
    assert result.quantized.dtype == dtype
    assert torch.equal(result.codes, expected.codes)
    assert torch.equal(result.quantized, expected.quantized.to(dtype))
    assert torch.equal(result.penalty, expected.penalty)
    for name, value in plain.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)
    total.backward()
    assert x.grad.dtype == dtype
    assert torch.isfinite(x.grad).all()


def test_draws_follow_the_seed_of_torch():
    states = []
    for seed in (3, 3, 4):
        module = made(quantizer_dropout=True)
        torch.manual_seed(seed)
        module(batch(), RATE)
        states.append(module.state_dict()["vq.layers.2._codebook.embed"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_network_around_it_learns_and_the_codebook_by_gradient_too():
    torch.manual_seed(0)
    x = torch.randn(64, 12) @ torch.randn(12, 12) / 3
    for how, codebook_dim in (("ema", 4), ("ema", 6), ("gradient", 4), ("gradient", 6)):
        torch.manual_seed(1)
        into, out = nn.Linear(12, 6), nn.Linear(6, 12)
        quantizer = made(codebook_dim, codebook_training=how, bins=16)
        parameters = [*into.parameters(), *out.parameters(), *quantizer.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        losses = []
        for _ in range(300):
            result = quantizer(into(x), RATE)
            loss = (out(result.quantized) - x).square().mean()
            losses.append(loss.item())
            total = loss + result.penalty
            if result.quantization_loss is not None:
                total = total + result.quantization_loss
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        ((np.ones((3, 6), np.float32),), BackendError, "torch tensors"),
        ((torch.ones(3, 6, dtype=torch.int64),), DtypeError, "x.float"),
        ((torch.ones(3, 5),), ShapeError, r"\(N, 6\)"),
        ((torch.ones(6),), ShapeError, r"\(N, 6\)"),
        ((torch.ones(3, 6, device="meta"),), BackendError, "meta"),
        ((torch.full((3, 6), torch.inf),), NonFiniteError, "inf"),
        ((torch.ones(3, 6), RATE, -1), ParameterError, "bandwidth"),
        ((torch.ones(3, 6), 0), ParameterError, "sample_rate"),
        ((torch.ones(3, 6), RATE, None, torch.ones(4, dtype=torch.bool)), ShapeError, "mask"),
        ((torch.ones(3, 6), RATE, None, torch.ones(3)), DtypeError, "torch.bool"),
        ((torch.ones(3, 6), RATE, None, np.ones(3, bool)), BackendError, "torch tensors"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@pytest.mark.parametrize("training", [False, True])
def test_what_cannot_be_quantized_is_refused_and_nothing_changes(bad, error, text, training):
    module = made().train(training)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    arguments = bad if len(bad) > 1 else (*bad, RATE)
    with pytest.raises(error, match=text):
        module(*arguments)
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)


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


def test_the_operator_keeps_torchs_rules():
    """Fresh outputs, the promised shapes, strides and types, under every dispatch key."""
    from rvq_np.grad import _torch_operator

    module = made(quantizer_dropout=True)
    for training in (False, True):
        spec = _operation.spec_of(module.config, RATE, None, training=training).text
        seed = torch.tensor([3, 4])
        tensors = [each.detach() for each in module._named(statistics=training).values()]
        for shape, valid in (([4, 20], None), ([9], torch.arange(9) > 3)):
            rows = batch(math.prod(shape), 6)
            given = (spec, rows, valid, shape, seed, tensors)
            torch.library.opcheck(_torch_operator.run, given)


@works("DistributedDataParallel, 2 gloo ranks")
@pytest.mark.parametrize(("codebook_dim", "dropout"), [(6, 0.0), (4, 0.5)])
def test_two_ranks_keep_the_same_codebooks_those_of_one_process(tmp_path, codebook_dim, dropout):
    script = ranks_in_torch.__file__
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", tmp_path / "meet", tmp_path / f"{rank}.npz",
             str(codebook_dim), str(dropout)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for each in started:
        _, errors = each.communicate(timeout=1200)
        assert each.returncode == 0, errors
    first, second = (list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(2))
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    torch.manual_seed(0)
    alone = ranks_in_torch.run(0, 1, ranks_in_torch.Network(codebook_dim, dropout))
    arrays = [array for step in alone for array in step]
    replaced = 0
    for one, other in zip(first, arrays, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for before, after in itertools.pairwise(alone):
        for old, new in zip(before, after, strict=True):
            replaced += (new == 5.0).sum() if new.shape == (8,) else 0
            assert old.shape == new.shape
    assert replaced > 0  # by the same vectors on both, or the codewords would differ


@works("eager")
@pytest.mark.parametrize("codebook_dim", [6, 4])
@pytest.mark.parametrize("dropout", [False, 0.5])
def test_a_quantizer_held_by_numpy_trains_from_its_first_batch_on(codebook_dim, dropout):
    """Its codewords are found by k-means in that very step: losses and gradients are of those."""
    arguments = {"n_q": 3, "bins": 8, "rng": 5, "quantizer_dropout": dropout}
    ours, theirs = (rvq_np.ResidualVectorQuantizer(6, codebook_dim, **arguments) for _ in range(2))
    for step in range(2):
        x = batch(seed=step).requires_grad_()
        mask = torch.rand(4, 20, generator=torch.Generator().manual_seed(step)) < 0.7
        result = grad.quantize(x, ours, RATE, mask=mask)
        expected, vjp = grad.quantize_vjp(x.detach().numpy(), theirs, RATE, mask=mask.numpy())
        np.testing.assert_array_equal(result.quantized.detach().numpy(), expected.quantized)
        assert result.penalty.item() == pytest.approx(float(expected.penalty), rel=1e-5)
        loss_of(result, x).backward()
        weights = np.linspace(-1, 1, x.numel(), dtype=np.float32).reshape(x.shape)
        found = vjp(weights, penalty=3.0).x
        np.testing.assert_allclose(x.grad.numpy(), found, rtol=1e-4, atol=2e-6)
        for name, value in theirs.state_dict().items():
            np.testing.assert_array_equal(ours.state_dict()[name], value)


WAYS_TO_HALF = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to": lambda module: module.to(torch.float16),
    "inside another": lambda module: nn.Sequential(module).half()[0],
    "assigned": lambda module: _assigned(module),
}


def _assigned(module):
    state = {name: each.half() for name, each in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module


@pytest.mark.parametrize("way", WAYS_TO_HALF.values(), ids=WAYS_TO_HALF)
@pytest.mark.parametrize("narrow", [4, 3])
def test_statistics_stay_float32_in_a_module_of_half_precision(way, narrow):
    """A float16 count of 70,000 equal vectors overflowed, and the state was lost.

    lucidrains/vector-quantize-pytorch#10
    """
    torch.manual_seed(0)
    rvq = ResidualVectorQuantizer(4, narrow, n_q=2, bins=8, decay=0.0, kmeans_iters=2)
    x = torch.randn(1, 4, 100)
    rvq(x, 50)
    before = {name: each.clone() for name, each in rvq.named_buffers()}
    rvq = way(rvq)
    for name, buffer in rvq.named_buffers():
        assert buffer.dtype == torch.float32
        if way is not WAYS_TO_HALF["assigned"]:  # that is what was rounded
            torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)
    given = next(iter(rvq.parameters())).dtype if narrow == 3 else torch.float16
    one = x[:, :, :1].repeat(1, 1, 70000).to(given)
    result = rvq(one, 50)
    assert result.quantized.dtype == given
    counts = rvq.vq.layers[0]._codebook.cluster_size
    assert counts.max() == 70000
    assert all(torch.isfinite(each).all() for each in rvq.buffers())
    rvq(one, 50)
    state = rvq.state_dict()
    again = ResidualVectorQuantizer(4, narrow, n_q=2, bins=8)
    again.load_state_dict(state)
    ours, theirs = (each.eval()(one.float(), 50).codes for each in (rvq, again))
    torch.testing.assert_close(ours, theirs)


def online(module, freeze, steps=6):
    """Train a module and the class on the same small batches; yield both after every step.

    After three steps stage 1 is frozen, if so asked, after five none is.
    """
    rvq = module.to_numpy()
    for step in range(steps):
        if freeze and step in (3, 5):
            freeze(module, [1] if step == 3 else []), rvq.freeze([1] if step == 3 else [])
        x = batch(10, 6, seed=step)
        rvq._rng = Draws(step)
        expected = rvq(x.numpy(), RATE)
        torch.manual_seed(step)
        yield rvq, expected, module(x, RATE)


@works("eager")
@pytest.mark.parametrize("way", ["eager", "operator", "compiled"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("codebook_dim", "bins"), [(6, (8, 4, 6)), (4, 8)])
def test_small_batches_train_as_the_class_does_and_stages_can_be_frozen(
    way, frozen, codebook_dim, bins, monkeypatch
):
    """First codewords are made once more after 32 vectors, but those of a frozen stage."""
    module = made(codebook_dim, bins=bins)
    if way == "operator":
        monkeypatch.setattr(_torch_eager, "serves", lambda *given: False)
    freeze = (lambda module, stages: module.freeze(stages)) if frozen else None
    if way == "compiled":
        module.compile(fullgraph=True, backend="eager")
    awaited, stage = [], []
    for rvq, expected, result in online(module, freeze):
        np.testing.assert_array_equal(result.codes.numpy(), expected.codes)
        np.testing.assert_array_equal(result.quantized.detach().numpy(), expected.quantized)
        for name, value in rvq.state_dict().items():
            np.testing.assert_array_equal(module.state_dict()[name].numpy(), value, err_msg=name)
        assert module.vectors_awaited == rvq.vectors_awaited
        assert module.frozen == rvq.frozen
        awaited.append(module.vectors_awaited)
        stage.append(module.state_dict()["vq.layers.1._codebook.embed"].clone())
    assert awaited == [22, 12, 2, 0, 0, 0]
    assert torch.equal(stage[2], stage[3]) == torch.equal(stage[3], stage[4]) == frozen
    assert not torch.equal(stage[4], stage[5])


def test_what_waits_goes_with_the_module_and_not_with_its_state_dict():
    module = made()
    module(batch(10, 6), RATE)
    others = [copy.deepcopy(module), ResidualVectorQuantizer.of(module.to_numpy())]
    saved = module.state_dict()
    assert set(saved) == set(module.to_numpy().state_dict())
    for each in others:
        assert each.vectors_awaited == module.vectors_awaited == 22
    torch.manual_seed(0)
    module(batch(30, 6, seed=1), RATE)
    for each in others:
        assert each.vectors_awaited == 22
        torch.manual_seed(0)
        each(batch(30, 6, seed=1), RATE)
        assert torch.equal(each.vq.layers[0]._codebook.embed, module.vq.layers[0]._codebook.embed)
    again = made()
    again(batch(10, 6), RATE)
    again.load_state_dict(saved)
    assert again.vectors_awaited == 0


def test_stages_to_freeze_are_checked():
    module = made()
    with pytest.raises(ParameterError, match=r"freeze: freeze\[0\] is 3; expected .* 0 to 2"):
        module.freeze([3])
    with pytest.raises(StateError, match="freeze: stage 2 has random codewords"):
        module.freeze([2])
    assert module.frozen == ()
