"""The class with codebooks of different sizes: everything that one size has."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import rvq_np
from rvq_np import ResidualVectorQuantizer, UnstableTrainingWarning, checkpoints
from rvq_np.config import Config
from rvq_np.errors import ParameterError, StateError

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


SIZES = (16, 4, 9)


def made(codebook_dim=6, **options):
    arguments = {"dimension": 6, "codebook_dim": codebook_dim, "n_q": 3, "bins": SIZES, "rng": 0}
    return ResidualVectorQuantizer(**{**arguments, **options})


def rows(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)


@pytest.mark.parametrize("codebook_dim", [6, 4])
@pytest.mark.parametrize("dropout", [False, 0.5])
def test_it_trains_encodes_and_decodes(codebook_dim, dropout):
    rvq = made(codebook_dim, quantizer_dropout=dropout)
    for step in range(4):
        result = rvq(rows(200, seed=step).reshape(4, 50, 6).transpose(0, 2, 1), RATE)
    assert [each.codebook.shape for each in rvq.codebooks] == [(k, codebook_dim) for k in SIZES]
    assert [int(stage.max()) for stage in result.codes] == [k - 1 for k in SIZES]
    x = rows(300, seed=9)
    codes = rvq.eval().encode(x, RATE)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, rvq.codebooks))
    errors = [np.square(x - rvq.decode(codes[:n])).mean() for n in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_its_codes_are_the_defined_ones():
    rvq = made().fit(rows(500))
    x = rows(20, seed=1)
    books = [stage.codebook for stage in rvq.codebooks]
    left = x.copy()
    for codewords, codes in zip(books, rvq.encode(x, RATE), strict=True):
        distances = np.square(left[:, None].astype(np.float64) - codewords[None]).sum(axis=2)
        np.testing.assert_array_equal(codes, distances.argmin(axis=1))
        left -= codewords[codes]


def test_fit_starts_again_freezes_and_refines():
    rvq = made().fit(rows(900))
    before = rvq.codebooks
    rvq.fit(rows(900, seed=1), start=rvq, freeze=[1])
    assert rvq.codebooks[1] == before[1]
    assert rvq.codebooks[0] != before[0]
    refined = made().fit(rows(4000), refine=True)
    assert [each.codebook.shape[0] for each in refined.codebooks] == list(SIZES)
    assert rvq.usage[1].utilisation == 1


@pytest.mark.parametrize("bandwidth", [None, 0, 0.1, 0.2, 0.25, 0.299, 0.3, 0.458, 0.459, 99])
def test_a_bandwidth_buys_the_stages_whose_bits_add_up_to_it(bandwidth):
    rvq = made().eval()
    bits = np.cumsum([math.log2(k) for k in SIZES])  # 4, 6, 9.17
    expected = max(1, sum(each * RATE / 1000 <= (bandwidth or 99) + 1e-12 for each in bits))
    assert rvq.get_num_quantizers_for_bandwidth(RATE, bandwidth) == expected
    x = rows(5)
    rvq._warned = True
    result = rvq(x, RATE, bandwidth)
    assert len(result.codes) == expected
    assert float(result.bandwidth) == pytest.approx(bits[expected - 1] * RATE / 1000)
    # What is reported buys as much again, also as float32.
    again = rvq.get_num_quantizers_for_bandwidth(RATE, result.bandwidth)
    assert again == expected


def test_dropout_reports_the_bandwidth_of_each_row():
    rvq = made(quantizer_dropout=True)
    x = rows(400).reshape(40, 10, 6).transpose(0, 2, 1)
    found = set(np.round(np.float64(rvq(x, 1000).bandwidth), 3))
    assert found == {4, 6, round(6 + math.log2(9), 3)}


def test_bandwidth_of_a_stage():
    rvq = made()
    assert [rvq.get_bandwidth_per_quantizer(1000, stage) for stage in range(3)] == [
        4, 2, pytest.approx(math.log2(9))
    ]  # fmt: skip
    assert made(bins=8).get_bandwidth_per_quantizer(1000, 2) == 3
    with pytest.raises(ParameterError, match=r"stages have 16, 4, 9 codewords.*expected stage"):
        rvq.get_bandwidth_per_quantizer(1000)
    with pytest.raises(ParameterError, match="get_bandwidth_per_quantizer: stage is 3; expected"):
        rvq.get_bandwidth_per_quantizer(1000, 3)


def test_it_is_saved_copied_and_exported_with_its_sizes(tmp_path):
    rvq = made().fit(rows(500))
    x = rows(50, seed=1)
    codes = rvq.encode(x, RATE)
    rvq.save(tmp_path / "m.safetensors")
    checkpoints.save(tmp_path / "books.safetensors", rvq.codebooks)
    for other in (
        ResidualVectorQuantizer.load(tmp_path / "m.safetensors"),
        copy.deepcopy(rvq), pickle.loads(pickle.dumps(rvq)),
    ):  # fmt: skip
        assert other.config == rvq.config
        assert other.bins == SIZES
        np.testing.assert_array_equal(other.encode(x, RATE), codes)
    assert checkpoints.load(tmp_path / "books.safetensors") == rvq.codebooks
    other = made(rng=1)
    other.load_state_dict(rvq.state_dict())
    np.testing.assert_array_equal(other.encode(x, RATE), codes)
    assert "3 stages of 16, 4, 9 codewords" in repr(rvq)
    with pytest.raises(ParameterError, match="encodec"):
        checkpoints.state_dict(rvq.codebooks, "encodec")


def test_sizes_that_do_not_fit_are_named():
    for bad in ([16, 4], [16, 4, 9, 9], [16, 0, 4], [16, 4.0, 9], [16, "a", 4], "abc", [], None,
                [True, 4, 9], [[16, 4, 9]]):  # fmt: skip
        with pytest.raises(
            ParameterError,
            match=r"ResidualVectorQuantizer: bins is .*; expected a whole number from 1, or 3 of "
            r"them, one per stage \(n_q\)",
        ):
            made(bins=bad)
    with pytest.raises(StateError, match=r"cluster_size has shape \(16,\), expected \(8,\)"):
        made(bins=8).load_state_dict(made().state_dict())


def test_one_size_is_one_number_however_it_is_given():
    for same in ([8, 8, 8], (8, 8, 8), np.array([8, 8, 8]), np.int64(8), np.array(8)):
        assert made(bins=same).config == made(bins=8).config
        assert made(bins=same).bins == 8
    config = made().config
    assert Config.from_dict(config.as_dict()) == config
    assert hash(config) == hash(made(bins=np.array(SIZES)).config)
    assert made(bins=list(SIZES)).config.sizes == SIZES
    assert made(bins=8).config.as_dict()["bins"] == 8
    assert made().config.stages_for(Fraction(1000), Fraction(6)) == 2


def test_more_than_half_of_a_small_codebook_is_more_than_half():
    rvq = made(threshold_ema_dead_code=1000).fit(rows(500)).freeze([0, 2])
    rvq.train()
    for step in range(4):
        rvq(rows(20, seed=step), RATE)
    with pytest.warns(UnstableTrainingWarning, match="forward: 4 of 4 codewords of stage 1 were"):
        rvq(rows(20), RATE)


def test_first_codewords_wait_for_enough_of_the_largest_codebook():
    rvq = made()
    awaited = []
    for step in range(4):
        rvq(rows(20, seed=step), RATE)
        awaited.append(rvq.vectors_awaited)
    assert awaited == [44, 24, 4, 0]
    rvq = made()
    rvq(rows(20), RATE)
    assert rvq.freeze([0]).vectors_awaited == 16  # of 36 for 9 codewords
