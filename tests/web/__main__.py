"""Export graphs, run them in Node, and compare codes and vectors with those of rvq_np."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers import regret

import rvq_np
from rvq_np import Codebooks, Linear, Parallel, Projected, Stage, export

FRAMES = 750  # ten seconds of EnCodec
RUN = Path(__file__).with_name("run.mjs")


def normal(rng: Any, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng: Any, outputs: int, inputs: int) -> Linear:
    return Linear(normal(rng, outputs, inputs) / inputs**0.5, 0.1 * normal(rng, outputs))


def plain(rng: Any, n_q: int, size: int, dim: int) -> Codebooks:
    return Codebooks([np.float32(0.8**q) * normal(rng, size, dim) for q in range(n_q)])


def cosine(rng: Any, strides: tuple[int, ...], size: int, dim: int) -> Codebooks:
    return Codebooks([
        Stage(normal(rng, size, 8), linear(rng, 8, dim), linear(rng, dim, 8), "cosine", stride)
        for stride in strides
    ])  # fmt: skip


def mimi(rng: Any) -> Parallel:
    return Parallel([
        Projected(plain(rng, n_q, 2048, 256), linear(rng, 256, 512), linear(rng, 512, 256))
        for n_q in (1, 7)
    ])  # fmt: skip


MADE = {
    "EnCodec": lambda rng: plain(rng, 8, 1024, 128),
    "DAC": lambda rng: cosine(rng, (1,) * 9, 1024, 1024),
    "SNAC": lambda rng: cosine(rng, (4, 2, 1), 4096, 768),
    "Mimi": mimi,
}


def main(modules: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {title: _exported(title, folder) for title in MADE}
        jobs = [job for _, _, _, some in cases.values() for job in some]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        subprocess.run(["node", str(RUN), modules, name], check=True)
        found = json.loads((folder / "results.json").read_text())
        results = {each["name"]: each for each in found["results"]}
        print(f"onnxruntime-web {found['version']}, {FRAMES} frames, one thread")
        print("| quantizer | codes that differ | encode | decode | decode, float16 |")
        print("|---|---:|---:|---:|---:|")
        for title, (quantizer, x, codes, _) in cases.items():
            print(f"| {title} | {_compared(title, quantizer, x, codes, results, folder)} |")
    return 0


def _exported(title: str, folder: Path) -> tuple[Any, np.ndarray, Any, list[dict[str, Any]]]:
    """Write the graphs and inputs of a quantizer; return it, vectors, their codes and the jobs."""
    rng = np.random.default_rng(len(title))
    quantizer = MADE[title](rng)
    frames = FRAMES - FRAMES % quantizer.block
    x = normal(rng, 1, frames, quantizer.dim)
    codes = rvq_np.encode(x, quantizer)
    rows = list(codes) if quantizer.block > 1 else [codes]
    names = [f"codes_{q}" for q in range(len(rows))] if quantizer.block > 1 else ["codes"]
    jobs = []
    for part, dtype in (("encode", "float32"), ("decode", "float32"), ("decode", "float16")):
        job = f"{title}.{part}.{dtype}"
        export.onnx(folder / f"{job}.onnx", quantizer, part, dtype=dtype)
        inputs = [("x", x)] if part == "encode" else list(zip(names, rows, strict=True))
        jobs.append({"name": job, "graph": f"{job}.onnx",
                     "inputs": [_put(folder, f"{job}.{name}", name, each)
                                for name, each in inputs]})  # fmt: skip
    return quantizer, x, rows, jobs


def _put(folder: Path, file: str, name: str, array: np.ndarray) -> dict[str, Any]:
    kind = "float32" if array.dtype == np.float32 else "int64"
    (folder / file).write_bytes(np.ascontiguousarray(array).astype(kind).tobytes())
    return {"name": name, "type": kind, "shape": array.shape, "file": file}


def _got(result: dict[str, Any], folder: Path) -> list[np.ndarray]:
    return [np.frombuffer((folder / each["file"]).read_bytes(), each["type"]).reshape(each["shape"])
            for each in result["outputs"]]  # fmt: skip


def _compared(
    title: str, quantizer: Any, x: np.ndarray, codes: Any, results: Any, folder: Path
) -> str:
    """Return the cells of a quantizer; raises AssertionError where it does not do as it should."""
    encoded, decoded, halved = (
        results[f"{title}.{each}"]
        for each in ("encode.float32", "decode.float32", "decode.float16")
    )
    theirs = _got(encoded, folder)
    stages = theirs if quantizer.block > 1 else list(theirs[0])
    regret.assert_nearest(x[0], [each.reshape(-1) for each in stages], quantizer)
    differ = sum(int((a != b).sum()) for a, b in zip(theirs, codes, strict=True))
    total = sum(each.size for each in theirs)
    expected = rvq_np.decode(codes if quantizer.block > 1 else codes[0], quantizer)
    (vectors,), (short,) = _got(decoded, folder), _got(halved, folder)
    if title == "EnCodec":
        np.testing.assert_array_equal(vectors, expected)
    size = float(np.abs(expected).max())
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(short.astype(np.float32), expected, rtol=0, atol=5e-3 * size)
    times = " | ".join(f"{each['milliseconds']:.1f} ms" for each in (encoded, decoded, halved))
    return f"{differ} of {total} | {times}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m web", description=__doc__)
    parser.add_argument("--modules", default="node_modules", help="where npm installed packages")
    raise SystemExit(main(parser.parse_args().modules))
