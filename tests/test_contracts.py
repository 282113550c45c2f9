"""Contracts are Protocols: what is in the package has all that they list; no more is asked.

The second is what mypy proves of the functions that take a `Quantizer` or an `Engine`.
"""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import backends, checkpoints
from rvq_np.backends import _array_api
from rvq_np.backends import numpy as host
from rvq_np.checkpoints import _contract
from rvq_np.codebooks import Quantizer

pytestmark = pytest.mark.quick
PACKAGE = Path(rvq_np.__file__).parent
X = np.float32([[1, 2], [3, 4]])


def members(protocol):
    """Return what a Protocol lists, methods with their parameters, attributes with None."""
    found = dict.fromkeys(getattr(protocol, "__annotations__", {}))
    for base in protocol.__mro__[:-1]:
        for name, value in vars(base).items():
            if inspect.isfunction(value) and not name.startswith("__"):
                found[name] = list(inspect.signature(value).parameters)[1:]
            elif isinstance(value, property):
                found[name] = None
    return {name: value for name, value in found.items() if not name.startswith("_")}


@pytest.mark.parametrize("engine", [host, _array_api], ids=["numpy", "array API"])
def test_an_engine_has_what_its_contract_lists(engine):
    listed = members(backends.Engine) | members(backends.Home)
    assert {"STAYS", "ENGINE", "enter", "extent_later", "prepare", "encode", "decode", "tally",
            "prepare_map", "project"} == set(listed)  # fmt: skip
    for name, parameters in listed.items():
        value = getattr(engine, name)
        if parameters is not None:
            inspect.signature(value).bind(*parameters)  # raises if these are not what it takes


def test_the_engine_on_a_gpu_has_what_its_contract_lists():
    """Read, as importing it needs CuPy."""
    tree = ast.parse((PACKAGE / "kernels" / "cuda" / "driver.py").read_text())
    functions = {
        each.name: [given.arg for given in each.args.args]
        for each in tree.body
        if isinstance(each, ast.FunctionDef)
    }
    listed = members(backends.TrainingEngine)
    assert {"assign", "add_up", "walk", "searched", "residual"} < set(listed)
    assert {name: functions.get(name) for name in listed if name != "STAYS"} == {
        name: parameters for name, parameters in listed.items() if name != "STAYS"
    }


@pytest.mark.parametrize(
    "quantizer",
    [
        rvq_np.Codebooks(np.ones((2, 3, 2), np.float32)),
        rvq_np.Parallel([np.ones((2, 3, 2), np.float32)]),
        rvq_np.Normalized([np.ones((1, 3, 2), np.float32)]),
        rvq_np.Grouped([np.ones((1, 3, 1), np.float32), np.ones((1, 4, 1), np.float32)]),
        rvq_np.Projected(
            np.ones((2, 3, 1), np.float32),
            rvq_np.Linear(np.ones((1, 2), np.float32), np.zeros(1)),
            rvq_np.Linear(np.ones((2, 1), np.float32), np.zeros(2)),
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_quantizer_has_what_its_contract_lists(quantizer):
    listed = members(Quantizer)
    assert {"n_q", "dim", "stages", "sizes", "strides", "block", "dtype", "fingerprint",
            "fingerprints", "limit"} == set(listed)  # fmt: skip
    for name in listed:
        assert getattr(quantizer, name) is not None
    assert len(quantizer) == quantizer.n_q == len(list(quantizer)) == len(quantizer.stages)
    assert quantizer[0] == quantizer.stages[0]
    assert quantizer[:1].n_q == 1


class Asked:
    """A quantizer that notes what it is asked for."""

    def __init__(self, quantizer):
        self.quantizer, self.names = quantizer, set()

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.quantizer, name)


def test_checks_ask_a_quantizer_for_what_is_listed_only():
    from rvq_np.codec import validation

    asked = Asked(rvq_np.Codebooks(np.ones((2, 3, 2), np.float32)))
    validation.vectors("encode", X, asked)
    validation.codes("decode", np.zeros((2, 2), np.int32), asked)
    assert asked.names
    assert asked.names <= set(members(Quantizer))


@pytest.mark.parametrize("name", checkpoints.families())
def test_a_family_has_what_its_contract_lists(name):
    module = checkpoints._module(name)
    optional = [_contract.NamedFamily, _contract.Exporter, _contract.OfVectors, _contract.Beside,
                _contract.Configured]  # fmt: skip
    whole = _contract.Family
    for one in (_contract.BinaryFamily, _contract.FamilyOfParts):
        whole = one if isinstance(module, one) else whole
    for contract in (whole, *optional):
        for member, parameters in members(contract).items():
            value = getattr(module, member, None)
            if contract in optional and value is None:
                continue
            assert value is not None, member
            if parameters is not None:
                assert list(inspect.signature(value).parameters) == parameters


def test_nothing_of_a_contract_is_found_by_its_name():
    """`hasattr` and `getattr` are for arrays of other libraries and for the system."""
    theirs = {
        # arrays and numbers
        "__array_namespace__", "__float__", "__index__", "__len__", "detach", "device", "dtype",
        "float64", "is_meta", "isdtype", "kind", "mask", "nbytes", "ndim", "shape", "use",
            "working",
        # columns of tables
        "combine_chunks", "null_count", "list_size", "offsets", "to_arrow", "to_dask_array",
        "to_numpy", "to_pylist", "value_type",
        # streams
        "buffer", "encoding", "errors", "fileno", "read", "reconfigure", "write",
        # the system
        "O_BINARY", "chown", "getuid", "posix_fallocate", "register_at_fork", "sched_getaffinity",
        # Numba
        "_cache", "_cache_file", "_source_stamp", "global_compiler_lock", "load_overload", "lock",
    }  # fmt: skip
    for path in PACKAGE.rglob("*.py"):
        for given in re.findall(r'\b(?:hasattr|getattr)\([^,()]+, "(\w+)"', path.read_text()):
            assert given in theirs, f"{path.relative_to(PACKAGE)}: {given}"
