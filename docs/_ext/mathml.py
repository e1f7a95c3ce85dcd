"""Render formulas as MathML, which browsers show without scripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import latex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["converted", "setup"]

THIN = '<mspace width="0.1667em"></mspace>'
APPLIED = r"<mo>&ApplyFunction;</mo>"
BEFORE = re.compile(rf"(</(?:mi|mn|msub|msup|mfrac)>)\s*(?=<mi[^>]*>\w+</mi>\s*{APPLIED})")
AFTER = re.compile(rf"{APPLIED}(?!\s*<mo[^>]*>\()")


def converted(formula: str, as_block: bool = False) -> str:
    """Return a formula as MathML, with TeX's spaces around names such as `log`, and with bars that do not grow."""
    text = latex2mathml.tex2mathml(formula, as_block=as_block).replace("<mo>‖", '<mo stretchy="false">‖')
    return BEFORE.sub(rf"\1{THIN}", AFTER.sub(APPLIED + THIN, text))


def inline(writer: Any, node: nodes.math) -> None:
    """Render a formula inside a line."""
    writer.body.append(converted(node.astext()))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Render a displayed formula."""
    formula = converted(node.astext(), as_block=True)
    writer.body.append(writer.starttag(node, "div", CLASS="math") + formula + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point; conf.py names it as `html_math_renderer`."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
