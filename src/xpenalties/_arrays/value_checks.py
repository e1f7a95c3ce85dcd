"""Checks of values, for debugging: log-probabilities, weights and normalizers. They are off unless you turn them on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from .._core.checks import check_argument, integer
from .._core.shown import shown
from .._core.types import Array
from ..backends import Backend, common_backend
from .finite import first_index

__all__ = ["check_log_probabilities", "set_value_checks"]


class _Switch:
    """Stores whether penalties check values. It is an object, because torch.compile guards its attribute."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled


VALUE_CHECKS = _Switch(os.environ.get("XPENALTIES_CHECK", "0") not in ("", "0"))
_AXIS = integer()
_OTHER_ROWS, _OTHER_ELEMENTS = "rows that do not", "elements > 0 or NaN"
_NEGATIVE = "elements < 0 or NaN"


class set_value_checks:  # noqa: N801 - used like a function, as torch.set_grad_enabled
    """Turn on checks of the values that penalties get, to find probabilities or logits in place of log-probabilities.

    With checks on, each penalty that takes log-probabilities checks that their exponentials sum to 1, or to at most 1
    if it takes only some of the classes. Each penalty checks that `weights` and `normalizer` are not negative or NaN.
    A check reads the values, so it waits for the device. While checks are off, they cost nothing.

    Call it, or use it in a `with` statement, which restores the earlier setting at its end. The environment variable
    ``XPENALTIES_CHECK=1`` turns checks on when the package is imported.

    Parameters
    ----------
    enabled : bool, default True
        Whether to check.

    Raises
    ------
    TypeError
        If `enabled` is not a bool.

    Notes
    -----
    A failed check raises a ValueError that gives the first wrong row. Terms that are masked, by `where` or by a weight
    of 0, are not checked. Log-probabilities of -inf are allowed, and so is a whole row of them, as in padding.

    In compiled programs, the check runs as a part of the program:

    - jax.jit, jax.grad and jax.vmap: through jax.debug.callback. The ValueError arrives inside a JaxRuntimeError, when
      you use a result. A function keeps the setting that it was compiled with, so turn checks on before you compile it.
    - torch.compile, torch.export: through torch._assert_async, as a RuntimeError. On CUDA, a failed assertion makes the
      device unusable for the rest of the process. Changing the setting recompiles. torch.func.vmap inside a compiled
      function is not checked.

    The setting holds for all threads of the process.

    Examples
    --------
    >>> probabilities = np.asarray([[0.5, 0.5], [0.9, 0.1]])
    >>> with set_value_checks():
    ...     entropy(probabilities)
    Traceback (most recent call last):
        ...
    ValueError: entropy: `log_p` must hold log-probabilities, got 2 of 2 rows that do not, the first at (0,): its
    elements are probabilities. Pass their logarithms.
    >>> round(float(entropy(np.log(probabilities))), 4)
    0.5091
    """

    def __init__(self, enabled: bool = True) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(f"set_value_checks: `enabled` must be True or False, got {shown(enabled)}. Pass a bool.")
        self._before = VALUE_CHECKS.enabled
        VALUE_CHECKS.enabled = enabled

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        VALUE_CHECKS.enabled = self._before


def check_log_probabilities(x: Array, /, *, axis: int | None = -1, where: Any = None, partial: bool = False) -> Array:
    """Return `x` itself if it holds log-probabilities; otherwise raise an error.

    Parameters
    ----------
    x : array, shape (..., classes)
        Real floating point. Its exponentials must sum to 1 along `axis`. -inf is allowed, also for a whole row.
    axis : int or None, default -1
        The axis of the classes. None: each element is a log-probability by itself, so it must be <= 0.
    where : boolean array, broadcastable to `x` without `axis`, optional
        True for the rows to check.
    partial : bool, default False
        If True, `x` holds only some of the classes, so their probabilities may sum to less than 1.

    Returns
    -------
    array
        `x` itself, so that you can put the call inside an expression. Gradients pass through it.

    Raises
    ------
    ValueError
        If a row does not hold log-probabilities, but for example probabilities or logits. The message gives the first
        such row.
    TypeError
        If `x` is not a real floating-point array, or `where` is not boolean.

    Notes
    -----
    Sums may differ from 1 by 0.001, or more in half precision. The call reads the values and waits for them. In
    compiled programs, the error is raised when the program runs, see `set_value_checks`.

    Examples
    --------
    >>> check_log_probabilities(np.asarray([[2.0, 1.0, 0.5]]))
    Traceback (most recent call last):
        ...
    ValueError: check_log_probabilities: `x` must hold log-probabilities, got 1 of 1 rows that do not, the first at
    (0,): its probabilities sum to 11.8. Pass the log-softmax of logits.
    """
    caller = "check_log_probabilities"
    backend = common_backend(caller, ["x"], [x])
    if backend.dtype(x.dtype).kind != "real":
        raise TypeError(f"{caller}: `x` must be real floating point, got {x.dtype}. Cast it.")
    if axis is not None:
        axis = check_argument(caller, _AXIS, "axis", axis)
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(
                f"{caller}: `axis` must be an axis of `x`, got {axis} for shape {tuple(x.shape)}. Pass another."
            )
    mask = None
    if where is not None:
        backend = common_backend(caller, ["x", "where"], [x, where])
        if backend.dtype(where.dtype).kind != "bool":
            raise TypeError(f"{caller}: `where` must be a boolean array, got {where.dtype}. Pass `where != 0`.")
        mask = where
    require_log_probabilities(caller, "x", backend, x, axis=axis, partial=partial, mask=mask)
    return x


