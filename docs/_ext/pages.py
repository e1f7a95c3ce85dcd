"""Rules for all pages: a limit on their execution time, and no empty last line in code blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["setup"]

LIMIT = 600  # seconds: 10 times what 2 idle cores need, so a busy machine does not fail the build


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Log how long each page took, and warn if it took too long. MyST-NB limits only single cells."""
    from myst_nb.sphinx_ import NbMetadataCollector
    from sphinx.util import logging

    logger = logging.getLogger(__name__)
    for docname in sorted(env.found_docs):
        found = NbMetadataCollector.get_exec_data(env, docname)
        if found is not None and (seconds := found["runtime"]) is not None:
            logger.info("%s was executed in %.0f s", docname, seconds)
            if seconds > LIMIT:
                logger.warning("execution took %.0f s, the limit is %d s", seconds, LIMIT, location=docname)


def end_blocks(app: Sphinx, document: nodes.document) -> None:
    """Drop the empty line after an example's last output, which doctest needs in Markdown."""
    for node in document.findall(nodes.literal_block):
        if isinstance(node.children[0], nodes.Text):
            node.rawsource = node.astext().rstrip()
            node[:] = [nodes.Text(node.rawsource)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", end_blocks)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
