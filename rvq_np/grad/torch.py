"""PyTorch: eager, ``torch.compile``, ``torch.func``, autocast and DistributedDataParallel.

Only the search is opaque, as one custom operator over tensors and a string (`_torch_operator`);
gather, sum and straight-through are native operations, so autograd, compilers and transforms see
through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import nn

from .. import names
from .. import train as training
from ..errors import BackendError, DtypeError
from ..quantizer import ResidualVectorQuantizer as NumpyQuantizer
from ..quantizer.layout import QuantizedResult
from . import _inputs, _module
from . import _torch_eager as _eager
from ._cache import prepared
from ._names import is_codebook, is_state, stage_arrays
from ._operation import outputs_of, spec_of
from ._products import arrays_of
from ._references import number_of
from ._remembered import Remembered
from ._straight_through import Outputs, decoded_vectors, inputs_of, result_of
from ._torch_operator import OPS, draw, run
from ._torch_processes import all_reduce, all_reduce_by_default

_SEARCHED = (names.INITIALIZED, names.CODEWORDS)  # of a codebook: its statistics are for training

__all__ = ["ResidualVectorQuantizer", "all_reduce", "quantize"]


def __dir__() -> list[str]:
    return sorted(__all__)


pytree.register_dataclass(
    QuantizedResult,
    field_names=["quantized", "codes", "bandwidth", "penalty", "quantization_loss"],
)


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    _check(x, mask, rvq.dimension)
    if rvq.training and torch.compiler.is_compiling():
        raise BackendError(
            "quantize: rvq is in train mode under torch.compile, where its training would be lost. "
            "Use rvq_np.grad.torch.ResidualVectorQuantizer, or rvq.eval()."
        )
    config = rvq.config
    with torch.autocast(x.device.type, enabled=False):
        inputs = inputs_of(OPS, x, mask)
        stages = []
        if rvq.training:
            wide = OPS.widen(x.detach())
            passed = rvq.passed("quantize", wide, sample_rate, bandwidth, mask, n_q)
            outputs = Outputs(*map(torch.as_tensor, outputs_of(passed)))
            constants = arrays_of(passed.codebooks, len(outputs.codes), np.float32)
            stages = [each.each(torch.from_numpy) for each in constants]
        else:
            spec = _text_for(rvq, sample_rate, bandwidth, n_q)
            outputs = _run_apart(spec, inputs, None, [])
        return result_of(
            OPS, inputs, outputs, stages, config, losses=rvq.training, estimator=estimator,
            both_losses=bool(config.quantizer_dropout),
            gradients=rvq.training or torch.is_grad_enabled(),
        )  # fmt: skip


class _Codebook(nn.Module):
    """The arrays of one codebook. Those that training on the host changes stay float32 or wider.

    In half precision a count would overflow at 65504, and what an average gains in a step would be
    rounded away.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and _narrow(moved):
                self._buffers[name] = buffer.to(moved.device)  # as it was: nothing was rounded
        return self._widened()

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._widened()

    def _widened(self) -> Any:
        for name, buffer in self._buffers.items():
            if buffer is not None and _narrow(buffer):
                self._buffers[name] = buffer.float()
        return self


def _narrow(tensor: Any) -> bool:
    return bool(tensor.is_floating_point() and tensor.element_size() < 4)


