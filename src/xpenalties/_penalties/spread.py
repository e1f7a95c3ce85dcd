"""Penalties on samples that lie too close together, or are not distributed like a normal distribution."""

from __future__ import annotations

import math
from typing import Annotated, Any, Unpack

from .._arrays.numerics import (
    array_backend,
    count_true,
    gram_matrix,
    identity,
    matmul,
    namespace_of,
    safe_divide,
    safe_norm,
    square,
    stop_gradient,
    unit,
)
from .._core.checks import AtLeast, NonNegative, Positive, PositiveInteger
from .._core.types import Array
from ..backends import Backend, namespace
from ..backends._fast_path import guards_are_skipped
from .decorator import Shared, penalty
from .log_probabilities import nan_if_small
from .sample_means import mean_of_samples, samples_check, weights_of_pairs

__all__ = ["koleo", "uniformity", "sigreg"]

_BLOCK = 2**22  # elements of the differences that are in memory at once


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("koleo", "x", "A single sample has no neighbor"),
    samples="rows",
)
def koleo(x: Array, /, *, floor: NonNegative = 0.0, **shared: Unpack[Shared]) -> Array:
    r"""Nearness of samples to their nearest neighbors on the sphere: low if they spread evenly (KoLeo).

    :math:`-\frac{1}{n} \sum_i \log \min_{j \ne i} \|u_i - u_j\|`, where :math:`u_i` is row i divided by its L2 norm.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point; n >= 2. An empty batch, n = 0, has the value 0.
    floor : float, default 0.0
        Distances below it count as `floor`, with gradient 0; >= 0. With 0, equal rows have the value +inf.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or `floor` is not a number.
    ValueError
        If `x` does not have two axes or has a single sample, or `floor` is below 0.
    NotImplementedError
        If `x` is a Dask array of several chunks or with weights, or a part of an array inside `over`.

    Notes
    -----
    Equal rows have no direction to move apart, so their gradient is 0. Which row is nearest is a constant. If several
    are equally near, the gradient is that of one of them. A row of zeros stays zero, with gradient 0.

    Distances are those of differences, so they are exact if rows are close. On a CPU, a product of matrices finds the
    nearest rows. If some are close, and on a GPU, that takes n x n x d subtractions.

    Weights :math:`w` replace the mean by :math:`\sum_i w_i (\cdot) / \sum_i w_i`. A sample with weight 0 is nobody's
    neighbor. If one sample is left, the value is 0.

    References
    ----------
    .. [1] Sablayrolles, Douze, Schmid & Jegou, "Spreading vectors for similarity search", ICLR 2019.
    .. [2] Oquab et al., "DINOv2: learning robust visual features without supervision", TMLR 2024.

    Examples
    --------
    >>> float(koleo(np.asarray([[2.0, 0.0], [-3.0, 0.0]])))  # -log(2)
    -0.6931471805599453
    >>> float(koleo(np.asarray([[1.0, 0.0], [2.0, 0.0]]), floor=1.0))
    0.0
    """
    weights: Any = shared.get("weights")
    backend = array_backend(x)
    if backend.lazy or backend.in_parts:
        kind = (
            "a Dask array of several chunks or with weights" if backend.lazy else "a part of an array, as inside `over`"
        )
        raise NotImplementedError(
            f"koleo: `x` must not be {kind}, because nearest neighbors may be in other parts. Put the parts together "
            "first, or use uniformity."
        )
    x = unit(x, axis=-1)
    xp = namespace_of(x, weights)
    neighbors, similarity = _nearest(x, weights)
    distances = safe_norm(x - xp.take(x, neighbors, axis=0), axis=-1)
    if similarity is not None:
        distances = nan_if_small(distances, 1 - similarity)
    # an array, not a number: torch.compile would compile again for each number
    least = xp.ones_like(distances) * floor
    distances = xp.where(distances <= least, least, distances)  # in this order, NaN stays NaN
    is_zero = distances == 0
    terms = 0.0 - xp.log(xp.where(is_zero, 1.0, distances))
    if weights is None:
        return xp.mean(xp.where(is_zero, math.inf, terms))
    terms = xp.where(is_zero & (weights != 0), math.inf, terms)
    has_two = count_true(weights != 0, x.dtype) > 1
    return xp.where(has_two, safe_divide(xp.sum(weights * terms), xp.sum(weights)), 0.0)


