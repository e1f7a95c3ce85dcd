"""Every row of cases.py on every backend: values, dtypes, devices, compiled, differentiated once and twice, masked."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from array_api_extra.testing import assert_close

import xpenalties as xp
from cases import CASES, Case
from harness import Framework

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
REDUCTIONS = ("sum", "mean", "none")


@pytest.fixture(autouse=True)
def _lacking(request: pytest.FixtureRequest, fw: Framework) -> None:
    reason = request.getfixturevalue("case").lacking.get(fw.name)
    if reason:
        pytest.skip(reason)


def arrays_of(case: Case, fw: Framework, dtype: str | None = None) -> list[Any]:
    return [fw.array(x, dtype) for x in case.arrays]


def options_of(case: Case, fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {k: fw.array(v, dtype) if isinstance(v, np.ndarray) else v for k, v in case.options.items()}


def close(fw: Framework, got: Any, want: Any, *, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    assert_close(fw.numpy(got), np.asarray(want, dtype=np.float64), rtol=rtol, atol=atol)


def finite_difference(fn: Any, x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Gradient of the scalar function `fn` by differences of sixth order."""
    gradient = np.zeros_like(x)
    weights = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    for index in np.ndindex(x.shape):
        for k, weight in weights.items():
            for sign in (1, -1):
                moved = x.copy()
                moved[index] += sign * k * step
                gradient[index] += sign * weight * fn(moved) / step
    return gradient


@pytest.mark.column("eager")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_value(case: Case, fw: Framework, reduction: str) -> None:
    terms = case.terms(*case.arrays)
    want = {"sum": terms.sum(), "mean": terms.mean(), "none": terms}[reduction]
    got = case.function(*arrays_of(case, fw), reduction=reduction, **options_of(case, fw))
    assert tuple(got.shape) == np.shape(want)
    close(fw, got, want)


@pytest.mark.column("eager")
def test_default_reduction(case: Case, fw: Framework) -> None:
    terms = case.terms(*case.arrays)
    want = terms.sum() if case.function.spec.reduction == "sum" else terms.mean()
    close(fw, case.function(*arrays_of(case, fw), **options_of(case, fw)), want)


@pytest.mark.column("eager")
def test_complex(case: Case, fw: Framework) -> None:
    z = [x + 1j * np.roll(x, 1, axis=-1) for x in case.arrays]
    if not case.complex:
        with pytest.raises(TypeError, match=rf"{case.name}: `\w+` must be real floating point, got .*complex128"):
            case.function(*[fw.array(x) for x in z], **options_of(case, fw))
        return
    got = case.function(*[fw.array(x) for x in z], reduction="none", **options_of(case, fw))
    assert not np.iscomplexobj(fw.numpy(got))
    close(fw, got, case.terms(*z))


@pytest.mark.column("eager")
def test_input_is_left_alone(case: Case, fw: Framework) -> None:
    arrays = [fw.locked(x) for x in arrays_of(case, fw)]
    case.function(*arrays, **options_of(case, fw))
    for x, original in zip(arrays, case.arrays, strict=True):
        assert (fw.numpy(x) == original).all()


@pytest.mark.column("dtypes")
def test_dtypes(case: Case, fw: Framework) -> None:
    for dtype in fw.dtypes:
        arrays = arrays_of(case, fw, dtype)
        options = options_of(case, fw, dtype)
        got = case.function(*arrays, reduction="none", **options)
        working = "float64" if dtype == "float64" else "float32"
        assert got.dtype == fw.dtype(working), dtype
        plain = {k: fw.numpy(v) if k == "center" and not isinstance(v, (str, float)) else v for k, v in options.items()}
        rounded = copy.copy(case)
        object.__setattr__(rounded, "options", plain)
        want = rounded.terms(*[fw.numpy(x) for x in arrays])
        rtol = 1e-9 if dtype == "float64" else 3e-5
        close(fw, got, want, rtol=rtol, atol=rtol * max(1.0, np.abs(want).max()))


@pytest.mark.column("dtypes")
def test_mixed_precision_meets_in_the_wider(case: Case, fw: Framework) -> None:
    first, *rest = case.arrays
    arrays = [fw.array(first, "float32"), *[fw.array(x, "float64") for x in rest]]
    got = case.function(*arrays, **options_of(case, fw, "float64"))
    assert got.dtype == fw.dtype("float64" if rest else "float32")


