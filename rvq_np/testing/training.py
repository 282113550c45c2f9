"""A pytest class of properties for any quantizer that trains: single laws, and a state machine.

What is trained is handed over behind a small adapter, see `Trainee`.  The laws hold for words that
are means of the vectors that chose them, as k-means and moving averages make them: such words of
the first level lie among the vectors seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .machine import machine_of, refused
from .parts import masks, training_batches
from .snapshots import Snapshot, box, inside

FAR = 30.0  # how far from zero the vectors of a law about places lie, in standard deviations


class Trainee(Protocol):
    """What `training_tests` needs of a quantizer: an adapter of a few lines.

    Vectors are (N, D) float32 NumPy arrays, masks (N,) bool, True where there is a vector.
    Everything random in a step is drawn from `seed`: set the generator, or the library's seed.
    """

    def train(self, x: np.ndarray, mask: np.ndarray | None, seed: int) -> Any:
        """Learn from one batch: first words if there are none, averages, dead words."""

    def eval(self, x: np.ndarray) -> Any:
        """Return codes (Q, N) in evaluation mode, by a forward pass if that is another path."""

    def words(self) -> Any:
        """Return the codebooks (Q, K, D)."""

    def counts(self) -> Any:
        """Return the moving counts (Q, K)."""

    def save(self) -> Any:
        """Return the state, as a value that does not change any more."""

    def load(self, saved: Any) -> None:
        """Take over what `save` gave, in place of all that was learned."""


def training_tests(*, make: Callable[[], Trainee], dimension: int, masked: bool = True) -> type:
    """Build a pytest class for what trains; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    make : callable
        Returns a new, untrained `Trainee`, the same on each call, that finds its first words in
        its first batch. Make it small: two or three levels of about 8 words, 3 dimensions, a decay
        of about a half, so that a word nobody chooses dies within a few steps.
    dimension : int
        D, of the vectors.
    masked : bool, optional
        Whether `train` takes masks. Without, the laws about them are skipped.

    Returns
    -------
    tests : type
        As `rvq_tests`. `test_any_order_of_steps` is a Hypothesis state machine over training,
        evaluation, batches with a bad number, masks, dying words, saving and loading.

    Examples
    --------
    >>> from rvq_np.testing import training_tests
    >>> TestMine = training_tests(make=object, dimension=3)
    """
    batches = training_batches(dimension, centre=FAR)
    seeds = st.integers(0, 2**31 - 1)

    def trained(x: np.ndarray, seed: int = 0) -> Trainee:
        trainee = make()
        trainee.train(x, None, seed)
        return trainee

    def error(trainee: Trainee, x: np.ndarray, levels: int | None = None) -> float:
        codes, words = np.asarray(trainee.eval(x)), np.asarray(trainee.words(), np.float64)
        named = [book[code] for book, code in zip(words, codes, strict=True)]
        return float(np.square(x - sum(named[:levels])).mean())

    def some(rng: np.random.Generator, rows: int, centre: float = FAR) -> np.ndarray:
        return (centre + rng.standard_normal((rows, dimension))).astype(np.float32)

    class Tests:
        @given(batches, seeds)
        def test_the_first_words_lie_among_the_vectors(self, x: np.ndarray, seed: int) -> None:
            """Also where there are fewer vectors than words, or the same one many times.

            No report known.
            """
            words = np.asarray(trained(x, seed).words())
            assert np.isfinite(words).all()
            assert inside(words[0], box(x)).all(), f"{words[0]} of {x}"

        @given(batches, seeds)
        def test_a_step_after_the_first_leaves_words_among_the_vectors(
            self, x: np.ndarray, seed: int
        ) -> None:
            """Counts belong to sums from the start, or words shrink or explode at once.

            lucidrains/vector-quantize-pytorch#66
            """
            trainee = trained(x, seed)
            for more in range(1, 3):
                trainee.train(x, None, seed + more)
                words = np.asarray(trainee.words())[0]
                assert inside(words, box(x)).all(), f"{words} of {x}"

        @given(seeds)
        def test_a_word_nobody_chooses_becomes_a_vector_of_the_batch(self, seed: int) -> None:
            """And stays one: what replaces it is not overwritten in the same step.

            facebookresearch/encodec#61
            """
            rng = np.random.default_rng(seed)
            trainee = trained(some(rng, 48), seed)
            away = some(rng, 48, -FAR)
            for more in range(1, 25):
                trainee.train(away, None, seed + more)
            words = np.asarray(trainee.words())[0]
            assert inside(words, box(away)).all(), f"still among the old vectors: {words}"
            assert len(np.unique(trainee.eval(away)[0])) > 1

        @given(seeds)
        def test_a_word_that_was_replaced_stays_among_the_vectors(self, seed: int) -> None:
            """Sum and count change with the word, or the next average pulls it back.

            lucidrains/vector-quantize-pytorch#45
            """
            rng = np.random.default_rng(seed)
            trainee = trained(some(rng, 48), seed)
            away = some(rng, 48, -FAR)
            arrived = np.zeros(len(np.asarray(trainee.words())[0]), bool)
            for more in range(1, 9):
                trainee.train(away, None, seed + more)
                now = inside(np.asarray(trainee.words())[0], box(away))
                assert now[arrived].all(), f"step {more}: {trainee.words()[0]}"
                arrived |= now

        @given(seeds)
        def test_every_level_learns(self, seed: int) -> None:
            """Each level's words move, and each lowers the error on what it was trained on.

            kaiidams/soundstream-pytorch#7
            """
            x = some(np.random.default_rng(seed), 200)
            untrained = np.asarray(make().words()).copy()
            trainee = trained(x, seed)
            words = np.asarray(trainee.words()).copy()
            assert (untrained != words).any(axis=(1, 2)).all()
            errors = [error(trainee, x, levels) for levels in range(1, len(words) + 1)]
            assert (np.diff(errors) < 0).all()
            assert errors[0] < 0.9 * float(x.var())
            trainee.train(some(np.random.default_rng(seed + 1), 200), None, seed + 1)
            assert (words != np.asarray(trainee.words())).any(axis=(1, 2)).all()

        @given(batches, batches, seeds)
        def test_evaluation_changes_nothing(
            self, x: np.ndarray, other: np.ndarray, seed: int
        ) -> None:
            """Neither words nor counts nor codes, and no first words are found by it.

            lucidrains/vector-quantize-pytorch#163
            """
            trainee = make()
            for step in range(2):
                before = Snapshot.of(trainee)
                trainee.eval(other)
                before.same_as(trainee)
                if step == 0:
                    trainee.train(x, None, seed)

        @given(batches, batches, seeds, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
        def test_a_batch_with_a_bad_number_changes_nothing(
            self, x: np.ndarray, other: np.ndarray, seed: int, bad: float, data: Any
        ) -> None:
            """Refused, or left out: one frame of NaN must not turn a whole dimension NaN.

            No report known.
            """
            trainee = trained(x, seed)
            before = Snapshot.of(trainee)
            other = other.copy()
            other.flat[data.draw(st.integers(0, other.size - 1))] = bad
            refused(trainee, other, seed + 1)
            before.same_as(trainee)

        @given(seeds, st.data())
        def test_what_is_under_the_mask_has_no_influence(self, seed: int, data: Any) -> None:
            """Two poisons give the same state, that of the valid vectors: first words, averages,
            and what dead words become.

            lucidrains/vector-quantize-pytorch#62
            """
            if not masked:
                pytest.skip("masked is False: train takes no masks")
            first = data.draw(training_batches(dimension, max_rows=24, centre=FAR))
            mask = data.draw(masks((len(first),)))
            valid = mask.any()
            results = []
            for poison in (1e6, -1e4):
                trainee, given_ = make(), np.where(mask[:, None], first, np.float32(poison))
                untrained = Snapshot.of(trainee)
                for more in range(4):
                    trainee.train(given_, mask, seed + more)
                if not valid:
                    untrained.same_as(trainee)
                else:
                    assert inside(np.asarray(trainee.words())[0], box(first[mask])).all()
                results.append(trainee)
            Snapshot.of(results[0]).same_as(results[1])

        @given(batches, batches, seeds)
        def test_what_was_saved_goes_on_as_if_nothing_had_been(
            self, x: np.ndarray, other: np.ndarray, seed: int
        ) -> None:
            """The same codes, and the same words and counts after the next steps.

            lucidrains/vector-quantize-pytorch#102
            """
            one, two = trained(x, seed), make()
            two.load(one.save())
            Snapshot.of(one).same_as(two)
            np.testing.assert_array_equal(one.eval(other), two.eval(other))
            for more in range(1, 4):
                for trainee in (one, two):
                    trainee.train(other, None, seed + more)
                Snapshot.of(one).same_as(two)

        @given(batches, seeds)
        def test_what_was_saved_does_not_change_any_more(self, x: np.ndarray, seed: int) -> None:
            """A state that shares memory with the quantizer is not a copy of it.

            No report known.
            """
            trainee = trained(x, seed)
            before, saved = Snapshot.of(trainee), trainee.save()
            trainee.train(-x, None, seed + 1)
            trainee.load(saved)
            before.same_as(trainee)

        def test_any_order_of_steps(self) -> None:
            """Words stay finite, counts positive, the first level among the vectors seen.

            nadavbh12/VQ-VAE#11
            """
            machine_of(make, dimension, masked)

    return Tests
