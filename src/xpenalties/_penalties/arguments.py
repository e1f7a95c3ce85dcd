"""One call of a penalty, and the checks that come before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from numbers import Real
from typing import Any, NamedTuple

from .._core.checks import POSITIVE, one_of
from .._core.dynamo import in_dynamo
from .._core.shown import shown
from ..backends import (
    Backend,
    array_beside,
    backend_of,
    common_backend,
    flatten_of,
    is_array,
    is_array_beside,
    parameters_of,
)
from .spec import Spec

__all__ = ["Call", "check"]

_REDUCTIONS = ("sum", "mean", "none")


class Call(NamedTuple):
    """One call of a penalty. `check` moves the functions, which come first in `arrays`, to `functions`."""

    spec: Spec
    arrays: tuple[Any, ...]
    reduction: str
    where: Any
    weights: Any
    normalizer: Any  # checked: a Python float or an array
    options: Mapping[str, Any]
    with_metrics: bool = False
    functions: tuple[Any, ...] = ()


def check(call: Call) -> tuple[Call, Backend]:
    """Check a call, except for its shapes, dtypes, `where` and `weights`.

    Returns the call, with its functions separated from its arrays and its options checked, and the arrays' backend.
    """
    spec, arrays, reduction, where, weights, normalizer, options, with_metrics, functions = call
    if spec.functions:
        functions, arrays = arrays[: len(spec.functions)], arrays[len(spec.functions) :]
    if len(arrays) != len(spec.arrays):
        raise TypeError(
            f"{spec.name}: takes {''.join(f'`{name}` and ' for name in spec.functions)}{len(spec.arrays)} "
            f"array{'s' * (len(spec.arrays) > 1)} ({', '.join(spec.arrays)}), "
            f"got {len(arrays)} by position. Pass arrays by position, options by keyword."
        )
    if functions:
        _check_callable(spec, functions)
    if options:
        options = spec.check_options(options)
    if reduction not in _REDUCTIONS:
        spec.check("reduction", reduction, one_of(_REDUCTIONS))
    try:
        backend = common_backend(spec.name, spec.arrays, arrays)
    except TypeError as error:
        raise (_tree_error(spec, arrays) or error) from None
    if normalizer is not None:
        normalizer = _checked_normalizer(spec, arrays[0], normalizer)
    if where is not None or weights is not None:
        where, weights = (None if x is None else array_beside(x, arrays[0]) for x in (where, weights))
    if backend.cut:
        arrays, options = _beside_cut_arrays(spec, backend, arrays, options)
        call = Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics, functions)
    if backend.lazy:
        _require_sizes(spec, backend, dict(zip(spec.arrays, arrays, strict=True)), where, weights, options)
    if functions or options or not (where is weights is normalizer is None):
        call = Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics, functions)
    return call, backend


def _require_sizes(
    spec: Spec, backend: Backend, arrays: Mapping[str, Any], where: Any, weights: Any, options: Mapping[str, Any]
) -> None:
    """Raise an error if the size of an array is not known: the number of terms would be unknown, too."""
    for name, x in {**arrays, "where": where, "weights": weights, **options}.items():
        if backend_of(x) is backend:
            backend.require_sizes(spec.name, name, x)


def _tree_error(spec: Spec, arrays: tuple[Any, ...]) -> TypeError | None:
    """Return the error for a tree of arrays in place of an array, or None if there is no tree."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return None
    if spec.functions:  # it cannot go over trees
        return None
    for name, x in zip(spec.arrays, arrays, strict=True):
        leaves = list(islice(x, 100)) if isinstance(x, Iterator) else flatten_of(parameters_of(x))[0]
        if is_array(x) or not any(map(is_array, leaves)):
            continue
        one = next((key for key in x if isinstance(key, str)), None) if isinstance(x, Mapping) else None
        remedy = "" if one is None else f" To take one of them, pass inputs={shown(one)} to the Penalty."
        return TypeError(
            f"{spec.name}: `{name}` must be an array, got {type(x).__module__}.{type(x).__qualname__}. To sum over the "
            f"arrays of a tree or module, use trees.over_tree({spec.name!r}), or in a pipeline "
            f"Penalty({spec.name!r}, tree={{}}).{remedy}"
        )
    return None


def _beside_cut_arrays(
    spec: Spec, backend: Backend, arrays: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make plain arrays beside arrays that are cut into parts like them: copies that every process has.

    Linear layers are refused. The shapes of plain hidden states do not show if they are a process's own rows.
    """
    like = next(x for x in arrays if backend_of(x) is backend)
    if spec.matrices:
        for name, x in zip(spec.arrays, arrays, strict=True):
            if backend_of(x) is not backend:
                raise TypeError(
                    f"{spec.name}: `{name}` must be cut into parts or copied like the other arrays, got "
                    f"{type(x).__module__}.{type(x).__qualname__} beside {type(like).__module__}."
                    f"{type(like).__qualname__}. Use DTensor.from_local, with Shard(0) for a process's own rows and "
                    "Replicate() for copies."
                )
    arrays = tuple(backend.beside(x, like) for x in arrays)
    return arrays, {name: backend.beside(value, like) for name, value in options.items()}


def _checked_normalizer(spec: Spec, first: Any, normalizer: Any) -> Any:
    """Check a normalizer. Returns a Python float > 0, or a real 0-d array."""
    if not isinstance(normalizer, Real):
        normalizer = array_beside(normalizer, first)
    if not is_array_beside(normalizer, first):
        return spec.check("normalizer", normalizer, POSITIVE)
    backend = common_backend(spec.name, (spec.arrays[0], "normalizer"), (first, normalizer))
    if backend.dtype(normalizer.dtype).kind in ("complex", "bool"):
        raise TypeError(f"{spec.name}: `normalizer` must be real, got {normalizer.dtype}. Pass a count.")
    if tuple(normalizer.shape) != ():
        raise ValueError(
            f"{spec.name}: `normalizer` must be a number or a 0-d array, got shape {tuple(normalizer.shape)}. "
            "For a factor for each term, use `weights`."
        )
    return normalizer


def _check_callable(spec: Spec, functions: tuple[Any, ...]) -> None:
    for name, function in zip(spec.functions, functions, strict=True):
        if not callable(function):
            raise TypeError(
                f"{spec.name}: `{name}` must be callable, got {type(function).__qualname__}. Pass it before the arrays."
            )
