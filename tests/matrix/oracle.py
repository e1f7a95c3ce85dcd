"""The terms of every penalty in float64, written from the definitions with SciPy and plain loops.

Nothing here uses the package or its formulas. There are sums over pairs instead of matrix identities, probabilities
instead of logarithms, and an n x n Gram matrix where the package avoids one.

If a penalty treats something that depends on its first array as a constant, its oracle has an option `at`: the first
array at which to take the constant. By default, that is the array that is passed.
"""

from __future__ import annotations

import inspect

import numpy as np
from scipy import integrate, optimize, special, stats
from scipy.spatial import distance


def has_constants(definition):
    """Return True if a penalty treats something that depends on its first array as a constant."""
    return "at" in inspect.signature(definition).parameters


def rows(fn, *arrays, axis=-1):
    """Return `fn` of each row along `axis`, computed one after another."""
    moved = [np.moveaxis(x, axis, -1) for x in arrays]
    shape = moved[0].shape[:-1]
    out = [fn(*[x[index] for x in moved]) for index in np.ndindex(shape)]
    return np.asarray(out, dtype=np.float64).reshape(shape)


def probabilities(log_p, temperature=1.0, from_logits=False):
    if from_logits or temperature != 1.0:
        return special.softmax(log_p / temperature)
    return np.exp(log_p)


def l1(x):
    return np.hypot(x.real, x.imag)


def l2(x, center=None, clip=None):
    shift = 0.0 if center is None else x.mean() if isinstance(center, str) else center
    size = l1(x - shift)
    return np.minimum(size, np.inf if clip is None else clip) ** 2


def elastic_net(x, l1_ratio=0.5):
    return l1_ratio * l1(x) + (1 - l1_ratio) * l1(x) ** 2


def huber(x, delta=1.0):
    return special.huber(delta, l1(x))


def sparse_group_lasso(x, l1_ratio=0.5, axis=-1):
    axes = axis if isinstance(axis, tuple) else (axis,)
    return (1 - l1_ratio) * group_lasso(x, axis) + l1_ratio * np.abs(x).sum(axis=axes)


def group_lasso(x, axis=-1):
    axes = (axis,) if isinstance(axis, int) else axis
    size = np.prod([x.shape[i] for i in axes])
    return np.sqrt(size * np.sum(l1(x) ** 2, axis=axes))


def l0(x, kind="step", threshold=0.0, through="threshold", bandwidth=0.001, scale=4.0):
    if kind == "step":
        return np.where(np.abs(x) > threshold, 1.0, 0.0)
    return np.tanh(scale * np.abs(x)) if kind == "tanh" else special.expit(x + 2 / 3 * np.log(11))


def _from_slope(x, slope, joints):
    """Return the integrals of a slope from 0 to each magnitude."""
    sizes = l1(x)
    values = [integrate.quad(slope, 0, size, points=[j for j in joints if j < size] or None)[0] for size in sizes.flat]
    return np.asarray(values).reshape(sizes.shape)


def mcp(x, threshold=1.0):
    return _from_slope(x, lambda u: max(0.0, 1 - u / threshold), [threshold])


def scad(x, knee=1.0, a=3.7):
    return _from_slope(x, lambda u: min(1.0, max(0.0, a * knee - u) / ((a - 1) * knee)), [knee, a * knee])


def log_sum(x, eps=1.0):
    return np.log((l1(x) + eps) / eps)


def lp(x, p=0.5):
    return np.exp(p * np.log(l1(x)))


def hoyer(x, axis=None, squared=True, weights=1.0):
    size = np.sum(weights * l1(x), axis=axis) / np.sqrt(np.sum(weights * l1(x) ** 2, axis=axis))
    return size**2 if squared else size


def log_cosh(x, scale=1.0):
    return scale**2 * np.log(np.cosh(x / scale))


def charbonnier(x, eps=1.0):
    return np.hypot(x, eps) - eps


def spectral_norm(x):
    return np.linalg.norm(x, ord=2, axis=(-2, -1)) ** 2


