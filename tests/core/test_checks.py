"""Checks made from annotations: accepted values and error messages."""

from __future__ import annotations

import inspect
import math
from typing import Annotated, Any, Literal

import pytest

from xpenalties._core.checks import Interval, NonNegative, NonNegativeInteger, Positive, UnitInterval, checks_of


def formula(
    *,
    any_number: float = 0.0,
    positive: Positive = 1.0,
    non_negative: NonNegative = 1.0,
    share: UnitInterval = 0.5,
    between: Annotated[float, Interval(-1, 2)] = 0.0,
    whole: int = 0,
    count: NonNegativeInteger = 0,
    flag: bool = False,
    mode: Literal["one", "two"] = "one",
    optional: Positive | None = None,
    anything: Any = None,
) -> None: ...


CHECKS = checks_of(formula, inspect.signature(formula).parameters)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("any_number", -3, -3.0),
        ("positive", 5e-324, 5e-324),
        ("non_negative", 0, 0.0),
        ("share", 1, 1.0),
        ("between", -1, -1.0),
        ("between", 2.0, 2.0),
        ("whole", -2, -2),
        ("count", 0, 0),
        ("flag", True, True),
        ("mode", "two", "two"),
        ("optional", None, None),
        ("optional", 2, 2.0),
        ("anything", formula, formula),
    ],
)
def test_accepted(name: str, value: Any, expected: Any) -> None:
    result = CHECKS[name](name, value)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("whole", 10**400, ValueError, "`whole` must be below 2**63, got an integer of 1329 bits."),
        ("whole", -(2**63), ValueError, "`whole` must be below 2**63, got an integer of 64 bits."),
        ("any_number", math.inf, ValueError, "`any_number` must be in (-inf, inf), got inf."),
        ("any_number", math.nan, ValueError, "`any_number` must be in (-inf, inf), got nan."),
        ("any_number", True, TypeError, "`any_number` must be a number in (-inf, inf), got bool. Pass a Python float."),
        ("count", -1, ValueError, "`count` must be at least 0, got -1."),
        ("count", 1.0, TypeError, "`count` must be an integer, got 1.0. Pass a Python int."),
        ("positive", 0, ValueError, "`positive` must be in (0, inf), got 0.0."),
        ("positive", math.inf, ValueError, "`positive` must be in (0, inf), got inf."),
        ("non_negative", -1e-9, ValueError, "`non_negative` must be in [0, inf), got -1e-09."),
        ("share", 1.5, ValueError, "`share` must be in [0, 1], got 1.5."),
        ("between", 2.5, ValueError, "`between` must be in [-1, 2], got 2.5."),
        ("whole", 1.0, TypeError, "`whole` must be an integer, got 1.0. Pass a Python int."),
        ("whole", True, TypeError, "`whole` must be an integer, got True. Pass a Python int."),
        ("flag", 1, TypeError, "`flag` must be True or False, got 1. Pass a Python bool."),
        ("mode", "tow", ValueError, "`mode` must be one of 'one', 'two', got 'tow'. Did you mean 'two'?"),
        ("mode", None, TypeError, "`mode` must be one of 'one', 'two', got None."),
        ("optional", -1, ValueError, "`optional` must be in (0, inf), got -1.0."),
    ],
)
def test_refused(name: str, value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        CHECKS[name](name, value)
    assert str(caught.value) == message
