"""Gradient transforms that clip updates: all together, or each array or element."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import array_backend, global_norm, safe_norm
from .._arrays.scalars import scalar
from .._core.checks import POSITIVE
from ..backends import is_array, namespace
from ..trees._selection import Patterns, PatternsLike
from ._base import GradientTransformation, leafwise, on_stored_elements, remember_call, stored

__all__ = ["clip", "clip_by_block_rms", "clip_by_global_norm"]


@remember_call
def clip(max_delta: Any, *, match: PatternsLike = None, exclude: PatternsLike = None) -> GradientTransformation:
    """Clip each element of the updates to [-`max_delta`, `max_delta`].

    Parameters
    ----------
    max_delta : float or 0-d array
        The largest magnitude allowed, > 0.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If `max_delta` has the wrong type or value, or a pattern matches nothing. `update` raises TypeError if an array
        is complex.

    Notes
    -----
    Same as `optax.clip`. NaN stays NaN. Sparse updates, such as those of ``torch.nn.Embedding(sparse=True)``, stay
    sparse.

    Examples
    --------
    >>> transforms.clip(1.0).update(np.asarray([3.0, -0.5, -2.0]), ())[0].tolist()
    [1.0, -0.5, -1.0]
    """
    max_delta = scalar("clip", POSITIVE, "max_delta", max_delta)

    def change(update: Any, max_delta: Any) -> Any:
        xp = namespace(update, *filter(is_array, [max_delta]))
        if not xp.isdtype(update.dtype, "real floating"):
            raise TypeError(f"clip: `updates` must be real, got {update.dtype}. Clip by a norm, or split it.")
        update = xp.where(update > max_delta, max_delta, update)
        return xp.where(update < -max_delta, -max_delta, update)

    return leafwise("clip", change, Patterns.of("clip", match, exclude), max_delta, takes_params=False, sparse=True)


@remember_call
def clip_by_block_rms(
    threshold: Any, *, match: PatternsLike = None, exclude: PatternsLike = None
) -> GradientTransformation:
    """Scale each array of the updates, so that its root mean square is at most `threshold`.

    Parameters
    ----------
    threshold : float or 0-d array
        The largest root mean square allowed, > 0.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If `threshold` has the wrong type or value, or a pattern matches nothing.

    Notes
    -----
    Same as `optax.clip_by_block_rms`. If one element of an array is NaN, the whole result for that array is
    NaN.

    Examples
    --------
    >>> clip = transforms.clip_by_block_rms(1.0)
    >>> clip.update({"a": np.asarray([3.0, -3.0]), "b": np.asarray([0.5])}, ())[0]
    {'a': array([ 1., -1.]), 'b': array([0.5])}
    """
    threshold = scalar("clip_by_block_rms", POSITIVE, "threshold", threshold)

    def change(update: Any, threshold: Any) -> Any:
        if 0 in update.shape:
            return update
        backend = array_backend(update)
        if backend.lazy:
            backend.require_sizes("clip_by_block_rms", "updates", update)
        max_norm = threshold * math.prod(update.shape) ** 0.5
        return _scaled(update, safe_norm(update), max_norm)

    patterns = Patterns.of("clip_by_block_rms", match, exclude)
    return leafwise("clip_by_block_rms", change, patterns, threshold, takes_params=False)


def _scaled(update: Any, norm: Any, max_norm: Any) -> Any:
    """Scale an update, whose norm is `norm`, so that it is at most `max_norm`."""
    xp = namespace(update, norm, *filter(is_array, [max_norm]))
    unclipped = norm < max_norm
    return xp.where(unclipped, update, update / xp.where(unclipped, 1.0, norm) * max_norm)


@remember_call
def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """Scale all updates together, so that their L2 norm is at most `max_norm`.

    Parameters
    ----------
    max_norm : float or 0-d array
        The largest norm allowed, > 0.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If `max_norm` has the wrong type or value.

    Notes
    -----
    Same as `optax.clip_by_global_norm`. If one element is NaN, all results are NaN. The norm is correct even if its
    square would overflow. Sparse updates, such as those of ``torch.nn.Embedding(sparse=True)``, stay sparse.

    Examples
    --------
    >>> clip = transforms.clip_by_global_norm(1.0)
    >>> clip.update([np.asarray([3.0]), np.asarray([4.0])], ())[0]
    [array([0.6]), array([0.8])]
    """
    name = "clip_by_global_norm"
    max_norm = scalar(name, POSITIVE, "max_norm", max_norm)
    everything = Patterns.of(name, None, None)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        selected = everything.find(name, "updates", updates, sparse=True)
        arrays = selected.arrays()
        if not arrays:
            return updates, state
        norm = global_norm([stored(x)[0] for x in arrays])
        return selected.replaced([on_stored_elements(name, _scaled, [x], norm, max_norm) for x in arrays]), state

    return GradientTransformation(lambda params: (), update)
