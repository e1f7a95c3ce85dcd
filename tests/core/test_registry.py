"""Registered names: which are accepted, and which are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import xpenalties as xp
from tests.helpers.configs import halving
from tests.helpers.samples import mine, pair
from xpenalties import Penalty, Pipeline, register
from xpenalties._core.registry import PENALTIES, REGISTERED

pytestmark = pytest.mark.usefixtures("custom_names")


def scaled(scale: float) -> Any:
    def inner(x: Any) -> Any:
        return scale * xp.l1(x)

    return inner


class Method:
    def penalty(self, x: Any) -> Any:
        return xp.l1(x)


def test_register_is_a_function_and_a_decorator() -> None:
    @register("decorated")
    def fn(x: Any) -> Any:
        return xp.l1(x)

    assert register("again", fn) is fn and register("again", fn) is fn
    assert Penalty("decorated").fn is fn and Penalty("decorated").name == "decorated" and Penalty(fn).name == "fn"
    assert Pipeline({"again": 0.5})["again"].weight == 0.5
    assert register("unnamed", lambda x: 2 * xp.l1(x)) is Penalty("unnamed").fn
    assert repr(Penalty("unnamed", name="u")) == "Penalty(<lambda>, name='u')"


def test_methods_and_partials_have_names_too() -> None:
    method = Method()
    register("method", method.penalty)
    register("method", method.penalty)
    half = register("half", functools.partial(pair, scale=0.5))
    config = Pipeline([Penalty(method.penalty, name="m"), Penalty(half, name="h")]).to_config()
    assert [each["penalty"] for each in config["penalties"]] == ["method", "half"]


def test_a_penalty_of_the_package_keeps_its_own_name() -> None:
    register("lasso", xp.l1)
    assert Pipeline([Penalty("lasso"), Penalty(xp.l1)]).to_config()["penalties"] == [
        {"penalty": "l1", "name": "lasso"},
        {"penalty": "l1"},
    ]
    assert set(PENALTIES) == {function.__name__ for function in PENALTIES.values()} and "lasso" not in PENALTIES


def test_what_remembers_is_not_defined_again() -> None:
    def wrapped(factor: float) -> Any:
        @functools.wraps(halving)
        def inner(x: Any) -> Any:
            return factor * halving(x)

        return inner

    class Scaled:
        def penalty(self, x: Any) -> Any:
            return x

    for first, second in ((wrapped(1), wrapped(2)), (Scaled().penalty, Scaled().penalty)):
        register("theirs", first)
        with pytest.raises(ValueError, match="`name` must be new, got 'theirs'"):
            register("theirs", second)
        REGISTERED.pop("theirs")


def test_a_function_may_be_defined_again() -> None:
    code = "@register('cell')\ndef cell(x): return x"
    space: dict[str, Any] = {"register": register, "__name__": "notebook"}
    exec(code, space)
    first = space["cell"]
    exec(code, space)
    assert Penalty("cell").fn is space["cell"] is not first


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: register(mine), TypeError, r"^register: `name` must be a string, got <function mine.* Pass it before"),
        (
            lambda: register(""),
            ValueError,
            r"^register: `name` must not be empty, begin with <, or be one of this package's, got ''",
        ),
        (lambda: register("l1", mine), ValueError, r"or be one of this package's, got 'l1'\. Pass another\.$"),
        (lambda: register("linear", mine), ValueError, r"or be one of this package's, got 'linear'"),
        (lambda: register("three", 3), TypeError, r"^register: `fn` must be callable, got int\. Pass a function\.$"),
        (lambda: register("mine", pair), ValueError, r"^register: `name` must be new, got 'mine', which is <function"),
        (lambda: register("mine")(lambda x: x), ValueError, r"must be new, got 'mine'.* Pass another\.$"),
        (
            lambda: [register("inner", scaled(2)), register("inner", scaled(3))],
            ValueError,
            r"must be new, got 'inner', which is",
        ),
        (lambda: Penalty("mnie"), ValueError, r"`fn` must be a callable or one of .*, mine, .*Did you mean 'mine'"),
    ],
)
def test_register_refuses(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
