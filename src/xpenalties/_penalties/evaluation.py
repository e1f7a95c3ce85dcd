"""Evaluate one penalty: check the call, prepare its arrays, evaluate the terms, reduce them.

All penalties share this code. The arrays' backend decides how to compute the terms: at once, first without guards, in
blocks, or as a compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType
from typing import Any

from .._arrays.borrowed_autodiff import autodiff_backend_of, call_borrowed
from .._arrays.value_checks import VALUE_CHECKS
from ..backends import Backend, backend_of
from ..backends._blocks import BLOCK_SIZE
from ..backends._over import ACTIVE, active_groups
from .arguments import Call, check
from .checked_values import check_values
from .parts import evaluate_parts
from .preparation import Prepared, prepare
from .ragged import evaluate_ragged
from .reduction import Terms, metrics, reduce
from .several_axes import with_one_axis

__all__ = ["evaluate"]

_PLAIN = (bool, int, float, str, NoneType)  # types of options that are not arrays


def evaluate(call: Call) -> Any:
    """Evaluate one penalty. Returns its value or, with metrics, a pair of its value and its `METRICS`."""
    call, backend = check(call)
    if ACTIVE.any and (groups := active_groups()) is not None:
        return evaluate_parts(call, backend, groups, _value)
    if backend.ragged:
        return evaluate_ragged(call, backend, _value)
    if call.functions:
        return _with_autodiff(call, backend) if call.spec.differentiates else _value(call, backend)
    return _value(call, backend) if backend.evaluation.program is None else _in_program(call, backend)


def _with_autodiff(call: Call, owner: Backend) -> Any:
    """Evaluate a penalty that differentiates, in another framework if the arrays' own cannot."""
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
    """Evaluate a call as a compiled program, one for each penalty, set of options, and shapes.

    The normalizer is traced, because it changes from batch to batch. A call that cannot be traced is evaluated without
    a program, so that its error names the arguments and not tracers. So is a call whose values are checked.
    """
    if VALUE_CHECKS.enabled:
        return _value(call, backend)
    spec, arrays, reduction, where, weights, normalizer, options, with_metrics, _ = call
    for x in (*arrays, where, weights):
        if x is not None and backend_of(x) is not backend:
            return _value(call, backend)
    traced = {name: value for name, value in options.items() if backend_of(value) is backend}
    static = tuple((name, type(value), value) for name, value in options.items() if name not in traced)
    elements = BLOCK_SIZE.get() if spec.matrices else None  # a program uses blocks for linear maps only
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
    if type(call.options.get("axis")) is tuple:
        call = with_one_axis(call, backend)
    prepared = prepare(call, backend)
    if VALUE_CHECKS.enabled:
        check_values(call, prepared)
    terms = _no_terms(prepared) if 0 in call.arrays[0].shape else _terms(call, prepared)
    value, total = reduce(call, terms)
    if backend.cut:
        value = backend.finished(value)
    return (value, metrics(terms, total)) if call.with_metrics else value


def _terms(call: Call, prepared: Prepared) -> Terms:
    """Evaluate the penalty's terms. Masked terms are 0, and so is a statistic of no samples."""
    backend, work, mask, weights, _, is_statistic = prepared
    if call.functions:  # user functions run as written, not in blocks
        values, total = work.whole(), None
        backend = _tracing(backend, values)
    else:
        values, total = backend.evaluation.evaluate(work)
        for option in call.options.values():
            if type(option) not in _PLAIN:
                backend = _tracing(backend, values)
    if is_statistic:
        kept = mask if weights is None else weights != 0
        return Terms(backend, values if kept is None else backend.xp.where(backend.xp.any(kept), values, 0.0))
    if mask is not None:
        values = backend.xp.where(mask, values, 0.0)
    if weights is not None and weights.dtype != values.dtype:
        weights = work.xp.astype(weights, values.dtype)  # float16 is too narrow to sum in, float64 would widen
    return Terms(backend, values, mask, weights, total, work.divisor or 1.0)


def _tracing(backend: Backend, values: Any) -> Backend:
    """Return the tracer's backend if a function or an array option made `values` traced, else `backend`."""
    actual = backend_of(values)
    return backend if actual is None or not actual.traces else actual


def _no_terms(prepared: Prepared) -> Terms:
    """Return zero terms for arrays of size 0, connected to the graph of all of them, without calling the formula."""
    backend, work, mask, weights, _, is_statistic = prepared
    xp = backend.xp
    zeros: Any = 0.0
    for i, x in enumerate(work.arrays):
        dtype = work.dtype or backend.dtype(x.dtype).working or x.dtype
        wide = x if x.dtype == dtype else xp.astype(x, dtype)
        zeros = zeros + _summed_over_inputs(xp, wide, "whole" if i in work.matrices else work.kind, work.axis)
    return Terms(backend, zeros) if is_statistic else Terms(backend, zeros, mask, weights)


def _summed_over_inputs(xp: Any, x: Any, kind: str, axis: int | None) -> Any:
    """Sum an array of size 0, or one that all terms share, to zeros of the terms' shape."""
    x = xp.abs(x)  # complex to real
    if kind == "whole":
        return xp.sum(xp.reshape(x, (-1,))[:0])
    if kind in ("elements", "neighborhoods"):
        return x
    if kind == "rows":
        return xp.sum(x, axis=axis)
    if kind == "samples":
        return xp.sum(xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), axis=1)
    return xp.sum(x[..., :0, :], axis=(-2, -1))  # another array's matrices may have rows
