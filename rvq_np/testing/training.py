"""A pytest class of properties for the training of a quantizer, with a state machine.

The quantizer is passed as a small adapter, see `Trainee`.  The properties hold for codewords that
are means of their vectors, as those of k-means and moving averages: then the codewords of the first
stage are within the range of the vectors seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import strategies as st

from .. import arguments
from .machine import machine_of, refused
from .parts import masks, training_batches
from .properties import given
from .snapshots import Snapshot, box, inside

FAR = 30.0  # distance from zero, in standard deviations, of vectors that codewords stay among


class Trainee(Protocol):
    """The interface that `training_tests` needs: an adapter of a few lines.

    Vectors are (N, D) float32 NumPy arrays, masks (N,) bool, True for valid vectors. All random
    numbers of a step must depend on `seed` only: set the generator, or the seed of the library.
    """

    def train(self, x: np.ndarray, mask: np.ndarray | None, seed: int) -> Any:
        """Train on one batch: initialization if needed, moving averages, dead-code replacement."""

    def eval(self, x: np.ndarray) -> Any:
        """Return codes (Q, N) in evaluation mode, by the forward pass if it has its own code."""

    def codebooks(self) -> Any:
        """Return the codebooks (Q, K, D)."""

    def counts(self) -> Any:
        """Return the moving counts (Q, K)."""

    def save(self) -> Any:
        """Return the state, as a value that later training does not change."""

    def load(self, saved: Any) -> None:
        """Replace the whole state by what `save` returned."""


def training_tests(*, make: Callable[[], Trainee], dimension: int, masked: bool = True) -> type:
    """Build a pytest class for training; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    make : callable
        Returns a new, untrained `Trainee`, the same on each call, that initializes its codebooks
        from its first batch. Make it small: two or three stages of about 8 codewords, 3 dimensions,
        a decay of about 0.5, so that unused codewords are replaced within a few steps.
    dimension : int
        D, the length of a vector.
    masked : bool, optional
        Whether `train` supports masks. If not, the properties of masks are skipped.

    Returns
    -------
    tests : type
        As `rvq_tests`. `test_any_order_of_steps` is a Hypothesis state machine over training,
        evaluation, batches with NaN or infinity, masks, dead-code replacement, saving and loading.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Examples
    --------
    >>> from rvq_np.testing import training_tests
    >>> TestMine = training_tests(make=object, dimension=3)
    """
    arguments.function("training_tests", "make", make)
    dimension = arguments.whole("training_tests", "dimension", dimension, 1)
    masked = arguments.flag("training_tests", "masked", masked)
    batches = training_batches(dimension, centre=FAR)
    seeds = st.integers(0, 2**31 - 1)

    def trained(x: np.ndarray, seed: int = 0) -> Trainee:
        trainee = make()
        trainee.train(x, None, seed)
        return trainee

    def error(trainee: Trainee, x: np.ndarray, stages: int | None = None) -> float:
        codes, codewords = np.asarray(trainee.eval(x)), np.asarray(trainee.codebooks(), np.float64)
        decoded = [book[code] for book, code in zip(codewords, codes, strict=True)]
        return float(np.square(x - sum(decoded[:stages])).mean())

    def some(rng: np.random.Generator, rows: int, centre: float = FAR) -> np.ndarray:
        return (centre + rng.standard_normal((rows, dimension))).astype(np.float32)

    class Tests:
        @given(batches, seeds)
        def test_the_first_codewords_lie_among_the_vectors(self, x: np.ndarray, seed: int) -> None:
            """Also with fewer vectors than codewords, or duplicate vectors.

            No report known.
            """
            codewords = np.asarray(trained(x, seed).codebooks())
            assert np.isfinite(codewords).all()
            assert inside(codewords[0], box(x)).all(), f"{codewords[0]} of {x}"

        @given(batches, seeds)
        def test_a_step_after_the_first_leaves_codewords_among_the_vectors(
            self, x: np.ndarray, seed: int
        ) -> None:
            """Counts must match sums from the start, or codewords shrink or explode at once.

            lucidrains/vector-quantize-pytorch#66
            """
            trainee = trained(x, seed)
            for more in range(1, 3):
                trainee.train(x, None, seed + more)
                codewords = np.asarray(trainee.codebooks())[0]
                assert inside(codewords, box(x)).all(), f"{codewords} of {x}"

        @given(seeds)
        def test_an_unused_codeword_becomes_a_vector_of_the_batch(self, seed: int) -> None:
            """An unused codeword is replaced, and not overwritten in the same step.

            facebookresearch/encodec#61
            """
            rng = np.random.default_rng(seed)
            trainee = trained(some(rng, 48), seed)
            away = some(rng, 48, -FAR)
            for more in range(1, 25):
                trainee.train(away, None, seed + more)
            codewords = np.asarray(trainee.codebooks())[0]
            assert inside(codewords, box(away)).all(), f"still among the old vectors: {codewords}"
            assert len(np.unique(trainee.eval(away)[0])) > 1

        @given(seeds)
        def test_a_codeword_that_was_replaced_stays_among_the_vectors(self, seed: int) -> None:
            """Sum and count are replaced with the codeword, or the next average undoes it.

            lucidrains/vector-quantize-pytorch#45
            """
            rng = np.random.default_rng(seed)
            trainee = trained(some(rng, 48), seed)
            away = some(rng, 48, -FAR)
            arrived = np.zeros(len(np.asarray(trainee.codebooks())[0]), bool)
            for more in range(1, 9):
                trainee.train(away, None, seed + more)
                now = inside(np.asarray(trainee.codebooks())[0], box(away))
                assert now[arrived].all(), f"step {more}: {trainee.codebooks()[0]}"
                arrived |= now

        @given(seeds)
        def test_every_stage_learns(self, seed: int) -> None:
            """The codewords of each stage change, and each stage lowers the error on the batch.

            kaiidams/soundstream-pytorch#7
            """
            x = some(np.random.default_rng(seed), 200)
            untrained = np.asarray(make().codebooks()).copy()
            trainee = trained(x, seed)
            codewords = np.asarray(trainee.codebooks()).copy()
            assert (untrained != codewords).any(axis=(1, 2)).all()
            errors = [error(trainee, x, stages) for stages in range(1, len(codewords) + 1)]
            assert (np.diff(errors) < 0).all()
            assert errors[0] < 0.9 * float(x.var())
            trainee.train(some(np.random.default_rng(seed + 1), 200), None, seed + 1)
            assert (codewords != np.asarray(trainee.codebooks())).any(axis=(1, 2)).all()

        @given(batches, batches, seeds)
        def test_evaluation_changes_nothing(
            self, x: np.ndarray, other: np.ndarray, seed: int
        ) -> None:
            """Neither codebooks nor counts nor codes, and it does not initialize codebooks.

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
            """It is refused or ignored: one NaN must not make a whole dimension NaN.

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
            """Two fillings of masked rows give the same state: initialization, averages, and
            dead-code replacement.

            lucidrains/vector-quantize-pytorch#62
            """
            if not masked:
                pytest.skip("masked is False: train takes no masks")
            first = data.draw(training_batches(dimension, max_rows=24, centre=FAR))
            mask = data.draw(masks((len(first),)))
            valid = mask.any()
            results = []
            for filling in (1e6, -1e4):
                trainee, given_ = make(), np.where(mask[:, None], first, np.float32(filling))
                untrained = Snapshot.of(trainee)
                for more in range(4):
                    trainee.train(given_, mask, seed + more)
                if not valid:
                    untrained.same_as(trainee)
                else:
                    assert inside(np.asarray(trainee.codebooks())[0], box(first[mask])).all()
                results.append(trainee)
            Snapshot.of(results[0]).same_as(results[1])

        @given(batches, batches, seeds)
        def test_what_was_saved_goes_on_as_if_nothing_had_been(
            self, x: np.ndarray, other: np.ndarray, seed: int
        ) -> None:
            """The same codes, and the same codebooks and counts after the next steps.

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
            """The saved state does not share memory with the quantizer.

            No report known.
            """
            trainee = trained(x, seed)
            before, saved = Snapshot.of(trainee), trainee.save()
            trainee.train(-x, None, seed + 1)
            trainee.load(saved)
            before.same_as(trainee)

        def test_any_order_of_steps(self) -> None:
            """Codewords stay finite, counts positive, the first stage among the vectors seen.

            nadavbh12/VQ-VAE#11
            """
            machine_of(make, dimension, masked)

    return Tests
