"""Sphinx's configuration; `nox -s docs` builds the site, and a warning fails it."""

import hashlib
import os
import sys
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

from addresses import BRANCH, PROJECT, SITE, SOURCE  # noqa: E402 - in _ext
from source_links import linkcode_resolve  # noqa: E402, F401 - sphinx.ext.linkcode calls it

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
copyright = author
version = release = PROJECT["version"]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.githubpages",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
    "math_font",
    "mathml",
    "notebook_files",
    "pages",
    "reference",
    "repository",
    "same_notebook",
    "source_links",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
exclude_patterns = ["_build", "_ext", "pictures", "**/.ipynb_checkpoints"]
nitpicky = True
smartquotes = False  # quotes are part of code
default_role = "py:obj"  # a link if it is a public name, otherwise code

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False


def _digest_of_what_cells_import() -> str:
    """A name for the outputs of the cells: it changes with the package, and with what else of the project they use."""
    digest = hashlib.sha256()
    for pattern in ("src/**/*.py", "docs/*.py", "tests/project/*.py"):
        for path in sorted(HERE.parent.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


nb_execution_mode = "force" if os.environ.get("CI") else "cache"
nb_execution_cache_path = str(HERE / "_build" / f"outputs-{_digest_of_what_cells_import()}")
nb_execution_raise_on_error = True
nb_execution_timeout = 1800  # seconds for a cell: only a cell that hangs fails, not one on a busy machine
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
nb_output_stderr = "warn"  # a warning in a page is a warning of the build

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings describe types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_maximum_signature_line_length = 60  # longer ones have a line for each parameter

html_theme = "furo"
html_title = f"{project} {version}"
html_baseurl = SITE
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "source_repository": SOURCE,
    "source_branch": BRANCH,
    "source_directory": "docs/",
    "footer_icons": [{"name": "GitHub", "url": SOURCE, "html": "GitHub", "class": ""}],
}
ogp_site_url = SITE
ogp_site_name = project
ogp_image = "_static/card.png"
ogp_image_alt = False
ogp_social_cards = {"enable": False}
ogp_enable_meta_description = True
pygments_style = "a11y-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"  # prompts and output
