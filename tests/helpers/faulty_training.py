"""`ResidualVectorQuantizer` as the kit trains it, and the same with one fault each."""

import warnings

import numpy as np

import rvq_np

RATE = 50
BOOK = "vq.layers.{}._codebook.{}"


class Ours:
    """An adapter of `rvq_np.testing.training_tests`, by public names only."""

    def __init__(self):
        self.rvq = self.fresh()

    def fresh(self, seed=0):
        return rvq_np.ResidualVectorQuantizer(3, 3, 2, 8, decay=0.5, kmeans_iters=10, rng=seed)

    def train(self, x, mask, seed):
        rvq = self.fresh(seed)
        rvq.load_state_dict(self.rvq.state_dict())
        rvq(x, RATE, mask=mask)
        self.rvq = rvq

    def eval(self, x):
        self.rvq.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rvq_np.NotInitializedWarning)
            return self.rvq(x, RATE).codes

    def words(self):
        return np.stack([stage.words for stage in self.rvq.codebooks])

    def counts(self):
        state = self.rvq.state_dict()
        return np.stack([state[BOOK.format(q, "cluster_size")] for q in range(2)])

    def save(self):
        return self.rvq.state_dict()

    def load(self, saved):
        self.rvq = self.fresh()
        self.rvq.load_state_dict(saved)

    def change(self, **entries):
        """Put other arrays (Q, ...) into the state, by the last part of their names."""
        state = self.rvq.state_dict()
        for name, values in entries.items():
            for level, value in enumerate(values):
                state[BOOK.format(level, name)] = np.asarray(value, np.float32)
        self.rvq.load_state_dict(state)

    def sums(self):
        state = self.rvq.state_dict()
        return np.stack([state[BOOK.format(q, "embed_avg")] for q in range(2)])


class MaskIgnored(Ours):
    def train(self, x, mask, seed):
        super().train(x, None, seed)


class MaskForgottenByFirstWords(Ours):
    def train(self, x, mask, seed):
        fresh = not self.rvq.is_initialized
        super().train(x, None if fresh and mask is not None and mask.any() else mask, seed)


class EvalTrains(Ours):
    def eval(self, x):
        if not self.rvq.is_initialized:
            return super().eval(x)
        codes = super().eval(x)
        self.train(x, None, 0)
        return codes


class EvalFindsFirstWords(Ours):
    def eval(self, x):
        if not self.rvq.is_initialized:
            self.train(x, None, 0)
        return super().eval(x)


class SumsNotTimesCounts(Ours):
    """k-means gives means where sums are wanted."""

    def train(self, x, mask, seed):
        fresh = not self.rvq.is_initialized
        super().train(x, mask, seed)
        if fresh and self.rvq.is_initialized:
            self.change(embed_avg=self.words())


class NoExpiry(Ours):
    def fresh(self, seed=0):
        return rvq_np.ResidualVectorQuantizer(
            3, 3, 2, 8, decay=0.5, kmeans_iters=10, threshold_ema_dead_code=0, rng=seed
        )


class ExpiryForgetsTheSum(Ours):
    """A replaced word keeps the sum of the old one, as large as its new count says."""

    def train(self, x, mask, seed):
        before = self.words()
        super().train(x, mask, seed)
        words, sums, counts = self.words(), self.sums(), self.counts()
        replaced = (counts == 2) & (sums == 2 * words).all(axis=2)
        sums[replaced] = 2 * before[replaced]
        self.change(embed_avg=sums)


class ZeroWordsForEmptyClusters(Ours):
    def train(self, x, mask, seed):
        fresh = not self.rvq.is_initialized
        super().train(x, mask, seed)
        if fresh and self.rvq.is_initialized:
            words = self.words()
            for level, codes in enumerate(self.eval(x)):
                words[level, np.setdiff1d(np.arange(8), codes)] = 0
            self.change(embed=words)


class NanSpreads(Ours):
    def train(self, x, mask, seed):
        try:
            super().train(x, mask, seed)
        except rvq_np.errors.NonFiniteError:
            super().train(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), mask, seed)


class LastLevelNotTrained(Ours):
    def train(self, x, mask, seed):
        before = self.words(), self.counts(), self.sums()
        super().train(x, mask, seed)
        words, counts, sums = self.words(), self.counts(), self.sums()
        for new, old in zip((words, counts, sums), before, strict=True):
            new[-1] = old[-1]
        self.change(embed=words, cluster_size=counts, embed_avg=sums)


class SaveForgetsCounts(Ours):
    def save(self):
        return {k: v for k, v in super().save().items() if not k.endswith("cluster_size")}

    def load(self, saved):
        counts = {BOOK.format(q, "cluster_size"): np.ones(8, np.float32) for q in range(2)}
        super().load({**saved, **counts})


class SaveForgetsSums(Ours):
    """The counts are there; the sums are made up from the words when loading."""

    def load(self, saved):
        super().load(saved)
        self.change(embed_avg=self.words() * 0.9 * self.counts()[:, :, None])


class SaveIsNoCopy(Ours):
    def save(self):
        return self

    def load(self, saved):
        self.rvq = saved.rvq


class CountsStartAtNothing(Ours):
    """And sums by counts of about nothing explode."""

    def train(self, x, mask, seed):
        super().train(x, mask, seed)
        words, counts = self.words(), self.counts()
        low = counts < 2.5
        self.change(embed=np.where(low[:, :, None], words * 1000, words))


KILLED_BY = {
    MaskIgnored: "what_is_under_the_mask_has_no_influence",
    MaskForgottenByFirstWords: "what_is_under_the_mask_has_no_influence",
    EvalTrains: "evaluation_changes_nothing",
    EvalFindsFirstWords: "evaluation_changes_nothing",
    SumsNotTimesCounts: "a_step_after_the_first_leaves_words_among_the_vectors",
    NoExpiry: "a_word_nobody_chooses_becomes_a_vector_of_the_batch",
    ExpiryForgetsTheSum: "a_word_that_was_replaced_stays_among_the_vectors",
    ZeroWordsForEmptyClusters: "the_first_words_lie_among_the_vectors",
    NanSpreads: "a_batch_with_a_bad_number_changes_nothing",
    LastLevelNotTrained: "every_level_learns",
    SaveForgetsCounts: "what_was_saved_goes_on_as_if_nothing_had_been",
    SaveForgetsSums: "what_was_saved_goes_on_as_if_nothing_had_been",
    SaveIsNoCopy: "what_was_saved_does_not_change_any_more",
    CountsStartAtNothing: "any_order_of_steps",
}
