"""The transformer keeps scikit-learn's contract and gives the codes of the library."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import rvq_np
from rvq_np.errors import CodeRangeError
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
