"""The terms of every penalty in float64, written from the definitions with SciPy and plain loops.

Nothing here uses the package or its formulas. There are sums over pairs instead of matrix identities, probabilities
instead of logarithms, and an n x n Gram matrix where the package avoids one.
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats
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


def entropy(log_p, mode="penalty", normalize=False, temperature=1.0, axis=-1, from_logits=False):
    def row(a):
        p = probabilities(a, temperature, from_logits)
        h = special.entr(p).sum() / (np.log(len(p)) if normalize else 1.0)
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


def output_magnitude(x, target=1.0, norm="rms", weights=None):
    w = np.ones_like(x) if weights is None else weights
    size = np.sqrt(np.average(x**2, weights=w) if norm == "rms" else np.sum(w * x**2))
    return (size - target) ** 2
