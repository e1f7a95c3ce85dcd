"""Evaluate one penalty: check the call, prepare its arrays, evaluate the terms, reduce them.

This is what all penalties share. How the terms are computed (at once, without guards first, in blocks, as a compiled
program) is for the arrays' backend to decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType
from typing import Any

from .._arrays.borrowed_autodiff import autodiff_backend_of, call_borrowed
from ..backends import Backend, backend_of
from ..backends._blocks import BLOCK_SIZE
from ..backends._work import Work
from .arguments import Call, check
from .preparation import prepare
from .reduction import Terms, metrics, reduce

__all__ = ["evaluate"]

_PLAIN = (bool, int, float, str, NoneType)  # types of options that are no arrays


def evaluate(call: Call) -> Any:
    """Evaluate one penalty. Returns its value, or with metrics a pair of value and `METRICS`."""
    call, backend = check(call)
    if call.functions:
        return _with_autodiff(call, backend)
    return _value(call, backend) if backend.evaluation.program is None else _in_program(call, backend)


def _with_autodiff(call: Call, owner: Backend) -> Any:
    """Evaluate a penalty that differentiates; in another framework if the arrays' own cannot."""
    autodiff_backend = autodiff_backend_of(call.spec.name, owner)
    if autodiff_backend is owner:
        return _value(call, owner)

    def borrowed(
        arrays: tuple[Any, ...],
        where: Any,
        weights: Any,
        normalizer: Any,
        options: Mapping[str, Any],
        functions: tuple[Any, ...],
    ) -> Any:
        arguments = {"arrays": arrays, "where": where, "weights": weights, "normalizer": normalizer, "options": options}
        return _value(call._replace(**arguments, functions=functions), autodiff_backend)

    args = call.arrays, call.where, call.weights, call.normalizer, call.options, call.functions
    return call_borrowed(call.spec.name, owner, autodiff_backend, borrowed, args, {})


def _in_program(call: Call, backend: Backend) -> Any:
    """Evaluate a call as one compiled program for each penalty, options and shapes.

    A normalizer is traced, for it changes from batch to batch. Calls that cannot be traced are evaluated without a
    program, so that their errors speak of the arguments and not of tracers.
    """
    spec, arrays, reduction, where, weights, normalizer, options, with_metrics, _ = call
    for x in (*arrays, where, weights):
        if x is not None and backend_of(x) is not backend:
            return _value(call, backend)
    traced = {name: value for name, value in options.items() if backend_of(value) is backend}
    static = tuple((name, type(value), value) for name, value in options.items() if name not in traced)
    elements = BLOCK_SIZE.get() if spec.matrices else None  # nothing else is cut in blocks in a program
    key = spec, reduction, with_metrics, backend, static, elements
    try:
        hash(key)
        assert backend.evaluation.program is not None
        return backend.evaluation.program(_of_key, key, (arrays, where, weights, normalizer, traced))
    except (TypeError, ValueError):
        return _value(call, backend)


def _of_key(key: Any, traced: Any) -> Any:
    spec, reduction, with_metrics, backend, static, _ = key
    arrays, where, weights, normalizer, options = traced
    options = {**{name: value for name, _, value in static}, **options}
    return _value(Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics), backend)


def _value(call: Call, backend: Backend) -> Any:
    """Evaluate a call that has been checked."""
    backend, work, mask, weights = prepare(call, backend)
    empty = 0 in call.arrays[0].shape
    terms = _no_terms(backend, work, mask, weights) if empty else _terms(call, backend, work, mask, weights)
    value, total = reduce(call, terms)
    return (value, metrics(terms, total)) if call.with_metrics else value


def _terms(call: Call, backend: Backend, work: Work, mask: Any, weights: Any) -> Terms:
    """Evaluate the penalty's terms. Masked terms are 0."""
    if call.functions:  # they run as the user wrote them
        values, total = work.whole(), None
        backend = _tracing(backend, values)
    else:
        values, total = backend.evaluation.evaluate(work)
        for option in call.options.values():
            if type(option) not in _PLAIN:
                backend = _tracing(backend, values)
    if mask is not None:
        values = backend.xp.where(mask, values, 0.0)
    if weights is not None and weights.dtype != values.dtype:
        weights = work.xp.astype(weights, values.dtype)  # float16 ones would not sum, float64 ones would widen
    return Terms(backend, values, mask, weights, total, work.divisor or 1.0)


def _tracing(backend: Backend, values: Any) -> Backend:
    """Return the backend of `values` if a function, or an option that is an array, has made them traced."""
    actual = backend_of(values)
    return backend if actual is None or not actual.traces else actual


def _no_terms(backend: Backend, work: Work, mask: Any, weights: Any) -> Terms:
    """Return zeros for arrays of size 0, on the graph of all of them. The formula is not called."""
    xp = backend.xp
    zeros: Any = 0.0
    for i, x in enumerate(work.arrays):
        dtype = work.dtype or backend.dtype(x.dtype).working or x.dtype
        wide = x if x.dtype == dtype else xp.astype(x, dtype)
        zeros = zeros + _summed_over_inputs(xp, wide, "whole" if i in work.matrices else work.kind, work.axis)
    return Terms(backend, zeros, mask, weights)


def _summed_over_inputs(xp: Any, x: Any, kind: str, axis: int | None) -> Any:
    """Sum an array of size 0, or one that all terms share, to zeros of the terms' shape."""
    x = xp.abs(x)  # real
    if kind == "whole":
        return xp.sum(xp.reshape(x, (-1,))[:0])
    if kind == "elements":
        return x
    if kind == "rows":
        return xp.sum(x, axis=axis)
    if kind == "samples":
        return xp.sum(xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), axis=1)
    return xp.sum(x, axis=(-2, -1))
