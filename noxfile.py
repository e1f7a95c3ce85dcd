"""All checks of this project, one nox session each. People and CI run the same: `nox`, or `nox -s torch` for one.

Plain `nox` is what a change has to pass, in minutes. `nox -t full` runs everything: also the oldest versions, other
interpreters, all rows of tests/matrix/cases.py, the integrations, the site, and full coverage. `nox -t ci` is the part
of `full` that .ci/run has time for after plain `nox`. `nox -t portable` is what CI runs on each system and interpreter.

backend_matrix/backends.toml is the only list of backends and their requirements. Each session has its own environment.
Sessions that run tests write coverage data and results under their own names, over those of their last run. Plain `nox`
and `nox -t full` first erase all of them. Parallel sessions start in the order of this file: the longest come first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).parent
RESULTS = ROOT / "backend_matrix" / "results"
COVERAGE = ROOT / ".coverage-data"  # not next to .coverage, where `coverage report` would combine and delete them
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
ROWS: list[dict[str, Any]] = tomllib.loads((ROOT / "backend_matrix" / "backends.toml").read_text("utf-8"))["backend"]
REQUIRED = [row for row in ROWS if row["required"]]
PYTHONS = ROWS[0]["python"]
PYTHON = PYTHONS[0]
ONCE = f"{ROWS[0]['name']}-{PYTHON}"  # runs the tests that do not depend on a backend
# the others need more packages, or several processes
ONE_FRAMEWORK = "not mixed and not integrations and not trainers and not scale and not docs"
SHARDED = [row for row in ROWS if row["name"] in ("numpy", "torch", "jax", "dask")]
COMPILED = [row for row in REQUIRED if row["jit"]]  # these take the longest
OTHERS = [row for row in ROWS if row not in COMPILED]
ONE_THREAD = ("OMP_NUM_THREADS", "1")  # each session has one core, and more threads slow it down
FULL = "full"
CI = "ci"
PORTABLE = "portable"

nox.needs_version = ">=2026.10.20"
nox.options.allow_parallel = True  # except sessions that read other sessions' files
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    *("erase", *(row["name"] for row in COMPILED)),
    *("mixed", "doctest", ONCE),
    *(row["name"] for row in OTHERS if row is not ROWS[0] and (row["required"] or "needs" in row)),
    *("types", "lint"),
]
if len(sys.argv) == 1 or sys.argv[1] in ("-t", "--tags"):
    nox.options.parallel = os.cpu_count() or 1  # one per core; with -s one by one, with output
    os.environ.setdefault(*ONE_THREAD)
if len(sys.argv) == 1 or CI in sys.argv:  # it makes tests up to three times as slow; `full` checks it
    os.environ["XPENALTIES_COVERAGE"] = "no"
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def switch_on_pyenv() -> None:
    """Enable all versions of pyenv, because its python3.12 otherwise fails. The current one stays first."""
    if shutil.which("pyenv") is None:
        return
    names: list[str] = []
    for command in (["pyenv", "version-name"], ["pyenv", "versions", "--bare"]):
        names += subprocess.run(command, capture_output=True, text=True, check=False).stdout.replace(":", "\n").split()
    os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys(names))


switch_on_pyenv()


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of one of pyproject.toml's dependency groups."""
    return nox.project.dependency_groups(PYPROJECT, name)


