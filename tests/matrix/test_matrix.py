"""Every row of cases.py on every backend: values, dtypes, devices, compiled, differentiated once and twice, masked."""

from __future__ import annotations

import copy
from typing import Any

import array_api_compat
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, options_of

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
REDUCTIONS = ("sum", "mean", "none")
UNIT_IN_HALF = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


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
    got = case(*arrays_of(case, fw), reduction=reduction, **options_of(case, fw))
    assert tuple(got.shape) == np.shape(want)
    close(fw, got, want)


@pytest.mark.column("eager")
def test_default_reduction(case: Case, fw: Framework) -> None:
    terms = case.terms(*case.arrays)
    want = terms.sum() if case.function.spec.reduction == "sum" else terms.mean()
    close(fw, case(*arrays_of(case, fw), **options_of(case, fw)), want)


@pytest.mark.column("eager")
def test_complex(case: Case, fw: Framework) -> None:
    z = [x + 1j * np.roll(x, 1, axis=-1) for x in case.arrays]
    if not case.complex:
        with pytest.raises(TypeError, match=rf"{case.name}: `\w+` must be real floating point, got .*complex128"):
            case(*[fw.array(x) for x in z], **options_of(case, fw))
        return
    got = case(*[fw.array(x) for x in z], reduction="none", **options_of(case, fw))
    assert not np.iscomplexobj(fw.numpy(got))
    close(fw, got, case.terms(*z))


@pytest.mark.column("eager")
def test_input_is_left_alone(case: Case, fw: Framework) -> None:
    arrays = [fw.locked(x) for x in arrays_of(case, fw)]
    case(*arrays, **options_of(case, fw))
    for x, original in zip(arrays, case.arrays, strict=True):
        assert (fw.numpy(x) == original).all()


@pytest.mark.column("dtypes")
def test_dtypes(case: Case, fw: Framework) -> None:
    for dtype in fw.dtypes:
        arrays = arrays_of(case, fw, dtype)
        options = options_of(case, fw, dtype)
        got = case(*arrays, reduction="none", **options)
        working = "float64" if dtype == "float64" else "float32"
        assert got.dtype == fw.dtype(working), dtype
        plain = {k: fw.numpy(v) if isinstance(case.options[k], np.ndarray) else v for k, v in options.items()}
        rounded = copy.copy(case)
        object.__setattr__(rounded, "options", plain)
        want = rounded.terms(*[fw.numpy(x) for x in arrays])
        rtol = 1e-9 if dtype == "float64" else max(3e-5, case.rounds_in_half * UNIT_IN_HALF.get(dtype, 0.0))
        close(fw, got, want, rtol=rtol, atol=rtol * max(1.0, np.abs(want).max()))


@pytest.mark.column("dtypes")
def test_mixed_precision_meets_in_the_wider(case: Case, fw: Framework) -> None:
    first, *rest = case.arrays
    arrays = [fw.array(first, "float32"), *[fw.array(x, "float64") for x in rest]]
    got = case(*arrays, **options_of(case, fw, "float64"))
    assert got.dtype == fw.dtype("float64" if rest else "float32")


