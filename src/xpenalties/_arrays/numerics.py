"""The numerics that all penalties share: one slope at kinks, no 0/0 and no 0 * inf, in value and in both gradients.

The rule behind every `where` here: it must stand before the operation whose derivative would be infinite or NaN in
the branch not taken, because a cotangent of 0 times inf is NaN. A subtraction needs no such care, its derivative does
not depend on its values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backends import backend_of, common_backend, namespace
from ..backends._fast_path import guards_are_skipped as care_is_left_out

__all__ = [
    "abs_",
    "broadcasts",
    "care_is_left_out",
    "count",
    "global_norm",
    "identity",
    "is_log_zero",
    "linear",
    "log_probabilities",
    "logsumexp",
    "matmul",
    "ratio",
    "safe_norm",
    "soft_threshold",
    "square",
    "stop_gradient",
    "supported",
    "total",
    "unit",
    "wide",
]


def stop_gradient(x: Any) -> Any:
    """`x` as a constant."""
    backend = backend_of(x)
    assert backend is not None
    return backend.autodiff.stop_gradient(x)


def wide(x: Any) -> Any:
    """`x` in float32 at least, to add up in."""
    backend = backend_of(x)
    assert backend is not None
    working = backend.dtype(x.dtype).working
    return x if working is None else backend.xp.astype(x, working)


def abs_(x: Any) -> Any:
    """`|x|`, real, with slope 0 at 0."""
    backend = backend_of(x)
    assert backend is not None
    return backend.abs(x)


def square(x: Any, *, scale: Any = None) -> Any:
    """`|x / scale|^2`, real."""
    backend = backend_of(x)
    assert backend is not None
    if backend.dtype(x.dtype).kind == "complex":  # part by part: a complex quotient overflows at a subnormal scale
        return square(backend.xp.real(x), scale=scale) + square(backend.xp.imag(x), scale=scale)
    if scale is not None:
        x = x / scale
    return x * x


def safe_norm(x: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
    """L2 norm with gradient 0, of every order, where the norm is 0."""
    xp = namespace(x)
    if 0 in x.shape:
        return xp.sum(abs_(x), axis=axis)
    if care_is_left_out():
        return xp.sqrt(_unspoilt(xp.sum(square(x), axis=axis)))
    scale = _scale(x, axis=axis)
    squared = xp.sum(square(x, scale=scale), axis=axis, keepdims=True)
    zero = squared == 0
    norm = scale * xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squared)))  # sqrt's slope at 0 is infinite
    return xp.reshape(norm, ()) if axis is None else xp.squeeze(norm, axis=axis)


def global_norm(arrays: Sequence[Any]) -> Any:
    """The L2 norm of several arrays together."""
    backend = common_backend("norm", [f"arrays[{i}]" for i in range(len(arrays))], arrays)
    return backend.evaluation.run_fast(_global_norm, tuple(arrays), {})


def _global_norm(*arrays: Any) -> Any:
    if care_is_left_out():
        backend = common_backend("norm", [f"arrays[{i}]" for i in range(len(arrays))], arrays)
        values, places = backend.evaluation.power_sum(0.0, 1.0, arrays)
        rest = [backend.xp.sum(square(wide(x))) for i, x in enumerate(arrays) if i not in places]
        return backend.xp.sqrt(_unspoilt(total([*values, *rest])))
    norms = [safe_norm(wide(x)) for x in arrays]
    return norms[0] if len(norms) == 1 else safe_norm(_stacked(norms))


def total(scalars: Sequence[Any]) -> Any:
    """The sum of 0-d arrays."""
    return scalars[0] if len(scalars) == 1 else namespace(scalars[0]).sum(_stacked(scalars))


def _stacked(scalars: Sequence[Any]) -> Any:
    """0-d arrays as one, of a dtype that holds all."""
    backend = common_backend("total", [f"scalars[{i}]" for i in range(len(scalars))], scalars)
    dtype = backend.xp.result_type(*scalars)
    return backend.stack([x if x.dtype == dtype else backend.xp.astype(x, dtype) for x in scalars])


def _scale(x: Any, *, axis: int | tuple[int, ...] | None) -> Any:
    """The largest magnitude, as a constant to divide by before squaring: a square of 1e20 is inf, of 1e-30 it is 0.

    As far as its reciprocal is a normal number: a compiler may multiply by that.
    """
    magnitude = abs_(stop_gradient(x))
    backend = backend_of(magnitude)
    assert backend is not None
    least = math.exp(backend.dtype(magnitude.dtype).log_least)
    largest = backend.xp.max(magnitude, axis=axis, keepdims=True)
    largest = backend.xp.where(largest < least, least, largest)
    return backend.xp.where(largest > 1 / least, 1 / least, largest)


def _unspoilt(squared: Any) -> Any:
    """Sums of squares, NaN where a square or a derivative of the root may have been too large or too small."""
    backend = backend_of(squared)
    assert backend is not None
    least = math.exp(backend.dtype(squared.dtype).log_least / 2)
    return backend.xp.where((squared > least) & (squared < 1 / least), squared, math.nan)


def soft_threshold(xp: Any, x: Any, scale: Any) -> Any:
    """`x`, nearer to 0 by `scale`; exactly 0 within it."""
    backend = backend_of(x)
    assert backend is not None
    if backend.dtype(x.dtype).kind == "real":  # exact where the difference is
        return xp.where((x <= scale) & (x >= -scale), 0.0, xp.where(x > 0, x - scale, x + scale))
    direction = xp.squeeze(unit(xp.expand_dims(x, axis=-1), axis=-1), axis=-1)
    return xp.where(abs_(x) <= scale, 0.0, x - scale * direction)


def matmul(a: Any, b: Any) -> Any:
    """`a @ b`, in the dtype that they have."""
    backend = backend_of(a)
    assert backend is not None
    return backend.matmul(a, b)


def linear(hidden: Any, weight: Any) -> Any:
    """`hidden @ weight.T`, in the dtype that they have."""
    backend = common_backend("linear", ("hidden", "weight"), (hidden, weight))
    return backend.linear(hidden, weight)


def identity(matrix: Any) -> Any:
    """The identity matrix of the size, dtype and device of a square `matrix`."""
    constant = stop_gradient(matrix)  # autograd's boxes have no device
    backend = backend_of(constant)
    assert backend is not None
    return backend.xp.eye(constant.shape[-1], dtype=constant.dtype, device=backend.device(constant))


def unit(x: Any, *, axis: int) -> Any:
    """`x` divided by its L2 norm along `axis`; a zero vector stays zero, with gradient 0."""
    xp = namespace(x)
    x = x / _scale(x, axis=axis)
    squared = xp.sum(square(x), axis=axis, keepdims=True)  # far from subnormal, or 0
    zero = squared == 0
    return xp.where(zero, 0.0, x / xp.sqrt(xp.where(zero, 1.0, squared)))


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of `shape` can be broadcast to the shape `to`."""
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def ratio(a: Any, b: Any) -> Any:
    """`a / b`, and 0 / 0 = 0."""
    xp = namespace(a, b)
    return a / xp.where((b == 0) & (a == 0), 1.0, b)


