"""Numerics for all penalties: a fixed slope at kinks, and no 0 / 0 or 0 * inf in values, first or second derivatives.

Each `where` here comes before the operation whose derivative would be infinite or NaN in the branch not taken. After
the operation it would be too late, because the cotangent 0 times inf is NaN. A subtraction needs no such guard: its
derivative does not depend on its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..backends import Backend, backend_of, common_backend, namespace
from ..backends._fast_path import guards_are_skipped

__all__ = [
    "abs_",
    "array_backend",
    "broadcasts",
    "count_true",
    "exp_minus_tangent",
    "exp_minus_tangent_by_series",
    "global_norm",
    "gram_matrix",
    "identity",
    "is_at_most",
    "linear",
    "log1p_minus_tangent",
    "matmul",
    "namespace_of",
    "of_all_vectors",
    "safe_divide",
    "safe_hypot",
    "safe_norm",
    "safe_sqrt",
    "soft_threshold",
    "square",
    "scale_of",
    "stop_gradient",
    "sum_scalars",
    "unit",
    "weighted_norm",
    "weighted_unit",
    "at_least_float32",
]

#: `backend_of`, typed for an argument that is known to be an array.
array_backend = cast(Callable[[Any], Backend], backend_of)


def namespace_of(*arrays: Any) -> Any:
    """Return the namespace of those arrays that are not None. If one is traced, it is the tracer's."""
    return namespace(*[x for x in arrays if x is not None])


def stop_gradient(x: Any) -> Any:
    """Return `x` as a constant: no gradient flows through it."""
    return array_backend(x).autodiff.stop_gradient(x)


def at_least_float32(x: Any) -> Any:
    """Cast `x` to float32 or wider, the dtype to sum in."""
    backend = array_backend(x)
    working = backend.dtype(x.dtype).working
    return x if working is None else backend.xp.astype(x, working)


def abs_(x: Any) -> Any:
    """Return `|x|`, real, with slope 0 at 0."""
    return array_backend(x).abs(x)


def square(x: Any, *, scale: Any = None) -> Any:
    """Return `|x / scale|^2`, real."""
    backend = array_backend(x)
    if backend.dtype(x.dtype).kind == "complex":  # part by part: a complex quotient overflows at a subnormal scale
        return square(backend.xp.real(x), scale=scale) + square(backend.xp.imag(x), scale=scale)
    if scale is not None:
        x = x / scale
    return x * x


def exp_minus_tangent(x: Any) -> Any:
    """Return e^x - 1 - x, which is >= 0. For small x, the difference would cancel, so use two terms of the series."""
    backend = array_backend(x)
    xp = backend.xp
    is_small = xp.abs(x) < backend.dtype(x.dtype).eps ** (1 / 3)
    return xp.where(is_small, x * x * (0.5 + x * (1 / 6)), xp.expm1(x) - x)


def exp_minus_tangent_by_series(x: Any) -> Any:
    """Return e^x - 1 - x for |x| <= 1/2. A compiled program computes this faster than `expm1`."""
    backend = array_backend(x)
    last = 7 if backend.dtype(x.dtype).eps > 1e-10 else 14  # the first term left out is below 8 eps
    series = 1 / math.factorial(last)
    for n in range(last - 1, 1, -1):
        series = 1 / math.factorial(n) + x * series
    return x * x * series


def log1p_minus_tangent(x: Any) -> Any:
    """Return log(1 + x) - x, which is <= 0. For small x, use two terms of the series, unless guards are skipped."""
    backend = array_backend(x)
    xp = backend.xp
    difference = xp.log1p(x) - x
    if guards_are_skipped():
        return difference
    is_small = xp.abs(x) < backend.dtype(x.dtype).eps ** (1 / 3)
    return xp.where(is_small, x * x * (x * (1 / 3) - 0.5), difference)