@pytest.mark.column("dtypes")
def test_device_is_kept(case: Case, fw: Framework) -> None:
    other = fw.row["devices"][-1]
    options = options_of(case, fw)
    if fw.name == "torch":
        arrays = [x.to(other) for x in arrays_of(case, fw)]
        options = {k: v.to(other) if hasattr(v, "to") else v for k, v in options.items()}
        got = case(*arrays, reduction="mean", **options)
        assert got.device.type == other  # a meta tensor has no values: nothing has looked at any
    elif fw.name == "strict":
        device = fw.module.Device(other)
        arrays = [x.to_device(device) for x in arrays_of(case, fw)]
        options = {k: v.to_device(device) if hasattr(v, "to_device") else v for k, v in options.items()}
        where = fw.module.ones(case.terms(*case.arrays).shape, dtype=fw.module.bool, device=device)
        assert case(*arrays, where=where, **options).device == device
    else:
        arrays = arrays_of(case, fw)
        got = case(*arrays, **options)
        assert array_api_compat.device(got) == array_api_compat.device(arrays[0])


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_compiled_equals_eager(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    compiled, count = fw.compile(lambda *arrays: case(*arrays, **options))
    counts = []
    for scale in (1.0, 0.75):
        arrays = [fw.array(scale * x) for x in case.arrays]
        close(fw, compiled(*arrays), fw.numpy(case(*arrays, **options)))
        counts.append(count())
    assert counts[0] == counts[1], "compiled again for other values"


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_compiled_gradient(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    gradient = xp.grad(lambda *arrays: case(*arrays, **options))
    compiled, count = fw.compile(gradient)
    arrays = arrays_of(case, fw)
    close(fw, compiled(*arrays), fw.numpy(gradient(*arrays)))
    once = count()
    compiled(*arrays)
    assert count() == once


@pytest.mark.column("jit")
@pytest.mark.needs("jit")
def test_vmap_equals_loop(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    stacked = [np.stack([x, 0.5 * x, -x]) for x in case.arrays]
    got = fw.vmap(lambda *arrays: case(*arrays, **options))(*[fw.array(x) for x in stacked])
    want = [fw.numpy(case(*[fw.array(x[i]) for x in stacked], **options)) for i in range(3)]
    close(fw, got, np.stack(want), rtol=1e-7, atol=1e-8)


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    for i, x in enumerate(case.arrays):

        def of(moved: Any, *others: Any, i: int = i) -> Any:
            return case(*others[:i], moved, *others[i:], reduction="sum", **options)

        others = [y for j, y in enumerate(case.arrays) if j != i]
        want = finite_difference(lambda m: case.terms(*others[:i], m, *others[i:]).sum(), x)  # noqa: B023
        close(fw, xp.grad(of)(fw.array(x), *[fw.array(y) for y in others]), want, rtol=1e-6, atol=1e-8)


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_slope_at_kinks(case: Case, fw: Framework) -> None:
    for at, want in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        options = {"reduction": "sum", **options_of(case, fw)}
        gradient = fw.once(xp.grad(lambda *arrays, options=options: case(*arrays, **options)))
        close(fw, gradient(first, *others), np.asarray(want, dtype=np.float64))


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    direction = np.random.default_rng(1).standard_normal(case.arrays[0].shape)
    gradient = fw.once(xp.grad(lambda *arrays: case(*arrays, **options)))
    _, *rest = arrays_of(case, fw)

    def along(x: Any, v: Any) -> Any:
        return xp.namespace(x).sum(gradient(x, *rest) * v)

    got = fw.once(xp.grad(along))(fw.array(case.arrays[0]), fw.array(direction))
    step, weights = 1e-3, {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    want = np.zeros_like(direction)
    for k, weight in weights.items():
        for sign in (1, -1):
            moved = fw.array(case.arrays[0] + sign * k * step * direction)
            want += sign * weight * fw.numpy(gradient(moved, *rest)) / step
    close(fw, got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient_is_finite_at_kinks(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    gradient = xp.grad(case)
    for at, _ in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        second = xp.grad(lambda x, *r: xp.namespace(x).sum(gradient(x, *r, **options) ** 2))
        got = fw.once(second)(first, *others)
        assert np.isfinite(fw.numpy(got)).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_keeps_the_dtype(case: Case, fw: Framework) -> None:
    options = options_of(case, fw, "float32")
    for dtype in fw.dtypes:
        gradient = fw.once(xp.grad(lambda *arrays: case(*arrays, **options)))(*arrays_of(case, fw, dtype))
        assert gradient.dtype == fw.dtype(dtype)
        assert np.isfinite(fw.numpy(gradient)).all()


@pytest.mark.column("eager")
def test_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if not isinstance(case.options[k], np.ndarray)}
    empty = [case.changed(lambda x: x[:0])]
    if not case.is_linear:  # a linear map has a feature at least
        empty.append(case.changed(lambda x: x[..., :0]))
    for given in empty:
        arrays = [fw.array(x) for x in given]
        for reduction in ("sum", "mean"):
            got = case(*arrays, reduction=reduction, **options)
            assert tuple(got.shape) == () and fw.numpy(got) == 0
        where = fw.array(np.asarray(True))
        assert fw.numpy(case(*arrays, where=where, reduction="mean", **options)) == 0
        none = case(*arrays, reduction="none", **options)
        assert (fw.numpy(none) == 0).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_of_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if not isinstance(case.options[k], np.ndarray)}
    arrays = [fw.array(x) for x in case.changed(lambda x: x[:0])]
    gradient = xp.grad(lambda *arrays: case(*arrays, **options))(*arrays)
    assert tuple(gradient.shape) == tuple(arrays[0].shape)


@pytest.mark.column("eager")
def test_refused(case: Case, fw: Framework) -> None:
    for options, kind, message in case.bad:
        with pytest.raises(kind, match=f"^{case.name}: {message}"):
            case(*arrays_of(case, fw), **options)


@pytest.mark.column("eager")
def test_refused_arrays(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    names = case.function.spec.arrays
    takes = "" if case.fn is None else "`fn` and "
    with pytest.raises(
        TypeError,
        match=rf"^{case.name}: takes {takes}{len(names)} arrays? \(.*\), got {len(names) + 1} by position. Pass",
    ):
        case(*arrays, arrays[0], **options)
    with pytest.raises(
        TypeError, match=f"^{case.name}: `{names[0]}` must be an array, got builtins.list. Pass a NumPy"
    ):
        case(case.arrays[0].tolist(), *arrays[1:], **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `{names[0]}` must be real .*got .*int.*Cast it first"):
        case(fw.array(np.ones(case.arrays[0].shape, dtype=np.int64)), *arrays[1:], **options)
    if len(arrays) > 1 and not case.is_linear:  # test_linear.py has what a linear map must be
        wider = fw.array(np.zeros((2, *case.arrays[1].shape)))
        with pytest.raises(
            ValueError, match=f"^{case.name}: `{names[0]}` and `{names[1]}` must have the same shape, got .*Broadcast"
        ):
            case(arrays[0], wider, **options)
