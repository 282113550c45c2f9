"""The page that tells what the kit found on other packages: counter-examples, tables, codewords."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rvq_np.testing import oracle

QUANTIZED = "test_quantized_is_exactly_what_the_codes_decode_to"
HEAD = """# The kit, run on other packages

What [`rvq_np.testing`](testing.md) finds on {packages}. Written, in `tests`, by

```
python -m conformance
```

and compared with the packages by the tests; do not edit. Hypothesis is derandomized, {examples}
examples a property, three times as many near ties. Everything runs on a CPU in float32, on one
thread, with the kit's codebooks in place of the package's own.

## How to read it

The properties ask for the definition: the codeword nearest in exact arithmetic, the lowest on a
tie, the residual rounded after each stage, and vectors that are the sum of their codewords. None of
these packages promises that, and float32 scores cannot distinguish what lies closer than their
rounding.

So each failed property of codes gives the tolerance at which it passes: how much worse than the
nearest a chosen codeword may be, in units of 2^-24 times the squared norms of the residual and both
codewords, judged at each stage on what the codes before it left over. It is the smallest power of
two from 1 to 2^20, or none of them. *In range* is the same for the cases whose numbers all lie
between 2^-50 and 2^50, so that no square comes near the ends of float32; where it is not given, it
is no other. A value *off by* so many units is off by that many times 2^-24 times the size of the
vector and of the sum of codewords together.
"""


def of_codes(case: Any, encode: Callable[..., Any], reported: str) -> list[str]:
    """Return the lines that show a case of codes, made smaller still where codes are wrong."""
    x, books = case
    if reported != "fails" or not differs(x, books, encode):
        return [*array_lines("x", x), *array_lines("codebooks", books), reported]
    alone = [row for row in np.split(x, len(x)) if differs(row, books, encode)]
    if not alone:
        return [*array_lines("x", x), *array_lines("codebooks", books), *of_rows(x, books, encode)]
    x, books = smaller(alone[0], books, encode)
    return [
        *array_lines("x", x),
        *array_lines("codebooks", books),
        f"codes               {codes_of(x, books, encode)}",
        f"by the definition   {oracle.encode(x[0].tolist(), books)}",
    ]


def of_rows(x: np.ndarray, books: np.ndarray, encode: Callable[..., Any]) -> list[str]:
    """Return the lines that show the rows whose codes are wrong among others, and right alone."""
    lines = []
    for n, codes in enumerate(np.asarray(encode(x, books)).T.tolist()):
        exact = oracle.encode(x[n].tolist(), books)
        if codes != exact:
            lines += [f"codes of row {n}      {codes}", f"by the definition   {exact}"]
    return [*lines, "each of these rows encoded alone has the codes of the definition"]


def sum_of_codewords(codes: Any, books: np.ndarray) -> np.ndarray:
    """Return what the codes decode to: exact, as the kit's codewords are eighths."""
    pairs = zip(books, np.asarray(codes), strict=True)
    return sum((codewords[code].astype(np.float64) for codewords, code in pairs), np.zeros(1))


def of_gradients(case: Any, value_and_gradients: Callable[..., Any], name: str) -> list[str]:
    x, books, weight, cotangent, _ = case
    if "passes_its_gradient" in name:  # that property takes the commitment loss away
        weight = 0.0
    quantized, codes, _, gradient = value_and_gradients(x, books, weight, cotangent)
    lines = [*array_lines("x", x), *array_lines("codebooks", books)]
    lines += [f"weight = {weight}", *array_lines("cotangent", cotangent)]
    lines += [f"codes         {np.asarray(codes).tolist()}"]
    if name == QUANTIZED:
        lines += [f"quantized     {plain(quantized)}"]
        return [*lines, f"sum of codewords  {plain(sum_of_codewords(codes, books))}"]
    return [*lines, f"gradient      {plain(gradient)}"]


