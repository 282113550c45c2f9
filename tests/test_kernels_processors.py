"""The kernels for other processors give the same codes."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.kernel_cases import _bound, screened
from helpers.processor import KERNELS, can_run
from llvmlite import binding

from rvq_np import encode
from rvq_np.kernels import dispatch
from rvq_np.kernels.compiled import jit, search
from rvq_np.kernels.compiled import target as processor

# Other processors


@pytest.mark.parametrize(
    ("triple", "features", "target"),
    [
        ("aarch64-unknown-linux-gnu", "+neon", processor.Target(4, 4, ("float32",), True)),
        (
            "aarch64-unknown-linux-gnu",
            "+neon,+dotprod,+lse",
            processor.Target(4, 4, ("uint8", "float32"), True),
        ),
        (
            "aarch64-unknown-linux-gnu",
            "+neon,-dotprod",
            processor.Target(4, 4, ("float32",), True),
        ),
        ("arm64-apple-darwin23", "", processor.Target(4, 4, ("float32",), True)),
        (
            "x86_64-unknown-linux-gnu",
            "+sse2,+avx2,+fma,+avx512f,+avx512bw,+avx512vl,+avx512vnni",
            processor.Target(16, 4, ("uint8", "int16", "float32"), True),
        ),
        (
            "x86_64-unknown-linux-gnu",
            "+sse2,+avx2,+fma,+avx512f,+avx512bw,+avx512vl,-avx512vnni",
            processor.Target(16, 4, ("int8", "int16", "float32"), True),
        ),
        (
            "x86_64-pc-windows-msvc",
            "+sse2,+avx2,+fma,+avx512f,-avx512bw,+avx512vl",
            processor.Target(8, 2, ("int8", "int16", "float32"), True),
        ),
        (
            "x86_64-pc-windows-msvc",
            "+sse2,+avx2,+fma,+avxvnni",
            processor.Target(8, 2, ("uint8", "int16", "float32"), True),
        ),
        (
            "x86_64-apple-darwin",
            "+avx,+avx2,-fma,+sse2",
            processor.Target(4, 2, ("int16", "float32"), False),
        ),
        (
            "x86_64-unknown-linux-gnu",
            "+64bit,+sse2",
            processor.Target(4, 2, ("int16", "float32"), False),
        ),
        ("riscv64-unknown-linux-gnu", "+m,+v", processor.Target(4, 2, ("float32",), False)),
        ("x86_64-unknown-linux-gnu", "", processor.Target(4, 2, ("float32",), False)),
    ],
)
def test_the_shape_of_the_kernels_follows_the_processor(triple, features, target):
    assert processor.target_of(triple, features) == target


# What a processor is taken for, the triple if it is another than this one's, and the shape.
PROCESSORS = {
    "AVX2": (
        "haswell",
        "+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+sse2,+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(8, 2, ("int8", "int16", "float32"), True),
    ),
    "AVX-VNNI": (
        "alderlake",
        "+avx,+avx2,+avxvnni,+fma,+bmi,+bmi2,+f16c,+sse2,+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(8, 2, ("uint8", "int16", "float32"), True),
    ),
    "AVX-512 without VNNI": (
        "skylake-avx512",
        "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+bmi,+bmi2,+f16c,+sse2,"
        "+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(16, 4, ("int8", "int16", "float32"), True),
    ),
    "SSE2": (
        "nehalem",
        "+cx16,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(4, 2, ("int16", "float32"), False),
    ),
    "unknown": ("generic", "", None, processor.Target(4, 2, ("float32",), False)),
    "NEON": (None, None, "aarch64-unknown-linux-gnu", processor.Target(4, 4, ("float32",), True)),
}
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
SELECTED = [
    *(f"test_backends.py::{name}" for name in ("TestNumba", "TestNumbaFloat64")),
    "test_kernels_bounds.py::test_no_bound_is_above_the_score",
    "test_kernels_bounds.py::test_no_bound_is_above_the_score_of_float64",
    "test_kernels_bounds.py::test_no_bound_is_above_the_score_at_the_largest_sizes",
    "test_kernels.py::test_any_number_of_rows_gives_the_same_codes",
    "test_kernels.py::test_panels_met_a_run_at_a_time_give_the_same_codes",
]
AS_ANOTHER = """
import contextlib, sys
from unittest import mock
from numba.core.registry import cpu_target

taken_for = contextlib.nullcontext()
if {triple!r}:
    codegen = type(cpu_target.target_context.codegen())
    taken_for = mock.patch.object(codegen, "magic_tuple", lambda self: ({triple!r}, "", ""))
with taken_for:
    from rvq_np.kernels.compiled import target
