"""Controllers: pure functions of plain states, for numbers and arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework
from tests.helpers.samples import L1, X
from xpenalties import Penalty, Pipeline
from xpenalties.controllers import Controller, adaptive_kl, target_entropy

OBSERVED = [6.0, 9.0, 5.4, 0.0, 6.6, 1e9]


def kl_by_hand(weight: float, observed: float) -> float:
    return weight * (1 + 0.1 * min(max((observed - 6.0) / 6.0, -0.2), 0.2))


def entropy_by_hand(weight: float, observed: float) -> float:
    return math.exp(math.log(weight) + 0.05 * (1.5 - observed))


BOTH: dict[str, tuple[Controller, Callable[[float, float], float], list[float]]] = {
    "adaptive_kl": (adaptive_kl(0.2, target=6.0), kl_by_hand, OBSERVED),
    "target_entropy": (target_entropy(0.2, target=1.5, rate=0.05), entropy_by_hand, [1.5, 2.0, -1.0, 0.0]),
}
both = pytest.mark.parametrize("name", BOTH)


@both
def test_numbers(name: str) -> None:
    controller, by_hand, observations = BOTH[name]
    state, expected = controller.init(), 0.2
    for observed in observations:
        before = dict(state)
        expected = by_hand(expected, observed)
        weight, after = controller.step(state, observed)
        assert weight == pytest.approx(expected, rel=1e-12) and type(weight) is float
        assert state == before and controller.step(state, observed) == (weight, after)  # pure
        state = json.loads(json.dumps(after))
        assert state == after


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays(fw: Framework, name: str, dtype: str) -> None:
    controller, by_hand, observations = BOTH[name]
    state, expected = controller.init(like=fw.array(np.ones(3), dtype)), 0.2
    assert tuple(state["weight"].shape) == () and state["weight"].dtype == fw.dtype(dtype)
    for observed in observations:
        expected = by_hand(expected, observed)
        weight, state = controller.step(state, fw.array(np.asarray(observed), dtype))
        assert float(weight) == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)
        assert state["weight"].dtype == fw.dtype(dtype)


@both
def test_half_precision_is_kept_in_float32(fw: Framework, name: str) -> None:
    if "float16" not in fw.dtypes:
        pytest.skip("has no float16")
    state = BOTH[name][0].init(like=fw.array(np.ones(3), "float16"))
    assert state["weight"].dtype == fw.dtype("float32")


@both
def test_one_program(fw: Framework, name: str) -> None:
    if not fw.has_jit:
        pytest.skip(fw.row["no_jit"])
    controller, by_hand, observations = BOTH[name]
    compiled, count = fw.compile(lambda state, observed: controller.step(state, observed))  # noqa: PLW0108
    state, expected, counts = controller.init(like=fw.array(np.ones(3))), 0.2, set()
    for observed in observations:
        expected = by_hand(expected, observed)
        weight, state = compiled(state, fw.array(np.asarray(observed)))
        assert float(weight) == pytest.approx(expected, rel=1e-6)
        counts.add(count())
    assert len(counts) == 1  # torch.compile tries a 0-d tensor's number first, and starts again


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_state_keeps_its_dtype(fw: Framework, name: str, dtype: str) -> None:
    """Observed in half precision, a weight would round to itself."""
    if dtype not in fw.dtypes:
        pytest.skip(f"has no {dtype}")
    controller, by_hand, _ = BOTH[name]
    observed = fw.array(np.asarray(1.25), dtype)
    state, expected = controller.init(like=fw.array(np.ones(3), "float32")), 0.2
    for _ in range(100):
        weight, state = controller.step(state, observed)
        expected = by_hand(expected, 1.25)
        assert weight.dtype == state["weight"].dtype == fw.dtype("float32")
    assert float(weight) == pytest.approx(expected, rel=1e-4)
    weight, state = controller.step(controller.init(), observed)  # a number until now
    assert weight.dtype == fw.dtype("float64" if dtype == "float64" else "float32")
    assert float(weight) == pytest.approx(by_hand(0.2, 1.25), rel=1e-6)
    weight, _ = controller.step(state, 1.25)
    assert weight.dtype == state["weight"].dtype
    weight, _ = controller.step(state, np.float64(1.25))  # NumPy's scalars are numbers
    assert weight.dtype == state["weight"].dtype


@pytest.mark.only("jax", reason="is about JAX's loops")
def test_a_loop_in_one_program(fw: Framework) -> None:
    controller, by_hand, observations = BOTH["adaptive_kl"]
    state = controller.init(like=fw.array(np.ones(1), "float32"))

    def step(state: Any, observed: Any) -> Any:
        weight, state = controller.step(state, observed)
        return state, weight

    _, weights = fw.module.lax.scan(step, state, fw.array(np.asarray(observations)))
    expected = [0.2]
    for observed in observations:
        expected.append(by_hand(expected[-1], observed))
    np.testing.assert_allclose(fw.numpy(weights), expected[1:], rtol=1e-5)


@pytest.mark.mixed
def test_frameworks_are_not_mixed() -> None:
    import torch

    controller = adaptive_kl(0.2, target=6.0)
    for state, observed in ((torch.tensor(0.2), np.asarray(3.0)), (np.asarray(0.2), torch.tensor(3.0))):
        with pytest.raises(TypeError, match=r"^adaptive_kl: `state` and `observed` "):
            controller.step({"weight": state}, observed)


@pytest.mark.only("torch", reason="is about PyTorch's graphs")
def test_no_gradient_goes_through(fw: Framework) -> None:
    x = fw.array(np.asarray(3.0)).requires_grad_()
    weight, state = adaptive_kl(0.2, target=6.0).step({"weight": x * 0.1}, x * 2)
    assert not weight.requires_grad and not state["weight"].requires_grad


def test_a_nan_is_seen(fw: Framework) -> None:
    weight, _ = adaptive_kl(0.2, target=6.0).step({"weight": 0.2}, fw.array(np.asarray(math.nan)))
    assert math.isnan(float(weight))


QUIET = {"adaptive_kl": (0.0, 1e9), "target_entropy": (1e4, -1e4)}  # what makes a weight fall, and rise


@both
@pytest.mark.parametrize("array", [False, True])
def test_a_weight_returns_from_its_bounds(fw: Framework, name: str, array: bool) -> None:
    """In float32 too, where thousands of steps would make it 0 or infinite for good."""
    controller, _, _ = BOTH[name]
    run = fw.once(lambda weight, observed: controller.step({"weight": weight}, observed)[0]) if array else None
    for bound, (there, back) in ((0.2e-8, QUIET[name]), (0.2e8, QUIET[name][::-1])):
        state = controller.init(like=fw.array(np.ones(1), "float32")) if array else controller.init()
        for observed, steps in ((there, 2000), (back, 1)):
            number = fw.array(np.asarray(observed), "float32") if array else observed
            for i in range(steps if name == "adaptive_kl" else 1):
                weight = run(state["weight"], number) if run else controller.step(state, number)[0]
                if array and fw.name == "dask" and i % 50 == 49:
                    weight = weight.persist()  # Dask takes minutes to optimize a graph of all steps
                state = {"weight": weight}
            if observed == there:
                assert float(weight) == pytest.approx(bound, rel=1e-6)
        assert abs(math.log(float(weight) / bound)) > 0.019  # a step away from the bound, and not 0 times a factor
        assert not array or weight.dtype == fw.dtype("float32")
    saved = {"weight": fw.array(np.asarray(0.0)) if array else 0.0}  # by a version without bounds
    assert float(controller.step(saved, controller.init()["weight"])[0]) == pytest.approx(0.2e-8)


@both
def test_bounds_of_ones_own(name: str) -> None:
    make: Any = {"adaptive_kl": adaptive_kl, "target_entropy": target_entropy}[name]
    controller = make(0.2, target=1.0, minimum=0.19, maximum=0.21)
    falls, rises = QUIET[name]
    for observed, bound in ((falls, 0.19), (rises, 0.21)):
        state = controller.init()
        for _ in range(5):
            _, state = controller.step(state, observed)
        assert state == {"weight": bound}
    tiny = make(1e-37, target=1.0)
    assert (tiny.minimum, make(1e37, target=1.0).maximum) == (2.0**-126, 2.0**127)
    for options, message in (
        ({"minimum": 0.0}, r"`minimum` must be in \[1\.17549e-38, 1\.70141e\+38\], got 0\.0"),
        ({"maximum": math.inf}, r"`maximum` must be in \[1\.17549e-38, 1\.70141e\+38\], got inf"),
        ({"minimum": 0.3}, r"`initial` must be between `minimum` and `maximum`, got 0\.2, 0\.3 and .* Move the"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: {message}"):
            make(0.2, target=1.0, **options)


def test_a_pipeline_follows(fw: Framework) -> None:
    """The divergence comes near its target, and the report has the weight."""
    controller = adaptive_kl(1.0, target=0.5, gain=1.0)
    pipe, state, x = Pipeline([Penalty("l1", name="kl")]), controller.init(), fw.array(X)
    for _ in range(40):
        observed = 1.0 / state["weight"]  # the larger the weight, the closer
        total, report = pipe.with_weights(kl=state["weight"]).compute(x)
        assert float(total) == pytest.approx(state["weight"] * L1)
        assert report.to_dict()["regularizers"]["kl"]["weight"] == pytest.approx(state["weight"])
        _, state = controller.step(state, observed)
    assert 1.0 / state["weight"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: adaptive_kl(0, target=6), ValueError, r"^adaptive_kl: `initial` must be in \(0, inf\), got 0"),
        (lambda: adaptive_kl(1, target=-1), ValueError, r"^adaptive_kl: `target` must be in \(0, inf\), got -1"),
        (lambda: adaptive_kl(1, target=1, gain=2), ValueError, r"^adaptive_kl: `gain` must be in \(0, 1\], got 2"),
        (
            lambda: adaptive_kl(1, target=1, gain=1, clip=1),
            ValueError,
            r"^adaptive_kl: `gain` times `clip` must be below 1, got 1\.0 and 1\.0\. The weight would be 0 for good\.$",
        ),
        (lambda: adaptive_kl(1, target=1, clip=0), ValueError, r"^adaptive_kl: `clip` must be in \(0, 1\], got 0"),
        (lambda: target_entropy(-1, target=1), ValueError, r"^target_entropy: `initial` must be in \(0, inf\)"),
        (lambda: target_entropy(1, target="a"), TypeError, r"^target_entropy: `target` must be a number in .* got str"),
        (lambda: target_entropy(1, target=1, rate=0), ValueError, r"^target_entropy: `rate` must be in \(0, inf\)"),
        (
            lambda: adaptive_kl(1, target=1).init(like=3),
            TypeError,
            r"`like` must be a real floating-point array, got int",
        ),
        (
            lambda: adaptive_kl(1, target=1).step({"weight": 1.0}, math.nan),
            ValueError,
            r"^adaptive_kl: `observed` must be in \(-inf, inf\), got nan",
        ),
        (
            lambda: adaptive_kl(1, target=1).step(1.0, 2.0),  # type: ignore[arg-type]
            TypeError,
            r"^adaptive_kl: `state` must be what `init` or `step` returned, got 1\.0\. Pass that\.$",
        ),
        (lambda: adaptive_kl(1, target=1).step({"w": 1.0}, 2.0), TypeError, r"`state` must be what `init` or `step`"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_errors_of_arrays(fw: Framework) -> None:
    controller = adaptive_kl(1, target=1)
    with pytest.raises(ValueError, match=r"^adaptive_kl: `observed` must be 0-d, got shape \(2,\)\. Take its mean\.$"):
        controller.step(controller.init(), fw.array(np.ones(2)))
    for x in (fw.array(np.asarray(1)), fw.array(np.asarray(True))):
        with pytest.raises(TypeError, match=r"^adaptive_kl: `observed` must be floating-point, got .*\. Cast it\.$"):
            controller.step(controller.init(), x)
        with pytest.raises(TypeError, match=r"^adaptive_kl: `like` must be a real floating-point array, got"):
            controller.init(like=x)


def test_repr_shows_how_it_is_made() -> None:
    controller = adaptive_kl(0.2, target=6.0)
    assert repr(controller) == "adaptive_kl(0.2, target=6.0, gain=0.1, clip=0.2)"
    bounded = target_entropy(0.01, target=-1.0, rate=0.5, minimum=1e-3, maximum=1.0)
    assert repr(bounded) == "target_entropy(0.01, target=-1.0, rate=0.5, minimum=0.001, maximum=1.0)"
    for made in (controller, bounded):
        assert eval(repr(made), globals()) == made
