"""What training does once: looks for bad numbers, and makes tables for the searches it makes."""

import sys
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import ResidualVectorQuantizer, train
from rvq_np.codec import core, validation
from rvq_np.errors import NonFiniteError
from rvq_np.train import data as reading
from rvq_np.train.state import codebooks_of

fitting = sys.modules["rvq_np.train.fit"]  # whose name in the package is that of its function


@pytest.fixture
def looked_at(monkeypatch):
    """Count the rows of every look for numbers that are not finite, or too large."""
    rows = []
    for module in (reading, fitting):
        real = module.check_finite
        monkeypatch.setattr(
            module, "check_finite",
            lambda x, *others, real=real: rows.append(len(x)) or real(x, *others),
        )  # fmt: skip
    later = validation._finite_later
    monkeypatch.setattr(
        validation,
        "_finite_later",
        lambda call, x, books: rows.append(len(x)) or later(call, x, books),
    )
    return rows


def vectors(rng, n=500, dim=6):
    return rng.standard_normal((n, dim)).astype(np.float32)


def on_disk(folder: Path, x):
    path = folder / "x.npy"
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("codebook_dim", [6, 3])
@pytest.mark.parametrize("rows_per_codeword", [None, 20])
def test_a_fit_looks_at_every_number_once(codebook_dim, rows_per_codeword, rng, looked_at):
    """It did 1 + 5 times for every stage, and once more for (B, D, T)."""
    x = vectors(rng)
    rvq = ResidualVectorQuantizer(6, codebook_dim, n_q=3, bins=8, rng=0)
    rvq.fit(x, iterations=3, rows_per_codeword=rows_per_codeword)
    assert looked_at == [500]
    looked_at.clear()
    same = ResidualVectorQuantizer(6, codebook_dim, n_q=3, bins=8, rng=0)
    same.fit(
        x.reshape(5, 100, 6).transpose(0, 2, 1), iterations=3, rows_per_codeword=rows_per_codeword
    )
    assert looked_at == [500]
    assert same.codebooks == rvq.codebooks


@pytest.mark.parametrize("held", [1 << 28, 0])
@pytest.mark.parametrize("rows_per_codeword", [None, 20])
def test_a_memory_map_is_looked_at_once_too(
    held, rows_per_codeword, rng, looked_at, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "ROWS", 64)
    monkeypatch.setattr(reading, "HELD", held)
    x = on_disk(tmp_path, vectors(rng))
    states = train.fit(x, 3, 8, 3, np.random.default_rng(0), rows_per_codeword=rows_per_codeword)
    assert looked_at == [500]
    apart = train.fit(
        np.array(x), 3, 8, 3, np.random.default_rng(0), rows_per_codeword=rows_per_codeword
    )
    assert states == apart


