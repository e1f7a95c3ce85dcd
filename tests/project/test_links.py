"""Links between the files of the repository, and what finds broken ones."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import check_links

    return check_links


def test_links_of_the_repository(links: ModuleType) -> None:
    files = links.markdown_files()
    assert {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "index.md"} <= set(files)
    assert list(links.broken_in_markdown(files)) == []


def test_broken_links_of_files_are_found(links: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading: of `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#a-heading-of-code) [c](https://example.org/x) [d](#here) `[e](nowhere)`\n"
        "```md\n[f](nowhere)\n```\n[g](missing.md) [h](other.md#missing)\n# Here\n"
    )
    assert list(links.broken_in_markdown([page], tmp_path)) == [
        "page.md: missing.md leads to no file",
        "page.md: other.md#missing leads to no heading",
    ]


def test_broken_links_of_the_site_are_found(links: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text('<h1 id="there">There</h1><img src="missing.svg">')
    (tmp_path / "index.html").write_text(
        '<a href="folder/#there"></a><a href="folder/index.html#missing"></a><a href="#top"></a>'
        '<a href="https://example.org"></a><a href="mailto:a@example.org"></a>'
        '<svg><use xlink:href="#shape"></use></svg>'
    )
    assert list(links.broken_in_site(tmp_path)) == [
        "folder/index.html: missing.svg leads to no file",
        "index.html: folder/index.html#missing leads to no element",
        "index.html: #shape leads to no element",
    ]
    assert [line for line in links.broken_in_site(tmp_path / "empty") if "no pages" in line]
