"""Plots for the documentation, legible on light and dark backgrounds and on a phone.

A plot consists of panels. Each panel is an SVG as wide as a phone, so panels are side by side if there is room, and
otherwise below each other. Text and axes have the color of the page's text.

>>> from figures import panels, show
>>> left, right = panels("Values", "Slopes")
>>> _ = left.plot([0, 1], [0, 1], label="l1")
>>> show(left, right, alt="What the picture shows, in a sentence")  # doctest: +SKIP
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "FILLED", "INK", "panels", "show", "style", "svg"]

#: Distinct for color-blind readers, with a contrast of at least 3:1 to white and black. Lines also differ in dashes.
COLORS = ("#2a7fc4", "#d55e00", "#00936b", "#b0609a", "#8c7a1f")
#: Text and axes. Pages replace it with the color of their text. In a separate image, it suits both backgrounds.
INK = "#7b7c7d"
#: For areas: larger values are lighter, also without colors.
FILLED = "cividis"
WIDTH, HEIGHT = 3.3, 2.5  # inches; 317 pixels fit into a page of 390


def style() -> None:
    """Set Matplotlib's parameters. `panels` calls it."""
    mpl.rcParams.update(
        {
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.prop_cycle": cycler(color=COLORS, linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": INK,
            "axes.titlesize": 10,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "grid.alpha": 0.3,
            "grid.color": INK,
            "image.cmap": FILLED,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "legend.handlelength": 2.5,
            "lines.linewidth": 1.8,
            "svg.fonttype": "none",  # text stays text, in the page's font, and can be searched
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def panels(*titles: str, height: float = HEIGHT, width: float = WIDTH) -> list[Axes]:
    """Return axes, one for each title, each in its own figure. Sizes are in inches."""
    style()
    axes = [Figure(figsize=(width, height), layout="constrained").subplots() for _ in titles]
    for each, title in zip(axes, titles, strict=True):
        each.set_title(title)
    return axes


def show(*axes: Axes, alt: str) -> None:
    """Put panels into the page. `alt` describes them for screen readers."""
    from IPython.display import HTML, display

    inside = "".join(svg(each.get_figure(), f"{alt} {number}") for number, each in enumerate(axes))
    display(HTML(f'<div class="panels" role="img" aria-label="{escape(alt)}">{inside}</div>'))


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an element of a page. `name` makes its ids unique in the page."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<(metadata|style).*?</\1>\s*", "", text, flags=re.DOTALL)  # a style would apply to the whole page
    text = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", text)  # names of groups; ids that are referenced have no underscore
    return re.sub(r"font-family: [^;\"]*;?", "", text)
