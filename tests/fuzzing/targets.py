"""What reads the damaged files: accepted, or refused with the documented error, nothing else."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from helpers import gguf_files, rvq_reader

from rvq_np import Codebooks, FrontEnd, Stage, bitstream, checkpoints, cli
from rvq_np.errors import BitstreamError, CheckpointError
from rvq_np.files import wav

from . import corpus, mutations

EXPANSION = 4 * 64  # bytes of codes a byte of the file, at most


class Container:
    """`bitstream.read` and a reader in plain Python, `append` now and then.

    Most files have their checksums made right.
    """

    def __init__(self):
        self.corpus = corpus.containers()

    def close(self):
        pass

    def input(self, rng, kinds):
        content = mutations.damaged(rng, rng.choice(self.corpus), self.corpus, kinds)
        return mutations.sealed(content) if rng.random() < 0.7 else content

    def accepts(self, content):
        try:
            found = bitstream.read(io.BytesIO(content))
        except BitstreamError:
            return False
        size = sum(stage.nbytes for stage in found.codes)
        assert size <= EXPANSION * len(content), f"{size} bytes of {len(content)}"
        for stage, codewords in zip(found.codes, found.sizes, strict=True):
            assert stage.dtype == np.int32
            assert stage.size == 0 or (stage.min() >= -1 and stage.max() < codewords)
        self.agrees(content, found.codes)
        if content[-1] % 16 == 0:
            file = io.BytesIO(content)
            bitstream.append(file, found.codes)
            again = bitstream.read(file).codes
            for stage, old in zip(again, found.codes, strict=True):
                np.testing.assert_array_equal(stage[..., : old.shape[-1]], old)
        return True

    def agrees(self, content, codes):
        """The reader made of docs/format.md accepts what is accepted, and reads the same."""
        if sum(stage.size for stage in codes) == 0:
            return  # of any number of streams
        _, stages = rvq_reader.read(content)
        for mine, theirs in zip(codes, stages, strict=True):
            expected = [[-1 if code is None else code for code in stream] for stream in theirs]
            np.testing.assert_array_equal(mine.reshape(len(expected), -1), expected)


class Safetensors:
    """`checkpoints.load`; two thirds have a header that is JSON of the right length."""

    def __init__(self):
        self.corpus = corpus.safetensors()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=memory)
        self.path = Path(self.folder.name, "a.safetensors")

    def close(self):
        self.folder.cleanup()

    def input(self, rng, kinds):
        content = rng.choice(self.corpus)
        if rng.random() < 0.66:
            kinds["rewritten"] = kinds.get("rewritten", 0) + 1
            content = mutations.rewritten(rng, content)
            if rng.random() < 0.7:
                return content
        return mutations.damaged(rng, content, self.corpus, kinds)

    def accepts(self, content):
        self.path.write_bytes(content)
        error = None
        try:
            quantizer = checkpoints.load(self.path)
        except CheckpointError as caught:
            error = caught
        if error is not None:
            assert "a.safetensors" in str(error)
            return False
        assert quantizer.n_q >= 1
        return True


class CommandLine:
    """`rvq_np.cli.main` on damaged models, codes and vectors: exit code 0 or 1, and one line."""

    def __init__(self):
        self.models, self.codes = corpus.safetensors(), corpus.containers()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=memory)
        self.bad = Path(self.folder.name, "bad")
        self.good = Path(self.folder.name, "good.safetensors")
        rng = np.random.default_rng(0)
        books = rng.standard_normal((2, 9, 3)).astype(np.float32)
        checkpoints.save(self.good, books, front_end=FrontEnd("samples", 3))
        file = io.BytesIO()
        np.save(file, rng.standard_normal((20, 3)).astype(np.float32))
        self.vectors = [file.getvalue()]
        vectors = rng.standard_normal((400, 3)).astype(
            np.float32
        )  # more than zipfile reads at once
        self.archives = [_saved(np.savez, vectors), _saved(np.savez, np.asfortranarray(vectors)),
                         _saved(np.savez_compressed, vectors)]  # fmt: skip
        self.sounds = [_sound(Path(self.folder.name, "a.wav"))]
        self.strided = Path(self.folder.name, "strided.safetensors")
        codewords = rng.standard_normal((2, 9, 3)).astype(np.float32)
        checkpoints.save(
            self.strided, Codebooks([Stage(codewords[0], stride=2), Stage(codewords[1])])
        )
        stages = {f"level_{n}": rng.integers(0, 9, (20, 40)[n]) for n in range(2)}
        self.stages = [_saved(np.savez, **stages), _saved(np.savez_compressed, **stages)]
        self.tables = [b"stage_0,stage_1\n1,2\n3,-1\n", b"1,2\n3,4\n"]
        self.arrays = [_saved(np.save, rng.integers(0, 9, (2, 20)))]
        self.gguf = [
            gguf_files.assembled({f"centroids.{q}": each for q, each in enumerate(codewords)}, kind)
            for kind in ("F32", "BF16")
        ]

    def close(self):
        self.folder.cleanup()

    def input(self, rng, kinds):
        line, suffix, files = rng.choice(
            [
                ("info {bad}", "safetensors", self.models),
                ("convert {bad} -o {out}.safetensors", "safetensors", self.models),
                ("info {bad}", "gguf", self.gguf),
                ("convert {bad} -o {out}.safetensors", "gguf", self.gguf),
                ("info {bad}", "rvq", self.codes),
                ("verify {bad}", "rvq", self.codes),
                ("decode {bad} -m {good} -o {out}.npy", "rvq", self.codes),
                ("encode {bad} -m {good} -o {out}.rvq", "npy", self.vectors),
                ("encode {bad} -m {good} -o {out}.rvq", "npz", self.archives),
                ("encode {bad} -m {good} -o {out}.npy", "wav", self.sounds),
                ("decode {bad} -m {good} -o {out}.npy", "npy", self.arrays),
                ("info {good} --codes {bad}", "npy", self.arrays),
                ("decode {bad} -m {strided} -o {out}.npy", "npz", self.stages),
                ("decode {bad} -m {good} -o {out}.npy", "csv", self.tables),
                ("decode {bad} -m {good} -o {out}.wav", "rvq", self.codes),
                (
                    "fit {bad} -o {out}.safetensors --n-q 1 --bins 4 --iterations 1 --dim 3",
                    "wav",
                    self.sounds,
                ),
                (
                    "fit {bad} -o {out}.safetensors --n-q 1 --bins 4 --iterations 1",
                    "npz",
                    self.archives,
                ),
                (
                    "fit {bad} -o {out}.safetensors --n-q 1 --bins 4 --iterations 1",
                    "npy",
                    self.vectors,
                ),
            ]
        )
        content = mutations.damaged(rng, rng.choice(files), files, kinds)
        if suffix == "rvq" and rng.random() < 0.7:
            content = mutations.sealed(content)
        return line, suffix, content

    def accepts(self, made):
        line, suffix, content = made
        bad = self.bad.with_suffix(f".{suffix}")
        bad.write_bytes(content)
        out = Path(self.folder.name, "out")
        codewords = line.format(bad=bad, good=self.good, strided=self.strided, out=out).split()
        said, failed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
            status = cli.main(codewords)
        assert status in (0, 1)
        lines = failed.getvalue().splitlines()
        others = [each for each in lines if not each.startswith("rvq-np: warning: ")]
        assert len(others) == status, failed.getvalue()
        assert status == 0 or others[0].startswith("rvq-np: error: ")
        return status == 0


def _saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def _sound(path):
    wav.write(path, np.sin(np.arange(60) / 5) / 2, 8000)
    return path.read_bytes()


TARGETS = {"container": Container, "safetensors": Safetensors, "cli": CommandLine}
