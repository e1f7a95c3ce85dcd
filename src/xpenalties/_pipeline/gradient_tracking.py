"""Track each penalty's gradient: choose the arrays to differentiate with respect to, and compute norms and cosines.

Penalties share only their inputs. So each takes one forward pass, which also gives its value, and one backward pass.
The total's gradient is the weighted sum of the penalties' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

from .._arrays.numerics import at_least_float32
from .._core.shown import listed, shown
from .._core.suggestions import did_you_mean
from ..backends import Backend, backend_of, flatten_of, in_dynamo

__all__ = ["Gradients", "Pull", "TrackedInputs"]

#: Returns the gradients of a value with respect to arrays, None for an array that the value does not depend on.
Pull = Callable[[Any, list[Any]], list[Any]]


class TrackedInputs:
    """The inputs of a pipeline, and the arrays among them to differentiate with respect to.

    Attributes
    ----------
    arrays : list
        The arrays to differentiate with respect to. An array that occurs twice among the inputs is here once.
    backend : Backend
        Their backend.
    pull : callable or None
        Differentiates a computed value through everything that leads from `arrays` to it, for example a model. If None,
        `inputs_with` replaces `arrays` by traced arrays, and only the penalty itself is differentiated.

    `constants` are names of inputs that are left out by default, unless they require gradients.
    """

    def __init__(
        self,
        caller: str,
        inputs: tuple[Any, ...],
        wrt: tuple[str | int, ...] | None,
        pull: Pull | None = None,
        constants: frozenset[str] = frozenset(),
    ) -> None:
        self.pull = pull
        self._leaves, self._rebuild = flatten_of(inputs)
        places = _places(caller, self._rebuild, len(self._leaves), inputs, wrt)
        if wrt is None and constants and len(inputs) == 1 and isinstance(inputs[0], Mapping):
            fixed = tuple(name for name in inputs[0] if name in constants)
            fixed_places = _places(caller, self._rebuild, len(self._leaves), inputs, fixed)
            places = [i for i in places if i not in fixed_places or _requires_grad(self._leaves[i])]
        backends = _differentiable(self._leaves, places)
        libraries = {backend.library for backend in backends.values()}
        if len(libraries) > 1:  # NumPy's scalars count as numbers if there is another framework
            backends = {i: backend for i, backend in backends.items() if not isinstance(self._leaves[i], Real)}
            libraries = {backend.library for backend in backends.values()}
        if not libraries:
            raise TypeError(
                f"{caller}: the inputs must hold a floating-point array to differentiate with respect to, got none"
                f"{'' if wrt is None else f' in {shown(wrt)}'}. Pass an array or a tree of them."
            )
        if len(libraries) > 1:
            raise TypeError(
                f"{caller}: gradients must be with respect to arrays of one framework, got "
                f"{' and '.join(sorted(libraries))}. Name the inputs with `wrt=`."
            )
        if wrt is None:
            requiring = {
                i: backend for i, backend in backends.items() if backend.autodiff.requires_grad(self._leaves[i])
            }
            backends = requiring or backends
        candidates = list(backends.values())
        special = [backend for backend in candidates if backend.traces or backend.ragged]
        self.backend = (special or candidates)[0]
        self._groups = _same_arrays(self._leaves, backends)
        self.arrays = [self._leaves[first] for first in self._groups]
        self._underflow = [
            i for i, x in enumerate(self.arrays) if self.backend.dtype(x.dtype).underflows and 0 not in x.shape
        ]

    def inputs_with(self, arrays: list[Any]) -> tuple[Any, ...]:
        """Return the inputs with `self.arrays` replaced by `arrays`."""
        leaves = list(self._leaves)
        for places, x in zip(self._groups.values(), arrays, strict=True):
            for i in places:
                leaves[i] = x
        inputs: tuple[Any, ...] = self._rebuild(iter(leaves))
        return inputs

    def gradient(self, value: Any, pull: Callable[[Any], list[Any]] | None = None) -> list[Any]:
        """Return the gradient of a value. `pull` takes the cotangent. By default, `self.pull` differentiates the value.

        The gradient with respect to a float16 array is returned in float32. In float16, elements below 3e-8 would be 0,
        even if you scale the total up later. So a second pass computes the gradient of a scaled value, and divides it.
        """
        if pull is None:
            assert self.pull is not None
            gradient = self.pull(value, self.arrays)
        else:
            gradient = pull(self.backend.xp.ones_like(value))
        if not self._underflow:
            return gradient
        rounded = {i: gradient[i] for i in self._underflow if gradient[i] is not None}
        if not rounded:
            return gradient
        xp, stop = self.backend.xp, self.backend.autodiff.stop_gradient
        wide = {i: at_least_float32(stop(g)) for i, g in rounded.items()}
        largest = xp.max(self.backend.stack([xp.max(xp.abs(self.backend.packed(g))) for g in wide.values()]))
        scale = _LARGE / xp.where(largest < _LEAST, _LEAST, largest)
        scale = self.backend.moved(xp.where(xp.isfinite(scale) & (scale > 0), scale, xp.ones_like(scale)), value)
        if pull is None:
            assert self.pull is not None
            scaled = self.pull(value * scale, self.arrays)
        else:
            scaled = pull(xp.ones_like(value) * scale)
        gradient = list(gradient)
        for i, g in wide.items():
            exact = at_least_float32(stop(scaled[i])) / self.backend.moved(scale, g)
            gradient[i] = xp.where(xp.isfinite(exact), exact, g)  # an operation in between may overflow
        return gradient


_LARGE = 2.0**14  # a quarter of float16's largest number
_LEAST = 2.0**-25  # float16 rounds smaller numbers to 0


def _differentiable(leaves: list[Any], places: list[int]) -> dict[int, Backend]:
    """Return the backends of the real floating-point arrays at these places."""
    backends: dict[int, Backend] = {}
    for i in places:
        backend = backend_of(leaves[i])
        if backend is not None and backend.dtype(leaves[i].dtype).kind == "real":
            backends[i] = backend
    return backends


def _requires_grad(leaf: Any) -> bool:
    backend = backend_of(leaf)
    return backend is not None and backend.autodiff.requires_grad(leaf)


def _same_arrays(leaves: list[Any], places: Iterable[int]) -> dict[int, list[int]]:
    """Group the places that hold the same array object, which has one gradient, under the first of them."""
    groups: dict[int, list[int]] = {}
    firsts: dict[int, int] = {}
    traced = in_dynamo()
    for i in places:
        if traced:  # pragma: no cover - Dynamo's trace; id() would recompile for each new array
            first = next((j for j in groups if leaves[j] is leaves[i]), i)
        else:
            first = firsts.setdefault(id(leaves[i]), i)
        groups.setdefault(first, []).append(i)
    return groups


def _places(
    caller: str, rebuild: Any, leaves: int, inputs: tuple[Any, ...], wrt: tuple[str | int, ...] | None
) -> list[int]:
    """Return the positions of the leaves that `wrt` names."""
    if wrt is None:
        return list(range(leaves))
    numbered: tuple[Any, ...] = rebuild(iter(range(leaves)))
    by_name = _by_name(numbered[0]) if len(inputs) == 1 else None
    places: list[int] = []
    for name in wrt:
        if isinstance(name, str) and by_name is None:
            raise TypeError(
                f"{caller}: names in `wrt` need one mapping or dataclass as input, got {shown(name)}. Pass a position, "
                "0 for the first."
            )
        parts = by_name if isinstance(name, str) and by_name is not None else dict(enumerate(numbered))
        if name not in parts:
            raise ValueError(
                f"{caller}: `wrt` must name inputs, got {shown(name)}, there are {listed(parts)}."
                + did_you_mean(name, parts)
            )
        places += [place for place in flatten_of(parts[name])[0] if place is not None]  # None is not a leaf in JAX
    return sorted(set(places))


def _by_name(tree: Any) -> dict[Any, Any] | None:
    """Return the parts of a mapping by key or of a dataclass by field, None for anything else."""
    if isinstance(tree, Mapping):
        return dict(tree)
    return {field.name: getattr(tree, field.name) for field in fields(tree)} if is_dataclass(tree) else None


class Gradients:
    """Sum, norms and cosines of gradients that are added one by one. Single gradients are kept only for cosines."""

    def __init__(self, backend: Backend, arrays: list[Any], *, conflicts: bool) -> None:
        self._backend = backend
        self.arrays = arrays
        self._units: dict[str, list[Any]] | None = {} if conflicts else None
        self._total: list[Any] = [None] * len(arrays)
        self.complete = True

    def add(self, name: str, gradient: list[Any], factor: Any) -> tuple[Any, Any]:
        """Add `factor` times a gradient to the total's. Return the norms of the gradient and of `factor` times it."""
        xp, stop = self._backend.xp, self._backend.autodiff.stop_gradient
        gradient = [None if g is None else at_least_float32(stop(g)) for g in gradient]
        if self._backend.ragged:
            gradient = [None if g is None else self._backend.packed(g) for g in gradient]
        norm = self._norm(gradient)
        if type(factor) is not float and backend_of(factor) is not None:
            factor = stop(factor)
        for i, (total, g) in enumerate(zip(self._total, gradient, strict=True)):
            if g is not None:
                self._total[i] = g * factor if total is None else self._backend.autodiff.add_multiple(total, g, factor)
        if self._units is not None:
            divisor = xp.where(norm == 0, xp.ones_like(norm), norm)
            self._units[name] = [None if g is None else g / divisor for g in gradient]
        return norm, norm * factor

    def attach(self, total: Any) -> Any:
        """Return `total` with the sum of the gradients as its gradient, if each part of it has one."""
        return self._backend.autodiff.with_gradient(total, self.arrays, self._total) if self.complete else total

    def total_norm(self) -> Any:
        """Return the norm of the sum of the gradients, None if one of them is missing."""
        return self._norm(self._total) if self.complete else None

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
        squares = [self._backend.autodiff.squared_norm(g) for g in gradient if g is not None]
        return self._backend.xp.sqrt(sum(squares[1:], squares[0]) if squares else self._zero())

    def _dot(self, a: list[Any], b: list[Any]) -> Any:
        # not vecdot, see `squared_norm`
        sum_ = self._backend.xp.sum
        products = [sum_(x * y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        return sum(products[1:], products[0]) if products else self._zero()

    def _zero(self) -> Any:
        array = at_least_float32(self._backend.autodiff.stop_gradient(self._backend.packed(self.arrays[0])))
        return self._backend.xp.sum(self._backend.xp.reshape(array, (-1,))[:0])
