"""What the shipped kit finds on other packages: ``python tests/peers/conformance.py`` writes it.

Each package is driven by its own classes on a CPU, in float32, with the codebooks that the kit
draws put in place of its own.  Written are ``docs/conformance.json``, which the tests compare
with, and ``docs/conformance.md``, which is made of it.  Hypothesis is derandomized: the same
versions give the same file.
"""

import contextlib
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import conformance_report as report
import faiss
import numpy as np
import torch
import transformers
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from hypothesis import HealthCheck, Phase, settings
from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer
from vector_quantize_pytorch import ResidualVQ

from rvq_np.testing import gradient_tests, rvq_tests

torch.set_num_threads(1)
faiss.omp_set_num_threads(1)
DOCS = Path(__file__).parents[2] / "docs"
KNOWN = DOCS / "conformance.json"
TOLERANCES = [2.0**power for power in range(21)]
EXAMPLES = 60


@dataclass(frozen=True)
class Package:
    """A package, what of it is run, and how: the arguments of the kit's factories."""

    title: str
    name: str
    driven: str
    encode: Callable[..., Any] | None = None
    decode: Callable[..., Any] | None = None
    value_and_gradients: Callable[..., Any] | None = None


def as_tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def time_last(x: np.ndarray) -> torch.Tensor:
    """Return vectors (N, D) as one item of a batch (1, D, N)."""
    return as_tensor(x).T[None]


# The packages --------------------------------------------------------------------------------


@functools.cache
def espnet_of(stages: int, words: int, dim: int) -> Any:
    return Espnet(dim, dim, stages, words, threshold_ema_dead_code=0)


def espnet(books: np.ndarray) -> Any:
    made = espnet_of(*books.shape)
    for layer, each in zip(made.vq.layers, books, strict=True):
        layer._codebook.embed.data.copy_(as_tensor(each))
        layer._codebook.inited.data.fill_(1)
    return made


def espnet_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return espnet(books).eval().encode(time_last(x), 50)[:, 0].numpy()


def espnet_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    return espnet(books).eval().decode(as_tensor(codes)[:, None])[0].T.detach().numpy()


def espnet_gradients(x: np.ndarray, books: np.ndarray, weight: float, cotangent: np.ndarray) -> Any:
    there = time_last(x).requires_grad_()
    quantized, codes, _, commitment = espnet(books).train()(there, 50)
    ((quantized * time_last(cotangent)).sum() + weight * commitment).backward()
    values = (quantized[0].T, codes[:, 0], weight * commitment, there.grad[0].T)
    return [each.detach().numpy() for each in values]


@functools.cache
def encodec_of(stages: int, words: int, dim: int) -> Any:
    size = max(2, words)  # no fewer can be configured; a book of one word is put in its place
    config = transformers.EncodecConfig(
        codebook_size=size, codebook_dim=dim, hidden_size=dim,
        target_bandwidths=[(stages + 1) * int(size).bit_length() * 75 / 1000],
    )  # fmt: skip
    made = EncodecResidualVectorQuantizer(config).eval()
    made.layers, made.num_quantizers = made.layers[:stages], stages
    if len(made.layers) != stages:
        raise RuntimeError(f"encodec has {len(made.layers)} levels; wanted {stages}")
    return made


def encodec(books: np.ndarray) -> Any:
    made = encodec_of(*books.shape)
    for layer, each in zip(made.layers, books, strict=True):
        layer.codebook.embed = as_tensor(each)
    return made


def encodec_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return encodec(books).encode(time_last(x))[:, 0].numpy()


def encodec_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    return encodec(books).decode(as_tensor(codes)[:, None])[0].T.numpy()


@functools.cache
def residual_vq_of(stages: int, words: int, dim: int, **options: Any) -> Any:
    return ResidualVQ(dim=dim, num_quantizers=stages, codebook_size=words, **options)


def residual_vq(books: np.ndarray, **options: Any) -> Any:
    made = residual_vq_of(*books.shape, **options)
    for layer, each in zip(made.layers, books, strict=True):
        layer._codebook.embed.data.copy_(as_tensor(each)[None])
    return made


def residual_vq_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    return residual_vq(books).eval()(as_tensor(x)[None])[1][0].T.numpy()


def residual_vq_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    made = residual_vq(books, quantize_dropout=len(books) > 1).eval()  # or no fewer levels decode
    return made.get_output_from_indices(as_tensor(codes).long().T[None])[0].detach().numpy()


