"""Every docstring example runs, and every public name has a whole docstring."""

import doctest
import inspect
import json
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import rvq_np
from bench import front
from rvq_np import checkpoints

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "rvq_np.kernels.cuda.driver",
    "rvq_np.kernels.cuda.launch",
    "rvq_np.kernels.cuda.search",
    "rvq_np.backends.cupy",
    "rvq_np.backends.torch",
    "rvq_np.backends.jax",
    "rvq_np.grad._jax_operator",
    "rvq_np.grad._keras_backend",
    "rvq_np.grad._torch_eager",
    "rvq_np.grad._torch_operator",
    "rvq_np.grad._torch_processes",
    "rvq_np.grad.autograd",
    "rvq_np.grad.jax",
    "rvq_np.grad.keras",
    "rvq_np.grad.mlx",
    "rvq_np.grad.tensorflow",
    "rvq_np.grad.torch",
    "rvq_np.sklearn",
}  # imported by tests/peers
MODULES = [
    each.name
    for each in pkgutil.walk_packages(rvq_np.__path__, "rvq_np.")
    if each.name not in ELSEWHERE and not each.name.endswith("__main__")
]

IDS = tuple(
    getattr(rvq_np.semantic_ids, name)
    for name in (
        "assign", "balance", "candidates", "fit_balanced", "from_tokens", "pack", "resolve",
        "shared_prefixes", "stats", "to_tokens", "unpack",
    )
)  # fmt: skip


@pytest.mark.parametrize("name", ["rvq_np", *MODULES])
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(import_module(name))
    assert result.failed == 0


@pytest.mark.quick
def test_the_public_functions_have_examples():
    for thing in (
        rvq_np.encode, rvq_np.decode, rvq_np.Codebooks, rvq_np.Stage,
        rvq_np.ResidualVectorQuantizer, rvq_np.train.kmeans, rvq_np.train.ema,
        rvq_np.train.expire, rvq_np.train.fit, rvq_np.testing.rvq_tests,
        rvq_np.grad.quantize, rvq_np.grad.quantize_vjp, *IDS,
    ):  # fmt: skip
        assert ">>>" in inspect.getdoc(thing), thing


@pytest.mark.quick
def test_public_functions_say_what_they_take_give_and_refuse():
    for function in (
        rvq_np.encode, rvq_np.decode, rvq_np.train.kmeans, rvq_np.train.fit,
        rvq_np.ResidualVectorQuantizer.encode, rvq_np.ResidualVectorQuantizer.decode,
        rvq_np.ResidualVectorQuantizer.forward, rvq_np.ResidualVectorQuantizer.fit,
        rvq_np.grad.quantize, rvq_np.grad.quantize_vjp, *IDS,
    ):  # fmt: skip
        text = inspect.getdoc(function)
        for section in ("Parameters", "Returns", "Raises"):
            assert f"{section}\n{'-' * len(section)}" in text, (function, section)
        for name in inspect.signature(function).parameters:
            assert name == "self" or re.search(rf"^{name}.* : |, {name}", text, re.M), name


@pytest.mark.quick
def test_every_family_has_a_page_with_a_command():
    folder = ROOT / "docs" / "checkpoints"
    assert {path.stem for path in folder.glob("*.md")} == {"index", *checkpoints.families()}
    overview = (folder / "index.md").read_text()
    for family in checkpoints.families():
        text = (folder / f"{family}.md").read_text()
        assert re.search(r"```\nrvq-np (encode|convert) .+\n```", text), family
        assert "## Proved" in text
        assert "## Differences" in text
        assert f"| [{family}]({family}.md) |" in overview
        assert f"\n{family}\n" in overview


@pytest.mark.quick
def test_the_readme_sets_up_in_two_lines():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    for block in blocks:
        assert block.count("\n") == 1
        assert "pip install" in block
    assert "rvq-np demo" in blocks[0]
    assert "pytest" in blocks[1]


SITE = "https://rvq-np.readthedocs.io/en/latest/"


@pytest.mark.quick
def test_the_links_of_the_readme_work_on_pypi_as_well():
    """Absolute, and each to a page that is here, or is made from the gallery."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 15
    for link in links:
        assert link.startswith(SITE), link
        path, _, place = link.removeprefix(SITE).partition("#")
        if not path or path == "auto_gallery/index.html":
            continue
        page = ROOT / "docs" / path
        if path.startswith("_static/"):
            assert page.is_file(), link
            continue
        sources = [page.with_suffix(kind) for kind in (".md", ".rst")]
        (source,) = [each for each in sources if each.is_file()]
        headings = re.findall(r"^#+ (.+)$", source.read_text(), re.M)
        assert not place or place in {each.lower().replace(" ", "-") for each in headings}, link


@pytest.mark.quick
def test_every_public_name_has_a_page():
    """Whatever `__all__` of a public module holds is in the lists of docs/api."""
    folder = ROOT / "docs" / "api"
    lists = (folder / "index.rst").read_text() + (folder / "frameworks.rst").read_text()
    whole = {"rvq_np.errors", "rvq_np.grad"}  # on one page each, made of the module
    internal = {
        "train": {"ALONE", "ENOUGH", "entries", "fresh", "random_stage", "reporting", "sample_rows",
                  "shapes", "stages_of"},
    }  # fmt: skip
    errors = {name for name in dir(rvq_np.errors) if name[0].isupper()}
    for module, prefix in ((rvq_np, ""), (rvq_np.train, "train."), (rvq_np.export, "export.")):
        for name in set(module.__all__) - errors - internal.get(prefix[:-1], set()):
            assert name == "__version__" or f"   {prefix}{name}\n" in lists, prefix + name
    for name in whole:
        assert f"   {name.removeprefix('rvq_np.')}\n" in lists


def test_the_first_picture_is_drawn_from_the_points_that_are_there(tmp_path):
    """It named a method that a later measurement no longer had."""
    points = json.loads((ROOT / "bench" / "quality.json").read_text())
    front.draw(tmp_path / "front.svg", points)
    assert "<svg" in (tmp_path / "front.svg").read_text()
    with pytest.raises(KeyError, match="refined"):
        front.draw(tmp_path / "less.svg", [p for p in points if p.get("method") != "refined"])


@pytest.mark.quick
def test_the_citation_and_the_list_of_versions_are_of_this_version():
    assert f"\nversion: {rvq_np.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    versions = json.loads((ROOT / "docs/_static/switcher.json").read_text())
    assert rvq_np.__version__ in {each["version"] for each in versions}


def test_the_readme_example_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert 8 <= len(example.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
