"""Plain files: NumPy archives, C headers that a compiler reads, code files of other programs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import quantizers
from hypothesis import given
from safetensors.numpy import load_file

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage, checkpoints, export
from rvq_np.errors import CheckpointError, DtypeError, ParameterError, ShapeError

DOCS = Path(__file__).parents[1] / "docs" / "export.md"


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng, outputs, inputs):
    return Linear(normal(rng, outputs, inputs), normal(rng, outputs))


def mapped(rng):
    return Codebooks(
        [Stage(normal(rng, k, 3), linear(rng, 3, 5), linear(rng, 5, 3), "cosine") for k in (4, 9)]
    )


def mimi(rng):
    return Parallel(
        [Projected(normal(rng, n, 6, 3), linear(rng, 3, 5), linear(rng, 5, 3)) for n in (1, 3)]
    )


# NumPy.


@given(quantizer=quantizers.quantizers(strides=(1, 2)))
def test_an_archive_holds_every_array(quantizer, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    export.npz(path, quantizer)
    with np.load(path, allow_pickle=False) as archive:
        about = json.loads(str(archive["description"]))
        arrays = {name: archive[name] for name in archive if name != "description"}
    assert about["fingerprint"] == quantizer.fingerprint
    made = rebuilt(about, arrays, "")
    assert made[: quantizer.n_q] == quantizer


def rebuilt(about, arrays, place):
    """Return the quantizer of an archive, as a reader without rvq_np's own reader would."""

    def maps(at):
        return [
            Linear(arrays[f"{at}{way}.weight"], arrays[f"{at}{way}.bias"])
            for way in ("project_in", "project_out") if f"{at}{way}.weight" in arrays
        ]  # fmt: skip

    if about["kind"] == "stages":
        stages = []
        for q, each in enumerate(about["stages"]):
            at = f"{place}stages.{q}."
            into, out = maps(at) or (None, None)
            stages.append(Stage(arrays[f"{at}codebook"], into, out, each["metric"], each["stride"]))
        return Codebooks(stages)
    parts = [rebuilt(each, arrays, f"{place}parts.{n}.") for n, each in enumerate(about["parts"])]
    if about["kind"] == "projected":
        return Projected(*parts, *maps(place))[: len(about["order"])]
    kind = {"parallel": Parallel, "grouped": Grouped}[about["kind"]]
    made = kind(parts)[: len(about["order"])]
    assert list(made.order) == about["order"]
    return made


def test_an_archive_has_the_same_bytes_for_the_same_values(rng, tmp_path):
    books = normal(rng, 2, 4, 3)
    export.npz(tmp_path / "a.npz", books)
    export.npz(tmp_path / "b.npz", books)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


# C.

MAIN = """
#include <stdio.h>
int main(void)
{
    int32_t codes[RVQ_STAGES * 4096];
    static float out[4096 * RVQ_DIM];
    size_t head[2], count;
    if (fread(head, sizeof(size_t), 2, stdin) != 2) return 2;
    count = fread(codes, sizeof(int32_t), head[0] * head[1], stdin);
    if (count != head[0] * head[1]) return 3;
    if (rvq_decode(codes, head[0], head[1], out)) return 4;
    fwrite(out, sizeof(float), head[1] * RVQ_DIM, stdout);
    return 0;
}
"""


