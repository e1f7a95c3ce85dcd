"""The fixtures of all tests, and the pytest hooks that choose backends and record results.

XPENALTIES_TEST_BACKENDS names the backends that must run, separated by commas. Without it, all backends that are
installed run. A named backend that cannot be imported is an error. Nothing here imports NumPy, which the session `bare`
lacks. helpers/collection.py has the markers and explains them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.collection import MARKERS, ROWS, SELECTED, Leftovers, deselect, frameworks
from tests.helpers.results import Results

__all__ = ["ROWS", "SELECTED", "integration", "quiet", "selected"]

# the tests compile thousands of tiny programs and run each once, so do not optimize them
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
_uses_of_jax = count(1)
_states: dict[str, Any] = {}  # of each module's RNG, right after its import
if find_spec("hypothesis") is not None:  # the session `bare` lacks it
    from hypothesis import settings

    settings.register_profile("the same each time", deadline=None, derandomize=True, database=None)
    settings.load_profile("the same each time")


def selected(module: str, *, reason: str) -> Any:
    """Import a framework for a test of it alone. Skip the test if the session has other backends."""
    if module not in SELECTED:
        pytest.skip(reason)
    return import_module(module)


def integration(*modules: str, backends: tuple[str, ...] = ("torch",), session: str = "integrations") -> None:
    """Skip a module of tests if its packages are not installed. In their session, they must be."""
    if not set(backends) <= set(SELECTED):
        pytest.skip(f"needs {' and '.join(backends)}", allow_module_level=True)
    if os.environ.get(f"XPENALTIES_TEST_{session.upper()}") is None:
        for module in modules:
            if find_spec(module) is None:
                pytest.skip(f"needs {module}: the session `{session}` has it", allow_module_level=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of the integrations' packages."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|transformers|accelerate|torch.utils.data")
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|isinstance).*")
        yield


if find_spec("numpy") is None:
    collect_ignore = sorted(
        str(path)
        for path in Path(__file__).parent.rglob("test_*.py")
        if path.parent.name != "command_line" and path.name != "test_bare.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if path := os.environ.get("XPENALTIES_MATRIX_RESULTS"):
        config.pluginmanager.register(Results(Path(path)))
    if session := os.environ.get("XPENALTIES_TEST_ONCE"):
        config.pluginmanager.register(Leftovers(session), "leftovers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fw" in metafunc.fixturenames:
        metafunc.parametrize("fw", frameworks(metafunc.definition), indirect=True)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect(config, items)


@pytest.fixture
def quietly() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Seed PyTorch and a module's RNG, so that random numbers do not depend on the tests before."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = _states.setdefault(request.module.__name__, rng.bit_generator.state)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def custom_names() -> Iterator[None]:
    """Register named functions for configurations. Remove them after the test, with all that it registered."""
    from tests.helpers.configs import NAMED
    from xpenalties import register
    from xpenalties._core.registry import REGISTERED

    before = dict(REGISTERED)
    for name, fn in NAMED.items():
        register(name, fn)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


@pytest.fixture
def fw(request: pytest.FixtureRequest) -> Any:
    """Return the backend under test, see harness.py. JAX can compute in float64, like the others."""
    from tests.helpers.harness import framework

    backend = framework(request.param)
    if backend.name == "jax":
        before = backend.module.config.jax_enable_x64
        backend.module.config.update("jax_enable_x64", True)
        yield backend
        backend.module.config.update("jax_enable_x64", before)
        if next(_uses_of_jax) % 1000 == 0:  # programs use memory maps, and Linux allows a process 65530
            backend.module.clear_caches()
    elif backend.name == "strict":
        before = backend.module.get_array_api_strict_flags()
        backend.module.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)
        yield backend
        backend.module.set_array_api_strict_flags(**before)
    elif backend.name == "dask":  # NumPy computes later, where large numbers in a transform or a projection warn
        import dask

        with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):  # leave no threads
            warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)
            yield backend
    else:
        yield backend


@pytest.fixture(autouse=True)
def _lacking(request: pytest.FixtureRequest) -> None:
    """Skip a row of cases.py on a backend that lacks what it needs, with the row's reason."""
    if {"case", "fw"} <= set(request.fixturenames):
        params = request.node.callspec.params
        reason = params["case"].lacking.get(params["fw"])
        if reason:
            pytest.skip(reason)
