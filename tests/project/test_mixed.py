"""Several frameworks in one process: each computes its own, and none is taken for another."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import SELECTED
from tests.helpers.harness import framework
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.mixed
PAIRS = list(permutations([name for name in SELECTED if name != "dask"], 2))


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return framework(request.param[0]), framework(request.param[1])


def test_arrays_of_two_frameworks(pair: tuple[Any, Any]) -> None:
    one, other = (fw.array(np.zeros((2, 3)), "float32") for fw in pair)
    with pytest.raises(
        TypeError, match=r"^kl_divergence: `log_p` and `log_q` must be arrays of one framework, got \w+ and \w+. Conv"
    ):
        xp.kl_divergence(one, other)
    with pytest.raises(TypeError, match=r"^l2: `x` and `center` must be arrays of one framework, got \w+ and \w+"):
        xp.l2(one, center=other)
    where = pair[1].array(np.ones((2, 3), dtype=bool))
    with pytest.raises(TypeError, match=r"^l1: `x` and `where` must be arrays of one framework, got \w+ and \w+"):
        xp.l1(one, where=where)
    with pytest.raises(TypeError, match=r"^l1: `x` and `normalizer` must be arrays of one framework, got \w+ and \w+"):
        xp.l1(one, normalizer=pair[1].array(np.asarray([2.0]), "float32"))


def test_a_pipeline_of_two_frameworks(pair: tuple[Any, Any]) -> None:
    inputs = {"a": pair[0].array(np.ones(2), "float32"), "b": pair[1].array(np.ones(2), "float32")}
    both = Pipeline([Penalty("l1", inputs="a"), Penalty("l2", inputs="b")])
    with pytest.raises(TypeError, match=r"^pipeline: `l1` and `l2` must be arrays of one framework, got"):
        both(inputs)
    assert float(both.disable("l2")(inputs)) == float(both.disable("l1")(inputs)) == 2.0
    weighted = Pipeline([Penalty("l1", weight=pair[1].array(np.asarray(0.5), "float32"), inputs="a")])
    if pair[1].name == "numpy":  # 0-d arrays of NumPy's are numbers to all
        assert float(weighted(inputs)) == 1.0
        return
    with pytest.raises(TypeError, match=r"^penalty 'l1': `value` and `weight` must be arrays of one framework, got"):
        weighted(inputs)


def test_numpy_scalars_are_numbers_to_other_frameworks(pair: tuple[Any, Any]) -> None:
    fw = pair[0]
    x = fw.array(np.ones(2), "float32")
    pipe = Pipeline([Penalty("l1", weight=np.float32(0.5)), Penalty(lambda x: np.float32(3.0), name="outside")])
    assert float(pipe(x)) == 4.0 and pipe(x).dtype == fw.dtype("float32")
    for number in (np.float64(0.5), np.float32(0.5), np.int64(2)):
        for value in (xp.l1(x, normalizer=number), xp.l2(x, center=number)):
            assert value.dtype == fw.dtype("float32")
        assert float(xp.l1(x, normalizer=number)) == 2 / number
        assert float(xp.l2(x, center=number)) == 2 * (1 - number) ** 2


def test_dtypes_that_numpy_only_borrows() -> None:
    import ml_dtypes

    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        with pytest.raises(
            TypeError, match=rf"^l1: `x` must be real or complex floating point, got {dtype.__name__}. C"
        ):
            xp.l1(np.ones(3, dtype=dtype))


def test_aux_of_another_framework(pair: tuple[Any, Any]) -> None:
    x, other = (fw.array(np.ones(2), "float32") for fw in pair)
    if not pair[0].has_autodiff:
        pytest.skip(pair[0].row["no_autodiff"])
    (value, aux), _ = xp.value_and_grad(lambda x: (xp.l1(x), {"foreign": other, "mine": x}), has_aux=True)(x)
    assert float(value) == 2.0 and aux["foreign"] is other and type(aux["mine"]) is type(x)


def test_a_nest_of_two_frameworks(pair: tuple[Any, Any]) -> None:
    nest = [pair[0].array(np.ones(2), "float32"), pair[1].array(np.ones(2), "float32")]
    with pytest.raises(TypeError, match=r"^grad: `leaf 0` and `leaf 1` must be arrays of one framework"):
        xp.grad(lambda nest: xp.l1(nest[0]))(nest)


def test_they_agree() -> None:
    rng = np.random.default_rng(0)
    z = [rng.standard_normal((4, 7)).astype(np.float32) for _ in range(2)]
    found = {
        name: float(xp.kl_divergence(*[framework(name).array(x, "float32") for x in z], from_logits=True))
        for name in SELECTED
    }
    assert len(found) == len(SELECTED) and max(found.values()) - min(found.values()) < 1e-6
