"""Every row of cases.py that has terms, with `where`, `weights` and `normalizer`, over inputs NaN elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix.cases import WITH_TERMS, Case, arrays_of, at_once, options_of

pytestmark = pytest.mark.parametrize("case", WITH_TERMS, ids=lambda case: case.id)
REDUCTIONS = ("sum", "mean", "none")


def masks(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A mask of terms or samples that drops some, and weights with a zero; whole ones for a single term."""
    rng = np.random.default_rng(2)
    shape = tuple(case.selected_shape)
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


def over_inputs(case: Case, kept: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The terms' mask in the shape of the input `x`."""
    kind = case.kind_of_terms
    if kind in ("elements", "neighborhoods"):
        return kept
    if kind == "rows":
        axis = case.options.get("axis", -1)
        return np.broadcast_to(np.expand_dims(kept, axis), x.shape)
    if kind == "samples":
        return np.broadcast_to(kept.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
    return np.broadcast_to(kept[..., None, None] if kind == "matrices" else kept, x.shape)


@pytest.mark.column("eager")
def test_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    kept = where & (weights > 0)
    options = options_of(case, fw)
    mean_center = case.options.get("center") if isinstance(case.options.get("center"), str) else None
    poisoned = case.changed(lambda x: np.where(over_inputs(case, where, x), x, np.nan))
    if mean_center:  # the terms depend on which elements are kept, and by which weights
        w, terms = where, (case.arrays[0] - case.arrays[0][where].mean()) ** 2
        weighted = (case.arrays[0] - np.average(case.arrays[0], weights=weights * where)) ** 2
    elif case.kind_of_terms == "neighborhoods":  # a difference from an element that is masked is 0
        w = where
        terms, weighted, by_weights = (
            case.terms(*case.changed(lambda x, of=of: np.where(of, x, np.nan))) for of in (where, kept, weights > 0)
        )
    else:
        w, terms = where, case.terms(*case.arrays)
        weighted = by_weights = terms
    total = (weighted * weights)[kept].sum()
    wanted = {
        "none": np.where(w, terms, 0),
        "sum": terms[w].sum(),
        "mean": terms[w].mean(),
        "mean by 7": terms[w].sum() / 7,
        "none by 7": np.where(w, terms, 0) / 7,
        "weighted none": np.where(kept, weighted * weights, 0),
        "weighted sum": total,
        "weighted mean": total / weights[kept].sum(),
    }
    infinite = case.changed(lambda x: np.where(over_inputs(case, weights > 0, x), x, np.inf))
    if not mean_center:
        wanted["by weights alone"] = (by_weights * weights).sum() / weights.sum()

    def values(arrays: list[Any], infinite: list[Any], where: Any, weights: Any, seven: Any) -> dict[str, Any]:
        call = {"where": where, **options}
        both = {"weights": weights, **call}
        got = {
            **{reduction: case(*arrays, reduction=reduction, **call) for reduction in REDUCTIONS},
            "mean by 7": case(*arrays, reduction="mean", normalizer=7, **call),
            "none by 7": case(*arrays, reduction="none", normalizer=seven, **call),
            **{f"weighted {reduction}": case(*arrays, reduction=reduction, **both) for reduction in REDUCTIONS},
        }
        if not mean_center:
            got["by weights alone"] = case(*infinite, reduction="mean", weights=weights, **options)
        return got

    inputs = [[fw.array(x) for x in arrays] for arrays in (poisoned, infinite)]
    got = at_once(case, fw, values)(*inputs, fw.array(where), fw.array(weights), fw.array(np.asarray(7.0)))
    assert set(got) == set(wanted)
    for name, want in wanted.items():
        close(fw, got[name], want)


@pytest.mark.column("eager")
@pytest.mark.newest
@pytest.mark.representative
def test_masks_of_lower_rank(case: Case, fw: Framework) -> None:
    terms = case.terms(*case.arrays)
    options = options_of(case, fw)
    got = case(*arrays_of(case, fw), reduction="none", where=fw.array(np.asarray(True)), **options)
    close(fw, got, terms)
    got = case(*arrays_of(case, fw), reduction="mean", weights=fw.array(np.full((1,) * terms.ndim, 2.0)), **options)
    close(fw, got, terms.mean())
    if terms.ndim > 1 and not isinstance(case.options.get("center"), str):
        where = np.arange(terms.shape[-1]) != 0
        got = case(*arrays_of(case, fw), reduction="mean", where=fw.array(where), **options)
        close(fw, got, terms[..., where].mean())


@pytest.mark.column("eager")
@pytest.mark.newest
@pytest.mark.representative
def test_nothing_kept(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(x) for x in case.changed(lambda x: np.full(x.shape, np.nan))]

    def values(arrays: list[Any], nothing: Any, zero: Any) -> dict[str, Any]:
        return {
            **{reduction: case(*arrays, reduction=reduction, where=nothing, **options) for reduction in REDUCTIONS},
            "normalizer": case(*arrays, reduction="mean", normalizer=zero, where=nothing, **options),
            "weights": case(*arrays, reduction="mean", weights=zero, **options),
        }

    got = fw.once(values)(arrays, fw.array(np.asarray(False)), fw.array(np.asarray(0.0)))
    for name, value in got.items():
        assert (fw.numpy(value) == 0).all(), name


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
def test_gradient_under_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    options = options_of(case, fw)
    poisoned = case.changed(lambda x: np.where(over_inputs(case, where & (weights > 0), x), x, np.nan))
    kept = over_inputs(case, where & (weights > 0), case.arrays[0])

    def of(x: Any, *rest: Any, where: Any, weights: Any) -> Any:
        return case(x, *rest, where=where, weights=weights, reduction="mean", **options)

    call = {"where": fw.array(where), "weights": fw.array(weights)}
    gradient = fw.once(xp.grad(of))
    got = fw.numpy(gradient(*[fw.array(x) for x in poisoned], **call))
    assert (got[~kept] == 0).all()
    clean = fw.numpy(gradient(*arrays_of(case, fw), **call))
    close(fw, fw.array(got), np.where(kept, clean, 0))


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
@pytest.mark.newest
@pytest.mark.representative
def test_gradient_by_weights_and_normalizer(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    terms = case.terms(*case.arrays)
    w = np.random.default_rng(3).random(terms.shape) + 0.1
    mean_center = isinstance(case.options.get("center"), str)
    if mean_center:  # the weighted mean is where the weighted sum of squares is least, so it adds no slope
        terms = (case.arrays[0] - np.average(case.arrays[0], weights=w)) ** 2

    def gradients(arrays: list[Any], weights: Any, row: Any, normalizer: Any) -> dict[str, Any]:
        def by_weights(weights: Any, reduction: str) -> Any:
            return xp.grad(lambda w: case(*arrays, weights=w, reduction=reduction, **options))(weights)

        got = {reduction: by_weights(weights, reduction) for reduction in ("sum", "mean")}
        if terms.ndim > 1 and not mean_center:
            got["broadcast"] = by_weights(row, "sum")
        return {**got, "normalizer": xp.grad(lambda n: case(*arrays, normalizer=n, **options))(normalizer)}

    row = w[0] if terms.ndim > 1 else w
    inputs = (arrays_of(case, fw), fw.array(w), fw.array(row), fw.array(np.asarray(4.0)))
    got = fw.once(gradients)(*inputs)
    close(fw, got["sum"], terms)
    close(fw, got["mean"], (terms - (w * terms).sum() / w.sum()) / w.sum())
    if "broadcast" in got:  # the gradient of what is broadcast is a sum
        close(fw, got["broadcast"], terms.sum(axis=0), atol=1e-10)
    close(fw, got["normalizer"], -case.terms(*case.arrays).sum() / 16)


@pytest.mark.column("dtypes")
@pytest.mark.newest
@pytest.mark.representative
def test_weights_and_normalizer_do_not_change_the_dtype(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw, "float32"), options_of(case, fw, "float32")
    one, whole = fw.array(np.asarray(1.0)), fw.array(np.asarray(1))

    def values(arrays: list[Any], one: Any, whole: Any) -> dict[str, Any]:
        calls = {
            "plain": {},
            "weights": {"weights": one},
            "normalizer": {"normalizer": one},
            "count": {"normalizer": whole},
        }
        return {name: case(*arrays, reduction="sum", **call, **options) for name, call in calls.items()}

    got = fw.once(values)(arrays, one, whole)
    for name, value in got.items():
        assert value.dtype == fw.dtype("float32"), name
        close(fw, value, fw.numpy(got["plain"]), rtol=1e-5)


@pytest.mark.column("second gradient")
@pytest.mark.needs("autodiff")
def test_second_gradient_under_masks(case: Case, fw: Framework) -> None:
    where, weights = masks(case)
    options = options_of(case, fw)
    poisoned = case.changed(lambda x: np.where(over_inputs(case, where & (weights > 0), x), x, np.nan))
    kept = over_inputs(case, where & (weights > 0), case.arrays[0])
    call = {"where": fw.array(where), "weights": fw.array(weights), **options}
    gradient = xp.grad(lambda x, *rest: case(x, *rest, **call))
    second = fw.once(xp.grad(lambda x, *rest: xp.namespace(x).sum(gradient(x, *rest) ** 2)))
    got = fw.numpy(second(*[fw.array(x) for x in poisoned]))
    assert np.isfinite(got).all() and (got[~kept] == 0).all()


@pytest.mark.column("gradient")
@pytest.mark.needs("autodiff")
@pytest.mark.newest
@pytest.mark.representative
def test_gradient_of_nothing_kept(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    arrays = [fw.array(x) for x in case.changed(lambda x: np.full(x.shape, np.nan))]

    def of(*arrays: Any) -> Any:
        return case(*arrays, where=fw.array(np.asarray(False)), reduction="mean", **options)

    assert (fw.numpy(fw.once(xp.grad(of))(*arrays)) == 0).all()


@pytest.mark.column("eager")
@pytest.mark.newest
@pytest.mark.representative
def test_refused_masks(case: Case, fw: Framework) -> None:
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    terms = case.terms(*case.arrays)
    wrong = np.ones((9, *terms.shape))
    with pytest.raises(TypeError, match=f"^{case.name}: `where` must be a boolean array, got .*float"):
        case(*arrays, where=fw.array(np.asarray(1.0)), **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `weights` must be real floating point, got .*bool"):
        case(*arrays, weights=fw.array(np.asarray(True)), **options)
    with pytest.raises(ValueError, match=rf"^{case.name}: `where` must broadcast to the terms' shape \(.*, got \(9,"):
        case(*arrays, where=fw.array(wrong > 0), **options)
    with pytest.raises(TypeError, match=f"^{case.name}: `where` must be an array, got builtins.bool"):
        case(*arrays, where=True, **options)
    with pytest.raises(
        ValueError, match=rf"^{case.name}: `normalizer` must be a number or a 0-d array, got shape \(2,\)"
    ):
        case(*arrays, normalizer=fw.array(np.ones(2)), **options)
    with pytest.raises(TypeError, match=rf"^{case.name}: `normalizer` must be real, got .*bool.*. Pass a count"):
        case(*arrays, normalizer=fw.array(np.asarray(True)), **options)
