"""Gradient transforms that clip or center each unit. A unit is the weights of one output of a layer."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import safe_norm
from .._arrays.scalars import scalar
from .._core.checks import POSITIVE, check_argument, integer
from ..backends import backend_of, is_array, namespace
from ..trees._selection import Patterns, PatternsLike
from ._base import GradientTransformation, leafwise, remember_call

__all__ = ["adaptive_gradient_clipping", "centralize"]

_AXIS = integer()


@remember_call
def adaptive_gradient_clipping(
    clipping: Any,
    *,
    eps: Any = 1e-3,
    unit_axis: int | tuple[int, ...] | None = None,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
) -> GradientTransformation:
    r"""Scale each unit's update, so that its L2 norm is at most `clipping` times the norm of the unit's parameters.

    :math:`u \min(1, \lambda \max(\|p\|, \epsilon) / \|u\|)` for each unit: the weights of one output of a layer.

    Parameters
    ----------
    clipping : float or 0-d array
        :math:`\lambda`, > 0.
    eps : float or 0-d array, default 1e-3
        :math:`\epsilon`, > 0: a lower bound on the parameters' norm, so that parameters at 0 can change.
    unit_axis : int or tuple of int, optional
        The axis of the units, or several axes. Norms are over all other axes. With ``()``, each array is one unit. For
        PyTorch, the default is the first axis, because its layers are [out, in, ...]. For other frameworks, the default
        is that of Optax: the last axis, except that norms are over the first axis if an array has three. An array with
        at most one axis longer than 1 is one unit.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`. Brock et al. exclude the last layer.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or value, a pattern matches nothing, or `update` gets no `params`.

    Notes
    -----
    Same as `optax.adaptive_grad_clip`, except for the default axis of PyTorch's arrays.

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
    unit_axes = None if unit_axis is None else _checked_axes(name, unit_axis)

    def clip(update: Any, param: Any, clipping: Any, eps: Any) -> Any:
        xp = namespace(update, param, *filter(is_array, [clipping, eps]))
        axes = _axes_of_a_unit(name, update, unit_axes)
        norm, param_norm = (xp.reshape(safe_norm(x, axis=axes), _keepdims_shape(x, axes)) for x in (update, param))
        max_norm = clipping * xp.where(param_norm < eps, eps, param_norm)
        return xp.where(norm < max_norm, update, update * (max_norm / xp.where(norm == 0, 1.0, norm)))

    return leafwise(name, clip, Patterns.of(name, match, exclude), clipping, eps)


def _axes_of_a_unit(name: str, x: Any, unit_axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the axes that the norm of a unit is taken over."""
    axes = tuple(range(x.ndim))
    if sum(size != 1 for size in x.shape) <= 1:
        return axes
    if unit_axes is None:
        backend = backend_of(x)
        assert backend is not None
        if not backend.units_first:
            return axes[:1] if x.ndim == 3 else axes[:-1]
        unit_axes = (0,)
    counted = [_counted_axis(name, axis, x) for axis in unit_axes]
    return tuple(axis for axis in axes if axis not in counted)


def _checked_axes(name: str, unit_axis: Any) -> tuple[int, ...]:
    axes = unit_axis if isinstance(unit_axis, (tuple, list)) else (unit_axis,)
    return tuple(check_argument(name, _AXIS, "unit_axis", axis) for axis in axes)


def _keepdims_shape(x: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of `x` with `axes` reduced to size 1."""
    return tuple(1 if i in axes else size for i, size in enumerate(x.shape))


def _counted_axis(name: str, axis: int, x: Any) -> int:
    """Check an axis of `x`. Returns it as a number >= 0."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{name}: `unit_axis` must be an axis of each array, got {axis} for shape {tuple(x.shape)}. "
            "Leave others out with `exclude`."
        )
    return axis % x.ndim


@remember_call
def centralize(
    *, unit_axis: int | tuple[int, ...] = 0, match: PatternsLike = None, exclude: PatternsLike = None
) -> GradientTransformation:
    """Subtract the mean from each unit's update. Arrays with fewer than two axes are returned unchanged.

    Parameters
    ----------
    unit_axis : int or tuple of int, default 0
        The axis of the units, or several axes. Means are over all other axes. Use 0 for PyTorch's layers,
        [out, in, ...], and -1 for those of Flax and Keras, [..., in, out].
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or value, or a pattern matches nothing.

    Notes
    -----
    Same as `optax.centralize` with the default axis.

    References
    ----------
    .. [1] Yong et al., "Gradient centralization: a new optimization technique for deep neural networks", ECCV 2020.

    Examples
    --------
    >>> center = transforms.centralize()
    >>> center.update(np.asarray([[1.0, 3.0], [5.0, 5.0]]), ())[0].tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    unit_axes = _checked_axes("centralize", unit_axis)

    def center(update: Any) -> Any:
        if update.ndim < 2 or 0 in update.shape:
            return update
        counted = [_counted_axis("centralize", axis, update) for axis in unit_axes]
        axes = tuple(i for i in range(update.ndim) if i not in counted)
        return update - namespace(update).mean(update, axis=axes, keepdims=True)

    return leafwise("centralize", center, Patterns.of("centralize", match, exclude), takes_params=False)