def newest(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the requirements of several backends at their newest versions."""
    return [requirement for row in rows for requirement in row["newest"]]


def run_tests(
    session: nox.Session,
    requirements: list[str],
    backends: str,
    marks: str,
    *,
    once: bool = True,
    results: bool = True,
    spread: bool = True,
) -> None:
    """Run the tests that match `marks`, after removing the coverage data and results of this session's last run.

    Coverage is measured except in plain `nox` and `nox -t ci`. If `once` is False, tests that do not depend on a
    backend are left to the session `ONCE`. If a session runs alone, its tests are spread over all cores, unless
    `spread` is False.
    """
    stem = session.name.replace("(", "-").rstrip(")")
    written = RESULTS / f"{stem}.json"
    for old in (written, *COVERAGE.glob(f".coverage.{stem}*")):
        old.unlink(missing_ok=True)
    session.install(*requirements)
    COVERAGE.mkdir(exist_ok=True)
    env = {"XPENALTIES_TEST_BACKENDS": backends, "COVERAGE_FILE": str(COVERAGE / f".coverage.{stem}")}
    if results:
        env["XPENALTIES_MATRIX_RESULTS"] = str(written)
    if not once:
        env["XPENALTIES_TEST_ONCE"] = ONCE
    options = ["-o", f"cache_dir={session.create_tmp()}"]  # parallel sessions must not share it
    if spread and not session.parallel:
        options += ["-n", "auto", "--dist", "worksteal"]
        env.setdefault(*ONE_THREAD)
    if os.environ.get("XPENALTIES_COVERAGE") != "no":
        options += ["--cov", "--cov-report="]
    command = ("pytest", "tests", "-m", marks, *options)
    session.run(*command, *session.posargs, env=env)


@nox.session(python=False, allow_parallel=False, tags=[FULL])
def erase(session: nox.Session) -> None:
    """Remove coverage data and results of earlier runs."""
    for old in (*ROOT.glob(".coverage"), *COVERAGE.glob(".coverage.*"), *RESULTS.glob("*.json")):
        old.unlink()


def tests_of(row: dict[str, Any]) -> Callable[[nox.Session], None]:
    """Return the session of one backend."""

    def run(session: nox.Session) -> None:
        if "needs" in row and not has_cuda():
            session.skip(f"{row['name']} did not run: it needs {row['needs']}, but `nvidia-smi -L` finds none")
        marks = f"{ONE_FRAMEWORK} and not full" if row in COMPILED else ONE_FRAMEWORK
        requirements = ["-e", ".", *group("tests"), *row["newest"]]
        run_tests(session, requirements, row["name"], marks, once=row is ROWS[0], spread="needs" not in row)

    run.__doc__ = f"Run the tests on {row['name']}, at its newest version."
    return run


def has_cuda() -> bool:
    """Return whether there is a CUDA device."""
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


def define(rows: Iterable[dict[str, Any]]) -> None:
    """Define a session for each backend."""
    for row in rows:
        # even a list of one puts the version into the session's name
        python = row["python"] if len(row["python"]) > 1 else row["python"][0]
        tags = [FULL] if row["required"] or "needs" in row else [FULL, CI]
        tags += [PORTABLE] if row is ROWS[0] else []
        backend = "none" if "needs" in row and not has_cuda() else None  # no environment for a skipped session
        nox.session(name=row["name"], python=python, tags=tags, venv_backend=backend)(tests_of(row))


define(COMPILED)


@nox.session(python=PYTHON, tags=[FULL])
@nox.parametrize("row", [nox.param(row, id=row["name"]) for row in COMPILED])
def rows(session: nox.Session, row: dict[str, Any]) -> None:
    """Run the rows of cases.py that a backend's own session leaves out, because compiling them takes long."""
    requirements = ["-e", ".", *group("tests"), *row["newest"]]
    run_tests(session, requirements, row["name"], f"{ONE_FRAMEWORK} and full", once=False)


def oldest_rows() -> list[Any]:
    """Return the backends that are tested at their oldest versions, with the tags of their sessions."""
    rows = [row for row in (*COMPILED, *OTHERS) if row["oldest"]]
    return [nox.param(row, id=row["name"], tags=[CI] if row.get("oldest_in_ci", True) else []) for row in rows]


@nox.session(python=PYTHON, tags=[FULL])
@nox.parametrize("row", oldest_rows())
def oldest(session: nox.Session, row: dict[str, Any]) -> None:
    """Run the tests at the lowest versions that the package claims to support."""
    requirements = ["-e", ".", *group("tests"), *row["oldest"]]
    run_tests(session, requirements, row["name"], f"{ONE_FRAMEWORK} and not newest", once=False)


@nox.session(python=PYTHON, tags=[FULL, CI])
def integrations(session: nox.Session) -> None:
    """Test the integrations with the packages themselves, and their examples."""
    requirements = ["-e", ".[examples]", *group("tests"), *group("integrations"), *newest(REQUIRED)]
    session.env["XPENALTIES_TEST_INTEGRATIONS"] = "1"  # a missing package is an error
    run_tests(session, requirements, ",".join(row["name"] for row in REQUIRED), "integrations", results=False)


@nox.session(python=PYTHON, tags=[FULL])
def trainers(session: nox.Session) -> None:
    """Test the recipes of docs/guide/trainers.md with TRL."""
    names = ("numpy", "torch")
    rows = [row for row in REQUIRED if row["name"] in names]
    requirements = ["-e", ".[transformers]", *group("tests"), *group("trainers"), *newest(rows)]
    session.env["XPENALTIES_TEST_TRAINERS"] = "1"  # a missing package is an error
    run_tests(session, requirements, ",".join(names), "trainers", results=False)


@nox.session(python=PYTHON, tags=[FULL])
def scale(session: nox.Session) -> None:
    """Test arrays that are cut into parts, on several processes and devices. Writes backend_matrix/SCALE.md."""
    shutil.rmtree(RESULTS / "scale", ignore_errors=True)
    session.env["XPENALTIES_SCALE_RESULTS"] = str(RESULTS / "scale")
    requirements = ["-e", ".", *group("tests"), *group("integrations"), *group("scale"), *newest(SHARDED)]
    run_tests(session, requirements, ",".join(row["name"] for row in SHARDED), "scale", results=False)
    session.run("python", "backend_matrix/scale.py")


@nox.session(python=PYTHON, tags=[FULL])
def mixed(session: nox.Session) -> None:
    """Run the tests that need several frameworks, examples or peers in one environment."""
    requirements = ["-e", ".[examples]", *group("tests"), *group("peers"), *group("optional"), *newest(REQUIRED)]
    run_tests(session, requirements, ",".join(row["name"] for row in REQUIRED), "mixed", results=False)


@nox.session(python=PYTHON, tags=[FULL])
def doctest(session: nox.Session) -> None:
    """Run the examples in docstrings, README.md and docs/, and the recipe of CONTRIBUTING.md."""
    session.install("-e", ".", *group("docs"), *group("integrations"), *newest(REQUIRED))
    names = ",".join(row["name"] for row in REQUIRED)
    env = {"XPENALTIES_TEST_BACKENDS": names, "XPENALTIES_TEST_INTEGRATIONS": "1"}
    session.run("pytest", "tests", "-m", "docs", *session.posargs, env=env)


@nox.session(python=PYTHON, tags=[FULL, CI])
def docs(session: nox.Session) -> None:
    """Build the site strictly: run each page, list each public name, follow each link.

    Outputs of cells are kept in docs/_build as long as neither the cells nor the package change, except in CI.
    """
    session.install("-e", ".[examples]", *group("site"), *group("integrations"), *newest(REQUIRED))
    built = ROOT / "docs" / "_build"
    shutil.rmtree(built / "html", ignore_errors=True)
    command = ("sphinx-build", "-W", "--keep-going", "-j", "auto", "-b", "html", "docs", str(built / "html"))
    session.run(*command, env=dict([ONE_THREAD]))
    session.run("python", "docs/check_links.py", str(built / "html"))


define(OTHERS)


@nox.session(python=PYTHON, tags=[FULL, CI])
def build(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, check their metadata, and try the installed wheel.

    The release workflow passes a tag, as in `nox -s build -- v0.1.0`. It must match the version and the changelog.
    """
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install(*group("build"))
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    session.install(f"{next(dist.glob('*.whl'))}[numpy]", *group("tests"))
    session.run("python", "-c", "import xpenalties as x; assert 'site-packages' in x.__file__, x.__file__")
    env = {"XPENALTIES_TEST_BACKENDS": "numpy", "XPENALTIES_TEST_DIST": str(dist)}
    if session.posargs:
        [env["XPENALTIES_TEST_TAG"]] = session.posargs
    session.run("pytest", "tests", "-m", "smoke", env=env)


@nox.session(tags=[FULL])
def types(session: nox.Session) -> None:
    """Check the types of the package strictly, and the types that users' calls get."""
    session.install(*group("types"))
    session.run("mypy")


@nox.session(python=PYTHONS, tags=[FULL, CI, PORTABLE])
def bare(session: nox.Session) -> None:
    """Test the installed package with its runtime dependency only, without any framework."""
    run_tests(session, [".", *group("run")], "", "bare", results=False, spread=False)


@nox.session(tags=[FULL])
def lint(session: nox.Session) -> None:
    """Check lint, formatting, and the direction of imports."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": "src"})


@nox.session(python=PYTHON, allow_parallel=False, default=False)
def benchmarks(session: nox.Session) -> None:
    """Compare times and peak memory with peers, into benchmarks/RESULTS.md. Runs by name only: 25 minutes."""
    session.install("-e", ".", *group("benchmarks"), *newest(REQUIRED))
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session(python=PYTHON, tags=[FULL])
def quick_benchmarks(session: nox.Session) -> None:
    """Run all benchmarks on small arrays, to see that they run. Their times say nothing."""
    session.install("-e", ".", *group("benchmarks"), *newest(REQUIRED))
    session.run("python", "benchmarks/run.py", "--quick", *session.posargs)


@nox.session(allow_parallel=False, tags=[FULL])
def coverage(session: nox.Session) -> None:
    """Combine all sessions' coverage, which must be 100 %."""
    session.install(*group("run"))
    session.run("coverage", "combine", "--keep", "--quiet", str(COVERAGE))
    session.run("coverage", "report", "--fail-under=100")


@nox.session(python=False, allow_parallel=False, tags=[FULL, CI])
def report(session: nox.Session) -> None:
    """Write backend_matrix/REPORT.md from the sessions' results."""
    session.run(sys.executable, "backend_matrix/report.py", external=True)
