"""Stage and Codebooks: frozen values, checked when made."""

import copy
import pickle

import numpy as np
import pytest

import rvq_np
from rvq_np import Codebooks, Linear, Stage
from rvq_np.backends import numpy as numpy_backend
from rvq_np.errors import DtypeError, LevelsError, NonFiniteError, ShapeError

pytestmark = pytest.mark.quick


@pytest.fixture
def codewords(rng):
    return rng.standard_normal((3, 5, 4)).astype(np.float32)


def test_what_it_says_of_itself(codewords):
    books = Codebooks(codewords)
    assert (books.n_q, len(books), books.dim, books.sizes) == (3, 3, 4, (5, 5, 5))
    assert books.dtype == np.float32
    assert repr(books) == "Codebooks(3 stages, 5 codewords of 4)"
    assert (
        repr(Codebooks([codewords[0], codewords[1][:2]]))
        == "Codebooks(2 stages, 2 to 5 codewords of 4)"
    )
    assert [stage.size for stage in books] == [5, 5, 5]


def test_the_callers_array_stays_the_callers(codewords):
    books = Codebooks(codewords)
    before = rvq_np.encode(codewords[0], books)
    codewords[:] = 0
    np.testing.assert_array_equal(rvq_np.encode(books.stages[0].codebook, books), before)
    with pytest.raises(ValueError, match="read-only"):
        books.stages[0].codebook[0, 0] = 1
    with pytest.raises(AttributeError):
        books.stages[0].codebook = codewords[0]


def test_sizes_may_differ_from_stage_to_stage(rng):
    books = Codebooks([rng.standard_normal((k, 3)) for k in (2, 7, 1)])
    x = rng.standard_normal((50, 3))
    codes = rvq_np.encode(x, books)
    assert (codes.max(axis=1) < [2, 7, 1]).all()
    assert rvq_np.decode(codes, books).shape == (50, 3)


def test_slices_are_quantizers_of_those_stages(codewords, rng):
    books = Codebooks(codewords)
    x = rng.standard_normal((20, 4)).astype(np.float32)
    codes = rvq_np.encode(x, books)
    np.testing.assert_array_equal(rvq_np.encode(x, books[:2]), codes[:2])
    left = x - rvq_np.decode(codes[:1], books)
    np.testing.assert_array_equal(rvq_np.encode(left, books[1:]), codes[1:])
    assert books[:] is books
    assert books[:2] is books[:2]  # so that its prepared tables are kept
    assert books[1] is books.stages[1]
    with pytest.raises(LevelsError, match=r"leaves none of the 3 stages"):
        books[3:]


def test_the_fingerprint_tells_codebooks_apart(codewords):
    fingerprint = Codebooks(codewords).fingerprint
    assert fingerprint == Codebooks(codewords.copy()).fingerprint
    assert len(fingerprint) == 64
    other = codewords.copy()
    other[2, 4, 3] = np.nextafter(other[2, 4, 3], np.float32(9))
    pair = Linear(np.eye(4), np.zeros(4))
    different = [
        Codebooks(other), Codebooks(codewords[:2]), Codebooks(codewords.astype(np.float64)),
        Codebooks([Stage(each, pair, pair) for each in codewords]),
    ]  # fmt: skip
    assert len({fingerprint, *(each.fingerprint for each in different)}) == 5


def test_the_fingerprint_of_given_codewords_never_changes():
    codewords = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    assert Codebooks(codewords).fingerprint == (
        "42fb475e78f93956e789fd82a5513cc6b1aaf460639ac14aa17f6cb5e287a5d3"
    )


def test_tables_are_prepared_once_for_each_kind_of_array(codewords, monkeypatch):
    made = []
    real = numpy_backend.prepare
    monkeypatch.setattr(
        numpy_backend, "prepare", lambda *args: made.append(args[1].dtype) or real(*args)
    )
    books = Codebooks(codewords)
    for dtype in (np.float32, np.float64, np.float32):
        rvq_np.encode(np.ones((1, 4), dtype), books)
    assert made == [np.float32, np.float64]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_the_same_value(codewords, duplicate):
    books = Codebooks(codewords)
    rvq_np.encode(codewords[0], books)  # prepared tables must not be in the way
    again = duplicate(books)
    assert again.fingerprint == books.fingerprint
    assert again.sizes == books.sizes


def test_what_is_refused(codewords):
    with pytest.raises(
        ShapeError, match=r"Codebooks: got an array of shape \(5, 4\); expected \(Q,"
    ):
        Codebooks(codewords[0])
    with pytest.raises(ShapeError, match="Codebooks: got a int; expected an array"):
        Codebooks(7)
    with pytest.raises(ShapeError, match="Codebooks: got no stage"):
        Codebooks([])
    with pytest.raises(ShapeError, match=r"quantize vectors of lengths \[3, 4\]; expected one"):
        Codebooks([codewords[0], codewords[1][:, :3]])
    with pytest.raises(DtypeError, match="Stage: codebook has dtype int64; expected float16"):
        Stage(np.ones((2, 2), int))
    with pytest.raises(ShapeError, match=r"Stage: codebook has shape \(0, 4\); expected \(K, D\)"):
        Stage(np.ones((0, 4)))
    codewords[1, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"Stage: codebook holds nan at \(2, 3\)"):
        Codebooks(codewords)
    pair = Linear(np.ones((4, 6)), np.zeros(4))
    with pytest.raises(ShapeError, match="one of project_in and project_out is missing"):
        Stage(codewords[0], pair)
    with pytest.raises(ShapeError, match=r"project_in.weight has shape \(4, 6\) and project_out"):
        Stage(codewords[0], pair, pair)
    with pytest.raises(ShapeError, match=r"Linear: bias has length 3, weight has shape \(4, 6\)"):
        Linear(np.ones((4, 6)), np.zeros(3))
