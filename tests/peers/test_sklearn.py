"""The transformer keeps scikit-learn's contract and gives the codes of the library."""

import inspect
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import rvq_np
from rvq_np import checkpoints, train
from rvq_np.errors import CodeRangeError, DtypeError, ParameterError
from rvq_np.sklearn import ResidualQuantizer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_keeps_the_contract_of_scikit_learn():
    """All of scikit-learn's own checks."""
    passed = 0
    for estimator, check in estimator_checks_generator(ResidualQuantizer(bins=4)):
        if "array_api" in str(check):
            continue  # wants SCIPY_ARRAY_API set before scipy is imported
        check(estimator)
        passed += 1
    assert passed > 35


def test_codes_are_those_of_the_library_vectors_first():
    x = np.random.default_rng(0).standard_normal((300, 6))
    quantizer = ResidualQuantizer(n_q=3, bins=8, random_state=1).fit(x)
    codes = quantizer.transform(x)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, quantizer.codebooks_).T)
    decoded = quantizer.inverse_transform(codes)
    np.testing.assert_array_equal(decoded, rvq_np.decode(codes.T, quantizer.codebooks_))
    assert np.square(x - decoded).mean() < np.square(x - quantizer.inverse_transform(
        codes[:, :1])).mean()  # fmt: skip
    again = ResidualQuantizer(n_q=3, bins=8, random_state=1).fit(x)
    np.testing.assert_array_equal(again.transform(x), codes)
    with pytest.raises(CodeRangeError):
        quantizer.inverse_transform(codes + 8)


def test_it_stands_in_a_pipeline():
    x = 5 + 3 * np.random.default_rng(0).standard_normal((200, 4))
    pipeline = make_pipeline(StandardScaler(), ResidualQuantizer(n_q=4, bins=16, random_state=0))
    codes = pipeline.fit_transform(x)
    assert np.square(x - pipeline.inverse_transform(codes)).mean() < 0.5
    assert len(pipeline.get_feature_names_out()) == 4


def vectors(n=300, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 6))


@pytest.mark.parametrize(("name", "value"), [
    ("n_q", 0), ("n_q", "3"), ("n_q", 1.5), ("n_q", None), ("n_q", True), ("bins", 0),
    ("bins", -1), ("max_iter", 0), ("tol", "a"), ("tol", np.nan), ("beam_size", 0),
    ("beam_size", "x"), ("spherical", 2),
])  # fmt: skip
@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_parameters_are_refused_by_name_before_any_work(name, value, call):
    estimator = ResidualQuantizer(**{name: value})
    with pytest.raises(ParameterError, match=rf"ResidualQuantizer\.{call}: {name} is "):
        getattr(estimator, call)(vectors())
    assert not hasattr(estimator, "codebooks_")


def test_parameters_may_be_any_whole_numbers():
    x = vectors()
    expected = ResidualQuantizer(n_q=2, bins=8, random_state=0).fit(x)
    for n_q in (np.int64(2), np.array(2)):
        ours = ResidualQuantizer(n_q=n_q, bins=np.array(8), random_state=0).fit(x)
        assert ours.codebooks_ == expected.codebooks_
        assert ours.n_iter_ == expected.n_iter_ > 1


def test_the_score_is_the_negative_error_and_chooses_among_parameters():
    x = vectors()
    search = GridSearchCV(ResidualQuantizer(random_state=0, bins=8), {"n_q": [1, 3, 2]}, cv=3)
    search.fit(x)
    assert search.best_params_ == {"n_q": 3}
    best = search.best_estimator_
    expected = -np.square(x - best.inverse_transform(best.transform(x))).mean()
    assert best.score(x) == pytest.approx(expected, rel=1e-12)
    assert expected < 0
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    again = clone(best)
    assert again.get_params() == best.get_params()
    assert not hasattr(again, "codebooks_")


def test_partial_fit_learns_from_batch_after_batch():
    estimator, x = ResidualQuantizer(n_q=2, bins=8, random_state=0), vectors(2000)
    assert estimator.partial_fit(x[:200]) is estimator
    books, first = estimator.codebooks_, estimator.score(x + 3)
    for start in range(200, 2000, 200):
        estimator.partial_fit(x[start : start + 200] + 3)
    assert estimator.codebooks_ != books
    assert estimator.score(x + 3) > first
    with pytest.raises(ValueError, match="features"):
        estimator.partial_fit(x[:, :3])
    again = ResidualQuantizer(n_q=2, bins=8, random_state=0).partial_fit(x[:200])
    assert again.codebooks_ == books
    fitted = ResidualQuantizer(n_q=2, bins=8, random_state=0).fit(x)
    before = fitted.score(x)
    fitted.partial_fit(x[:500])
    assert fitted.score(x) > 1.1 * before  # it goes on from what fit found
    assert fitted.fit(x).codebooks_ == ResidualQuantizer(
        n_q=2, bins=8, random_state=0).fit(x).codebooks_  # fmt: skip


