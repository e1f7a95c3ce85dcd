"""value_and_grad and grad: one contract for every framework that differentiates."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from xpenalties import Pipeline, backends

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


@pytest.mark.smoke
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


@dataclass(frozen=True)
class Settled:
    """What dataclasses.replace would not copy: a field that is no argument, and a __post_init__ that computes."""

    weight: Any
    doubled: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", 2 * self.weight)


@autodiff
def test_of_all_kinds_of_nests(fw: Framework) -> None:
    def array(*x: float) -> Any:
        return fw.array(np.asarray(x))

    settled = Settled(array(1.0))
    by_default = defaultdict(list, a=array(2.0))
    nests: list[tuple[Any, Any]] = [
        (by_default, lambda nest: nest["a"]),
        (OrderedDict(b=array(2.0), a=3), lambda nest: nest["b"]),
        (MappingProxyType({"a": array(2.0)}), lambda nest: nest["a"]),
        ([array(2.0), Settled], lambda nest: nest[0]),
        (settled, lambda nest: nest.doubled),
        (Pipeline({"l1": fw.array(np.asarray(2.0))}), lambda nest: nest["l1"].weight),
    ]
    for nest, leaf in nests:
        gradient = xp.grad(lambda nest, leaf=leaf: xp.l2(leaf(nest)))(nest)
        assert fw.numpy(leaf(gradient)).reshape(-1).tolist() == [4.0], type(nest)
        expected = dict if isinstance(nest, MappingProxyType) else type(nest)
        assert type(gradient) is expected
    weighted = Pipeline({"l1": fw.array(np.asarray(0.5)), "l2": 1.0})
    gradient = xp.grad(lambda pipe, x: pipe(x))(weighted, array(1.0, -2.0))
    assert float(gradient["l1"].weight) == 3.0 and gradient["l2"].weight is None
    assert fw.numpy(xp.grad(lambda nest: xp.l2(nest.doubled))(settled).weight).tolist() == [0.0]
    assert fw.numpy(settled.doubled).tolist() == [2.0]
    assert xp.grad(lambda nest: xp.l2(nest["a"]))(by_default)["new"] == [] and list(by_default) == ["a"]


@dataclass
class Lazy:
    weight: Any

    @cached_property
    def doubled(self) -> Any:
        return 2 * self.weight


@autodiff
def test_what_was_computed_lazily_is_computed_anew(fw: Framework) -> None:
    lazy = Lazy(fw.array(np.asarray([1.0, 3.0])))
    assert fw.numpy(lazy.doubled).tolist() == [2.0, 6.0]
    gradient = xp.grad(lambda lazy: xp.l2(lazy.doubled))(lazy)
    assert fw.numpy(gradient.weight).tolist() == [8.0, 24.0]
    assert fw.numpy(lazy.doubled).tolist() == [2.0, 6.0]


@autodiff
def test_of_nothing_used(fw: Framework) -> None:
    x = fw.array(np.ones(3))
    constant = fw.array(np.asarray(2.0))
    value, gradient = xp.value_and_grad(lambda x, constant: constant)(x, constant)
    assert float(value) == 2.0 and fw.numpy(gradient).tolist() == [0.0] * 3


@autodiff
def test_norm(fw: Framework) -> None:
    x = fw.array(np.asarray([3.0, -4.0]))
    assert float(xp.grad_norm(xp.l2, x)) == 10.0
    assert float(xp.grad_norm(xp.l2, x, center=3.0)) == 14.0
    nest = {"a": x, "n": [fw.array(np.asarray(12.0), "float32"), 3, None]}
    norm = xp.grad_norm(lambda nest, factor: factor * (xp.l2(nest["a"]) + xp.l2(nest["n"][0])), nest, 0.5)
    assert norm.dtype == fw.dtype("float64") and float(norm) == 13.0
    assert float(xp.grad_norm(lambda x: xp.l1(0 * x), x)) == 0.0
    if "float16" in fw.dtypes:
        half = xp.grad_norm(xp.l2, fw.array(np.asarray([150.0, 200.0]), "float16"))
        assert half.dtype == fw.dtype("float32") and float(half) == 500.0


@autodiff
def test_norm_is_differentiated(fw: Framework) -> None:
    x = fw.array(np.asarray([3.0, -4.0]))
    cubes = lambda x: xp.namespace(x).sum(x**3)  # noqa: E731 - its gradient is 3 x^2
    want = 3 * 2 * np.asarray([27.0, -64.0]) / np.hypot(9, 16)
    np.testing.assert_allclose(fw.numpy(xp.grad(lambda x: xp.grad_norm(cubes, x))(x)), want, rtol=1e-14)
    flat = fw.array(np.zeros(2))
    assert fw.numpy(xp.grad(lambda x: xp.grad_norm(cubes, x))(flat)).tolist() == [0.0, 0.0]
    with pytest.raises(TypeError, match=r"^grad_norm: the first argument must hold a floating-point array"):
        xp.grad_norm(cubes, 3)


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
def test_the_inner_function_may_be_of_the_outer_argument(fw: Framework) -> None:
    def outer(x: Any, y: Any) -> Any:
        ns = xp.namespace(x)
        value, slope = xp.value_and_grad(lambda y: ns.sum(x * x * y))(y)  # value = sum x^2 y, slope = x^2
        return value + ns.sum(slope)

    x, y = fw.array(np.asarray([1.0, -2.0])), fw.array(np.asarray([3.0, 1.0]))
    assert fw.numpy(xp.grad(outer)(x, y)).tolist() == [8.0, -8.0]


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
    with pytest.raises(
        TypeError, match=r"`fn` must return a 0-d array, got tuple. For \(value, aux\) pass has_aux=True"
    ):
        xp.value_and_grad(lambda x: (xp.l1(x), {}))(x)
    with pytest.raises(TypeError, match=r"must hold a floating-point array, got \S+ of \S*int64, str. Pass a"):
        xp.grad(xp.l1)([fw.array(np.arange(3)), "text"])
    with pytest.raises(TypeError, match=r"`fn` must return a 0-d array, got NoneType. Compute it from its"):
        xp.grad(lambda x: None)(x)
    with pytest.raises(TypeError, match=r"^grad: the first argument must hold real arrays, got .*complex"):
        xp.grad(xp.l2)(fw.array(np.ones(2) * 1j))
    with pytest.raises(TypeError, match=r"^value_and_grad: `fn` must return a real floating-point value, got"):
        xp.value_and_grad(lambda x: xp.namespace(x).sum(x) * 1j)(x)
    with pytest.raises(TypeError, match=r"^grad: `fn` must be callable, got int. Pass a function"):
        xp.grad(3)  # type: ignore[arg-type]
    if fw.name != "numpy":
        with pytest.raises(TypeError, match=rf"^grad: `fn` must return a {fw.name} array, like its input, got"):
            xp.grad(lambda x: np.float64(3.0))(x)
    for out in ("value", "triple"):
        with pytest.raises(TypeError, match=r"^grad: `fn` must return \(value, aux\), got .*Or drop `has_aux`"):
            xp.grad(lambda x, out=out: xp.l1(x) if out == "value" else (xp.l1(x), 1, 2), has_aux=True)(x)
    for nothing, got in ((fw.array(np.ones(2, dtype=np.int64)), ".*"), ([], "an empty tree"), ("x", "str")):
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


@pytest.mark.without("torch", "jax", reason="differentiates by itself")
def test_without_autodiff(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything installed to borrow it from; with that, see test_borrowed_autodiff.py."""
    monkeypatch.setattr("xpenalties._core.optional.find_spec", lambda name: None)
    x = fw.array(np.ones((2, 1)))
    name = {"strict": "array_api_strict"}.get(fw.name, fw.name)
    rest = {
        "numpy": " without autograd, and there is neither PyTorch nor JAX to borrow it from. Install one of them, or "
        r"autograd with `pip install 'xpenalties\[numpy\]'`\.$",
        "dask": r", and no DLPack to borrow it with. Convert them to PyTorch, JAX or NumPy arrays first\.$",
    }.get(fw.name, r" of their own, and there is neither PyTorch nor JAX to borrow it from. Install one of them\.$")
    for caller, call in (
        ("grad", lambda: xp.grad(xp.l1)(x)),
        ("value_and_grad", lambda: xp.value_and_grad(xp.l1)(x)),
        ("gradient_penalty", lambda: xp.gradient_penalty(lambda x: x, x)),
        ("jacobian_penalty", lambda: xp.jacobian_penalty(lambda x: x, x)),
    ):
        with pytest.raises(
            NotImplementedError, match=f"^{caller}: {name} arrays have no automatic differentiation{rest}"
        ):
            call()


