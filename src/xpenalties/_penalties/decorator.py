"""The decorator that turns a penalty's formula into a public function, and registers it.

A formula maps arrays to terms. What all penalties share (checks, half precision, `where`, `weights`, `normalizer`, the
reduction) is in `evaluation.py`, so that a penalty is its mathematics and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, cast, get_origin, get_type_hints

from .._core.checks import checks_of
from .._core.registry import PENALTIES
from .arguments import Call
from .evaluation import evaluate
from .reduction import METRICS
from .spec import SHARED, Extra, Reduction, Shape, Spec, spec_of

__all__ = ["Shared", "penalty", "value_and_metrics"]


class Shared(TypedDict, total=False):
    """The options that every penalty takes. `_SHARED_DOC` describes them."""

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
        Factor of each term. A weight of 0 masks its term.
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
    check_arrays: Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None = None,
    matrices: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a formula a public penalty.

    Parameters
    ----------
    terms : {"elements", "rows", "matrices", "samples", "whole"} or callable of the options
        What the formula returns: one term for each element, for each row (along its option `axis`), for each matrix
        (the last two axes), for each index of the first axis, or a single one.
    reduction : {"sum", "mean"}
        The default.
    complex : bool
        Whether the penalty takes complex arrays.
    extras : tuple of {"mask", "eps"}
        What the formula gets in its ``**shared``: the mask over its arrays, if there is one, and the eps of the dtype
        of the arrays that the user passed.
    check_arrays : callable of the arrays and the options, optional
        Raises an error for what the formula cannot take. Called before the formula, and for empty arrays too.
    matrices : tuple of str
        Which of the arrays are linear maps that all rows share, of shape [classes, features]. `check_arrays` must then
        check the shapes of all arrays.
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
            check_arrays=check_arrays,
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
        PENALTIES[spec.name] = function
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
    """Return the signature of a formula with the shared options written out."""
    signature = inspect.signature(formula)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    defaults = (reduction, None, None, None)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in zip(SHARED, defaults, strict=True)
    ]
    return signature.replace(parameters=[*parameters, *shared])


def _docstring(text: str, reduction: str) -> str:
    """Return the docstring of a formula with the shared options after its parameters."""
    text = inspect.cleandoc(text)
    shared = inspect.cleandoc(_SHARED_DOC.format(reduction=reduction))
    head, separator, tail = text.partition("\n\nNotes\n-----")
    return f"{head}\n\n{shared}{separator}{tail}" if separator else f"{head}\n\n{shared}"
