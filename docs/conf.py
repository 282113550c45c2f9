"""Sphinx settings: Markdown pages by MyST, API pages by autosummary, examples by sphinx-gallery."""

import importlib
import os
import re
import sys
import warnings
from pathlib import Path

import numpydoc.xref
from docutils import nodes
from sphinx.ext.autodoc.mock import mock, undecorate

import rvq_np
from rvq_np import errors

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]  # tables of the tests

import tables  # noqa: E402

project = "rvq_np"
author = "the rvq_np authors"
copyright = author
version = release = rvq_np.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "_static",
    "examples",
    "gallery",
    "auto_gallery/*.ipynb",
    "auto_gallery/*.py",
    "auto_gallery/*.md5",
    "**/sg_execution_times.rst",
    "sg_execution_times.rst",
]
templates_path = ["_templates"]
default_role = "py:obj"  # `name` in a docstring is a link where there is something to link to

# What API pages import and the extra does not install; the pages are the same with and without.
autodoc_mock_imports = ["torch", "jax", "keras", "mlx", "autograd", "sklearn"]
autodoc_mock_imports += ["rvq_np.grad._keras_backend"]  # it looks at the backend when imported
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shape and dtype, which hints cannot
autosummary_generate = True
toc_object_entries_show_parents = "hide"  # "fit()" in the list of a page, not its class as well
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False  # the class template lists them, once
numpydoc_xref_param_type = True  # links errors, values and the class where a docstring names them
numpydoc_xref_aliases = {
    **{
        name: f"rvq_np.errors.{name}"
        for name in dir(errors)
        if re.fullmatch("[A-Z][a-z]\\w+", name)
    },
    **{
        name: f"rvq_np.{name}"
        for name in ("Codebooks", "Stage", "ResidualVectorQuantizer", "QuantizedResult", "FrontEnd")
    },
}
numpydoc_xref_ignore = "all"
numpydoc.xref.DEFAULT_LINKS.clear()  # they lead to Python's own pages, which are not read here

myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_signature": False,
    "show_memory": False,
    "remove_config_comments": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "doc_module": ("rvq_np",),
    "image_srcset": ["2x"],
    "min_reported_time": 0,
}

html_theme = "pydata_sphinx_theme"
html_title = f"rvq_np {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["site.css"]
html_js_files = ["tables.js"]
html_theme_options = {
    "logo": {"text": "rvq_np"},
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navbar_end": ["version-switcher", "theme-switcher"],
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "switcher": {"json_url": "_static/switcher.json", "version_match": version},
    "check_switcher": False,  # its addresses are those of the published site
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "install": [], "changelog": [], "faq": [], "glossary": []}
html_show_sourcelink = False
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")

tables.write_all(HERE)

with mock(autodoc_mock_imports):  # what Keras registers is a class, not what a mock makes of it
    keras_classes = importlib.import_module("rvq_np.grad.keras")
    keras_classes.ResidualVectorQuantizer = undecorate(keras_classes.ResidualVectorQuantizer)


def _switcher_of_this_copy(app, page, template, context, doctree):
    """Let every page find the list of versions beside it, wherever the site is put."""
    if isinstance(context.get("theme_switcher"), dict):
        url = context["pathto"]("_static/switcher.json", 1)
        context["theme_switcher"] = context["theme_switcher"] | {"json_url": url}


def _texts_for_pictures(app, doctree):
    """Name the thumbnails of the gallery, and drop the empty line that ends an example."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip() and "_thumb." in image["uri"]:
            name = Path(image["uri"]).stem.removeprefix("sphx_glr_").removesuffix("_thumb")
            title = (HERE / "gallery" / f"{name}.py").read_text(encoding="utf-8").split("\n")[1]
            image["alt"] = f"The picture of the example: {title}"
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext() and block.astext().endswith("\n"):
            block.rawsource = block.rawsource.rstrip("\n")
            block.children = []
            block += nodes.Text(block.rawsource)


def setup(app):
    # Examples are shown as they run for users, so whatever warns there is fixed there.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx_gallery")
    app.connect("html-page-context", _switcher_of_this_copy, priority=400)
    app.connect("doctree-read", _texts_for_pictures)
