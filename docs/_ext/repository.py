"""Pages of files of the repository, so that a link to one works in the site as it does in the repository.

A page links to `../../examples/sparse.py` as it is. Here the examples, the Markdown pages at the top and the results of
the benchmarks become pages of repository/, and such links lead to them; of links to other files MyST makes downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

ROOT = Path(__file__).parents[2]
FOLDER = "repository"
SHOWN = ("examples/*.py", "examples/*.toml", "[A-Z]*.md", "benchmarks/RESULTS.md")
LANGUAGES = {".py": "python", ".toml": "toml"}


def shown() -> dict[Path, str]:
    """The files that have pages, and the pages' names."""
    files = sorted(file for pattern in SHOWN for file in ROOT.glob(pattern) if file != ROOT / "README.md")
    return {file: f"{FOLDER}/{file.relative_to(ROOT).as_posix().replace('.', '-')}" for file in files}


def write(source: Path) -> None:
    """Write the pages; what is as it was stays untouched."""
    texts = {}
    for file, page in shown().items():
        up = "/".join([".."] * (page.count("/") + 1))
        path = f"{up}/{file.relative_to(ROOT).as_posix()}"
        if file.suffix == ".md":
            texts[page] = f"```{{include}} {path}\n```\n"
        else:
            language = LANGUAGES[file.suffix]
            texts[page] = f"# {file.name}\n\n```{{literalinclude}} {path}\n:language: {language}\n```\n"
    pages = "\n".join(page.removeprefix(f"{FOLDER}/") for page in texts)
    texts[f"{FOLDER}/index"] = f"# Examples and the project\n\n```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n"
    for old in (source / FOLDER).rglob("*.md"):
        if old.relative_to(source).with_suffix("").as_posix() not in texts:
            old.unlink()
    for page, content in texts.items():
        path = source / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != content:
            path.write_text(content, "utf-8")


def to_pages(app: Sphinx, document: nodes.document) -> None:
    """Make links to files that have pages links to these."""
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
    """Whether what MyST made of the link's text is one node around it."""
    return len(node.children) == 1 and isinstance(node.children[0], nodes.inline)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    app.connect("doctree-read", to_pages, priority=100)  # before Sphinx collects downloads
    return {"parallel_read_safe": True, "parallel_write_safe": True}
