from __future__ import annotations

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework


def test_finite_input_comes_back_itself(fw: Framework) -> None:
    for x in (np.zeros((2, 3)), np.zeros((0, 3)), np.ones(2) * 1j):
        given = fw.array(x)
        assert xp.check_finite(given) is given


def test_the_error_counts_and_locates(fw: Framework) -> None:
    x = np.zeros((2, 3))
    x[1, 0], x[1, 2] = np.nan, -np.inf
    with pytest.raises(
        ValueError, match=r"^check_finite: `x` must be finite, got 1 NaN and 1 Inf of 6 elements, the first at \(1, 0\)"
    ):
        xp.check_finite(fw.array(x))


def test_integers_and_lists_are_refused(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^check_finite: `x` must be floating point, got .*int"):
        xp.check_finite(fw.array(np.ones(2, dtype=np.int64)))
    with pytest.raises(TypeError, match=r"^check_finite: `x` must be an array, got builtins.list"):
        xp.check_finite([1.0])  # type: ignore[type-var]


@pytest.mark.needs("jit")
@pytest.mark.without("torch", reason="torch.compile breaks its graph by itself")
def test_a_tracer_is_refused(fw: Framework) -> None:
    compiled, _ = fw.compile(xp.check_finite)
    with pytest.raises(TypeError, match=r"must be an eager array, got one without values. Call it outside of jit"):
        compiled(fw.array(np.ones(2)))


@pytest.mark.needs("jit")
def test_a_tracer_of_vmap_is_refused(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"must be an eager array, got one without values. Call it outside of jit"):
        fw.vmap(xp.check_finite)(fw.array(np.ones((2, 3))))


@pytest.mark.needs("autodiff")
def test_it_may_stand_inside_of_a_gradient(fw: Framework) -> None:
    x = fw.array(np.asarray([1.0, -2.0]))
    if fw.name == "jax":  # its tracers of grad alone know their values
        gradient = xp.grad(lambda x: xp.l2(xp.check_finite(x)))(x)
        assert fw.numpy(gradient).tolist() == [2.0, -4.0]
        return
    assert fw.numpy(xp.grad(lambda x: xp.l2(xp.check_finite(x)))(x)).tolist() == [2.0, -4.0]
