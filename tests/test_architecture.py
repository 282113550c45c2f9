"""Imports point down, importing is light, and a machine without Numba is served as well."""

import ast
import copy
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rvq_np

PACKAGE = Path(rvq_np.__file__).parent

LEVELS = {
    "errors": 0,
    "forks": 0,
    "arguments": 1,
    "arrays": 1,
    "display": 1,
    "files": 1,
    "kernels": 1,
    "names": 1,
    "backends": 2,
    "config": 2,
    "frontend": 2,
    "codebooks": 3,
    "codec": 4,
    "bitstream": 5,
    "checkpoints": 5,
    "export": 5,
    "train": 5,
    "quantizer": 6,
    "semantic_ids": 6,
    "cli": 7,
    "demo": 7,
    "grad": 7,
    "plot": 7,
    "sklearn": 7,
    "testing": 7,
}
# Packages that are one piece in several files; in the others files named after a library, family
# or framework never meet.
ONE_PIECE = {
    "bitstream", "cli", "codebooks", "codec", "demo", "files", "frontend", "kernels", "quantizer",
    "semantic_ids", "testing", "train",
}  # fmt: skip
# The command line is the way to the demo, both are the way to pictures.
ALLOWED = {("cli", "demo"), ("cli", "plot"), ("demo", "plot")}


