"""Data frames instead of arrays are refused with the conversion, and the conversion works."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import rvq_np
from rvq_np.errors import BackendError

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
RVQ = rvq_np.ResidualVectorQuantizer(4, 4, n_q=2, bins=4, rng=0).fit(X).eval()
COLUMNS = dict(zip("abcd", X.T, strict=True))
FRAMES = {
    "pandas": pd.DataFrame(X), "polars": pl.DataFrame(COLUMNS),
    "polars later": pl.DataFrame(COLUMNS).lazy(), "pyarrow": pa.table(COLUMNS),
    "pandas series": pd.Series(list(X)), "polars series": pl.Series(X.tolist()),
}  # fmt: skip
LISTS = {
    "pandas": pd.DataFrame({"NAME": list(X)}), "polars": pl.DataFrame({"NAME": X.tolist()}),
    "polars later": pl.DataFrame({"NAME": X.tolist()}).lazy(),
    "pyarrow": pa.table({"NAME": X.tolist()}),
}  # fmt: skip


def conversions(frame):
    """Return the expressions of the message, for a refused `frame`."""
    calls = (RVQ, RVQ.encode, RVQ.fit, lambda x: rvq_np.encode(x, RVQ.codebooks))
    said = set()
    for call in calls:
        with pytest.raises(BackendError, match=re.escape(type(frame).__name__)) as caught:
            call(frame)
        said.add(str(caught.value))
    (text,) = said
    return re.findall(r"numpy\.(?:asarray|stack)\(.*?float32\)", text)


def converted(expression, frame):
    return eval(expression, {"numpy": np, "x": frame, "NAME": "NAME"})


@pytest.mark.parametrize("name", FRAMES)
def test_the_named_conversion_gives_the_codes_of_the_array(name):
    x = converted(conversions(FRAMES[name])[0], FRAMES[name])
    assert x.dtype == np.float32
    np.testing.assert_array_equal(RVQ.encode(x), RVQ.encode(X))


@pytest.mark.parametrize("name", LISTS)
def test_so_does_that_of_a_column_of_lists(name):
    x = converted(conversions(LISTS[name])[-1], LISTS[name])
    np.testing.assert_array_equal(RVQ.encode(x), RVQ.encode(X))