class ResidualVectorQuantizer(_module.Described, nn.Module):
    """ESPnet's quantizer as a torch module with the kernels of rvq_np: a drop-in replacement.

    It has the arguments, tuple order and names in the ``state_dict`` of ESPnet's class, so each
    class loads checkpoints of the other. Codewords and their statistics are buffers, which every
    forward pass in train mode updates; projections are parameters.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the codewords are parameters, trained by ``quantization_loss``. Training still
        finds their first values by k-means, but neither moves nor replaces them.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    all_reduce : rvq_np.train.AllReduce or False, optional
        Adds up statistics over processes. By default ``torch.distributed`` is used, if it is
        initialized when the module is called; False: statistics are not added up.

    Notes
    -----
    Random numbers follow ``torch.manual_seed``. With several processes those of the first process
    are used, so all replace the same codewords by the same vectors. Vectors are computed in float32
    at least, under autocast too, and returned in the type of the input. Codewords in buffers and
    their statistics stay float32 after ``half()``, ``bfloat16()`` and ``to``; parameters are
    converted.

    Examples
    --------
    >>> import torch
    >>> from rvq_np.grad.torch import ResidualVectorQuantizer
    >>> rvq = ResidualVectorQuantizer(dimension=16, codebook_dim=16, n_q=4, bins=32)
    >>> x = torch.randn(2, 16, 100, requires_grad=True)
    >>> quantized, codes, bandwidth, penalty = rvq(x, sample_rate=50)
    >>> (quantized.square().mean() + penalty).backward()
    >>> x.grad.shape, codes.dtype
    (torch.Size([2, 16, 100]), torch.int32)
    """

    def __init__(
        self,
        dimension: int = 256,
        codebook_dim: int | None = 512,
        n_q: int = 8,
        bins: int | Sequence[int] = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float | None = None,
        quantizer_dropout: bool | float = False,
        *,
        commitment_weight: float = 1.0,
        epsilon: float = 1e-5,
        relative_threshold: float | None = None,
        codebook_training: str = "ema",
        estimator: str = "straight-through",
        all_reduce: Any = None,
    ) -> None:
        super().__init__()
        self.config = _inputs.config_of(locals())
        for name, value in self.config.as_dict().items():  # ESPnet's code reads some of them
            setattr(self, name, value)
        _inputs.check_options(codebook_training, estimator, all_reduce or None)
        self.codebook_training, self.estimator = codebook_training, estimator
        self.all_reduce = all_reduce
        self._remembered = Remembered()
        rng = np.random.default_rng(draw().tolist())
        start = training.entries(*training.fresh(self.config, rng))
        for name, shape in training.shapes(self.config).items():
            value = torch.from_numpy(np.array(start[name], dtype=np.float32).reshape(shape))
            *path, last = name.split(".")
            owner = self
            for part in path:
                if part not in owner._modules:
                    kind = {"layers": nn.ModuleList, "_codebook": _Codebook}.get(part, nn.Module)
                    owner.add_module(part, kind())
                owner = owner._modules[part]
            learned = not is_state(name)
            if learned or (is_codebook(name) and codebook_training == "gradient"):
                owner.register_parameter(last, nn.Parameter(value))
            else:
                owner.register_buffer(last, value)

    @classmethod
    def of(cls, rvq: Any, **options: Any) -> ResidualVectorQuantizer:
        """Return a module with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        arguments = rvq.config.as_dict()
        module = cls(**arguments, **options).train(rvq.training)
        arrays = rvq.state_dict()
        module.load_state_dict({name: torch.from_numpy(each) for name, each in arrays.items()})
        module._remembered = Remembered(rvq.collected, rvq.frozen)
        return module

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._remembered.collected = None

    def to_numpy(self) -> Any:
        """Return an `rvq_np.ResidualVectorQuantizer` with the module's arguments and arrays."""
        entries = {name: each.float().cpu() for name, each in self._named().items()}
        states, projections = training.from_state_dict(entries, self.config)
        known = self._remembered
        made = NumpyQuantizer.made_of(
            self.config, states, projections, collected=known.collected, frozen=known.frozen
        )
        return made.train(self.training)

    def forward(
        self,
        x: torch.Tensor,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        mask: torch.Tensor | None = None,
        *,
        n_q: int | None = None,
    ) -> QuantizedResult:
        """Quantize a batch (B, D, T) or (N, D); in train mode, train on it.

        As `rvq_np.ResidualVectorQuantizer.forward`, with gradients, see `rvq_np.grad`. The result
        has ``quantization_loss`` under dropout, and where it trains the codewords.
        """
        _check(x, mask, self.config.dimension)
        by_gradient = self.codebook_training == "gradient"
        named = self._named(statistics=self.training)
        with torch.autocast(x.device.type, enabled=False):
            inputs = inputs_of(OPS, x, mask)
            if not by_gradient and _eager.serves(x, mask, named):
                spec = self._spec(sample_rate, bandwidth, n_q, self.training)
                seed = draw() if self.training else None
                return _eager.forward(spec, inputs, seed, named, self.estimator)
            text = self._text(sample_rate, bandwidth, n_q, self.training)
            seed = draw() if self.training else None
            outputs = _run_apart(text, inputs, seed, list(named.values()))
            result = result_of(
                OPS, inputs, outputs, stage_arrays(self.config, named, outputs.codes.shape[0]),
                self.config, losses=self.training, estimator=self.estimator,
                both_losses=by_gradient or bool(self.config.quantizer_dropout),
                gradients=self.training or torch.is_grad_enabled(),
            )  # fmt: skip
        if self.training:
            with torch.no_grad():
                for name, value in zip(filter(is_state, named), outputs.state, strict=True):
                    named[name].copy_(value)
        return result

    def encode(
        self,
        x: torch.Tensor,
        sample_rate: float | None = None,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
        *,
        n_q: int | None = None,
    ) -> torch.Tensor:
        """Return codes (n - st, B, T) or (n - st, N), int32, without training.

        As `rvq_np.ResidualVectorQuantizer.encode`.
        """
        _check(x, None, self.config.dimension)
        return self._quantizer().encode(x, sample_rate, bandwidth, st, beam_size, n_q=n_q)

    def decode(
        self, codes: torch.Tensor, st: int | None = None, *, n_q: int | None = None
    ) -> torch.Tensor:
        """Return the decoded vectors of codes (n, B, T) or (n, N), float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and codewords.
        """
        codes = self.config.first_stages("decode", codes, st, n_q)
        value = self._quantizer().decode(codes, st)
        if not torch.is_grad_enabled():
            return value
        named = {name: each.to(value.dtype) for name, each in self._named().items()}
        return decoded_vectors(OPS, value, codes, stage_arrays(self.config, named, start=st or 0))

    def _named(self, *, statistics: bool = True) -> dict[str, torch.Tensor]:
        """Return the arrays by their names, in their order; statistics of codewords if asked."""
        book = names.LISTED if statistics else (names.INITIALIZED, names.CODEWORDS)
        maps = names.MAPS if self.config.projects else ()
        named = {}
        for stage, layer in enumerate(self.vq.layers):
            for part, lasts in (
                *((each, names.MAP) for each in maps),
                (names.PART, book),
            ):
                owner = layer._modules[part]
                for last in lasts:
                    named[f"{names.LAYER.format(stage)}{part}.{last}"] = _array_of(owner, last)
        return named

    def freeze(self, stages: Sequence[int] = ()) -> ResidualVectorQuantizer:
        """Exclude the codebooks of some stages from training; return the module.

        As `rvq_np.ResidualVectorQuantizer.freeze`. Projections, and codewords that are parameters,
        are not affected: the optimizer trains them.
        """
        named = self._named()
        initialized = [named[names.book(q, names.INITIALIZED)] for q in range(self.config.n_q)]
        self._remembered.freeze(self.config, stages, initialized)
        return self

    def _quantizer(self) -> NumpyQuantizer:
        """Return the quantizer without a framework that has these arrays, in eval."""
        named = self._named(statistics=False)
        host = [_eager.host_array(each) if each.is_cpu else each for each in named.values()]
        return prepared(self.config, list(named), host).quantizer

    def _spec(self, sample_rate: Any, bandwidth: Any, n_q: Any, training_now: Any) -> Any:
        hook = self.all_reduce
        if hook is None and training_now:
            hook = all_reduce_by_default()
        return spec_of(
            self.config, sample_rate, bandwidth, n_q, training=training_now,
            moving=self.codebook_training == "ema", all_reduce=number_of(hook) if hook else 0,
            remembered=number_of(self._remembered) if training_now else 0,
        )  # fmt: skip

    @torch.compiler.assume_constant_result
    def _text(self, sample_rate: Any, bandwidth: Any, n_q: Any, training_now: Any) -> str:
        return self._spec(sample_rate, bandwidth, n_q, training_now).text


