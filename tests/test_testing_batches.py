"""Whether codes depend on the batch: encoders with known defects, and what is said of them."""

import numpy as np
import pytest

import rvq_np
from rvq_np.errors import ParameterError, ShapeError
from rvq_np.testing import batch_invariance_tests
from rvq_np.testing.batches import batch_drifts

pytestmark = pytest.mark.quick
RNG = np.random.default_rng(0)
BOOKS = rvq_np.Codebooks([0.6**q * RNG.standard_normal((16, 3)).astype("f4") for q in range(4)])
SIGNALS = [RNG.standard_normal((3, length)).astype(np.float32) for length in (40, 25, 60)]


def latents(batch):
    return [np.ascontiguousarray(each.T) for each in batch]


def encode(batch):
    return [rvq_np.encode(each, BOOKS) for each in latents(batch)]


TestOurs = batch_invariance_tests(
    encode=encode, signals=SIGNALS, latents=latents, quantizer=BOOKS, variants={"again": encode}
)


def drifts(encode, **options):
    return {each.way: each for each in batch_drifts(encode, SIGNALS, **options)}


def changing(stage, when):
    """Return an encoder that changes the codes of a stage, of every tenth frame, when asked to."""

    def other(batch):
        codes = encode(batch)
        for n, each in enumerate(codes):
            if when(batch, n):
                each[stage:, ::10] = (each[stage:, ::10] + 1) % 16
        return codes

    return other


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize(
    ("when", "ways"),
    [
        (lambda batch, n: len(batch) > 1, {"beside others", "beside longer ones"}),
        (lambda batch, n: n > 0 and len({x.shape for x in batch}) == 1, {"beside others",
         "in another place"}),
        (lambda batch, n: len({x.shape for x in batch}) > 1, {"beside longer ones"}),
        (lambda batch, n: False, set()),
    ],
)  # fmt: skip
def test_a_change_is_found_where_it_is(stage, when, ways, rng):
    found = drifts(changing(stage, when))
    assert {way for way, drift in found.items() if drift.changed} == ways
    for way in ways:
        assert [q for q, count in enumerate(found[way].first) if count] == [stage]
        assert sum(found[way].first) == found[way].changed
        assert f"at stage {stage}" in str(found[way])
        assert "by the quantizer" not in str(found[way])


def test_a_change_of_the_quantizer_alone_is_its_own():
    other = changing(1, lambda batch, n: len(batch) > 1)
    drift = drifts(other, latents=latents, quantizer=BOOKS)["beside others"]
    assert drift.by_quantizer == drift.changed > 0
    assert f"{drift.changed} by the quantizer alone" in str(drift)


def test_a_change_of_the_latents_is_the_networks():
    def moved(batch):
        return [each + (0.3 if len(batch) > 1 else 0) for each in latents(batch)]

    def other(batch):
        return [rvq_np.encode(each.astype(np.float32), BOOKS) for each in moved(batch)]

    drift = drifts(other, latents=moved, quantizer=BOOKS)["beside longer ones"]
    assert drift.changed > 0
    assert drift.by_quantizer == 0


def test_a_variant_is_compared_alone():
    def coarse(batch):
        return [rvq_np.encode(each.astype(np.float16).astype("f4"), BOOKS)
                for each in latents(batch)]  # fmt: skip

    found = drifts(encode, variants={"float16": coarse, "same": encode})
    assert found["float16"].changed > 0 == found["same"].changed
    assert found["float16"].frames == 125


def test_the_class_fails_with_the_report():
    other = changing(1, lambda batch, n: len(batch) > 1)
    made = batch_invariance_tests(encode=other, signals=SIGNALS)()
    made.test_codes_are_the_same_again()
    made.test_codes_do_not_depend_on_the_place_in_the_batch()
    for test in (made.test_codes_do_not_depend_on_other_signals,
                 made.test_codes_do_not_depend_on_longer_signals_in_the_batch):  # fmt: skip
        with pytest.raises(AssertionError, match=r"frames changed .* at stage 1"):
            test()
    made = batch_invariance_tests(encode=other, signals=SIGNALS, tolerance=0.2)()
    made.test_codes_do_not_depend_on_other_signals()
    made = batch_invariance_tests(
        encode=encode, signals=SIGNALS, variants={"b": changing(0, lambda batch, n: True)}
    )()
    with pytest.raises(AssertionError, match="b: 13 of 125 frames changed"):
        made.test_codes_do_not_depend_on_the_variant()


def test_codes_of_padding_are_found():
    def padded(batch):
        longest = max(each.shape[1] for each in batch)
        return encode([np.pad(each, ((0, 0), (0, longest - each.shape[1]))) for each in batch])

    made = batch_invariance_tests(encode=padded, signals=SIGNALS)()
    with pytest.raises(AssertionError):
        made.test_a_signal_has_as_many_frames_in_a_batch_as_alone()


@pytest.mark.parametrize(
    ("encode", "signals", "options", "error", "message"),
    [
        (encode, SIGNALS[:1], {}, ParameterError, "got 1 signals of lengths"),
        (encode, SIGNALS[:1] * 2, {}, ParameterError, r"lengths \[40\]; expected two"),
        (encode, SIGNALS, {"latents": latents}, ParameterError, "both of latents and quantizer"),
        (lambda batch: encode(batch)[:1], SIGNALS, {}, ShapeError, "1 arrays for 3 signals"),
        (lambda batch: [each[:, : 50 // len(batch)] for each in encode(batch)], SIGNALS, {},
         ShapeError, "Cut off the codes of padding"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(encode, signals, options, error, message):
    with pytest.raises(error, match=message):
        batch_drifts(encode, signals, **options)
