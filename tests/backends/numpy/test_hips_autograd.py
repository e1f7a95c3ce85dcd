"""What `namespace` adds to autograd.numpy, against the same of NumPy and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp

pytestmark = [pytest.mark.only("numpy", reason="is about NumPy's gradients"), pytest.mark.usefixtures("fw")]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": lambda ns, x: ns.concat([x, 2 * x], axis=0),
    "concat_flat": lambda ns, x: ns.concat([x, 2 * x], axis=None),
    "matrix_transpose": lambda ns, x: ns.matrix_transpose(x) * np.arange(6.0).reshape(3, 2),
    "permute_dims": lambda ns, x: ns.permute_dims(x, (1, 0)) * np.arange(6.0).reshape(3, 2),
    "vecdot": lambda ns, x: ns.vecdot(x, x * x),
    "mean": lambda ns, x: ns.mean(x * x, axis=0),
    "mean_all": lambda ns, x: ns.mean(x * x),
    "astype": lambda ns, x: ns.astype(x, np.float64) ** 2,
    "where": lambda ns, x: ns.where(x > 0, x * x, np.ones(3)),
    "where_scalar": lambda ns, x: ns.where(x > 0, 0.0, x * x),
    "where_of_0d": lambda ns, x: ns.where(x > 0, ns.sum(x), x),
    "where_else_0d": lambda ns, x: ns.where(x > 0, x, ns.sum(x)),
    "exp": lambda ns, x: ns.exp(x),
    "broadcast_to": lambda ns, x: ns.broadcast_to(x[0, :], (2, 2, 3)) * np.arange(12.0).reshape(2, 2, 3),
    "asarray": lambda ns, x: ns.asarray(x) * ns.asarray([1.0, 2.0, 3.0]),
    "asarray_dtype": lambda ns, x: ns.asarray(x, dtype=np.float64) ** 2,
    "var": lambda ns, x: ns.var(x, axis=1, correction=1),
    "std": lambda ns, x: ns.std(x, correction=0.5),
    "take": lambda ns, x: ns.take(x, np.asarray([2, 0, 0]), axis=1),
    "take_from_behind": lambda ns, x: ns.take(x, np.asarray([2, 0, 0]), axis=-1),
    "unstack": lambda ns, x: ns.unstack(x, axis=1)[1] ** 2,
    "vector_norm": lambda ns, x: ns.linalg.vector_norm(x, axis=1),
    "vector_norm_all": lambda ns, x: ns.linalg.vector_norm(x, keepdims=True) * x,
    "vector_norm_1": lambda ns, x: ns.linalg.vector_norm(x, axis=(0, 1), ord=1),
    "vector_norm_3": lambda ns, x: ns.linalg.vector_norm(x, axis=0, keepdims=True, ord=3),
    "vector_norm_inf": lambda ns, x: ns.linalg.vector_norm(x, axis=1, ord=math.inf),
    "vector_norm_-inf": lambda ns, x: ns.linalg.vector_norm(x, axis=1, ord=-math.inf),
    "vector_norm_0": lambda ns, x: ns.linalg.vector_norm(x, axis=1, ord=0) * x[:, 0],
    "abs": lambda ns, x: ns.abs(x),
    "clip": lambda ns, x: ns.clip(x * x, min=0.3, max=0.6),
    "clip_above": lambda ns, x: ns.clip(x, max=0.1),
    "cumulative_sum": lambda ns, x: ns.cumulative_sum(x, axis=1),
    "flip": lambda ns, x: ns.flip(x) * np.arange(6.0).reshape(2, 3),
    "flip_axis": lambda ns, x: ns.flip(x, axis=-1) * np.arange(6.0).reshape(2, 3),
    "flip_axes": lambda ns, x: ns.flip(x, axis=(0, 1)) * np.arange(6.0).reshape(2, 3),
    "positive": lambda ns, x: ns.positive(x),
    "outer": lambda ns, x: ns.linalg.outer(x[0, :], x[1, :] ** 2),
    "trace": lambda ns, x: ns.linalg.trace(x, offset=1),
    "diagonal": lambda ns, x: ns.linalg.diagonal(x, offset=-1) + ns.linalg.diagonal(x)[0],
    "linalg_matrix_transpose": lambda ns, x: ns.linalg.matrix_transpose(x)[0],
    "det": lambda ns, x: ns.linalg.det(x @ ns.matrix_transpose(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    fn = FUNCTIONS[name]
    x = np.random.default_rng(0).standard_normal((2, 3))

    def summed(x: Any) -> Any:
        ns = xp.namespace(x)
        out = fn(ns, x)
        return ns.sum(out * out)

    gradient = xp.grad(summed)(x)
    step = 1e-6
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        assert gradient[index] == pytest.approx((summed(up) - summed(down)) / (2 * step), rel=1e-6, abs=1e-8)


def test_values_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3))

    def fn(x: Any) -> Any:
        ns = xp.namespace(x)
        assert float(getval(ns.var(x, correction=1))) == pytest.approx(np.var(getval(x), ddof=1))
        assert float(getval(ns.std(x))) == pytest.approx(np.std(getval(x)))
        for options in ({"ord": 1}, {"ord": 0}, {"ord": 3, "axis": 1}, {"ord": math.inf, "keepdims": True}):
            want = np.linalg.vector_norm(getval(x), **options)
            np.testing.assert_allclose(getval(ns.linalg.vector_norm(x, **options)), want)
        y = getval(x)
        for axis in (None, 0, -1, (0, 1)):
            np.testing.assert_array_equal(getval(ns.flip(x, axis=axis)), np.flip(y, axis=axis))
        for offset in (-5, -2, 0, 1, 2, 5):
            np.testing.assert_array_equal(getval(ns.linalg.diagonal(x, offset=offset)), np.diagonal(y, offset=offset))
            assert float(getval(ns.linalg.trace(x, offset=offset))) == np.trace(y, offset=offset)
        np.testing.assert_array_equal(getval(ns.linalg.outer(x[0], x[:, 0])), np.outer(y[0], y[:, 0]))
        np.testing.assert_array_equal(getval(ns.cumulative_sum(x[0])), np.cumsum(y[0]))
        np.testing.assert_array_equal(getval(ns.clip(x, -0.5, 0.5)), np.clip(y, -0.5, 0.5))
        assert float(getval(ns.linalg.vector_norm(x))) == pytest.approx(np.linalg.norm(getval(x)))
        return ns.sum(x)

    from autograd.tracer import getval

    xp.grad(fn)(x)


def test_what_has_no_derivative_is_named() -> None:
    for name, fn in (
        ("cumulative_prod|cumprod", lambda ns, x: ns.sum(ns.cumulative_prod(x))),
        ("matrix_norm", lambda ns, x: ns.linalg.matrix_norm(x[:, None] * x)),
    ):
        with pytest.raises(NotImplementedError, match=rf"VJP of ({name}) wrt argnums \(0,?.*\) not defined"):
            xp.grad(lambda x, fn=fn: fn(xp.namespace(x), x))(np.ones(3))


def test_abs_has_no_curvature() -> None:
    """autograd's own is x / |x|, whose derivative is what rounding leaves, over |x|."""
    for dtype, sizes in ((np.float32, (1e-6, 1e-12, 1e-30, 3.0)), (np.float64, (1e-12, 1e-200, 0.7, 0.0))):
        x = np.asarray(sizes, dtype=dtype)
        for fn, curvature in ((xp.l1, 0.0), (lambda x: xp.elastic_net(x, l1_ratio=0.5), 1.0), (xp.huber, x <= 1)):
            slope = xp.grad(fn)
            got = xp.grad(lambda x, slope=slope: xp.namespace(x).sum(slope(x)))(x)
            np.testing.assert_array_equal(got, np.broadcast_to(curvature, x.shape))
            squared = xp.grad(lambda x, slope=slope: xp.namespace(x).sum(slope(x) ** 2))(x)
            assert np.isfinite(squared).all()


