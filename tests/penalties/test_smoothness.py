"""Total variation: kinks, masks, weights, short axes, numbers of any size, half precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, curvature, first_and_second

autodiff = pytest.mark.needs("autodiff")
MODES = ("anisotropic", "isotropic", "squared")


def test_of_a_square_in_an_image_is_its_perimeter(fw: Framework) -> None:
    image = np.zeros((6, 7))
    image[2:4, 1:5] = 3.0
    x = fw.array(image)
    assert float(xp.total_variation(x, axis=(0, 1))) == 3.0 * (2 + 2 + 4 + 4)
    assert float(xp.total_variation(x, axis=(0, 1), mode="squared")) == 9.0 * (2 + 2 + 4 + 4)
    corner = 1  # where both differences begin at one element
    isotropic = float(xp.total_variation(x, axis=(0, 1), mode="isotropic"))
    assert isotropic == pytest.approx(3.0 * (12 - 2 * corner + corner * math.sqrt(2)))


def test_a_ramp_has_no_second_differences(fw: Framework) -> None:
    ramp = np.arange(12.0).reshape(3, 4)
    for mode in MODES:
        assert float(xp.total_variation(fw.array(ramp), axis=(0, 1), order=2, mode=mode)) == 0.0
    assert fw.numpy(xp.total_variation(fw.array(ramp**3), order=4)) == 0.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_axes_that_are_too_short(fw: Framework, mode: str, order: int) -> None:
    for n in range(order + 1):
        x = fw.array(np.ones((2, n)) * math.inf)
        options: dict[str, Any] = {"order": order, "mode": mode}
        assert fw.numpy(xp.total_variation(x, reduction="none", **options)).tolist() == [[0.0] * n] * 2
        assert float(xp.total_variation(x, where=fw.array(np.asarray(True)), **options)) == 0.0
        if fw.has_autodiff:
            assert (fw.numpy(xp.grad(lambda x: xp.total_variation(x, **options))(x)) == 0).all()  # noqa: B023
    one_long = fw.array(np.asarray([[1.0], [4.0], [9.0], [20.0]]))
    want = np.abs(np.diff([1.0, 4.0, 9.0, 20.0], n=order)) ** (2 if mode == "squared" else 1)
    assert float(xp.total_variation(one_long, axis=(0, 1), order=order, mode=mode)) == want.sum()


@autodiff
@pytest.mark.parametrize("mode", MODES)
def test_flat_images_have_slope_zero(fw: Framework, mode: str) -> None:
    def of(x: Any) -> Any:
        return xp.total_variation(x, axis=(0, 1), mode=mode)

    for x in (np.zeros((3, 4)), np.full((3, 4), 2.5)):
        first, second = first_and_second(fw, of, x)
        assert (first == 0).all() and (second == 0).all()
    step = np.asarray([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert all(np.isfinite(each).all() for each in first_and_second(fw, of, step))


@autodiff
def test_curvature_of_squares(fw: Framework) -> None:
    along = np.asarray([1.0, -2.0, 0.5, 3.0])
    differences = np.diff(np.eye(4), axis=0)
    got = curvature(fw, lambda x: xp.total_variation(x, mode="squared"), np.zeros(4), along)
    np.testing.assert_allclose(got, 2 * differences.T @ differences @ along)


def test_a_masked_element_masks_its_differences(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, 3.0, math.nan, 4.0, 9.0]))
    where = fw.array(np.asarray([True, True, False, True, True]))
    for weights in (None, fw.array(np.asarray([1.0, 1.0, 0.0, 1.0, 1.0]))):
        call = {"where": where} if weights is None else {"weights": weights}
        assert fw.numpy(xp.total_variation(x, reduction="none", **call)).tolist() == [2.0, 0.0, 0.0, 5.0, 0.0]
        assert float(xp.total_variation(x, reduction="mean", **call)) == 7.0 / 4
        assert fw.numpy(xp.total_variation(x, order=2, reduction="none", **call)).tolist() == [0.0] * 5
        if fw.has_autodiff:
            gradient = xp.grad(lambda x: xp.total_variation(x, **call))  # noqa: B023
            assert fw.numpy(gradient(x)).tolist() == [-1.0, 1.0, 0.0, -1.0, 1.0]


@autodiff
def test_weights_of_zero_mean_the_same_if_they_are_learned(fw: Framework) -> None:
    x, weights = fw.array(np.asarray([1.0, 3.0, 8.0, 4.0])), fw.array(np.asarray([2.0, 1.0, 0.0, 1.0]))
    value, slope = xp.value_and_grad(lambda w: xp.total_variation(x, weights=w))(weights)
    assert float(value) == float(xp.total_variation(x, weights=weights)) == 4.0
    # of the second term, whose difference would reach the element with the weight 0, nothing is left
    assert fw.numpy(slope).tolist() == [2.0, 0.0, 4.0, 0.0]


def test_infinite_and_missing_numbers(fw: Framework) -> None:
    for mode in MODES:
        options = {"axis": (0, 1), "mode": mode, "reduction": "none"}
        got = fw.numpy(xp.total_variation(fw.array(np.asarray([[0.0, math.inf], [0.0, 1.0]])), **options))
        assert got.tolist() == [[math.inf, math.inf], [1.0, 0.0]]
        got = fw.numpy(xp.total_variation(fw.array(np.asarray([[0.0, math.nan], [0.0, 1.0]])), **options))
        assert np.isnan(got).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_whose_squares_overflow_or_underflow(fw: Framework, scale: float) -> None:
    x = fw.array(scale * np.asarray([[0.0, 4.0], [3.0, 0.0]]), "float32")
    for mode, want in (("anisotropic", 14.0), ("isotropic", 12.0)):
        got = xp.total_variation(x, axis=(0, 1), mode=mode)
        assert float(got) / scale == pytest.approx(want, rel=1e-6)


def test_half_precision(fw: Framework) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x = fw.array(np.asarray([-3e4, 3e4] * 50), dtype)  # a difference is beyond float16
        got = xp.total_variation(x, mode="squared")
        want = 99 * np.diff(fw.numpy(x))[0] ** 2
        assert got.dtype == fw.dtype("float32") and float(got) == pytest.approx(want, rel=1e-6)


def test_no_axes(fw: Framework) -> None:
    for axis in (-1, (0,)):
        with pytest.raises(ValueError, match=r"^total_variation: `x` must have at least 1 axis, got shape \(\)"):
            xp.total_variation(fw.array(np.asarray(1.0)), axis=axis)


@pytest.mark.only("torch", reason="only PyTorch has jagged tensors")
def test_sequences_of_different_lengths_are_refused(fw: Framework) -> None:
    rows = [fw.array(np.arange(n, dtype=np.float64)) for n in (2, 3)]
    x = fw.module.nested.nested_tensor(rows, layout=fw.module.jagged)
    with pytest.raises(TypeError, match=r"^total_variation: `x` must not be ragged here"):
        xp.total_variation(x)
