"""What a user's editor knows: NumPy arrays in are NumPy arrays out, with their types."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rvq_np

SCRIPT = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import rvq_np
from rvq_np import Codebooks, QuantizedResult, ResidualVectorQuantizer, Stage, StreamEncoder

Codes = NDArray[np.int32]
Vectors = NDArray[np.floating]

x = np.zeros((4, 8), np.float32)
wide = np.zeros((4, 8))
books = Codebooks(np.zeros((2, 4, 8), np.float32))
other: Any = object()
codes = rvq_np.encode(x, books)
rvq = ResidualVectorQuantizer(8, 8, n_q=2, bins=4)
result = rvq(x, 50)
typed: Codes = rvq.encode(x, 50)


def loss(result: QuantizedResult[Vectors, Codes]) -> float:
    return float(result.penalty)


loss(result)
assert_type(codes, Codes)
assert_type(rvq_np.encode(wide, books, 1, 2, threads=1), Codes)
assert_type(rvq_np.encode(other, books), Any)
assert_type(rvq_np.decode(codes, books), Vectors)
assert_type(rvq_np.decode([codes, codes], books), Vectors)
assert_type(rvq_np.decode(other, books), Any)
assert_type(rvq.encode(x, 50), Codes)
assert_type(rvq.encode(other, 50), Any)
assert_type(rvq.decode(codes), Vectors)
assert_type(rvq.decode(codes, st=1), Vectors)
assert_type(rvq.decode(other), Any)
assert_type(result, QuantizedResult[Vectors, Codes])
assert_type(rvq.forward(wide, 50).codes, Codes)
assert_type(result.quantized, Vectors)
assert_type(result.penalty, Vectors)
assert_type(rvq(other, 50), QuantizedResult[Any, Any])
assert_type(rvq.fit(x), ResidualVectorQuantizer)
assert_type(StreamEncoder(books).push(x), Codes)
assert_type(books[0], Stage)
assert_type(books[:1], Codebooks)
rvq_np.encode(x, books, beam=2)  # No overload variant of "encode"
rvq.fit(x, iterations="a")  # Argument "iterations" to "fit"
ResidualVectorQuantizer(dim=8)  # Unexpected keyword argument "dim"
"""


@pytest.mark.slow
def test_types_of_a_users_script_are_known(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict",
         "--config-file=", str(script)],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(rvq_np.__file__).parents[1])},
    )  # fmt: skip
    said = {}
    for line, what in re.findall(r"^script\.py:(\d+): (.*)$", run.stdout, re.MULTILINE):
        said.setdefault(int(line), []).append(what)
    assert len(said) == 3, run.stdout + run.stderr  # and not that the package was not found
    for number, line in enumerate(SCRIPT.splitlines(), 1):
        _, _, expected = line.partition("  # ")
        found = " ".join(said.pop(number, []))
        assert expected in found if expected else not found, f"{line}: {found}"
    assert not said, said
