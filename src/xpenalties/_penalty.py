"""The decorator that turns a penalty's formula into a public function, and the registry of the functions it made.

A formula maps arrays to terms. What every penalty shares is here: checking, half precision, `where`, `weights`,
`normalizer` and the reduction, so that a penalty is its mathematics and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, NamedTuple, ParamSpec, Protocol, TypedDict, TypeVar, cast

from ._numerics import count, ratio
from ._options import Check, Interval, checks_of, member, nearest, number
from .backends import Backend, common_backend, is_array

__all__ = ["SHARED", "Array", "Shared", "Spec", "Terms", "penalty", "registered", "spec_of", "value_and_metrics"]


class SupportsArithmetic(Protocol):
    """What the type checker needs to know of an array; any framework's array has it."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...


Array = TypeVar("Array", bound=SupportsArithmetic)


class Shared(TypedDict, total=False):
    """The options every penalty takes; described once in `_SHARED_DOC`."""

    reduction: Literal["sum", "mean", "none"]
    where: Any
    weights: Any
    normalizer: Any


Shape = Literal["elements", "rows", "matrices", "whole"]
Reduction = Literal["sum", "mean", "none"]
P = ParamSpec("P")
R = TypeVar("R")

_REDUCTIONS = ("sum", "mean", "none")
_POSITIVE = number(Interval(0, float("inf"), low_open=True))
SHARED = ("reduction", "where", "weights", "normalizer")
_SHARED_DOC = """
    Other Parameters
    ----------------
    reduction : {{"sum", "mean", "none"}}, default "{reduction}"
        "mean" divides by the number of terms, with `weights` by their sum; "none" returns the terms.
    where : boolean array, broadcastable to the terms, optional
        Terms to keep. One that is masked out adds exactly nothing to value and gradient, also if it is NaN.
    weights : array of numbers >= 0, broadcastable to the terms, optional
        Factor of each term. A weight of 0 masks its term out.
    normalizer : number > 0 or 0-d array, optional
        What to divide the sum by in place of what `reduction` would.
"""
_REGISTRY: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True)
class Spec:
    """All that is known of a penalty without an array."""

    name: str
    formula: Callable[..., Any]
    arrays: tuple[str, ...]
    checks: Mapping[str, Check]
    defaults: Mapping[str, Any]
    terms: Callable[[Mapping[str, Any]], Shape]
    reduction: Reduction
    fill: float
    complex: bool
    takes_kept: bool

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` checked and made plain Python values."""
        for name in options:
            if name not in self.checks:
                valid = (*self.checks, *SHARED)
                raise TypeError(
                    f"{self.name}: `{name}` is not an option, the options are {', '.join(valid)}.{nearest(name, valid)}"
                )
        return {name: self.check(name, value, self.checks[name]) for name, value in options.items()}

    def check(self, name: str, value: Any, check: Check) -> Any:
        """`value` as `check` returns it; its errors name the function."""
        try:
            return check(name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None


class Terms(NamedTuple):
    """A penalty before its reduction."""

    backend: Backend
    values: Any  # masked, weighted
    kept: Any  # boolean, of the terms' shape; None: all
    weights: Any  # None: all 1


def penalty(
    *,
    terms: Shape | Callable[[Mapping[str, Any]], Shape],
    reduction: Reduction,
    fill: float = 0.0,
    complex: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public penalty of a formula.

    Parameters
    ----------
    terms : {"elements", "rows", "matrices", "whole"} or callable of the options
        What the formula returns: one term for each element, for each row (along its option `axis`), for each matrix
        (the last two axes), or a single one.
    reduction : {"sum", "mean"}
        The default.
    fill : float
        What stands in for a masked-out input: something the formula and its derivatives are finite at.
    complex : bool
        Whether complex arrays are taken.
    """

    def decorate(formula: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(formula).parameters
        takes_kept = "kept" in parameters
        options = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "kept"]
        spec = Spec(
            name=formula.__name__,
            formula=formula,
            arrays=tuple(p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY),
            checks={name: check for name, check in checks_of(formula).items() if name != "kept"},
            defaults={p.name: p.default for p in options},
            terms=terms if callable(terms) else lambda options: terms,
            reduction=reduction,
            fill=fill,
            complex=complex,
            takes_kept=takes_kept,
        )

        @wraps(formula)
        def function(
            *arrays: Any,
            reduction: str = spec.reduction,
            where: Any = None,
            weights: Any = None,
            normalizer: Any = None,
            **options: Any,
        ) -> Any:
            found = _terms(spec, arrays, where, weights, options)
            return _reduce(spec, found, reduction, normalizer)

        function.__signature__ = _signature(formula, reduction)  # type: ignore[attr-defined]
        function.__doc__ = _docstring(formula.__doc__ or "", reduction)
        function.spec = spec  # type: ignore[attr-defined]
        _REGISTRY[spec.name] = function
        return cast(Callable[P, R], function)

    return decorate


def registered() -> dict[str, Callable[..., Any]]:
    """The penalties by name."""
    return dict(_REGISTRY)


def spec_of(function: object) -> Spec | None:
    """What is known of a function that `penalty` made, None for any other."""
    return getattr(function, "spec", None)


def value_and_metrics(
    function: Callable[..., Any], arrays: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, Any]:
    """The reduced value of a penalty, and sum, mean, min and max of the terms it kept, all from one evaluation."""
    spec = spec_of(function)
    assert spec is not None
    given = dict(options)
    reduction, where, weights, normalizer = (given.pop(n, None) for n in SHARED)
    found = _terms(spec, arrays, where, weights, given)
    value = _reduce(spec, found, reduction or spec.reduction, normalizer)
    return value, _metrics(found)


def _terms(spec: Spec, arrays: tuple[Any, ...], where: Any, weights: Any, options: dict[str, Any]) -> Terms:
    if len(arrays) != len(spec.arrays):
        raise TypeError(
            f"{spec.name}: takes {len(spec.arrays)} array{'s' * (len(spec.arrays) > 1)} ({', '.join(spec.arrays)}), "
            f"got {len(arrays)} positional arguments. Pass options by keyword."
        )
    if options:
        options = spec.check_options(options)
    backend = common_backend(spec.name, spec.arrays, arrays)
    arrays = _working(spec, backend, arrays)
    shape = arrays[0].shape
    kind = spec.terms({**spec.defaults, **options})
    axis = options.get("axis", spec.defaults.get("axis"))
    axis = _axis(spec, axis, arrays[0]) if isinstance(axis, int) else 0
    if where is None and weights is None and 0 not in shape:
        return Terms(backend, backend.evaluate(spec.formula, arrays, options), None, None)

    terms_shape = _terms_shape(kind, shape, axis)
    backend, kept, weights = _masks(spec, backend, terms_shape, where, weights)
    xp = backend.xp
    if 0 in shape:
        return Terms(backend, sum(_no_terms(xp, x, kind, axis) for x in arrays), kept, weights)
    mask = _over_inputs(xp, kept, kind, axis, len(terms_shape))
    arrays = tuple(xp.where(mask, x, spec.fill) for x in arrays)
    if spec.takes_kept:
        options = {**options, "kept": mask}
    values = xp.where(kept, backend.evaluate(spec.formula, arrays, options), 0.0)
    if weights is None:
        return Terms(backend, values, kept, None)
    weights = xp.astype(weights, values.dtype, copy=False)  # float16 weights would not sum, float64 ones would widen
    return Terms(backend, values * weights, kept, weights)


def _working(spec: Spec, backend: Backend, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays in one dtype, float32 at least; shapes must be the same."""
    first = arrays[0]
    working = None
    for name, x in zip(spec.arrays, arrays, strict=True):
        kind, target = backend.dtype(x.dtype)
        if kind != "real" and not (kind == "complex" and spec.complex):
            wanted = "real or complex floating point" if spec.complex else "real floating point"
            raise TypeError(
                f"{spec.name}: `{name}` must be {wanted}, got {x.dtype}. Cast it first, for example to float32."
            )
        if x.shape != first.shape:
            listed = " and ".join(f"`{n}`" for n in spec.arrays)
            got = " and ".join(str(tuple(y.shape)) for y in arrays)
            raise ValueError(f"{spec.name}: {listed} must have the same shape, got {got}. Broadcast them explicitly.")
        if target is not None or x.dtype != first.dtype:
            working = True
    if working is None:
        return arrays
    xp = backend.xp
    common = xp.result_type(*[backend.dtype(x.dtype).working or x.dtype for x in arrays])
    return tuple(x if x.dtype == common else xp.astype(x, common) for x in arrays)


def _axis(spec: Spec, axis: int, x: Any) -> int:
    """`axis` counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{spec.name}: `axis` must be an axis of `{spec.arrays[0]}`, got {axis} for shape {tuple(x.shape)}. "
            "Give the axis that holds the classes."
        )
    return axis % x.ndim


def _terms_shape(kind: Shape, shape: Any, axis: int) -> tuple[int, ...]:
    shape = tuple(shape)
    if kind == "elements":
        return shape
    if kind == "rows":
        return shape[:axis] + shape[axis + 1 :]
    return shape[:-2] if kind == "matrices" else ()


def _no_terms(xp: Any, x: Any, kind: Shape, axis: int) -> Any:
    """Zeros of the terms' shape for an `x` of size 0, on the graph of `x`."""
    if kind == "elements":
        return xp.abs(x)
    if kind == "rows":
        return xp.sum(x, axis=axis)
    return xp.sum(x, axis=(-2, -1)) if kind == "matrices" else xp.sum(x)


def _masks(spec: Spec, backend: Backend, shape: tuple[int, ...], where: Any, weights: Any) -> tuple[Backend, Any, Any]:
    """Which terms are kept, and their weights (0 where they are not), both checked and of the terms' shape."""
    given = {name: x for name, x in (("where", where), ("weights", weights)) if x is not None}
    # an anchor of the arrays' own framework comes first, so that the message says who disagrees with whom
    for name, x in given.items():
        other = common_backend(spec.name, [name], [x])
        if other.library != backend.library:
            raise TypeError(
                f"{spec.name}: `{name}` must be an array of the same framework as `{spec.arrays[0]}`, got "
                f"{other.library} and {backend.library}. Convert it first, for example with from_dlpack."
            )
        backend = other if other.traces else backend
        kind = other.dtype(x.dtype).kind
        if name == "where" and kind != "bool":
            raise TypeError(
                f"{spec.name}: `where` must be a boolean array, got {x.dtype}. Compare it, or use `weights`."
            )
        if name == "weights" and kind != "real":
            raise TypeError(
                f"{spec.name}: `weights` must be real floating point, got {x.dtype}. For a mask use `where`."
            )
        if not _broadcasts(tuple(x.shape), shape):
            raise ValueError(
                f"{spec.name}: `{name}` must broadcast to the terms' shape {shape}, got {tuple(x.shape)}. "
                "There is one term per element, row or matrix; see reduction='none'."
            )
    xp = backend.xp
    if weights is not None:
        kept = weights != 0 if where is None else where & (weights != 0)
        weights = xp.broadcast_to(xp.where(kept, weights, 0.0), shape)
    else:
        kept = where
    return backend, None if kept is None else xp.broadcast_to(kept, shape), weights


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _over_inputs(xp: Any, kept: Any, kind: Shape, axis: int, ndim: int) -> Any:
    """The terms' mask as one that broadcasts against the inputs."""
    if kind == "rows":
        return xp.expand_dims(kept, axis=axis)
    if kind == "matrices":
        return xp.expand_dims(xp.expand_dims(kept, axis=ndim), axis=ndim + 1)
    return kept


def _reduce(spec: Spec, terms: Terms, reduction: str, normalizer: Any) -> Any:
    backend, values, kept, weights = terms
    xp = backend.xp
    if reduction not in _REDUCTIONS:
        spec.check("reduction", reduction, member(_REDUCTIONS))
    total = values if reduction == "none" else xp.sum(values)
    if normalizer is not None:
        return _divide(spec, backend, total, normalizer)
    if reduction != "mean":
        return total
    if kept is None:
        return total / max(_size(values), 1)
    return ratio(total, count(kept, values.dtype) if weights is None else xp.sum(weights))


def _size(x: Any) -> int:
    size = 1
    for length in x.shape:
        size *= length
    return size


def _divide(spec: Spec, backend: Backend, total: Any, normalizer: Any) -> Any:
    if not is_array(normalizer) or isinstance(normalizer, float):  # a NumPy float64 is both, and is a number here
        return total / spec.check("normalizer", normalizer, _POSITIVE)
    other = common_backend(spec.name, ["normalizer"], [normalizer])
    if other.library != backend.library:
        raise TypeError(
            f"{spec.name}: `normalizer` must be a number or a {backend.library} array, got one of {other.library}. "
            "Convert it first."
        )
    if tuple(normalizer.shape) != ():
        raise ValueError(
            f"{spec.name}: `normalizer` must be a number or a 0-d array, got shape {tuple(normalizer.shape)}. "
            "For a factor per term use `weights`."
        )
    xp = (other if other.traces else backend).xp
    if normalizer.dtype != total.dtype:
        normalizer = xp.astype(normalizer, total.dtype)
    return ratio(total, normalizer)


def _metrics(terms: Terms) -> dict[str, Any]:
    """Sum, mean, min and max of the kept terms, as constants; NaN where there is none to take a mean or an end of."""
    xp = terms.backend.xp
    stop = terms.backend.stop_gradient
    values = stop(terms.values)
    kept = None if terms.kept is None else stop(terms.kept)
    total = xp.sum(values)
    size = _size(values)
    if size == 0:
        return {"sum": total, "mean": total * float("nan"), "min": total * float("nan"), "max": total * float("nan")}
    if kept is None:
        return {"sum": total, "mean": total / size, "min": xp.min(values), "max": xp.max(values)}
    number_kept = count(kept, values.dtype)
    some = number_kept > 0
    inf, nan = float("inf"), float("nan")
    return {
        "sum": total,
        "mean": xp.where(some, total / xp.where(some, number_kept, 1.0), nan),
        "min": xp.where(some, xp.min(xp.where(kept, values, inf)), nan),
        "max": xp.where(some, xp.max(xp.where(kept, values, -inf)), nan),
    }


def _signature(formula: Callable[..., Any], reduction: str) -> inspect.Signature:
    """`formula`'s signature with the shared options spelt out."""
    signature = inspect.signature(formula)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD and p.name != "kept"]
    defaults = (reduction, None, None, None)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in zip(SHARED, defaults, strict=True)
    ]
    return signature.replace(parameters=[*own, *shared])


def _docstring(text: str, reduction: str) -> str:
    """The formula's docstring with the shared options described after its own."""
    text = inspect.cleandoc(text)
    shared = inspect.cleandoc(_SHARED_DOC.format(reduction=reduction))
    head, separator, tail = text.partition("\n\nNotes\n-----")
    return f"{head}\n\n{shared}{separator}{tail}" if separator else f"{head}\n\n{shared}"
