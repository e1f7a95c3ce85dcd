"""One source, three pages: a notebook that is executed on each framework.

`notebooks/three-frameworks.md.in` has `{{framework}}`, `{{title}}` and `{{others}}`, which are links to the
other two, and nothing else that differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

FOLDER, NAME = "notebooks", "three-frameworks"
TITLES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}


def write(source: Path) -> None:
    """Write the pages; what is as it was stays untouched, so that it is not executed again."""
    template = (source / FOLDER / f"{NAME}.md.in").read_text("utf-8")
    for framework, title in TITLES.items():
        others = [f"[on {TITLES[other]}]({NAME}-{other}.md)" for other in TITLES if other != framework]
        text = template
        for name, value in {"framework": framework, "title": title, "others": " and ".join(others)}.items():
            text = text.replace("{{" + name + "}}", value)
        path = source / FOLDER / f"{NAME}-{framework}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
