"""The executed pages as notebooks: a file to download beside each page, and a link that opens it in Colab.

The files are for machines without this repository. Their first cell installs the package and gets figures.py, and their
links lead to the site. Sphinx is not needed to make them, so that tests can look at them.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addresses import BRANCH, SITE, SITE_BRANCH, SOURCE

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

__all__ = ["notebook", "setup"]

FOLDER = "notebooks/"
COLAB = "https://colab.research.google.com/github/"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?::tags:[^\n]*\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


def notebook(text: str, docname: str) -> dict[str, Any]:
    """A page of MyST Markdown as a notebook of version 4, without outputs."""
    install = '%pip install --quiet "xpenalties[numpy]" matplotlib pandas scikit-learn'
    if "from figures import" in text or "import figures" in text:
        install += (
            "\n\nfrom urllib.request import urlretrieve\n\n"
            f'urlretrieve("{SOURCE}/raw/{BRANCH}/docs/figures.py", "figures.py")'
        )
    cells = [_cell("code", install)]
    parts = CELL.split(HEADER.sub("", text))
    for number, part in enumerate(parts):
        if part.strip():
            kind = "code" if number % 2 else "markdown"
            cells.append(_cell(kind, part.strip() if number % 2 else _with_addresses(part.strip(), docname)))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": text}
    return {**cell, "outputs": [], "execution_count": None} if kind == "code" else cell


def _with_addresses(text: str, docname: str) -> str:
    """Replace relative links by addresses: of pages in the site, and of other files in the repository."""

    def absolute(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), match[1]))
        if path.startswith("docs/") and path.endswith(".md"):
            return f"]({SITE}{path.removeprefix('docs/').removesuffix('.md')}.html"
        return f"]({SOURCE}/blob/{BRANCH}/{path}"

    return LINK.sub(absolute, text)


def add_links(app: Sphinx, document: nodes.document) -> None:
    """Put the two links under a notebook's title."""
    from docutils import nodes

    docname = app.env.docname
    if not docname.startswith(FOLDER):
        return
    name = docname.removeprefix(FOLDER)
    repository = SOURCE.removeprefix("https://github.com/")
    colab = f"{COLAB}{repository}/blob/{SITE_BRANCH}/{docname}.ipynb"
    line = nodes.paragraph(classes=["notebook-links"])
    line += nodes.reference("", "Download as a notebook", refuri=f"{name}.ipynb", internal=False)
    line += nodes.reference("", "Open in Colab", refuri=colab, internal=False)
    section = next(iter(document.findall(nodes.section)))
    section.insert(1, line)


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the files beside the pages."""
    if error is not None or app.builder.format != "html":
        return
    for docname in sorted(app.env.found_docs):
        if docname.startswith(FOLDER):
            text = Path(app.env.doc2path(docname)).read_text("utf-8")
            content = json.dumps(notebook(text, docname), indent=1, ensure_ascii=False)
            (Path(app.outdir) / f"{docname}.ipynb").write_text(content + "\n", "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", add_links)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
