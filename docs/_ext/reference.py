"""Make the pages of reference/ from the `__all__` of each public module, and check that no name is missing.

The names are found by walking the package. The names of `xpenalties` itself have one page for each file that they come
from, their family. Each other public module has its own page. Making the pages does not need Sphinx, so tests can check
their contents.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from generated import write

import xpenalties

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["names", "pages", "public_modules", "setup"]

ROOT = xpenalties.__name__
ADAPTERS = f"{ROOT}.backends."  # one private file for each framework; what they share is public
FOLDER = "reference"


class Page(NamedTuple):
    """A page: its name, title, introduction, and the full names that it documents."""

    name: str
    title: str
    intro: str
    names: list[str]


def public_modules() -> list[ModuleType]:
    """Return the package and its modules that have an `__all__` and no underscore in their path."""
    found = [xpenalties]
    for info in pkgutil.walk_packages(xpenalties.__path__, f"{ROOT}."):
        private = any(part.startswith("_") for part in info.name.split("."))
        if not private and not info.name.startswith(ADAPTERS):
            found.append(import_module(info.name))
    return [module for module in found if hasattr(module, "__all__")]


def names() -> list[str]:
    """Return the full names of everything public."""
    return [f"{module.__name__}.{name}" for module in public_modules() for name in module.__all__]


def pages() -> Iterator[Page]:
    """Yield all pages: first the families, in the order of `xpenalties.__all__`, then the modules."""
    families: dict[str, list[str]] = {}
    for name in xpenalties.__all__:
        if not inspect.ismodule(getattr(xpenalties, name)):
            families.setdefault(_origin(name), []).append(name)
    modules = {module.__name__: module for module in public_modules() if module is not xpenalties}
    for origin, members in families.items():
        if origin not in modules:  # otherwise they are on the module's page
            last = origin.rpartition(".")[2].strip("_")
            title = members[0] if len(members) == 1 else last.replace("_", " ").capitalize()
            yield Page(last, title, _first_paragraph(import_module(origin)), [f"{ROOT}.{name}" for name in members])
    for full, module in modules.items():
        own = [f"{ROOT}.{name}" for name in families.get(full, [])] + [f"{full}.{name}" for name in module.__all__]
        yield Page(full.removeprefix(f"{ROOT}."), full, f".. automodule:: {full}", own)


def _origin(name: str) -> str:
    """Return the module whose `__all__` a name of `xpenalties` comes from."""
    value = getattr(xpenalties, name)
    loaded = {full: module for full, module in sys.modules.items() if full.startswith(f"{ROOT}.")}
    found = [full for full, module in loaded.items() if name in getattr(module, "__all__", ())]
    found = [full for full in found if getattr(loaded[full], name) is value]
    public = [full for full in found if not any(part.startswith("_") for part in full.split("."))]
    if public:  # such as `xpenalties.backends`, for `namespace` from a private file
        return public[0]
    return value.__module__ if value.__module__ in found else found[0]


def _first_paragraph(module: ModuleType) -> str:
    return (inspect.getdoc(module) or "").partition("\n\n")[0]


def text(page: Page) -> str:
    """Return a page as reStructuredText."""
    lines = [page.title, "=" * len(page.title), "", page.intro, ""]
    for full in page.names:
        value = _value(full)
        lines += ["", f".. {_directive(value)}:: {full}"]
        lines += ["   :members:", "   :special-members: __call__"] * inspect.isclass(value)
    return "\n".join(lines) + "\n"


def summary(page: Page) -> list[str]:
    """Return a page's names with the first lines of their docstrings."""
    return [f"- :py:obj:`~{full}`: {_first_line(_value(full))}" for full in page.names]


def _first_line(value: Any) -> str:
    """Return the first line without references, which are on the page itself."""
    return re.sub(r" \[\d+\]_", "", (inspect.getdoc(value) or "").partition("\n")[0])


def _value(full: str) -> Any:
    module, _, name = full.rpartition(".")
    return getattr(import_module(module), name)


def _directive(value: Any) -> str:
    if inspect.isclass(value):
        return "autoclass"
    return "autofunction" if callable(value) else "autodata"


def index(all_pages: list[Page]) -> str:
    """Return the page that lists all pages."""
    title = "Reference"
    lines = [title, "=" * len(title), "", "Every public name of the package, with its documentation.", ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {page.name}" for page in all_pages), ""]
    for page in all_pages:
        heading = f":doc:`{page.title} <{page.name}>`"
        lines += [heading, "-" * len(heading), "", *summary(page), ""]
    return "\n".join(lines) + "\n"


def texts() -> dict[str, str]:
    """Return the text of all files, by name."""
    made = list(pages())
    return {"index.rst": index(made), **{f"{page.name}.rst": text(page) for page in made}}


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn about public names that are missing from the site. By now, all objects of all pages are known."""
    from sphinx.util import logging

    domain = env.domains["py"]
    known = {each[0] for each in domain.get_objects()}
    for full in names():
        if full not in known:
            logging.getLogger(__name__).warning("%s is public and not documented", full)


def contents_of_unknown(app: Sphinx, env: BuildEnvironment, node: Any, contnode: Any) -> Any:
    """Turn single backticks without a public name into code, so that they are not broken references."""
    return contnode if node.get("reftype") == "obj" and node.get("refdomain") == "py" else None


def link_code(app: Sphinx, document: Any) -> None:
    """Link the first mention of each public name in a page to its documentation."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    if app.env.docname.startswith(f"{FOLDER}/"):
        return
    known = {full.removeprefix(f"{ROOT}."): full for full in names()}
    known |= {full: full for full in known.values()}
    for node in list(document.findall(nodes.literal)):
        full = known.pop(node.astext().partition("(")[0], None)
        if full and not isinstance(node.parent, nodes.reference | nodes.title | pending_xref):
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=full, refdoc=app.env.docname)
            node.replace_self(link)
            link += node


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER, texts(), "*.rst"))
    app.connect("doctree-read", link_code)
    app.connect("env-check-consistency", check)
    app.connect("missing-reference", contents_of_unknown)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
