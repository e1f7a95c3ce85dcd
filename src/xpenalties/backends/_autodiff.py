"""Automatic differentiation of a backend. The array API standard has none, so the default has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Autodiff", "NoAutodiffError", "OfLeaves", "Pull"]

OfLeaves = Callable[[list[Any]], tuple[Any, list[Any]]]
Pull = Callable[[Any], list[Any]]


class NoAutodiffError(NotImplementedError):
    """Raised by `autodiff_backend_of` if nothing can differentiate. Callers add their name."""


class Autodiff:
    """Gradients of a framework. The default has none, and borrows them from another framework."""

    #: Parts of the error if nothing can differentiate: what is missing, and another way to install it.
    lacks: str = "of their own, "
    remedy: str = ""
    #: Part of the error if gradients are requested with respect to arrays that are not among a function's inputs.
    needs_inputs: str = (
        "arrays in `wrt` must be among the inputs, because no graph leads from other arrays to a penalty, got "
        "others. Pass the arrays that the penalties use as inputs."
    )

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def differentiates(self) -> bool:
        """Return True if there is a `vjp`. If not, another backend takes these arrays by DLPack and differentiates."""
        return False

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        """Evaluate a function of a list of real arrays once. Returns its value, its auxiliary arrays, and `pull`.

        `pull` takes a cotangent of the value, runs one backward pass, and returns a gradient for each leaf. The
        gradient is None if the framework can tell that the value does not depend on the leaf. You may call `pull`
        several times. Pass ``again=False`` if the gradients will not be differentiated. No result is a tracer of this
        call.
        """
        raise NotImplementedError  # pragma: no cover - callers ask `differentiates` first

    def stop_gradient(self, x: Any) -> Any:
        """Return `x` as a constant."""
        return x

    def requires_grad(self, x: Any) -> bool:
        """Return True if `x` itself says that its gradient is requested, as PyTorch's tensors do."""
        return False

    def is_computed(self, x: Any) -> bool:
        """Return True if the framework has recorded how `x` was computed."""
        return False

    def records(self, x: Any) -> bool:
        """Return True if the framework records what is computed from `x`, as PyTorch does."""
        return False

    def may_be_copied(self, x: Any) -> bool:
        """Return True if a recorded graph may lead to a copy of `x` in its place, as to FSDP's whole parameters."""
        return False

    def recorded_gradient(self, value: Any, arrays: list[Any], cotangent: Any) -> list[Any]:
        """Differentiate a computed value through its whole graph, and keep the graph.

        The gradient is None for an array that the value does not depend on.
        """
        raise NotImplementedError  # pragma: no cover - callers ask `records` first

    def weight_mask(self, weights: Any) -> Any:
        """Return a mask that is False where a weight is 0. If the weights are differentiated, return None or all True.

        The derivative with respect to a weight of 0 is its term, so the term must be evaluated.
        """
        return weights != 0

    def escaped(self, error: Exception) -> bool:
        """Return True if `error` says that a traced array was converted to plain values outside the framework."""
        return False

    def checked_twice(self, caller: str, gradient: Any) -> Any:
        """Return `gradient`, for use in a loss. If it cannot be differentiated again, the error says what to do."""
        return gradient

    def squared_norm(self, x: Any) -> Any:
        """Return the sum of squares. vecdot would be off by 1e-3 for 1e7 float32 on PyTorch and NumPy."""
        return self.xp.sum(x * x)

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        """Return `total + factor * x`. `total` may be overwritten."""
        return total + factor * x

    def with_gradient(self, total: Any, arrays: list[Any], gradient: list[Any]) -> Any:
        """Return `total` with its precomputed gradient attached if it depends only on `arrays`, else unchanged."""
        return total