def imports_of(path):
    """Yield (package, file) pairs of ours that a file imports, wherever in the file."""
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = here if path.name == "__init__.py" else here[:-1]
    if path.name == "__init__.py":
        package = here[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = base + tuple(node.module.split(".")) if node.module else base
            for alias in node.names:
                full = (*target, alias.name)
                if len(full) > 1:
                    yield full[1], full[2] if len(full) > 2 else None
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("rvq_np"), f"{path}: import relatively"


@pytest.mark.quick
def test_every_package_has_an_import_level():
    packages = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    packages -= {"__init__", "__main__", "__pycache__", "py"}
    assert packages == set(LEVELS)


def graph():
    """Return the modules of the package, and which others each imports, wherever in the file."""
    paths = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE.parent).with_suffix("").parts
        paths[name[:-1] if path.name == "__init__.py" else name] = path
    found = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name[:-1]
        tree = ast.parse(path.read_text())
        for_types = {
            id(each) for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for each in ast.walk(node)
        }  # fmt: skip
        found[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level and id(node) not in for_types:
                base = package[: len(package) - node.level + 1]
                base += tuple(node.module.split(".")) if node.module else ()
                for alias in node.names:
                    target = (*base, alias.name)
                    found[name].add(target if target in paths else base)
    return found


@pytest.mark.quick
def test_no_module_imports_itself_by_way_of_others():
    """Also inside functions: two modules that need each other are one, or lack a third."""
    waits, done = graph(), set()
    assert len(waits) > 100
    while ready := {name for name, needs in waits.items() if name not in done and needs <= done}:
        done |= ready
    left = {".".join(name): [".".join(each) for each in needs - done]
            for name, needs in waits.items() if name not in done}  # fmt: skip
    assert not left


@pytest.mark.quick
@pytest.mark.parametrize(
    "path",
    [each for each in sorted(PACKAGE.rglob("*.py")) if each.parent != PACKAGE
     or each.stem not in ("__init__", "__main__")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)  # fmt: skip
def test_imports_point_down(path):
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for target, name in imports_of(path):
        if target == package:
            private = name is not None and (
                name.startswith("_") or not (PACKAGE / package / f"{name}.py").exists()
            )
            assert package in ONE_PIECE or private, f"{path.name} imports its sibling {name}"
        elif target in LEVELS and (package, target) not in ALLOWED:
            assert LEVELS[target] < LEVELS[package], f"{package} must not import {target}"


@pytest.mark.quick
def test_modules_open_with_a_docstring():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no contract at its top"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    ).stdout


@pytest.mark.quick
def test_importing_loads_nothing_heavy():
    code = (
        "import sys, rvq_np; heavy = {'numba', 'llvmlite', 'scipy', 'soundfile', 'torch', 'jax', "
        "'cupy', 'safetensors', 'hypothesis', 'matplotlib', 'tqdm', 'array_api_compat', 'dask', "
        "'distributed', 'pyarrow', 'zarr'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(code).strip() == "[]"


@pytest.mark.quick
def test_every_public_name_is_there():
    for name in rvq_np.__all__:
        assert getattr(rvq_np, name) is not None
    assert set(rvq_np.__all__) <= set(dir(rvq_np))
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = rvq_np.no_such_name


def test_without_numba_the_codes_are_the_same(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (200, 6)).astype(np.float32)
    x[100:] += rng.standard_normal((100, 6)).astype(np.float32)
    books = rng.integers(-4, 5, (3, 20, 6)).astype(np.float32)
    np.savez(tmp_path / "case.npz", x=x, books=books)
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"{{name}} is not here")
sys.meta_path.insert(0, Refuse())
import numpy as np, rvq_np
from rvq_np.kernels import dispatch
from rvq_np.kernels.plain import engine
assert dispatch.load() is engine
case = np.load({str(tmp_path / "case.npz")!r})
codes = rvq_np.encode(case["x"], case["books"])
np.save({str(tmp_path / "codes.npy")!r}, codes)
rvq = rvq_np.ResidualVectorQuantizer(6, 6, n_q=2, bins=4, rng=0)
result = rvq(case["x"], 50)
np.save({str(tmp_path / "codebook.npy")!r}, rvq.codebooks.stages[1].codebook)
assert "numba" not in sys.modules
"""
    run_python(code)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), rvq_np.encode(x, books))
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, n_q=2, bins=4, rng=0)
    rvq(x, 50)
    np.testing.assert_array_equal(
        np.load(tmp_path / "codebook.npy"), rvq.codebooks.stages[1].codebook
    )


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    """Numba refuses to decorate where it finds no place for its cache; the import must live."""
    import numba

    from rvq_np.kernels.compiled import jit

    real = numba.njit

    def njit(*functions, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*functions, **options)

    monkeypatch.setattr(numba, "njit", njit)

    @jit.kernel
    def double(x):
        return 2 * x

    assert double(4) == 8


def test_a_forked_child_encodes_on_threads_of_its_own():
    code = """
import os
os.environ["RVQ_NP_NUM_THREADS"] = "2"
import numpy as np, rvq_np
x = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
books = x[None, :16]
codes = rvq_np.encode(x, books)
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
child = os.fork()
if child == 0:
    os._exit(0 if (rvq_np.encode(x, books) == codes).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code).strip() == "0"


FORKED = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
import numpy as np, rvq_np
from rvq_np.kernels import dispatch
x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
books = x[None, :16]
inside = threading.Event()
{meanwhile}
thread = threading.Thread(target=busy)
thread.start()
assert inside.wait(600)
child = os.fork()
if child == 0:
    signal.alarm(1200)  # a lock that hangs would hang for ever
    {child}
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
def test_a_child_of_a_process_that_was_loading_kernels_works():
    """It hung for ever on a lock whose thread was not there."""
    meanwhile = """
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "rvq_np.kernels.compiled.engine":
            inside.set()
            time.sleep(0.5)
            raise ImportError("not today")
sys.meta_path.insert(0, Slow())
busy = rvq_np.warmup
"""
    child = "assert dispatch.load() is dispatch.plain; rvq_np.encode(x, books)"
    assert run_python(FORKED.format(meanwhile=meanwhile, child=child)).strip() == "0"


@needs_fork
def test_a_child_of_a_process_that_was_compiling_compiles():
    pytest.importorskip("numba")
    meanwhile = """
from numba.core.compiler_lock import global_compiler_lock
def busy():
    with global_compiler_lock:
        inside.set()
        time.sleep(0.5)
"""
    child = "with global_compiler_lock: pass"
    assert run_python(FORKED.format(meanwhile=meanwhile, child=child)).strip() == "0"


@needs_fork
def test_a_child_of_a_process_that_was_training_trains():
    """The lock of a quantizer is new in the child, and so are those of cached properties."""
    meanwhile = """
rvq = rvq_np.ResidualVectorQuantizer(4, 4, 1, 8, kmeans_init=False, rng=0)
stage = rvq_np.Stage(x)
waiting = threading.Event()
real = np.abs
class Largest(np.ndarray):
    def max(self, *given):
        inside.set()
        waiting.wait(1)
        return np.asarray(self).max(*given)
vars(stage)["codebook"] = stage.codebook.view(Largest)
def busy():
    with rvq._turn:
        stage.largest
"""
    child = "rvq(x, 1); rvq.fit(x); rvq_np.Codebooks(x[None]).reach"
    assert run_python(FORKED.format(meanwhile=meanwhile, child=child)).strip() == "0"


def test_threads_that_train_one_quantizer_take_turns(monkeypatch):
    """Each step begins with what the one before left: none is lost."""
    from concurrent.futures import ThreadPoolExecutor

    from rvq_np import train

    rvq = rvq_np.ResidualVectorQuantizer(4, 4, 2, 8, kmeans_init=False, rng=0)
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    expected, steps, running, real = [rvq._states], [], [], train.learn

    def learn(states, *others, **named):
        running.append(states)
        time.sleep(0.01)  # others would come in meanwhile
        learned = real(states, *others, **named)
        steps.append(len(running) == 1 and tuple(states) == tuple(expected[-1]))
        expected.append(learned.states)
        running.pop()
        return learned

    monkeypatch.setattr(train, "learn", learn)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: rvq(x, 1), range(12)))
    assert steps == [True] * 12
    assert rvq._states == expected[-1]
    with ThreadPoolExecutor(2) as pool:
        fitted = pool.submit(rvq.fit, x)
        codes = [rvq.decode(rvq.encode(x, 1)) for _ in range(3)]  # need no turn
        fitted.result()
    assert len(codes) == 3


