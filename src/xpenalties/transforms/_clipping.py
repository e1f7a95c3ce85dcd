"""Gradient transforms by norms and means: of all updates together, or of each unit's."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import global_norm, safe_norm
from .._arrays.scalars import scalar
from .._core.checks import POSITIVE, integer, named
from ..backends import backend_of, is_array, namespace
from ..trees._selection import Given, Patterns
from ._base import GradientTransformation, changed, in_working_dtype

__all__ = ["adaptive_gradient_clipping", "centralize", "clip_by_global_norm"]

_AXIS = integer()


def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """Scale all updates together, so that their L2 norm is `max_norm` at most.

    Parameters
    ----------
    max_norm : float or 0-d array
        > 0.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For a norm of a wrong kind or value.

    Notes
    -----
    As `optax.clip_by_global_norm`, also where there is a NaN: all is NaN then. The norm is right where its square would
    overflow.

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
        selected = everything.find(name, "updates", updates)
        if not selected.places:
            return updates, state
        norm = global_norm(selected.chosen())

        def clip(update: Any, norm: Any, max_norm: Any) -> Any:
            xp = namespace(update, norm, *filter(is_array, [max_norm]))
            short = norm < max_norm
            return xp.where(short, update, update / xp.where(short, 1.0, norm) * max_norm)

        return selected.replaced([in_working_dtype(name, clip, [x], norm, max_norm) for x in selected.chosen()]), state

    return GradientTransformation(lambda params: (), update)


def adaptive_gradient_clipping(
    clipping: Any, *, eps: Any = 1e-3, unit_axis: int | None = None, match: Given = None, exclude: Given = None
) -> GradientTransformation:
    r"""Scale each unit's update, so that its L2 norm is at most a share of the norm of the unit's parameters.

    :math:`u \min(1, \lambda \max(\|p\|, \epsilon) / \|u\|)` for each unit: what feeds one output of a layer.

    Parameters
    ----------
    clipping : float or 0-d array
        :math:`\lambda`, > 0.
    eps : float or 0-d array, default 1e-3
        :math:`\epsilon`, > 0: the least norm of parameters, so that those at 0 can move.
    unit_axis : int, optional
        The axis along which the units lie; norms are over all others. By default the first of PyTorch's arrays, whose
        layers are [out, in, ...], and of others as Optax has it: the last, but all except the first of three axes.
        Arrays with one axis longer than 1 are a unit.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`. Brock et al. leave the last layer out.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value, patterns that match nothing, and where `update` is not given `params`.

    Notes
    -----
    As `optax.adaptive_grad_clip`.

    References
    ----------
    .. [1] Brock et al., "High-performance large-scale image recognition without normalization", ICML 2021.

    Examples
    --------
    >>> clip = transforms.adaptive_gradient_clipping(0.5)
    >>> params, gradients = np.asarray([3.0, 4.0]), np.asarray([0.0, 10.0])
    >>> clip.update(gradients, clip.init(params), params)[0].tolist()
    [0.0, 2.5]
    """
    name = "adaptive_gradient_clipping"
    clipping = scalar(name, POSITIVE, "clipping", clipping)
    eps = scalar(name, POSITIVE, "eps", eps)
    unit_axis = None if unit_axis is None else named(name, _AXIS, "unit_axis", unit_axis)

    def clip(update: Any, param: Any, clipping: Any, eps: Any) -> Any:
        xp = namespace(update, param, *filter(is_array, [clipping, eps]))
        axes = _axes_of_a_unit(name, update, unit_axis)
        norm, least = (xp.reshape(safe_norm(x, axis=axes), _kept_shape(x, axes)) for x in (update, param))
        most = clipping * xp.where(least < eps, eps, least)
        return xp.where(norm < most, update, update * (most / xp.where(norm == 0, 1.0, norm)))

    return changed(name, clip, Patterns.of(name, match, exclude), clipping, eps)


def _axes_of_a_unit(name: str, x: Any, unit_axis: int | None) -> tuple[int, ...]:
    """The axes that the norm of a unit is over."""
    axes = tuple(range(x.ndim))
    if sum(size != 1 for size in x.shape) <= 1:
        return axes
    if unit_axis is None:
        backend = backend_of(x)
        assert backend is not None
        if backend.name != "torch":
            return axes[:1] if x.ndim == 3 else axes[:-1]
        unit_axis = 0
    return axes[: (at := _checked_axis(name, unit_axis, x))] + axes[at + 1 :]


def _kept_shape(x: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of `x` with these axes reduced."""
    return tuple(1 if i in axes else size for i, size in enumerate(x.shape))


def _checked_axis(name: str, axis: int, x: Any) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{name}: `unit_axis` must be an axis of each array, got {axis} for shape {tuple(x.shape)}. "
            "Leave some out by `exclude`."
        )
    return axis % x.ndim


def centralize(*, unit_axis: int = 0, match: Given = None, exclude: Given = None) -> GradientTransformation:
    """Take off each unit's update its mean. Arrays of less than two axes stay as they are.

    Parameters
    ----------
    unit_axis : int, default 0
        The axis along which the units lie; means are over all others. 0 for PyTorch's layers, [out, in, ...], -1 for
        those of Flax and Keras, [..., in, out].
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value, and patterns that match nothing.

    Notes
    -----
    With the default as `optax.centralize`.

    References
    ----------
    .. [1] Yong et al., "Gradient centralization: a new optimization technique for deep neural networks", ECCV 2020.

    Examples
    --------
    >>> center = transforms.centralize()
    >>> center.update(np.asarray([[1.0, 3.0], [5.0, 5.0]]), ())[0].tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    unit_axis = named("centralize", _AXIS, "unit_axis", unit_axis)

    def center(update: Any) -> Any:
        if update.ndim < 2 or 0 in update.shape:
            return update
        at = _checked_axis("centralize", unit_axis, update)
        axes = tuple(i for i in range(update.ndim) if i != at)
        return update - namespace(update).mean(update, axis=axes, keepdims=True)

    return changed("centralize", center, Patterns.of("centralize", match, exclude), params=False)
