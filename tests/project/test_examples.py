"""The examples run, on every framework that is there, and learn what they say they learn."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SELECTED
from tests.helpers.clocks import PATIENCE, Clock
from tests.helpers.example_runs import EXAMPLES, example, is_picture
from tests.helpers.harness import framework

pytestmark = pytest.mark.mixed


def backends(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("backend", [name for name in names if name in SELECTED])


@backends("numpy", "torch", "jax")
def test_quickstart(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    with example("quickstart") as main:
        without, with_penalties = main(["--backend", backend])
    assert with_penalties >= 0.95 and without <= 0.88
    out = capsys.readouterr().out
    for shown in ("teacher", "l1", "entropy", "orthogonality", "weight", "contribution"):
        assert shown in out.lower()
    assert "gradient" not in out
    assert max(map(len, out.splitlines())) <= 100


@backends("numpy", "torch", "jax")
def test_quickstart_from_its_file(backend: str) -> None:
    with example("quickstart") as main:
        _, with_penalties = main(["--backend", backend, "--epochs", "4", "--config", str(EXAMPLES / "quickstart.toml")])
    assert with_penalties >= 0.90


@backends("numpy", "torch", "jax")
def test_quickstart_tracks_gradients(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "quickstart.png"
    with example("quickstart") as main:
        _, with_penalties = main(["--backend", backend, "--epochs", "4", "--track", "--plot", str(picture)])
    assert with_penalties >= 0.90
    out = capsys.readouterr().out
    assert "gradient norm" in out and str(picture) in out
    assert max(map(len, out.splitlines())) <= max(100, len(str(picture)) + 40)
    assert is_picture(picture)


@pytest.mark.only("numpy", reason="is about the quickstart's default backend")
def test_quickstart_needs_matplotlib_to_track_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib", None)  # imports of it fail
        with example("quickstart") as main:
            main(["--epochs", "1"])
            with pytest.raises(SystemExit, match="matplotlib is missing"):
                main(["--epochs", "1", "--track"])


@backends("torch", "jax")
def test_wgan_gp(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "wgan_gp.png"
    with example("wgan_gp") as main:
        found = main(["--backend", backend, "--steps", "400", "--plot", str(picture)])
    assert 0.85 <= found["norm"] <= 1.15
    assert found["modes"] >= 6 and found["near"] >= 0.3  # those of a good picture take more steps
    out = capsys.readouterr().out
    assert "critic loss" in out and "penalty" in out and "gradient norm" in out
    assert is_picture(picture)


def stall_for_good(module: Any) -> None:
    """Let the knowledge base stall for good, and time pass at once when the loss has nothing else left to wait for."""
    ask, clock, stalls = module.ask, Clock(), threading.Event()
    module.TIMEOUT, module.STALLED = PATIENCE, 2 * PATIENCE

    def counted(start: int) -> Iterator[int]:  # the server's requests
        for n in count(start):
            if n % module.STALLS_EVERY == 0:
                stalls.set()
            yield n

    requests = count(1)

    async def asked(*args: Any) -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.time = clock
        answer = asyncio.create_task(ask(*args))
        if next(requests) % module.STALLS_EVERY == 0:
            while not stalls.is_set() or len(asyncio.all_tasks()) > 3:  # those two, and who waits for them
                await asyncio.sleep(0.001)
            stalls.clear()
            clock.forward(2 * PATIENCE)
        return await answer

    module.count, module.ask = counted, asked


@pytest.mark.only("torch", reason="is about PyTorch")
def test_async_penalty(capsys: pytest.CaptureFixture[str]) -> None:
    with example("async_penalty") as main:
        stall_for_good(sys.modules["async_penalty"])
        with pytest.warns(RuntimeWarning, match="'expected_cost' was dropped"):
            accuracy, dropped, report = main(["--steps", "20"])
    assert accuracy >= 0.9
    assert dropped == [9, 19]  # the requests that the server is slow to answer
    part = report.regularizers["expected_cost"]
    assert part.value is None and part.contribution == 0.0 and part.error.startswith("dropped: TimeoutError")
    out = capsys.readouterr().out
    assert f"expected_cost: {part.error}" in out
    for shown in ("base_loss", "expected_cost", "total_persistence", "l2"):
        assert f"penalty {shown!r} of 'wine', step 0" in out
    assert " ms\n" in out


@backends("numpy", "torch", "jax")
def test_curriculum(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curriculum.png"
    with example("curriculum") as main:
        upright, rotated, divergence = main(["--backend", backend, "--plot", str(picture)])
    assert upright >= 0.88 and rotated >= 0.94
    assert abs(divergence / 0.1 - 1) < 0.25
    assert is_picture(picture)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= max(100, len(str(picture)) + 40)


@backends("torch", "jax")
def test_a_whole_run_is_compiled_once(backend: str) -> None:
    fw = framework(backend)
    counted = {}

    def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
        run, counted[fn.__name__] = fw.compile(fn)
        return run

    with example("curriculum"):
        _, found = sys.modules["curriculum"].run(backend=backend, steps=120, seed=0, compiled=compiled)
    assert {name: count() for name, count in counted.items()} == {"learn": 1, "step": 1}
    for weight in ("kl/weight", "entropy/weight"):
        assert len(set(found[weight])) == 24  # they did change


@backends("numpy", "torch", "jax")
def test_sparse(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "sparse.png"
    with example("sparse_weights") as main:
        difference, same = main(["--backend", backend, "--plot", str(picture)])
        with pytest.raises(SystemExit, match=r"--weight must be between 0 and 0\.384, where nothing is left, got 1"):
            main(["--weight", "1"])
    assert same and difference < 1e-5
    assert is_picture(picture)
    assert "9 of 30 features" in capsys.readouterr().out


@pytest.mark.skipif(not {"torch", "jax"} <= set(SELECTED), reason="mixes PyTorch and JAX")
def test_mixed_frameworks(capsys: pytest.CaptureFixture[str]) -> None:
    with example("mixed_frameworks") as main:
        teacher, alone, with_teacher = main([])
    assert teacher >= 0.94 and with_teacher >= 0.93
    assert with_teacher > alone
    out = capsys.readouterr().out
    assert "distill" in out and max(map(len, out.splitlines())) <= 100
