"""The real CuPy where there is no GPU: its compiler takes the source, and what is missing is said.

Nothing runs on a GPU here: NVRTC, which CuPy compiles with, needs none.
"""

import os

import numpy as np
import pytest
from helpers.emulated import fake_cupy

from rvq_np.errors import BackendError

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: CI installs it")

SHAPES = ((8, 1), (4, 2), (2, 4), (1, 8), (1, 4), (1, 1))
ARCHITECTURES = ("75", "80", "86", "90")


def compiled(text, options):
    """Return the machine code that NVRTC makes of `text`, or raise with its messages."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(text, "rvq_np.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["encode", "codewords", "beam", "gather"])
def test_nvrtc_compiles_the_source_with_our_options(name, architecture, monkeypatch):
    """The very text and options that are handed to ``cupy.RawModule``."""
    from rvq_np.kernels.cuda import launch

    modules = []
    monkeypatch.setattr(cupy, "RawModule", lambda **given: modules.append(given))
    shapes = SHAPES if name == "encode" else (None,)
    for shape in shapes:
        macros = {} if shape is None else {"ROW_GROUPS": shape[0], "CODEWORD_GROUPS": shape[1]}
        for dtype in (np.float32, np.float64):
            launch._module.__wrapped__(name, np.dtype(dtype), *macros.items())
    if name == "encode":
        forms = [("DEEP", (1, 8)), ("FEW", (1, 8))]
        forms += [("WGMMA", (4, 2))] if architecture == "90" else []
        for form, (rows, codewords) in forms:
            macros = {"ROW_GROUPS": rows, "CODEWORD_GROUPS": codewords, form: 1}
            launch._module.__wrapped__(name, np.dtype(np.float32), *macros.items())
        assert len(modules) == 2 * len(shapes) + len(forms)
    for given in modules:
        options = (*given["options"], f"-arch=sm_{architecture}")
        code = compiled(given["code"], options)
        assert code[:4] == b"\x7fELF"
        assert b"encode" in code or name != "encode"


def test_what_the_stand_in_offers_is_there():
    """Names of `emulated.fake_cupy` that CuPy lacks would let tests pass that a GPU fails."""
    for name in (*fake_cupy.FUNCTIONS, "asarray", "asnumpy", "from_dlpack", "RawModule", "ndarray"):
        assert hasattr(cupy, name), name
    for name in vars(fake_cupy.ndarray):
        if not name.startswith("_"):
            assert hasattr(cupy.ndarray, name), name
    assert cupy.cuda.nvrtc.getVersion() >= (12, 0)
    for name in ("Device", "Event", "ExternalStream", "alloc_pinned_memory", "runtime"):
        assert hasattr(cupy.cuda, name)
    for name in ("attributes", "use", "__enter__"):
        assert hasattr(cupy.cuda.Device, name)


@pytest.mark.skipif(
    os.path.exists("/dev/nvidiactl"), reason="there is a GPU: `python -m bench.gpu` is for that"
)
def test_without_a_driver_there_is_one_clear_error():
    from rvq_np.kernels.cuda import driver as backend

    with pytest.raises(BackendError, match=r"CuPy finds no device.*CUDA.*rvq-np\[cuda12\]"):
        backend.check(object())
