"""What values show of themselves: a line in a terminal, a table in a notebook, no numbers."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.small_quantizers import batch, small, trained

import rvq_np
from rvq_np import display, semantic_ids, train
from rvq_np.errors import BackendError, ParameterError, ShapeError

VOID = {"br", "img", "meta", "hr"}


class Page(HTMLParser):
    """Text of HTML, its tags matched; fails where a tag does not end or is loaded from outside."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.said = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert name not in ("src", "href", "onclick"), f"{name}={value}"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.said.append(text)


def projecting():
    return small(codebook_dim=4)


@pytest.mark.quick
def test_the_repr_says_what_state_the_quantizer_is_in():
    rvq = small()
    fresh = rvq.codebooks.fingerprint[:16]
    assert repr(rvq) == (
        "ResidualVectorQuantizer(untrained, train mode, 3 stages of 8 codewords, dimension=6, "
        f"codebook_dim=6, fingerprint {fresh})"
    )
    rvq(batch(), n_q=2)
    assert "(2 of 3 stages trained, train mode, " in repr(rvq)
    rvq(batch())
    assert "(trained, train mode, " in repr(rvq)
    assert fresh not in repr(rvq)
    rvq.eval().freeze([1])
    assert "(trained, eval mode, " in repr(rvq)
    assert ", frozen=(1,), fingerprint " in repr(rvq)
    again = small()
    again.load_state_dict(rvq.state_dict())
    assert "(trained, train mode, " in repr(again)
    assert "(untrained, " in repr(small(kmeans_init=False))
    other = small(n_q=1, bins=[5], decay=0.5)
    assert ", 1 stage of 5 codewords, dimension=6, codebook_dim=6, decay=0.5, " in repr(other)
    assert "3 stages of 8, 4, 8 codewords" in repr(small(bins=[8, 4, 8]))
    assert "9 stages of 4 to 8 codewords" in repr(small(n_q=9, bins=[8, 4, 8] * 3))


@pytest.mark.quick
def test_after_fit_the_quantizer_says_that_calls_train_it():
    rvq = small().fit(batch().transpose(0, 2, 1).reshape(-1, 6))
    assert "(trained, train mode, " in repr(rvq)
    assert "train mode: calls train it; eval() ends that" in rvq._repr_html_()
    assert "eval mode: calls train nothing" in rvq.eval()._repr_html_()


@pytest.mark.quick
def test_projections_by_default_surprise_nobody():
    hint = "codebook_dim=4 (not 6: each stage has linear maps in and out; codebook_dim=None: none)"
    assert hint in repr(projecting())
    assert hint.partition("=")[2] in projecting()._repr_html_()
    assert "linear maps" not in repr(small(codebook_dim=None))


@pytest.mark.quick
def test_results_show_shapes_and_dtypes_not_numbers():
    rvq = trained()
    assert repr(rvq(batch())) == (
        "QuantizedResult(quantized=float32 (2, 6, 20), codes=int32 (3, 2, 20), "
        "bandwidth=float32 (), penalty=float32 ())"
    )
    dropped = trained(quantizer_dropout=True).train()(batch(dtype=np.float64))
    assert "quantized=float64 (2, 6, 20)" in repr(dropped)
    assert "bandwidth=float64 (2,)" in repr(dropped)
    assert "quantization_loss=float64 ()" in repr(dropped)
    page = Page(dropped._repr_html_())
    assert {"codes", "int32 (3, 2, 20)", "quantization_loss"} <= set(page.said)
    strange = rvq_np.QuantizedResult("a", 2, None)
    assert repr(strange) == "QuantizedResult(quantized=str, codes=int)"


SHOWN = {
    "class": trained,
    "projecting class": projecting,
    "codebooks": lambda: trained().codebooks,
    "parallel": lambda: rvq_np.Parallel([np.ones((2, 3, 2), np.float32)] * 2),
    "result": lambda: trained()(batch()),
    "usage": lambda: trained().usage,
    "statistics": lambda: semantic_ids.stats(np.array([[0, 0, 1], [2, 2, 0]]), [2, 4]),
}


@pytest.mark.quick
@pytest.mark.parametrize("made", SHOWN.values(), ids=SHOWN.keys())
def test_notebooks_show_small_tables_that_load_nothing(made):
    html = made()._repr_html_()
    page = Page(html)
    assert len(html) < 5000
    assert ("div", {"class": "rvq-np"}) in page.tags
    assert all(row in dict(page.tags) for row in ("table", "tr", "th"))
    assert "http" not in html
    assert not re.search(r"#[0-9a-f]{3,6}\b|\b(black|white)\b", html)  # colours are the page's


@pytest.mark.quick
def test_tables_say_what_there_is():
    said = Page(SHOWN["codebooks"]()._repr_html_()).said
    for name, value in (("stages", "3"), ("dimension", "6"), ("bits per vector", "9")):
        assert said[said.index(name) + 1] == value
    assert "3 stages" in said
    statistics = Page(SHOWN["statistics"]()._repr_html_()).said
    assert statistics[statistics.index("largest bucket") + 1] == "2"
    usage = trained().usage
    assert isinstance(usage, list)
    assert f"{usage[1].perplexity:.1f}" in Page(usage._repr_html_()).said
    assert "<details open>" in usage._repr_html_()  # there is nothing else to see
    assert "<details>" in trained()._repr_html_()
    maps = Page(rvq_np.Codebooks(projecting().codebooks.stages)._repr_html_()).said
    assert maps.count("in and out") == 3


@pytest.mark.quick
def test_tables_are_escaped_and_end():
    html = display.table("<b>", [("a&b", "<script>")], ["<i>"], [["<x>"]] * (display.MOST + 5))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    page = Page(html)
    assert {"<b>", "a&b", "<script>", "<i>", "5 more"} <= set(page.said)
    assert page.said.count("<x>") == display.MOST


@pytest.mark.quick
def test_codebooks_are_an_array_where_their_stages_are_of_one_size():
    books = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    made = rvq_np.Codebooks(books)
    np.testing.assert_array_equal(np.asarray(made), books)
    assert np.asarray(made).dtype == np.float32
    assert np.asarray(made, dtype=np.float64).dtype == np.float64
    np.array(made)[...] = 0  # a copy
    np.testing.assert_array_equal(np.asarray(made), books)
    assert np.asarray(projecting().codebooks).shape == (3, 8, 4)
    assert np.asarray(rvq_np.Parallel([made, made])).shape == (6, 5, 4)
    sized = rvq_np.Codebooks([books[0], books[1, :3]])
    with pytest.raises(
        ShapeError, match=r"codebooks of shapes \(3, 4\), \(5, 4\); expected one sh"
    ):
        np.asarray(sized)
    assert np.asarray(sized[:1]).shape == (1, 5, 4)
    with pytest.raises(ParameterError, match=r"asarray got copy=False; expected None or True"):
        made.__array__(copy=False)


def test_lists_are_refused_with_the_conversion():
    rvq, x = trained(), batch()[0].T
    calls = (rvq, rvq.encode, rvq.fit, lambda x: rvq_np.encode(x, rvq.codebooks),
             lambda x: train.kmeans(x, 2, 1, 0))  # fmt: skip
    for call in calls:
        with pytest.raises(BackendError) as caught:
            call(x.tolist())
        assert "numpy.asarray(x, dtype=numpy.float32) for vectors" in str(caught.value)
    converted = eval("numpy.asarray(x, dtype=numpy.float32)", {"numpy": np, "x": x.tolist()})
    np.testing.assert_array_equal(rvq.encode(converted), rvq.encode(x))
