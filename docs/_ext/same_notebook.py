"""Make three pages from one source: a notebook that runs on each framework.

In `notebooks/three-frameworks.md.in`, only `{{framework}}`, `{{title}}` and `{{others}}` differ between the pages. The
last one stands for links to the other two pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generated import write

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

FOLDER, NAME = "notebooks", "three-frameworks"
TITLES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}


def texts(folder: Path) -> dict[str, str]:
    """Return the pages, by name."""
    template = (folder / f"{NAME}.md.in").read_text("utf-8")
    made = {}
    for framework, title in TITLES.items():
        others = [f"[on {TITLES[other]}]({NAME}-{other}.md)" for other in TITLES if other != framework]
        text = template
        for name, value in {"framework": framework, "title": title, "others": " and ".join(others)}.items():
            text = text.replace("{{" + name + "}}", value)
        made[f"{NAME}-{framework}.md"] = text
    return made


def make(app: Sphinx) -> None:
    """Write the pages."""
    folder = Path(app.srcdir) / FOLDER
    write(folder, texts(folder), f"{NAME}-*.md")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