def nuclear_norm(x):
    return np.linalg.norm(x, ord="nuc", axis=(-2, -1))


def total_variation(x, axis=-1, order=1, mode="anisotropic"):
    size = np.zeros(x.shape)
    for one in (axis,) if isinstance(axis, int) else axis:
        difference = np.diff(x, n=order, axis=one)
        padded = np.zeros(x.shape, x.dtype)
        # NaN stands for an element that is masked, and so is its difference
        padded[tuple(map(slice, difference.shape))] = np.where(np.isnan(difference), 0.0, difference)
        size += np.abs(padded) ** (1 if mode == "anisotropic" else 2)
    return np.sqrt(size) if mode == "isotropic" else size


def _kl(p, q):
    return special.rel_entr(p, q).sum()


def kl_divergence(log_p, log_q, direction="forward", skew=0.0, temperature=1.0, axis=-1, from_logits=False):
    def row(a, b):
        p, q = probabilities(a, temperature, from_logits), probabilities(b, temperature, from_logits)
        forward, reverse = _kl(p, skew * p + (1 - skew) * q), _kl(q, skew * q + (1 - skew) * p)
        return {"forward": forward, "reverse": reverse, "symmetric": (forward + reverse) / 2}[direction]

    return rows(row, log_p, log_q, axis=axis)


def js_divergence(log_p, log_q, beta=0.5, temperature=1.0, axis=-1, from_logits=False):
    def row(a, b):
        p, q = probabilities(a, temperature, from_logits), probabilities(b, temperature, from_logits)
        m = beta * p + (1 - beta) * q
        return beta * (_kl(p, m) if beta else 0.0) + (1 - beta) * (_kl(q, m) if beta < 1 else 0.0)

    return rows(row, log_p, log_q, axis=axis)


def f_divergence(log_p, log_q, kind="tv", alpha=0.5, temperature=1.0, axis=-1, from_logits=False):
    def row(a, b):
        p, q = (probabilities(x, temperature, from_logits or kind == "renyi") for x in (a, b))
        if kind == "tv":
            return distance.cityblock(p, q) / 2
        if kind == "hellinger":
            return distance.euclidean(np.sqrt(p), np.sqrt(q)) ** 2 / 2
        if kind == "chi2":
            return np.sum((p - q) ** 2 / q)
        if kind == "renyi":
            return _kl(p, q) if alpha == 1 else np.log(np.sum(p**alpha * q ** (1 - alpha))) / (alpha - 1)
        if alpha in (0, 1):
            return special.kl_div(*((p, q) if alpha else (q, p))).sum()
        return np.sum(p**alpha * q ** (1 - alpha) - alpha * p - (1 - alpha) * q) / (alpha * (alpha - 1))

    return rows(row, log_p, log_q, axis=axis)


def _entropy(p, kind, alpha):
    if kind == "shannon" or alpha == 1:
        return special.entr(p).sum()
    total = np.sum(p**alpha)
    return (p.sum() - total) / (alpha - 1) if kind == "tsallis" else np.log(total) / (1 - alpha)


def entropy(
    log_p,
    mode="penalty",
    kind="shannon",
    alpha=2.0,
    normalize=False,
    temperature=1.0,
    axis=-1,
    from_logits=False,
):
    def row(a):
        p = probabilities(a, temperature, from_logits or kind == "renyi")
        h = _entropy(p, kind, alpha)
        if normalize:
            h = h / _entropy(np.full(len(p), 1 / len(p)), kind, alpha)
        return h if mode == "penalty" else -h

    return rows(row, log_p, axis=axis)


def topk_kl_divergence(log_p, log_q, direction="forward", tail="bucket", axis=-1):
    if direction != "forward":
        there, back = (topk_kl_divergence(a, b, "forward", tail, axis) for a, b in ((log_p, log_q), (log_q, log_p)))
        return back if direction == "reverse" else (there + back) / 2

    def row(a, b):
        p, q = np.exp(a), np.exp(b)
        if tail == "bucket":
            p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
        if tail == "renormalize":
            p, q = p / p.sum(), q / q.sum()
        return _kl(p, q) + (q.sum() - p.sum() if tail == "included" else 0)

    return rows(row, log_p, log_q, axis=axis)


