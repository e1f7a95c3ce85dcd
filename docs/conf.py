"""Sphinx's configuration; `nox -s docs` builds the site, and a warning fails it."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
FOR_PAGES = [str(HERE), str(HERE.parent)]  # figures.py, and the tables that tests assert
sys.path[:0] = [str(HERE / "_ext"), *FOR_PAGES]
os.environ["PYTHONPATH"] = os.pathsep.join([*FOR_PAGES, *filter(None, [os.environ.get("PYTHONPATH")])])  # the kernels'
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the pages are the same on every machine
PROFILE = HERE / "_build" / "ipython" / "profile_default"  # not the user's: pages are the same on every machine
PROFILE.mkdir(parents=True, exist_ok=True)
(PROFILE / "ipython_kernel_config.py").write_text(
    'c.IPKernelApp.log_level = "ERROR"\nc.InlineBackend.figure_formats = {"svg"}\n', "utf-8"
)
os.environ["IPYTHONDIR"] = str(PROFILE.parent)

project = "xpenalties"
author = "The xpenalties developers"
copyright = author
version = release = version_of(project)

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "mathml",
    "pages",
    "reference",
    "repository",
    "same_notebook",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
exclude_patterns = ["_build", "_ext", "pictures", "**/.ipynb_checkpoints"]
nitpicky = True
smartquotes = False  # quotes are part of code
default_role = "py:obj"  # a link if it is a public name, otherwise code

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell; _ext/pages.py limits the whole page
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
nb_output_stderr = "warn"  # a warning in a page is a warning of the build

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings describe types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"  # prompts and output
