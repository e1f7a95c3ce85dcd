"""The decorator that turns a penalty's formula into a public function, and the registry of the functions it made.

A formula maps arrays to terms. What every penalty shares (checks, half precision, `where`, `weights`, `normalizer`, the
reduction) is in `evaluation.py`, so that a penalty is its mathematics and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, cast, get_origin, get_type_hints

from .._core.checks import checks_of
from .._core.registry import REGISTRY
from .evaluation import METRICS, Call, evaluate
from .spec import SHARED, Extra, Reduction, Shape, Spec, spec_of

__all__ = ["Shared", "penalty", "value_and_metrics"]


class Shared(TypedDict, total=False):
    """The options every penalty takes; described once in `_SHARED_DOC`."""

    reduction: Literal["sum", "mean", "none"]
    where: Any
    weights: Any
    normalizer: Any


P = ParamSpec("P")
R = TypeVar("R")

_SHARED_DOC = """
    Other Parameters
    ----------------
    reduction : {{"sum", "mean", "none"}}, default "{reduction}"
        "mean" divides the sum of the terms by their number or, if there are `weights`, by the sum of the weights.
        "none" returns the terms.
    where : boolean array, broadcastable to the terms, optional
        Mask of the terms to keep. A masked-out term adds exactly nothing to the value and the gradient, even if it is
        NaN.
    weights : array of numbers >= 0, broadcastable to the terms, optional
        Factor of each term. A weight of 0 masks its term out.
    normalizer : number > 0 or 0-d array, optional
        Divisor to use instead of the one of `reduction`: "sum" and "mean" return sum / normalizer, and "none" returns
        terms / normalizer. For an array, 0 / 0 is 0.
"""


def penalty(
    *,
    terms: Shape | Callable[[Mapping[str, Any]], Shape],
    reduction: Reduction,
    complex: bool = False,
    extras: tuple[Extra, ...] = (),
    requires: Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None = None,
    matrices: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public penalty of a formula.

    Parameters
    ----------
    terms : {"elements", "rows", "matrices", "samples", "whole"} or callable of the options
        What the formula returns: one term for each element, for each row (along its option `axis`), for each matrix
        (the last two axes), for each index of the first axis, or a single one.
    reduction : {"sum", "mean"}
        The default.
    complex : bool
        Whether complex arrays are taken.
    extras : tuple of {"kept", "eps"}
        What the formula finds in its ``**shared``: the mask over its arrays, where there is one, and the eps of the
        dtype that they were given in.
    requires : callable of the arrays and the options, optional
        Raises what the formula cannot take: called before it, and for empty arrays too.
    matrices : tuple of str
        Which of the arrays are linear maps that all rows have in common, of shape [classes, features]. The shapes of
        all arrays are then for `requires` to check.
    """

    def decorate(formula: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(formula).parameters
        options = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
        positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY]
        hints = get_type_hints(formula)
        functions = [name for name in positional if get_origin(hints[name]) is Callable]
        spec = Spec(
            name=formula.__name__,
            formula=formula,
            functions=tuple(functions),
            arrays=tuple(name for name in positional if name not in functions),
            matrices=tuple(i for i, name in enumerate(positional) if name in matrices),
            checks=checks_of(formula, [p.name for p in options]),
            defaults={p.name: p.default for p in options},
            terms=terms,
            reduction=reduction,
            complex=complex,
            extras=frozenset(extras),
            requires=requires,
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
            return evaluate(Call(spec, arrays, reduction, where, weights, normalizer, options))

        function.__signature__ = _signature(formula, reduction)  # type: ignore[attr-defined]
        function.__doc__ = _docstring(formula.__doc__ or "", reduction)
        function.spec = spec  # type: ignore[attr-defined]
        REGISTRY[spec.name] = function
        return cast(Callable[P, R], function)

    return decorate


def value_and_metrics(
    function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Evaluate a penalty once. Returns its reduced value, and sum, mean, min and max of the terms that count."""
    spec = spec_of(function)
    assert spec is not None
    options = dict(options)
    reduction = options.pop("reduction", spec.reduction)
    where, weights, normalizer = (options.pop(name, None) for name in SHARED[1:])
    value, figures = evaluate(Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics=True))
    return value, dict(zip(METRICS, figures, strict=True))


def _signature(formula: Callable[..., Any], reduction: str) -> inspect.Signature:
    """`formula`'s signature with the shared options spelt out."""
    signature = inspect.signature(formula)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
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
