"""Check the option `wrt`: the inputs, the arrays or the module that gradients are with respect to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from .._core.shown import listed, shown
from .._core.suggestions import did_you_mean
from ..backends import Backend, backend_of, flatten_of, is_array, parameters_of

__all__ = [
    "Chosen",
    "PulledBack",
    "Recorded",
    "Wrt",
    "arrays_in",
    "checked_wrt",
    "chosen_inputs",
    "items_of",
    "needs_graph",
    "parts_by_name",
    "refuse_arrays",
]


@dataclass(frozen=True)
class Recorded:
    """A `wrt` of arrays on a recorded graph, as in PyTorch. They may be inputs, but need not be.

    Integrations pass it as `wrt`. If no array requires a gradient, the report says so, and there is no error.

    Attributes
    ----------
    items : tuple
        Names of inputs, arrays and modules.
    scale : callable, optional
        Multiplies a value before it is differentiated, like `torch.amp.GradScaler.scale`. The gradients are divided by
        the same factor.
    """

    items: tuple[Any, ...]
    scale: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class PulledBack:
    """A `wrt` of the arrays that the inputs are computed from, for a framework that records no graph, like JAX.

    Attributes
    ----------
    arrays : list
        The arrays to differentiate with respect to.
    back : callable
        Takes the inputs' arrays and the gradients with respect to them. Returns the gradients with respect to `arrays`.
        The gradient is None for an array that the value does not depend on.
    label : str
        What the arrays are called in reports.
    """

    arrays: list[Any]
    back: Callable[[list[Any], list[Any]], list[Any]]
    label: str


Wrt = tuple[Any, ...] | Recorded | PulledBack | None


def checked_wrt(caller: str, wrt: Any) -> Wrt:
    """Return the items of `wrt`: names and positions of inputs, arrays, and trees or modules with arrays."""
    if wrt is None or isinstance(wrt, PulledBack):
        return wrt
    if isinstance(wrt, Recorded):
        return Recorded(_checked_items(caller, wrt.items), wrt.scale)
    is_one = isinstance(wrt, (str, Mapping)) or not isinstance(wrt, Iterable) or is_array(wrt)
    items = (wrt,) if is_one or parameters_of(wrt) is not wrt else tuple(wrt)
    if not items:
        raise ValueError(
            f"{caller}: `wrt` must not be empty, got {shown(wrt)}. Pass at least one name or array. A generator, such "
            "as model.parameters(), is empty the second time."
        )
    return _checked_items(caller, items)


def _checked_items(caller: str, items: tuple[Any, ...]) -> tuple[Any, ...]:
    for item in items:
        is_place = isinstance(item, (str, int)) and not isinstance(item, bool)
        if not (is_place or arrays_in(item)):
            raise TypeError(
                f"{caller}: `wrt` must be names or positions of inputs, arrays, or a module with parameters, got "
                f"{shown(item)}. Pass one of these, or several."
            )
    return items


def items_of(wrt: Wrt) -> tuple[Any, ...]:
    """Return the names, arrays and modules of `wrt`."""
    if isinstance(wrt, Recorded):
        return wrt.items
    return wrt if isinstance(wrt, tuple) else ()


def arrays_in(tree: Any) -> list[Any]:
    """Return the arrays of a tree, or the parameters of a module."""
    return [leaf for leaf in flatten_of(parameters_of(tree))[0] if is_array(leaf)]


def refuse_arrays(caller: str, wrt: Wrt, backend: Backend) -> None:
    """Raise an error if `wrt` holds arrays, for a backend whose arrays are passed to another library."""
    if isinstance(wrt, tuple) and not all(isinstance(item, (str, int)) for item in wrt):
        raise ValueError(
            f"{caller}: `wrt` must name inputs, because another library differentiates arrays of {backend.name}, got "
            "arrays. Pass names or positions of the inputs that hold them."
        )


def needs_graph(inputs: tuple[Any, ...], wrt: Wrt) -> bool:
    """Return whether gradients with respect to `wrt` need a recorded graph, because the inputs alone do not suffice.

    This is so if `wrt` holds arrays, or if one of the inputs may have been computed from another.
    """
    if not isinstance(wrt, tuple):
        return wrt is not None
    if not all(isinstance(item, (str, int)) for item in wrt):
        return True
    for leaf in flatten_of(inputs)[0]:
        backend = backend_of(leaf)
        if parameters_of(leaf) is not leaf if backend is None else backend.autodiff.is_computed(leaf):
            return True
    return False


class Chosen(NamedTuple):
    """The arrays that one item of `wrt` stands for."""

    label: str
    places: list[int] | None  # of leaves of the inputs; None for arrays
    arrays: list[Any]


def chosen_inputs(
    caller: str, leaves: list[Any], rebuild: Any, inputs: tuple[Any, ...], items: tuple[Any, ...]
) -> list[Chosen]:
    """Return what each item stands for. `leaves` and `rebuild` are those of the inputs."""
    numbered: tuple[Any, ...] = rebuild(iter(range(len(leaves))))
    by_name = parts_by_name(numbered[0]) if len(inputs) == 1 else None
    chosen = []
    for item in items:
        if not isinstance(item, (str, int)):
            chosen.append(Chosen(_label_of(item, inputs), None, arrays_in(item)))
            continue
        if isinstance(item, str) and by_name is None:
            raise TypeError(
                f"{caller}: names in `wrt` need one mapping or dataclass as input, got {shown(item)}. Pass a position, "
                "0 for the first."
            )
        parts = by_name if isinstance(item, str) and by_name is not None else dict(enumerate(numbered))
        if item not in parts:
            raise ValueError(
                f"{caller}: `wrt` must name inputs, got {shown(item)}. Choose from: {listed(parts)}."
                + did_you_mean(item, parts)
            )
        # None is not a leaf in JAX
        places = [place for place in flatten_of(parts[item])[0] if place is not None]
        arrays = [x for i in places for x in ([leaves[i]] if is_array(leaves[i]) else arrays_in(leaves[i]))]
        chosen.append(Chosen(item if isinstance(item, str) else f"input {item}", places, arrays))
    return chosen


def parts_by_name(tree: Any) -> dict[Any, Any] | None:
    """Return the parts of a mapping by key or of a dataclass by field, None for anything else."""
    if isinstance(tree, Mapping):
        return dict(tree)
    return {field.name: getattr(tree, field.name) for field in fields(tree)} if is_dataclass(tree) else None


def _label_of(item: Any, inputs: tuple[Any, ...]) -> str:
    """Return the name of the input that is `item` itself, else "params" or "arrays"."""
    named = parts_by_name(inputs[0]) if len(inputs) == 1 else None
    name = next((name for name, part in (named or {}).items() if part is item), None)
    if isinstance(name, str):
        return name
    for x in arrays_in(item):
        backend = backend_of(x)
        if backend is None or not backend.autodiff.requires_grad(x) or backend.autodiff.is_computed(x):
            return "arrays"
    return "params"
