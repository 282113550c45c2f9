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

    def codebooks(self):
        return np.stack([stage.codebook for stage in self.rvq.codebooks])

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
            for stage, value in enumerate(values):
                state[BOOK.format(stage, name)] = np.asarray(value, np.float32)
        self.rvq.load_state_dict(state)

    def sums(self):
        state = self.rvq.state_dict()
        return np.stack([state[BOOK.format(q, "embed_avg")] for q in range(2)])


class MaskIgnored(Ours):
    def train(self, x, mask, seed):
        super().train(x, None, seed)


class MaskForgottenByFirstCodewords(Ours):
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


class EvalFindsFirstCodewords(Ours):
    def eval(self, x):
        if not self.rvq.is_initialized:
            self.train(x, None, 0)
        return super().eval(x)


class SumsNotTimesCounts(Ours):
    """k-means gives means where sums are expected."""

    def train(self, x, mask, seed):
        fresh = not self.rvq.is_initialized
        super().train(x, mask, seed)
        if fresh and self.rvq.is_initialized:
            self.change(embed_avg=self.codebooks())


class NoExpiry(Ours):
    def fresh(self, seed=0):
        return rvq_np.ResidualVectorQuantizer(
            3, 3, 2, 8, decay=0.5, kmeans_iters=10, threshold_ema_dead_code=0, rng=seed
        )


class ExpiryForgetsTheSum(Ours):
    """A replaced codeword keeps the sum of the old one, as large as its new count says."""

    def fresh(self, seed=0):
        return rvq_np.ResidualVectorQuantizer(
            3, 3, 2, 8, decay=0.5, kmeans_iters=10, threshold_ema_dead_code=2, rng=seed
        )

    def train(self, x, mask, seed):
        before = self.codebooks()
        super().train(x, mask, seed)
        codewords, sums, counts = self.codebooks(), self.sums(), self.counts()
        replaced = (counts == 2) & (sums == 2 * codewords).all(axis=2)
        sums[replaced] = 2 * before[replaced]
        self.change(embed_avg=sums)


class ZeroCodewordsForEmptyClusters(Ours):
    def train(self, x, mask, seed):
        fresh = not self.rvq.is_initialized
        super().train(x, mask, seed)
        if fresh and self.rvq.is_initialized:
            codewords = self.codebooks()
            for stage, codes in enumerate(self.eval(x)):
                codewords[stage, np.setdiff1d(np.arange(8), codes)] = 0
            self.change(embed=codewords)


class NanSpreads(Ours):
    def train(self, x, mask, seed):
        try:
            super().train(x, mask, seed)
        except rvq_np.errors.NonFiniteError:
            super().train(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), mask, seed)


class LastStageNotTrained(Ours):
    def train(self, x, mask, seed):
        before = self.codebooks(), self.counts(), self.sums()
        super().train(x, mask, seed)
        codewords, counts, sums = self.codebooks(), self.counts(), self.sums()
        for new, old in zip((codewords, counts, sums), before, strict=True):
            new[-1] = old[-1]
        self.change(embed=codewords, cluster_size=counts, embed_avg=sums)


class SaveForgetsCounts(Ours):
    def save(self):
        return {k: v for k, v in super().save().items() if not k.endswith("cluster_size")}

    def load(self, saved):
        counts = {BOOK.format(q, "cluster_size"): np.ones(8, np.float32) for q in range(2)}
        super().load({**saved, **counts})


class SaveForgetsSums(Ours):
    """The counts are there; the sums are made up from the codewords when loading."""

    def load(self, saved):
        super().load(saved)
        self.change(embed_avg=self.codebooks() * 0.9 * self.counts()[:, :, None])


class SaveIsNoCopy(Ours):
    def save(self):
        return self

    def load(self, saved):
        self.rvq = saved.rvq


class CountsStartAtNothing(Ours):
    """And sums by counts of about nothing explode."""

    def train(self, x, mask, seed):
        super().train(x, mask, seed)
        codewords, counts = self.codebooks(), self.counts()
        low = counts < 2.5
        self.change(embed=np.where(low[:, :, None], codewords * 1000, codewords))


KILLED_BY = {
    MaskIgnored: "what_is_under_the_mask_has_no_influence",
    MaskForgottenByFirstCodewords: "what_is_under_the_mask_has_no_influence",
    EvalTrains: "evaluation_changes_nothing",
    EvalFindsFirstCodewords: "evaluation_changes_nothing",
    SumsNotTimesCounts: "a_step_after_the_first_leaves_codewords_among_the_vectors",
    NoExpiry: "an_unused_codeword_becomes_a_vector_of_the_batch",
    ExpiryForgetsTheSum: "a_codeword_that_was_replaced_stays_among_the_vectors",
    ZeroCodewordsForEmptyClusters: "the_first_codewords_lie_among_the_vectors",
    NanSpreads: "a_batch_with_a_bad_number_changes_nothing",
    LastStageNotTrained: "every_stage_learns",
    SaveForgetsCounts: "what_was_saved_goes_on_as_if_nothing_had_been",
    SaveForgetsSums: "what_was_saved_goes_on_as_if_nothing_had_been",
    SaveIsNoCopy: "what_was_saved_does_not_change_any_more",
    CountsStartAtNothing: "any_order_of_steps",
}