def _nearest(x: Any, weights: Any) -> tuple[Any, Any]:
    """Return the index of the nearest other unit row for each one. On the fast path, also return their products.

    A product is rounded by eps, so it cannot tell apart rows that are closer than the root of that.
    """
    x = stop_gradient(x)
    backend = array_backend(x)
    is_out = None if weights is None else stop_gradient(weights) == 0
    xp = namespace_of(x, is_out)
    if guards_are_skipped():
        products = gram_matrix(x, (0,), (1,))
        products = products - 4 * identity(products)
        products = products if is_out is None else xp.where(is_out, -4.0, products)
        return xp.argmax(products, axis=-1), xp.max(products, axis=-1)
    n, d = x.shape
    places = xp.arange(n, device=backend.device(x))
    blocked = not backend.tracing.in_trace() and type(n) is int  # a compiler does not store the differences
    step = max(1, _BLOCK // (n * d)) if blocked else n
    found = []
    for start in range(0, n, step) if blocked else (0,):
        block = slice(start, min(start + step, n)) if blocked else slice(None)
        differences = xp.expand_dims(x[block, :], axis=1) - xp.expand_dims(x, axis=0)
        distances = xp.sum(square(differences), axis=-1)
        excluded = xp.expand_dims(places[block], axis=1) == places
        excluded = excluded if is_out is None else excluded | is_out
        found.append(xp.argmin(xp.where(excluded, math.inf, distances), axis=-1))
    return found[0] if len(found) == 1 else xp.concat(found), None


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("uniformity", "x", "A single sample has no neighbor"),
    samples="rows",
)
def uniformity(x: Array, /, *, t: Positive = 2.0, **shared: Unpack[Shared]) -> Array:
    r"""Uneven spread of samples over the sphere: the log of a mean Gaussian kernel of all pairs.

    :math:`\log \frac{1}{n (n - 1)} \sum_{i \ne j} \exp(-t \|u_i - u_j\|^2)`, where :math:`u_i` is row i divided by its
    L2 norm.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point; n >= 2. An empty batch, n = 0, has the value 0.
    t : float, default 2.0
        Factor of the squared distances, > 0. The larger, the more do close pairs count.

    Returns
    -------
    array, shape ()
        In float32 or wider, in [-4 t, 0].

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or `t` is not a number.
    ValueError
        If `x` does not have two axes or has a single sample, or `t` is not > 0.

    Notes
    -----
    Natural logarithm. 0 if all rows are equal. A row of zeros stays zero, with gradient 0. The value is finite for any
    `t`, also if all pairs are far apart. The n x n matrix of all pairs is in memory.

    Weights :math:`w` replace the mean over pairs by
    :math:`\sum_{i \ne j} w_i w_j (\cdot) / \sum_{i \ne j} w_i w_j`. If one sample is left, the value is 0.

    References
    ----------
    .. [1] Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the
       hypersphere", ICML 2020.

    Examples
    --------
    >>> float(uniformity(np.asarray([[1.0, 0.0], [0.0, 3.0]])))  # a squared distance of 2
    -4.0
    >>> float(uniformity(np.asarray([[1.0, 0.0], [3.0, 0.0]])))
    0.0
    """
    weights: Any = shared.get("weights")
    x = unit(x, axis=-1)
    products = gram_matrix(x, (0,), (1,))
    xp = namespace_of(products, weights)
    eye = identity(products)
    squares = xp.sum(products * eye, axis=-1)  # 1, or 0 for a row of zeros
    exponents = t * (2 * products - xp.expand_dims(squares, axis=0) - xp.expand_dims(squares, axis=1))
    pairs = 1 - eye if weights is None else (1 - eye) * weights_of_pairs(weights)
    largest = stop_gradient(xp.max(xp.where(pairs == 0, -math.inf, exponents)))
    largest = xp.where(xp.isfinite(largest), largest, 0.0)
    kernel = xp.exp(xp.where(exponents > largest, 0.0, exponents - largest))  # only pairs that do not count are larger
    total, count = xp.sum(pairs * kernel), xp.sum(pairs)
    none_left = count == 0
    total, count = xp.where(none_left, 1.0, total), xp.where(none_left, 1.0, count)
    return xp.log(total / count) + largest


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("sigreg", "x"),
    samples="rows",
)
def sigreg(
    x: Array,
    /,
    *,
    slices: PositiveInteger = 256,
    knots: Annotated[int, AtLeast(2)] | None = 17,
    rng: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""Distance of samples from a standard normal distribution, along random directions (SIGReg of LeJEPA).

    The mean over `slices` random unit vectors :math:`v` of the Epps-Pulley statistic [2]_ of :math:`z_k = x_k^T v`:
    :math:`n \int |\frac{1}{n} \sum_k e^{i s z_k} - e^{-s^2 / 2}|^2 e^{-s^2 / 2} ds`, from -3 to 3 or, with
    ``knots=None``, from -inf to inf.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point. An empty batch, n = 0, has the value 0.
    slices : int, default 256
        Number of directions, >= 1.
    knots : int or None, default 17
        Number of points in [0, 3] at which the trapezoidal rule takes the integrand, >= 2. None computes the whole
        integral exactly [3]_, from all pairs of samples.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `x` does not have two axes, or an option is out of range.
    NotImplementedError
        If `knots` is None and `x` is a part of an array inside `over`.

    Notes
    -----
    The value does not depend on the number of samples if these are normal, but it grows with n if they are not. The
    limits and knots of the integral are LeJEPA's. They leave out little of the whole integral: 0.7 %
    for 40 normal samples.

    ``knots=None`` takes n x n exponentials for each slice, a few slices at a time; eager PyTorch stores all of them for
    the gradient. The value is a difference of means: near the normal distribution, its rounding error is up to about
    1e-7 n in float32 and 2e-16 n in float64, of either sign. The value of normal samples is about 1.

    Weights :math:`w` replace the mean over samples by :math:`\sum_k w_k (\cdot) / \sum_k w_k`, and n by
    :math:`(\sum w)^2 / \sum w^2`, so that only their ratios matter.

    References
    ----------
    .. [1] Balestriero & LeCun, "LeJEPA: provable and scalable self-supervised learning without the heuristics",
       arXiv:2511.08544, 2025.
    .. [2] Epps & Pulley, "A test for normality based on the empirical characteristic function", Biometrika 70(3), 1983.
    .. [3] Baringhaus & Henze, "A consistent test for multivariate normality based on the empirical characteristic
       function", Metrika 35, 1988.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(1000, 4))
    >>> rng = np.random.default_rng(1)
    >>> bool(sigreg(x, rng=rng) < 1 < 100 < sigreg(x + 1, rng=rng))
    True
    """
    weights: Any = shared.get("weights")
    backend = array_backend(x)
    if knots is None and backend.in_parts:
        raise NotImplementedError(
            "sigreg: `x` must not be a part of an array, as inside `over`, with knots=None, because the integral takes "
            "all pairs of samples. Put the parts together first, or pass a number of knots."
        )
    directions = unit(backend.random.normal("sigreg", rng, (x.shape[1], slices), x), axis=0)
    z = backend.beside(matmul(x, directions), x)
    xp = namespace_of(z, weights)
    column, count = None, backend.number(x.shape[0], x)
    if weights is not None:
        column = xp.expand_dims(weights, axis=-1)
        count = safe_divide(square(xp.sum(weights)), xp.sum(square(weights)))
    if knots is None:
        return count * _whole_integral(backend, z, column)
    step = 3 / (knots - 1)
    statistic: Any = 0.0
    for k in range(1, knots):  # both characteristic functions are 1 at 0
        s = k * step
        expected = math.exp(-0.5 * s * s)
        waves = xp.cos(s * z), xp.sin(s * z)
        real, imaginary = (mean_of_samples(wave, column, keepdims=False) for wave in waves)
        width = step if k == knots - 1 else 2 * step  # of s and of -s
        statistic = statistic + width * expected * (square(real - expected) + square(imaginary))
    return count * namespace(statistic).mean(statistic)


def _whole_integral(backend: Backend, z: Any, column: Any) -> Any:
    """Return the integral from -inf to inf, without the factor n, as the mean over the columns of `z`.

    It is a mean over samples of differences, not a difference of means: their rounding errors then cancel, too.
    """
    z, column = backend.uncut(z, (0,)), None if column is None else backend.uncut(column, (0,))
    n, slices = z.shape
    whole = backend.tracing.in_trace() or backend.lazy or backend.cut or type(n) is not int
    step = slices if whole else max(1, _BLOCK // (n * n))  # a compiler does not store the pairs
    blocks = (z,) if step >= slices else [z[:, i : min(i + step, slices)] for i in range(0, slices, step)]
    return sum(_sum_of_integrals(block, column) for block in blocks) / slices


def _sum_of_integrals(z: Any, column: Any) -> Any:
    """Return the sum of the integrals of the columns of `z`."""
    xp = namespace_of(z, column)
    kernel = xp.exp(-0.5 * square(xp.expand_dims(z, axis=1) - xp.expand_dims(z, axis=0)))
    others = None if column is None else xp.expand_dims(column, axis=0)
    of_samples = mean_of_samples(kernel, others, axis=1, keepdims=False)
    difference = of_samples - math.sqrt(2) * xp.exp(-0.25 * square(z)) + 1 / math.sqrt(3)
    return math.sqrt(2 * math.pi) * xp.sum(mean_of_samples(difference, column, keepdims=False))