def test_a_model_file_holds_the_fitted_codebooks(tmp_path):
    estimator, x = ResidualQuantizer(n_q=2, bins=8, random_state=0).fit(vectors()), vectors(50)
    estimator.save(tmp_path / "model.safetensors")
    loaded = rvq_np.ResidualVectorQuantizer.load(tmp_path / "model.safetensors")
    codes = estimator.transform(x)
    np.testing.assert_array_equal(loaded.encode(x, 1).T, codes)
    quantizer = estimator.to_quantizer()
    np.testing.assert_array_equal(quantizer.decode(codes.T), estimator.inverse_transform(codes))
    quantizer.train()(3 + x, 1)  # of its own
    np.testing.assert_array_equal(estimator.transform(x), codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(x), codes)


def test_dropped_codes_add_nothing():
    estimator = ResidualQuantizer(n_q=3, bins=8, random_state=0).fit(vectors())
    codes = estimator.transform(vectors(20))
    without = codes.copy()
    without[:, 1:] = -1
    np.testing.assert_array_equal(
        estimator.inverse_transform(without), estimator.inverse_transform(codes[:, :1])
    )


def test_types_are_those_of_the_library():
    x = vectors()
    estimator = ResidualQuantizer(n_q=2, bins=8, random_state=0).fit(x)
    codes = estimator.transform(x)
    np.testing.assert_array_equal(estimator.transform(x.astype(">f8")), codes)
    assert ResidualQuantizer(n_q=2, bins=8, random_state=0).fit(
        x.astype(">f8")).codebooks_ == estimator.codebooks_  # fmt: skip
    for call in (estimator.fit, estimator.transform, estimator.partial_fit):
        with pytest.raises(DtypeError, match=r"ResidualQuantizer\..* has dtype float\d+"):
            call(x.astype(np.longdouble))


def test_there_is_no_sample_weight_and_the_page_says_so():
    for name in ("fit", "partial_fit", "score"):
        assert "sample_weight" not in inspect.signature(getattr(ResidualQuantizer, name)).parameters
    assert "sample_weight" in inspect.getdoc(ResidualQuantizer)


def test_stages_may_have_sizes_of_their_own(rng):
    x = rng.standard_normal((400, 5))
    quantizer = ResidualQuantizer(n_q=3, bins=[8, 4, 6], random_state=1).fit(x)
    assert quantizer.codebooks_.sizes == (8, 4, 6)
    assert quantizer.transform(x).max(axis=0).tolist() == [7, 3, 5]
    assert quantizer.to_quantizer().bins == (8, 4, 6)
    online = ResidualQuantizer(n_q=3, bins=(8, 4, 6), random_state=1).partial_fit(x)
    assert online.codebooks_.sizes == (8, 4, 6)
    with pytest.raises(ParameterError, match=r"ResidualQuantizer.fit: bins is \[8, 4\]; expected"):
        ResidualQuantizer(n_q=3, bins=[8, 4]).fit(x)


@pytest.mark.parametrize(("spherical", "normalize"), [(True, False), (False, True), (True, True)])
def test_directions_are_searched_saved_and_nothing_else(spherical, normalize, tmp_path):
    x = vectors()
    options = {"spherical": spherical, "normalize_residuals": normalize}
    quantizer = clone(ResidualQuantizer(3, 8, random_state=1, **options)).fit(x)
    rng = np.random.default_rng(np.random.RandomState(1).randint(2**31 - 1))
    books = train.codebooks_of(train.fit(x, 3, 8, 25, rng, **options))
    assert quantizer.codebooks_ == books
    np.testing.assert_array_equal(quantizer.transform(x), rvq_np.encode(x, books).T)
    quantizer.save(tmp_path / "m.safetensors")
    assert checkpoints.load(tmp_path / "m.safetensors").fingerprint == books.fingerprint
    with pytest.raises(ParameterError, match=r"to_quantizer: it was fitted with spherical or"):
        quantizer.to_quantizer()
    name = "spherical" if spherical else "normalize_residuals"
    with pytest.raises(ParameterError, match=f"partial_fit: {name} is True; expected False"):
        quantizer.partial_fit(x)
    quantizer.set_params(spherical=False, normalize_residuals=False)
    first = ResidualQuantizer(3, 8, random_state=1).partial_fit(x)
    assert quantizer.partial_fit(x).codebooks_ == first.codebooks_


def test_refine_is_that_of_fit():
    rng = np.random.default_rng(0)
    x = sum(rng.standard_normal((12, 6))[rng.integers(0, 12, 3000)] for _ in range(3))
    fitted = [
        ResidualQuantizer(4, 16, max_iter=5, random_state=0, refine=refine).fit(x)
        for refine in (None, False, True, {"iterations": 0})
    ]
    plain, off, refined, none = (each.codebooks_ for each in fitted)
    assert plain == off == none != refined
    assert fitted[3].n_iter_ == fitted[1].n_iter_ <= 5
    with pytest.raises(ParameterError, match="refine is 3"):
        ResidualQuantizer(refine=3).fit(x)