def residual_vq_gradients(**options: Any) -> Callable[..., Any]:
    def value_and_gradients(
        x: np.ndarray, books: np.ndarray, weight: float, cotangent: np.ndarray
    ) -> Any:
        made = residual_vq(books, **options).train()
        there = as_tensor(x)[None].requires_grad_()
        quantized, codes, losses = made(there, freeze_codebook=True)
        penalty = weight * losses.mean()  # one loss a level, of weight 1
        ((quantized * as_tensor(cotangent)).sum() + penalty).backward()
        values = (quantized[0], codes[0].T, penalty, there.grad[0])
        return [each.detach().numpy() for each in values]

    return value_and_gradients


def faiss_quantizer(books: np.ndarray) -> Any:
    """Return Faiss's, whose books have powers of two: filled up with the first word."""
    stages, words, dim = books.shape
    bits = max(1, (words - 1).bit_length())
    whole = np.concatenate([books, np.repeat(books[:, :1], 2**bits - words, axis=1)], axis=1)
    made = faiss.ResidualQuantizer(dim, stages, bits)
    made.max_beam_size = 1
    faiss.copy_array_to_vector(np.ascontiguousarray(whole, np.float32).ravel(), made.codebooks)
    made.is_trained = True
    return made, bits


def faiss_encode(x: np.ndarray, books: np.ndarray) -> np.ndarray:
    made, bits = faiss_quantizer(books)
    packed = made.compute_codes(np.ascontiguousarray(x))
    each = np.unpackbits(packed, axis=1, bitorder="little")[:, : len(books) * bits]
    each = each.reshape(len(x), len(books), bits).astype(np.int64)
    codes = (each << np.arange(bits)).sum(axis=2).T
    return np.where(codes < books.shape[1], codes, 0)  # a filler is the first word


