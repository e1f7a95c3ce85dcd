"""Blocks on PyTorch's CPU run side by side: what comes out, what goes wrong, and what threads have afterwards."""

from __future__ import annotations

from threading import Thread, current_thread, main_thread
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from xpenalties import block_size

pytestmark = pytest.mark.only("torch", reason="is about PyTorch's threads")

X = np.random.default_rng(5).standard_normal((40, 6))


@pytest.fixture
def torch(fw: Framework) -> Any:
    before = fw.module.get_num_threads()
    fw.module.set_num_threads(4)  # however many there are here
    yield fw.module
    fw.module.set_num_threads(before)


def value_and_slope(torch: Any, elements: int | None) -> list[Any]:
    x = torch.tensor(X, requires_grad=True)
    with block_size(elements):
        value = xp.entropy(x, from_logits=True, reduction="none")
    (slope,) = torch.autograd.grad(value.sin().sum(), x)
    return [value.detach(), slope]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_same_on_any_number_of_threads(torch: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    for got, want in zip(value_and_slope(torch, 6), value_and_slope(torch, None), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_each_block_runs_on_one_thread_of_several(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpenalties.backends._work import Work

    seen = []
    terms = Work.terms

    def recorded(work: Work, *args: Any) -> Any:
        seen.append((current_thread(), torch.get_num_threads()))
        return terms(work, *args)

    monkeypatch.setattr(Work, "terms", recorded)
    value_and_slope(torch, 6)
    assert len(seen) == len(X)
    assert {count for _, count in seen} == {1}
    assert main_thread() not in {thread for thread, _ in seen}
    assert not any(thread.is_alive() for thread, _ in seen)


def test_threads_have_as_many_of_their_own_as_before(torch: Any) -> None:
    value_and_slope(torch, 6)
    found = []
    thread = Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), found) == (4, [4])


def test_other_threads_have_as_many_while_blocks_run(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the user starts meanwhile is none of ours."""
    from xpenalties.backends._work import Work

    seen: list[tuple[int, int]] = []
    terms = Work.terms

    def recorded(work: Work, *args: Any) -> Any:
        thread = Thread(target=lambda: seen.append((here, torch.get_num_threads())))
        here = torch.get_num_threads()
        thread.start()
        thread.join()
        return terms(work, *args)

    monkeypatch.setattr(Work, "terms", recorded)
    value_and_slope(torch, 6)
    assert seen == [(1, 4)] * len(X)


def test_a_thread_that_set_its_own_number(torch: Any) -> None:
    """What another thread sets for itself and those to come is not undone."""
    thread = Thread(target=lambda: torch.set_num_threads(3))
    thread.start()
    thread.join()
    value_and_slope(torch, 6)
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), seen) == (4, [3])


@pytest.mark.parametrize("library", ["none", "other"])
def test_without_openmp(torch: Any, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """All blocks run on this thread, with all of PyTorch's threads for each operation."""
    from xpenalties.backends._work import Work
    from xpenalties.backends.torch import _threads

    def load(path: str) -> object:
        if library == "none":
            raise OSError(path)
        return object()

    monkeypatch.setattr(_threads.ctypes, "CDLL", load)
    _threads._omp_set_num_threads.cache_clear()
    try:
        seen = []
        terms = Work.terms
        monkeypatch.setattr(Work, "terms", lambda work, *args: seen.append(current_thread()) or terms(work, *args))
        for got, want in zip(value_and_slope(torch, 6), value_and_slope(torch, None), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
        assert set(seen) == {current_thread()}
    finally:
        _threads._omp_set_num_threads.cache_clear()


@pytest.mark.parametrize("possible", [0, 1, 3])
def test_a_system_without_more_threads(torch: Any, monkeypatch: pytest.MonkeyPatch, possible: int) -> None:
    """Blocks run on the threads that could be started, or else on this one. None is left, and PyTorch has as many."""
    started: list[Thread] = []

    def start(thread: Thread) -> None:
        if len(started) == possible:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        begin(thread)

    want = value_and_slope(torch, None)
    begin = Thread.start
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", start)
        got = value_and_slope(torch, 6)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    assert len(started) == possible and not any(thread.is_alive() for thread in started)
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), seen) == (4, [4])


def test_an_error_in_a_block_is_raised(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpenalties.backends._work import Work

    calls = []

    def broken(work: Work, *args: Any) -> Any:
        calls.append(1)
        raise ZeroDivisionError("of this block")

    monkeypatch.setattr(Work, "terms", broken)
    with pytest.raises(ZeroDivisionError, match="of this block"):
        value_and_slope(torch, 6)
    assert 1 <= len(calls) <= 4  # the others do not begin another one
    assert torch.get_num_threads() == 4


def test_modes_are_those_of_the_caller(torch: Any) -> None:
    x = torch.tensor(X)
    with torch.inference_mode(), block_size(6):
        assert xp.entropy(x, from_logits=True, reduction="none").is_inference()
