"""Each penalty's own gradient: which arrays to differentiate by, and norms and cosines of what is found.

The penalties share their inputs and nothing else, so each has one pass forward, which its value comes from too, and one
back. The total's gradient is the weighted sum of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

from .._arrays.numerics import wide
from .._core.checks import nearest
from ..backends import Backend, backend_of, flatten_of, in_dynamo

__all__ = ["Gradients", "Tracked"]


class Tracked:
    """The inputs of a pipeline, and which of their arrays to differentiate by."""

    def __init__(self, caller: str, inputs: tuple[Any, ...], wrt: tuple[str | int, ...] | None) -> None:
        self._leaves, self._rebuild = flatten_of(inputs)
        backends = [backend_of(leaf) for leaf in self._leaves]
        places = _places(caller, self._rebuild, len(self._leaves), inputs, wrt)
        found: dict[int, Backend] = {}
        for i in places:
            backend = backends[i]
            if backend is not None and backend.dtype(self._leaves[i].dtype).kind == "real":
                found[i] = backend
        libraries = {backend.library for backend in found.values()}
        if len(libraries) > 1:  # NumPy's scalars are numbers beside the arrays of another framework
            found = {i: each for i, each in found.items() if not isinstance(self._leaves[i], Real)}
            libraries = {backend.library for backend in found.values()}
        if not libraries:
            raise TypeError(
                f"{caller}: the inputs must hold a floating-point array to differentiate by, got none"
                f"{'' if wrt is None else f' in {wrt!r}'}. Pass an array or a nest of them."
            )
        if len(libraries) > 1:
            raise TypeError(
                f"{caller}: gradients are by arrays of one framework, got {' and '.join(sorted(libraries))}. Name the "
                "inputs to differentiate by with `wrt=`."
            )
        requiring = {i: each for i, each in found.items() if each.autodiff.requires_grad(self._leaves[i])}
        if requiring and wrt is None:
            found = requiring
        self.backend = next((each for each in found.values() if each.traces), next(iter(found.values())))
        self._groups = _same(self._leaves, found)

    @property
    def arrays(self) -> list[Any]:
        """The arrays to differentiate by."""
        return [self._leaves[places[0]] for places in self._groups.values()]

    def inputs_with(self, arrays: list[Any]) -> tuple[Any, ...]:
        """The inputs with others in the places of `arrays`."""
        full = list(self._leaves)
        for places, x in zip(self._groups.values(), arrays, strict=True):
            for i in places:
                full[i] = x
        inputs: tuple[Any, ...] = self._rebuild(iter(full))
        return inputs


def _same(leaves: list[Any], places: Iterable[int]) -> dict[int, list[int]]:
    """Places by the first one with the very same array: what is given twice has one gradient."""
    groups: dict[int, list[int]] = {}
    firsts: dict[int, int] = {}
    for i in places:
        if in_dynamo():  # pragma: no cover - Dynamo's trace; id() would have it compile anew for each new array
            first = next((j for j in groups if leaves[j] is leaves[i]), i)
        else:
            first = firsts.setdefault(id(leaves[i]), i)
        groups.setdefault(first, []).append(i)
    return groups


def _places(
    caller: str, rebuild: Any, leaves: int, inputs: tuple[Any, ...], wrt: tuple[str | int, ...] | None
) -> list[int]:
    """The positions of the leaves that `wrt` names."""
    if wrt is None:
        return list(range(leaves))
    numbered: tuple[Any, ...] = rebuild(iter(range(leaves)))
    named = _named(numbered[0]) if len(inputs) == 1 else None
    places: list[int] = []
    for name in wrt:
        by_name = isinstance(name, str)
        if by_name and named is None:
            raise TypeError(
                f"{caller}: names in `wrt` need one mapping or dataclass as input, got {name!r}. Pass a position, "
                "0 for the first."
            )
        parts = named if by_name and named is not None else dict(enumerate(numbered))
        if name not in parts:
            raise ValueError(
                f"{caller}: `wrt` must name inputs, got {name!r}, there are {', '.join(map(repr, parts)) or 'none'}."
                + nearest(name, parts)
            )
        places += [place for place in flatten_of(parts[name])[0] if place is not None]  # None is no leaf to JAX
    return sorted(set(places))


def _named(nest: Any) -> dict[Any, Any] | None:
    """The parts of a mapping by key, of a dataclass by field; None for anything else."""
    if isinstance(nest, Mapping):
        return dict(nest)
    return {each.name: getattr(nest, each.name) for each in fields(nest)} if is_dataclass(nest) else None


class Gradients:
    """Norms and cosines of gradients, from one after the other; none is kept that is not needed any more."""

    def __init__(self, backend: Backend, arrays: list[Any], *, conflicts: bool) -> None:
        self._backend = backend
        self._arrays = arrays
        self._units: dict[str, list[Any]] | None = {} if conflicts else None
        self._total: list[Any] = [None] * len(arrays)
        self.complete = True

    def add(self, name: str, gradient: list[Any], factor: Any) -> tuple[Any, Any]:
        """The norms of a gradient and of `factor` times it, which is added to the total's."""
        xp, stop = self._backend.xp, self._backend.autodiff.stop_gradient
        gradient = [None if g is None else wide(stop(g)) for g in gradient]
        norm = self._norm(gradient)
        factor = stop(factor) if backend_of(factor) is not None else factor
        for i, (total, g) in enumerate(zip(self._total, gradient, strict=True)):
            if g is not None:
                self._total[i] = g * factor if total is None else self._backend.autodiff.add_multiple(total, g, factor)
        if self._units is not None:
            divisor = xp.where(norm == 0, xp.ones_like(norm), norm)
            self._units[name] = [None if g is None else g / divisor for g in gradient]
        return norm, norm * factor

    def of_total(self, total: Any) -> Any:
        """`total`, whose gradient is the sum of those that were added, if all were."""
        return self._backend.autodiff.with_gradient(total, self._arrays, self._total) if self.complete else total

    def total_norm(self) -> Any:
        """The norm of the weighted sum, None where a part of it is not known."""
        return self._norm(self._total) if self.complete else None

    def conflicts(self) -> dict[str, dict[str, Any]] | None:
        """The cosines between each two; 0 for a gradient of zeros."""
        if self._units is None:
            return None
        cosines: dict[str, dict[str, Any]] = {name: {} for name in self._units}
        for a in self._units:
            for b in self._units:
                cosines[a][b] = cosines[b][a] if a in cosines[b] else self._dot(self._units[a], self._units[b])
        return cosines

    def _norm(self, gradient: list[Any]) -> Any:
        squares = [self._backend.autodiff.squared_norm(g) for g in gradient if g is not None]
        return self._backend.xp.sqrt(sum(squares[1:], squares[0]) if squares else self._zero())

    def _dot(self, a: list[Any], b: list[Any]) -> Any:
        # not by vecdot, see squared_norm
        sum_ = self._backend.xp.sum
        products = [sum_(x * y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        return sum(products[1:], products[0]) if products else self._zero()

    def _zero(self) -> Any:
        array = wide(self._backend.autodiff.stop_gradient(self._arrays[0]))
        return self._backend.xp.sum(self._backend.xp.reshape(array, (-1,))[:0])
