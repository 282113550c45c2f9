"""Joint refinement: exact statistics, the refit written out as least squares, what must not be."""

import math
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Linear, Stage, TooFewVectorsWarning, codec, train
from rvq_np.errors import NonFiniteError, ParameterError, ShapeError
from rvq_np.train.rows import LocalRows, rows_of

refining = import_module("rvq_np.train.refine")


def problem(seed, rows=60, sizes=(3, 4, 2), dim=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim)).astype(np.float32)
    books = Codebooks(
        [Stage(rng.standard_normal((size, dim)).astype(np.float32)) for size in sizes]
    )
    codes = np.stack([rng.integers(0, size, rows) for size in sizes]).astype(np.int32)
    return x, books, codes


def clustered(rows, seed, dim=8):
    """Vectors (rows, dim) that a few hundred codewords in four stages describe well, not fully."""
    rng = np.random.default_rng(5)
    parts = [rng.standard_normal((12, dim)) * scale for scale in (2.0, 1.0, 0.6)]
    own = np.random.default_rng(seed)
    x = sum(part[own.integers(0, 12, rows)] for part in parts)
    return (x + 0.2 * own.standard_normal((rows, dim))).astype(np.float32)


def error(x, books, beam=8, n=None):
    codes = codec.encode(x, books, beam_size=beam)[:n]
    return float(np.square(x - codec.decode(codes, books).astype(np.float64)).mean())


def chosen(codes, sizes):
    """The matrix of zeros and ones (N, M) that says which codewords each row chose."""
    starts = np.cumsum([0, *sizes])
    found = np.zeros((codes.shape[1], starts[-1]))
    for q, row in enumerate(codes):
        found[np.arange(len(row)), starts[q] + row] = 1
    return found


def test_a_joint_tally_is_the_matrix_of_the_normal_equations():
    x, books, codes = problem(0)
    tally = train.joint_tally(x, codes, books, reach=10)
    a = chosen(codes, books.sizes)
    np.testing.assert_array_equal(tally.pairs, np.triu(a.T @ a))
    np.testing.assert_allclose(tally.sums, a.T @ x.astype(np.float64), rtol=0, atol=1e-5)
    assert tally.rows == 60
    np.testing.assert_array_equal(tally.counts, a.sum(axis=0))


@given(st.integers(0, 2**32 - 1), st.data())
def test_any_split_and_any_order_of_adding_gives_the_same_bits(seed, data):
    x, books, codes = problem(seed)
    x *= np.float32(2.0) ** np.random.default_rng(seed).integers(-20, 20, x.shape).astype(
        np.float32
    )
    reach = float(np.abs(x).max())
    order = data.draw(st.permutations(range(60)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=5)))
    parts = [
        train.joint_tally(x[part], codes[:, part], books, reach=reach)
        for part in np.split(np.array(order), cuts)
    ]
    parts = data.draw(st.permutations(parts))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert total == train.joint_tally(x, codes, books, reach=reach)


def test_sums_are_exact_on_the_grid():
    """Not what a float64 sum happens to be: the sum of the rounded numbers, by integers."""
    x, books, codes = problem(1, rows=200)
    x *= np.float32(2.0) ** np.random.default_rng(1).integers(-30, 1, x.shape).astype(np.float32)
    tally = train.joint_tally(x, codes, books, reach=4, capacity=1 << 20)
    assert tally.grid == 2.0 ** (3 + 20 - 53)
    whole = [[round(float(each) / tally.grid) for each in row] for row in x]
    for k in range(3):
        for d in range(3):
            exact = sum(row[d] for row, code in zip(whole, codes[0], strict=True) if code == k)
            assert tally.sums[k, d] == math.ldexp(exact, -30)


