"""Norms of weights or activations: how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from .._arrays.numerics import abs_, broadcasts, count, ratio, safe_norm, square
from .._core.checks import FINITE, Positive, UnitInterval
from .._core.types import Array
from ..backends import common_backend, is_array_beside, namespace
from .decorator import Shared, penalty

__all__ = ["l1", "l2", "elastic_net", "huber", "group_lasso"]


@penalty(terms="elements", reduction="sum", complex=True)
def l1(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""L1 norm: the sum of magnitudes, which drives elements to zero.

    Each term is :math:`|x|`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of `x`
        Real, float32 at least.

    Notes
    -----
    Slope 0 at ``x == 0`` on every backend.

    References
    ----------
    .. [1] Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 58(1), 1996.

    Examples
    --------
    >>> float(l1(np.asarray([1.0, -2.0, 3.0])))
    6.0
    """
    return abs_(x)


def _requires_center(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """`center` is None, "mean", a number, or an array that `x` can be moved by."""
    x, center = arrays[0], options.get("center")
    if center is None:
        return
    if isinstance(center, str):
        if center != "mean":
            raise ValueError(f"l2: `center` must be 'mean', a number or an array, got {center!r}. Did you mean 'mean'?")
        return
    if not is_array_beside(center, x):
        l2.spec.check("center", center, FINITE)  # type: ignore[attr-defined]
        return
    backend = common_backend("l2", ["x", "center"], [x, center])
    if backend.dtype(center.dtype).kind == "complex" and backend.dtype(x.dtype).kind == "real":
        raise TypeError(f"l2: `center` must be real for a real `x`, got {center.dtype}. Take its real part.")
    shape, to = tuple(center.shape), tuple(x.shape)
    if not broadcasts(shape, to):
        raise ValueError(f"l2: `center` must broadcast to `x`, got {shape} for {to}. Reshape it.")


@penalty(terms="elements", reduction="sum", complex=True, extras=("kept",), requires=_requires_center)
def l2(x: Array, /, *, center: Any = None, clip: Positive | None = None, **shared: Unpack[Shared]) -> Array:
    r"""Squared L2 norm: the sum of squares, by default around zero.

    Each term is :math:`|c|^2` with :math:`c = x - \text{center}`, clipped to ``[-clip, clip]``.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    center : "mean", number or array, optional
        What to pull toward: the mean of the kept elements of `x`, a number, or an array that broadcasts to `x`, such as
        earlier weights (L2-SP [1]_).
    clip : float, optional
        Magnitude > 0 beyond which a term is constant, so that outliers add no gradient.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of `x`
        Real, float32 at least.

    Notes
    -----
    No factor 1/2. At the clip's edge the slope is that of the inside. "mean" is differentiated through.

    References
    ----------
    .. [1] Li, Grandvalet & Davoine, "Explicit inductive bias for transfer learning with convolutional networks",
       ICML 2018.

    Examples
    --------
    >>> x = np.asarray([1.0, -2.0, 3.0])
    >>> float(l2(x))
    14.0
    >>> float(l2(x, center=1.0, clip=2.0))
    8.0
    """
    kept: Any = shared.get("kept")
    if center is not None:
        x = x - _center(x, center, kept)
        if kept is not None:  # what is masked out in `x` may be NaN in `center`
            x = namespace(x, kept).where(kept, x, 0.0)
    if clip is None:
        return square(x)
    xp = namespace(x)
    outside = abs_(x) > clip
    inside = square(xp.where(outside, 0.0, x))  # of x, not |x|: a magnitude has no second derivative at 0
    return xp.where(outside, clip * clip, inside)


def _center(x: Any, center: Any, kept: Any) -> Any:
    if isinstance(center, str):
        xp = namespace(x)
        return xp.mean(x) if kept is None else ratio(xp.sum(x), count(kept, x.dtype))
    if not is_array_beside(center, x):
        return float(center)  # NumPy's scalars would widen what they meet
    return center if center.dtype == x.dtype else namespace(x, center).astype(center, x.dtype)


@penalty(terms="elements", reduction="sum", complex=True)
def elastic_net(x: Array, /, *, l1_ratio: UnitInterval = 0.5, **shared: Unpack[Shared]) -> Array:
    r"""Convex mix of the L1 norm and the squared L2 norm.

    Each term is :math:`\alpha |x| + (1 - \alpha) |x|^2` with :math:`\alpha` = `l1_ratio`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    l1_ratio : float, default 0.5
        Share of the L1 part, in [0, 1].

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of `x`
        Real, float32 at least.

    Notes
    -----
    Slope 0 at ``x == 0``. No factor 1/2 on the squared part.

    References
    ----------
    .. [1] Zou & Hastie, "Regularization and variable selection via the elastic net", JRSS B 67(2), 2005.

    Examples
    --------
    >>> float(elastic_net(np.asarray([1.0, -2.0, 3.0])))
    10.0
    """
    return l1_ratio * abs_(x) + (1 - l1_ratio) * square(x)


@penalty(terms="elements", reduction="sum", complex=True)
def huber(x: Array, /, *, delta: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Huber's function: a square near zero, linear beyond. Smooth L1.

    Each term is :math:`x^2 / 2` where :math:`|x| \le \delta`, else :math:`\delta (|x| - \delta / 2)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    delta : float, default 1.0
        Where the square ends, > 0, in units of `x`.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of `x`
        Real, float32 at least.

    Notes
    -----
    Factor 1/2 on the square, as in Huber's paper and optax.huber_loss; torch's smooth_l1_loss is this over `delta`.

    References
    ----------
    .. [1] Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35(1), 1964.

    Examples
    --------
    >>> float(huber(np.asarray([1.0, -2.0, 3.0])))
    4.5
    """
    xp = namespace(x)
    magnitude = abs_(x)
    outside = magnitude > delta
    inside = square(xp.where(outside, 0.0, x))  # of x, not |x|: a magnitude has no second derivative at 0
    return xp.where(outside, delta * (magnitude - delta / 2), 0.5 * inside)


@penalty(terms="rows", reduction="sum", complex=True)
def group_lasso(x: Array, /, *, axis: int = -1, **shared: Unpack[Shared]) -> Array:
    r"""Group lasso: the L2 norms of groups, which drives whole groups to zero.

    Each term is :math:`\sqrt{k}\,\|x_g\|_2` for a group of :math:`k` elements that lies along `axis`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    axis : int, default -1
        The axis along which a group lies.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of `x` without `axis`
        Real, float32 at least.

    Notes
    -----
    Gradient 0, of every order, at a group of zeros.

    References
    ----------
    .. [1] Yuan & Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68(1), 2006.

    Examples
    --------
    >>> round(float(group_lasso(np.asarray([[3.0, 4.0], [0.0, 0.0]]))), 4)
    7.0711
    """
    return x.shape[axis] ** 0.5 * safe_norm(x, axis=axis)
