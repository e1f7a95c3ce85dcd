"""Gradients of arrays whose library has none, by another that takes them by DLPack: the same contract once more."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.arrays import test_gradients as contract
from tests.conftest import SELECTED
from tests.helpers.harness import Framework, close, framework
from tests.matrix.cases import CASES, Case, arrays_of, options_of
from tests.penalties.test_gradient_penalties import PARAMS, PENALTIES, X, critic, half_square, params_of
from xpenalties import backends, namespace

pytestmark = pytest.mark.mixed
WAYS = [("strict", "torch"), ("strict", "jax"), ("numpy", "torch"), ("numpy", "jax")]
WAYS = [way for way in WAYS if {*way} <= {*SELECTED}]


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make all of what differentiates but `names` look as if it were not installed."""
    hidden = {"autograd", "torch", "jax"} - {*names}
    monkeypatch.setattr("xpenalties._core.optional.find_spec", lambda name: None if name in hidden else find_spec(name))


@pytest.fixture(params=WAYS, ids="-by-".join)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Framework, Framework]:
    owner, lender = request.param
    only(monkeypatch, lender)
    return framework(owner), framework(lender)


def name_of(fw: Framework) -> str:
    return {"strict": "array_api_strict"}.get(fw.name, fw.name)


@pytest.mark.parametrize(
    "test",
    [
        contract.test_of_an_array,
        contract.test_of_a_nest,
        contract.test_of_all_kinds_of_nests,
        contract.test_of_nothing_used,
        contract.test_norm,
        contract.test_norm_is_differentiated,
        contract.test_aux,
        contract.test_is_linear,
        contract.test_composes_to_any_order,
        contract.test_inner_values_stay_on_the_outer_graph,
        contract.test_the_inner_function_may_be_of_the_outer_argument,
        contract.test_a_value_of_an_outer_gradient,
        contract.test_aux_of_an_outer_gradient,
        contract.test_unused_inside_of_a_gradient,
        contract.test_an_exception_leaves_no_trace_open,
        contract.test_gradient_through_complex_numbers,
        contract.test_a_class_is_no_nest,
    ],
    ids=lambda test: test.__name__,
)
def test_contract(way: tuple[Framework, Framework], test: Any) -> None:
    test(way[0])


@pytest.mark.parametrize("case", [case for case in CASES if case.fn is not None], ids=lambda case: case.id)
def test_rows(way: tuple[Framework, Framework], case: Case) -> None:
    """Values and gradients as those of the definition; a key where the lender wants one."""
    owner, lender = way
    options = {**options_of(case, owner), **({"rng": lender.key(0)} if "rng" in case.options else {})}
    got = case(*arrays_of(case, owner), reduction="none", **options)
    assert type(got) is type(owner.array(X))
    close(owner, got, case.terms(*case.arrays))
    for dtype in owner.dtypes:
        assert case(*arrays_of(case, owner, dtype), **options).dtype == owner.dtype(
            "float64" if dtype == "float64" else "float32"
        )


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "Jacobian"])
def test_gradient_of_a_gradient_penalty(way: tuple[Framework, Framework], name: str) -> None:
    """By the critic's parameters, equal to what autograd finds."""
    owner, _ = way
    ours, _ = PENALTIES[name]
    alpha = np.asarray([0.1, 0.9, 0.5, 0.0, 1.0])
    numpy = framework("numpy")
    value, gradient = xp.value_and_grad(ours)(params_of(owner), *map(owner.array, (X, X[::-1], alpha)))
    with pytest.MonkeyPatch.context() as patch:
        only(patch, "autograd")
        want = xp.value_and_grad(ours)(params_of(numpy), *map(numpy.array, (X, X[::-1], alpha)))
    close(owner, value, want[0], rtol=1e-12)
    for key in PARAMS:
        close(owner, gradient[key], want[1][key], rtol=1e-12, atol=1e-14)
        assert type(gradient[key]) is type(owner.array(X)) and gradient[key].dtype == owner.dtype("float64")


def test_a_critic_with_arrays_of_its_own(way: tuple[Framework, Framework]) -> None:
    """They are passed, by a nest that is called: what a function captures is not lent, and the error says so."""
    owner, lender = way
    x, params = owner.array(X), params_of(owner)
    if (owner.name, lender.name) != ("numpy", "jax"):  # which takes NumPy's beside its own
        note = f"In gradient_penalty: arrays of {name_of(owner)} are passed to {lender.name} here. Pass all arrays"
        with pytest.raises(TypeError, match=note):
            xp.gradient_penalty(lambda x: critic(params, x), x)
    value = xp.value_and_grad(lambda params, x: xp.gradient_penalty(lambda x: critic(params, x), x))(params, x)[0]
    close(owner, value, PENALTIES["two-sided"][1](PARAMS))


