"""Make pages of files of the repository, so that links to them work both in the site and in the repository.

A page can link to `../../examples/sparse_weights.py`. The examples, the Markdown files at the top and the results of
the benchmarks become pages of repository/, and such links lead there. MyST turns links to other files into downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from generated import write
from sphinx.addnodes import download_reference, pending_xref

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

ROOT = Path(__file__).parents[2]
FOLDER = "repository"
SHOWN = ("examples/*.py", "examples/*.toml", "[A-Z]*.md", "benchmarks/RESULTS.md")
LANGUAGES = {".py": "python", ".toml": "toml"}


def shown() -> dict[Path, str]:
    """Return the files that have pages, and the names of the pages."""
    files = sorted(file for pattern in SHOWN for file in ROOT.glob(pattern) if file != ROOT / "README.md")
    return {file: f"{FOLDER}/{file.relative_to(ROOT).as_posix().replace('.', '-')}" for file in files}


def texts() -> dict[str, str]:
    """Return the pages as Markdown, by their paths in the folder."""
    made = {}
    for file, page in shown().items():
        up = "/".join([".."] * (page.count("/") + 1))
        path = f"{up}/{file.relative_to(ROOT).as_posix()}"
        name = f"{page.removeprefix(f'{FOLDER}/')}.md"
        if file.suffix == ".md":
            made[name] = f"```{{include}} {path}\n```\n"
        else:
            language = LANGUAGES[file.suffix]
            made[name] = f"# {file.name}\n\n```{{literalinclude}} {path}\n:language: {language}\n```\n"
    names = "\n".join(name.removesuffix(".md") for name in made)
    index = f"# Examples and the project\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    return {**made, "index.md": index}


def to_pages(app: Sphinx, document: nodes.document) -> None:
    """Turn links to files into links to their pages."""
    known = shown()
    for node in list(document.findall(download_reference)):
        _, path = app.env.relfn2path(node["reftarget"], node["refdoc"])
        page = known.get(Path(path).resolve())
        if page is not None:
            link = pending_xref(
                "", refdomain="std", reftype="doc", reftarget=f"/{page}", refexplicit=True, refwarn=True
            )
            link["refdoc"] = node["refdoc"]
            link += nodes.inline("", "", *node.children[0].children if _wraps(node) else node.children)
            node.replace_self(link)


def _wraps(node: nodes.Node) -> bool:
    """Return True if MyST wrapped the link's text in one node."""
    return len(node.children) == 1 and isinstance(node.children[0], nodes.inline)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER, texts(), "**/*.md"))
    app.connect("doctree-read", to_pages, priority=100)  # before Sphinx collects downloads
    return {"parallel_read_safe": True, "parallel_write_safe": True}
