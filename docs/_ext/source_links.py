"""Links to the source: of each public name to its lines on GitHub, and of each page to its file, if it has one."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addresses import BRANCH, ROOT, SOURCE

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["linkcode_resolve", "setup"]


@cache
def lines_of(module: str, name: str) -> str | None:
    """The path and the lines of a public name, as in an address of GitHub. None for a constant."""
    value: Any = import_module(module)
    for part in name.split("."):
        value = inspect.getattr_static(value, part, None)
    value = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
    value = inspect.unwrap((getattr(value, "spec", None) and value.spec.formula) or value)
    try:
        path = Path(inspect.getsourcefile(value) or "").resolve()
        lines, first = inspect.getsourcelines(value)
    except (TypeError, OSError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    return f"{path.relative_to(ROOT).as_posix()}#L{first}-L{first + len(lines) - 1}"


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of a name's source; sphinx.ext.linkcode asks conf.py for it."""
    place = lines_of(info["module"], info["fullname"]) if domain == "py" and info["module"] else None
    return place and f"{SOURCE}/blob/{BRANCH}/{place}"


def without_file(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the links to a page's file where the page is made by the build."""
    if pagename.startswith(("reference/", "repository/", "notebooks/three-frameworks-")):
        context["page_source_suffix"] = ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("html-page-context", without_file)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