@pytest.mark.parametrize("call", ["fit", "load_state_dict"])
def test_what_replaces_codebooks_waits_for_a_step(call):
    from concurrent.futures import ThreadPoolExecutor

    rvq = rvq_np.ResidualVectorQuantizer(4, 4, 2, 8, kmeans_init=False, rng=0)
    given = {"fit": np.eye(16, 4, dtype=np.float32) + np.arange(16, dtype=np.float32)[:, None],
             "load_state_dict": rvq.state_dict()}[call]  # fmt: skip
    getattr(copy.copy(rvq), call)(given)  # whatever is loaded at a first call
    before = rvq.codebooks
    with ThreadPoolExecutor(1) as pool:
        with rvq._turn:
            done = pool.submit(getattr(rvq, call), given)
            time.sleep(0.3)
            assert not done.done()
            assert rvq.codebooks is before
        done.result()
    assert rvq.codebooks is not before


def test_many_python_threads_may_call_at_once():
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(1)
    x = rng.standard_normal((3000, 8)).astype(np.float32)
    books = rng.standard_normal((2, 32, 8)).astype(np.float32)
    codes = rvq_np.encode(x, books)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: rvq_np.encode(x, books), range(16)):
            np.testing.assert_array_equal(answer, codes)


def files_entered(call):
    """Return the files of the package that a warm call enters, function by function."""
    root, entered = str(PACKAGE), []

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            entered.append(frame.f_code.co_filename.removeprefix(root))

    for _ in range(3):
        call()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


def test_encoding_a_numpy_array_takes_one_way_through_few_files():
    """Facts about the array are found once and handed down: no way back up to ask again."""
    rng = np.random.default_rng(0)
    codebooks = rvq_np.Codebooks(rng.standard_normal((3, 16, 8)).astype(np.float32))
    x = rng.standard_normal((5, 8)).astype(np.float32)
    encode = rvq_np.encode
    entered = files_entered(lambda: encode(x, codebooks))
    assert len(set(entered)) <= 7
    assert sum(a != b for a, b in itertools.pairwise(entered)) <= 12


@pytest.mark.quick
def test_one_module_knows_the_names_of_a_state_dict():
    """`names`: whoever else needs one asks there. Docstrings may show them."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        shown = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if path.stem != "names" and isinstance(text, str) and id(node) not in shown:
                assert "vq.layers" not in text, f"{path.relative_to(PACKAGE)}: {text!r}"
                assert text not in ("cluster_size", "embed_avg", "inited") or (
                    path.parent.name == "checkpoints"  # of families that name fewer of them
                ), f"{path.relative_to(PACKAGE)}: {text!r}"


@pytest.mark.quick
def test_one_module_reads_safetensors():
    """`files.safetensors`: the library of that name writes, and nothing else is asked of it."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                ours = path.relative_to(PACKAGE).as_posix() == "files/safetensors.py"
                assert ours or node.module.partition(".")[0] != "safetensors"
                assert not ours or not node.module.startswith("safetensors") or (
                    [each.name for each in node.names] == ["save"]
                )  # fmt: skip


# Files that are not under a name that a user gave, or that are no new ones.
WRITE_ELSEWHERE = {
    "files/atomic.py",  # the one writer
    "bitstream/writer.py",  # append: in place
    "cli/folder.py",  # the journal of a folder: a line more
    # In a temporary folder.
    "kernels/ahead/emit.py", "kernels/ahead/linking.py", "cli/wheels.py", "cli/streams.py",
    "testing/containers.py",  # damaged files, in a folder of the test
}  # fmt: skip


def writes(call):
    """Whether a call creates or changes a file by its name, and not by way of `NewFile`."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "open" and ast.unparse(call.func) != "wave.open":  # of an open file
        modes = [each.value for each in call.args if isinstance(each, ast.Constant)]
        return any(set(str(mode)) & set("wax+") and len(str(mode)) < 4 for mode in modes)
    if name in ("write_bytes", "write_text", "tofile"):
        return True
    into = ast.unparse(call.args[0]) if call.args else ""
    return name in ("savefig", "save", "savez", "savetxt") and (
        ast.unparse(call.func).split(".")[0] in ("np", "figure") and into != "new.file"
    )


@pytest.mark.quick
def test_one_writer_of_files():
    """`files.atomic`: links, modes, pipes and what was there stay what they are."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and writes(node)
    }
    assert found == WRITE_ELSEWHERE
