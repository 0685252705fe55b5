"""How Sphinx makes a site of these pages: `make docs`, without the network, every warning an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import from_code  # beside this file

import ubend

project = "ubend"
author = copyright = "the ubend developers"
version = release = ubend.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["pictures.py"]

# The pages are read on a code host too: plain Markdown, links to headings by the names that code hosts give them.
myst_heading_anchors = 4
smartquotes = False  # -- is an option, not a dash

# Types stand in the docstrings, with shapes and dtypes, which annotations do not have.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

nitpick_ignore = [("py:class", "torch.Tensor"), ("py:class", "collections.abc.Callable")]  # aliases of other packages

html_theme = "furo"
html_title = f"ubend {release}"
html_show_sourcelink = html_copy_source = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#005f8f", "color-brand-content": "#00679c"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#8fcdf1"},
}


def setup(app):
    app.add_directive("from-code", from_code.FromCode)
