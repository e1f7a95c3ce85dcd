"""Every statistic of samples in cases.py with `where` and `weights`, which are of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix import oracle
from tests.matrix.cases import STATISTICS, Case, arrays_of, at_once, options_of
from tests.matrix.test_gradients import finite_difference

pytestmark = pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case.id)


def without_first(case: Case) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return the arrays with NaN in place of the first samples, those without these samples, and the mask."""
    ndim = len(case.selected_shape)
    where = (np.arange(case.arrays[0].shape[0]) > 0).reshape(-1, *[1] * (ndim - 1))
    poisoned = case.changed(lambda x: np.concatenate([np.full_like(x[:1], np.nan), x[1:]]))
    return poisoned, case.changed(lambda x: x[1:]), where


def weights_of(case: Case) -> np.ndarray:
    return np.random.default_rng(4).random(case.selected_shape) + 0.1


def weighted(case: Case, arrays: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    definition = case.oracle or getattr(oracle, case.name)
    return np.asarray(definition(*arrays, **case.options, weights=weights))


@pytest.mark.column("eager")
def test_masked_samples_are_left_out(case: Case, fw: Framework) -> None:
    poisoned, rest, where = without_first(case)
    weights = weights_of(case)

    def values(poisoned: list[Any], rest: list[Any], where: Any, weights: Any, of_rest: Any) -> dict[str, Any]:
        options = options_of(case, fw)
        return {
            "masked": case(*poisoned, where=where, **options),
            "left": case(*rest, **options),
            "masked, weighted": case(*poisoned, where=where, weights=weights, normalizer=7, **options),
            "left, weighted": case(*rest, weights=of_rest, normalizer=7, **options),
        }

    inputs = [[fw.array(x) for x in arrays] for arrays in (poisoned, rest)]
    masks = (fw.array(x) for x in (where, weights, weights[1:]))
    got = at_once(case, fw, values)(*inputs, *masks)
    close(fw, got["masked"], fw.numpy(got["left"]))
    close(fw, got["masked, weighted"], fw.numpy(got["left, weighted"]))


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradients_of_masked_samples(case: Case, fw: Framework) -> None:
    """First and second gradients are those of a batch without the samples, and 0 for these."""
    poisoned, rest, where = without_first(case)
    options = options_of(case, fw)

    def gradients(arrays: list[Any], where: Any) -> list[Any]:
        first = xp.grad(lambda *arrays: case(*arrays, where=where, **options))
        return [first(*arrays), xp.grad(lambda *arrays: xp.namespace(arrays[0]).sum(first(*arrays) ** 2))(*arrays)]

    masked = fw.once(gradients)([fw.array(x) for x in poisoned], fw.array(where))
    left = fw.once(gradients)([fw.array(x) for x in rest], fw.array(np.asarray(True)))
    for got, want in zip(masked, left, strict=True):
        assert (fw.numpy(got)[0] == 0).all()
        close(fw, got[1:], fw.numpy(want), rtol=1e-7, atol=1e-9)


@pytest.mark.column("eager")
def test_weights(case: Case, fw: Framework) -> None:
    weights = weights_of(case)
    want = weighted(case, case.arrays, weights)

    def values(arrays: list[Any], weights: Any) -> list[Any]:
        return [case(*arrays, weights=weights, reduction=r, **options_of(case, fw)) for r in ("sum", "mean", "none")]

    for got in at_once(case, fw, values)(arrays_of(case, fw), fw.array(weights)):
        assert tuple(got.shape) == ()
        close(fw, got, want)


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradients_with_weights(case: Case, fw: Framework) -> None:
    weights = weights_of(case)
    options = options_of(case, fw)

    def gradients(arrays: list[Any], weights: Any) -> list[Any]:
        by_first = xp.grad(lambda x: case(x, *arrays[1:], weights=weights, **options))(arrays[0])
        return [by_first, xp.grad(lambda w: case(*arrays, weights=w, **options))(weights)]

    by_first, by_weights = at_once(case, fw, gradients)(arrays_of(case, fw), fw.array(weights))
    first, *others = case.arrays
    close(fw, by_first, finite_difference(lambda x: weighted(case, [x, *others], weights), first), rtol=1e-6, atol=1e-8)
    want = finite_difference(lambda w: weighted(case, case.arrays, w), weights)
    close(fw, by_weights, want, rtol=1e-6, atol=1e-8)


@pytest.mark.column("eager")
@pytest.mark.newest
@pytest.mark.representative
def test_no_sample_left(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(x) for x in case.changed(lambda x: np.full(x.shape, np.nan))]

    def values(arrays: list[Any], nothing: Any, zero: Any) -> dict[str, Any]:
        return {
            "where": case(*arrays, where=nothing, **options),
            "weights": case(*arrays, weights=zero, **options),
            "normalizer": case(*arrays, where=nothing, normalizer=zero, **options),
        }

    got = fw.once(values)(arrays, fw.array(np.asarray(False)), fw.array(np.asarray(0.0)))
    for name, value in got.items():
        assert tuple(value.shape) == (), name
        assert fw.numpy(value) == 0, name


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
@pytest.mark.newest
@pytest.mark.representative
def test_gradient_of_no_sample(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(x) for x in case.changed(lambda x: np.full(x.shape, np.nan))]
    gradient = xp.grad(lambda *arrays: case(*arrays, where=fw.array(np.asarray(False)), **options))
    assert (fw.numpy(fw.once(gradient)(*arrays)) == 0).all()


@pytest.mark.column("dtypes")
@pytest.mark.newest
@pytest.mark.representative
def test_weights_do_not_change_the_dtype(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw, "float32"), options_of(case, fw, "float32")
    for weights in (fw.array(weights_of(case)), fw.array(weights_of(case), "float32")):
        got = case(*arrays, weights=weights, where=fw.array(np.asarray(True)), **options)
        assert got.dtype == fw.dtype("float32")


@pytest.mark.column("eager")
@pytest.mark.newest
@pytest.mark.representative
def test_refused_masks(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    wrong = np.ones((9, *case.selected_shape))
    with pytest.raises(TypeError, match=f"^{case.name}: `where` must be a boolean array, got .*float"):
        case(*arrays, where=fw.array(np.asarray(1.0)), **options)
    with pytest.raises(
        ValueError, match=rf"^{case.name}: `where` must broadcast to the samples' shape \(.*, got \(9,.* without the"
    ):
        case(*arrays, where=fw.array(wrong > 0), **options)
