"""value_and_grad and grad: one contract for every framework that differentiates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

import xpenalties as xp
from harness import Framework
from xpenalties import backends

autodiff = pytest.mark.needs("autodiff")


class Layer(NamedTuple):
    weight: Any
    bias: Any


@dataclass
class Model:
    layers: list[Any]
    scale: Any


def total(nest: Any) -> Any:
    """Sum of squares of all floating arrays of a nest of dicts, tuples and the like, by hand."""
    parts = {"a": nest["a"], "b": nest["b"][0], "c": nest["b"][1].weight, "d": nest["m"].layers[0]}
    return sum(xp.l2(x) for x in parts.values())


@autodiff
def test_of_an_array(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))
    value, gradient = xp.value_and_grad(xp.l2)(x)
    assert float(value) == 5.0 and fw.numpy(gradient).tolist() == [2.0, -4.0]
    assert fw.numpy(xp.grad(xp.l2)(x, center=1.0)).tolist() == [0.0, -6.0]


@autodiff
def test_of_a_nest(fw: Framework) -> None:
    def array(*x: float) -> Any:
        return fw.array(np.asarray(x))

    nest = {
        "a": array(1.0),
        "b": (array(2.0, 3.0), Layer(array(4.0), array(5.0))),
        "m": Model([array(6.0)], scale=3.0),
        "n": {"step": fw.array(np.asarray(3)), "name": "run", "nothing": None},
    }
    value, gradient = xp.value_and_grad(total)(nest)
    assert float(value) == 1 + 4 + 9 + 16 + 36
    assert fw.numpy(gradient["a"]).tolist() == [2.0]
    assert fw.numpy(gradient["b"][0]).tolist() == [4.0, 6.0]
    assert isinstance(gradient["b"], tuple) and isinstance(gradient["b"][1], Layer) and isinstance(gradient["m"], Model)
    assert fw.numpy(gradient["b"][1].weight).tolist() == [8.0]
    assert fw.numpy(gradient["b"][1].bias).tolist() == [0.0]  # unused: zeros
    assert fw.numpy(gradient["m"].layers[0]).tolist() == [12.0]
    assert gradient["m"].scale is None and gradient["n"] == {"step": None, "name": None, "nothing": None}


@autodiff
def test_of_nothing_used(fw: Framework) -> None:
    x = fw.array(np.ones(3))
    constant = fw.array(np.asarray(2.0))
    value, gradient = xp.value_and_grad(lambda x: constant)(x)
    assert float(value) == 2.0 and fw.numpy(gradient).tolist() == [0.0] * 3


@autodiff
def test_aux(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))

    def fn(x: Any, factor: float, *, extra: str) -> Any:
        return factor * xp.l2(x), {"doubled": 2 * x, "text": extra, "nested": [xp.l1(x), None], "constant": constant}

    constant = fw.array(np.asarray([7.0]))
    (value, aux), gradient = xp.value_and_grad(fn, has_aux=True)(x, 3.0, extra="hi")
    assert float(value) == 15.0 and fw.numpy(gradient).tolist() == [6.0, -12.0]
    assert fw.numpy(aux["doubled"]).tolist() == [2.0, -4.0] and aux["text"] == "hi"
    assert float(aux["nested"][0]) == 3.0 and aux["nested"][1] is None
    assert type(aux["doubled"]) is type(x)  # no tracer gets out
    gradient, aux = xp.grad(fn, has_aux=True)(x, 3.0, extra="hi")
    assert fw.numpy(gradient).tolist() == [6.0, -12.0] and aux["text"] == "hi"


@autodiff
def test_is_linear(fw: Framework) -> None:
    x = fw.array(np.random.default_rng(0).standard_normal((3, 4)))
    once, thrice = xp.grad(xp.elastic_net)(x), xp.grad(lambda x: 3 * xp.elastic_net(x))(x)
    np.testing.assert_allclose(fw.numpy(thrice), 3 * fw.numpy(once), rtol=1e-14)


@autodiff
def test_composes_to_any_order(fw: Framework) -> None:
    def cube(x: Any) -> Any:
        return xp.namespace(x).sum(x * x * x)

    def summed(fn: Any) -> Any:
        return lambda x: xp.namespace(x).sum(fn(x))

    x = fw.array(np.asarray([2.0]))
    first = xp.grad(cube)
    second = xp.grad(summed(first))
    third = xp.grad(summed(second))
    assert [float(fn(x)[0]) for fn in (first, second, third)] == [12.0, 12.0, 6.0]


@autodiff
def test_inner_values_stay_on_the_outer_graph(fw: Framework) -> None:
    def outer(x: Any) -> Any:
        (value, aux), _ = xp.value_and_grad(lambda y: (xp.l2(y), y * y), has_aux=True)(x)
        return value + xp.namespace(x).sum(aux)

    x = fw.array(np.asarray([1.0, -2.0]))
    assert fw.numpy(xp.grad(outer)(x)).tolist() == [4.0, -8.0]


@autodiff
def test_unused_inside_of_a_gradient(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))

    def outer(x: Any) -> Any:
        inner = xp.grad(lambda y: xp.l2(x))(x)
        return xp.namespace(x).sum(inner) + xp.l1(x)

    assert fw.numpy(xp.grad(outer)(x)).tolist() == [1.0, -1.0]


@autodiff
def test_refusals(fw: Framework) -> None:
    x = fw.array(np.ones(2))
    with pytest.raises(ValueError, match=r"`fn` must return a 0-d array, got shape \(2,\). Reduce it"):
        xp.grad(lambda x: 2 * x)(x)
    with pytest.raises(TypeError, match=r"`fn` must return a 0-d array, got NoneType"):
        xp.grad(lambda x: None)(x)
    with pytest.raises(TypeError, match=r"must hold real arrays, got .*complex"):
        xp.grad(xp.l2)(fw.array(np.ones(2) * 1j))
    for nothing, got in ((fw.array(np.ones(2, dtype=np.int64)), ".*"), ([], "an empty nest"), ("x", "str")):
        with pytest.raises(TypeError, match=f"must hold a floating-point array, got {got}. Pass"):
            xp.grad(xp.l2)(nothing)


@autodiff
def test_an_exception_leaves_no_trace_open(fw: Framework) -> None:
    x = fw.array(np.ones(2))

    def fails(x: Any) -> Any:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        xp.grad(fails)(x)
    assert fw.numpy(xp.grad(xp.l2)(x)).tolist() == [2.0, 2.0]


def test_without_autodiff(fw: Framework) -> None:
    if fw.has_autodiff:
        pytest.skip("has automatic differentiation")
    with pytest.raises(
        NotImplementedError, match=r"^value_and_grad: \w+ arrays have no automatic differentiation. Convert"
    ):
        xp.grad(xp.l1)(fw.array(np.ones(2)))


def test_without_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpenalties.backends.numpy.find_spec", lambda name: None)
    with pytest.raises(
        NotImplementedError, match=r"NumPy arrays need autograd for gradients. Install it with `pip install"
    ):
        xp.grad(xp.l1)(np.ones(2))


@autodiff
def test_stop_gradient(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))

    def fn(x: Any) -> Any:
        backend = backends.backend_of(x)
        assert backend is not None
        return xp.namespace(x).sum(x * backend.stop_gradient(x))

    assert fw.numpy(xp.grad(fn)(x)).tolist() == [1.0, -2.0]
    second = xp.grad(lambda x: xp.namespace(x).sum(xp.grad(fn)(x)))
    assert fw.numpy(second(x)).tolist() == [0.0, 0.0]


class TestAutogradNamespace:
    """What `namespace` adds to autograd.numpy, against the same of NumPy and finite differences."""

    functions: ClassVar[dict[str, Any]] = {
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
        "exp": lambda ns, x: ns.exp(x),
    }

    @pytest.mark.parametrize("name", functions)
    def test_function(self, name: str) -> None:
        pytest.importorskip("autograd", reason="autograd is not installed")
        fn = self.functions[name]
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

    def test_isdtype_and_constants(self) -> None:
        pytest.importorskip("autograd", reason="autograd is not installed")

        def fn(x: Any) -> Any:
            ns = xp.namespace(x)
            assert ns.isdtype(x.dtype, "real floating") and not ns.isdtype(x.dtype, "integral")
            assert ns.float32 is not None and ns.finfo(x.dtype).bits == 64 and ns.pi > 3
            return ns.sum(x)

        assert xp.grad(fn)(np.ones(2)).tolist() == [1.0, 1.0]