def test_isdtype_and_constants() -> None:
    def fn(x: Any) -> Any:
        ns = xp.namespace(x)
        assert ns.isdtype(x.dtype, "real floating") and not ns.isdtype(x.dtype, "integral")
        assert ns.float32 is not None and ns.finfo(x.dtype).bits == 64 and ns.pi > 3 and ns.newaxis is None
        return ns.sum(x)

    assert xp.grad(fn)(np.ones(2)).tolist() == [1.0, 1.0]


def test_asarray_of_another_dtype() -> None:
    def fn(x: Any) -> Any:
        ns = xp.namespace(x)
        y = ns.asarray(x, dtype=np.float32)
        assert y.dtype == np.float32
        return ns.sum(y * y)

    assert xp.grad(fn)(np.asarray([1.0, -2.0])).tolist() == [2.0, -4.0]


def test_complex_numbers() -> None:
    x = np.asarray([1.0, -2.0, 4.0])
    variance = xp.grad(lambda x: xp.namespace(x).var(x))(x)
    np.testing.assert_allclose(xp.grad(lambda x: xp.namespace(x).var(x * (1 + 1j)))(x), 2 * variance)

    def squared_norm(x: Any) -> Any:
        ns = xp.namespace(x)
        return ns.real(ns.vecdot(1j * x, 1j * x))

    np.testing.assert_allclose(xp.grad(squared_norm)(x), 2 * x)


def test_gradients_have_the_dtype_of_what_they_are_by() -> None:
    x = np.asarray([[1.0, -2.0, 0.5]], dtype=np.float32)
    for fn in (
        lambda ns, x: ns.max(x),
        lambda ns, x: ns.sum(ns.maximum(x, 0.0)),
        lambda ns, x: ns.sum(ns.log2(x * x)),
        lambda ns, x: x.mean(),
    ):
        assert xp.grad(lambda x, fn=fn: fn(xp.namespace(x), x))(x).dtype == np.float32
        curvature = xp.grad(lambda x, fn=fn: xp.l2(xp.grad(lambda x: fn(xp.namespace(x), x))(x)))(x)
        assert curvature.dtype == np.float32
