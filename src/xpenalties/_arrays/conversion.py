"""Convert arrays from one framework to another by DLPack, without a copy if the two can share memory."""

from __future__ import annotations

from typing import Any

import array_api_compat

from ..backends import Backend, backend_of, flatten_of

__all__ = ["exchanged_array", "to_like"]


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
            "traced. Detach it first, because gradients do not cross frameworks."
        )
    if source.library != target.library:
        try:
            with target.exchange.borrowing():
                borrowed = exchanged_array(x, source, target, None)
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


def exchanged_array(x: Any, source: Backend, target: Backend, otherwise: Any) -> Any:
    """Return an array of `source` as one of `target`, or `otherwise` if its dtype cannot be exchanged."""
    exported = source.exchange.exported(x)
    return otherwise if exported is None else target.exchange.borrowed(exported)
