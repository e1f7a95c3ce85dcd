"""Arrays of a library without automatic differentiation, lent for a call to one that has it, without a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from .. import backends
from ..backends import Backend, NoAutodiffError, backend_of, flatten_of

__all__ = ["are_lent", "lender_of", "on_loan"]

_LENT = ContextVar("_LENT", default=False)


def are_lent() -> bool:
    """Whether this is a call that arrays of another library have been lent for."""
    return _LENT.get()


def lender_of(caller: str, backend: Backend) -> Backend:
    """The backend that differentiates arrays of `backend`: as a rule itself."""
    try:
        return backends.lender_of(backend)
    except NoAutodiffError as error:
        raise NotImplementedError(f"{caller}: {error}") from None


def on_loan(
    caller: str,
    owner: Backend,
    lender: Backend,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """What `function` returns for the arguments with the owner's arrays as the lender's, in the owner's arrays."""
    leaves, _ = flatten_of((args, dict(kwargs)))
    device = next(owner.device(leaf) for leaf in leaves if _is_of(owner, leaf))
    token = _LENT.set(True)
    try:
        with lender.exchange.borrowing():
            args, kwargs = _exchanged((args, dict(kwargs)), owner, partial(_lent, owner, lender))
            out = function(*args, **kwargs)
    except Exception as error:
        error.add_note(
            f"In {caller}: arrays of {owner.name} are lent to {lender.name} here. Pass all arrays that a function "
            "needs as its arguments, and compute with `namespace(x)`."
        )
        raise
    finally:
        _LENT.reset(token)
    return _exchanged(out, lender, lambda x: lender.exchange.return_to(owner, x, device))


def _lent(owner: Backend, lender: Backend, x: Any) -> Any:
    exported = owner.exchange.exported(x)
    return x if exported is None else lender.exchange.borrowed(exported)


def _exchanged(nest: Any, backend: Backend, exchange: Callable[[Any], Any]) -> Any:
    leaves, rebuild = flatten_of(nest)
    return rebuild(exchange(leaf) if _is_of(backend, leaf) else leaf for leaf in leaves)


def _is_of(backend: Backend, leaf: Any) -> bool:
    found = backend_of(leaf)
    return found is not None and found.library == backend.library
