"""Penalties that measure how many elements are not 0: L0 with a slope, and ratios of norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import abs_, array_backend, broadcasts, safe_sqrt, square, stop_gradient, unit
from .._core.checks import NON_NEGATIVE, AxisOrAxes, Positive
from .._core.types import Array
from ..backends import common_backend, is_array_beside, namespace
from .decorator import Shared, penalty
from .spec import Shape

__all__ = ["l0", "hoyer"]


def _check_threshold(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Check that `threshold` is a number >= 0, or an array that broadcasts to `x`."""
    x, threshold = arrays[0], options.get("threshold", 0.0)
    if not is_array_beside(threshold, x):
        l0.spec.check("threshold", threshold, NON_NEGATIVE)  # type: ignore[attr-defined]
        return
    backend = common_backend("l0", ["x", "threshold"], [x, threshold])
    if backend.dtype(threshold.dtype).kind != "real":
        raise TypeError(f"l0: `threshold` must be real floating point, got {threshold.dtype}. Cast it first.")
    shape, to = tuple(threshold.shape), tuple(x.shape)
    if not broadcasts(shape, to):
        raise ValueError(f"l0: `threshold` must broadcast to `x`, got {shape} for {to}. Reshape it.")


@penalty(terms="elements", reduction="sum", check_arrays=_check_threshold)
def l0(
    x: Array,
    /,
    *,
    kind: Literal["step", "tanh", "hard_concrete"] = "step",
    threshold: Any = 0.0,
    through: Literal["threshold", "both"] = "threshold",
    bandwidth: Positive = 0.001,
    scale: Positive = 4.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""Count the elements that are not zero, with a slope to learn from.

    Each term is 1 if :math:`|x| > \theta`, else 0, for "step" with :math:`\theta` = `threshold`;
    :math:`\tanh(c |x|)` for "tanh" with :math:`c` = `scale`; and :math:`1 / (1 + e^{\beta \log(-\gamma / \zeta) - x})`
    for "hard_concrete": the probability that the gate with :math:`\log \alpha = x` is not 0.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point: activations or weights, or the :math:`\log \alpha` of gates for "hard_concrete".
    kind : {"step", "tanh", "hard_concrete"}, default "step"
        What to count with.
    threshold : number or array, default 0.0
        For "step", the magnitude up to which an element counts as 0, >= 0. An array must broadcast to `x`: one learned
        threshold for each feature, for example.
    through : {"threshold", "both"}, default "threshold"
        For "step", what gets a gradient: only a `threshold` that is an array, as published [1]_, or `x` too.
    bandwidth : float, default 0.001
        For "step", the width :math:`\epsilon` of the window around the threshold in which there is a slope, > 0.
    scale : float, default 4.0
        For "tanh", the slope at 0, > 0.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `threshold` does not broadcast to `x`, or an option is out of range.

    Notes
    -----
    A step has no slope. "step" has a straight-through one: :math:`-1/\epsilon` with respect to the threshold if
    :math:`|\,|x| - \theta\,| < \epsilon / 2`, else 0, and with ``through="both"`` its negative with respect to
    :math:`|x|`. This is not the derivative of the value. Second derivatives are 0. By default, if `threshold` is a
    number, nothing gets a gradient.

    "step" counts magnitudes. Pass activations after their ReLU: a negative one before it would count.

    "tanh" has slope 0 at ``x == 0``. "hard_concrete" has :math:`\beta = 2/3, \gamma = -0.1, \zeta = 1.1`, as
    published [3]_. To hold the count at a target instead of lowering it, penalize ``(l0(x) - target)**2``.

    References
    ----------
    .. [1] Rajamanoharan et al., "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders",
       arXiv:2407.14435, 2024.
    .. [2] Conerly et al., "Circuits updates: dictionary learning optimization techniques", Transformer Circuits Thread,
       2025, for "tanh".
    .. [3] Louizos, Welling & Kingma, "Learning sparse neural networks through L0 regularization", ICLR 2018.

    Examples
    --------
    >>> x = np.asarray([0.0, 0.25, -3.0])
    >>> float(l0(x)), float(l0(x, threshold=0.5))
    (2.0, 1.0)
    """
    xp = namespace(x)
    if kind == "tanh":
        scaled = scale * abs_(x)
        is_one = scaled > 20  # within rounding; the derivative of tanh may overflow there
        return xp.where(is_one, 1.0, xp.tanh(xp.where(is_one, 0.0, scaled)))
    if kind == "hard_concrete":
        return _sigmoid(x - 2 / 3 * math.log(0.1 / 1.1))
    if is_array_beside(threshold, x):
        xp = namespace(x, threshold)
        threshold = threshold if threshold.dtype == x.dtype else xp.astype(threshold, x.dtype)
    else:
        threshold = float(threshold)  # a NumPy scalar would widen the dtype of `x`
    magnitude = abs_(x)
    distance = ((magnitude if through == "both" else stop_gradient(magnitude)) - threshold) / bandwidth
    is_near = xp.abs(distance) < 0.5
    slope = xp.where(is_near, distance, 0.0)
    # NaN stays NaN, and the result depends on `x`, with slope 0
    step = xp.where(magnitude > threshold, 1.0, xp.where(magnitude <= threshold, 0.0, magnitude))
    return step + (slope - stop_gradient(slope))


def _sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x), with digits and derivatives on both sides."""
    xp = namespace(x)
    is_negative = x < 0
    small, large = xp.exp(xp.where(is_negative, x, 0.0)), xp.exp(xp.where(is_negative, 0.0, -x))
    return xp.where(is_negative, small / (1 + small), 1 / (1 + large))


def _hoyer_samples(options: Mapping[str, Any]) -> Shape | None:
    return "elements" if options["axis"] is None else None


@penalty(terms="rows", reduction="sum", complex=True, extras=("weights",), samples=_hoyer_samples)
def hoyer(x: Array, /, *, axis: AxisOrAxes | None = None, squared: bool = True, **shared: Unpack[Shared]) -> Array:
    r"""Ratio of the L1 norm to the L2 norm: how many elements share the size, whatever the size is.

    Each term is :math:`\|x\|_1^2 / \|x\|_2^2`, or :math:`\|x\|_1 / \|x\|_2` if `squared` is False.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    axis : int, tuple of int or None, default None
        The axis along which a row lies, or several axes. None is one ratio over all of `x`: `where` and `weights` are
        then of the elements, and otherwise of the rows.
    squared : bool, default True
        Square the ratio. It is then between 1, for a single nonzero element, and the number of elements.

    Returns
    -------
    array, shape (), or that of `x` without `axis` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or an option has the wrong type.
    ValueError
        If `x` has no such axis.

    Notes
    -----
    If all elements are 0, the ratio is 0, with gradients of every order 0. Otherwise the slope at ``x == 0`` is 0, but
    close to it, it is that of `l1`. The ratio does not depend on the scale of `x`, so nothing gets smaller but the
    number of elements that matter.

    Weights :math:`w` of elements multiply the terms of both sums. The gradient with respect to a weight of 0 is 0.

    References
    ----------
    .. [1] Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5, 2004.
    .. [2] Yang, Wen & Li, "DeepHoyer: learning sparser neural network with differentiable scale-invariant sparsity
       measures", ICLR 2020, for the square.

    Examples
    --------
    >>> round(float(hoyer(np.asarray([2.0, -2.0, 2.0, 0.0]))), 6)
    3.0
    """
    weights: Any = shared.get("weights") if axis is None else None
    root: Any = None if weights is None else safe_sqrt(weights)
    if x.ndim == 0:
        xp = namespace(x)
        x, root = xp.reshape(x, (1,)), None if root is None else xp.reshape(root, (1,))
    along = tuple(range(x.ndim)) if axis is None else axis
    vector = unit(x if root is None else x * root, axis=along)
    magnitude = abs_(vector) if root is None else abs_(vector) * root
    total = array_backend(magnitude).xp.sum(magnitude, axis=along)
    return square(total) if squared else total
