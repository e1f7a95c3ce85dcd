"""Automatic differentiation: what a backend does its own way, and what the standard alone allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Autodiff", "NoAutodiffError", "OfLeaves", "Pull"]

OfLeaves = Callable[[list[Any]], tuple[Any, list[Any]]]
Pull = Callable[[Any], list[Any]]


class NoAutodiffError(NotImplementedError):
    """What `autodiff_backend_of` raises if nothing can differentiate; callers add their name."""


class Autodiff:
    """Gradients of a framework. The default has none: they are borrowed from another framework."""

    #: For the error that says that there is nothing to differentiate with.
    lacks: str = "of their own, "
    remedy: str = ""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def differentiates(self) -> bool:
        """Return whether there is a `vjp`; else another backend serves, which takes these arrays by DLPack."""
        return False

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        """Evaluate a function of a list of real arrays once, and return value, auxiliary arrays and `pull`.

        `pull` takes a cotangent of the value, as often as it is called, with one pass back each. It returns a gradient
        for each leaf, or None if the value does not depend on the leaf and the framework can tell. `again` says whether
        the gradients are to be differentiated. Nothing that is returned is a tracer of this call.
        """
        raise NotImplementedError  # pragma: no cover - callers ask `differentiates` first

    def stop_gradient(self, x: Any) -> Any:
        """Return `x` as a constant."""
        return x

    def requires_grad(self, x: Any) -> bool:
        """Return whether the gradient with respect to `x` is requested, in a framework where arrays say so."""
        return False

    def escaped(self, error: Exception) -> bool:
        """Return whether `error` says that a traced array was taken out of the framework for its values."""
        return False

    def checked_twice(self, caller: str, gradient: Any) -> Any:
        """Return a gradient that goes into a loss. If it cannot be differentiated, the error says what to do."""
        return gradient

    def squared_norm(self, x: Any) -> Any:
        """Return the sum of squares; not by vecdot, which is off by 1e-3 for 1e7 float32 on PyTorch and NumPy."""
        return self.xp.sum(x * x)

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        """Return `total + factor * x`. `total` may be overwritten."""
        return total + factor * x

    def with_gradient(self, total: Any, arrays: list[Any], gradient: list[Any]) -> Any:
        """Return `total` with its precomputed gradient attached if it depends only on `arrays`, else unchanged."""
        return total