def topk_js_divergence(log_p, log_q, beta=0.5, tail="bucket", axis=-1):
    def row(a, b):
        p, q = np.exp(a), np.exp(b)
        p, q = (np.append(x, 1 - x.sum()) if tail == "bucket" else x / x.sum() for x in (p, q))
        return js_divergence(np.log(p), np.log(q), beta)

    return rows(row, log_p, log_q, axis=axis)


def sampled_kl(log_p, log_q, estimator="k3", gradient="value"):
    likelihood_ratio = np.exp(log_q) / np.exp(log_p)
    return {
        "k1": -np.log(likelihood_ratio),
        "k2": np.log(likelihood_ratio) ** 2 / 2,
        "k3": likelihood_ratio - 1 - np.log(likelihood_ratio),
    }[estimator]


def bernoulli_kl(log_p, log_q, kind="kl", from_logits=False):
    p, q = (special.expit(x) if from_logits else np.exp(x) for x in (log_p, log_q))
    return np.abs(p - q) if kind == "tv" else special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)


def gaussian_kl(mean, log_var, mean_q=None, log_var_q=None, free_bits=0.0, weights=None):
    """By Gauss-Hermite quadrature of p log(p / q), which is exact for polynomials of degree 2."""
    nodes, factors = special.roots_hermite(4)
    mean_q, log_var_q = (np.broadcast_to(0.0 if x is None else x, mean.shape)[..., None] for x in (mean_q, log_var_q))
    mean, scale = mean[..., None], np.exp(log_var / 2)[..., None]
    x = mean + np.sqrt(2) * scale * nodes
    log_ratio = stats.norm.logpdf(x, mean, scale) - stats.norm.logpdf(x, mean_q, np.exp(log_var_q / 2))
    terms = log_ratio @ factors / np.sqrt(np.pi)
    return np.maximum(np.average(terms, axis=0, weights=weights), free_bits).mean() if free_bits else terms


def z_loss(logits, axis=-1):
    return rows(lambda z: np.log(np.exp(z).sum()) ** 2, logits, axis=axis)


def linear_kl_divergence(hidden_p, weight_p, hidden_q, weight_q, direction="forward", skew=0.0, temperature=1.0):
    p, q = np.inner(hidden_p, weight_p), np.inner(hidden_q, weight_q)
    return kl_divergence(p, q, direction, skew, temperature, from_logits=True)


def linear_js_divergence(hidden_p, weight_p, hidden_q, weight_q, beta=0.5, temperature=1.0):
    p, q = np.inner(hidden_p, weight_p), np.inner(hidden_q, weight_q)
    return js_divergence(p, q, beta, temperature, from_logits=True)


def linear_entropy(hidden, weight, mode="penalty", normalize=False, temperature=1.0):
    return entropy(np.inner(hidden, weight), mode, normalize=normalize, temperature=temperature, from_logits=True)


def orthogonality(x, mode="soft", axis="rows", normalize=True, per_sample=False, weights=None):
    w = np.ones(x.shape[:-1]) if weights is None else weights
    if axis != "rows":
        x = x * np.sqrt(w)[..., None]
    if per_sample:
        lead = x.shape[:-2]
        values = [orthogonality(x[index], mode, axis, normalize) for index in np.ndindex(lead)]
        return np.asarray(values).reshape(lead)
    if axis == "sequence":
        vectors = [np.take(x, i, axis=-2).ravel() for i in range(x.shape[-2])]
    elif axis == "vocabulary":
        vectors = [x[..., i].ravel() for i in range(x.shape[-1])]
    else:
        vectors = list(x.reshape(-1, x.shape[-1]))
    if normalize:
        vectors = [v / np.linalg.norm(v) if v.any() else v for v in vectors]
    of_vectors = w.ravel() if axis == "rows" else np.ones(len(vectors))
    gram = np.asarray([[np.dot(v, w) for w in vectors] for v in vectors])
    if mode == "soft":
        gram[np.diag_indices_from(gram)] = 1.0
    difference = (gram - np.eye(len(gram))) * np.sqrt(np.outer(of_vectors, of_vectors))
    return np.linalg.norm(difference, 2 if mode == "spectral" else "fro") ** 2