@pytest.mark.parametrize("prefixes", [0.0, 0.3, [0.5, 0.1]])
def test_a_refit_solves_the_least_squares_problem_it_states(prefixes):
    x, books, codes = problem(2)
    ridge = 0.7
    made = train.refit(
        train.joint_tally(x, codes, books, reach=10), books, ridge=ridge, prefixes=prefixes
    )
    old = np.concatenate([stage.codebook for stage in books])
    a, starts = chosen(codes, books.sizes), np.cumsum([0, *books.sizes])
    weights = [*np.broadcast_to(prefixes, 2), 1.0]
    left, right = [math.sqrt(ridge) * np.eye(len(old))], [math.sqrt(ridge) * old]
    for n, weight in enumerate(weights, start=1):
        left.append(math.sqrt(weight) * np.where(np.arange(starts[-1]) < starts[n], a, 0))
        right.append(math.sqrt(weight) * x)
    expected = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]
    found = np.concatenate([stage.codebook for stage in made])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert not np.allclose(found, old, atol=0.05)


def test_a_refit_leaves_codewords_alone_that_no_row_chose():
    x, books, codes = problem(3)
    codes[1][codes[1] == 2] = 0
    made = train.refit(train.joint_tally(x, codes, books, reach=10), books)
    np.testing.assert_array_equal(made[1].codebook[2], books[1].codebook[2])


def test_a_refit_never_raises_the_error_of_the_rows_it_saw():
    for seed in range(20):
        x, books, codes = problem(seed)
        made = train.refit(train.joint_tally(x, codes, books, reach=10), books, ridge=5.0)

        def squared(some, x=x, codes=codes):
            return np.square(x - codec.decode(codes, some).astype(np.float64)).sum()

        assert squared(made) <= squared(books) * (1 + 1e-6)


def test_refinement_is_better_where_it_was_not_fitted():
    x, new = clustered(4000, 0), clustered(2000, 1)
    plain = train.codebooks_of(train.fit(x, 4, 16, 20, 0))
    better = train.refine(x, plain)
    assert error(new, better) < 0.97 * error(new, plain)
    for n in (1, 2, 3):  # prefixes keep what they are for
        assert error(new, better, n=n) < 1.05 * error(new, plain, n=n)


def test_more_weight_makes_better_prefixes():
    x, new = clustered(4000, 0), clustered(2000, 1)
    plain = train.codebooks_of(train.fit(x, 4, 16, 20, 0))
    none, much = (train.refine(x, plain, prefixes=each, iterations=8) for each in (0.0, 1.0))
    for n in (1, 2, 3):
        assert error(new, much, n=n) < error(new, none, n=n)


