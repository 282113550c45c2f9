"""Plots return Axes with names and units, draw into those they are given, and open no window."""

import sys
import warnings

import matplotlib
import numpy as np
import pytest
from helpers.small_quantizers import batch, trained
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rvq_np import plot
from rvq_np.errors import MissingExtraError, ParameterError, ShapeError

TONE = np.sin(np.arange(4000) / 4)
CODES = np.array([[0, 0, 1, 1], [2, 2, 0, 1]])
CALLS = {
    "rate_distortion": lambda **on: plot.rate_distortion([1, 2], {"a": [3, 4]}, **on),
    "usage": lambda **on: plot.usage([np.arange(4), np.arange(3)], **on),
    "codebook": lambda **on: plot.codebook(np.eye(6)[None], counts=np.arange(6), **on),
    "spectrograms": lambda **on: plot.spectrograms([("a", TONE), ("b", TONE)], 16000, **on),
    "buckets": lambda **on: plot.buckets(CODES, (2, 4), **on),
}
COUNT = {"spectrograms": 2, "buckets": 3}
each_call = pytest.mark.parametrize("name", CALLS)


def axes_of(found):
    return found if isinstance(found, list) else [found]


@each_call
def test_each_draws_into_the_axes_given_and_returns_them(name, tmp_path):
    figure = Figure()
    FigureCanvasAgg(figure)
    count = COUNT.get(name, 1)
    given = [figure.add_subplot(count, 1, n + 1) for n in range(count)]
    found = CALLS[name](ax=given if count > 1 else given[0])
    assert axes_of(found) == given
    assert len(figure.axes) - count == (name in ("usage", "codebook", "spectrograms"))  # the bar
    figure.savefig(tmp_path / "figure.png")
    with pytest.raises(ShapeError, match=f"{name}: ax is {count + 1} Axes; expected {count}"):
        CALLS[name](ax=[*given, given[0]])


def settings():
    """What matplotlib has for all figures, but the backend, which asking for would choose."""
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


@each_call
def test_each_makes_a_figure_with_names_and_units_and_no_global_state(name, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = settings()
    found = axes_of(CALLS[name](path=tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert "matplotlib.pyplot" not in sys.modules
    assert settings() == before
    assert found[-1].get_xlabel()
    for axis in found:
        assert axis.get_ylabel()
        assert axis.get_title() or axis.get_title(loc="left") or name == "buckets"
    bars = [each for each in found[0].figure.axes if each not in found]
    assert all(bar.get_ylabel() for bar in bars)


@each_call
def test_where_pyplot_is_in_use_its_figures_are_shown(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own import
        import matplotlib.pyplot as plt
    plt.switch_backend("Agg")
    try:
        found = axes_of(CALLS[name]())
        assert plt.get_fignums() == [found[0].figure.number]
    finally:
        plt.close("all")


@each_call
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=rf"{name}: matplotlib .* pip install 'rvq-np\[pl"):
        CALLS[name]()


def test_lines_have_the_names_of_the_mapping():
    ax = plot.rate_distortion([1, 2], {"a": [3, 4], "b": [5, 6]}, title="T", ylabel="error")
    assert [each.get_text() for each in ax.get_legend().get_texts()] == ["a", "b"]
    assert (ax.get_title(), ax.get_ylabel()) == ("T", "error")
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 5], [2, 6]])
    alone = plot.rate_distortion([1, 2], [3, 4])
    assert alone.get_legend() is None
    with pytest.raises(
        ShapeError, match="rate_distortion: 'a' has 1 values; expected 2, one per bit"
    ):
        plot.rate_distortion([1, 2], {"a": [3]})


def test_usage_is_in_multiples_of_the_mean_most_used_first():
    image = plot.usage([[1, 3, 0, 4], [2, 0]]).images[0].get_array()
    np.testing.assert_array_equal(image[0], [2, 1.5, 0.5, 0])
    np.testing.assert_array_equal(image[1][:2], [2, 0])
    assert np.ma.getmaskarray(image)[1].tolist() == [False, False, True, True]
    rvq = trained()
    image = plot.usage(rvq).images[0].get_array()
    assert image.shape == (3, 8)
    assert (image == 0).mean() == pytest.approx(1 - np.mean([u.utilisation for u in rvq.usage]))
    for wrong in ([], [[[1]]], [[]]):
        with pytest.raises(ShapeError, match="usage: counts have shapes"):
            plot.usage(wrong)


def test_codewords_are_projected_to_the_plane_in_which_they_vary_most():
    rng = np.random.default_rng(0)
    flat = np.zeros((20, 5))
    flat[:, [1, 3]] = rng.standard_normal((20, 2)) * [5, 1]
    flat[:, 0] = 100  # far from zero, and no variance
    ax = plot.codebook(flat[None], vectors=flat[:3])
    behind, dots = (each.get_offsets() for each in ax.collections)
    spread = np.square(dots - dots.mean(axis=0)).sum()
    assert spread == pytest.approx(np.square(flat - flat.mean(axis=0)).sum())
    np.testing.assert_allclose(behind, dots[:3])
    shares = [float(each().split()[2].rstrip("%")) for each in (ax.get_xlabel, ax.get_ylabel)]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert shares[0] > shares[1]
    assert plot.codebook(trained().codebooks, 2).get_title() == "Codebook of stage 2"
    assert plot.codebook(np.ones((1, 3, 1))).get_xlabel()
    for stage in (-1, 3):
        with pytest.raises(ParameterError, match=f"codebook: stage is {stage}; expected 0 to 2"):
            plot.codebook(trained().codebooks, stage)
    with pytest.raises(ShapeError, match=r"vectors have shape \(2, 6, 20\); expected \(N, 6\)"):
        plot.codebook(trained().codebooks, vectors=batch())
    with pytest.raises(ShapeError, match=r"counts have shape \(2,\); expected \(8,\)"):
        plot.codebook(trained().codebooks, counts=[1, 2])


def test_spectrograms_share_the_scale_of_the_first():
    first, second = plot.spectrograms([("a", TONE), ("b", 0.01 * TONE)], 16000)
    assert first.images[0].get_clim() == second.images[0].get_clim()
    low, high = first.images[0].get_clim()
    assert high - low == 80
    assert high == first.images[0].get_array().max()
    assert second.images[0].get_array().max() == pytest.approx(high - 40, abs=0.1)
    peak = first.images[0].get_array()[:, 5].argmax() / 256 * 8000
    assert peak == pytest.approx(16000 / (8 * np.pi), abs=40)  # 4 samples a radian
    assert tuple(first.images[0].get_extent()) == (0, 0.25, 0, 8)