def covariance(x, weights=None):
    c = np.cov(x, rowvar=False, aweights=weights).reshape(x.shape[1], x.shape[1])
    return np.sum((c - np.diag(np.diag(c))) ** 2) / x.shape[1]


def consistency(a, b, metric="mse", axis=-1):
    if metric == "mse":
        return (a - b) ** 2
    if metric == "l1":
        return np.abs(a - b)
    if metric == "cosine":
        return rows(distance.cosine, a, b, axis=axis)
    if metric == "kl":
        return kl_divergence(a, b, direction="symmetric", axis=axis)
    return js_divergence(a, b, axis=axis)


def slope(x):
    """Return the derivative of x sin x."""
    return np.sin(x) + x * np.cos(x)


def gradient_penalty(x, target_norm=1.0, one_sided=False, per_sample=True):
    norms = np.asarray([np.linalg.norm(slope(sample).ravel()) for sample in (x if per_sample else [x])])
    excess = (np.maximum(norms, target_norm) if one_sided else norms) - target_norm
    return excess**2 if per_sample else excess[0] ** 2


def interpolated_gradient_penalty(real, fake, alpha, target_norm=1.0, one_sided=False):
    points = [a * x + (1 - a) * y for a, x, y in zip(alpha.ravel(), real, fake, strict=True)]
    return gradient_penalty(np.asarray(points), target_norm, one_sided)


def jacobian_penalty(x, projections=1, rng=None):
    return np.asarray([np.sum(np.diag(slope(sample).ravel()) ** 2) for sample in x])


def lipschitz_penalty(x, noise, sigma=0.01, target=0.0, one_sided=False):
    def value(x):
        return np.sum(x * np.sin(x), axis=tuple(range(1, x.ndim)))

    draws = noise if noise.ndim > x.ndim else [noise]
    slope = np.sqrt(np.mean([((value(x + sigma * draw) - value(x)) / sigma) ** 2 for draw in draws], axis=0))
    return np.maximum(slope - target, 0 if one_sided else -np.inf) ** 2


def adversarial_consistency(x, noise, epsilon=1.0, xi=None, iterations=1, metric="kl", axis=-1, at=None):
    def apart(clean, moved):
        if metric == "mse":
            return np.mean((moved - clean) ** 2)
        p, q = special.softmax(clean, axis=axis), special.softmax(moved, axis=axis)
        if metric == "kl":
            return stats.entropy(p, q, axis=axis).mean()
        return np.mean(distance.jensenshannon(p, q, axis=axis) ** 2)

    def pull(clean, moved):
        """Return the gradient of the distance with respect to the moved output, up to a factor."""
        if metric == "mse":
            return moved - clean
        p, q = special.softmax(clean, axis=axis), special.softmax(moved, axis=axis)
        if metric == "kl":
            return q - p
        gap = np.log(2 * q / (p + q))
        return q * (gap - np.sum(q * gap, axis=axis, keepdims=True))

    terms = []
    for i, point in enumerate(x if at is None else at):
        clean = np.asarray([point * np.sin(point)])
        direction = noise[i] / np.linalg.norm(noise[i])
        for _ in range(iterations):
            near = point + (epsilon if xi is None else xi) * direction
            gradient = slope(near) * pull(clean, np.asarray([near * np.sin(near)]))[0]
            direction = gradient / np.linalg.norm(gradient)
        far = x[i] + epsilon * direction
        terms.append(apart(clean, np.asarray([far * np.sin(far)])))
    return np.asarray(terms)


def output_magnitude(x, target=1.0, norm="rms", weights=None):
    w = np.ones_like(x) if weights is None else weights
    size = np.sqrt(np.average(x**2, weights=w) if norm == "rms" else np.sum(w * x**2))
    return (size - target) ** 2