def test_codebooks_are_returned_as_they_were_where_others_are_not_better():
    """As many codewords as rows: any refit fits its rows and no others."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((130, 16)).astype(np.float32)
    books = train.codebooks_of(train.fit(x, 2, 32, 10, 0))
    seen = []
    found = train.refine(x, books, callback=seen.append)
    assert found is books
    # Noise until iteration 32 of 40, and then three without a smaller error.
    assert [each.iteration for each in seen] == list(range(36))
    assert [each.best for each in seen[-3:]] == [False, False, False]


def test_an_error_that_few_rows_show_by_chance_is_no_reason_to_change():
    apart = np.random.default_rng(0).standard_normal(400)
    assert refining._surely_less(np.zeros(400), apart + 0.15)
    assert not refining._surely_less(np.zeros(400), apart + 0.08)
    assert not refining._surely_less(np.zeros(400), np.zeros(400))
    assert not refining._surely_less(np.zeros(400), apart - 1)


def test_codebooks_that_are_not_surely_better_are_not_returned(monkeypatch):
    x = clustered(1500, 0)
    books = train.codebooks_of(train.fit(x, 3, 8, 10, 0))
    assert train.refine(x, books, iterations=3) != books
    monkeypatch.setattr(refining, "SURE", np.inf)
    seen = []
    assert train.refine(x, books, iterations=3, callback=seen.append) is books
    assert any(each.best for each in seen[1:])


def test_codewords_go_half_as_far_again_as_the_refit_says(monkeypatch):
    """To 1.5 and 11.5, from 0 and 10, where all vectors are at 1 and 11."""
    monkeypatch.setattr(refining, "NOISE", 0.0)
    x = np.tile(np.float32([[1], [11]]), (500, 1))
    found = train.refine(x, np.float32([[[0], [10]]]), iterations=1, ridge=1e-6)
    assert found[0].codebook.ravel() == pytest.approx([1.5, 11.5], rel=1e-6)


def test_what_is_returned_has_the_smallest_held_out_error_reported():
    x = clustered(1500, 0)
    books = train.codebooks_of(train.fit(x, 4, 16, 20, 0))
    seen = []
    found = train.refine(x, books, callback=seen.append, rng=3)
    least = min(seen, key=lambda each: each.error)
    assert [each.best for each in seen if each.error == least.error] == [True]
    held_out = x[np.random.default_rng(3).permutation(1500)[:150]]
    assert error(held_out, found) == pytest.approx(least.error, rel=1e-5)
    for n, each in enumerate(least.prefixes, start=1):
        assert error(held_out, found, n=n) == pytest.approx(each, rel=1e-5)
    assert least.prefixes[-1] == least.error
    assert [each.iteration for each in seen] == list(range(len(seen)))


def test_too_few_vectors_are_not_refined_and_both_numbers_are_named():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((70, 4)).astype(np.float32)
    books = Codebooks(rng.standard_normal((2, 32, 4)).astype(np.float32))
    with pytest.warns(TooFewVectorsWarning, match=r"refine: there are 63 vectors to refit 64 code"):
        assert train.refine(x, books) is books
    with pytest.warns(TooFewVectorsWarning, match=r"fit: there are 63 .* not refined"):
        states = train.fit(x, 2, 32, 3, 0, refine=True)
    for one, other in zip(states, train.fit(x, 2, 32, 3, 0), strict=True):
        assert one == other


def test_block_sizes_and_threads_do_not_show(monkeypatch):
    x = clustered(1500, 0)
    books = train.codebooks_of(train.fit(x, 3, 8, 10, 0))
    whole = train.refine(x, books, iterations=3)
    monkeypatch.setattr("rvq_np.train.rows.ROWS", 97)
    monkeypatch.setenv("RVQ_NP_NUM_THREADS", "1")
    assert train.refine(x, books, iterations=3) == whole


def test_a_memory_map_is_read_and_checked_as_an_array_is(tmp_path):
    x = clustered(1500, 0)
    np.save(tmp_path / "x.npy", x)
    books = train.codebooks_of(train.fit(x, 3, 8, 10, 0))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert train.refine(mapped, books, iterations=2) == train.refine(x, books, iterations=2)
    x[1203, 5] = np.nan
    np.save(tmp_path / "bad.npy", x)
    for bad in (x, np.load(tmp_path / "bad.npy", mmap_mode="r")):
        with pytest.raises(NonFiniteError, match=r"refine: x holds nan at \(1203, 5\)"):
            train.refine(bad, books)


def test_only_so_many_rows_per_codeword_are_used():
    x = clustered(3000, 0)
    books = train.codebooks_of(train.fit(x, 2, 8, 5, 0))
    looked = []
    tally = LocalRows.tally

    def spied(self, *arguments):
        looked.append(len(self.rows))
        return tally(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalRows, "tally", spied)
        train.refine(x, books, iterations=1, rows_per_codeword=10)
        train.refine(x, books, iterations=1, rows_per_codeword=None)
    assert looked == [144, 2700]  # nine tenths of 10 * 16, and of all


def test_kmeans_in_fit_is_the_same_with_and_without_refinement():
    x = clustered(3000, 0)
    plain = train.fit(x, 3, 8, 10, 4, rows_per_codeword=200)
    asked = train.fit(x, 3, 8, 10, 4, rows_per_codeword=200, refine={"iterations": 0})
    assert list(asked) == list(plain)


def test_fit_refines_and_its_states_train_on():
    x, new = clustered(4000, 0), clustered(2000, 1)
    plain = train.codebooks_of(train.fit(x, 4, 16, 20, 0))
    states = train.fit(x, 4, 16, 20, 0, refine=True)
    books = train.codebooks_of(states)
    assert error(new, books) < 0.97 * error(new, plain)
    codes = codec.encode(x, books)
    for q, state in enumerate(states):
        counts = np.bincount(codes[q], minlength=16)
        np.testing.assert_array_equal(state.counts, np.maximum(counts, 1))
        still = train.ema(state, state.counts, state.sums, decay=0.5)
        np.testing.assert_allclose(still.codebook, state.codebook, rtol=1e-5, atol=1e-6)


def test_rows_that_kmeans_did_not_see_are_held_out(monkeypatch):
    x = clustered(2000, 0)
    held, errors = [], LocalRows.errors
    monkeypatch.setattr(
        LocalRows, "errors",
        lambda self, books, beam: held.append(self.rows) or errors(self, books, beam),
    )  # fmt: skip
    drawn = train.sample_rows(2000, 800, np.random.default_rng(6))
    train.fit(x, 2, 8, 3, np.random.default_rng(6), rows_per_codeword=100,
              refine={"iterations": 0, "rows_per_codeword": None})  # fmt: skip
    assert len(held[0]) == 200
    assert not np.isin(held[0], drawn).any()


def test_a_fit_interrupted_while_it_refines_goes_on_to_the_same_codewords(tmp_path, monkeypatch):
    x, path = clustered(1500, 0), tmp_path / "fit.safetensors"
    whole = train.fit(x, 3, 8, 5, np.random.default_rng(3), refine={"iterations": 4})
    tally = LocalRows.tally

    def dies(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalRows, "tally", dies)
    with pytest.raises(KeyboardInterrupt):
        train.fit(x, 3, 8, 5, np.random.default_rng(3), refine={"iterations": 4}, checkpoint=path)
    assert path.exists()
    monkeypatch.setattr(LocalRows, "tally", tally)
    again = train.fit(
        x, 3, 8, 5, np.random.default_rng(3), refine={"iterations": 4}, checkpoint=path
    )
    assert list(again) == list(whole)
    assert not path.exists()


def test_an_interrupted_refinement_leaves_the_quantizer_as_it_was():
    x = clustered(1500, 0)
    rvq = rvq_np.ResidualVectorQuantizer(8, 8, n_q=3, bins=8, rng=0)
    before = rvq.codebooks

    def stop(info):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rvq.fit(x, refine={"callback": stop})
    assert rvq.codebooks is before
    rvq.fit(x, refine=True)
    other = rvq_np.ResidualVectorQuantizer(8, 8, n_q=3, bins=8, rng=0).fit(x)
    assert error(clustered(900, 2), rvq.codebooks) < error(clustered(900, 2), other.codebooks)


def test_bad_arguments_are_named():
    x, books, codes = problem(0)
    tally = train.joint_tally(x, codes, books, reach=10)

    def refused(message, call, error=ParameterError):
        with pytest.raises(error, match=message):
            call()

    refused(r"refine: ridge is -1.*>= 1e-06", lambda: train.refine(x, books, ridge=-1))
    refused(r"refit: ridge is 0", lambda: train.refit(tally, books, ridge=0))
    for share in (0, 1, 0.0):
        refused(
            r"refine: held_out is .*above 0 and below 1",
            lambda share=share: train.refine(x, books, held_out=share),
        )
    refused(r"refine: held_out is -0.1", lambda: train.refine(x, books, held_out=-0.1))
    refused(r"refine: patience is 0", lambda: train.refine(x, books, patience=0))
    refused(r"refine: beam_size is 0", lambda: train.refine(x, books, beam_size=0))
    refused(r"refine: iterations is -1", lambda: train.refine(x, books, iterations=-1))
    refused(r"refine: rows_per_codeword is 0", lambda: train.refine(x, books, rows_per_codeword=0))
    refused(r"refine: prefixes is -0.5", lambda: train.refine(x, books, prefixes=-0.5))
    refused(
        r"refine: prefixes is \[0.1\]; expected a number, or 2 numbers",
        lambda: train.refine(x, books, prefixes=[0.1]),
    )
    refused(r"refit: prefixes\[1\] is -2", lambda: train.refit(tally, books, prefixes=[1, -2]))
    refused(r"refine: callback is 3", lambda: train.refine(x, books, callback=3))
    refused(r"refine: rng is 'a'", lambda: train.refine(x, books, rng="a"))
    refused(r"refine: x has shape \(60, 2\)", lambda: train.refine(x[:, :2], books), ShapeError)
    refused(r"fit: refine is 'yes'", lambda: train.fit(x, 1, 2, 1, 0, refine="yes"))
    refused(
        r"fit: refine has no argument 'beam'; expected some of \['beam_size', ",
        lambda: train.fit(x, 1, 2, 1, 0, refine={"beam": 4}),
    )
    refused(r"fit: ridge is 0", lambda: train.fit(x, 1, 2, 1, 0, refine={"ridge": 0}))
    refused(r"joint_tally: reach is 0.5, but x holds", lambda: train.joint_tally(
        x, codes, books, reach=0.5))  # fmt: skip
    refused(r"joint_tally: capacity is 59", lambda: train.joint_tally(
        x, codes, books, reach=9, capacity=59))  # fmt: skip
    refused(r"joint_tally: x has shape \(60, 3\), codes \(2, 60\)", lambda: train.joint_tally(
        x, codes[:2], books, reach=9), ShapeError)  # fmt: skip
    other = train.joint_tally(x, codes, books, reach=100)
    refused(r"JointTally: got tallies of .* the same codebooks, reach", lambda: tally + other)
    refused(
        r"refit: tally is of codebooks of sizes \(3, 4, 2\)",
        lambda: train.refit(tally, books[:2]), ShapeError,
    )  # fmt: skip
    refused(r"refit: tally is 3", lambda: train.refit(3, books))


def test_stages_that_are_no_plain_sums_are_refused():
    x = clustered(200, 0)
    pair = tuple(Linear(np.eye(8), np.zeros(8)) for _ in range(2))
    codewords = x[:4]
    with pytest.raises(ParameterError, match="refine: stage 0 has projections"):
        train.refine(x, Codebooks([Stage(codewords, *pair)]))
    with pytest.raises(ParameterError, match="refine: stage 1 has the metric cosine"):
        train.refine(x, Codebooks([Stage(codewords), Stage(codewords, metric="cosine")]))
    with pytest.raises(ParameterError, match="fit: refine is asked for, but the stages have proj"):
        train.fit(x, 1, 4, 2, 0, projections=[pair], refine=True)


def test_a_joint_tally_is_a_value(tmp_path):
    import pickle

    x, books, codes = problem(0)
    tally = train.joint_tally(x, codes, books, reach=10)
    assert pickle.loads(pickle.dumps(tally)) == tally
    assert repr(tally) == "JointTally(60 rows, 9 codewords)"
    with pytest.raises(ValueError, match="read-only"):
        tally.sums[0] = 1


def test_refined_stages_of_several_sizes_count_what_vectors_chose():
    x = clustered(4000, 0)
    states = train.fit(x, 3, [16, 12, 8], 10, 0, refine={"iterations": 5}, rows_per_codeword=None)
    assert [len(each.counts) for each in states] == [16, 12, 8]
    assert error(x, train.codebooks_of(states)) < error(
        x, train.codebooks_of(train.fit(x, 3, [16, 12, 8], 10, 0, rows_per_codeword=None))
    )
    books = train.codebooks_of(states)
    counts = rows_of("fit", x, np.arange(5), books.n_q, None).counts(books)
    few = refining.states_of(books, counts, 1e-5)
    for state in few:
        assert state.chosen.sum() == 5 < state.counts.sum()


@pytest.mark.parametrize("mapped", [False, True])
def test_all_rows_are_read_before_any_is_drawn(mapped, tmp_path):
    x = clustered(3000, 0).astype(np.float64)
    books = train.codebooks_of(train.fit(x, 2, 8, 3, 0))
    for value, message in ((1e300, "holds 1e.300 at .2999, 3., beyond float32"), (np.nan, "nan")):
        x[2999, 3] = value
        given = x
        if mapped:
            np.save(tmp_path / "x.npy", x)
            given = np.load(tmp_path / "x.npy", mmap_mode="r")
        with pytest.raises(NonFiniteError, match=f"refine: x .*{message}"):
            train.refine(given, books, rows_per_codeword=1)
