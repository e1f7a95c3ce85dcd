"""The site's pages: every public name is in the reference, and the recipe of a matrix of one's own runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROWS, SELECTED
from tests.helpers.recipes import files_of

if not {row["name"] for row in ROWS if row["required"]} <= set(SELECTED):
    pytest.skip("wants all of the frameworks", allow_module_level=True)

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "xpenalties"


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> object:
    """What makes the pages; it does not need Sphinx for that."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import reference

    return reference


def listed(path: Path) -> list[str]:
    """The names in the `__all__` of a file, read as text."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return [each.value for each in statement.value.elts if isinstance(each, ast.Constant)]  # type: ignore[attr-defined]
    return []


def public_files() -> dict[str, Path]:
    """The files without an underscore, by module; of the backends their package only."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts) and parts[:-1] != ("xpenalties", "backends"):
            files[".".join(parts)] = path
    return files


@pytest.mark.filterwarnings("ignore:::lightning|transformers|keras|torch")
def test_the_reference_has_every_public_name(reference) -> None:
    import xpenalties

    wanted = {f"{module}.{name}" for module, path in public_files().items() for name in listed(path)}
    wanted |= {f"xpenalties.{name}" for name in xpenalties.__all__}
    assert len(wanted) > 100
    pages = [*reference.pages()]
    assert len({page.name for page in pages}) == len(pages)
    text = "\n".join(map(reference.text, pages))
    found = re.findall(r"^\.\. auto(?:function|class|data|module):: (\S+)$", text, re.MULTILINE)
    assert sorted(wanted - set(found)) == []
    assert len(found) == len(set(found))


@pytest.mark.filterwarnings("ignore:::lightning|transformers|keras|torch")
def test_what_is_in_the_reference_is_described(reference) -> None:
    for page in reference.pages():
        lines = reference.summary(page)
        assert [line for line in lines if line.endswith(": ")] == []


def test_a_matrix_of_ones_own(tmp_path: Path) -> None:
    files = files_of("backends")
    assert set(files) == {"backends.toml", "conftest.py", "test_roughness.py", "noxfile.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8")

    def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", *command)
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )

    found = run("pytest", "-q", "-p", "no:cacheprovider", TEST_BACKENDS="numpy,torch,jax,strict")
    assert "12 passed" in found.stdout, found.stdout
    found = run("pytest", "-q", "-p", "no:cacheprovider", TEST_BACKENDS="cupy")
    assert found.returncode == 1 and "KeyError: 'cupy'" in found.stdout
    found = run("nox", "--list")
    assert found.returncode == 0 and all(f"* {name}" in found.stdout for name in ("numpy", "torch", "jax", "strict"))


def test_notebooks_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    from notebook_files import notebook

    text = (
        "---\nfile_format: mystnb\n---\n\n# Title\n\n"
        "See [this](../guide/pipelines.md#x), [that](../../examples/a.py), [it](https://a.b).\n\n"
        "```{code-cell}\n:tags: [hide-input]\n\nfrom figures import show\n```\n\nMore.\n"
    )
    cells = notebook(text, "notebooks/name")["cells"]
    assert [cell["cell_type"] for cell in cells] == ["code", "markdown", "code", "markdown"]
    assert cells[0]["source"].startswith("%pip install") and "/raw/main/docs/figures.py" in cells[0]["source"]
    assert "](https://xpenalties.github.io/xpenalties/guide/pipelines.html#x)" in cells[1]["source"]
    assert "](https://github.com/xpenalties/xpenalties/blob/main/examples/a.py)" in cells[1]["source"]
    assert "](https://a.b)" in cells[1]["source"] and "file_format" not in cells[1]["source"]
    assert cells[2]["source"] == "from figures import show" and cells[2]["outputs"] == []
    assert "figures.py" not in notebook("# Title\n", "notebooks/name")["cells"][0]["source"]


@pytest.mark.parametrize(
    ("module", "name", "file"),
    [
        ("xpenalties", "kl_divergence", "_penalties/divergences.py"),
        ("xpenalties", "Pipeline.compute", "_pipeline/pipeline.py"),
        ("xpenalties", "Pipeline.from_config", "_pipeline/pipeline.py"),
        ("xpenalties.trees", "over_tree", "trees/_over_tree.py"),
    ],
)
def test_links_to_the_source(monkeypatch: pytest.MonkeyPatch, module: str, name: str, file: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    from source_links import linkcode_resolve

    address = linkcode_resolve("py", {"module": module, "fullname": name})
    prefix = f"https://github.com/xpenalties/xpenalties/blob/main/src/xpenalties/{file}#L"
    assert address is not None and address.startswith(prefix)
    first, last = map(int, address.removeprefix(prefix).split("-L"))
    lines = (PACKAGE / file).read_text("utf-8").splitlines()[first - 1 : last]
    assert any(line.lstrip().startswith(f"def {name.rpartition('.')[2]}(") for line in lines)
    assert sum(line.lstrip().startswith("def ") for line in lines) <= 2


def test_what_has_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    from source_links import linkcode_resolve

    assert linkcode_resolve("py", {"module": "xpenalties", "fullname": "missing"}) is None
    assert linkcode_resolve("py", {"module": "xpenalties", "fullname": "__version__"}) is None
    assert linkcode_resolve("c", {"module": "", "fullname": "x"}) is None


COLUMN = 100  # characters of code fit into the site's column
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)


def test_code_fits_into_the_column() -> None:
    """ruff formats blocks of Python at 88; sessions with prompts, and other languages, are wrapped by hand."""
    docs = ROOT / "docs"
    long = {}
    for page in (docs / "index.md", *docs.glob("guide/*.md"), *docs.glob("start/*.md")):
        for _, language, code in FENCE.findall(page.read_text("utf-8")):
            if language.startswith("{code-block}") or not language.startswith("{"):
                long |= {line: page.name for line in code.splitlines() if len(line) > COLUMN}
    assert long == {}
