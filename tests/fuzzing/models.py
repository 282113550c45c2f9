"""Damaged models: published checkpoints of every family, models of the class, fits to go on."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from rvq_np import ResidualVectorQuantizer, checkpoints
from rvq_np.errors import CheckpointError, ModelFileError, StateError

from . import mutations

PUBLISHED = Path(__file__).parents[1] / "data" / "checkpoints"


class Folder:
    """A folder for the file that is read, in memory where that is possible."""

    def __init__(self):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=memory)
        self.path = Path(self.folder.name, "a.safetensors")

    def close(self):
        self.folder.cleanup()


class Published(Folder):
    """`checkpoints.load` of a folder with weights and a config, and of Faiss indices."""

    def __init__(self):
        super().__init__()
        reported = json.loads((PUBLISHED / "versions.json").read_text())
        self.corpus = []
        for path in sorted(PUBLISHED.glob("*.*")):
            if path.suffix in (".safetensors", ".faissindex"):
                config = json.dumps(reported[path.stem]["config"]).encode()
                self.corpus.append((path.suffix, path.read_bytes(), config))

    def input(self, rng, kinds):
        suffix, content, config = rng.choice(self.corpus)
        if suffix == ".safetensors" and rng.random() < 0.66:
            kinds["rewritten"] = kinds.get("rewritten", 0) + 1
            content = mutations.rewritten(rng, content)
        else:
            content = mutations.damaged(rng, content, [content], kinds)
        if rng.random() < 0.3:
            config = mutations.altered(rng, config)
        return suffix, content, config

    def accepts(self, made):
        suffix, content, config = made
        path = self.path.with_suffix(suffix)
        path.write_bytes(content)
        Path(self.folder.name, "config.json").write_bytes(config)
        try:
            quantizer = checkpoints.load(path)
        except CheckpointError:
            return False
        for stage in quantizer:
            assert np.isfinite(stage.codebook).all()
        size = sum(stage.codebook.nbytes for stage in quantizer)
        assert size <= 64 * len(content), f"{size} bytes of codewords of {len(content)}"
        return True


class _StopError(Exception):
    pass


class Models(Folder):
    """`ResidualVectorQuantizer.load`, and a `fit` that goes on from its checkpoint."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((60, 4)).astype(np.float32)
        trained = ResidualVectorQuantizer(4, 2, 2, 8, rng=0)
        trained(self.x, 50)
        trained.save(self.path)
        self.model = self.path.read_bytes()
        self.path.unlink()
        try:
            self.fit(callback=self.stop)
        except _StopError:
            self.checkpoint = self.path.read_bytes()

    def fit(self, **arguments):
        quantizer = ResidualVectorQuantizer(4, 4, 2, 4, rng=0)
        before = quantizer._rng.bit_generator.state
        try:
            quantizer.fit(self.x, iterations=2, checkpoint=self.path, **arguments)
        except (ModelFileError, StateError):
            assert quantizer._rng.bit_generator.state == before
            raise
        assert quantizer.is_initialized

    def stop(self, reported):
        if reported.stage == 1:
            raise _StopError

    def input(self, rng, kinds):
        fits = rng.random() < 0.4
        content = self.checkpoint if fits else self.model
        if rng.random() < 0.75:
            kinds["rewritten"] = kinds.get("rewritten", 0) + 1
            content = mutations.rewritten(rng, content)
        else:
            content = mutations.damaged(rng, content, [self.checkpoint, self.model], kinds)
        return fits, content

    def accepts(self, made):
        fits, content = made
        self.path.write_bytes(content)
        error = None
        try:
            if fits:
                self.fit()
            else:
                loaded = ResidualVectorQuantizer.load(self.path)
                assert all(np.isfinite(each).all() for each in loaded.state_dict().values())
        except (ModelFileError, StateError) as caught:
            error = caught
        assert error is None or "a.safetensors" in str(error)
        return error is None


TARGETS = {"published": Published, "models": Models}
