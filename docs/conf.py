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

# The pages are read on a code host too: plain Markdown, links to headings by the names that code hosts give them.
myst_heading_anchors = 4
smartquotes = False  # -- is an option, not a dash

# Types stand in the docstrings, with shapes and dtypes, which annotations do not have.
default_role = "code"
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
    f"{mode}_css_variables": {
        "color-brand-primary": link,
        "color-brand-content": link,
        "color-api-name": link,
        "color-api-pre-name": pale,
    }
    for mode, link, pale in (("light", "#00679c", "#5c5c5c"), ("dark", "#8fcdf1", "#a0a0a0"))
}


def setup(app):
    app.add_directive("from-code", from_code.FromCode)
