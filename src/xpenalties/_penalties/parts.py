"""Evaluate penalties of arrays of which each device holds a part, inside `over`.

The local arrays become parts, which have the shapes of the whole arrays. Everything else is the same as for any array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..backends import Backend, backend_of
from ..backends._over import Groups, suspended
from ..backends._registry import part_backend_of
from ..backends.parts._group import Group
from ..backends.parts._part import Cuts, Part
from .arguments import Call
from .part_shapes import Layout, PartShapes
from .part_sizes import PartSizes
from .preparation import axis_error
from .several_axes import counted_axes
from .spec import Spec

__all__ = ["evaluate_parts", "layouts_of_layer"]


def evaluate_parts(call: Call, backend: Backend, groups: Groups, evaluate: Callable[[Call, Backend], Any]) -> Any:
    """Evaluate a call on parts. Returns local arrays."""
    spec, options = call.spec, call.options
    shared = {name: x for name, x in (("where", call.where), ("weights", call.weights)) if x is not None}
    arrays_of_options = (
        {} if call.functions else {n: x for n, x in options.items() if n != "rng" and backend_of(x) is not None}
    )
    beside = {**shared, **arrays_of_options}
    arrays = {**dict(zip(spec.arrays, call.arrays, strict=True)), **beside}
    settings = {**options, "reduction": call.reduction, "normalizer": call.normalizer is not None}
    sizes = PartSizes(spec.name, backend, groups, arrays, settings)
    layouts = _layouts(call, groups)
    differ = None if spec.same_shape else _axis_that_differs(spec, options, call.arrays[0])
    shapes = PartShapes(spec.name, backend, groups, sizes, layouts, spec.matrices, differ=differ)
    first = shapes.parts[0]
    local, cuts = _selected(spec, options, first)
    lifted = {
        name: shapes.beside(name, *((local, cuts) if name in shared else (first.data.shape, first.cuts)))
        for name in beside
    }
    normalizer = call.normalizer
    if backend_of(normalizer) is not None:
        normalizer = type(first)(normalizer, ())
    call = call._replace(
        spec=replace(spec, formula=_on_local_samples(spec, first)) if call.functions else spec,
        arrays=tuple(shapes.parts),
        where=lifted.get("where"),
        weights=lifted.get("weights"),
        normalizer=normalizer,
        options={**options, **{name: lifted[name] for name in arrays_of_options}},
    )
    result = evaluate(call, part_backend_of(backend))
    if call.with_metrics:
        value, metrics = result
        return value.data, tuple(metric.data for metric in metrics)
    return result.data


def layouts_of_layer(caller: str, hidden: Any, groups: Groups) -> tuple[Layout, Layout]:
    """Return how hidden states and a layer's weight are cut."""
    if groups.batch is not None and hidden.ndim < 2:
        raise ValueError(
            f"{caller}: `hidden` must have an axis of rows to be cut over `batch`, got shape {tuple(hidden.shape)}. "
            "Add one."
        )
    return _layout(groups.batch, 0), _layout(groups.classes, 0)


def _layout(group: Group | None, axis: int) -> Layout:
    return {} if group is None else {axis: group}


def _layouts(call: Call, groups: Groups) -> list[Layout]:
    """Return how each array is cut. Refuse penalties that cannot be right."""
    spec, options, arrays = call.spec, call.options, call.arrays
    if spec.functions:
        return [_layout_of_samples(spec, options, x, groups) for x in arrays]
    if spec.matrices:
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        return [layout for hidden, _ in pairs for layout in layouts_of_layer(spec.name, hidden, groups)]
    ndim = arrays[0].ndim
    if ndim == 0:
        raise ValueError(f"{spec.name}: `{spec.arrays[0]}` must have an axis to be cut, got shape (). Call it outside.")
    if spec.shape_of_terms(options) == "neighborhoods":
        _check_neighborhoods(spec, options, arrays[0], groups)
    if spec.distributions({**spec.defaults, **options}) == "elements":
        layout = _layout(groups.batch, 0)
    else:
        layout = {} if groups.classes is None else {_axis_of_classes(spec, options, arrays[0]): groups.classes}
        if groups.batch is not None:
            if 0 in layout:
                raise ValueError(
                    f"{spec.name}: `{spec.arrays[0]}` must have one axis for `classes` and another, the first, for "
                    f"`batch`, got shape {tuple(arrays[0].shape)}. Add an axis, or use `over` with one of them."
                )
            layout[0] = groups.batch
    return [layout] * len(arrays)