@autodiff
def test_stop_gradient(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))

    def fn(x: Any) -> Any:
        backend = backends.backend_of(x)
        assert backend is not None
        return xp.namespace(x).sum(x * backend.autodiff.stop_gradient(x))

    assert fw.numpy(xp.grad(fn)(x)).tolist() == [1.0, -2.0]
    second = xp.grad(lambda x: xp.namespace(x).sum(xp.grad(fn)(x)))
    assert fw.numpy(second(x)).tolist() == [0.0, 0.0]


def test_an_ordinary_error_is_no_escape(fw: Framework) -> None:
    backend = backends.backend_of(fw.array(np.ones(2)))
    assert backend is not None
    assert not backend.autodiff.escaped(ValueError("mine")) and not backend.autodiff.escaped(RuntimeError("mine"))


def test_names_are_kept() -> None:
    assert xp.grad(xp.l1).__name__ == xp.value_and_grad(xp.l1).__name__ == "l1"


@pytest.mark.needs("autodiff")
def test_a_class_is_no_nest(fw: Framework) -> None:
    gradient = xp.grad(lambda nest: xp.l2(nest[0]))([fw.array(np.asarray([2.0])), Pipeline])
    assert fw.numpy(gradient[0]).tolist() == [4.0] and gradient[1] is None


