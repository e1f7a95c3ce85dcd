"""Gradients for arrays of any framework: value_and_grad, grad, grad_norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from ..backends import Backend, backend_of, common_backend, flatten_of, is_array
from .borrowed_autodiff import autodiff_backend_of, call_borrowed
from .numerics import global_norm

__all__ = ["arrays_of", "explain_escapes", "grad", "grad_norm", "value_and_grad"]


def value_and_grad(fn: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes the value of `fn` and its gradient with respect to the first argument.

    Parameters
    ----------
    fn : callable
        Takes an array, or a pytree (dict, list, tuple, dataclass) of arrays of one framework, and any other arguments.
        Returns a real scalar, or with `has_aux` a pair of a scalar and anything else. Write it with `namespace(x)`, and
        it runs on every framework. If the arrays' library has no automatic differentiation (CuPy, NumPy without
        autograd), its arrays are passed to PyTorch, or else to JAX, without a copy. Then `fn` gets arrays of that
        framework, so it must take all of its arrays as arguments.
    has_aux : bool, default False
        If True, `fn` returns a pair, and the new function returns ``(value, aux), gradient``.

    Returns
    -------
    callable
        Takes the arguments of `fn` and returns ``value, gradient``. The gradient has the structure of the first
        argument: zeros for an array that `fn` does not use, None for a leaf that is not a floating-point array.

    Raises
    ------
    TypeError
        If the first argument holds no real floating-point array, holds a complex array, or mixes frameworks.
    ValueError
        If `fn` does not return a scalar.
    NotImplementedError
        If the arrays' library has no automatic differentiation, and neither PyTorch nor JAX can provide it.

    Examples
    --------
    >>> value, gradient = value_and_grad(l2)(np.asarray([1.0, -2.0]))
    >>> float(value), gradient.tolist()
    (5.0, [2.0, -4.0])
    """
    return _differentiated("value_and_grad", fn, has_aux)