@pytest.mark.column("dtypes")
def test_device_is_kept(case: Case, fw: Framework) -> None:
    other = fw.row["devices"][-1]
    options = options_of(case, fw)
    if fw.name == "torch":
        arrays = [x.to(other) for x in arrays_of(case, fw)]
        options = {k: v.to(other) if hasattr(v, "to") else v for k, v in options.items()}
        got = case.function(*arrays, reduction="mean", **options)
        assert got.device.type == other  # a meta tensor has no values: nothing has looked at any
    elif fw.name == "strict":
        device = fw.module.Device(other)
        arrays = [x.to_device(device) for x in arrays_of(case, fw)]
        options = {k: v.to_device(device) if hasattr(v, "to_device") else v for k, v in options.items()}
        where = fw.module.ones(case.terms(*case.arrays).shape, dtype=fw.module.bool, device=device)
        assert case.function(*arrays, where=where, **options).device == device
    else:
        arrays = arrays_of(case, fw)
        got = case.function(*arrays, **options)
        assert getattr(got, "device", None) == getattr(arrays[0], "device", None)


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_compiled_equals_eager(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    compiled, count = fw.compile(lambda *arrays: case.function(*arrays, **options))
    counts = []
    for scale in (1.0, 0.75):
        arrays = [fw.array(scale * x) for x in case.arrays]
        close(fw, compiled(*arrays), fw.numpy(case.function(*arrays, **options)))
        counts.append(count())
    assert counts[0] == counts[1], "compiled again for other values"


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_compiled_gradient(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    gradient = xp.grad(lambda *arrays: case.function(*arrays, **options))
    compiled, count = fw.compile(gradient)
    arrays = arrays_of(case, fw)
    close(fw, compiled(*arrays), fw.numpy(gradient(*arrays)))
    once = count()
    compiled(*arrays)
    assert count() == once


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_compiled_with_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    options = options_of(case, fw)

    def masked(arrays: list[Any], where: Any, weights: Any, normalizer: Any) -> Any:
        return case.function(*arrays, where=where, weights=weights, normalizer=normalizer, **options)

    compiled, count = fw.compile(masked)
    given = (arrays_of(case, fw), fw.array(where), fw.array(weights), fw.array(3.0))
    close(fw, compiled(*given), fw.numpy(masked(*given)))
    once = count()  # for a 0-d normalizer torch.compile starts over within the first call
    compiled(*given)
    assert count() == once


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_vmap_equals_loop(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    stacked = [np.stack([x, 0.5 * x, -x]) for x in case.arrays]
    got = fw.vmap(lambda *arrays: case.function(*arrays, **options))(*[fw.array(x) for x in stacked])
    want = [fw.numpy(case.function(*[fw.array(x[i]) for x in stacked], **options)) for i in range(3)]
    close(fw, got, np.stack(want), rtol=1e-7, atol=1e-8)


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    for i, x in enumerate(case.arrays):

        def of(moved: Any, *others: Any, i: int = i) -> Any:
            return case.function(*others[:i], moved, *others[i:], reduction="sum", **options)

        others = [y for j, y in enumerate(case.arrays) if j != i]
        want = finite_difference(lambda m: case.terms(*others[:i], m, *others[i:]).sum(), x)  # noqa: B023
        close(fw, xp.grad(of)(fw.array(x), *[fw.array(y) for y in others]), want, rtol=1e-6, atol=1e-8)


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_slope_at_kinks(case: Case, fw: Framework) -> None:
    for at, want in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        gradient = xp.grad(case.function)
        options = {"reduction": "sum", **options_of(case, fw)}
        close(fw, gradient(first, *others, **options), np.asarray(want, dtype=np.float64))


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    direction = np.random.default_rng(1).standard_normal(case.arrays[0].shape)
    gradient = xp.grad(case.function)
    _, *rest = arrays_of(case, fw)

    def along(x: Any, v: Any) -> Any:
        return xp.namespace(x).sum(gradient(x, *rest, **options) * v)

    got = xp.grad(along)(fw.array(case.arrays[0]), fw.array(direction))
    step, weights = 1e-3, {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    want = np.zeros_like(direction)
    for k, weight in weights.items():
        for sign in (1, -1):
            moved = fw.array(case.arrays[0] + sign * k * step * direction)
            want += sign * weight * fw.numpy(gradient(moved, *rest, **options)) / step
    close(fw, got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient_is_finite_at_kinks(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    gradient = xp.grad(case.function)
    for at, _ in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        got = xp.grad(lambda x, *r: xp.namespace(x).sum(gradient(x, *r, **options) ** 2))(first, *others)
        assert np.isfinite(fw.numpy(got)).all()


def masks(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the terms that drops some, and weights with a zero; whole ones for a single term."""
    rng = np.random.default_rng(2)
    shape = case.terms(*case.arrays).shape
    where, weights = rng.random(shape) < 0.6, rng.random(shape) + 0.1
    if shape:
        where[(0,) * len(shape)] = False
        where[(-1,) * len(shape)] = True
        weights[(-1,) * len(shape)] = 0.5
        if where.size > 2:
            weights.reshape(-1)[1] = 0.0
    else:
        where = np.asarray(True)
    return np.asarray(where), np.asarray(weights)


def over_inputs(case: Case, kept: np.ndarray) -> np.ndarray:
    """The terms' mask in the shape of the inputs."""
    x = case.arrays[0]
    if kept.shape == x.shape:
        return kept
    kind = case.function.spec.terms({**case.function.spec.defaults, **case.options})
    if kind == "rows":
        axis = case.options.get("axis", case.function.spec.defaults["axis"])
        return np.broadcast_to(np.expand_dims(kept, axis), x.shape)
    return np.broadcast_to(kept[..., None, None] if kind == "matrices" else kept, x.shape)


@pytest.mark.column("eager")
def test_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    kept = where & (weights > 0)
    options = options_of(case, fw)
    mean_center = case.options.get("center") if isinstance(case.options.get("center"), str) else None
    poisoned = [np.where(over_inputs(case, where), x, np.nan) for x in case.arrays]
    if mean_center:  # the terms depend on which elements are kept
        w, terms = where, (case.arrays[0] - case.arrays[0][where].mean()) ** 2
        weighted = (case.arrays[0] - case.arrays[0][kept].mean()) ** 2
    else:
        w, terms = where, case.terms(*case.arrays)
        weighted = terms
    arrays = [fw.array(x) for x in poisoned]
    call = dict(where=fw.array(where), **options)
    close(fw, case.function(*arrays, reduction="none", **call), np.where(w, terms, 0))
    close(fw, case.function(*arrays, reduction="sum", **call), terms[w].sum())
    close(fw, case.function(*arrays, reduction="mean", **call), terms[w].mean())
    close(fw, case.function(*arrays, reduction="mean", normalizer=7, **call), terms[w].sum() / 7)
    close(fw, case.function(*arrays, reduction="none", normalizer=fw.array(7.0), **call), np.where(w, terms, 0) / 7)

    call["weights"] = fw.array(weights)
    total = (weighted * weights)[kept].sum()
    close(fw, case.function(*arrays, reduction="none", **call), np.where(kept, weighted * weights, 0))
    close(fw, case.function(*arrays, reduction="sum", **call), total)
    close(fw, case.function(*arrays, reduction="mean", **call), total / weights[kept].sum())
    del call["where"]
    poisoned = [np.where(over_inputs(case, weights > 0), x, np.inf) for x in case.arrays]
    if not mean_center:
        got = case.function(*[fw.array(x) for x in poisoned], reduction="mean", **call)
        close(fw, got, (terms * weights).sum() / weights.sum())


@pytest.mark.column("eager")
def test_masks_of_lower_rank(case: Case, fw: Framework) -> None:
    terms = case.terms(*case.arrays)
    options = options_of(case, fw)
    got = case.function(*arrays_of(case, fw), reduction="none", where=fw.array(np.asarray(True)), **options)
    close(fw, got, terms)
    got = case.function(
        *arrays_of(case, fw), reduction="mean", weights=fw.array(np.full((1,) * terms.ndim, 2.0)), **options
    )
    close(fw, got, terms.mean())
    if terms.ndim > 1 and not isinstance(case.options.get("center"), str):
        where = np.arange(terms.shape[-1]) != 0
        got = case.function(*arrays_of(case, fw), reduction="mean", where=fw.array(where), **options)
        close(fw, got, terms[..., where].mean())


@pytest.mark.column("eager")
def test_nothing_kept(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(np.full(x.shape, np.nan)) for x in case.arrays]
    nothing = {"where": fw.array(np.asarray(False))}
    for reduction in REDUCTIONS:
        assert (fw.numpy(case.function(*arrays, reduction=reduction, **nothing, **options)) == 0).all()
    got = case.function(*arrays, reduction="mean", normalizer=fw.array(0.0), **nothing, **options)
    assert fw.numpy(got) == 0
    weights = fw.array(np.asarray(0.0))
    assert fw.numpy(case.function(*arrays, reduction="mean", weights=weights, **options)) == 0


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_under_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    options = options_of(case, fw)
    kept = over_inputs(case, where & (weights > 0))
    poisoned = [np.where(kept, x, np.nan) for x in case.arrays]

    def of(x: Any, *rest: Any, where: Any, weights: Any) -> Any:
        return case.function(x, *rest, where=where, weights=weights, reduction="mean", **options)

    call = {"where": fw.array(where), "weights": fw.array(weights)}
    got = fw.numpy(xp.grad(of)(*[fw.array(x) for x in poisoned], **call))
    assert (got[~kept] == 0).all()
    clean = fw.numpy(xp.grad(of)(*arrays_of(case, fw), **call))
    close(fw, fw.array(got), np.where(kept, clean, 0))


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient_under_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    options = options_of(case, fw)
    kept = over_inputs(case, where & (weights > 0))
    poisoned = [fw.array(np.where(kept, x, np.nan)) for x in case.arrays]
    call = {"where": fw.array(where), "weights": fw.array(weights), **options}
    gradient = xp.grad(lambda x, *rest: case.function(x, *rest, **call))
    got = fw.numpy(xp.grad(lambda x, *rest: xp.namespace(x).sum(gradient(x, *rest) ** 2))(*poisoned))
    assert np.isfinite(got).all() and (got[~kept] == 0).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_of_nothing_kept(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(np.full(x.shape, np.nan)) for x in case.arrays]

    def of(*arrays: Any) -> Any:
        return case.function(*arrays, where=fw.array(np.asarray(False)), reduction="mean", **options)

    assert (fw.numpy(xp.grad(of)(*arrays)) == 0).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_keeps_the_dtype(case: Case, fw: Framework) -> None:
    options = options_of(case, fw, "float32")
    for dtype in fw.dtypes:
        gradient = xp.grad(lambda *arrays: case.function(*arrays, **options))(*arrays_of(case, fw, dtype))
        assert gradient.dtype == fw.dtype(dtype)
        assert np.isfinite(fw.numpy(gradient)).all()


@pytest.mark.column("eager")
def test_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if k != "center"}
    shape = case.arrays[0].shape
    for empty in {(0, *shape[1:]), (*shape[:-1], 0)}:
        arrays = [fw.array(np.zeros(empty)) for _ in case.arrays]
        for reduction in ("sum", "mean"):
            got = case.function(*arrays, reduction=reduction, **options)
            assert tuple(got.shape) == () and fw.numpy(got) == 0
        where = fw.array(np.asarray(True))
        assert fw.numpy(case.function(*arrays, where=where, reduction="mean", **options)) == 0
        none = case.function(*arrays, reduction="none", **options)
        assert (fw.numpy(none) == 0).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_of_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if k != "center"}
    arrays = [fw.array(np.zeros((0, *case.arrays[0].shape[1:]))) for _ in case.arrays]
    gradient = xp.grad(lambda *arrays: case.function(*arrays, **options))(*arrays)
    assert tuple(gradient.shape) == tuple(arrays[0].shape)


@pytest.mark.column("eager")
def test_refused(case: Case, fw: Framework) -> None:
    for options, kind, message in case.bad:
        with pytest.raises(kind, match=f"^{case.name}: {message}"):
            case.function(*arrays_of(case, fw), **options)


@pytest.mark.column("eager")
def test_refused_arrays(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    names = case.function.spec.arrays
    with pytest.raises(
        TypeError, match=rf"^{case.name}: takes {len(names)} arrays? \(.*\), got {len(names) + 1} positional"
    ):
        case.function(*arrays, arrays[0], **options)
    with pytest.raises(
        TypeError, match=f"^{case.name}: `{names[0]}` must be an array, got builtins.list. Pass a NumPy"
    ):
        case.function(case.arrays[0].tolist(), *arrays[1:], **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `{names[0]}` must be real .*got .*int.*Cast it first"):
        case.function(fw.array(np.ones(case.arrays[0].shape, dtype=np.int64)), *arrays[1:], **options)
    if len(arrays) > 1:
        wider = fw.array(np.zeros((2, *case.arrays[1].shape)))
        with pytest.raises(
            ValueError, match=f"^{case.name}: `{names[0]}` and `{names[1]}` must have the same shape, got .*Broadcast"
        ):
            case.function(arrays[0], wider, **options)


@pytest.mark.column("eager")
def test_refused_masks(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    terms = case.terms(*case.arrays)
    wrong = np.ones((9, *terms.shape))
    with pytest.raises(TypeError, match=f"^{case.name}: `where` must be a boolean array, got .*float"):
        case.function(*arrays, where=fw.array(np.asarray(1.0)), **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `weights` must be real floating point, got .*bool"):
        case.function(*arrays, weights=fw.array(np.asarray(True)), **options)
    with pytest.raises(ValueError, match=rf"^{case.name}: `where` must broadcast to the terms' shape \(.*, got \(9,"):
        case.function(*arrays, where=fw.array(wrong > 0), **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `where` must be an array, got builtins.bool"):
        case.function(*arrays, where=True, **options)
    with pytest.raises(
        ValueError, match=rf"^{case.name}: `normalizer` must be a number or a 0-d array, got shape \(2,\)"
    ):
        case.function(*arrays, normalizer=fw.array(np.ones(2)), **options)