@pytest.mark.needs("autodiff")
def test_a_value_of_an_outer_gradient(fw: Framework) -> None:
    def outer(x: Any, y: Any) -> Any:
        value, slope = xp.value_and_grad(lambda y: xp.l2(x))(y)  # of the outer trace only
        return value + xp.namespace(x).sum(slope)

    x, y = fw.array(np.asarray([1.0, -2.0])), fw.array(np.asarray([3.0, 1.0]))
    assert fw.numpy(xp.grad(outer)(x, y)).tolist() == [2.0, -4.0]


@pytest.mark.needs("autodiff")
def test_aux_of_an_outer_gradient(fw: Framework) -> None:
    def outer(x: Any, y: Any) -> Any:
        (_, aux), _ = xp.value_and_grad(lambda y: (xp.l2(y), x * x), has_aux=True)(y)  # aux is of the outer trace
        return xp.namespace(x).sum(aux)

    x, y = fw.array(np.asarray([1.0, -2.0])), fw.array(np.asarray([3.0, 1.0]))
    assert fw.numpy(xp.grad(outer)(x, y)).tolist() == [2.0, -4.0]


def transformed(fw: Framework, fn: Any) -> Any:
    """The framework's own gradient function."""
    if fw.name == "torch":
        return fw.module.func.grad(fn)
    if fw.name == "jax":
        return fw.module.grad(fn)
    from autograd import grad

    return grad(fn)


@autodiff
def test_inside_of_the_frameworks_own_transform(fw: Framework) -> None:
    """All of what comes out stays on the graph: value, auxiliary array and gradient."""
    x, y = fw.array(np.asarray([1.0, -2.0])), fw.array(np.asarray([3.0, 1.0]))

    def outer(x: Any, y: Any) -> Any:
        ns = xp.namespace(x)
        (value, aux), slope = xp.value_and_grad(lambda x: (ns.sum(y * x**3), x * x), has_aux=True)(x)
        return value + 10 * ns.sum(aux) + 100 * ns.sum(slope)

    want = 3 * np.asarray([3.0, 4.0]) + 10 * np.asarray([2.0, -4.0]) + 100 * 6 * np.asarray([3.0, -2.0])
    assert fw.numpy(transformed(fw, outer)(x, y)).tolist() == want.tolist()
    by_penalty = transformed(fw, lambda x: xp.gradient_penalty(lambda x: x**3, x, reduction="sum", target_norm=0))
    assert fw.numpy(by_penalty(x)).tolist() == (36 * np.asarray([1.0, -8.0])).tolist()  # of 9 x^4


@autodiff
@pytest.mark.without("numpy", reason="autograd has no cheaper gradients than those that can be differentiated")
def test_gradients_that_are_constants(fw: Framework) -> None:
    """As the adapters give them to what only reports them."""

    def outer(x: Any) -> Any:
        backend, ns = backends.backend_of(x), xp.namespace(x)
        assert backend is not None
        value, _, pull = backend.autodiff.vjp(lambda leaves: (ns.sum(leaves[0] ** 3), []), [x], again=False)
        return value + ns.sum(pull(ns.ones_like(value))[0])

    assert fw.numpy(xp.grad(outer)(fw.array(np.asarray([1.0, -2.0])))).tolist() == [3.0, 12.0]


@pytest.mark.needs("autodiff")
def test_gradient_through_complex_numbers(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))
    got = fw.numpy(xp.grad(lambda x: xp.l1(x * (3 + 4j)))(x))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [5.0, -5.0])