def grad(fn: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes the gradient of `fn` with respect to the first argument.

    Parameters
    ----------
    fn, has_aux
        As for `value_and_grad`. With `has_aux` the new function returns ``gradient, aux``.

    Returns
    -------
    callable
        Takes the arguments of `fn`. Its result can be differentiated again.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `value_and_grad`.

    Examples
    --------
    >>> grad(l1)(np.asarray([1.0, 0.0, -2.0])).tolist()
    [1.0, 0.0, -1.0]
    """
    both = _differentiated("grad", fn, has_aux)

    @wraps(fn)
    def differentiated(x: Any, /, *args: Any, **kwargs: Any) -> Any:
        value, gradient = both(x, *args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def grad_norm(fn: Callable[..., Any], x: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Return the L2 norm of the gradient of `fn` with respect to `x`, over all arrays of `x` together.

    Parameters
    ----------
    fn : callable
        As for `value_and_grad`: takes `x` and other arguments, and returns a real scalar.
    x : array or pytree of arrays
        The arrays to differentiate with respect to.
    *args, **kwargs
        Passed to `fn`.

    Returns
    -------
    array, shape ()
        In float32 or wider. You can differentiate it; its gradient is 0 if the norm is 0.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `value_and_grad`.

    Notes
    -----
    `Pipeline.compute` with ``track_grad_norms=True`` returns the gradient norms of all penalties from one evaluation.

    Examples
    --------
    >>> float(grad_norm(l2, np.asarray([3.0, -4.0])))
    10.0
    """
    _, gradient = _differentiated("grad_norm", fn, False)(x, *args, **kwargs)
    return global_norm([leaf for leaf in flatten_of(gradient)[0] if is_array(leaf)])


def _differentiated(caller: str, fn: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    """Return the function that `value_and_grad` returns, with errors that name `caller`."""
    if not callable(fn):
        raise TypeError(f"{caller}: `fn` must be callable, got {type(fn).__qualname__}. Pass a function.")

    @wraps(fn)
    def differentiated(x: Any, /, *args: Any, **kwargs: Any) -> Any:
        leaves, rebuild = flatten_of(x)
        active = _differentiable(caller, leaves)
        backend = common_backend(caller, [f"leaf {i}" for i in active], [leaves[i] for i in active])
        autodiff_backend = autodiff_backend_of(caller, backend)
        if autodiff_backend is not backend:
            return call_borrowed(caller, backend, autodiff_backend, differentiated, (x, *args), kwargs)
        rebuild_aux: Callable[[list[Any]], Any] = lambda arrays: None  # noqa: E731

        def of_leaves(traced: list[Any]) -> tuple[Any, list[Any]]:
            nonlocal rebuild_aux
            full = list(leaves)
            for i, leaf in zip(active, traced, strict=True):
                full[i] = leaf
            with explain_escapes(caller, backend):
                out = fn(rebuild(iter(full)), *args, **kwargs)
            value, aux = _value_and_aux(caller, out, has_aux, backend.library)
            arrays, rebuild_aux = arrays_of(aux, backend)
            return value, arrays

        value, arrays, pull = backend.autodiff.vjp(of_leaves, [leaves[i] for i in active])
        xp = backend.xp
        gradients: list[Any] = [None] * len(leaves)
        for i, gradient in zip(active, pull(xp.ones_like(value)), strict=True):
            gradients[i] = xp.zeros_like(leaves[i]) if gradient is None else gradient
        gradient = rebuild(iter(gradients))
        return ((value, rebuild_aux(arrays)) if has_aux else value), gradient

    return differentiated


@contextmanager
def explain_escapes(caller: str, backend: Backend) -> Iterator[None]:
    """Run a user's function on traced arrays. If it converts one to plain data, raise an error that says what to do."""
    try:
        yield
    except Exception as error:
        if not backend.autodiff.escaped(error):
            raise
        raise TypeError(
            f"{caller}: `fn` must compute with `namespace(x)`, got an array taken out of {backend.library}, whose "
            f"derivatives end there ({type(error).__name__}: {str(error).splitlines()[0]}). Use the "
            "namespace's functions instead of NumPy's, float() and the like."
        ) from error


def _differentiable(caller: str, leaves: list[Any]) -> list[int]:
    """Return the positions of the real floating-point arrays."""
    active = []
    for i, leaf in enumerate(leaves):
        backend = backend_of(leaf)
        if backend is None:
            continue
        kind = backend.dtype(leaf.dtype).kind
        if kind == "complex":
            raise TypeError(
                f"{caller}: the first argument must hold real arrays, got {leaf.dtype}. "
                "Differentiate the real and imaginary parts, because frameworks define complex gradients differently."
            )
        if kind == "real":
            active.append(i)
    if not active:
        raise TypeError(
            f"{caller}: the first argument must hold a floating-point array, got "
            f"{', '.join(sorted(set(map(_kind, leaves)))) or 'an empty tree'}. "
            "Pass a floating-point array first."
        )
    return active


def _kind(leaf: Any) -> str:
    return f"{type(leaf).__qualname__} of {leaf.dtype}" if is_array(leaf) else type(leaf).__qualname__


def _value_and_aux(caller: str, out: Any, has_aux: bool, library: str) -> tuple[Any, Any]:
    """Check what `fn` returned."""
    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError(f"{caller}: `fn` must return (value, aux), got {type(out).__qualname__}. Or drop `has_aux`.")
    value, aux = out if has_aux else (out, None)
    backend = backend_of(value)
    if backend is None:
        hint = "For (value, aux) pass has_aux=True" if isinstance(value, tuple) else "Compute it from its arguments"
        raise TypeError(f"{caller}: `fn` must return a 0-d array, got {type(value).__qualname__}. {hint}.")
    if backend.library != library:
        raise TypeError(
            f"{caller}: `fn` must return a {library} array, like its input, got one of {backend.library}. "
            "Compute with `namespace(x)`."
        )
    if tuple(value.shape) != ():
        raise ValueError(
            f"{caller}: `fn` must return a 0-d array, got shape {tuple(value.shape)}. Reduce it with sum or mean."
        )
    if backend.dtype(value.dtype).kind != "real":
        raise TypeError(
            f"{caller}: `fn` must return a real floating-point value, got {value.dtype}. Take its real part or size."
        )
    return value, aux


def arrays_of(tree: Any, backend: Backend) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the arrays of a backend's library in a pytree, and a function that puts others in their places."""
    leaves, rebuild = backend.flatten(tree)
    backends = [backend_of(leaf) for leaf in leaves]
    places = [i for i, owner in enumerate(backends) if owner is not None and owner.library == backend.library]

    def put(arrays: list[Any]) -> Any:
        full = list(leaves)
        for i, x in zip(places, arrays, strict=True):
            full[i] = x
        return rebuild(iter(full))

    return [leaves[i] for i in places], put