def require_log_probabilities(
    caller: str, name: str, backend: Backend, x: Any, *, axis: int | None, partial: bool, mask: Any
) -> None:
    """Raise an error unless an array holds log-probabilities. `mask` has the shape of the rows, or broadcasts to it."""
    x = backend.autodiff.stop_gradient(x)
    sums, valid = backend.evaluation.run(_sums_and_validity, (backend, x), {"axis": axis, "partial": partial})
    rule, kind = f"`{name}` must hold log-probabilities", _OTHER_ELEMENTS if axis is None else _OTHER_ROWS
    message = f"{caller}: {rule}, got {kind}. Pass the log-softmax of logits, or the logarithm of probabilities."
    _require(
        backend,
        valid if mask is None else valid | ~mask,
        message,
        kind,
        lambda index: _explanation(backend, x, sums, axis, index),
    )


def _sums_and_validity(backend: Backend, x: Any, *, axis: int | None, partial: bool) -> tuple[Any, Any]:
    """Return the sum of the probabilities of each row, and whether it is valid. NaN is not."""
    xp = backend.xp
    eps, working = float(xp.finfo(x.dtype).eps), backend.dtype(x.dtype).working
    x = x if working is None else xp.astype(x, working)
    if axis is None:
        return x, x <= 1e-3
    classes = x.shape[axis] if type(x.shape[axis]) is int else 2**17  # a symbolic size of an exported program
    tolerance = max(1e-3, 4 * eps * (1 + math.log(max(classes, 1))))  # rounding of log-probabilities, summed
    sums = xp.sum(xp.exp(x), axis=axis)
    if partial:
        return sums, sums <= 1 + tolerance
    return sums, (xp.abs(sums - 1) <= tolerance) | (sums == 0)


def _explanation(backend: Backend, x: Any, sums: Any, axis: int | None, index: tuple[int, ...]) -> str:
    """Say what is wrong with a row of an eager array."""
    if axis is None:
        return f"it is {float(sums[index]):.3g}. Pass logarithms of probabilities."
    place = list(index)
    place.insert(axis % x.ndim, slice(None))  # type: ignore[arg-type]
    row = x[tuple(place)]
    if bool(backend.xp.all(row >= 0)) and abs(float(backend.xp.sum(row)) - 1) <= 0.01:
        return "its elements are probabilities. Pass their logarithms."
    return f"its probabilities sum to {float(sums[index]):.3g}. Pass the log-softmax of logits."


def require_not_negative(caller: str, name: str, backend: Backend, x: Any) -> None:
    """Raise an error unless no element is negative or NaN."""
    x = backend.autodiff.stop_gradient(x)
    message = f"{caller}: `{name}` must not be negative or NaN, got {_NEGATIVE}. Pass numbers >= 0."
    _require(backend, x >= 0, message, _NEGATIVE, lambda index: f"it is {float(x[index]):.3g}. Pass numbers >= 0.")


def _require(backend: Backend, valid: Any, message: str, kind: str, explain: Callable[[tuple[int, ...]], str]) -> None:
    """Raise an error unless all elements of `valid` are true. If they can be read, it counts and explains them."""
    xp = backend.xp

    def error() -> ValueError:
        count, index = int(xp.sum(xp.astype(~valid, xp.int32))), first_index(backend, ~valid)
        counted = f"{count} of {math.prod(valid.shape)} {kind}, the first at {index}: {explain(index)}"
        return ValueError(message.partition(kind)[0] + counted)

    backend.tracing.raise_unless(xp.all(valid), message, error)
