"""Every row of cases.py on every backend: values, dtypes, devices, size 0, and what is refused."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import array_api_compat
import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, at_once, options_of

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
REDUCTIONS = ("sum", "mean", "none")
UNIT_IN_HALF = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.mark.column("eager")
def test_value(case: Case, fw: Framework) -> None:
    terms, options = case.terms(*case.arrays), options_of(case, fw)
    wanted = {"sum": terms.sum(), "mean": terms.mean(), "none": terms}
    wanted["default"] = wanted["sum" if case.function.spec.reduction == "sum" else "mean"]  # type: ignore[attr-defined]

    def values(*arrays: Any) -> dict[str, Any]:
        reduced = {reduction: case(*arrays, reduction=reduction, **options) for reduction in REDUCTIONS}
        return {**reduced, "default": case(*arrays, **options)}

    got = at_once(case, fw, values)(*arrays_of(case, fw))
    for name, want in wanted.items():
        assert tuple(got[name].shape) == np.shape(want), name
        close(fw, got[name], want)


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
@pytest.mark.representative
def test_input_is_left_alone(case: Case, fw: Framework) -> None:
    arrays = [fw.locked(x) for x in arrays_of(case, fw)]
    case(*arrays, **options_of(case, fw))
    for x, original in zip(arrays, case.arrays, strict=True):
        assert (fw.numpy(x) == original).all()


@pytest.mark.column("dtypes")
@pytest.mark.representative
def test_dtypes(case: Case, fw: Framework) -> None:
    arrays = {dtype: arrays_of(case, fw, dtype) for dtype in fw.dtypes}
    options = {dtype: options_of(case, fw, dtype) for dtype in fw.dtypes}

    def values(arrays: dict[str, list[Any]]) -> dict[str, Any]:
        return {dtype: case(*arrays[dtype], reduction="none", **options[dtype]) for dtype in fw.dtypes}

    for dtype, got in fw.once(values)(arrays).items():
        working = "float64" if dtype == "float64" else "float32"
        assert got.dtype == fw.dtype(working), dtype
        plain = {k: fw.numpy(v) if isinstance(case.options[k], np.ndarray) else v for k, v in options[dtype].items()}
        rounded = copy.copy(case)
        object.__setattr__(rounded, "options", plain)
        want = rounded.terms(*[fw.numpy(x) for x in arrays[dtype]])
        rtol = 1e-9 if dtype == "float64" else max(3e-5, case.rounds_in_half * UNIT_IN_HALF.get(dtype, 0.0))
        close(fw, got, want, rtol=rtol, atol=rtol * max(1.0, np.abs(want).max()))


@pytest.mark.column("dtypes")
@pytest.mark.representative
def test_mixed_precision_meets_in_the_wider(case: Case, fw: Framework) -> None:
    first, *rest = case.arrays
    arrays = [fw.array(first, "float32"), *[fw.array(x, "float64") for x in rest]]
    got = case(*arrays, **options_of(case, fw, "float64"))
    assert got.dtype == fw.dtype("float64" if rest else "float32")


@pytest.mark.column("dtypes")
@pytest.mark.representative
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


@pytest.mark.column("eager")
@pytest.mark.representative
def test_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if not isinstance(case.options[k], np.ndarray)}
    empty = [case.changed(lambda x: x[:0])]
    if not case.is_linear:  # a linear map has a feature at least
        empty.append(case.changed(lambda x: x[..., :0]))

    def values(arrays: list[Any], where: Any) -> dict[str, Any]:
        return {
            **{reduction: case(*arrays, reduction=reduction, **options) for reduction in REDUCTIONS},
            "masked": case(*arrays, where=where, reduction="mean", **options),
        }

    for inputs in empty:
        got = fw.once(values)([fw.array(x) for x in inputs], fw.array(np.asarray(True)))
        for name, value in got.items():
            assert (fw.numpy(value) == 0).all(), name
            assert name == "none" or tuple(value.shape) == ()


@pytest.mark.column("eager")
@pytest.mark.representative
def test_size_zero_in_half_precision(case: Case, fw: Framework) -> None:
    """The dtype is that of arrays that are not empty."""
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        options = options_of(case, fw, dtype)
        fitting = {k: v for k, v in options.items() if not isinstance(case.options[k], np.ndarray)}

        def values(arrays: list[Any], options: dict[str, Any]) -> list[Any]:
            return [case(*arrays, reduction=reduction, **options) for reduction in REDUCTIONS]

        full = fw.once(partial(values, options=options))(arrays_of(case, fw, dtype))
        empty = fw.once(partial(values, options=fitting))([fw.array(x, dtype) for x in case.changed(lambda x: x[:0])])
        assert [x.dtype for x in empty] == [x.dtype for x in full]
        if case.fn is None:
            assert all(x.dtype == fw.dtype("float32") for x in empty)


@pytest.mark.column("eager")
def test_refused(case: Case, fw: Framework) -> None:
    for options, kind, message in case.bad:
        with pytest.raises(kind, match=f"^{case.name}: {message}"):
            case(*arrays_of(case, fw), **options)


@pytest.mark.column("eager")
@pytest.mark.representative
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
    # test_linear_divergences.py and test_cross_orthogonality.py have what shapes must be that may differ
    if len(arrays) > 1 and not case.is_linear and case.function.spec.same_shape:  # type: ignore[attr-defined]
        wider = fw.array(np.zeros((2, *case.arrays[1].shape)))
        with pytest.raises(
            ValueError, match=f"^{case.name}: `{names[0]}` and `{names[1]}` must have the same shape, got .*Broadcast"
        ):
            case(arrays[0], wider, **options)