def _array_of(owner: Any, name: str) -> Any:
    """Return a parameter or buffer; another way round where it is computed, as by a weight norm."""
    found = owner._parameters.get(name)
    found = owner._buffers.get(name) if found is None else found
    return getattr(owner, name) if found is None else found


@torch.compiler.assume_constant_result
def _text_for(rvq: Any, sample_rate: Any, bandwidth: Any, n_q: Any) -> str:
    return spec_of(rvq.config, sample_rate, bandwidth, n_q, quantizer=number_of(rvq)).text


def _run_apart(spec: str, inputs: Any, seed: Any, given: Any) -> Outputs:
    """Return the outputs of the operator, which hands no gradients on."""
    shape = list(inputs.shape)
    given = [each.detach() for each in given]
    return Outputs.of(run(spec, inputs.rows.detach(), inputs.valid, shape, seed, given))


def _check(x: Any, mask: Any, dim: Any) -> None:
    for each in (x,) if mask is None else (x, mask):
        if not isinstance(each, torch.Tensor):
            _inputs.refuse_kind(each, "torch tensors throughout. Convert with torch.as_tensor")
        if each.device.type == "meta":
            raise BackendError("quantize: got a tensor on the meta device, which has no values.")
    if not x.is_floating_point():
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; expected floating-point numbers. Call x.float()."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != torch.bool:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; expected torch.bool.")
