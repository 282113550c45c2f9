"""The command line on files of every kind, in places of every kind, under names of any ending.

Nothing here is damaged at random: what is drawn is where things are.  After each command the place
that it wrote to must be what a user expects, and nothing else may have changed.
"""

import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np

from rvq_np import Codebooks, FrontEnd, Stage, bitstream, checkpoints, cli
from rvq_np.files import kinds, wav

DATA = Path(__file__).parents[1] / "data"
ENDINGS = [".rvq", ".npy", ".npz", ".csv", ".wav", ".safetensors", ".RVQ", ".Npy", ".WAV", ".CSV",
           ".parquet", ".mp3", ".pt", ".onnx", ".", ""]  # fmt: skip
WRITTEN = {".rvq": "rvq", ".npy": "npy", ".npz": "npz", ".wav": "wav", ".csv": "csv",
           ".safetensors": "safetensors"}  # fmt: skip
FIRST = {"encode": "rvq", "decode": "npy", "fit": "safetensors", "convert": "safetensors"}
OUTPUTS = ["new", "file", "link", "dangling link", "circle", "pipe", "device", "folder",
           "missing folder", "stdout", "input", "long name"]  # fmt: skip
INPUTS = ["file", "file", "file", "link", "pipe", "folder", "device", "nothing"]
MODES = [0o600, 0o640, 0o644, 0o666, 0o755, 0o4755]
LINES = [
    "encode {in} -m {model} -o {out}", "encode {vectors} -m {in} -o {out}",
    "encode {in} -m {strided} -o {out}", "encode {sound} -m {model} -o {out}",
    "decode {in} -m {model} -o {out}", "decode {codes} -m {in} -o {out}",
    "decode {codes} -m {model} -o {out}", "convert {in} -o {out}",
    "fit {in} -o {out} --n-q 1 --bins 4 --iterations 1",
    "info {in}", "verify {in}", "info {model} --codes {in}",
]  # fmt: skip