def _check_neighborhoods(spec: Spec, options: Any, x: Any, groups: Groups) -> None:
    """Check that neighbors are on the same device: only `batch` may be cut, and only if they lie along other axes."""
    axes = counted_axes(spec, options.get("axis", spec.defaults["axis"]), tuple(x.shape))
    if groups.classes is not None or 0 in axes:
        raise NotImplementedError(
            f"{spec.name}: `axis` must have only axes that are whole inside `over`, got {axes} in "
            f"over({groups.shown}). A device does not have the neighbors of its last elements. Use over(batch=...) and "
            "axes after the first."
        )


def _axis_that_differs(spec: Spec, options: Any, x: Any) -> int:
    """Return the axis along which arrays may have other sizes, if there is one."""
    return _axis_of_classes(spec, options, x) if spec.terms == "rows" else int(x.ndim) - 2


def _axis_of_classes(spec: Spec, options: Any, x: Any) -> int:
    axis = options.get("axis", spec.defaults.get("axis", -1))
    if isinstance(axis, tuple):
        axis = axis[-1]
    if not isinstance(axis, int):
        return x.ndim - 1
    if not -x.ndim <= axis < x.ndim:
        raise axis_error(spec, axis, x.shape)
    return axis % x.ndim


def _layout_of_samples(spec: Spec, options: Any, x: Any, groups: Groups) -> Layout:
    if groups.classes is not None:
        raise NotImplementedError(
            f"{spec.name}: samples must be whole, got over({groups.shown}). Only your function knows how the parts of "
            "a sample belong together. Use over(batch=...)."
        )
    if not options.get("per_sample", spec.defaults.get("per_sample", True)):
        raise NotImplementedError(
            f"{spec.name}: `per_sample` must be True inside `over`, got False. Your function gets the samples of one "
            "device, so its single value cannot be that of all samples."
        )
    return _layout(groups.batch, 0) if x.ndim else {}


def _selected(spec: Spec, options: Any, x: Part) -> tuple[tuple[int, ...], Cuts]:
    """Return the local shape and the cuts of what `where` and `weights` select: terms or samples."""
    local, cuts = tuple(x.data.shape), x.cuts
    kind = spec.selected(options)
    if kind in ("elements", "neighborhoods"):
        return local, cuts
    if kind == "samples":
        return local[:1], cuts[:1]
    if kind == "rows":
        axis = options.get("axis", spec.defaults.get("axis", -1))
        axis = -1 if isinstance(axis, str) else axis
        removed = {i % x.ndim for i in (axis if isinstance(axis, tuple) else (axis,))}
        rest = [i for i in range(x.ndim) if i not in removed]
        return tuple(local[i] for i in rest), tuple(cuts[i] for i in rest)
    return (local[:-2], cuts[:-2]) if kind == "matrices" else ((), ())


def _on_local_samples(spec: Spec, first: Part) -> Callable[..., Any]:
    """Return the formula of a penalty with functions, for parts. The user's functions get local arrays."""
    count = len(spec.functions)

    def formula(*args: Any, **options: Any) -> Any:
        with suspended():
            terms = spec.formula(*args[:count], *(x.data for x in args[count:]), **options)
        return type(first)(terms, first.cuts[:1], first.varies)

    return formula