def load_balancing(logits, top_k=1, scores="softmax", per_sequence=False, counts=None, weights=None):
    w = np.ones(logits.shape[:-1]) if weights is None else weights
    if per_sequence:
        lead = logits.shape[:-2]
        values = [load_balancing(logits[i], top_k, scores, False, counts, w[i]) for i in np.ndindex(lead) if w[i].any()]
        return np.mean(values)
    experts = logits.shape[-1]
    share, mean = np.zeros(experts), np.zeros(experts)
    for index in np.ndindex(logits.shape[:-1]):
        z = logits[index]
        score = {"softmax": special.softmax(z), "sigmoid": special.expit(z) / special.expit(z).sum()}.get(scores, z)
        for i in sorted(range(experts), key=lambda i: -z[i])[:top_k]:
            share[i] += w[index] / top_k / w.sum()
        mean += w[index] * score / w.sum()
    if counts is not None:
        share = counts / counts.sum()
    return experts * sum(share * mean)


def mutual_information(log_p, diversity=1.0, mode="bonus", temperature=1.0, axis=-1, from_logits=False, weights=None):
    moved = np.moveaxis(log_p, axis, -1)
    w = np.ones(moved.shape[:-1]) if weights is None else weights
    mean, of_samples = np.zeros(moved.shape[-1]), 0.0
    for index in np.ndindex(moved.shape[:-1]):
        p = probabilities(moved[index], temperature, from_logits)
        mean += w[index] * p / w.sum()
        of_samples += w[index] * special.entr(p).sum() / w.sum()
    value = diversity * special.entr(mean).sum() - of_samples
    return value if mode == "penalty" else -value


def variance(x, target=1.0, weights=None):
    deviations = [np.sqrt(np.cov(column, aweights=weights)) for column in x.T]
    return np.mean([max(0.0, target - s) for s in deviations])


def cross_correlation(a, b, off_diagonal=0.005, weights=None):
    d = a.shape[1]
    covariances = np.cov(a, b, rowvar=False, aweights=weights)
    sizes = np.sqrt(np.diag(covariances))
    c = (covariances / np.outer(sizes, sizes))[:d, d:]
    return sum((1 - c[i, i]) ** 2 if i == j else off_diagonal * c[i, j] ** 2 for i in range(d) for j in range(d))


def _unit(v):
    return v / np.linalg.norm(v) if v.any() else v


def _pairs(x, weights):
    """Yield the distances of all pairs of different rows, with the products of their weights."""
    w = np.ones(len(x)) if weights is None else weights
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                yield i, j, np.linalg.norm(x[i] - x[j]), w[i] * w[j]


def koleo(x, floor=0.0, weights=None):
    u = np.asarray([_unit(row) for row in x])
    nearest = np.full(len(x), np.inf)
    for i, _, r, w in _pairs(u, weights):
        nearest[i] = min(nearest[i], r) if w > 0 else nearest[i]
    return np.average([-np.log(max(r, floor)) for r in nearest], weights=weights)


def uniformity(x, t=2.0, weights=None):
    pairs = list(_pairs(np.asarray([_unit(row) for row in x]), weights))
    return np.log(sum(w * np.exp(-t * r**2) for _, _, r, w in pairs) / sum(w for _, _, _, w in pairs))


def sigreg(x, slices=256, knots=17, rng=None, weights=None):
    """Of one feature: all directions give the same."""
    (z,) = x.T
    w = np.ones(len(z)) if weights is None else weights

    def integrand(s):
        wave = np.sum(w * np.exp(1j * s * z)) / w.sum()
        return np.abs(wave - np.exp(-(s**2) / 2)) ** 2 * np.exp(-(s**2) / 2)

    count = w.sum() ** 2 / np.sum(w**2)
    if knots is None:  # e^-72 is left out at either end
        return count * integrate.quad(integrand, -12, 12, epsabs=1e-14, epsrel=1e-13, limit=500)[0]
    at = np.linspace(-3, 3, 2 * knots - 1)
    return count * np.trapezoid([integrand(s) for s in at], at)