@pytest.mark.parametrize("row", [0, 250, 499])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e39])
@pytest.mark.parametrize("kind", ["array", "memory map", "foreign memory map", "(B, D, T)"])
@pytest.mark.parametrize("rows_per_codeword", [None, 2])
def test_one_bad_number_gives_the_same_answer_whatever_rows_are_drawn(
    row, bad, kind, rows_per_codeword, rng, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "ROWS", 64)
    x = vectors(rng).astype(np.float64)
    x[row, 2] = bad
    place = str((row, 2))
    if kind == "foreign memory map":
        x = x.astype(x.dtype.newbyteorder("S"))
    if "map" in kind:
        x = on_disk(tmp_path, x)
    elif kind == "(B, D, T)":
        x = x.reshape(5, 100, 6).transpose(0, 2, 1)
        place = str((row // 100, 2, row % 100))
    for seed in range(3):
        rvq = ResidualVectorQuantizer(6, 6, n_q=2, bins=8, rng=seed)
        books, before = rvq.codebooks, rvq._rng.bit_generator.state
        with pytest.raises(NonFiniteError, match=r"fit: x holds [^ ]+ at ") as caught:
            rvq.fit(x, rows_per_codeword=rows_per_codeword)
        assert f"holds {bad:g} at {place}" in str(caught.value)
        assert rvq.codebooks is books
        assert rvq._rng.bit_generator.state == before


def test_a_bad_number_is_named_wherever_it_is(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ROWS", 64)
    x = vectors(rng)
    x[401, 2] = np.nan
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    for rows_per_codeword in (None, 2):  # whatever rows are drawn
        with pytest.raises(NonFiniteError, match=r"fit: x holds nan at \(401, 2\); expected"):
            train.fit(x, 2, 8, 3, generator, rows_per_codeword=rows_per_codeword)
    assert generator.bit_generator.state == before
    with pytest.raises(NonFiniteError, match=r"fit: x holds nan at \(401, 2\); expected"):
        train.fit(on_disk(tmp_path, x), 2, 8, 3, generator, rows_per_codeword=None)
    rvq = ResidualVectorQuantizer(6, 6, n_q=2, bins=8, rng=0)
    books = rvq.codebooks
    with pytest.raises(NonFiniteError, match=r"fit: x holds nan at \(4, 2, 1\); expected"):
        rvq.fit(x.reshape(5, 100, 6).transpose(0, 2, 1))
    assert rvq.codebooks is books


@pytest.mark.parametrize("size", [3.3e38, 1e300])
def test_numbers_too_large_for_a_residual_are_refused_all_the_same(size, rng):
    x = vectors(rng).astype(np.float64)
    x[::2] *= size / np.abs(x).max()
    x = x if size > 1e39 else x.astype(np.float32)
    with np.errstate(over="ignore"), pytest.raises(NonFiniteError, match="fit: x"):
        train.fit(x, 2, 8, 3, rng)
    states = train.fit(vectors(rng) * np.float32(8e36), 2, 64, 3, rng)
    assert np.isfinite(states[1].codebook).all()


def test_bad_numbers_are_refused_in_the_name_of_the_call(rng):
    x = vectors(rng)
    x[3, 1] = np.inf
    state = train.kmeans(vectors(rng), 4, 1, rng)
    fresh = train.CodebookState(state.codebook, state.sums, state.counts, False)
    for name, call in {
        "kmeans": lambda: train.kmeans(x, 4, 2, rng),
        "initialize": lambda: train.initialize([fresh], x, 1, 2, rng),
        "fit": lambda: train.fit(x, 1, 4, 2, rng),
    }.items():
        with pytest.raises(NonFiniteError, match=rf"{name}: x holds inf at \(3, 1\)"):
            call()


ALL_REDUCE = {"alone": None, "ranks": train.AllReduce(np.copy, 0, 2)}


@pytest.mark.parametrize("ranks", ALL_REDUCE)
@pytest.mark.parametrize("codebook_dim", [6, 3])
@pytest.mark.parametrize("dropout", [False, True])
def test_a_step_makes_the_tables_it_searches_with_and_no_more(
    ranks, codebook_dim, dropout, rng, tables_made
):
    n_q, iterations = 4, 3
    rvq = ResidualVectorQuantizer(
        6, codebook_dim, n_q=n_q, bins=8, rng=0, kmeans_iters=iterations, quantizer_dropout=dropout,
        all_reduce=ALL_REDUCE[ranks],
    )  # fmt: skip
    x = vectors(rng)
    rvq(x, 50)
    # Every round of k-means, all stages but the last for what they leave, and then the step.
    assert tables_made.total() == n_q * iterations + n_q - 1 + n_q
    for _ in range(3):
        tables_made.clear()
        before = rvq.codebooks
        rvq(10 * vectors(rng), 50)  # codewords are replaced
        assert rvq.codebooks != before
        assert tables_made == {stage.fingerprint: 1 for stage in before}


def test_a_step_takes_the_codebooks_it_is_given(rng, monkeypatch):
    rvq = ResidualVectorQuantizer(6, 6, n_q=2, bins=8, kmeans_init=False, rng=0)
    given = []
    learn = train.learn
    monkeypatch.setattr(
        train, "learn",
        lambda *arguments, **others: given.append(
            (others["codebooks"], learn(*arguments, **others).codebooks)
        ) or learn(*arguments, **others),
    )  # fmt: skip
    books = rvq.codebooks
    rvq(vectors(rng), 50)
    assert all(each is books for each in given[0])


def test_residuals_without_tables_are_those_that_encode_searches_with(rng):
    x = vectors(rng, 40)
    states = train.fit(x, 3, 8, 3, rng)
    books = codebooks_of(states)
    codes = rvq_np.encode(x, books)
    left = x
    for n in range(3):
        np.testing.assert_array_equal(core.residual(x, codes[:n], books), left)
        np.testing.assert_array_equal(core.searched(left, books, n), left)
        left = left - states[n].codebook[codes[n]]


@pytest.mark.parametrize("codebook_dim", [6, 3])
def test_codewords_are_replaced_by_what_their_stage_quantizes_with_several_ranks_too(
    codebook_dim, rng
):
    """The other rank has no rows: what is drawn, and of which stage, must be what one draws."""
    x, made = vectors(rng), []
    for all_reduce in (None, train.AllReduce(np.copy, 0, 2)):
        rvq = ResidualVectorQuantizer(
            6, codebook_dim, n_q=3, bins=32, threshold_ema_dead_code=20, rng=0, kmeans_iters=2,
            all_reduce=all_reduce,
        )  # fmt: skip
        for _ in range(3):
            rvq(x, 50)
        made.append(rvq)
    for ours, theirs in zip(made[0].codebooks, made[1].codebooks, strict=True):
        np.testing.assert_allclose(ours.codebook, theirs.codebook, rtol=1e-6, atol=1e-6)