class Places:
    """Commands on what is drawn: the kind of the input, the place of the output and its ending."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.corpus = Path(self.folder.name, "corpus")
        self.corpus.mkdir()
        rng = np.random.default_rng(0)
        books = rng.standard_normal((2, 9, 3)).astype(np.float32)
        x = rng.standard_normal((20, 3)).astype(np.float32)
        make = self.corpus.joinpath
        checkpoints.save(make("model.safetensors"), books, front_end=FrontEnd("samples", 3, 8000))
        checkpoints.save(make("unknown.safetensors"), books)
        checkpoints.save(
            make("strided.safetensors"), Codebooks([Stage(books[0], stride=2), Stage(books[1])])
        )
        bitstream.write(
            make("codes.rvq"), rng.integers(-1, 9, (2, 20)), codebooks=books, frame_rate=(8000, 3)
        )
        bitstream.write(
            make("whole.rvq"), rng.integers(0, 9, (2, 20)), codebooks=books, frame_rate=(8000, 3)
        )
        wav.write(make("sound.wav"), np.sin(np.arange(60) / 5) / 2, 8000)
        wav.write(make("fast.wav"), np.sin(np.arange(60) / 5) / 2, 44100)
        np.save(make("vectors.npy"), x)
        np.save(make("codes.npy"), rng.integers(0, 9, (2, 20)))
        np.savez(make("vectors.npz"), x)
        np.savez(make("codes.npz"), level_0=np.zeros(20, int), level_1=np.ones(20, int))
        make("codes.csv").write_text("stage_0,stage_1\n1,2\n3,4\n")
        make("text.txt").write_text("no vectors\n")
        make("config.json").write_text("{}")
        make("empty.npy").write_bytes(b"")
        make("pickle.pt").write_bytes(b"\x80\x04}.")
        make("torch.pt").write_bytes(b"PK\3\4" + bytes(22) + b"\x10\0\0\0archive/data.pkl")
        make("sound.flac").write_bytes(b"fLaC" + bytes(60))
        make("unknown.bin").write_bytes(bytes(range(128, 200)))
        for path in (DATA / "faiss").glob("*.faissindex"):
            shutil.copy(path, self.corpus)
        shutil.copy(DATA / "checkpoints" / "encodec.safetensors", self.corpus)
        self.names = sorted(os.listdir(self.corpus))
        self.place = Path(self.folder.name, "place")

    def close(self):
        self.folder.cleanup()

    def input(self, rng, seen):
        made = {
            "line": rng.choice(LINES), "content": rng.choice(self.names),
            "ending": rng.choice(["", rng.choice(ENDINGS)]), "input": rng.choice(INPUTS),
            "output": rng.choice(OUTPUTS), "out": rng.choice(ENDINGS), "mode": rng.choice(MODES),
        }  # fmt: skip
        if made["output"] == "input" and "{in}" not in made["line"]:
            made["output"] = "new"
        for name in ("input", "output"):
            seen[f"{name} {made[name]}"] = seen.get(f"{name} {made[name]}", 0) + 1
        return made

    def accepts(self, made):
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        read = self._input(made)
        out = self._output(made, read)
        line = made["line"].format(**{
            "in": read, "out": out, "model": self.corpus / "model.safetensors",
            "strided": self.corpus / "strided.safetensors", "codes": self.corpus / "whole.rvq",
            "vectors": self.corpus / "vectors.npy", "sound": self.corpus / "sound.wav",
        }).split()  # fmt: skip
        before, corpus = _state(self.place), _state(self.corpus)
        pipe = os.open(out, os.O_RDONLY | os.O_NONBLOCK) if made["output"] == "pipe" else None
        printed, failed = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(failed):
                status = cli.main(line)
            received = os.read(pipe, 1 << 16) if pipe is not None else b""
        finally:
            if pipe is not None:
                os.close(pipe)
        printed.flush()
        said, after = failed.getvalue(), _state(self.place)
        assert status in (0, 1), status
        assert ".tmp" not in said + " ".join(after), (said, after)
        assert _state(self.corpus) == corpus
        writes = "{out}" in made["line"]
        if status == 1:
            assert said.startswith("rvq-np: error: "), said
            assert said.count("\n") == 1, said
            assert after == before, "something changed"
            assert received == printed.buffer.getvalue() == b""
        elif writes:
            kind = FIRST[line[0]]
            if made["output"] != "stdout":
                kind = WRITTEN.get(made["out"].lower(), kind)
            if made["out"] == "" and "link" in made["output"]:
                kind = "npy"  # the ending of what it leads to
            self._check(made, out, kind, before, after, received or printed.buffer.getvalue())
        else:
            assert after == before, "something changed"
        return status == 0

    def _input(self, made):
        place, content = made["input"], self.corpus / made["content"]
        path = self.place / f"in{made['ending'] or content.suffix}"
        if place == "file":
            shutil.copy(content, path)
        elif place == "link":
            os.symlink(content, path)
        elif place == "pipe":
            os.mkfifo(path)
        elif place == "folder":
            path.mkdir()
            shutil.copy(content, path)
        elif place == "device":
            os.symlink("/dev/null", path)
        return path

    def _output(self, made, read):
        place, path = made["output"], self.place / f"out{made['out']}"
        if place == "stdout":
            return "-"
        if place == "input":
            return read
        if place in ("file", "link"):
            target = path if place == "file" else self.place / "target.npy"
            target.write_bytes(b"old")
            target.chmod(made["mode"])
        if place == "link":
            path.symlink_to("target.npy")
        elif place == "dangling link":
            path.symlink_to("later.npy")
        elif place == "circle":
            path.symlink_to(path.name)
        elif place == "pipe":
            os.mkfifo(path)
        elif place == "device":
            path.symlink_to("/dev/null")
        elif place == "folder":
            path.mkdir()
        elif place == "missing folder":
            return self.place / "no" / path.name
        elif place == "long name":
            return self.place / ("x" * (251 - len(made["out"])) + made["out"])
        return path

    def _check(self, made, out, kind, before, after, received):
        """After a success the output is what it was, but for what is in it."""
        place = made["output"]
        assert place not in ("circle", "folder", "missing folder", "input"), place
        if place in ("pipe", "stdout"):
            assert kinds.of_bytes(received, len(received)).name == kind
            assert after == before
        elif place == "device":
            assert after == before
        else:
            assert kinds.of(out).name == kind
            changed = {name for name in after if after[name] != before.get(name)}
            assert changed == {os.path.basename(os.path.realpath(out))}
            assert set(before) <= set(after)
            if place in ("file", "link"):
                assert stat.S_IMODE(os.stat(out).st_mode) == made["mode"]
            assert os.path.islink(out) == ("link" in place)


def _state(folder):
    """Return what is in a folder: kinds, modes, links and contents."""
    found = {}
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        inside = os.readlink(entry) if entry.is_symlink() else None
        if inside is None and stat.S_ISREG(mode):
            inside = Path(entry).read_bytes()
        elif inside is None and stat.S_ISDIR(mode):
            inside = sorted(os.listdir(entry))
        found[entry.name] = (mode, inside)
    return found


TARGETS = {"places": Places}

if sys.platform == "win32":  # without pipes that have names
    TARGETS = {}
