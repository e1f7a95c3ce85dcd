"""Gradient transforms that clip or center updates: all together, or those of each unit."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import global_norm, safe_norm
from .._arrays.scalars import scalar
from .._core.checks import POSITIVE, check_argument, integer
from ..backends import backend_of, is_array, namespace
from ..trees._selection import Patterns, PatternsLike
from ._base import GradientTransformation, in_working_dtype, leafwise

__all__ = ["adaptive_gradient_clipping", "centralize", "clip_by_global_norm"]

_AXIS = integer()


def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """Scale all updates together, so that their L2 norm is at most `max_norm`.

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
        If the norm is of a wrong kind or value.

    Notes
    -----
    Same as `optax.clip_by_global_norm`. If one element is NaN, all results are. The norm is correct even if its square
    would overflow.

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
        arrays = selected.arrays()
        if not arrays:
            return updates, state
        norm = global_norm(arrays)

        def clip(update: Any, norm: Any, max_norm: Any) -> Any:
            xp = namespace(update, norm, *filter(is_array, [max_norm]))
            unclipped = norm < max_norm
            return xp.where(unclipped, update, update / xp.where(unclipped, 1.0, norm) * max_norm)

        return selected.replaced([in_working_dtype(name, clip, [x], norm, max_norm) for x in arrays]), state

    return GradientTransformation(lambda params: (), update)


def adaptive_gradient_clipping(
    clipping: Any,
    *,
    eps: Any = 1e-3,
    unit_axis: int | None = None,
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
    unit_axis : int, optional
        The axis of the units; norms are over all other axes. By default, the first axis of PyTorch's arrays, whose
        layers are [out, in, ...]. For other arrays as in Optax: the last axis, but if there are three axes, norms are
        over the first one. An array with only one axis longer than 1 is one unit.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`. Brock et al. exclude the last layer.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If an option is of a wrong kind or value, a pattern matches nothing, or `update` gets no `params`.

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
    unit_axis = None if unit_axis is None else check_argument(name, _AXIS, "unit_axis", unit_axis)

    def clip(update: Any, param: Any, clipping: Any, eps: Any) -> Any:
        xp = namespace(update, param, *filter(is_array, [clipping, eps]))
        axes = _axes_of_a_unit(name, update, unit_axis)
        norm, param_norm = (xp.reshape(safe_norm(x, axis=axes), _keepdims_shape(x, axes)) for x in (update, param))
        max_norm = clipping * xp.where(param_norm < eps, eps, param_norm)
        return xp.where(norm < max_norm, update, update * (max_norm / xp.where(norm == 0, 1.0, norm)))

    return leafwise(name, clip, Patterns.of(name, match, exclude), clipping, eps)


def _axes_of_a_unit(name: str, x: Any, unit_axis: int | None) -> tuple[int, ...]:
    """Return the axes over which the norm of a unit is taken."""
    axes = tuple(range(x.ndim))
    if sum(size != 1 for size in x.shape) <= 1:
        return axes
    if unit_axis is None:
        backend = backend_of(x)
        assert backend is not None
        if not backend.units_first:
            return axes[:1] if x.ndim == 3 else axes[:-1]
        unit_axis = 0
    return axes[: (at := _checked_axis(name, unit_axis, x))] + axes[at + 1 :]


def _keepdims_shape(x: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of `x` with `axes` reduced to size 1."""
    return tuple(1 if i in axes else size for i, size in enumerate(x.shape))


def _checked_axis(name: str, axis: int, x: Any) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{name}: `unit_axis` must be an axis of each array, got {axis} for shape {tuple(x.shape)}. "
            "Leave some out by `exclude`."
        )
    return axis % x.ndim


def centralize(
    *, unit_axis: int = 0, match: PatternsLike = None, exclude: PatternsLike = None
) -> GradientTransformation:
    """Subtract its mean from each unit's update. Arrays with fewer than two axes are returned unchanged.

    Parameters
    ----------
    unit_axis : int, default 0
        The axis of the units; means are over all other axes. Use 0 for PyTorch's layers, [out, in, ...], and -1 for
        those of Flax and Keras, [..., in, out].
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If an option is of a wrong kind or value, or a pattern matches nothing.

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
    unit_axis = check_argument("centralize", _AXIS, "unit_axis", unit_axis)

    def center(update: Any) -> Any:
        if update.ndim < 2 or 0 in update.shape:
            return update
        axis = _checked_axis("centralize", unit_axis, update)
        axes = tuple(i for i in range(update.ndim) if i != axis)
        return update - namespace(update).mean(update, axis=axes, keepdims=True)

    return leafwise("centralize", center, Patterns.of("centralize", match, exclude), takes_params=False)
