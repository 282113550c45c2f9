"""PyTorch: eager, ``torch.compile``, ``torch.func``, autocast and DistributedDataParallel.

Only the search is opaque, as one custom operator over tensors and a string; gather, sum and
straight-through are native operations, so autograd, compilers and transforms see through them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import nn

from .. import train as training
from ..config import Config
from ..errors import BackendError, DtypeError
from ..layout import QuantizedResult
from . import _host, _inputs
from . import _torch_eager as _eager
from ._surrogate import Ops, attach, check_estimator, decoded

pytree.register_dataclass(
    QuantizedResult,
    field_names=["quantized", "codes", "bandwidth", "penalty", "quantization_loss"],
)

OPS = Ops(
    shape=lambda x: x.shape,
    stop=torch.Tensor.detach,
    take=lambda words, codes: words[codes.long()],
    transpose=torch.permute,
    reshape=torch.reshape,
    total=torch.sum,
    largest=torch.amax,
    convert=lambda x, like: x.to(like.dtype),
    product=_eager.product,
    sum_into=_eager.sum_into,
)


@torch.library.custom_op("rvq_np::quantize", mutates_args=())
def _run(
    spec: str,
    x: torch.Tensor,
    mask: torch.Tensor | None,
    seed: torch.Tensor | None,
    tensors: list[torch.Tensor],
) -> list[torch.Tensor]:
    outputs = _host.run(_host.parse(spec), x, mask, seed, tensors)
    return [torch.as_tensor(each, device=x.device).contiguous() for each in outputs]


@_run.register_fake
def _(spec, x, mask, seed, tensors):
    return [
        x.new_empty(shape, dtype=getattr(torch, dtype.__name__) if dtype else None)
        for shape, dtype in _host.shapes(_host.parse(spec), x.shape)
    ]


@torch.library.register_vmap(_run)
def _(info, in_dims, spec, x, mask, seed, tensors):
    """Put the mapped axis into the batch; what else is mapped goes one by one."""
    parsed = _host.parse(spec)
    one_by_one = parsed.training or any(dim is not None for dim in in_dims[4])

    def at(tensor, dim, place):
        return tensor if dim is None else tensor.select(dim, place)

    if one_by_one:
        each = [
            _run(spec, *(at(*pair, place) if pair[0] is not None else None
                         for pair in zip((x, mask, seed), in_dims[1:4], strict=True)),
                 [at(*pair, place) for pair in zip(tensors, in_dims[4], strict=True)])
            for place in range(info.batch_size)
        ]  # fmt: skip
        stacked = [torch.stack(list(parts)) for parts in zip(*each, strict=True)]
        return stacked, [0] * len(stacked)

    def flat(tensor, dim):
        if tensor is None:
            return None
        front = (
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        )
        return front.reshape(front.shape[0] * front.shape[1], *front.shape[2:])

    codes, quantized, active, bandwidth = _run(
        spec, flat(x, in_dims[1]), flat(mask, in_dims[2]), seed, tensors
    )
    n = info.batch_size
    codes = codes.reshape(codes.shape[0], n, codes.shape[1] // n, *codes.shape[2:])
    outputs = [
        codes,
        quantized.reshape(n, quantized.shape[0] // n, *quantized.shape[1:]),
        active.reshape(n, -1),
        bandwidth,
    ]
    return outputs, [1, 0, 0, None]


def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    _check(x, mask, rvq.dimension)
    if rvq.training and torch.compiler.is_compiling():
        raise BackendError(
            "quantize: rvq is in train mode under torch.compile, where its learning would be lost. "
            "Use rvq_np.grad.torch.ResidualVectorQuantizer, or rvq.eval()."
        )
    if not rvq.training:
        spec = _held_spec(rvq, float(sample_rate), bandwidth)
        return _quantized(rvq, spec, x, mask, None, {}, [], estimator)[0]
    with torch.no_grad():
        wide = _widened(x, mask)
    passed = rvq.passed("quantize", wide, sample_rate, bandwidth, mask)
    outputs = [torch.as_tensor(each) for each in _host.outputs_of(passed)]
    entries = _host.entries_of(passed.codebooks)
    entries = {name: torch.tensor(each, dtype=wide.dtype) for name, each in entries.items()}
    return _attached(rvq, x, _widened(x, mask), outputs, entries, len(outputs[0]), estimator)


class ResidualVectorQuantizer(nn.Module):
    """ESPnet's quantizer as a torch module, on the kernels of rvq_np: a drop-in replacement.

    The same arguments, tuple order and names in the ``state_dict`` as ESPnet's class, so
    checkpoints go both ways. Words and their statistics are buffers, moved by every forward in
    train mode; projections are parameters.

    Parameters
    ----------
    dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters, \
threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon, relative_threshold
        As for `rvq_np.ResidualVectorQuantizer`.
    codebook_training : {"ema", "gradient"}, optional
        "gradient": the words are parameters, pulled by ``quantization_loss``; training still
        finds their first values by k-means, but neither moves nor replaces them.
    estimator : {"straight-through", "rotation"}, optional
        See `rvq_np.grad.quantize`.
    all_reduce : rvq_np.train.AllReduce or False, optional
        Adds up statistics over processes. By default ``torch.distributed`` does, if it is
        initialized when the module is called; False: nobody does.

    Notes
    -----
    Draws follow ``torch.manual_seed``; with several processes those of the first one count, so
    all replace the same words by the same vectors. Vectors are computed in float32 at least,
    under autocast too, and come back in the type of the input.

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
        bins: int = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float = 2,
        quantizer_dropout: bool | float = False,
        *,
        commitment_weight: float = 1.0,
        epsilon: float = 1e-5,
        relative_threshold: float | None = None,
        codebook_training: str = "ema",
        estimator: str = "straight-through",
        all_reduce=None,
    ):
        super().__init__()
        self.config = Config(
            dimension, codebook_dim, n_q, bins, decay, kmeans_init, kmeans_iters,
            threshold_ema_dead_code, quantizer_dropout, commitment_weight, epsilon,
            relative_threshold,
        )  # fmt: skip
        for name, value in self.config.as_dict().items():  # ESPnet's code reads some of them
            setattr(self, name, value)
        check_estimator(estimator)
        _inputs.check_training(codebook_training)
        self.codebook_training, self.estimator = codebook_training, estimator
        self.all_reduce = all_reduce
        rng = np.random.default_rng(_draw().tolist())
        start = training.entries(*training.fresh(self.config, rng))
        for name, shape in training.shapes(self.config).items():
            value = torch.from_numpy(np.array(start[name], dtype=np.float32).reshape(shape))
            *path, last = name.split(".")
            owner = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.ModuleList() if part == "layers" else nn.Module())
                owner = owner._modules[part]
            learned = not _host.is_state(name)
            if learned or (last == "embed" and codebook_training == "gradient"):
                owner.register_parameter(last, nn.Parameter(value))
            else:
                owner.register_buffer(last, value)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.as_dict().items())

    @classmethod
    def of(cls, rvq, **options) -> ResidualVectorQuantizer:
        """Return a module with the arguments and arrays of an `rvq_np.ResidualVectorQuantizer`."""
        arguments = rvq.config.as_dict()
        module = cls(**arguments, **options).train(rvq.training)
        arrays = rvq.state_dict()
        module.load_state_dict({name: torch.from_numpy(each) for name, each in arrays.items()})
        return module

    def to_numpy(self):
        """Return an `rvq_np.ResidualVectorQuantizer` with the arguments and arrays of this."""
        entries = {name: each.float().cpu() for name, each in self._entries().items()}
        states, projections = training.from_state_dict(entries, self.config)
        made = type(self._known().quantizer).made_of(self.config, states, projections)
        return made.train(self.training)

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        """Return kb/s per level."""
        return self.config.bandwidth_per_quantizer(sample_rate)

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: float, bandwidth: float | None = None
    ) -> int:
        """Return how many levels fit into `bandwidth` kb/s."""
        return self.config.levels_for(sample_rate, bandwidth)

    def forward(
        self,
        x: torch.Tensor,
        sample_rate: float,
        bandwidth: float | None = None,
        mask: torch.Tensor | None = None,
    ) -> QuantizedResult:
        """Quantize a batch (B, D, T) or (N, D); in train mode, learn from it.

        As `rvq_np.ResidualVectorQuantizer.forward`, with gradients, see `rvq_np.grad`.
        ``quantization_loss`` is there under dropout, and where it trains the words.
        """
        _check(x, mask, self.config.dimension)
        spec = self._spec(sample_rate, bandwidth, self.training)
        seed = _draw() if self.training else None
        entries = self._entries()
        if self.codebook_training == "ema" and _eager.serves(x, mask, entries):
            with torch.autocast("cpu", enabled=False):
                wide = _widened(x, mask)
                result = _eager.forward(self, OPS, _host.parse(spec), wide, mask, seed, entries)
            result.quantized = result.quantized.to(x.dtype)
            return result
        needed = list(entries.values()) if self.training else _in_eval(entries)
        result, state = _quantized(
            self, spec, x, mask, seed, entries, needed, self.estimator,
            both_losses=self.codebook_training == "gradient" or None,
        )  # fmt: skip
        if self.training:
            with torch.no_grad():
                for name, value in zip(filter(_host.is_state, entries), state, strict=True):
                    entries[name].copy_(value)
        return result

    def encode(
        self,
        x: torch.Tensor,
        sample_rate: float,
        bandwidth: float | None = None,
        st: int | None = None,
        beam_size: int = 1,
    ) -> torch.Tensor:
        """Return codes (n - st, B, T) or (n - st, N), int32; trains nothing.

        As `rvq_np.ResidualVectorQuantizer.encode`.
        """
        _check(x, None, self.config.dimension)
        return self._known().quantizer.encode(x, sample_rate, bandwidth, st, beam_size)

    def decode(self, codes: torch.Tensor, st: int | None = None) -> torch.Tensor:
        """Return the vectors that codes (n, B, T) or (n, N) name, float32.

        As `rvq_np.ResidualVectorQuantizer.decode`, with gradients to projections and words.
        """
        value = self._known().quantizer.decode(codes, st)
        if not torch.is_grad_enabled():
            return value
        return decoded(OPS, value, codes, self._wide(value), st or 0)

    def _entries(self) -> dict[str, torch.Tensor]:
        entries = dict(self.named_parameters())
        entries.update(self.named_buffers())
        return {name: entries[name] for name in _host.names(self.config)}

    def _wide(self, like):
        return {name: each.to(like.dtype) for name, each in self._entries().items()}

    def _known(self):
        return _host.recall(self.config, list(self._entries().values()))

    @torch.compiler.assume_constant_result
    def _spec(self, sample_rate, bandwidth, training_now) -> str:
        hook = self.all_reduce
        if hook is None and training_now and _processes() > 1:
            hook = self._hook = all_reduce()
        return _host.Spec(
            self.config, float(sample_rate), bandwidth, training_now,
            moving=self.codebook_training == "ema", hook=_host.hold(hook) if hook else 0,
        ).text()  # fmt: skip


