"""The arrays that gradients are with respect to, and how a penalty's value is differentiated with respect to them.

There are two ways. Any framework can differentiate a penalty as a function of its inputs: the inputs are replaced by
traced arrays. PyTorch can also differentiate a computed value through the graph that leads to it, for example through a
model, with respect to any tensor of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from .._arrays.numerics import at_least_float32
from .._core.shown import shown
from ..backends import Backend, backend_of, flatten_of, in_dynamo
from ..backends._over import ACTIVE
from .part_gradients import same_on_all_devices
from .wrt import Chosen, PulledBack, Recorded, Wrt, arrays_in, chosen_inputs, parts_by_name

__all__ = ["Tracked", "TrackedGraph", "TrackedInputs", "tracked_arrays"]

_LARGE = 2.0**14  # a quarter of float16's largest number
_LEAST = 2.0**-25  # float16 rounds smaller numbers to 0
_LONGEST_LABEL = 32  # characters


class Tracked:
    """Arrays to differentiate with respect to.

    Attributes
    ----------
    arrays : list
        Each array once.
    backend : Backend
        Their backend.
    label : str
        What they are called in reports.
    """

    def __init__(self, arrays: list[Any], backend: Backend, label: str) -> None:
        self.arrays = arrays
        self.backend = backend
        self.label = label
        self._underflow = [i for i, x in enumerate(arrays) if backend.dtype(x.dtype).underflows and 0 not in x.shape]

    def reason(self, value: Any) -> str:
        """Return why a value has no gradient norm, if its gradient is None for each array."""
        return f"does not depend on wrt ({self.label})"

    def gradient(self, value: Any, pull: Callable[[Any], list[Any]]) -> list[Any]:
        """Return the gradient of a value. `pull` takes its cotangent.

        The gradient with respect to a float16 array is returned in float32. In float16, elements below 3e-8 would be 0,
        even if you scale the total up later. So a second pass computes the gradient of a scaled value, and divides it
        by the scale.
        """
        gradient = pull(self.backend.xp.ones_like(value))
        if not self._underflow:
            return gradient
        rounded = {i: gradient[i] for i in self._underflow if gradient[i] is not None}
        if not rounded:
            return gradient
        xp, stop = self.backend.xp, self.backend.autodiff.stop_gradient
        wide = {i: at_least_float32(stop(g)) for i, g in rounded.items()}
        largest = xp.max(self.backend.stack([xp.max(xp.abs(self.backend.packed(g))) for g in wide.values()]))
        if ACTIVE.any:
            largest = same_on_all_devices(largest)
        scale = _LARGE / xp.where(largest < _LEAST, _LEAST, largest)
        scale = self.backend.moved(xp.where(xp.isfinite(scale) & (scale > 0), scale, xp.ones_like(scale)), value)
        scaled = pull(xp.ones_like(value) * scale)
        gradient = list(gradient)
        for i, g in wide.items():
            exact = at_least_float32(stop(scaled[i])) / self.backend.moved(scale, g)
            gradient[i] = xp.where(xp.isfinite(exact), exact, g)  # an operation in between may overflow
        return gradient


class TrackedInputs(Tracked):
    """The inputs of a pipeline. To differentiate a penalty, some of their arrays are replaced by traced arrays.

    Attributes
    ----------
    traced : list
        The arrays to replace. An array that occurs twice among the inputs is here once.
    back : callable or None
        Computes the gradients with respect to `arrays`, if these are not `traced`: see `PulledBack`.
    """

    def __init__(
        self,
        leaves: list[Any],
        rebuild: Any,
        places: dict[int, Backend],
        label: str,
        pulled_back: PulledBack | None = None,
    ) -> None:
        backends = list(places.values())
        special = [backend for backend in backends if backend.traces or backend.ragged]
        self._leaves = leaves
        self._rebuild = rebuild
        self._groups = _same_arrays(leaves, places)
        self.back = None if pulled_back is None else pulled_back.back
        self.traced = list(map(leaves.__getitem__, self._groups))
        arrays = self.traced if pulled_back is None else pulled_back.arrays
        super().__init__(arrays, (special or backends)[0], label)

    def names(self) -> list[set[Any]]:
        """Return the names of the inputs that hold each traced array. There are none if inputs have positions."""
        numbered = self._rebuild(iter(range(len(self._leaves))))
        by_name = parts_by_name(numbered[0]) if len(numbered) == 1 else None
        parts = {name: set(flatten_of(part)[0]) for name, part in (by_name or {}).items()}
        return [
            {name for name, places in parts.items() if not places.isdisjoint(group)} for group in self._groups.values()
        ]

    def are_all(self, names: tuple[str, ...]) -> bool:
        """Return False if one of these inputs, or of all inputs if there are no names, holds other floats.

        Without a graph, they may have been computed from the traced arrays.
        """
        numbered = self._rebuild(iter(range(len(self._leaves))))
        by_name = (parts_by_name(numbered[0]) if len(numbered) == 1 else None) or {}
        parts = [by_name[name] for name in names if name in by_name] if names else numbered
        traced = {i for group in self._groups.values() for i in group}
        others = [self._leaves[i] for i in flatten_of(parts)[0] if i is not None and i not in traced]
        pairs = [(x, backend_of(x)) for x in others]
        return not any(b is not None and b.dtype(x.dtype).kind in ("real", "complex") for x, b in pairs)

    def inputs_with(self, arrays: list[Any]) -> tuple[Any, ...]:
        """Return the inputs with `self.traced` replaced by `arrays`."""
        leaves = list(self._leaves)
        for places, x in zip(self._groups.values(), arrays, strict=True):
            for i in places:
                leaves[i] = x
        inputs: tuple[Any, ...] = self._rebuild(iter(leaves))
        return inputs

    def reason(self, value: Any) -> str:
        """Return why a value has no gradient norm."""
        backend = None if in_dynamo() else backend_of(value)
        if backend is not None and backend.autodiff.requires_grad(value):
            return f"{super().reason(value)}, but on other tensors that require gradients. Pass these as `wrt`"
        return super().reason(value)

    def reason_without_graph(self) -> str:
        """Return why a value has no gradient norm if its inputs may have been computed from the arrays."""
        return (
            f"does not use wrt ({self.label}) itself. Its inputs may have been computed from wrt, but no graph records "
            "that. For norms of parameters, use a train_step of xpenalties.integrations, or make them the only input"
        )

    def pulled_back(self, pull: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
        """Return a function that pulls gradients with respect to `self.traced` back to `self.arrays`."""
        assert self.back is not None
        back = self.back
        return lambda cotangent: back(self.traced, pull(cotangent))


class TrackedGraph(Tracked):
    """Arrays of a recorded graph. Values are differentiated through everything that leads from the arrays to them."""

    def __init__(
        self, arrays: list[Any], backend: Backend, label: str, scale: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(arrays, backend, label)
        self._scale = scale
        self._is_recorded = any(map(backend.autodiff.requires_grad, arrays))

    def reason(self, value: Any) -> str:
        """Return why a value has no gradient norm."""
        if not self._is_recorded:
            return f"no array of wrt ({self.label}) requires a gradient"
        if self.is_unknown(value):
            return f"{super().reason(value)}, or FSDP has replaced its sharded parameters by copies"
        return super().reason(value)

    def is_unknown(self, value: Any) -> bool:
        """Return True if a value without a gradient may depend on copies of the arrays."""
        autodiff = self.backend.autodiff
        return autodiff.requires_grad(value) and any(map(autodiff.may_be_copied, self.arrays))

    def gradient_of(self, value: Any) -> list[Any]:
        """Return the gradient of a computed value, and keep the graph. None for arrays that are not in it."""
        if not self._is_recorded:
            return [None] * len(self.arrays)
        autodiff = self.backend.autodiff
        if self._scale is None:
            return self.gradient(value, lambda cotangent: autodiff.recorded_gradient(value, self.arrays, cotangent))
        factor = self._scale(self.backend.xp.ones_like(autodiff.stop_gradient(value)))

        def pull(cotangent: Any) -> list[Any]:
            scaled = autodiff.recorded_gradient(value, self.arrays, cotangent * factor)
            return [None if g is None else at_least_float32(g) / self.backend.moved(factor, g) for g in scaled]

        return self.gradient(value, pull)


def tracked_arrays(
    caller: str, inputs: tuple[Any, ...], wrt: Wrt, constants: frozenset[str] = frozenset()
) -> TrackedInputs | TrackedGraph:
    """Return the arrays to differentiate with respect to, among the inputs or on a graph.

    `constants` are names of inputs that are left out if `wrt` is None, unless they require gradients.
    """
    leaves, rebuild = flatten_of(inputs)
    if wrt is None or isinstance(wrt, PulledBack):
        places: Iterable[int] = range(len(leaves))
        if constants and len(inputs) == 1 and isinstance(inputs[0], Mapping):
            names = tuple(name for name in inputs[0] if name in constants)
            fixed = {i for part in chosen_inputs(caller, leaves, rebuild, inputs, names) for i in part.places or ()}
            places = [i for i in places if i not in fixed or _requires_grad(leaves[i])]
        backends = _differentiable(caller, leaves, places, "")
        if isinstance(wrt, PulledBack):
            return TrackedInputs(leaves, rebuild, backends, wrt.label, wrt)
        requiring = {i: backend for i, backend in backends.items() if backend.autodiff.requires_grad(leaves[i])}
        return TrackedInputs(leaves, rebuild, requiring or backends, "inputs")
    items, recorded = (wrt.items, wrt) if isinstance(wrt, Recorded) else (wrt, None)
    chosen = chosen_inputs(caller, leaves, rebuild, inputs, items)
    label = _joined(chosen)
    if recorded is not None or (chosen and all(map(_is_recorded, chosen))):
        arrays = [x for part in chosen for x in part.arrays]
        backends = _differentiable(caller, arrays, range(len(arrays)), f" in {label}")
        requiring = {i: backend for i, backend in backends.items() if backend.autodiff.requires_grad(arrays[i])}
        backends = requiring or backends
        unique = [arrays[first] for first in _same_arrays(arrays, backends)]
        scale = None if recorded is None else recorded.scale
        special = [backend for backend in backends.values() if backend.traces]
        return TrackedGraph(unique, (special or [*backends.values()])[0], label, scale)
    places = sorted({i for part in chosen for i in _places(caller, leaves, part)})
    shown_items = tuple(item if isinstance(item, (str, int)) else "arrays" for item in items)
    backends = _differentiable(caller, leaves, places, f" in {shown(shown_items)}")
    return TrackedInputs(leaves, rebuild, backends, label)


def _requires_grad(leaf: Any) -> bool:
    backend = backend_of(leaf)
    return backend is not None and backend.autodiff.requires_grad(leaf)


def _joined(chosen: list[Chosen]) -> str:
    label = ", ".join(dict.fromkeys(part.label for part in chosen))
    return label if len(label) <= _LONGEST_LABEL else f"{len(chosen)} inputs"


def _is_recorded(part: Chosen) -> bool:
    """Return True if values that are computed from the arrays have a graph that leads back to one of them."""
    for x in part.arrays:
        backend = backend_of(x)
        if backend is not None and backend.autodiff.records(x):
            return True
    return False


def _places(caller: str, leaves: list[Any], part: Chosen) -> list[int]:
    """Return the places of the arrays among the leaves of the inputs."""
    if part.places is not None:
        return part.places
    if in_dynamo():  # pragma: no cover - Dynamo's trace; id() would recompile for each new array
        found = [[i for i, leaf in enumerate(leaves) if leaf is x] for x in part.arrays]
    else:
        by_id: dict[int, list[int]] = {}
        for i, leaf in enumerate(leaves):
            by_id.setdefault(id(leaf), []).append(i)
        found = [by_id.get(id(x), []) for x in part.arrays]
    if not all(found):
        backend = backend_of(part.arrays[0])
        assert backend is not None
        raise ValueError(f"{caller}: {backend.autodiff.needs_inputs}")
    return [i for places in found for i in places]


def _differentiable(caller: str, leaves: list[Any], places: Iterable[int], where: str) -> dict[int, Backend]:
    """Return the backends of the real floating-point arrays at these places: at least one, and of one framework."""
    backends: dict[int, Backend] = {}
    for i in places:
        backend = backend_of(leaves[i])
        if backend is not None and backend.dtype(leaves[i].dtype).kind == "real":
            backends[i] = backend
    if len(backends) == 1:
        return backends
    libraries = {backend.library for backend in backends.values()}
    if len(libraries) > 1:  # NumPy's scalars count as numbers if there is another framework
        backends = {i: backend for i, backend in backends.items() if not isinstance(leaves[i], Real)}
        libraries = {backend.library for backend in backends.values()}
    if not libraries:
        modules = not where and any(_is_recorded(Chosen("", None, arrays_in(leaf))) for leaf in leaves)
        remedy = "Pass the module as `wrt`." if modules else "Pass an array or a tree of them."
        raise TypeError(
            f"{caller}: the inputs must hold a floating-point array to differentiate with respect to, got none{where}. "
            f"{remedy}"
        )
    if len(libraries) > 1:
        raise TypeError(
            f"{caller}: gradients must be with respect to arrays of one framework, got "
            f"{' and '.join(sorted(libraries))}. Name the inputs with `wrt=`."
        )
    return backends


def _same_arrays(leaves: list[Any], places: Iterable[int]) -> dict[int, list[int]]:
    """Group the places that hold the same array object, because it has one gradient. The keys are the first places."""
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