def faiss_decode(codes: np.ndarray, books: np.ndarray) -> np.ndarray:
    made, bits = faiss_quantizer(books[: len(codes)])
    each = (codes.T[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(
        each.reshape(codes.shape[1], len(codes) * bits).astype(np.uint8), 1, bitorder="little"
    )
    if packed.shape[1] < made.code_size:
        packed = np.pad(packed, ((0, 0), (0, made.code_size - packed.shape[1])))
    return made.decode(packed)


PACKAGES = {
    "espnet": Package(
        "ESPnet", "espnet",
        "`ResidualVectorQuantizer`, codes in eval mode, gradients in train mode",
        espnet_encode, espnet_decode, espnet_gradients,
    ),
    "encodec": Package(
        "EnCodec in transformers", "transformers",
        "the quantizer of `EncodecModel`; it passes no gradients on",
        encodec_encode, encodec_decode,
    ),
    "residual-vq": Package(
        "vector-quantize-pytorch", "vector-quantize-pytorch",
        "`ResidualVQ(rotation_trick=False)`, codes in eval mode, gradients in train mode",
        residual_vq_encode, residual_vq_decode, residual_vq_gradients(rotation_trick=False),
    ),
    "residual-vq-rotation": Package(
        "vector-quantize-pytorch, rotation trick", "vector-quantize-pytorch",
        "`ResidualVQ` as it comes, whose gradient is meant to turn and stretch; codes as above",
        value_and_gradients=residual_vq_gradients(),
    ),
    "faiss": Package(
        "Faiss", "faiss-cpu", "`ResidualQuantizer`, `max_beam_size = 1`; it has no gradients",
        faiss_encode, faiss_decode,
    ),
}  # fmt: skip


# Running -------------------------------------------------------------------------------------


@contextlib.contextmanager
def profile(name: str, **changed: Any) -> Any:
    """Make the kit's classes under settings of their own, the same on every run."""
    before = settings.get_current_profile_name()
    settings.register_profile(
        name, deadline=None, derandomize=True, database=None, print_blob=False,
        report_multiple_bugs=False, suppress_health_check=list(HealthCheck), **changed,
    )  # fmt: skip
    settings.load_profile(name)
    try:
        yield
    finally:
        settings.load_profile(before)


def verdict(method: Callable[[], None]) -> str:
    """Return "passes", "fails", or "raises" with the name of what the package raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            method()
        except AssertionError:
            return "fails"
        except Exception as error:
            return f"raises {type(error).__name__}"
    return "passes"


def kits(package: Package, **options: Any) -> dict[str, type]:
    found = {}
    if package.encode and package.decode:
        found["codes"] = rvq_tests(encode=package.encode, decode=package.decode, **options)
    if package.value_and_gradients:
        found["gradients"] = gradient_tests(value_and_gradients=package.value_and_gradients)
    return found


def properties(tests: type) -> list[str]:
    """Return the names; that of a loss these packages do not return, or not apart, is left out."""
    return [name for name in vars(tests) if name.startswith("test_") and "book_loss" not in name]


def verdicts(package: Package) -> dict[str, dict[str, str]]:
    """Return what each property of the kit says of a package."""
    with profile("verdicts", max_examples=EXAMPLES, phases=[Phase.generate]):
        return {
            kit: {name: verdict(getattr(tests(), name)) for name in properties(tests)}
            for kit, tests in kits(package).items()
        }


@contextlib.contextmanager
def before_each(tests: type, name: str, see: Callable[[Any], bool]) -> Any:
    """Show each case to `see` first; run the property only where it says so."""
    handle = vars(tests)[name].hypothesis
    inner = handle.inner_test

    @functools.wraps(inner)
    def seen(self: Any, case: Any) -> None:
        if see(case):
            inner(self, case)

    handle.inner_test = seen
    try:
        yield
    finally:
        handle.inner_test = inner


def counter_example(tests: type, name: str) -> Any:
    """Return the case Hypothesis shrinks a failure to: it runs that one last."""
    cases: list[Any] = []
    with before_each(tests, name, lambda case: cases.append(case) or True):
        if verdict(getattr(tests(), name)) == "passes":
            raise RuntimeError(f"{name} failed before, and passes now")
    return cases[-1]


def in_range(case: Any) -> bool:
    """Return whether no square is near the ends of float32."""
    sizes = np.concatenate([np.abs(each[each != 0]).ravel() for each in case])
    return bool(((sizes > 2.0**-50) & (sizes < 2.0**50)).all())


def tolerance(package: Package, name: str, see: Callable[[Any], bool]) -> float | None:
    """Return the smallest of some tolerances at which a property of codes passes, if any does."""
    with profile("tolerance", max_examples=EXAMPLES, phases=[Phase.generate]):
        for each in reversed(TOLERANCES):
            tests = kits(package, tolerance=each)["codes"]
            with before_each(tests, name, see):
                if verdict(getattr(tests(), name)) != "passes":
                    return None if each == TOLERANCES[-1] else 2 * each
    return TOLERANCES[0]


def rounding_of_quantized(package: Package) -> float:
    """Return how far quantized is from the sum of words at most, in units of rounding."""
    worst = 0.0

    def measure(case: Any) -> bool:
        nonlocal worst
        quantized, codes, *_ = package.value_and_gradients(*case[:4])
        exact = report.sum_of_words(codes, case.codebooks)
        unit = 2.0**-24 * (np.abs(case.x) + np.abs(exact))
        worst = max(worst, float((np.abs(quantized - exact) / unit).max()))
        return False

    with profile("rounding", max_examples=EXAMPLES, phases=[Phase.generate]):
        tests = kits(package)["gradients"]
        with before_each(tests, report.QUANTIZED, measure):
            getattr(tests(), report.QUANTIZED)()
    return round(worst, 2)


def failure(package: Package, kit: str, name: str, told: str) -> dict[str, Any]:
    """Return what is written of a property that a package does not pass."""
    with profile("shrink", max_examples=EXAMPLES, phases=[Phase.generate, Phase.shrink]):
        case = counter_example(kits(package)[kit], name)
    if kit == "gradients":
        written = {"case": report.of_gradients(case, package.value_and_gradients, name)}
        if name == report.QUANTIZED:
            written["rounding"] = rounding_of_quantized(package)
        return written
    written = {"case": report.of_codes(case, package.encode, told)}
    if told == "fails":
        written["tolerance"] = tolerance(package, name, lambda case: True)
        written["tolerance in range"] = tolerance(package, name, in_range)
    return written


def found_about(key: str) -> dict[str, Any]:
    """Return all that is written about a package."""
    package = PACKAGES[key]
    told = verdicts(package)
    return {
        "title": package.title, "package": package.name, "version": version(package.name),
        "driven": package.driven, "verdicts": told,
        "failures": {
            name: failure(package, kit, name, each)
            for kit, names in told.items() for name, each in names.items() if each != "passes"
        },
    }  # fmt: skip


if __name__ == "__main__":
    everything = {}
    for key in PACKAGES:
        print(f"{key} ...", flush=True)
        everything[key] = found_about(key)
    KNOWN.write_text(json.dumps(everything, indent=1) + "\n")
    (DOCS / "conformance.md").write_text(report.page(everything))