def safe_norm(x: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the L2 norm. If it is 0, its gradients of every order are 0."""
    backend = array_backend(x)
    xp = backend.xp
    if 0 in x.shape:
        return xp.sum(abs_(x), axis=axis)
    if guards_are_skipped():
        return xp.sqrt(_nan_if_out_of_range(xp.sum(square(x), axis=axis)))
    if backend.lazy:
        norm = backend.norm(safe_norm, x, axis)
        return xp.reshape(norm, ()) if axis is None else xp.squeeze(norm, axis=axis)
    scale = scale_of(x, axis=axis)
    squared = xp.sum(square(x, scale=scale), axis=axis, keepdims=True)
    is_zero = squared == 0
    norm = scale * xp.where(is_zero, 0.0, xp.sqrt(xp.where(is_zero, 1.0, squared)))  # sqrt's slope at 0 is infinite
    return xp.reshape(norm, ()) if axis is None else xp.squeeze(norm, axis=axis)


def weighted_norm(x: Any, weights: Any, *, axis: int) -> Any:
    """Return the root of the sum of `weights * x^2`. With the roots of the weights, a weight of 0 had no slope."""
    xp = namespace_of(x, weights)
    scale = scale_of(x, axis=axis)
    squared = xp.sum(weights * square(x / scale), axis=axis, keepdims=True)
    return xp.squeeze(scale * safe_sqrt(squared), axis=axis)


def weighted_unit(x: Any, weights: Any, *, axis: int) -> tuple[Any, Any]:
    """Return `x` divided by its norm along `axis`, and a mask of zero vectors, which stay zero with gradient 0.

    If weights are passed, the norm is the root of the sum of `weights * x^2`.
    """
    xp = namespace_of(x, weights)
    x = x / scale_of(x, axis=axis)
    squares = square(x)
    squared = xp.sum(squares if weights is None else weights * squares, axis=axis, keepdims=True)
    is_zero = squared == 0
    return xp.where(is_zero, 0.0, x / xp.sqrt(xp.where(is_zero, 1.0, squared))), xp.squeeze(is_zero, axis=axis)


def safe_hypot(arrays: Sequence[Any]) -> Any:
    """Return the L2 norm of the elements of several arrays of one shape, one number for each place, as `safe_norm`."""
    backend = array_backend(arrays[0])
    xp = backend.xp
    if guards_are_skipped():
        return xp.sqrt(_nan_if_out_of_range(_sum([square(x) for x in arrays])))
    scale = abs_(stop_gradient(arrays[0]))
    for x in arrays[1:]:
        magnitude = abs_(stop_gradient(x))
        scale = xp.where(magnitude > scale, magnitude, scale)
    scale = _clipped(scale)
    squared = _sum([square(x, scale=scale) for x in arrays])
    is_zero = squared == 0
    return scale * xp.where(is_zero, 0.0, xp.sqrt(xp.where(is_zero, 1.0, squared)))


def _sum(arrays: Sequence[Any]) -> Any:
    total = arrays[0]
    for x in arrays[1:]:
        total = total + x
    return total


def global_norm(arrays: Sequence[Any]) -> Any:
    """Return the L2 norm of several arrays together."""
    backend = common_backend("norm", [f"arrays[{i}]" for i in range(len(arrays))], arrays)
    arrays = tuple(map(backend.packed, arrays)) if backend.ragged else tuple(arrays)
    return backend.evaluation.run_fast(_global_norm, arrays, {})


def _global_norm(*arrays: Any) -> Any:
    if guards_are_skipped():
        backend = common_backend("norm", [f"arrays[{i}]" for i in range(len(arrays))], arrays)
        summed, summed_at = backend.evaluation.power_sum(0.0, 1.0, arrays)
        others = [backend.xp.sum(square(at_least_float32(x))) for i, x in enumerate(arrays) if i not in summed_at]
        return backend.xp.sqrt(_nan_if_out_of_range(sum_scalars([*summed, *others])))
    norms = [safe_norm(at_least_float32(x)) for x in arrays]
    return norms[0] if len(norms) == 1 else safe_norm(_stacked(norms))


def sum_scalars(scalars: Sequence[Any]) -> Any:
    """Return the sum of 0-d arrays."""
    return scalars[0] if len(scalars) == 1 else namespace(scalars[0]).sum(_stacked(scalars))


def _stacked(scalars: Sequence[Any]) -> Any:
    """Stack 0-d arrays, in a dtype that holds all of them."""
    backend = common_backend("total", [f"scalars[{i}]" for i in range(len(scalars))], scalars)
    dtype = backend.xp.result_type(*scalars)
    return backend.stack([x if x.dtype == dtype else backend.xp.astype(x, dtype) for x in scalars])


def scale_of(x: Any, *, axis: int | tuple[int, ...] | None) -> Any:
    """Return the largest magnitude as a constant, to divide by before squaring.

    In float32 the square of 1e20 is inf and that of 1e-30 is 0.
    """
    magnitude = abs_(stop_gradient(x))
    return _clipped(array_backend(magnitude).xp.max(magnitude, axis=axis, keepdims=True))


def _clipped(largest: Any) -> Any:
    """Clip a magnitude so that its reciprocal is normal: a compiler may multiply by that instead of dividing.

    For 0, return 1. In constants, XLA also squares the reciprocal, and 0 times infinity is NaN.
    """
    backend = array_backend(largest)
    least = math.exp(backend.dtype(largest.dtype).log_least)
    largest = backend.xp.where(largest == 0, 1.0, largest)
    largest = backend.xp.where(largest < least, least, largest)
    return backend.xp.where(largest > 1 / least, 1 / least, largest)


def _nan_if_out_of_range(squared: Any) -> Any:
    """Return sums of squares, with NaN where a square or the root's derivative may overflow or underflow."""
    backend = array_backend(squared)
    least = math.exp(backend.dtype(squared.dtype).log_least / 2)
    return backend.xp.where((squared > least) & (squared < 1 / least), squared, math.nan)


def safe_sqrt(x: Any) -> Any:
    """Return the square root of numbers >= 0, with slope 0 at 0."""
    xp = namespace(x)
    is_zero = x == 0
    return xp.where(is_zero, 0.0, xp.sqrt(xp.where(is_zero, 1.0, x)))


def soft_threshold(xp: Any, x: Any, scale: Any) -> Any:
    """Return `x` moved toward 0 by `scale`; exactly 0 if its magnitude is at most `scale`."""
    if array_backend(x).dtype(x.dtype).kind == "real":  # as exact as the difference
        return xp.where((x <= scale) & (x >= -scale), 0.0, xp.where(x > 0, x - scale, x + scale))
    direction = xp.squeeze(unit(xp.expand_dims(x, axis=-1), axis=-1), axis=-1)
    return xp.where(abs_(x) <= scale, 0.0, x - scale * direction)


def matmul(a: Any, b: Any) -> Any:
    """Return `a @ b` in the dtype of its arguments, even under autocast."""
    return array_backend(a).matmul(a, b)


def gram_matrix(x: Any, vectors: tuple[int, ...], along: tuple[int, ...], other: Any = None) -> Any:
    """Return the products of all pairs of vectors, shape [..., n, n]. `Backend.gram` describes the arguments."""
    return array_backend(x).gram(x, vectors, along, other)


def of_all_vectors(x: Any) -> Any:
    """Return an array with a number for each vector, which operators combine with the vectors' Gram matrix."""
    return array_backend(x).copied(x)


def linear(hidden: Any, weight: Any) -> Any:
    """Return `hidden @ weight.T`, summed and returned in float32 or wider."""
    backend = common_backend("linear", ("hidden", "weight"), (hidden, weight))
    return backend.linear(hidden, weight)


def identity(matrix: Any) -> Any:
    """Return the identity matrix with the size, dtype and device of a square `matrix`."""
    constant = stop_gradient(matrix)  # autograd's boxes have no device
    backend = array_backend(constant)
    return backend.xp.eye(constant.shape[-1], dtype=constant.dtype, device=backend.device(constant))


def unit(x: Any, *, axis: int | tuple[int, ...]) -> Any:
    """Return `x` divided by its L2 norm along `axis`. A zero vector stays zero, with gradient 0."""
    backend = array_backend(x)
    xp = backend.xp
    if backend.lazy:
        norm = backend.norm(safe_norm, x, axis, again=True)
        return x / xp.where(norm == 0, 1.0, norm)
    x = x / scale_of(x, axis=axis)
    squared = xp.sum(square(x), axis=axis, keepdims=True)  # far from subnormal, or 0
    is_zero = squared == 0
    return xp.where(is_zero, 0.0, x / xp.sqrt(xp.where(is_zero, 1.0, squared)))


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Return True if an array of `shape` can be broadcast to the shape `to`."""
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def is_at_most(a: Any, b: Any) -> bool:
    """Return True if a <= b, for two sizes. A symbolic size, as in an export, counts as larger than any integer."""
    return a <= b if type(a) is int and type(b) is int else type(a) is int


def safe_divide(a: Any, b: Any) -> Any:
    """Return `a / b`, with 0 / 0 = 0."""
    xp = namespace(a, b)
    return a / xp.where((b == 0) & (a == 0), 1.0, b)


def count_true(mask: Any, dtype: Any) -> Any:
    """Count the True elements, as `dtype`. The sum is in int32, because a count in float32 stops at 2^24."""
    xp = namespace(mask)
    return xp.astype(xp.sum(xp.astype(mask, xp.int32)), dtype)
