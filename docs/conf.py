"""How the documentation is built: ``make docs``; warnings are errors, and pages with code are executed."""

import os
import sys
from pathlib import Path

from gaussian_test import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "gaussian_test"
author = "The gaussian_test authors"
release = version = __version__
project_copyright = author

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # what is built can be read without a network
    "from_the_code",
]
exclude_patterns = ["_build", "conf.py", "from_the_code.py", "rooms.py", "**/.ipynb_checkpoints"]
nitpicky = True
# in numpydoc sections types are prose: "array, shape (modes,)"
nitpick_ignore_regex = [("py:.*", r".*")]

# pages with code: MyST notebooks (.md with code cells) and jupytext scripts (.py, percent format)
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = os.environ.get("DOCS_EXECUTION", "cache")  # kept results serve while a page does not change
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # types stand in the sections of the docstrings
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"gaussian_test {release}"
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