def plain(array: Any) -> list[Any]:
    """Return nested lists whose numbers print as briefly as they can be distinguished."""
    array = np.asarray(array)
    if array.ndim:
        return [plain(each) for each in array]
    return float(str(array)) if array.dtype.kind == "f" else int(array)  # type: ignore[return-value]


def array_lines(name: str, array: np.ndarray) -> list[str]:
    return [f"{name} {array.shape} = {plain(array)}"]


def codes_of(x: np.ndarray, books: np.ndarray, encode: Callable[..., Any]) -> list[int]:
    return [int(each) for each in np.asarray(encode(x, books))[:, 0]]


def differs(x: np.ndarray, books: np.ndarray, encode: Callable[..., Any]) -> bool:
    """Return whether the codes of any row are not those of the definition."""
    if not (x.size and books.size and np.isfinite(x).all() and np.isfinite(books).all()):
        return False
    codes = np.asarray(encode(x, books))
    return any(
        oracle.encode(row, books) != column
        for row, column in zip(x.tolist(), codes.T.tolist(), strict=True)
    )


def smaller(
    x: np.ndarray, books: np.ndarray, encode: Callable[..., Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a row with the fewest codewords, numbers and bits whose codes still differ.

    Hypothesis shrinks what a case is drawn from, a seed for instance, not its numbers.
    """
    for axis in (0, 1, 2):  # stages, codewords, numbers
        for place in reversed(range(books.shape[axis])):
            less = np.delete(books, place, axis)
            row = np.delete(x, place, 1) if axis == 2 else x
            if differs(row, less, encode):
                x, books = row, less
    for array in (x, books):
        for place in np.ndindex(array.shape):
            kept = array[place]
            for bits in (0, 1, 2, 4, 8, 12, 16, 20):
                fraction, exponent = np.frexp(kept)
                array[place] = np.ldexp(np.rint(fraction * 2**bits) / 2**bits, exponent)
                if differs(x, books, encode):
                    break
                array[place] = kept
    return x, books


def title(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def page(everything: dict[str, Any], batches: str, examples: int = 60) -> str:
    """Return the page, in Markdown; `batches` is the section on what depends on the batch."""
    packages = sorted({f"{about['package']} {about['version']}" for about in everything.values()})
    lines = [HEAD.format(packages=", ".join(packages), examples=examples)]
    for kit, heading in (("codes", "Codes and vectors"), ("gradients", "Gradients")):
        shown = {key: each for key, each in everything.items() if kit in each["verdicts"]}
        lines += [f"## {heading}", ""]
        lines += [
            f"- **{each['title']}** {each['version']}: {each['driven']}" for each in shown.values()
        ]
        names = list(next(iter(shown.values()))["verdicts"][kit])
        lines += ["", f"| property | {' | '.join(each['title'] for each in shown.values())} |"]
        lines += ["|---" * (1 + len(shown)) + "|"]
        for name in names:
            cells = [cell(each, kit, name) for each in shown.values()]
            lines += [f"| {title(name)} | {' | '.join(cells)} |"]
        lines += [""]
    lines += [batches, "## Counter-examples", ""]
    lines += ["Numbers are float32, printed as briefly as tells them apart.", ""]
    for about in everything.values():
        lines += [f"### {about['title']}", ""]
        for name, failure in about["failures"].items():
            lines += [f"{title(name).capitalize()}:", "", "```", *failure["case"], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def cell(about: dict[str, Any], kit: str, name: str) -> str:
    reported = about["verdicts"][kit][name]
    failure = about["failures"].get(name, {})
    if "rounding" in failure:
        return f"fails; off by {failure['rounding']:g} units"
    if "tolerance" not in failure:
        return str(reported)
    both = failure["tolerance"], failure["tolerance in range"]
    everywhere, in_range = ("none" if each is None else f"{each:g}" for each in both)
    more = "" if everywhere == in_range else f", in range {in_range}"
    return f"fails; tolerance {everywhere}{more}"
