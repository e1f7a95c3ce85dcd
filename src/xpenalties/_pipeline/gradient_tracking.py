"""The norms and cosines of gradients.

A penalty takes one forward pass, which also gives its value, and one backward pass. The total's gradient is the
weighted sum of the penalties' gradients.
"""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import at_least_float32
from ..backends import Backend, backend_of
from .part_gradients import PartGradients

__all__ = ["Gradients"]


class Gradients:
    """Sum, norms and cosines of gradients that are added one by one. Single gradients are kept only for cosines."""

    def __init__(self, backend: Backend, arrays: list[Any], *, conflicts: bool) -> None:
        self._backend = backend
        self.arrays = arrays
        self._units: dict[str, list[Any]] | None = {} if conflicts else None
        self._total: list[Any] = [None] * len(arrays)
        self.complete = True  # no gradient is missing
        self.known = True  # no gradient is unknown, because arrays may lead to inputs without a graph
        self._parts: PartGradients | None = None  # inside `over`: how the arrays are cut
        self.used: dict[str, list[bool]] = {}  # by penalty: which arrays its gradient is not None for

    def add(self, name: str, gradient: list[Any], factor: Any, parts: PartGradients | None = None) -> tuple[Any, Any]:
        """Add `factor` times a gradient to the total's. Return the norms of the gradient and of `factor` times it.

        The norms are None if the gradient is None for each array.
        """
        xp, stop = self._backend.xp, self._backend.autodiff.stop_gradient
        gradient = [None if g is None else at_least_float32(stop(g)) for g in gradient]
        if self._backend.ragged:
            gradient = [None if g is None else self._backend.packed(g) for g in gradient]
        if parts is not None:
            if self._parts is None:
                self._parts = parts
            else:
                self._parts.update(parts)
        norm = self._norm(gradient)
        if norm is None:
            return None, None
        if type(factor) is not float and backend_of(factor) is not None:
            factor = stop(factor)
        used = self.used[name] = [False] * len(gradient)
        for i, (total, g) in enumerate(zip(self._total, gradient, strict=True)):
            if g is not None:
                used[i] = True
                self._total[i] = g * factor if total is None else self._backend.autodiff.add_multiple(total, g, factor)
        if self._units is not None:
            divisor = xp.where(norm == 0, xp.ones_like(norm), norm)
            self._units[name] = [None if g is None else g / divisor for g in gradient]
        return norm, norm * factor

    def attach(self, total: Any) -> Any:
        """Return `total` with the sum of the gradients as its gradient, if each part of it has one."""
        return self._backend.autodiff.with_gradient(total, self.arrays, self._total) if self.complete else total

    def total_norm(self) -> Any:
        """Return the norm of the sum of the gradients.

        None if one of them is missing or unknown, or if none depends on the arrays.
        """
        return self._norm(self._total) if self.complete and self.known else None

    def conflicts(self) -> dict[str, dict[str, Any]] | None:
        """Return the cosine between each pair of gradients. It is 0 if one of them is zero."""
        if self._units is None:
            return None
        cosines: dict[str, dict[str, Any]] = {name: {} for name in self._units}
        for a in self._units:
            for b in self._units:
                cosines[a][b] = cosines[b][a] if a in cosines[b] else self._dot(self._units[a], self._units[b])
        return cosines

    def _norm(self, gradient: list[Any]) -> Any:
        parts, squared = self._parts, self._backend.autodiff.squared_norm
        if parts is None:
            squares = [squared(g) for g in gradient if g is not None]
        else:
            squares = [parts.total(i, squared(parts.whole(i, g))) for i, g in enumerate(gradient) if g is not None]
        return self._backend.xp.sqrt(sum(squares[1:], squares[0])) if squares else None

    def _dot(self, a: list[Any], b: list[Any]) -> Any:
        # not vecdot, see `squared_norm`
        sum_ = self._backend.xp.sum
        pairs = [(i, x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)) if x is not None and y is not None]
        if self._parts is None:
            products = [sum_(x * y) for _, x, y in pairs]
        else:
            whole, total = self._parts.whole, self._parts.total
            products = [total(i, sum_(whole(i, x) * whole(i, y))) for i, x, y in pairs]
        return sum(products[1:], products[0]) if products else self._zero()

    def _zero(self) -> Any:
        array = self._backend.autodiff.stop_gradient(self.arrays[0])
        zero = self._backend.zero(array, self._backend.dtype(array.dtype).working or array.dtype)
        return zero if self._parts is None else self._parts.total(0, zero)  # so that JAX knows it to be the same
