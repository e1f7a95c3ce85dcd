"""Rules for all pages: a log of execution times, and no empty last line in code blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["setup"]


def log_times(app: Sphinx, env: BuildEnvironment) -> None:
    """Log how long each page took to execute. A page from the cache has the time of its execution."""
    from myst_nb.sphinx_ import NbMetadataCollector
    from sphinx.util import logging

    for docname in sorted(env.found_docs):
        found = NbMetadataCollector.get_exec_data(env, docname)
        if found is not None and found["runtime"] is not None:
            logging.getLogger(__name__).info("%s was executed in %.0f s", docname, found["runtime"])


def end_blocks(app: Sphinx, document: nodes.document) -> None:
    """Drop the empty line after an example's last output, which doctest needs in Markdown."""
    for node in document.findall(nodes.literal_block):
        if isinstance(node.children[0], nodes.Text):
            node.rawsource = node.astext().rstrip()
            node[:] = [nodes.Text(node.rawsource)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", end_blocks)
    app.connect("env-check-consistency", log_times)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
