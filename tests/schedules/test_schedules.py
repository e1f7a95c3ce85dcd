"""Schedules: values for numbers and arrays, errors, and pipelines that follow schedules."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.harness import Framework
from tests.helpers.samples import L1, L2, X
from xpenalties import Penalty, Pipeline, schedules
from xpenalties.schedules import (
    Schedule,
    constant,
    cosine,
    cyclic,
    exponential,
    inverse_time,
    linear,
    piecewise,
    polynomial,
    warmup,
)


def double(step: Any) -> Any:
    """Stand for another library's schedule."""
    return linear(0.0, 2000.0, steps=1000)(step)


SCHEDULES = {name: getattr(schedules, name) for name in schedules.__all__ if name != "Schedule"}
MADE: dict[str, Callable[[], Schedule]] = {
    "constant": lambda: constant(0.1),
    "linear": lambda: linear(0.0, 0.1, steps=10, begin=3),
    "linear down": lambda: linear(0.7, 0.1, steps=7),
    "polynomial": lambda: polynomial(0.7, 0.1, power=3, steps=6, begin=2),
    "polynomial up": lambda: polynomial(0.1, 0.7, power=0.5, steps=6),
    "warmup": lambda: warmup(0.2, steps=3, start=0.05),
    "warmup, then exponential": lambda: warmup(exponential(0.1, rate=0.5, steps=4), steps=5),
    "warmup, then another's": lambda: warmup(double, steps=2, start=1.0),
    "exponential": lambda: exponential(0.1, rate=0.9, begin=2),
    "exponential staircase": lambda: exponential(0.8, rate=0.5, steps=3, staircase=True, end=0.3),
    "exponential growth": lambda: exponential(0.1, rate=2.0, steps=2, end=0.7),
    "exponential to 0": lambda: exponential(0.1, rate=0.5, end=0.0),
    "exponential from 0": lambda: exponential(0.0, rate=0.5),
    "exponential that stays": lambda: exponential(0.3, rate=1.0, end=0.1),
    "inverse time": lambda: inverse_time(0.6, rate=0.5, steps=3, begin=2),
    "inverse time staircase": lambda: inverse_time(0.6, rate=2, steps=3, power=1.5, staircase=True),
    "cosine power": lambda: cosine(0.1, 0.3, steps=9, exponent=2.5),
    "cosine": lambda: cosine(0.3, 0.1, steps=9, begin=2),
    "cyclic": lambda: cyclic(0.1, 1.0, period=6, begin=4),
    "cyclic hold": lambda: cyclic(0.0, 1.0, period=7, rise=0.3, then="hold", shape="cosine"),
    "cyclic saw": lambda: cyclic(0.0, 1.0, period=6, rise=1),
    "piecewise, then another's": lambda: piecewise({0: 0.0, 5: linear(0.0, 0.1, steps=4), 12: 0.3, 15: double}),
    "piecewise, first another's": lambda: piecewise({0: double, 5: 1}),
    "piecewise interpolated": lambda: piecewise([(0, 0.1), (5, 0.2), (9, 0)], interpolate=True),
    "one piece": lambda: piecewise({0: 0.4}),
}
STEPS = range(20)


def rows(*values: float) -> Callable[[int], float]:
    """Return the values at steps 0, 1, and so on. The last one stays."""
    return lambda step: values[min(step, len(values) - 1)]


