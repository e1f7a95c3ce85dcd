"""Pass arrays to another framework by DLPack: for one call that differentiates, or for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import array_api_compat

from .. import backends
from ..backends import Backend, NoAutodiffError, backend_of, flatten_of

__all__ = ["arrays_are_borrowed", "autodiff_backend_of", "call_borrowed", "to_like"]

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
            args, kwargs = _exchanged((args, dict(kwargs)), owner, lambda x: _borrowed(x, owner, autodiff_backend, x))
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


def to_like(x: Any, like: Any) -> Any:
    """Convert arrays to the framework and device of another array.

    The conversion uses DLPack, without a copy if the two frameworks can share memory. You need it if your arrays come
    from two frameworks, because penalties take arrays of one framework only. Gradients do not cross.

    Parameters
    ----------
    x : array or pytree of arrays
        Arrays of any framework. Other leaves are returned unchanged.
    like : array
        An array of the target framework, on the target device.

    Returns
    -------
    array or pytree of arrays
        With the dtypes of `x`. They may share memory with `x`: if you change one in place, the other changes too.

    Raises
    ------
    TypeError
        If `like` is not an array, if an array requires a gradient or is traced, or if the target framework lacks its
        dtype.

    Examples
    --------
    >>> teacher = torch.tensor([0.0, 1.0])
    >>> to_like({"teacher": teacher}, np.ones(1))
    {'teacher': array([0., 1.], dtype=float32)}
    """
    target = backend_of(like)
    if target is None:
        raise TypeError(f"to_like: `like` must be an array, got {type(like).__qualname__}. Pass one of the framework.")
    leaves, rebuild = flatten_of(x)
    return rebuild(iter([_moved(leaf, target, like) for leaf in leaves]))


def _moved(x: Any, target: Backend, like: Any) -> Any:
    source = backend_of(x)
    if source is None:
        return x
    if source.autodiff.requires_grad(x) or source.traces or source.tracing.is_tracing(x):
        raise TypeError(
            f"to_like: `x` must be without gradients, got an array of {source.library} that is differentiated or "
            "traced. Gradients do not cross frameworks; detach it first."
        )
    if source.library != target.library:
        try:
            with target.exchange.borrowing():
                borrowed = _borrowed(x, source, target, None)
            if borrowed is None:
                raise TypeError("no numbers")
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise TypeError(
                f"to_like: `x` must be what {target.library} takes by DLPack, got {x.dtype} of {source.library} "
                f"({error}). Cast it, or move it to the host first."
            ) from error
        x = borrowed
    device = array_api_compat.device(target.autodiff.stop_gradient(like))
    return x if array_api_compat.device(x) == device else array_api_compat.to_device(x, device)


def _borrowed(x: Any, source: Backend, target: Backend, otherwise: Any) -> Any:
    """Return an array of `source` as one of `target`, or `otherwise` if its dtype cannot be exchanged."""
    exported = source.exchange.exported(x)
    return otherwise if exported is None else target.exchange.borrowed(exported)


def _exchanged(tree: Any, backend: Backend, exchange: Callable[[Any], Any]) -> Any:
    """Exchange the arrays of `backend` in a pytree."""
    leaves, rebuild = flatten_of(tree)
    return rebuild(exchange(leaf) if _is_of(backend, leaf) else leaf for leaf in leaves)


def _is_of(backend: Backend, leaf: Any) -> bool:
    actual = backend_of(leaf)
    return actual is not None and actual.library == backend.library
