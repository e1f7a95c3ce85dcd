"""The built sdist and wheel: what an index shows of them, and what they hold. The session `build` makes them."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

if "XPENALTIES_TEST_DIST" not in os.environ:
    pytest.skip("the session `build` has the distributions", allow_module_level=True)

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|\b(?:href|src|srcset)=\"([^\"\s]+)")


@pytest.fixture(scope="module")
def dist() -> Path:
    return Path(os.environ["XPENALTIES_TEST_DIST"])


@pytest.fixture(scope="module")
def metadata(dist: Path) -> Message:
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(wheel.read(name).decode())


def test_the_long_description_has_no_relative_link(metadata: Message) -> None:
    text = FENCE.sub("", str(metadata.get_payload()))
    links = [first or second for first, second in LINK.findall(text)]
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    source = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))["Source"]
    files = [link for link in links if "/blob/" in link or "/raw/" in link]
    assert any("/raw/" in link for link in files) and any("/blob/" in link for link in files)
    for link in files:
        assert link.startswith((f"{source}/blob/v{metadata['Version']}/", f"{source}/raw/v{metadata['Version']}/"))


def test_the_long_description_has_the_code_of_the_readme(metadata: Message) -> None:
    code = FENCE.findall((ROOT / "README.md").read_text("utf-8"))
    assert FENCE.findall(str(metadata.get_payload())) == code and len(code) > 2


def test_the_sources_of_the_distributions(dist: Path) -> None:
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        held = set(wheel.namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"xpenalties"}
    assert "xpenalties/py.typed" in held and any(name.endswith("/licenses/LICENSE") for name in held)
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "noxfile.py", "docs/conf.py"}
    assert wanted <= held
    assert {f"src/{name}" for name in ("xpenalties/__init__.py", "xpenalties/py.typed")} <= held


def test_the_tag_of_a_release(metadata: Message) -> None:
    tag = os.environ.get("XPENALTIES_TEST_TAG")
    if tag is None:
        pytest.skip("no release")
    version = metadata["Version"]
    assert tag == f"v{version}", "The tag and the version in pyproject.toml must be the same."
    dated = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert dated, f"CHANGELOG.md must have a section of {version} with a date."