def _in_eval(entries):
    """Return the arrays that are needed there, in their order: not the statistics of words."""
    return [
        each
        for name, each in entries.items()
        if not _host.is_state(name) or name.endswith(".embed")
    ]


def all_reduce(group=None) -> training.AllReduce:
    """Return an `AllReduce` over the processes of a ``torch.distributed`` group."""
    distributed = torch.distributed

    def add_up(buffer):
        # NCCL adds up on its device only.
        gpu = distributed.get_backend(group) == "nccl"
        tensor = torch.from_numpy(buffer).to("cuda" if gpu else "cpu")
        distributed.all_reduce(tensor, group=group)
        return tensor.cpu().numpy()

    return training.AllReduce(
        add_up, distributed.get_rank(group), distributed.get_world_size(group)
    )


def _processes() -> int:
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


@torch.compiler.assume_constant_result
def _held_spec(rvq, sample_rate, bandwidth) -> str:
    return _host.Spec(rvq.config, sample_rate, bandwidth, held=_host.hold(rvq)).text()


@torch.compiler.assume_constant_result
def _levels(spec: str) -> int:
    return _host.parse(spec).n_q


def _draw() -> torch.Tensor:
    try:
        return torch.randint(1 << 32, (2,))
    except RuntimeError as error:  # vmap lets nothing draw
        raise BackendError(
            "quantize: training under torch.vmap would train one codebook on several batches at "
            "once. Call eval(), or put the mapped axis into the batch."
        ) from error


