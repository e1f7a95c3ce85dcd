"""The decorator `penalty`, which turns a formula into a public function and registers it.

A formula maps arrays to terms. Everything else is shared by all penalties, and is in `evaluation.py`: checks, half
precision, `where`, `weights`, `normalizer`, the reduction. So a penalty's file holds only its mathematics.
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
from .spec import SHARED, Distributions, Extra, Reduction, Shape, Spec, spec_of

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
        "sum" adds the terms. "mean" divides that sum by the number of terms that are kept or, if you pass `weights`, by
        the sum of the weights. "none" returns the terms.
    where : boolean array, broadcastable to the terms, optional
        True for the terms to keep. The others add exactly 0 to the value and the gradient, even if they are NaN.
    weights : array of numbers >= 0, broadcastable to the terms, optional
        Factor of each term. A weight of 0 masks its term, unless you differentiate with respect to the weights. The
        gradient is then the term, so a learned weight can start at 0. Values are not checked unless you call
        `set_value_checks`: the term of a negative weight is subtracted, and "mean" divides by the sum of all weights.
    normalizer : number > 0 or 0-d array, optional
        Divisor that replaces the one of `reduction`: "sum" and "mean" return sum / normalizer, and "none" returns
        terms / normalizer. If it is an array, 0 / 0 is 0, and its value is not checked: a negative normalizer changes
        the sign.
"""

_SHARED_DOC_OF_STATISTICS = """
    Other Parameters
    ----------------
    reduction : {{"sum", "mean", "none"}}, default "{reduction}"
        Every reduction returns the same number, because a statistic of all samples is a single term.
    where : boolean array, broadcastable to the samples, optional
        True for the samples to keep. The result is that of a batch without the others, even if they are NaN. It is 0 if
        none is kept.
    weights : array of numbers >= 0, broadcastable to the samples, optional
        How much each sample counts. A weight of 0 leaves its sample out. Values are not checked unless you call
        `set_value_checks`.
    normalizer : number > 0 or 0-d array, optional
        Divisor of the result. If it is an array, 0 / 0 is 0, and its value is not checked.
"""


def penalty(
    *,
    terms: Shape | Callable[[Mapping[str, Any]], Shape],
    reduction: Reduction,
    complex: bool = False,
    extras: tuple[Extra, ...] = (),
    check_arrays: Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None = None,
    matrices: tuple[str, ...] = (),
    distributions: Callable[[Mapping[str, Any]], Distributions | None] = lambda options: None,
    samples: Shape | Callable[[Mapping[str, Any]], Shape | None] | None = None,
    differentiates: bool = True,
    same_shape: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn a formula into a public penalty.

    Parameters
    ----------
    terms : {"elements", "neighborhoods", "rows", "matrices", "samples", "whole"} or callable of the options
        What the formula returns: one term for each element, for each element and its neighbors (along its option
        `axis`), for each row (along its option `axis`), for each matrix (the last two axes), for each sample (index of
        the first axis), or a single term.
    reduction : {"sum", "mean"}
        The default.
    complex : bool
        Whether the penalty takes complex arrays.
    extras : tuple of {"mask", "weights", "eps"}
        Values that the formula gets in its ``**shared``: the mask over its arrays, if anything is masked; the weights
        of the terms or samples, if there are any; the eps of the dtype of the user's arrays.
    check_arrays : callable of the arrays and the options, optional
        Raises an error for arrays or options that the formula cannot take. Called before the formula, also for empty
        arrays.
    matrices : tuple of str
        Names of arrays that are linear maps, shared by all rows, of shape [classes, features]. `check_arrays` must then
        check the shapes of all arrays.
    distributions : callable of the options
        Returns which log-probabilities the arrays hold, for `set_value_checks`: "complete" if those of each row sum to
        1, "partial" if they may sum to less, "elements" if there are no rows, or None if the arrays hold anything else.
    samples : {"elements", "rows", "matrices", "samples"} or callable of the options, optional
        For a statistic, whose only term depends on all samples: what a sample is. Otherwise, and if the callable
        returns None, `terms` says what the terms belong to. `where` and `weights` of a statistic are those
        of the samples, and the formula gets them as "weights": an array of the samples' shape, with 0 for those that
        are left out, or None if all count alike.
    differentiates : bool
        Whether a penalty that takes functions differentiates them. If not, it also works without autodiff.
    same_shape : bool
        Whether all arrays must have the same shape. If not, rows may have different sizes, and matrices different
        numbers of rows, and `check_arrays` must check the shapes.
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
            distributions=distributions,
            samples=samples,
            differentiates=differentiates,
            same_shape=same_shape,
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
        shared = _SHARED_DOC if spec.shape_of_samples({}) is None else _SHARED_DOC_OF_STATISTICS
        function.__doc__ = _docstring(formula.__doc__ or "", shared.format(reduction=reduction))
        function.spec = spec  # type: ignore[attr-defined]
        PENALTIES[spec.name] = function
        return cast(Callable[P, R], function)

    return decorate


def value_and_metrics(
    function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Evaluate a penalty once. Returns its reduced value, and the metrics of its terms by name, see `metrics`."""
    spec = spec_of(function)
    assert spec is not None
    options = dict(options)
    reduction = options.pop("reduction", spec.reduction)
    where, weights = options.pop("where", None), options.pop("weights", None)
    normalizer = options.pop("normalizer", None)
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


def _docstring(text: str, shared: str) -> str:
    """Return the docstring of a formula with the shared options before its notes."""
    text = inspect.cleandoc(text)
    shared = inspect.cleandoc(shared)
    head, separator, tail = text.partition("\n\nNotes\n-----")
    return f"{head}\n\n{shared}{separator}{tail}" if separator else f"{head}\n\n{shared}"
