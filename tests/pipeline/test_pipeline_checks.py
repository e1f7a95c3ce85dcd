"""What pipelines refuse: when they are made, and what their penalties are given and return."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.samples import X, mine, pair
from xpenalties import Penalty, Pipeline


def test_names_that_are_missing(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty("l1", inputs="studnet")])
    with pytest.raises(
        ValueError,
        match=r"^penalty 'l1' asks for the input 'studnet'\. The inputs are 'student'\. Rename 'student' or 'stud",
    ):
        pipe({"student": x})
    with pytest.raises(
        TypeError, match=r"penalty 'l1': named `inputs` need one mapping, got .*. Pass a dict of arrays"
    ):
        pipe(x)
    with pytest.raises(TypeError, match=r"penalty 'l1': named `inputs` need one mapping, got dict, dict"):
        pipe({"studnet": x}, {"studnet": x})


def test_construction_is_checked(fw: Framework) -> None:
    checks: list[tuple[Any, type[Exception], str]] = [
        (lambda: Penalty("l3"), ValueError, r"`fn` must be a callable or one of .*, got 'l3'. Did you mean"),
        (lambda: Penalty(3), TypeError, "`fn` must be a name or a callable, got int"),
        (
            lambda: Penalty(lambda x: x),
            ValueError,
            "`name` must be a string that does not begin with < .*, got '<lambda>'",
        ),
        *[
            (
                lambda name=name: Penalty("l1", name=name),
                ValueError,
                "`name` must be a string that .* not one of base_loss, loss_total",
            )
            for name in ("base_loss", "loss_total", "regularizer_total", "total_grad_norm", "<p>", 3)
        ],
        *[
            (lambda w=w: Penalty("l1", weight=w), ValueError, r"penalty 'l1': `weight` must be in \[0, inf\), got ")
            for w in (np.float64(-1.0), np.float32(-1.0), np.int64(-1), np.float64(math.nan), np.float32(math.inf))
        ],
        (lambda: Penalty("l1", weight=fw.array(np.asarray(True))), TypeError, "`weight` must be real, got .*bool"),
        (lambda: Penalty("l1", weight=fw.array(np.asarray(1j))), TypeError, "`weight` must be real, got .*complex"),
        (lambda: Penalty("l1", inputs=5), TypeError, "`inputs` must be names or a callable, got 5"),
        (lambda: Penalty("l1", options=None), TypeError, "`options` must be a mapping, got None"),
        (lambda: Penalty("l1", enabled="no"), TypeError, "`enabled` must be True or False, got 'no'. Pass a bool"),
        (lambda: Penalty("l1", differentiable=None), TypeError, "`differentiable` must be True or False, got None"),
        (
            lambda: Penalty("l1", options={"normalizer": -1}),
            ValueError,
            r"l1: `normalizer` must be in \(0, inf\), got -1",
        ),
        (
            lambda: Penalty("l1", options={"where": [True]}),
            TypeError,
            "l1: `where` must be an array, got builtins.list",
        ),
        (
            lambda: Penalty("l1", options={"weights": 2.0}),
            TypeError,
            r"l1: `weights` must be an array, got 2\.0\. They are the terms' factors. The weight of a Penalty is `",
        ),
        (lambda: Pipeline(5), TypeError, "`penalties` must be a mapping or an iterable of Penalty, got 5"),
        (lambda: Penalty("l1", weight=-1), ValueError, r"penalty 'l1': `weight` must be in \[0, inf\), got -1.0"),
        (lambda: Penalty("l1", weight=math.nan), ValueError, r"`weight` must be in \[0, inf\), got nan"),
        (lambda: Penalty("l1", weight=math.inf), ValueError, r"`weight` must be in \[0, inf\), got inf"),
        (lambda: Penalty("l1", weight=True), TypeError, r"`weight` must be a number in \[0, inf\), got bool"),
        (lambda: Penalty("l1", weight="1"), TypeError, r"`weight` must be a number in \[0, inf\), got str"),
        (lambda: Penalty("l1", weight=fw.array(np.ones(2))), ValueError, r"`weight` must be 0-d, got shape \(2,\)"),
        (lambda: Penalty("l1", inputs=(1, 2)), TypeError, r"`inputs` must be names or a callable, got \(1, 2\)"),
        (
            lambda: Penalty("huber", options={"dleta": 1.0}),
            TypeError,
            "huber: `dleta` is not an option.*Did you mean 'delta'",
        ),
        (
            lambda: Penalty("huber", options={"delta": -1.0}),
            ValueError,
            r"huber: `delta` must be in \(0, inf\), got -1.0",
        ),
        (
            lambda: Penalty("l1", options={"reduction": "none"}),
            ValueError,
            "l1: `reduction` must be one of 'sum', 'mean'",
        ),
        (lambda: Penalty(mine, options={"y": 1}), TypeError, r"penalty 'mine': `y` is not an option of .* are none\."),
        (lambda: Penalty(pair, options={"x": 1}), TypeError, r"`x` is not an option of .* The options are y, scale\."),
        (lambda: Penalty(pair, options={"scal": 1}), TypeError, r"`scal` is not an option .* Did you mean 'scale'"),
        (lambda: Penalty(pair, inputs=("a", "b"), options={"y": 1}), TypeError, r"`y` is not .* options are scale\."),
        (lambda: Pipeline({"l3": 1.0}), ValueError, "Did you mean"),
        (lambda: Pipeline({"kl": 1.0}), ValueError, "Did you mean 'kl_divergence'"),
        (lambda: Pipeline([Penalty("l1"), Penalty("l1")]), ValueError, "names must be unique, got 'l1' twice"),
        (lambda: Pipeline(["l1"]), TypeError, r"must be a Penalty, got 'l1'\. Pass Pipeline\(\{'l1': weight\}\)\."),
        (lambda: Pipeline([3]), TypeError, r"must be a Penalty, got int\. Pass Penalty\(\.\.\.\)\."),
        (lambda: Pipeline([{"penalty": "l1"}]), TypeError, r"got dict\. Pass Pipeline\.from_config\(\[\.\.\.\]\)\."),
    ]
    for make, kind, message in checks:
        with pytest.raises(kind, match=message):
            make()
    assert Penalty(lambda x, **options: xp.l1(x), name="open", options={"anything": 1}).options == {"anything": 1}
    assert Penalty(max, options={"key": abs}).name == "max"  # without a signature, Python says at the call


def test_what_penalties_return_is_checked(fw: Framework) -> None:
    x = fw.array(X)

    async def later(x: Any) -> Any:
        return xp.l1(x)

    class Later:
        def __await__(self) -> Any:
            yield

    checks: list[tuple[Any, type[Exception], str]] = [
        (lambda x: x, ValueError, r"penalty 'p': must return a scalar, got shape \(2, 2\). Reduce it"),
        (lambda x: None, TypeError, "penalty 'p': must return a 0-d array, got NoneType"),
        (lambda x: True, TypeError, "penalty 'p': must return a 0-d array, got bool"),
        (lambda x: (xp.l1(x), 3), TypeError, r"penalty 'p': must return a value or \(value, dict\), got \(.*, int\)"),
        (lambda x: (xp.l1(x), {}, 3), TypeError, r"must return a value or \(value, dict\), got \(.*, dict, int\)"),
        (later, TypeError, "penalty 'p': must return a value, got an awaitable coroutine"),
        (lambda x: Later(), TypeError, "penalty 'p': must return a value, got an awaitable .*Later"),
    ]
    for fn, kind, message in checks:
        with pytest.raises(kind, match=message):
            Pipeline([Penalty(fn, name="p")])(x)
    for metric, message in (
        (x, r"must be a number or a 0-d array, got shape \(2, 2\)"),
        ("text", "must be a number or a 0-d array, got str"),
        (None, "must be a number or a 0-d array, got NoneType"),
        (1j, "must be a number or a 0-d array, got complex"),
        (fw.array(np.asarray(1j)), "must be real, got .*complex128"),
    ):
        pipe = Pipeline([Penalty(lambda x, metric=metric: (xp.l1(x), {"m": metric}), name="p")])
        with pytest.raises(TypeError, match=f"^penalty 'p': metric 'm' {message}") as caught:
            pipe.compute(x)
        assert caught.value.__notes__[0].startswith("In penalty 'p' of 'pipeline', weight 1.0, inputs ")
    with pytest.raises(TypeError, match="pipeline: the inputs must hold an array, which sets framework"):
        Pipeline()(3.0)
    assert float(Pipeline()(x)) == 0.0
    assert float(Pipeline()({"a": [fw.array(np.ones(2, dtype=np.int64)), "text"]})) == 0.0


def test_an_inner_exception_is_kept_and_noted(fw: Framework) -> None:
    def fails(data: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        Pipeline([Penalty(fails, weight=0.5)], name="training")({"x": fw.array(X), "n": 3})
    (note,) = caught.value.__notes__
    assert note.startswith("In penalty 'fails' of 'training', weight 0.5, inputs {x: ")
    assert note.endswith("(2, 2), n: int}.")

    with pytest.raises(TypeError, match=r"takes 1 input \(x\), but the pipeline got 0 inputs\. Pass 1\.") as caught_too:
        Pipeline({"l1": 1.0})()
    assert caught_too.value.__notes__ == ["In penalty 'l1' of 'pipeline', weight 1.0, inputs none."]

    def late(step: Any) -> float:
        raise ZeroDivisionError("schedule")

    with pytest.raises(ZeroDivisionError, match="schedule") as caught:
        Pipeline([Penalty("l1", weight=late)])(fw.array(X), step=3)
    assert caught.value.__notes__[0].startswith("In penalty 'l1' of 'pipeline', weight a schedule, inputs ")


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match=r"^Pipeline: `name` must be a string, got 3\. Give one\."):
        Pipeline({"l1": 1.0}, name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda make: make([Penalty("entropy")], from_logits=True),
            r"`from_logits` is not .* Options belong in a penalty: Penalty\(\.\.\., from_logits=True\)\.",
        ),
        (lambda make: make(l1=0.1), r"`l1` is not an argument of Pipeline\. Pass a dict: Pipeline\(\{'l1': 0\.1\}\)\."),
        (lambda make: make(l1=0.1, name="n", l2=2), r"Pass a dict: Pipeline\(\{'l1': 0\.1, 'l2': 2\}\)\."),
        (
            lambda make: make({"l1": 0.1}, track_grad_norms=True),
            r"It is an option of `compute`: pipeline\.compute\(\.\.\., track_grad_norms=True\)\.",
        ),
        (lambda make: make({"l1": 0.1}, nmae="n"), r"`nmae` is not an argument of Pipeline\. Did you mean 'name'\?"),
        (
            lambda make: make(Penalty("l1"), Penalty("l2")),
            r"takes one argument by position, .* got 2\. Pass a list: Pipeline\(\[Penalty\(\.\.\.\), \.\.\.\]\)\.",
        ),
        (
            lambda make: make("l1", 0.1),
            r"`penalties`, got 2\. Pass a dict: Pipeline\(\{'l1': weight\}\)\.",
        ),
        (lambda make: make({"l1": 0.1}, "training"), r"by position, `penalties`, got 2\. Pass name='training'\."),
        (lambda make: make("l1"), r"iterable of Penalty, got 'l1'\. Pass Pipeline\(\{'l1': weight\}\)\."),
        (lambda make: make("own.toml"), r"got 'own\.toml'\. Pass Pipeline\.from_config\('own\.toml'\)\."),
        (lambda make: make(Penalty("l1")), r"got Penalty\('l1'\)\. Pass a list: Pipeline\(\[penalty\]\)\."),
    ],
)
def test_arguments_of_others(make: Any, message: str) -> None:
    """What belongs to a penalty, to `compute` or into a container is refused, with the way to write it."""
    with pytest.raises(TypeError, match=f"^Pipeline: .*{message}$"):
        make(Pipeline)


def test_the_signature_has_no_refused_arguments() -> None:
    assert list(inspect.signature(Pipeline).parameters) == ["penalties", "name"]
