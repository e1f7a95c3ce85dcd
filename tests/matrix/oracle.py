"""The terms of every penalty in float64, written from the definitions with SciPy and plain loops.

Nothing here uses the package or its formulas. There are sums over pairs instead of matrix identities, probabilities
instead of logarithms, and an n x n Gram matrix where the package avoids one.
"""

from __future__ import annotations

import numpy as np
from scipy import integrate, special
from scipy.spatial import distance


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


def kl_divergence(log_p, log_q, direction="forward", temperature=1.0, axis=-1, from_logits=False):
    def row(a, b):
        p, q = probabilities(a, temperature, from_logits), probabilities(b, temperature, from_logits)
        forward, reverse = _kl(p, q), _kl(q, p)
        return {"forward": forward, "reverse": reverse, "symmetric": (forward + reverse) / 2}[direction]

    return rows(row, log_p, log_q, axis=axis)


def js_divergence(log_p, log_q, beta=0.5, temperature=1.0, axis=-1, from_logits=False):
    def row(a, b):
        p, q = probabilities(a, temperature, from_logits), probabilities(b, temperature, from_logits)
        m = beta * p + (1 - beta) * q
        return beta * (_kl(p, m) if beta else 0.0) + (1 - beta) * (_kl(q, m) if beta < 1 else 0.0)

    return rows(row, log_p, log_q, axis=axis)


def entropy(log_p, mode="penalty", normalize=False, temperature=1.0, axis=-1, from_logits=False):
    def row(a):
        p = probabilities(a, temperature, from_logits)
        h = special.entr(p).sum() / (np.log(len(p)) if normalize else 1.0)
        return h if mode == "penalty" else -h

    return rows(row, log_p, axis=axis)


def topk_kl_divergence(log_p, log_q, tail="bucket", axis=-1):
    def row(a, b):
        p, q = np.exp(a), np.exp(b)
        if tail == "bucket":
            p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
        if tail == "renormalize":
            p, q = p / p.sum(), q / q.sum()
        return _kl(p, q) + (q.sum() - p.sum() if tail == "included" else 0)

    return rows(row, log_p, log_q, axis=axis)


def sampled_kl(log_p, log_q, estimator="k3", gradient="value"):
    likelihood_ratio = np.exp(log_q) / np.exp(log_p)
    return {
        "k1": -np.log(likelihood_ratio),
        "k2": np.log(likelihood_ratio) ** 2 / 2,
        "k3": likelihood_ratio - 1 - np.log(likelihood_ratio),
    }[estimator]


def z_loss(logits, axis=-1):
    return rows(lambda z: np.log(np.exp(z).sum()) ** 2, logits, axis=axis)


def linear_kl_divergence(hidden_p, weight_p, hidden_q, weight_q, direction="forward", temperature=1.0):
    p, q = np.inner(hidden_p, weight_p), np.inner(hidden_q, weight_q)
    return kl_divergence(p, q, direction, temperature, from_logits=True)


def linear_js_divergence(hidden_p, weight_p, hidden_q, weight_q, beta=0.5, temperature=1.0):
    p, q = np.inner(hidden_p, weight_p), np.inner(hidden_q, weight_q)
    return js_divergence(p, q, beta, temperature, from_logits=True)


def linear_entropy(hidden, weight, mode="penalty", normalize=False, temperature=1.0):
    return entropy(np.inner(hidden, weight), mode, normalize, temperature, from_logits=True)


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


def output_magnitude(x, target=1.0, norm="rms", weights=None):
    w = np.ones_like(x) if weights is None else weights
    size = np.sqrt(np.average(x**2, weights=w) if norm == "rms" else np.sum(w * x**2))
    return (size - target) ** 2