def _check(x, mask, dim) -> None:
    for each in (x,) if mask is None else (x, mask):
        if not isinstance(each, torch.Tensor):
            raise BackendError(
                f"quantize: got a {type(each).__module__}.{type(each).__qualname__}; wanted "
                "torch tensors throughout. Convert with torch.as_tensor."
            )
        if each.device.type == "meta":
            raise BackendError("quantize: got a tensor on the meta device, which has no values.")
    if not x.is_floating_point():
        raise DtypeError(
            f"quantize: x has dtype {x.dtype}; wanted floating-point numbers. Call x.float()."
        )
    _inputs.check_shapes(x, mask, dim)
    if mask is not None and mask.dtype != torch.bool:
        raise DtypeError(f"quantize: mask has dtype {mask.dtype}; wanted torch.bool.")


def _widened(x, mask):
    """Return `x` in the type of computation, zeros where there is padding, whatever it holds."""
    wide = x if x.dtype == torch.float64 else x.float()
    return wide if mask is None else torch.where(mask[:, None], wide, 0.0)


def _quantized(owner, spec, x, mask, seed, entries, tensors, estimator, both_losses=None):
    """Return the result and, in training, the new arrays of the state."""
    n_q = _levels(spec)
    with torch.autocast(x.device.type, enabled=False):
        wide = _widened(x, mask)
        *outputs, rest = _run_apart(spec, wide, mask, seed, tensors)
        entries = {name: each.to(wide.dtype) for name, each in entries.items()}
        for level, words in enumerate(rest[:n_q]):  # k-means may have found them only now
            name = f"vq.layers.{level}._codebook.embed"
            known = entries[name]
            entries[name] = known + (words.to(wide.dtype) - known).detach()
    result = _attached(owner, x, wide, outputs, entries, n_q, estimator, both_losses)
    return result, rest[n_q:]


def _run_apart(spec, wide, mask, seed, tensors):
    codes, value, active, bandwidth, *rest = _run(
        spec, wide.detach(), mask, seed, [each.detach() for each in tensors]
    )
    return codes, value, active, bandwidth, rest


def _attached(owner, x, wide, outputs, entries, n_q, estimator, both_losses=None):
    """Return the result, with its gradients, of the first four outputs of the operator."""
    config = owner.config
    codes, value, active, bandwidth = outputs
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() or owner.training:
            quantized, commitment, quantization = attach(
                OPS, wide, value, codes, active, entries, n_q,
                losses=owner.training, estimator=estimator,
            )  # fmt: skip
        else:
            quantized = value
            commitment = quantization = value.new_zeros(())
        penalty = config.commitment_weight * commitment
    both = bool(config.quantizer_dropout) if both_losses is None else both_losses
    return QuantizedResult(
        quantized.to(x.dtype), codes, bandwidth, penalty, quantization if both else None
    )
