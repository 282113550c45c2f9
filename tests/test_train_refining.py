"""`fit` refines where it may pay, and nowhere else; what judges is not what is learned from."""

import itertools
from importlib import import_module

import numpy as np
import pytest

import rvq_np
from rvq_np import Linear, cli, train
from rvq_np.train.data import Data
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
    assert (way.iterations, way.beam_size, way.rows_per_codeword) == (10, 4, 64)
    assert not way_of(True, [4] * 2, None, 100).greedy
    assert way_of(False, [256] * 8, None, 1 << 20) is None


def test_none_is_the_default_of_fit_and_of_the_class(sums):
    plain = train.fit(sums, 4, 16, 10, 0, refine=False)
    asked = train.fit(sums, 4, 16, 10, 0, refine=DEFAULT)
    assert train.fit(sums, 4, 16, 10, 0, refine=None) == asked != plain
    assert train.fit(sums, 4, 16, 10, 0) == asked
    rvq = rvq_np.ResidualVectorQuantizer(8, 8, 4, 16, kmeans_iters=10, rng=0)
    kept = rvq_np.ResidualVectorQuantizer(8, 8, 4, 16, kmeans_iters=10, rng=0)
    assert rvq.fit(sums).codebooks != kept.fit(sums, refine=False).codebooks


def seen_by(monkeypatch):
    """Return lists of the rows that k-means reads, that judge, and that are refitted to."""
    seen = {"cluster": [], "judge": [], "learn": []}
    begin, errors, tally = Data.begin, LocalRows.errors, LocalRows.tally

    def spy(name, method):
        def spied(self, *arguments):
            seen[name].append(self.rows)
            return method(self, *arguments)

        return spied

    monkeypatch.setattr(Data, "begin", spy("cluster", begin))
    monkeypatch.setattr(LocalRows, "errors", spy("judge", errors))
    monkeypatch.setattr(LocalRows, "tally", spy("learn", tally))
    return seen


@pytest.mark.parametrize("rows_per_codeword", [None, 240, 200])
def test_no_codebook_is_made_of_the_vectors_that_judge(sums, monkeypatch, rows_per_codeword):
    """All rows, 3,840 or 3,200 of 4,000 are for k-means, and 400 are held out."""
    seen = seen_by(monkeypatch)
    given = {"refine": {"iterations": 2, "rows_per_codeword": None}}
    train.fit(sums, 4, 16, 4, 0, rows_per_codeword=rows_per_codeword, **given)
    judge, cluster, learn = seen["judge"][0], seen["cluster"][0], seen["learn"][0]
    assert len(judge) == len(np.unique(judge)) == 400
    assert not np.isin(cluster, judge).any()
    np.testing.assert_array_equal(learn, np.setdiff1d(np.arange(4000), judge))
    rest = {None: 3600, 240: 3600, 200: 3200}[rows_per_codeword]
    assert len(cluster) == len(np.unique(cluster)) == rest
    drawn = train.sample_rows(4000, 3840, np.random.default_rng(0))
    if rows_per_codeword == 240:  # of those that k-means would take as few as must be
        assert np.isin(cluster, drawn).all()
        assert np.isin(np.setdiff1d(np.arange(4000), drawn), judge).all()


@pytest.mark.parametrize("rows_per_codeword", [None, 200])
def test_codebooks_that_are_not_taken_are_those_of_plain_fit_to_the_bit(
    sums, monkeypatch, rows_per_codeword
):
    monkeypatch.setattr(import_module("rvq_np.train.refine"), "SURE", np.inf)
    options = {"rows_per_codeword": rows_per_codeword}
    plain = train.fit(sums, 4, 16, 10, 0, refine=False, **options)
    assert train.fit(sums, 4, 16, 10, 0, **options) == plain
    stages = []
    train.fit(sums, 4, 16, 10, 0, callback=lambda info: stages.append(info.stage), **options)
    once_more = sum(one > other for one, other in itertools.pairwise(stages))
    assert once_more == (rows_per_codeword is None)


def test_a_memory_map_blocks_and_threads_give_what_is_refined_by_default(
    sums, tmp_path, monkeypatch
):
    expected = train.fit(sums, 4, 16, 10, 0)
    np.save(tmp_path / "x.npy", sums)
    assert train.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), 4, 16, 10, 0) == expected
    monkeypatch.setattr("rvq_np.train.rows.ROWS", 97)
    monkeypatch.setattr("rvq_np.train.data.ROWS", 333)
    monkeypatch.setenv("RVQ_NP_NUM_THREADS", "1")
    assert train.fit(sums, 4, 16, 10, 0) == expected


def test_a_fit_interrupted_where_what_is_not_taken_is_made_again_goes_on(
    sums, tmp_path, monkeypatch
):
    monkeypatch.setattr(import_module("rvq_np.train.refine"), "SURE", np.inf)
    path, plain = tmp_path / "fit.safetensors", train.fit(sums, 4, 16, 5, 3, refine=False)
    stages = []

    def stop(info):
        stages.append(info.stage)
        if stages[-2:] == [3, 0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(sums, 4, 16, 5, 3, checkpoint=path, callback=stop)
    assert train.fit(sums, 4, 16, 5, 3, checkpoint=path) == plain
    assert not path.exists()


@pytest.mark.parametrize(
    ("total", "taken", "per"), [(400, None, 20), (400, 390, 20), (400, 200, 20), (400, 200, 2)]
)
def test_rows_are_parted_once_and_ascend(total, taken, per):
    """A tenth of those in use is held out, and of all others some are refitted to."""
    rng = np.random.default_rng(1)
    rows = None if taken is None else np.sort(train.sample_rows(total, taken, rng))
    way = way_of({"rows_per_codeword": per}, [10] * 2, None, total)
    found = refining.parts(total, rows, 20, way, rng)
    used = min(total, 20 * per)
    assert len(found.judge) == used // 10
    assert len(found.learn) == used - used // 10
    for each in (found.judge, found.learn):
        assert (np.diff(each) > 0).all()
        assert 0 <= each[0] <= each[-1] < total
    assert not np.isin(found.learn, found.judge).any()
    if taken == 200:
        assert found.cluster is rows
        assert not np.isin(found.judge, rows).any()


def test_the_command_refines_where_it_may_pay_unless_told_not_to(sums, tmp_path):
    np.save(tmp_path / "x.npy", sums)
    line = ["fit", str(tmp_path / "x.npy"), "--n-q", "4", "--bins", "16", "--iterations", "5"]
    for more, refine in (([], None), (["--no-refine"], False)):
        path = str(tmp_path / "m.safetensors")
        assert cli.main([*line, "-o", path, *more]) == 0
        made = rvq_np.ResidualVectorQuantizer(8, None, 4, 16, kmeans_iters=5, rng=0)
        assert rvq_np.ResidualVectorQuantizer.load(path).codebooks == (
            made.fit(sums, refine=refine).codebooks
        )


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