def compiled(folder):
    """Return ``decode(codes)`` of the decoder in the docs, compiled with the header in `folder`."""
    (code,) = re.findall(r"```c\n(.*?)```", DOCS.read_text(), re.S)
    assert len(code.splitlines()) <= 60
    (folder / "main.c").write_text(code + MAIN)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "a C compiler is needed"
    subprocess.run(
        [compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "main.c", "-o",
         "main"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip

    def decode(codes, status=0):
        given = np.array(codes.shape, np.uintp).tobytes() + codes.astype(np.int32).tobytes()
        done = subprocess.run([folder / "main"], input=given, capture_output=True, check=False)
        assert done.returncode == status
        return np.frombuffer(done.stdout, np.float32).reshape(codes.shape[1], -1)

    return decode


def test_the_decoder_in_the_docs_gives_the_bits_of_decode(rng, tmp_path):
    books = Codebooks([normal(rng, size, 7) for size in (16, 3, 1, 200)])
    export.c_header(tmp_path / "rvq.h", books)
    decode = compiled(tmp_path)
    codes = rvq_np.encode(normal(rng, 100, 7), books)
    for n in range(1, 5):
        expected = rvq_np.decode(codes[:n], books)
        assert decode(codes[:n]).tobytes() == expected.tobytes()
    for bad in (-2, 3):
        codes[1, 5] = bad
        decode(codes, status=4)
    decode(np.zeros((5, 1), np.int32), status=4)


@pytest.mark.parametrize("make", [mapped, mimi])
def test_maps_are_applied_beforehand(make, rng, tmp_path):
    quantizer = make(rng)
    export.c_header(tmp_path / "rvq.h", quantizer)
    decode = compiled(tmp_path)
    codes = rvq_np.encode(normal(rng, 50, 5), quantizer)
    for n in range(1, quantizer.n_q + 1):
        expected = rvq_np.decode(codes[:n], quantizer)
        np.testing.assert_allclose(decode(codes[:n]), expected, atol=1e-5)


def nested(rng):
    return Projected(mimi(rng), linear(rng, 5, 6), linear(rng, 6, 5))


@pytest.mark.parametrize("make", [mapped, mimi, nested])
def test_a_dropped_code_adds_nothing_in_c(make, rng, tmp_path):
    """No bias stands for a part without codes, and a part with some has its own."""
    quantizer = make(rng)
    export.c_header(tmp_path / "rvq.h", quantizer)
    decode = compiled(tmp_path)
    codes = rvq_np.encode(normal(rng, 200, quantizer.dim), quantizer)
    codes = np.where(rng.random(codes.shape) < 0.6, -1, codes)
    assert (codes < 0).all(axis=0).any()
    assert ((codes[0] < 0) & (codes[1:] >= 0).any(axis=0)).any()
    for n in range(1, quantizer.n_q + 1):
        expected = rvq_np.decode(codes[:n], quantizer)
        np.testing.assert_allclose(decode(codes[:n]), expected, atol=2e-5)


def test_bytes_are_off_by_half_a_scale_a_stage(rng, tmp_path):
    books = Codebooks([0.5**q * normal(rng, 32, 9) for q in range(3)])
    books = Codebooks([*books, np.zeros((2, 9), np.float32)])
    export.c_header(tmp_path / "rvq.h", books, "int8")
    codes = rvq_np.encode(normal(rng, 60, 9), books)
    error = np.abs(compiled(tmp_path)(codes) - rvq_np.decode(codes, books))
    scales = [np.abs(stage.codebook).max(axis=1)[row] / 127
              for stage, row in zip(books, codes, strict=True)]  # fmt: skip
    assert (error <= sum(scales)[:, None] / 2 + 1e-6).all()
    assert error.max() > 0


def test_a_header_has_names_of_its_own(rng, tmp_path):
    export.c_header(tmp_path / "a.h", normal(rng, 1, 2, 3), name="codec_1")
    text = (tmp_path / "a.h").read_text()
    assert "#define CODEC_1_DIM 3\n" in text
    assert "static const float codec_1_codewords[2][CODEC_1_DIM] = {" in text
    assert "rvq_" not in text


@pytest.mark.parametrize(
    ("quantizer", "options", "message"),
    [
        (Codebooks([Stage(np.ones((2, 3)), stride=2)]), {}, "several rates; expected stride 1"),
        (Grouped([np.ones((1, 2, 3))] * 2), {}, "cannot hold Grouped.*groups one by one"),
        (np.full((1, 2, 3), 1e300), {}, "beyond float32"),
        (np.ones((1, 2, 3)), {"dtype": "int4"}, "dtype is 'int4'"),
        (np.ones((1, 2, 3)), {"name": "a b"}, "name 'a b'; expected one of float32, int8"),
    ],
)
def test_what_a_header_cannot_hold_is_refused(quantizer, options, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        export.c_header(tmp_path / "a.h", quantizer, **options)
    assert os.listdir(tmp_path) == []


# Codes.


def test_codes_for_candle_are_batch_first(rng, tmp_path):
    codes = rng.integers(0, 99, (4, 2, 7))
    export.codes(tmp_path / "a.safetensors", codes, "candle")
    (tensor,) = load_file(tmp_path / "a.safetensors").values()
    assert tensor.dtype == np.uint32
    np.testing.assert_array_equal(tensor, codes.swapaxes(0, 1))
    export.codes(tmp_path / "a.safetensors", codes[:, 0], "candle")
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["codes"][0], codes[:, 0])


def test_codes_for_codec_cpp_are_time_first(rng, tmp_path):
    codes = rng.integers(0, 99, (4, 7))
    export.codes(tmp_path / "a.npy", codes, "codec.cpp")
    read = np.load(tmp_path / "a.npy")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, codes.T)


@pytest.mark.parametrize(
    ("codes", "form", "error", "message"),
    [
        (np.zeros((2, 3)), "candle", DtypeError, "float64; expected integers"),
        (np.full((2, 3), -1), "candle", DtypeError, "from -1 to -1; expected .*none dropped"),
        (np.full((2, 3), 2**31), "codec.cpp", DtypeError, "expected integers from 0 to 2147483647"),
        (np.full((2, 3), 2**63, np.uint64), "candle", DtypeError, "to 9223372036854775808; expect"),
        (np.zeros(3, int), "candle", ShapeError, r"\(3,\); expected \(Q, T\)"),
        (np.zeros((2, 2, 3), int), "codec.cpp", ParameterError, "for 2 signals"),
        (np.zeros((2, 3), int), "gguf", ParameterError, "expected one of candle, codec.cpp"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, form, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export.codes(tmp_path / "a", codes, form)
    assert os.listdir(tmp_path) == []


def test_what_is_for_other_programs_is_named_and_not_read_as_a_checkpoint(rng, tmp_path):
    books = Codebooks(rng.standard_normal((2, 5, 3)).astype(np.float32))
    export.npz(tmp_path / "a.npz", books)
    export.codes(tmp_path / "codes.safetensors", np.zeros((2, 4), int), "candle")
    export.c_header(tmp_path / "a.h", books)
    for name, said in {
        "a.npz": r"holds arrays of export\.npz, for NumPy; .*checkpoints\.save",
        "codes.safetensors": "holds codes of .* and no codebooks",
        "a.h": "is C source, not a safetensors file",
    }.items():
        with pytest.raises(CheckpointError, match=said):
            checkpoints.load(tmp_path / name)
