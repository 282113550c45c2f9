"""What compiled code names by number: the object itself or an error, never another object."""

import gc

import numpy as np
import pytest
import torch
from helpers import shim

import rvq_np
from rvq_np import train
from rvq_np.errors import BackendError
from rvq_np.grad import _operation, _references


def quantizer():
    rvq = shim.trained().eval()
    spec = _operation.Spec(rvq.config, 50.0, quantizer=_references.number_of(rvq))
    make = lambda: object.__new__(rvq_np.ResidualVectorQuantizer)  # noqa: E731
    return rvq, spec, (torch.ones(3, 6), None, (3,), None, []), make


def all_reduce():
    rvq = shim.trained()
    make = lambda: train.AllReduce(lambda buffer: buffer, 0, 1)  # noqa: E731
    hook = make()
    spec = _operation.Spec(rvq.config, 50.0, training=True, all_reduce=_references.number_of(hook))
    arrays = list(rvq.state_dict().values())
    return hook, spec, (np.ones((3, 6), np.float32), None, (3,), np.array([1, 2]), arrays), make


@pytest.mark.parametrize("case", [quantizer, all_reduce])
def test_what_was_compiled_for_a_dead_object_does_not_use_a_new_one(case, monkeypatch):
    monkeypatch.setattr(_references, "id", lambda _: 7, raising=False)  # all lie at the same place
    thing, spec, given, make = case()
    number = spec.quantizer or spec.all_reduce
    assert _references.number_of(thing) == number
    assert _operation.run(spec, *given)[0].shape == (3, 3)
    del thing
    gc.collect()
    other = make()
    assert _references.number_of(other) != number
    with pytest.raises(BackendError, match="is gone"):
        _operation.run(spec, *given)
