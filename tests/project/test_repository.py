"""The files around the code: workflows, hooks, templates and the citation agree with pyproject.toml and noxfile.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [*WORKFLOWS, *sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")

if not WORKFLOWS:  # an sdist
    pytest.skip("needs the repository", allow_module_level=True)


def pythons() -> list[str]:
    rows = tomllib.loads((ROOT / "backend_matrix" / "backends.toml").read_text("utf-8"))["backend"]
    versions: list[str] = rows[0]["python"]
    return versions


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return found


@pytest.mark.parametrize("path", dict.fromkeys(YAML), ids=lambda path: path.name)
def test_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash(path: Path) -> None:
    uses = re.findall(r"^\s*(?:- )?uses: (.*)$", path.read_text("utf-8"), re.MULTILINE)
    assert uses and [line for line in uses if not PINNED.fullmatch(line)] == []
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    assert sum("uses" in step for step in steps) == len(uses)


def test_an_action_has_one_version() -> None:
    versions: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: (\S+)@(.*)$", path.read_text("utf-8"), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_only_call_nox(path: Path) -> None:
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands and all(re.fullmatch(r"python -m pip install nox && nox( [^;&|\n]*)?", each) for each in commands)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_limited(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_interpreters() -> None:
    versions = pythons()
    classifiers = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if " :: Python :: 3." in line]
    assert classifiers == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["portable"]["strategy"]["matrix"]
    assert matrix["python"] == versions
    [setup] = [
        step["with"]["python-version"]
        for step in jobs(ROOT / ".github" / "workflows" / "weekly.yml")["full"]["steps"]
        if "python-version" in step.get("with", {})
    ]
    assert sorted(setup.split(), key=lambda version: int(version[2:])) == versions


def test_the_addresses_are_those_of_the_project() -> None:
    urls = PROJECT["urls"]
    allowed = (urls["Source"], urls["Documentation"].rstrip("/"))
    name = re.escape(PROJECT["name"])
    pattern = re.compile(rf"https://(?:github\.com/[\w-]+/{name}|[\w-]+\.github\.io/{name})\b")
    files = [path for path in (*ROOT.glob("*"), *(ROOT / ".github").rglob("*")) if path.is_file()]
    files += [path for folder in ("src", "docs", "examples") for path in (ROOT / folder).rglob("*.[pm][yd]")]
    found: dict[str, str] = {}
    for path in files:
        if path.name != ".git":
            found |= dict.fromkeys(pattern.findall(path.read_text("utf-8", errors="ignore")), path.name)
    assert {address: path for address, path in found.items() if address not in allowed} == {}
    assert set(found) == set(allowed)


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["title"] == PROJECT["name"]
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]
    assert citation["authors"] == PROJECT["authors"]


def test_hooks_run_the_sessions() -> None:
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
        for hook in repository["hooks"]
    ]
    sessions = {re.fullmatch(r"nox --reuse-venv yes -s (\w+)", hook["entry"])[1] for hook in hooks}  # type: ignore[index]
    assert sessions == {"lint", "types"}
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    assert all(f"\ndef {name}(" in noxfile for name in sessions)
