"""Borrow another framework's automatic differentiation for arrays that have none: CuPy's, or NumPy's without autograd.

The arrays go to PyTorch, or else to JAX, by DLPack, and the results come back as arrays of their own framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from .. import backends
from ..backends import Backend, NoAutodiffError, backend_of, flatten_of
from .conversion import exchanged_array

__all__ = ["arrays_are_borrowed", "autodiff_backend_of", "call_borrowed"]

_BORROWED = ContextVar("_BORROWED", default=False)


def arrays_are_borrowed() -> bool:
    """Return True while a function runs on arrays borrowed from another library."""
    return _BORROWED.get()


def autodiff_backend_of(caller: str, backend: Backend) -> Backend:
    """Return the backend that differentiates arrays of `backend`: itself if it can. Errors name `caller`."""
    try:
        return backends.autodiff_backend_of(backend)
    except NoAutodiffError as error:
        raise NotImplementedError(f"{caller}: {error}") from None


def call_borrowed(
    caller: str,
    owner: Backend,
    autodiff_backend: Backend,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a function with the owner's arrays, converted to another library, and convert its results back."""
    leaves, _ = flatten_of((args, dict(kwargs)))
    device = next(owner.device(leaf) for leaf in leaves if _is_of(owner, leaf))
    token = _BORROWED.set(True)
    try:
        with autodiff_backend.exchange.borrowing():
            args, kwargs = _exchanged(
                (args, dict(kwargs)), owner, lambda x: exchanged_array(x, owner, autodiff_backend, x)
            )
            out = function(*args, **kwargs)
    except Exception as error:
        error.add_note(
            f"In {caller}: arrays of {owner.name} are passed to {autodiff_backend.name} here. Pass all arrays that a "
            "function needs as its arguments, and compute with `namespace(x)`."
        )
        raise
    finally:
        _BORROWED.reset(token)
    return _exchanged(out, autodiff_backend, lambda x: autodiff_backend.exchange.return_to(owner, x, device))


def _exchanged(tree: Any, backend: Backend, exchange: Callable[[Any], Any]) -> Any:
    """Exchange the arrays of `backend` in a pytree."""
    leaves, rebuild = flatten_of(tree)
    return rebuild(exchange(leaf) if _is_of(backend, leaf) else leaf for leaf in leaves)


def _is_of(backend: Backend, leaf: Any) -> bool:
    actual = backend_of(leaf)
    return actual is not None and actual.library == backend.library
