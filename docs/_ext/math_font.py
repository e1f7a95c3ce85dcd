"""The font of formulas: browsers place the parts of MathML by tables that only fonts for mathematics have.

It is STIX Two Math, as the package ziamath ships it, cut down to what formulas use. Its license is in its own metadata.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

#: Latin, Greek, punctuation, letters and arrows and operators of mathematics, brackets, italic and bold letters.
CHARACTERS = [
    *((0x20, 0x7E), (0xA0, 0xFF), (0x391, 0x3F5), (0x2010, 0x2044), (0x2061, 0x2064), (0x2100, 0x214F)),
    *((0x2190, 0x21FF), (0x2200, 0x22FF), (0x2308, 0x230B), (0x27E6, 0x27EB), (0x1D400, 0x1D467), (0x1D6A8, 0x1D71B)),
]


def write(path: Path) -> None:
    """Write the font's part that formulas use."""
    from fontTools import subset

    package = find_spec("ziamath")
    assert package is not None and package.origin is not None
    options = subset.Options(flavor="woff2", layout_features=["*"], name_IDs=["*"], notdef_outline=True)
    font = subset.load_font(str(Path(package.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    part = subset.Subsetter(options)
    part.populate(unicodes=[code for first, last in CHARACTERS for code in range(first, last + 1)])
    part.subset(font)
    path.parent.mkdir(parents=True, exist_ok=True)
    subset.save_font(font, str(path), options)


def make(app: Sphinx) -> None:
    """Put the font beside site.css, which names it."""
    path = Path(app.outdir) / "_static" / "math.woff2"
    if app.builder.format == "html" and not path.exists():
        write(path)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("write-started", lambda app, builder: make(app))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
