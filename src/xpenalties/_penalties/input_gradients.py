"""Gradients of a user's function with respect to its input, with checks of its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .._arrays.gradients import explain_escapes
from .._arrays.numerics import array_backend, at_least_float32, stop_gradient
from ..backends import Backend, backend_of, common_backend, namespace

__all__ = [
    "Function",
    "array_option",
    "check_sample_outputs",
    "input_gradient",
    "outputs_of",
    "rows_of_samples",
    "samples_axis_check",
    "value_and_pullback",
]

Function = Callable[[Any], Any]
OutputCheck = Callable[
    [str, Backend, Any, Any], None
]  # takes the caller's name, the backend, the output of `fn` and its input


def samples_axis_check(caller: str, name: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], None]:
    """Make a check that the array has an axis of samples."""

    def check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if arrays[0].ndim == 0 and options.get("per_sample", True):
            raise ValueError(
                f"{caller}: `{name}` must have at least 1 axis, that of the samples, got shape (). Add one."
            )

    return check


def array_option(caller: str, name: str, value: Any, x_name: str, x: Any) -> Any:
    """Return an option that is a real array, in the dtype of the array `x`."""
    backend = common_backend(caller, (x_name, name), (x, value))
    if backend.dtype(value.dtype).kind != "real":
        raise TypeError(f"{caller}: `{name}` must be real floating point, got {value.dtype}. Cast it first.")
    return value if value.dtype == x.dtype else backend.xp.astype(value, x.dtype)


def rows_of_samples(x: Any) -> tuple[Any, tuple[int, ...]]:
    """Return `x` in at least float32 and two axes, and the axes that a sample lies along."""
    x = at_least_float32(x)
    if x.ndim == 1:
        x = namespace(x).reshape(x, (x.shape[0], 1))
    return x, tuple(range(1, x.ndim))  # not merged: an axis may be cut over devices


def outputs_of(caller: str, fn: Function, x: Any, check_output: OutputCheck) -> Any:
    """Return the checked output of `fn`."""
    backend = array_backend(x)
    with explain_escapes(caller, backend):
        out = fn(x)
    check_output(caller, backend, out, x)
    return out


def input_gradient(caller: str, fn: Function, x: Any, *, per_sample: bool) -> Any:
    """Return the gradient of the sum of the output of `fn`, with respect to `x`.

    If `fn` treats samples independently, this is the gradient of each sample's value.
    """
    out, pullback = value_and_pullback(caller, fn, x, _check_sample_values if per_sample else _check_single_value)
    return pullback(namespace(out).ones_like(out))


def value_and_pullback(
    caller: str, fn: Function, x: Any, check_output: OutputCheck, *, again: bool = True
) -> tuple[Any, Callable[[Any], Any]]:
    """Return the checked output of `fn`, and a function that maps its cotangent to a gradient with respect to `x`.

    With ``again=False``, the gradient is a constant, and `fn` need not be twice differentiable.
    """
    backend = array_backend(x)

    def of_leaves(leaves: list[Any]) -> tuple[Any, list[Any]]:
        return outputs_of(caller, fn, leaves[0], check_output), []

    out, _, pull = backend.autodiff.vjp(of_leaves, [x], again=again)

    def pullback(cotangent: Any) -> Any:
        (gradient,) = pull(cotangent)
        if gradient is None:
            raise ValueError(
                f"{caller}: `fn` must return a value that depends on `x` through differentiable operations, got one "
                "that does not. Do not detach it, and compute with `namespace(x)`."
            )
        return backend.autodiff.checked_twice(caller, gradient) if again else stop_gradient(gradient)

    return out, pullback


def _check_real(caller: str, backend: Backend, out: Any) -> None:
    """Check that `fn` returned a real floating-point array of the framework of its input."""
    out_backend = backend_of(out)
    if out_backend is None or out_backend.library != backend.library:
        raise TypeError(
            f"{caller}: `fn` must return a {backend.library} array, like its input, got "
            f"{type(out).__module__}.{type(out).__qualname__}. Compute with `namespace(x)`."
        )
    kind = out_backend.dtype(out.dtype).kind
    if kind != "real":
        hint = "Take the real part" if kind == "complex" else "Compute with `namespace(x)`, in floating point"
        raise TypeError(f"{caller}: `fn` must return real floating-point values, got {out.dtype}. {hint}.")


def _check_sample_values(caller: str, backend: Backend, out: Any, x: Any) -> None:
    """Check that `fn` returned one value for each sample."""
    _check_real(caller, backend, out)
    shape, n = tuple(out.shape), x.shape[0]
    if shape[:1] != (n,) or math.prod(shape[1:]) != 1:
        raise ValueError(
            f"{caller}: `fn` must return one value for each sample, shape ({n},) or ({n}, 1), got {shape}. Do not "
            "reduce over the batch, and pick or sum a sample's outputs."
        )


def _check_single_value(caller: str, backend: Backend, out: Any, x: Any) -> None:
    """Check that `fn` returned one value for all samples together."""
    _check_real(caller, backend, out)
    if math.prod(out.shape) != 1:
        raise ValueError(
            f"{caller}: `fn` must return a single value, shape (), got {tuple(out.shape)}. Reduce it with sum or mean, "
            "or pass per_sample=True."
        )


def check_sample_outputs(caller: str, backend: Backend, out: Any, x: Any) -> None:
    """Check that `fn` returned any number of values for each sample."""
    _check_real(caller, backend, out)
    if tuple(out.shape[:1]) != tuple(x.shape[:1]):
        raise ValueError(
            f"{caller}: `fn` must return each sample's outputs, shape ({x.shape[0]}, ...), got {tuple(out.shape)}. Do "
            "not reduce over the batch."
        )