EXPECTED: dict[str, Callable[[int], float]] = {
    "constant": lambda step: 0.1,
    "linear": lambda step: 0.01 * min(max(step - 3, 0), 10),
    "linear down": lambda step: 0.7 - 0.6 * min(step / 7, 1),
    "polynomial": lambda step: 0.1 + 0.6 * (1 - min(max(step - 2, 0) / 6, 1)) ** 3,
    "polynomial up": lambda step: 0.7 - 0.6 * (1 - min(step / 6, 1)) ** 0.5,
    "warmup": rows(0.05, 0.1, 0.15, 0.2),
    "warmup, then exponential": lambda step: 0.02 * step if step < 5 else 0.1 * 0.5 ** ((step - 5) / 4),
    "warmup, then another's": lambda step: (1.0, 0.5)[step] if step < 2 else (step - 2) * 2.0,
    "exponential": lambda step: 0.1 * 0.9 ** max(step - 2, 0),
    "exponential staircase": rows(0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.3),
    "exponential growth": lambda step: min(0.1 * 2 ** (step / 2), 0.7),
    "exponential to 0": lambda step: 0.1 * 0.5**step,
    "exponential from 0": lambda step: 0.0,
    "exponential that stays": lambda step: 0.3,
    "inverse time": lambda step: 0.6 / (1 + max(step - 2, 0) / 6),
    "inverse time staircase": lambda step: 0.6 / (1 + 2 * (step // 3)) ** 1.5,
    "cosine power": lambda step: 0.3 - 0.2 * (0.5 + 0.5 * math.cos(math.pi * min(step / 9, 1))) ** 2.5,
    "cosine": lambda step: 0.2 + 0.1 * math.cos(math.pi * min(max(step - 2, 0), 9) / 9),
    "cyclic": lambda step: 0.1 if step < 4 else (0.1, 0.4, 0.7, 1.0, 0.7, 0.4)[(step - 4) % 6],
    "cyclic hold": lambda step: (1 - math.cos(math.pi * min(step % 7 / 2.1, 1))) / 2,
    "cyclic saw": lambda step: step % 6 / 6,
    "piecewise, then another's": lambda step: (
        0.0 if step < 5 else 0.025 * min(step - 5, 4) if step < 12 else 0.3 if step < 15 else (step - 15) * 2.0
    ),
    "piecewise, first another's": lambda step: 2.0 * step if step < 5 else 1.0,
    "piecewise interpolated": lambda step: float(np.interp(step, [0, 5, 9], [0.1, 0.2, 0.0])),
    "one piece": lambda step: 0.4,
}
each = pytest.mark.parametrize("name", MADE)


def scalar(fw: Framework, step: int, dtype: str | None = None) -> Any:
    return fw.array(np.asarray(step), dtype)


def in_float32(fw: Framework) -> AbstractContextManager[Any]:
    """Switch float64 off in JAX, which is its default but not that of the tests."""
    if fw.name != "jax":
        return nullcontext()
    switch: AbstractContextManager[Any] = fw.module.enable_x64(False)
    return switch


def test_all_are_here() -> None:
    assert {schedule().name for schedule in MADE.values()} == set(SCHEDULES)
    assert MADE.keys() == EXPECTED.keys()


@each
def test_values(name: str) -> None:
    schedule = MADE[name]()
    got = [schedule(step) for step in STEPS]
    assert got == pytest.approx([EXPECTED[name](step) for step in STEPS], rel=1e-12, abs=1e-15)
    assert all(type(value) is float for value in got)
    assert [schedule(np.int64(step)) for step in STEPS] == got == [schedule(float(step)) for step in STEPS]


@each
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_values_at_arrays(fw: Framework, name: str, dtype: str) -> None:
    schedule = MADE[name]()
    got = [schedule(scalar(fw, step, dtype)) for step in STEPS]
    np.testing.assert_allclose([float(x) for x in got], [EXPECTED[name](step) for step in STEPS], rtol=1e-5, atol=1e-6)
    assert all(tuple(x.shape) == () and type(x) is type(got[0]) for x in got) and type(got[0]) is not float


@each
def test_one_program_for_all_steps(fw: Framework, name: str) -> None:
    if not fw.has_jit:
        pytest.skip(fw.row["no_jit"])
    schedule = MADE[name]()
    compiled, count = fw.compile(schedule)
    got = [float(compiled(scalar(fw, step))) for step in STEPS]
    np.testing.assert_allclose(got, [EXPECTED[name](step) for step in STEPS], rtol=1e-5, atol=1e-6)
    assert count() == 1


@each
@pytest.mark.only("torch", reason="is about torch.compile")
def test_numbers_that_change_between_calls(fw: Framework, name: str) -> None:
    """PyTorch makes a number symbolic once it has changed."""
    schedule = MADE[name]()
    compiled, count = fw.compile(lambda x, step: x * schedule(step))
    for step in STEPS[:8]:
        assert float(compiled(fw.array(np.asarray(1.0)), step)) == pytest.approx(
            EXPECTED[name](step), rel=1e-6, abs=1e-9
        )
    assert count() < 8


@pytest.mark.parametrize("steps", [3, 41, 47, 97, 100, 1000])
def test_ends_are_exact(fw: Framework, steps: int) -> None:
    """Compiled too, where a quotient may be a product."""
    for schedule in (
        linear(1.0, 0.0, steps=steps),
        linear(0.25, 0.75, steps=steps),
        warmup(linear(1.0, 0.0, steps=steps), steps=steps),
        cosine(1.0, steps=steps),
        cosine(1.0, steps=steps, exponent=0.3),
        polynomial(1.0, steps=steps, power=0.3),
        piecewise({0: 1.0, steps: 0.0}, interpolate=True),
    ):
        with in_float32(fw):
            run = fw.once(schedule)
            assert float(run(scalar(fw, 0))) == schedule(0)
            for step in (2 * steps, 10**6):
                assert float(run(scalar(fw, step))) == schedule(step)
            assert all(float(run(scalar(fw, step))) >= 0 for step in (steps - 1, steps, steps + 1, 2 * steps - 1))


@pytest.mark.parametrize("steps", [3, 41, 47, 97])
def test_stairs_begin_at_their_step(fw: Framework, steps: int) -> None:
    with in_float32(fw):
        run = fw.once(exponential(1.0, rate=0.5, steps=steps, staircase=True))
        for step in (steps - 1, steps, 2 * steps - 1, 2 * steps, 7 * steps):
            assert float(run(scalar(fw, step))) == pytest.approx(0.5 ** (step // steps), rel=1e-6)


@pytest.mark.parametrize(("rate", "step"), [(1 - 1e-6, 10**7), (1 - 1e-8, 10**8), (1 - 1e-5, 10**6)])
def test_a_rate_near_1(fw: Framework, rate: float, step: int) -> None:
    """Which float32 does not hold."""
    assert float(exponential(1.0, rate=rate)(scalar(fw, step))) == pytest.approx(rate**step, rel=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint32", "uint64", "float16"])
def test_numpys_numbers_as_steps(dtype: str) -> None:
    step = np.dtype(dtype).type(5)
    assert linear(0.0, 1.0, steps=10, begin=200)(step) == 0.0
    assert linear(0.0, 1.0, steps=10)(step) == 0.5 and cyclic(0, 1, period=1000)(step) == pytest.approx(0.01)
    assert linear(0.0, 1.0, steps=10, begin=10)(step) == 0.0


LONG: dict[str, Callable[[], Schedule]] = {  # numbers of steps beyond int32
    "linear": lambda: linear(1000.0, 0.0, steps=10**10),
    "linear later": lambda: linear(1.0, 0.0, steps=10, begin=10**10),
    "polynomial": lambda: polynomial(1000.0, power=2, steps=10**10),
    "warmup": lambda: warmup(1000.0, steps=10**10),
    "exponential": lambda: exponential(1000.0, rate=0.5, steps=10**10),
    "exponential to an end": lambda: exponential(1000.0, rate=0.5, steps=10**10, end=980.0),
    "exponential staircase": lambda: exponential(1000.0, rate=0.5, steps=10**10, staircase=True),
    "inverse time": lambda: inverse_time(1000.0, steps=10**10),
    "inverse time staircase": lambda: inverse_time(1000.0, steps=10**10, staircase=True),
    "cosine": lambda: cosine(1000.0, steps=10**10),
    "cyclic": lambda: cyclic(1.0, 1000.0, period=10**10),
    "piecewise": lambda: piecewise({0: 1.0, 5 * 10**8: linear(0.0, 4.0, steps=10**10), 10**10: 1000.0}),
    "piecewise interpolated": lambda: piecewise({0: 1.0, 10**10: 1000.0, 2 * 10**10: 0.0}, interpolate=True),
}


@pytest.mark.parametrize("name", LONG)
def test_long_runs(fw: Framework, name: str) -> None:
    """Whatever the counter holds: a dtype's largest integer is before all later steps."""
    schedule = LONG[name]()
    dtypes = ["int8", "uint8", "int32", "float32", *(("float16",) if "float16" in fw.dtypes else ())]
    with in_float32(fw):
        run = fw.once(schedule)
        for dtype in dtypes:
            step = 100 if dtype.endswith("8") or dtype == "float16" else 10**9
            assert float(run(scalar(fw, step, dtype))) == pytest.approx(schedule(step), rel=1e-5), dtype
        for step in (0, 3 * 10**9, 9 * 10**9, 10**10, 3 * 10**10):  # what no int32 holds
            counted = float(np.float32(step))
            assert float(run(scalar(fw, step, "float32"))) == pytest.approx(schedule(counted), rel=1e-5, abs=1e-4)


def test_counters_without_a_sign(fw: Framework) -> None:
    if not hasattr(fw.module if fw.name != "jax" else fw.module.numpy, "uint32"):
        pytest.skip("has no uint32")
    for switch in (in_float32(fw), nullcontext()):  # in JAX, with int64 and without
        with switch:
            step = fw.array(np.asarray(3_000_000_000, np.uint32))
            assert float(linear(0.0, 1.0, steps=10)(step)) == 1.0
            assert float(linear(0.0, 1.0, steps=4 * 10**9)(step)) == pytest.approx(0.75)
            assert float(linear(0.0, 1.0, steps=10**9, begin=25 * 10**8)(step)) == pytest.approx(0.5)
            assert float(linear(0.0, 1.0, steps=1, begin=4 * 10**9)(step)) == 0.0
            assert float(cyclic(0.0, 1.0, period=7)(step)) == pytest.approx(6 / 7)  # the remainder is 4


@pytest.mark.only("jax", reason="is about what JAX's default counters hold")
def test_a_number_in_a_program(fw: Framework) -> None:
    with in_float32(fw):
        value = fw.module.jit(cosine(1000.0, steps=10**10))(10**9)
        assert float(value) == pytest.approx(975.5282581475768, rel=1e-6)


def test_steps_beyond_what_float32_counts(fw: Framework) -> None:
    """A counter in integers is exact. The value has the precision of float32."""
    first = 2**24 + 1
    with in_float32(fw):
        for schedule in (linear(0.0, 1.0, steps=2**25), cosine(1.0, steps=2**25), cyclic(0.0, 1.0, period=2**25)):
            assert float(schedule(scalar(fw, first, "int32"))) == pytest.approx(schedule(first), rel=2**-22)
        for schedule in (linear(0.0, 4.0, steps=4, begin=2**24), cyclic(0.0, 4.0, period=4, rise=1.0)):
            assert float(schedule(scalar(fw, first, "int32"))) == 1.0
        stairs = exponential(1.0, rate=0.5, steps=first, staircase=True)
        assert [float(stairs(scalar(fw, first + i, "int32"))) for i in (-1, 0)] == [1.0, 0.5]


@pytest.mark.only("torch", reason="is about PyTorch's default dtype")
def test_a_default_dtype_of_half_precision(fw: Framework) -> None:
    before = fw.module.get_default_dtype()
    fw.module.set_default_dtype(fw.module.float16)
    try:
        value = linear(0.0, 1.0, steps=400_000)(fw.module.tensor(100_000))
    finally:
        fw.module.set_default_dtype(before)
    assert value.dtype == fw.module.float32 and float(value) == 0.25


def test_another_schedule_sees_steps_of_one_kind(fw: Framework) -> None:
    seen: list[Any] = []

    def other(step: Any) -> int:
        seen.append(step)
        return 1

    for schedule in (warmup(other, steps=3), piecewise({0: other, 2: other})):
        got = schedule(scalar(fw, 1))
        assert tuple(got.shape) == () and float(got) == pytest.approx(float(schedule(1))) and type(schedule(1)) is float
    assert {type(step) is int for step in seen} == {True, False}
    assert all(tuple(step.shape) == () for step in seen if type(step) is not int)


def test_dtypes(fw: Framework) -> None:
    """A weight has the dtype of floats that nothing else decides, whatever steps are counted in."""
    default = {"numpy": "float64", "torch": "float32", "dask": "float64"}.get(fw.name)
    dtypes = {str(linear(0.0, 1.0, steps=4)(scalar(fw, 1, dtype)).dtype) for dtype in ("int32", "int64", "float32")}
    assert len(dtypes) == 1 and (default is None or dtypes.pop().endswith(default))


def test_long_runs_are_counted_exactly(fw: Framework) -> None:
    """Beyond what float32 counts to."""
    begin = 2**30 + 1
    for schedule in (linear(0.0, 4.0, steps=4, begin=begin), cosine(0.0, 4.0, steps=4, begin=begin)):
        assert float(schedule(scalar(fw, begin))) == 0 < float(schedule(scalar(fw, begin + 1)))
        assert float(schedule(scalar(fw, begin + 2))) == pytest.approx(2.0)
    saw = cyclic(0.0, 4.0, period=4, rise=1.0)
    assert [float(saw(scalar(fw, 2**30 + i))) for i in range(4)] == [0, 1, 2, 3]


@each
def test_what_is_made_alike_is_equal(name: str) -> None:
    assert MADE[name]() == MADE[name]() and hash(MADE[name]()) == hash(MADE[name]())
    assert sum(MADE[name]() == other() for other in MADE.values()) == 1
    if "another" not in name:
        assert eval(repr(MADE[name]()), dict(SCHEDULES)) == MADE[name]()


@each
def test_pickles(name: str) -> None:
    schedule = MADE[name]()
    again = pickle.loads(pickle.dumps(Pipeline([Penalty("l1", weight=schedule)])))["l1"].weight
    assert again == schedule and again(3) == schedule(3)


@settings(max_examples=60)
@given(
    st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 2**40),
    st.floats(1e-3, 1), st.booleans(),
)  # fmt: skip
def test_values_stay_between_the_ends(
    a: float, b: float, steps: int, begin: int, step: int, rise: float, hold: bool
) -> None:
    low, high = sorted((a, b))
    slack = 1e-12 * high
    for schedule in (
        linear(a, b, steps=steps, begin=begin),
        cosine(a, b, steps=steps, begin=begin),
        warmup(b, steps=steps, start=a),
        cyclic(a, b, period=steps, rise=rise, then="hold" if hold else "fall", begin=begin),
        piecewise({0: a, steps: b}, interpolate=True),
        exponential(high, rate=rise, steps=steps, end=low),
    ):
        assert low - slack <= schedule(step) <= high + slack
    for schedule in (linear(a, b, steps=steps, begin=begin), cosine(a, b, steps=steps, begin=begin)):
        assert schedule(0) == schedule(begin) == a and schedule(begin + steps) == schedule(2**60) == b


def test_growth_does_not_overflow() -> None:
    assert exponential(1e-3, rate=10.0, end=5.0)(10**9) == 5.0
    assert exponential(1e-3, rate=0.5)(10**9) == 0.0


@pytest.mark.mixed
def test_like_optax() -> None:
    import jax.numpy as jnp
    import optax

    pairs = [
        (linear(0.3, 0.1, steps=7, begin=2), optax.linear_schedule(0.3, 0.1, 7, 2)),
        (cosine(0.3, 0.03, steps=9), optax.cosine_decay_schedule(0.3, 9, alpha=0.1)),
        (exponential(0.3, rate=0.5, steps=3, begin=2, end=0.05), optax.exponential_decay(0.3, 3, 0.5, 2, False, 0.05)),
        (polynomial(0.3, 0.05, power=2.5, steps=7, begin=2), optax.polynomial_schedule(0.3, 0.05, 2.5, 7, 2)),
        (cosine(0.3, 0.03, steps=9, exponent=2), optax.cosine_decay_schedule(0.3, 9, alpha=0.1, exponent=2)),
        (exponential(0.3, rate=0.5, steps=3, staircase=True), optax.exponential_decay(0.3, 3, 0.5, staircase=True)),
        (warmup(0.3, steps=4), optax.warmup_constant_schedule(0.0, 0.3, 4)),
        (warmup(cosine(0.3, steps=6), steps=4), optax.warmup_cosine_decay_schedule(0.0, 0.3, 4, 10)),
        (piecewise({0: 1.0, 3: 0.5, 6: 0.25}), optax.piecewise_constant_schedule(1.0, {3: 0.5, 6: 0.5})),
        (piecewise({0: linear(0.0, 1.0, steps=3), 3: optax.linear_schedule(1.0, 0.0, 4)}), optax.join_schedules(
            [optax.linear_schedule(0.0, 1.0, 3), optax.linear_schedule(1.0, 0.0, 4)], [3])),
    ]  # fmt: skip
    for ours, theirs in pairs:
        for step in range(12):
            at = jnp.asarray(step)
            assert float(ours(at)) == pytest.approx(float(theirs(at)), rel=1e-5, abs=1e-7), (ours, step)


# in pipelines


def test_a_pipeline_follows(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=linear(0.0, 1.0, steps=10)), Penalty("l2", weight=0.5)])
    for step in (0, 5, 50):
        for at in (step, scalar(fw, step)):
            total, report = pipe.compute(fw.array(X), step=at)
            share = min(step / 10, 1)
            assert float(total) == pytest.approx(share * L1 + 0.5 * L2, rel=1e-6)
            assert float(report.regularizers["l1"].weight) == pytest.approx(share)
    assert float(pipe.at(5)(fw.array(X))) == pytest.approx(0.5 * L1 + 0.5 * L2)
    assert "linear(start=0.0, end=1.0, steps=10, begin=0)" in repr(pipe)
    assert repr(pipe["l1"]) == "Penalty('l1', weight=linear(start=0.0, end=1.0, steps=10, begin=0))"


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_pipeline_made_anew_is_the_same_to_jax(fw: Framework) -> None:
    traced = []

    @fw.module.jit
    def total(pipe: Pipeline, x: Any, step: Any) -> Any:
        traced.append(1)
        return pipe(x, step=step)

    for step in range(4):
        for weight in (warmup(cosine(0.3, steps=6), steps=4), warmup(cosine(0.3, steps=6), steps=4)):
            total(Pipeline([Penalty("l1", weight=weight)]), fw.array(X), step)
    assert len(traced) == 1
    total(Pipeline([Penalty("l1", weight=warmup(cosine(0.2, steps=6), steps=4))]), fw.array(X), 0)
    assert len(traced) == 2


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_schedule_of_someone_elses_that_compares_arrays(fw: Framework) -> None:

    @dataclass
    class Other:
        array: Any

        def __call__(self, step: Any) -> Any:
            return 2.0 * self.array[0]

    total = fw.module.jit(lambda pipe, x: pipe(x, step=5))
    for array in (fw.array(np.ones(2)), fw.array(np.zeros(2)), np.ones(2)):
        for weight in (warmup(Other(array), steps=3), piecewise({0: 0.0, 3: Other(array)})):
            assert float(total(Pipeline([Penalty("l1", weight=weight)]), fw.array(X))) == 2 * float(array[0]) * L1


# errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: constant(-0.1), ValueError, r"^constant: `value` must be in \[0, inf\), got -0\.1\.$"),
        (lambda: constant("1"), TypeError, r"^constant: `value` must be a number in \[0, inf\), got str"),
        (constant, TypeError, r"^constant: missing a required .*: 'value'. The arguments are value\.$"),
        (lambda: linear(0, 1), TypeError, r"^linear: missing a required .*: 'steps'. The arguments are start, end"),
        (lambda: linear(0, 1, step=5), TypeError, r"^linear: .*'ste.* start, end, steps, begin\. .*'steps'\?$"),
        (lambda: linear(0, 1, steps=10**400), ValueError, r"^linear: `steps` must be below 2\*\*63, got an integer "),
        (lambda: cyclic(0, 1, period=2**63), ValueError, r"^cyclic: `period` must be below 2\*\*63, got an .* 64 bits"),
        (lambda: piecewise({0: 1, 10**5000: 2}), ValueError, r"^piecewise: `pieces` must be below 2\*\*63, got an int"),
        (lambda: linear(0, 1, steps=2)(10**5000), ValueError, r"^linear: `step` must be below 2\*\*63, got an integer"),
        (lambda: linear(0, 1, steps=2)(-(2**63)), ValueError, r"^linear: `step` must be below 2\*\*63, got an integer"),
        (lambda: polynomial(1.0, power=0, steps=2), ValueError, r"^polynomial: `power` must be in \(0, inf\), got 0"),
        (lambda: polynomial(1.0, steps=2), TypeError, r"^polynomial: missing a required .*: 'power'"),
        (lambda: inverse_time(1.0, rate=0), ValueError, r"^inverse_time: `rate` must be in \(0, inf\), got 0"),
        (lambda: cosine(1.0, steps=2, exponent=-1), ValueError, r"^cosine: `exponent` must be in \(0, inf\), got -1"),
        (lambda: linear(0, 1, steps=0), ValueError, r"^linear: `steps` must be at least 1, got 0\.$"),
        (lambda: linear(0, 1, steps=2.5), TypeError, r"^linear: `steps` must be an integer, got 2\.5"),
        (lambda: linear(0, math.nan, steps=2), ValueError, r"^linear: `end` must be in \[0, inf\), got nan"),
        (lambda: linear(0, 1, steps=2, begin=-1), ValueError, r"^linear: `begin` must be at least 0, got -1\.$"),
        (lambda: warmup("l1", steps=2), TypeError, r"^warmup: `after` must be a number in \[0, inf\), got str"),
        (lambda: warmup(-1, steps=2), ValueError, r"^warmup: `after` must be in \[0, inf\), got -1"),
        (lambda: exponential(1.0, rate=0.0), ValueError, r"^exponential: `rate` must be in \(0, inf\), got 0\.0"),
        (lambda: exponential(1.0, rate=2.0), ValueError, r"^exponential: `rate` must be in \(0, 1\] without an `end`"),
        (lambda: exponential(1.0, rate=2.0, end=0.5), ValueError, r"`end` must be reached .*, got 0\.5 from 1"),
        (lambda: exponential(1.0, rate=0.5, end=2), ValueError, r"`end` must be reached from `start`, got 2\.0 from 1"),
        (lambda: exponential(0.0, rate=2.0, end=2), ValueError, r"`end` must be reached from `start`, got 2\.0 from 0"),
        (lambda: cyclic(0, 1, period=4, rise=0), ValueError, r"^cyclic: `rise` must be in \(0, 1\], got 0"),
        (lambda: cyclic(0, 1, period=4, then="hol"), ValueError, r"^cyclic: `then` must be one of .*mean 'hold'"),
        (lambda: piecewise(0.5), TypeError, r"^piecewise: `pieces` must map steps to values, got 0\.5\. Pass a dict"),
        (lambda: piecewise("ab"), TypeError, r"^piecewise: `pieces` must map steps to values, got 'ab'"),
        (lambda: piecewise([0.5]), TypeError, r"^piecewise: `pieces` must be pairs of step and value, got 0\.5"),
        (lambda: piecewise([(0, 1, 2)]), TypeError, r"`pieces` must be pairs of step and value, got \(0, 1, 2\)"),
        (lambda: piecewise({0: 1, 2.5: 1}), TypeError, r"^piecewise: `pieces` must be an integer, got 2\.5"),
        (lambda: piecewise({}), ValueError, r"^piecewise: `pieces` must begin at step 0 and go up, got steps \[\]"),
        (lambda: piecewise({1: 1.0}), ValueError, r"must begin at step 0 and go up, got steps \[1\]"),
        (lambda: piecewise({0: 1, 5: 1, 3: 1}), ValueError, r"must begin at step 0 and go up, got steps \[0, 5, 3\]"),
        (lambda: piecewise({0: -1}), ValueError, r"^piecewise: `pieces` must be in \[0, inf\), got -1"),
        (
            lambda: piecewise({0: 1, 3: constant(1)}, interpolate=True),
            TypeError,
            r"^piecewise: `pieces` must be numbers to interpolate, got a schedule at step 3\. Leave out `interpolate`",
        ),
        (lambda: linear(0, 1, steps=2)(math.nan), ValueError, r"^linear: `step` must be finite, got nan"),
        (lambda: linear(0, 1, steps=2)("3"), TypeError, r"^linear: `step` must be a number or a 0-d array, got str"),
        (lambda: linear(0, 1, steps=2)(True), TypeError, r"^linear: `step` must be a number or a 0-d array, got bool"),
        (lambda: linear(0, 1, steps=2)(None), TypeError, r"^linear: `step` must be a number .* got NoneType"),
    ],
)  # fmt: skip
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_errors_of_arrays(fw: Framework) -> None:
    schedule = cosine(0.1, steps=3)
    with pytest.raises(ValueError, match=r"^cosine: `step` must be 0-d, got shape \(2,\)\. Index it\.$"):
        schedule(fw.array(np.asarray([1, 2])))
    with pytest.raises(TypeError, match=r"^cosine: `step` must be a number or a 0-d array, got .*bool"):
        schedule(fw.array(np.asarray(True)))
