"""CONTRIBUTING.md's recipe, followed to the letter in a copy of the project: one function and its rows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xpenalties
from tests.conftest import SELECTED
from tests.project.test_doctests import BLOCK

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project that has the recipe's function and its oracle, but no row."""
    for name in ("src", "tests", "backend_matrix"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    function, oracle, _ = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    docstring = xpenalties.huber.spec.formula.__doc__  # type: ignore[attr-defined]
    function = function.replace('r"""..."""', f'r"""{docstring}"""')
    family, found = tmp_path / "src/xpenalties/_penalties/norms.py", re.search(r"def (\w+)", function)
    assert found is not None
    text = family.read_text("utf-8")
    family.write_text(text.replace("__all__ = [", f'__all__ = ["{found[1]}", ') + "\n\n" + function, "utf-8")
    with (tmp_path / "tests/matrix/oracle.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + oracle)
    return tmp_path


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Tests of the copy, which its own path puts before the installed package."""
    env = {**os.environ, "PYTHONPATH": str(project / "src"), "XPENALTIES_TEST_BACKENDS": ",".join(SELECTED)}
    env.pop("XPENALTIES_MATRIX_RESULTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", *options]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


def test_a_row_is_missed(project: Path) -> None:
    found = run(project, "-k", "test_every_penalty_has_a_row")
    assert found.returncode == 1 and "welsch" in found.stdout


def test_the_recipe_tests_the_penalty_on_every_backend(project: Path) -> None:
    *_, row = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    family = project / "tests/matrix/rows/norms.py"
    text = family.read_text("utf-8").replace("    return [", f"    return [\n{row.rstrip()},", 1)
    imports = "import xpenalties as xp\nfrom tests.matrix.rows.shared import apart\n"
    family.write_text(text.replace("import xpenalties as xp\n", imports, 1), "utf-8")
    results = project / "found.xml"
    found = run(project, "-k", "welsch or completeness", f"--junitxml={results}", "-o", "junit_family=xunit1")
    assert found.returncode == 0, found.stdout[-3000:]
    names = re.findall(r'name="(test_\w+)\[([^"]*)"', results.read_text("utf-8"))
    for backend in SELECTED:
        tested = {test for test, parameters in names if backend in parameters and "welsch" in parameters}
        assert {"test_value", "test_dtypes", "test_gradient", "test_second_gradient", "test_masks"} <= tested, backend
