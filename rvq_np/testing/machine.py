"""The state machine of `training_tests`: train, evaluate, save and load in any order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .parts import masks, training_batches
from .snapshots import Snapshot, box, inside

CENTRE = 30.0
STEPS = 12


def refused(trainee: Any, x: np.ndarray, seed: int) -> None:
    """Train on a batch that may be refused, with any exception."""
    with contextlib.suppress(Exception):
        trainee.train(x, None, seed)


def machine_of(make: Callable[[], Any], dimension: int, masked: bool) -> None:
    """Run the state machine; raise the error of the shortest failing order of steps."""
    batches = training_batches(dimension, max_rows=24, centre=CENTRE)

    class Training(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.trainee = make()
            self.seed = 0
            self.seen: np.ndarray | None = None
            self.saved: tuple[Any, Snapshot, np.ndarray | None] | None = None

        def learn(self, x: np.ndarray, mask: np.ndarray | None = None) -> None:
            self.seed += 1
            valid = x if mask is None else x[mask]
            if len(valid):
                now = box(valid)
                if self.seen is not None:
                    now = np.stack(
                        [np.minimum(self.seen[0], now[0]), np.maximum(self.seen[1], now[1])]
                    )
                self.seen = now
            self.trainee.train(x, mask, self.seed)

        @rule(x=batches)
        def train(self, x: np.ndarray) -> None:
            self.learn(x)

        @rule(x=batches, steps=st.integers(2, 6))
        def train_elsewhere_until_codewords_die(self, x: np.ndarray, steps: int) -> None:
            for _ in range(steps):
                self.learn(-x)

        @precondition(lambda self: masked)
        @rule(x=batches, data=st.data())
        def train_with_padding(self, x: np.ndarray, data: Any) -> None:
            mask = data.draw(masks((len(x),)))
            before = Snapshot.of(self.trainee)
            self.learn(np.where(mask[:, None], x, np.float32(1e6)), mask)
            if not mask.any():
                before.same_as(self.trainee)

        @precondition(lambda self: self.seen is not None)
        @rule(x=batches, bad=st.sampled_from([np.nan, np.inf, -np.inf]))
        def train_on_a_bad_number(self, x: np.ndarray, bad: float) -> None:
            before, x = Snapshot.of(self.trainee), x.copy()
            x[len(x) // 2, 0] = bad
            refused(self.trainee, x, self.seed + 1)
            before.same_as(self.trainee)

        @rule(x=batches)
        def evaluate(self, x: np.ndarray) -> None:
            before = Snapshot.of(self.trainee)
            codes = np.asarray(self.trainee.eval(x))
            assert codes.shape == (len(before.codebooks), len(x))
            assert ((codes >= 0) & (codes < before.codebooks.shape[1])).all()
            before.same_as(self.trainee)

        @rule()
        def save(self) -> None:
            self.saved = self.trainee.save(), Snapshot.of(self.trainee), self.seen

        @precondition(lambda self: self.saved is not None)
        @rule(x=batches)
        def load_into_another_and_go_on(self, x: np.ndarray) -> None:
            assert self.saved is not None
            saved, snapshot, seen = self.saved
            one, other = make(), make()
            for each in (one, other):
                each.load(saved)
                snapshot.same_as(each)
            one.train(x, None, self.seed)
            other.load(one.save())
            Snapshot.of(one).same_as(other)
            self.trainee.load(saved)
            snapshot.same_as(self.trainee)
            self.seen = seen

        @invariant()
        def codewords_are_finite_and_counts_positive(self) -> None:
            now = Snapshot.of(self.trainee)
            assert np.isfinite(now.codebooks).all()
            assert np.isfinite(now.counts).all()
            if self.seen is not None:
                assert (now.counts > 0).all(), now.counts

        @invariant()
        def first_codebook_lies_among_the_vectors_seen(self) -> None:
            if self.seen is not None:
                codewords = np.asarray(self.trainee.codebooks())[0]
                assert inside(codewords, self.seen).all(), f"{codewords} outside {self.seen}"
                if (np.sign(self.seen[0]) == np.sign(self.seen[1])).any():
                    assert (np.abs(codewords).max(axis=1) > 0).all()

    run_state_machine_as_test(
        Training,
        settings=settings(
            deadline=None,
            stateful_step_count=STEPS,
            max_examples=max(1, settings.default.max_examples // 2),
        ),
    )
