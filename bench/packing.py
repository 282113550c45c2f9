"""Codes to bytes and back: packed and range coded, beside copying and others' packers."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np

from rvq_np import bitstream
from rvq_np.kernels import dispatch
from rvq_np.kernels.compiled import bits
from rvq_np.kernels.plain import bits as plain_bits

from .report import Answer, Check, Table, duration, ratio
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

WIDTH, SIZE = 10, 1024
COPY, OURS, PLAIN = "copying the codes", "rvq_np, one stage", "rvq_np without Numba"
WHOLE, CODED = "rvq_np, a .rvq file of 8 stages", "rvq_np, the same range coded"
PYTHON, ANS = "encodec's packer, in Python", "constriction's ANS"

Calls = dict[str, Callable[[], object]]


def packing(setting: Setting, threads: int) -> Answer:
    """How fast do codes become bytes and codes again, on one core?"""
    rng = np.random.default_rng(0)
    count = 1 << (18 if setting.quick else 20)
    probable = rng.dirichlet(np.full(SIZE, 2.0))  # similar to codes of trained codebooks
    codes = rng.choice(SIZE, count, p=probable).astype(np.int32)
    few = codes[: 1 << 14]
    dispatch.load()
    rows, checks, held = [], [], _bytes(codes, few, probable)
    sizes = {name: f"{8 * len(data) / number:.3f}" for name, (data, number) in held.items()}
    for title, calls in (("writing", _writers(codes, few, probable)),
                         ("reading", _readers(codes, few, held, probable))):  # fmt: skip
        with fixed_threads(1):
            seconds = round_robin(calls, setting.rounds, f"packing, {title}")
        numbers = {name: held[name][1] if name in held else count for name in calls}
        speed = {name: 4e-9 * numbers[name] / each for name, each in seconds.items()}
        for name, each in sorted(speed.items(), key=lambda item: -item[1]):
            rows.append((title, name, f"{each:.3g} GB/s", duration(4e-3 / each),
                         sizes.get(name, "32")))  # fmt: skip
        work = f"{title} packed codes, {WIDTH} bits, one core"
        checks.append(Check(work, "≥ 1 GB/s of unpacked codes", None, speed[OURS], 1.0,
                            shown=f"{speed[OURS]:.2f} GB/s"))  # fmt: skip
        value = ratio(speed[OURS], speed.get(PYTHON))
        checks.append(Check(work, "≥ 50 x a packer in Python", None, value, 50))
    best = -(probable * np.log2(probable)).sum()
    note = (
        f"{count} codes of {SIZE} codewords, drawn with an entropy of {best:.3f} bits; GB/s count "
        "codes of 4 bytes. A file has headers and checksums, too, and is written and read whole. "
        "The third column is the time of a million codes."
    )
    header = ("", "", "unpacked codes", "a million", "bits a code")
    return Answer([Table("Packing; 1 thread", note, header, rows, text_columns=2)], checks)


def _writers(codes: np.ndarray, few: np.ndarray, probable: np.ndarray) -> Calls:
    uint32s = np.zeros(-(-len(codes) * WIDTH // 32), np.uint32)
    calls: Calls = {
        COPY: codes.copy,
        OURS: partial(bits.pack, codes, 0, WIDTH, uint32s),
        PLAIN: partial(plain_bits.pack, codes, 0, WIDTH, uint32s),
        WHOLE: partial(_written, codes, False),
        CODED: partial(_written, codes, True),
    }
    packer, ans = _encodec(), _constriction()
    if packer is not None:
        calls[PYTHON] = partial(_python_packed, packer, few)
    if ans is not None:
        calls[ANS] = partial(_ans_packed, ans, codes, probable)
    return calls


def _readers(codes: np.ndarray, few: np.ndarray, held, probable: np.ndarray) -> Calls:
    uint32s = np.zeros(-(-len(codes) * WIDTH // 32), np.uint32)
    bits.pack(codes, 0, WIDTH, uint32s)
    out = np.empty_like(codes)
    calls: Calls = {
        COPY: codes.copy,
        OURS: partial(bits.unpack, uint32s, 0, WIDTH, out),
        PLAIN: partial(plain_bits.unpack, uint32s, 0, WIDTH, out),
        WHOLE: lambda: bitstream.read(io.BytesIO(held[WHOLE][0])),
        CODED: lambda: bitstream.read(io.BytesIO(held[CODED][0])),
    }
    packer, ans = _encodec(), _constriction()
    if packer is not None:
        calls[PYTHON] = partial(_python_read, packer, held[PYTHON][0], len(few))
    if ans is not None:
        compressed = np.frombuffer(held[ANS][0], np.uint32)
        calls[ANS] = partial(_ans_read, ans, compressed, len(codes), probable)
    return calls


def _bytes(codes: np.ndarray, few: np.ndarray, probable: np.ndarray):
    """Return the bytes that each implementation writes, and their number of codes."""
    made = {
        OURS: (bytes(-(-len(codes) * WIDTH // 8)), len(codes)),
        PLAIN: (bytes(-(-len(codes) * WIDTH // 8)), len(codes)),
        WHOLE: (_written(codes, False), len(codes)),
        CODED: (_written(codes, True), len(codes)),
    }
    packer, ans = _encodec(), _constriction()
    if packer is not None:
        made[PYTHON] = (_python_packed(packer, few), len(few))
    if ans is not None:
        made[ANS] = (_ans_packed(ans, codes, probable), len(codes))
    return made


def _written(codes: np.ndarray, compress: bool) -> bytes:
    file = io.BytesIO()
    bitstream.write(file, codes.reshape(8, -1), sizes=[SIZE] * 8, compress=compress)
    return file.getvalue()


def _encodec() -> ModuleType | None:
    """Return encodec's ``binary`` module, past the package, which wants torchaudio."""
    spec = importlib.util.find_spec("encodec")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = f"{spec.submodule_search_locations[0]}/binary.py"
    found = importlib.util.spec_from_file_location("encodec_binary", path)
    if found is None or found.loader is None:
        return None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _python_packed(module: ModuleType, codes: np.ndarray) -> bytes:
    file = io.BytesIO()
    packer = module.BitPacker(WIDTH, file)
    for code in codes.tolist():
        packer.push(code)
    packer.flush()
    return file.getvalue()


def _python_read(module: ModuleType, data: bytes, count: int) -> list[int]:
    unpacker = module.BitUnpacker(WIDTH, io.BytesIO(data))
    return [unpacker.pull() for _ in range(count)]


def _constriction() -> ModuleType | None:
    if importlib.util.find_spec("constriction") is None:
        return None
    import constriction

    found: ModuleType = constriction
    return found


def _ans_packed(module: ModuleType, codes: np.ndarray, probable: np.ndarray) -> bytes:
    model = module.stream.model.Categorical(probable.astype(np.float32), perfect=False)
    coder = module.stream.stack.AnsCoder()
    coder.encode_reverse(codes, model)
    packed: bytes = coder.get_compressed().tobytes()
    return packed


def _ans_read(module: ModuleType, uint32s: np.ndarray, count: int, probable: np.ndarray):
    model = module.stream.model.Categorical(probable.astype(np.float32), perfect=False)
    return module.stream.stack.AnsCoder(uint32s.copy()).decode(model, count)