def count(kept: Any, dtype: Any) -> Any:
    """How many are kept, as `dtype`. Summed as integers: in float32 a count stops growing at 2^24."""
    xp = namespace(kept)
    return xp.astype(xp.sum(xp.astype(kept, xp.int32)), dtype)


def supported(x: Any, *log_probabilities: Any) -> Any:
    """`x` where one of the probabilities is a normal number at least, else 0: p times this is p log p in the limit."""
    if care_is_left_out():
        return x
    backend = common_backend("supported", ("x", "log_probabilities"), (x, log_probabilities[-1]))
    least = backend.dtype(x.dtype).log_least
    some = log_probabilities[0] > least  # not of exp(log p): XLA's CPU compiler takes three times as long to compare it
    for log_p in log_probabilities[1:]:
        some = some | (log_p > least)
    return backend.xp.where(some, x, 0.0)


def is_log_zero(log_p: Any) -> Any:
    """Where a log-probability is -inf."""
    return log_p == -math.inf


def logsumexp(x: Any, *, axis: int) -> Any:
    """Log of the sum of exponentials; -inf for a row of -inf."""
    xp = namespace(x)
    top = _top(x, axis=axis)
    return xp.squeeze(xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top, axis=axis)


def _top(x: Any, *, axis: int) -> Any:
    """The largest of `x` as a constant, for its gradient cancels, and 0 for an infinite one: -inf - -inf is NaN."""
    xp = namespace(x)
    top = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    return xp.where(xp.isfinite(top), top, 0.0)


def log_probabilities(x: Any, *, axis: int, temperature: float, from_logits: bool) -> Any:
    """log softmax(x / temperature), or `x` as it is when it holds log-probabilities at temperature 1."""
    if not from_logits and temperature == 1.0:
        return x
    backend = backend_of(x)
    assert backend is not None
    at_once = backend.log_softmax
    if at_once is None or temperature != 1.0:
        x = x - _top(x, axis=axis)  # for good: to add it again would round by as much as the logits are large
    if temperature != 1.0:
        x = x / temperature
    if at_once is not None:
        return at_once(x, axis)
    xp = backend.xp
    return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))
