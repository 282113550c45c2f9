"""What tab completion shows of public modules: public names, and nothing they are made with."""

from importlib import import_module
from types import FunctionType, ModuleType

import pytest

import rvq_np

MODULES = (
    "backends", "bitstream", "checkpoints", "cli", "codebooks", "codec", "demo", "errors",
    "export", "frontend", "grad", "plot", "quantizer", "semantic_ids", "sklearn", "testing",
    "train",
)  # fmt: skip
# Of those that need a library that is not with the tests: tests/peers/test_public.py.
OPTIONAL = {"sklearn"}


def checked(module):
    names = dir(module)
    listed = set(module.__all__)
    assert listed <= set(names)
    assert sorted(set(names)) == names
    for name in names:
        value = getattr(module, name)
        if name == "__version__":
            continue
        assert not name.startswith("_"), name
        if isinstance(value, ModuleType):
            assert value.__name__ == f"{module.__name__}.{name}"
        elif isinstance(value, (type, FunctionType)):
            assert value.__module__.partition(".")[0] == "rvq_np", f"{name} of {value.__module__}"
    space = {}
    exec(f"from {module.__name__} import *", space)
    assert set(space) - {"__builtins__"} == listed


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(set(MODULES) - OPTIONAL))
def test_dir_of_a_public_module_has_public_names_only(name):
    checked(import_module(f"rvq_np.{name}"))


@pytest.mark.quick
def test_dir_of_the_package_has_what_users_call():
    names = set(dir(rvq_np))
    assert names == {*rvq_np.__all__, *MODULES}
    for name in set(names) - OPTIONAL:
        assert getattr(rvq_np, name) is not None
    for name in ("arrays", "config", "display", "kernels"):  # are there, and not shown
        assert getattr(rvq_np, name).__name__ == f"rvq_np.{name}"