def test_nothing_is_compiled_for_a_loan(way: tuple[Framework, Framework], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor before one or after: the arrays are of a framework without a compiler."""
    owner, lender = way
    asked: list[str] = []
    monkeypatch.setattr(
        "xpenalties._compilation.compiled._compiler", lambda library: lambda name, fn, options: asked.append(name) or fn
    )
    compiled = xp.compile(xp.l1)
    gradient = xp.grad(compiled)(owner.array(X))
    assert np.array_equal(owner.numpy(gradient), np.sign(X)) and asked == []
    compiled(owner.array(X))
    assert asked == []
    compiled(lender.array(X, "float32"))
    assert asked == ["l1"]


def test_all_arguments_are_lent(way: tuple[Framework, Framework]) -> None:
    owner, lender = way
    seen = []

    def fn(x: Any, factor: Any, nest: Any, *, mask: Any, name: str) -> Any:
        arrays = (x, factor, nest["deep"][0], mask)
        seen.extend(backends.backend_of(each).name for each in arrays)  # type: ignore[union-attr]
        assert name == "text" and nest["plain"] == 3.0
        ns = namespace(x)
        return ns.sum(ns.where(mask, x * factor * nest["deep"][0], 0.0))

    given = (
        owner.array(np.asarray([1.0, 2.0])),
        owner.array(np.asarray(3.0)),
        {"deep": [owner.array(X[0, :2])], "plain": 3.0},
    )
    mask = owner.array(np.asarray([True, False]))
    gradient = xp.grad(fn)(*given, mask=mask, name="text")
    assert seen == [lender.name] * 4
    close(owner, gradient, [3 * X[0, 0], 0.0])


def test_an_error_says_whose_arrays_they_are(way: tuple[Framework, Framework]) -> None:
    owner, lender = way

    def raises(x: Any) -> Any:
        raise RuntimeError("mine")

    for call, name in (
        (lambda: xp.grad(raises)(owner.array(X)), "grad"),
        (lambda: xp.jacobian_penalty(raises, owner.array(X)), "jacobian_penalty"),
    ):
        with pytest.raises(RuntimeError, match=r"^mine") as caught:
            call()
        assert caught.value.__notes__[-1] == (
            f"In {name}: arrays of {name_of(owner)} are passed to {lender.name} here. Pass all arrays that a function "
            "needs as its arguments, and compute with `namespace(x)`."
        )
    with pytest.raises(TypeError, match=rf"`fn` must return a {lender.name} array, like its input, got numpy.ndarray"):
        xp.gradient_penalty(lambda x: np.ones(5), owner.array(X))
    with pytest.raises(TypeError, match=r"^grad: `fn` must compute with `namespace\(x\)`, got an array taken out of"):
        xp.grad(lambda x: namespace(x).sum(np.linalg.norm(x)))(owner.array(X))
    with pytest.raises(TypeError, match=r"^grad: the first argument must hold real arrays, got .*complex"):
        xp.grad(xp.l2)(owner.array(X * 1j))


def test_the_device_is_the_owners() -> None:
    strict = framework("strict")
    device = strict.module.Device("device1")
    x = strict.array(X).to_device(device)
    (value, aux), gradient = xp.value_and_grad(lambda x: (xp.l2(x), 2 * x), has_aux=True)(x)
    terms = xp.gradient_penalty(half_square, x, reduction="none")
    assert value.device == aux.device == gradient.device == terms.device == device


def test_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "torch")
    x, y = X.copy(), X.T
    seen: dict[str, Any] = {}

    def fn(x: Any, y: Any) -> Any:
        seen.update(x=x, y=y)
        return (x * x).sum(), y

    (_, same), gradient = xp.value_and_grad(fn, has_aux=True)(x, y)
    assert seen["x"].data_ptr() == x.ctypes.data and seen["y"].data_ptr() == y.ctypes.data
    assert np.shares_memory(same, y) and gradient.flags.writeable
    assert not seen["x"].grad_fn and seen["x"].grad is None


def laid_out() -> dict[str, np.ndarray]:
    locked = np.ones((2, 3))
    locked.flags.writeable = False
    record = np.ones(3, dtype=[("a", "f4"), ("b", "f8")])["b"]
    return {
        "backwards": np.arange(3.0)[::-1],
        "mirrored": np.arange(6.0).reshape(2, 3)[:, ::-1],
        "with gaps": np.arange(16.0).reshape(4, 4)[::2, 1:],
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
        "read-only": locked,
        "of other bytes": np.arange(3.0).astype(">f8"),
        "of a record": record,
        "scalar": np.float64(3.0),  # type: ignore[dict-item]
        "0-d": np.asarray(3.0),
        "empty": np.zeros((0, 3)),
        "half": np.arange(3.0, dtype=np.float16),
        "single": np.arange(3.0, dtype=np.float32),
    }


@pytest.mark.parametrize("lender", [lender for owner, lender in WAYS if owner == "numpy"])
@pytest.mark.parametrize("name", laid_out())
def test_all_of_numpys_arrays(monkeypatch: pytest.MonkeyPatch, lender: str, name: str) -> None:
    """However they lie in memory; PyTorch's from_dlpack ends the process at a negative stride, JAX refuses gaps."""
    only(monkeypatch, lender)
    x = laid_out()[name]
    value, gradient = xp.value_and_grad(lambda x, y: xp.l2(x * y))(x, x)
    want = np.asarray(x, dtype=np.float64)
    np.testing.assert_allclose(value, np.sum(want**4), rtol=1e-3 if name == "half" else 1e-12)
    np.testing.assert_allclose(gradient, 2 * want**3, rtol=1e-3 if name == "half" else 1e-12)
    assert gradient.dtype == x.dtype.newbyteorder("=") and np.shape(gradient) == np.shape(x)


@pytest.mark.parametrize("lender", [lender for owner, lender in WAYS if owner == "strict"])
def test_strict_arrays_backwards(monkeypatch: pytest.MonkeyPatch, lender: str) -> None:
    only(monkeypatch, lender)
    strict = framework("strict")
    x = strict.module.flip(strict.array(X))
    close(strict, xp.grad(xp.l2)(x), 2 * X[::-1, ::-1])


def test_what_is_no_number_is_left_as_it_is(way: tuple[Framework, Framework]) -> None:
    names = np.asarray(["a", None])
    dates = np.asarray(["2026-01-01"], dtype="M8[D]")

    def fn(x: Any, names: Any, *, dates: Any) -> Any:
        return xp.l2(x), (names, dates)

    gradient, aux = xp.grad(fn, has_aux=True)(way[0].array(X), names, dates=dates)
    close(way[0], gradient, 2 * X)
    assert aux[0] is names and aux[1] is dates


def test_numbers_and_scalars_beside_them(way: tuple[Framework, Framework]) -> None:
    owner, _ = way
    x = owner.array(X)
    options = {"where": owner.array(np.asarray([True, False, True, True, False])), "normalizer": np.float64(2.0)}
    got = xp.gradient_penalty(half_square, x, reduction="sum", target_norm=np.float64(0.5), **options)
    kept = X[[0, 2, 3]]
    close(owner, got, np.sum((np.linalg.norm(kept, axis=1) - 0.5) ** 2) / 2)


def test_jax_lends_64_bits_and_switches_back(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "jax")
    import jax

    before = jax.config.jax_enable_x64
    x = np.asarray([1.0, 1e-30])
    with jax.enable_x64(False):
        value, gradient = xp.value_and_grad(xp.l2)(x)
        assert not jax.config.jax_enable_x64
        assert value.dtype == gradient.dtype == np.float64 and gradient.tolist() == [2.0, 2e-30]
        assert xp.grad(xp.l2)(x.astype(np.float32)).dtype == np.float32
        with pytest.raises(RuntimeError):
            xp.grad(lambda x: raise_())(x)
        assert not jax.config.jax_enable_x64
    assert jax.config.jax_enable_x64 == before


def raise_() -> Any:
    raise RuntimeError("mine")


def test_random_numbers_are_the_lenders(way: tuple[Framework, Framework]) -> None:
    owner, lender = way
    real, fake = owner.array(X), owner.array(np.zeros_like(X))
    if lender.name == "jax":
        with pytest.raises(
            TypeError, match=r"^interpolated_gradient_penalty: `rng` must be a JAX key, got NoneType"
        ) as got:
            xp.interpolated_gradient_penalty(half_square, real, fake)
        assert "are passed to jax here" in got.value.__notes__[-1]
    keys = [lender.key(0), lender.key(0), lender.key(1)]
    if lender.name == "torch":
        keys = [np.random.default_rng(seed) for seed in (0, 0, 1)]
    values = [float(xp.interpolated_gradient_penalty(half_square, real, fake, rng=rng)) for rng in keys]
    assert values[0] == values[1] != values[2]


def test_torch_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fn(x: Any) -> Any:
        seen.append(backends.backend_of(x).name)  # type: ignore[union-attr]
        return xp.l2(x)

    strict, numpy = framework("strict"), framework("numpy")
    for installed in (("torch", "jax"), ("jax",), ("autograd", "torch", "jax")):
        only(monkeypatch, *installed)
        xp.grad(fn)(strict.array(X))
        xp.grad(fn)(numpy.array(X))
    assert seen == ["torch", "torch", "jax", "jax", "torch", "numpy"]


def test_modes_of_pytorch_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    only(monkeypatch, "torch")
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            value, gradient = xp.value_and_grad(xp.l2)(X)
            assert gradient.tolist() == (2 * X).tolist() and type(value) is np.ndarray
            assert xp.gradient_penalty(half_square, X, target_norm=0) == pytest.approx((X**2).sum() / 5)
