"""The kit run on each package: verdicts, counter-examples, tolerances."""

import contextlib
import functools
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings

from rvq_np.testing import gradient_tests, rvq_tests

from . import report
from .packages import PACKAGES, Package

DOCS = Path(__file__).parents[2] / "docs"
KNOWN = DOCS / "conformance.json"
TOLERANCES = [2.0**power for power in range(21)]
EXAMPLES = 60


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
    """Return how far quantized is from the sum of codewords at most, in units of rounding."""
    worst = 0.0

    def measure(case: Any) -> bool:
        nonlocal worst
        quantized, codes, *_ = package.value_and_gradients(*case[:4])
        exact = report.sum_of_codewords(codes, case.codebooks)
        unit = 2.0**-24 * (np.abs(case.x) + np.abs(exact))
        worst = max(worst, float((np.abs(quantized - exact) / unit).max()))
        return False

    with profile("rounding", max_examples=EXAMPLES, phases=[Phase.generate]):
        tests = kits(package)["gradients"]
        with before_each(tests, report.QUANTIZED, measure):
            getattr(tests(), report.QUANTIZED)()
    return round(worst, 2)


def failure(package: Package, kit: str, name: str, reported: str) -> dict[str, Any]:
    """Return what is written of a property that a package does not pass."""
    with profile("shrink", max_examples=EXAMPLES, phases=[Phase.generate, Phase.shrink]):
        case = counter_example(kits(package)[kit], name)
    if kit == "gradients":
        written = {"case": report.of_gradients(case, package.value_and_gradients, name)}
        if name == report.QUANTIZED:
            written["rounding"] = rounding_of_quantized(package)
        return written
    written = {"case": report.of_codes(case, package.encode, reported)}
    if reported == "fails":
        written["tolerance"] = tolerance(package, name, lambda case: True)
        written["tolerance in range"] = tolerance(package, name, in_range)
    return written


def found_about(key: str) -> dict[str, Any]:
    """Return all that is written about a package."""
    package = PACKAGES[key]
    reported = verdicts(package)
    return {
        "title": package.title, "package": package.name, "version": version(package.name),
        "driven": package.driven, "verdicts": reported,
        "failures": {
            name: failure(package, kit, name, each)
            for kit, names in reported.items() for name, each in names.items() if each != "passes"
        },
    }  # fmt: skip
