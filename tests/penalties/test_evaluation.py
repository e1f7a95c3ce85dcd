"""What is wrong with a call is said before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework

REFUSED = {
    "reduction": (
        {"reduction": "median"},
        ValueError,
        "`reduction` must be one of 'sum', 'mean', 'none', got 'median'",
    ),
    "no reduction": ({"reduction": None}, TypeError, "`reduction` must be one of 'sum', 'mean', 'none', got None"),
    "zero": ({"normalizer": 0}, ValueError, r"`normalizer` must be in \(0, inf\), got 0.0"),
    "infinite": ({"normalizer": math.inf}, ValueError, r"`normalizer` must be in \(0, inf\), got inf"),
    "text": ({"normalizer": "3"}, TypeError, r"`normalizer` must be a number in \(0, inf\), got str"),
    "axes": ({"normalizer": [1.0, 2.0]}, ValueError, "`normalizer` must be a number or a 0-d array, got shape"),
    "option": ({"scale": 2.0}, TypeError, "`scale` is not an option"),
}
MASKS: dict[str, Callable[[Framework, Any], dict[str, Any]]] = {
    "plain": lambda fw, rows: {},
    "where": lambda fw, rows: {"where": fw.array(np.arange(rows) > 0)},
    "weights": lambda fw, rows: {"weights": fw.array(np.linspace(0, 1, rows))},
}


@pytest.fixture
def computed(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The names of the penalties whose formulas have been called."""
    names: list[str] = []
    specs = [getattr(xp, name).spec for name in ("kl_divergence", "gradient_penalty", "l2")]
    formulas = [spec.formula for spec in specs]
    for spec, formula in zip(specs, formulas, strict=True):

        def recorded(*args: Any, spec: Any = spec, formula: Any = formula, **options: Any) -> Any:
            names.append(spec.name)
            return formula(*args, **options)

        object.__setattr__(spec, "formula", recorded)
    yield names
    for spec, formula in zip(specs, formulas, strict=True):
        object.__setattr__(spec, "formula", formula)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("rows", [3, 0])
@pytest.mark.parametrize("wrong", REFUSED)
def test_no_formula_is_called_for_a_wrong_call(
    fw: Framework, computed: list[str], wrong: str, rows: int, masks: str
) -> None:
    options, error, message = REFUSED[wrong]
    if isinstance(options.get("normalizer"), list):
        options = {"normalizer": fw.array(np.asarray(options["normalizer"]))}
    x = fw.array(np.zeros((rows, 4)))
    given = {**options, **MASKS[masks](fw, rows)}
    with pytest.raises(error, match=f"^kl_divergence: {message}"):
        xp.kl_divergence(x, x, **given)
    with pytest.raises(error, match=f"^gradient_penalty: {message}"):
        xp.gradient_penalty(lambda x: x.sum(), x, **given)
    assert computed == []


def test_formulas_of_right_calls_are_called(fw: Framework, computed: list[str]) -> None:
    """So that the test above has something to find."""
    xp.l2(fw.array(np.ones((2, 11))))
    assert computed == ["l2"]
