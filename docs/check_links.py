"""Check links without a network: in the built site, and between the files of the repository.

    python docs/check_links.py [docs/_build/html]

In the site, every link must lead to a file, and its anchor to an element of that page. In the Markdown files of the
repository, every relative link must lead to a file, and its anchor to a heading.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["broken_in_markdown", "broken_in_site", "markdown_files"]

ROOT = Path(__file__).parents[1]
GENERATED = ("docs/_build", "docs/reference", "docs/repository", "docs/notebooks/three-frameworks-")  # by the build
CODE = re.compile(r"^(`{3,}|:{3,}).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect the links and anchors of a tag."""
        for name, value in attributes:
            if name in ("href", "src", "xlink:href") and value is not None:
                self.links.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")


def broken_in_site(folder: Path) -> Iterator[str]:
    """Yield a line for each broken link in a built site."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder}: no pages"
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{path.relative_to(folder)}: {link} leads to no file"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(folder)}: {link} leads to no element"


def markdown_files(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files of the repository, except those that the build makes."""
    found = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *root.glob("*/*.md")]
    return sorted(path for path in set(found) if not _is_generated(path, root) and not path.parts[-2].startswith("."))


def broken_in_markdown(files: Iterable[Path], root: Path = ROOT) -> Iterator[str]:
    """Yield a line for each broken link in files of the repository."""
    for path in files:
        for link in LINK.findall(CODE.sub("", path.read_text("utf-8"))):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if _is_generated(target, root):
                continue  # the site's check covers these
            if not target.exists():
                yield f"{path.relative_to(root)}: {link} leads to no file"
            elif parts.fragment and target.suffix == ".md" and unquote(parts.fragment) not in _headings(target):
                yield f"{path.relative_to(root)}: {link} leads to no heading"


def _is_generated(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and path.relative_to(root).as_posix().startswith(GENERATED)


@cache
def _headings(path: Path) -> set[str]:
    """Return the anchors of headings, as in GitHub and MyST."""
    text = re.sub(r"^(`{3,}).*?^\1", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def main(arguments: Sequence[str]) -> int:
    """Print broken links. Return 1 if there are any."""
    problems = list(broken_in_markdown(markdown_files()))
    for folder in arguments:
        problems += broken_in_site(Path(folder).resolve())
    print("\n".join(problems) or "All links lead somewhere.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