def mmd(a, b, kernel="rbf", bandwidths=None, unbiased=False, weights=None):
    w = np.ones(len(a)) if weights is None else weights
    squares = distance.cdist(a, b, "sqeuclidean")
    widths = np.ravel(np.sqrt(np.average(squares, weights=np.outer(w, w))) if bandwidths is None else bandwidths)

    def k(u, v):
        r = np.linalg.norm(u - v)
        if kernel == "energy":
            return -r
        return np.mean([np.exp(-(r**2) / 2 / s**2) if kernel == "rbf" else s**2 / (s**2 + r**2) for s in widths])

    def mean(x, y, skip):
        total = count = 0.0
        for i, u in enumerate(x):
            for j, v in enumerate(y):
                if not (skip and i == j):
                    total, count = total + w[i] * w[j] * k(u, v), count + w[i] * w[j]
        return total / count

    return mean(a, a, unbiased) + mean(b, b, unbiased) - 2 * mean(a, b, False)


def coding_rate(x, eps=0.5, mode="bonus", weights=None):
    w = np.ones(len(x)) if weights is None else weights
    singular = np.linalg.svd(np.sqrt(w)[:, None] * x, compute_uv=False)
    rate = np.sum(np.log1p(x.shape[1] / (w.sum() * eps**2) * singular**2)) / 2
    return -rate if mode == "bonus" else rate


def cross_orthogonality(a, b, normalize=True):
    of_pairs = np.empty(a.shape[:-2])
    for index in np.ndindex(of_pairs.shape):
        rows_a, rows_b = ([_unit(row) if normalize else row for row in x[index]] for x in (a, b))
        of_pairs[index] = sum(np.dot(u, v) ** 2 for u in rows_a for v in rows_b)
    return of_pairs


def coral(a, b, weights=None):
    of_a, of_b = (np.atleast_2d(np.cov(x, rowvar=False, aweights=weights)) for x in (a, b))
    return np.sum((of_a - of_b) ** 2) / (4 * a.shape[1] ** 2)


def gram_distance(a, b, normalize="rows", centered=False, weights=None):
    w = np.ones(len(a)) if weights is None else weights
    if centered:
        a, b = (x - np.average(x, axis=0, weights=w) for x in (a, b))
    if normalize == "rows":
        a, b = (np.asarray([_unit(row) for row in x]) for x in (a, b))
    of_a, of_b = ([[np.sqrt(w[i] * w[j]) * u @ v for j, v in enumerate(x)] for i, u in enumerate(x)] for x in (a, b))
    if normalize == "gram":
        return 1 - np.sum(np.multiply(of_a, of_b)) / (np.linalg.norm(of_a) * np.linalg.norm(of_b))
    return sum((p - q) ** 2 for p, q in zip(np.ravel(of_a), np.ravel(of_b), strict=True)) / w.sum() ** 2


def wasserstein(a, b, p=1.0, axis=-1):
    """From the best assignment, of copies of the numbers if there are not equally many."""

    def of_row(u, v):
        copies = np.lcm(len(u), len(v))
        u, v = (np.repeat(x, copies // len(x)) for x in (u, v))
        costs = np.abs(u[:, None] - v) ** p
        return costs[optimize.linear_sum_assignment(costs)].mean()

    return rows(of_row, a, b, axis=axis)


def sliced_wasserstein(a, b, slices=64, p=2.0, rng=None, weights=None):
    """Of one feature: all directions give the same. Mass is moved from the smallest number to the smallest."""
    w = np.ones(len(a)) if weights is None else weights
    heaps = [sorted(zip(x[:, 0], w, strict=True), reverse=True) for x in (a, b)]
    total = 0.0
    while all(heaps):
        (u, of_u), (v, of_v) = (heap.pop() for heap in heaps)
        moved = min(of_u, of_v)
        total += moved * abs(u - v) ** p
        for heap, x, left in zip(heaps, (u, v), (of_u - moved, of_v - moved), strict=True):
            if left > 1e-12:
                heap.append((x, left))
    return total / w.sum()