assert tuple(target.TARGET) == {target!r}, target.TARGET

{more}

class Fewer:
    def pytest_configure(self):
        from hypothesis import settings
        settings.register_profile("few", settings.get_profile("rvq_np"), max_examples=15)
        settings.load_profile("few")

import pytest
sys.exit(pytest.main({arguments!r}, [Fewer()]))
"""


def run_as(processor, arguments=(), more=""):
    """Run tests, and before them some code, in a process that takes its processor for another."""
    name, features, triple, target = PROCESSORS[processor]
    here = Path(__file__).parent
    reported = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features} if name else {}
    code = AS_ANOTHER.format(
        triple=triple, target=tuple(target), more=more,
        arguments=[*(str(here / each) for each in arguments), "-q", "-x", "-p", "no:cacheprovider"],
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=here.parent, env={**os.environ, **reported},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processor", can_run(PROCESSORS, KERNELS) if ON_X86 else ["NEON"])
def test_other_processors_give_the_same_codes(processor, tmp_path, monkeypatch):
    """NEON's shape runs here, too: LLVM lowers its vectors of four for any processor."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    selected = SELECTED
    if len(PROCESSORS[processor][3].screens) > 1:
        selected = [
            *selected,
            "test_backends.py::TestFloat32",
            "test_backends.py::TestFloat32Float64",
        ]
    assert " passed in " in run_as(processor, selected)


def show_code_for_arm():
    """Print what LLVM makes of a float32 screen for another processor than this one."""
    screened(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), "float32")
    fresh = jit.kernel(inner=True)(_bound.py_func)  # without reference counts: they are x86 code
    fresh.compile(_bound.signatures[-1])
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    machine = binding.Target.from_triple(triple).create_target_machine(features="+neon")
    lines = fresh.inspect_llvm(fresh.signatures[0]).splitlines()
    module = binding.parse_assembly("\n".join(each for each in lines if each[:7] != "target "))
    module.triple, module.data_layout = triple, str(machine.target_data)
    module.verify()
    print(machine.emit_assembly(module))


@pytest.mark.slow
def test_the_float32_kernels_compile_for_arm():
    """In a process of its own: LLVM ends the one in which it meets code it cannot translate."""
    more = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_kernels_processors\n"
    made = run_as("NEON", more=more + "test_kernels_processors.show_code_for_arm()\nsys.exit()")
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", made)) >= search.ROWS * 4


def show_code_of_encode():
    """Print what LLVM makes of the search."""
    dispatch.load()  # or NumPy computes what is as small as this
    encode(np.ones((20_000, 16), np.float32), np.ones((2, 64, 16), np.float32))
    print(search.encode.inspect_asm(search.encode.signatures[0]))


if ON_X86 and "AVX2" in can_run(PROCESSORS, KERNELS):

    @pytest.mark.slow
    def test_what_a_search_keeps_on_the_stack_does_not_depend_on_its_caller(tmp_path, monkeypatch):
        """Sums of AVX2 that lay on two pages took twice as long, at some depths of the stack."""
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # cached code cannot be looked at
        more = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_kernels_processors
test_kernels_processors.show_code_of_encode()
sys.exit()
"""
        made = run_as("AVX2", more=more)
        assert re.search(r"\band[ql]?\s+\$-4096, %rsp", made)


CODE_FOR_ARM = """
from pathlib import Path
from rvq_np.kernels.ahead import emit
from rvq_np.kernels.ahead.targets import TARGETS
from rvq_np.kernels.compiled import entries

target = TARGETS["aarch64+dotprod"]
with emit.taken_for(target):
    from rvq_np.kernels.compiled import target as shapes
assert shapes.TARGET.screens == ("uint8", "float32")
signature = next(entries.signatures("search.encode", shapes.TARGET.screens))
machine = emit.machine_of(target)
with emit.for_no_call():
    code, _ = emit.compiler()(emit.body_of("search.encode"), signature)
print(machine.emit_assembly(emit.module_of(code, "encode", target, machine)))
"""


@pytest.mark.slow
def test_products_of_bytes_are_one_instruction_on_arm():
    """Which only an Arm can run: `test_arm` proves there that the codes are the same."""
    done = subprocess.run(
        [sys.executable, "-c", CODE_FOR_ARM],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
        env={**os.environ, "RVQ_NP_KERNELS": "0", "NUMBA_CPU_NAME": "generic",
             "NUMBA_CPU_FEATURES": "", "NUMBA_DISABLE_INTEL_SVML": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.findall(r"\bsdot\s+v\d+\.4s, v\d+\.16b", done.stdout)
    assert len(found) >= search.ROWS * 4
