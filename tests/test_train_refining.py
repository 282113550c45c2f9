"""`fit(refine=None)` refines where it may pay, and nowhere else; `fit` by default not at all."""

from importlib import import_module

import numpy as np
import pytest

import rvq_np
from rvq_np import Linear, train
from rvq_np.train.refining import DEFAULT, way_of
from rvq_np.train.rows import LocalRows

refining = import_module("rvq_np.train.refining")


@pytest.fixture
def sums(monkeypatch):
    """Sums of three parts, and noise: of these, 4000 vectors tell enough."""
    monkeypatch.setattr(refining, "LEAST", 1000)
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((12, 8)) * scale for scale in (2.0, 1.0, 0.6)]
    x = sum(part[rng.integers(0, 12, 4000)] for part in parts)
    return (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32)


PAIR = (Linear(np.eye(2), np.zeros(2)), Linear(np.eye(2), np.zeros(2)))


@pytest.mark.parametrize(
    ("sizes", "projections", "rows"),
    [
        ([256] * 8, None, 32 * 2048 - 1),  # too few for each codeword
        ([4] * 2, None, 8191),  # too few at all
        ([256], None, 1 << 20),  # one stage: k-means has done all there is to do
        ([4096, 1], None, 1 << 20),  # equations of too many codewords
        ([4] * 2, [None, PAIR], 1 << 20),
        ([4] * 2, None, 0),  # what `fit` says of a warm start
    ],
)
def test_nothing_is_refined_where_it_does_not_pay(sizes, projections, rows):
    assert way_of(None, sizes, projections, rows) is None


def test_it_is_refined_where_it_may_pay():
    way = way_of(None, [256] * 8, None, 32 * 2048)
    assert way.greedy
    assert (way.iterations, way.rows_per_codeword) == (10, 64)
    assert not way_of(True, [4] * 2, None, 100).greedy
    assert way_of(False, [256] * 8, None, 1 << 20) is None


def test_none_is_where_it_may_pay_and_not_the_default_of_fit_and_of_the_class(sums):
    plain = train.fit(sums, 4, 16, 10, 0, refine=False)
    asked = train.fit(sums, 4, 16, 10, 0, refine=DEFAULT)
    assert train.fit(sums, 4, 16, 10, 0, refine=None) == asked != plain
    assert train.fit(sums, 4, 16, 10, 0) == plain
    rvq = rvq_np.ResidualVectorQuantizer(8, 8, 4, 16, kmeans_iters=10, rng=0)
    kept = rvq_np.ResidualVectorQuantizer(8, 8, 4, 16, kmeans_iters=10, rng=0)
    assert rvq.fit(sums, refine=None).codebooks != kept.fit(sums).codebooks


def test_a_warm_start_is_not_refined_with_none(sums):
    first = train.codebooks_of(train.fit(sums, 4, 16, 10, 0, refine=False))
    given = {"start": first, "freeze": [0]}
    assert train.fit(sums, 4, 16, 5, 0, refine=None, **given) == train.fit(
        sums, 4, 16, 5, 0, refine=False, **given
    )


def test_codebooks_whose_greedy_codes_are_worse_are_not_taken_with_none(sums, monkeypatch):
    errors = LocalRows.errors
    given = []

    def worse(self, codebooks, beam):
        found = errors(self, codebooks, beam)
        given.append(codebooks)
        if beam > 1 or codebooks is given[0]:
            return found
        return found._replace(mean=(*found.mean[:-1], 2 * found.mean[-1]))

    monkeypatch.setattr(LocalRows, "errors", worse)
    plain = train.fit(sums, 4, 16, 10, 0, refine=False)
    assert train.fit(sums, 4, 16, 10, 0, refine=None) == plain
    assert train.fit(sums, 4, 16, 10, 0, refine=DEFAULT) != plain


def test_prefixes_are_no_worse_than_without_refinement(sums):
    """By the default weights; held out, by codes of a beam search."""
    rows, held_out = sums[:3200], sums[3200:]

    def errors(refine):
        books = train.codebooks_of(train.fit(rows, 4, 16, 20, 0, refine=refine))
        codes = rvq_np.encode(held_out, books, beam_size=8)
        return [
            float(np.square(held_out - rvq_np.decode(codes[:n], books)).mean())
            for n in (1, 2, 3, 4)
        ]

    plain, refined = errors(False), errors(None)
    assert refined[3] < 0.98 * plain[3]
    for ours, theirs in zip(refined, plain, strict=True):
        assert ours <= 1.01 * theirs
