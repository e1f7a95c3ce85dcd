"""What gradient norms of each penalty cost: tracked in one computation, against a pass for each by hand.

Run `python benchmarks/tracking.py` where the frameworks to measure are installed. Four penalties on logits; by hand,
each is evaluated and differentiated on its own, and then the total is, once more: N + 1 passes. The figures must agree.
The two are timed in turns; the best of several repeats, in seconds, and the ratio of tracking to doing it by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from xpenalties import Penalty, Pipeline, value_and_grad

SHAPE = 256, 32_000
REPEATS = 7

PIPELINE = Pipeline(
    [
        Penalty("kl_divergence", inputs=("teacher", "student"), weight=0.5, options={"from_logits": True}),
        Penalty("entropy", inputs="student", weight=0.1, options={"from_logits": True, "mode": "bonus"}),
        Penalty("l2", inputs="student", weight=1e-6),
        Penalty("consistency", inputs=("student", "teacher"), weight=0.3),
    ]
)

Run = Callable[[], Any]
Figures = tuple[Any, list[Any], Any]  # the total, norms of the penalties' gradients, the total's gradient


def each_penalty(inputs: dict[str, Any]) -> list[tuple[Any, Callable[[Any], Any]]]:
    """Weights, and penalties as functions of the student."""
    return [(p.weight, lambda x, p=p: p.fn(*p.arguments(({**inputs, "student": x},)), **p.options)) for p in PIPELINE]


def on_torch(student: Any, teacher: Any) -> dict[str, Run]:
    import torch

    inputs = {"student": torch.asarray(student).requires_grad_(), "teacher": torch.asarray(teacher)}
    x = inputs["student"]

    def gradient(total: Any) -> Any:
        x.grad = None
        total.backward()
        return x.grad

    def by_hand() -> Figures:
        norms = []
        for _, penalty in each_penalty(inputs):
            (own,) = torch.autograd.grad(penalty(x), x)
            norms.append((own * own).sum().sqrt())  # vector_norm of so many is off by 1e-3 in float32
        total = sum(weight * penalty(x) for weight, penalty in each_penalty(inputs))
        return total.detach(), norms, gradient(total)

    def tracked() -> Figures:
        total, report = PIPELINE.compute(inputs, track_grad_norms=True)
        return total.detach(), [part.grad_norm for part in report.regularizers.values()], gradient(total)

    return {
        "by hand": by_hand,
        "tracked": tracked,
        "tracked, no backward": lambda: PIPELINE.compute(inputs, track_grad_norms=True),
        "not tracked": lambda: gradient(PIPELINE.compute(inputs)[0]),
    }


def on_jax(student: Any, teacher: Any) -> dict[str, Run]:
    import jax
    import jax.numpy as jnp

    x, fixed = jnp.asarray(student), jnp.asarray(teacher)

    def compute(x: Any, fixed: Any, track: bool) -> Any:
        options = {"track_grad_norms": True, "wrt": "student"} if track else {}
        return PIPELINE.compute({"student": x, "teacher": fixed}, **options)

    def total_by_hand(x: Any, fixed: Any) -> Any:
        return sum(weight * penalty(x) for weight, penalty in each_penalty({"teacher": fixed}))

    def norm_by_hand(i: int) -> Any:
        def norm(x: Any, fixed: Any) -> Any:
            own = jax.grad(each_penalty({"teacher": fixed})[i][1])(x)
            return jnp.sqrt(jnp.sum(own * own))

        return jax.jit(norm)

    norms = [norm_by_hand(i) for i in range(len(PIPELINE))]
    whole = jax.jit(jax.value_and_grad(total_by_hand))
    with_report = jax.jit(jax.value_and_grad(lambda x, fixed: compute(x, fixed, True), has_aux=True))
    alone = jax.jit(lambda x, fixed: compute(x, fixed, True))
    without = jax.jit(jax.value_and_grad(lambda x, fixed: compute(x, fixed, False), has_aux=True))

    def by_hand() -> Figures:
        found = [norm(x, fixed) for norm in norms]
        total, gradient = whole(x, fixed)
        return jax.block_until_ready((total, found, gradient))

    def tracked() -> Figures:
        (total, report), gradient = jax.block_until_ready(with_report(x, fixed))
        return total, [part.grad_norm for part in report.regularizers.values()], gradient

    return {
        "by hand": by_hand,
        "tracked": tracked,
        "tracked, no backward": lambda: jax.block_until_ready(alone(x, fixed)),
        "not tracked": lambda: jax.block_until_ready(without(x, fixed)),
    }


def on_numpy(student: Any, teacher: Any) -> dict[str, Run]:
    fixed = {"teacher": teacher}

    def by_hand() -> Figures:
        gradients = [value_and_grad(penalty)(student)[1] for _, penalty in each_penalty(fixed)]
        norms = [np.sqrt(np.sum(own * own)) for own in gradients]

        def summed(x: Any) -> Any:
            return sum(weight * penalty(x) for weight, penalty in each_penalty(fixed))

        total, gradient = value_and_grad(summed)(student)
        return total, norms, gradient

    def compute(x: Any, **options: Any) -> Any:
        return PIPELINE.compute({**fixed, "student": x}, **options)

    track = {"track_grad_norms": True, "wrt": "student"}

    def tracked() -> Figures:
        (total, report), gradient = value_and_grad(compute, has_aux=True)(student, **track)
        return total, [part.grad_norm for part in report.regularizers.values()], gradient

    return {
        "by hand": by_hand,
        "tracked": tracked,
        "tracked, no backward": lambda: compute(student, **track),
        "not tracked": lambda: value_and_grad(compute, has_aux=True)(student),
    }


def check(runs: dict[str, Run]) -> None:
    """The figures of both must agree to 1e-6; a norm is exact to no more than float32's sums are."""
    (total, norms, gradient), (total_2, norms_2, gradient_2) = runs["by hand"](), runs["tracked"]()
    np.testing.assert_allclose(float(total_2), float(total), rtol=1e-6)
    scale = float(abs(gradient).max())
    np.testing.assert_allclose(np.asarray(gradient_2) / scale, np.asarray(gradient) / scale, atol=1e-6)
    for a, b in zip(norms_2, norms, strict=True):
        np.testing.assert_allclose(float(a), float(b), rtol=1e-6)


def best(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """Seconds, each run once in each round: what else the machine does is shared out."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def main() -> None:
    """Measure what is installed."""
    rng = np.random.default_rng(0)
    makers = {"torch": on_torch, "jax": on_jax, "numpy": on_numpy}
    for name, make in makers.items():
        if find_spec(name) is None:
            print(f"{name}: did not run, it is not installed")
            continue
        rows = 32 if name == "numpy" else SHAPE[0]  # NumPy's is slow
        student, teacher = rng.standard_normal((2, rows, SHAPE[1]), dtype=np.float32)
        runs = make(student, teacher)
        check(runs)
        seconds = best(runs, REPEATS)
        print(f"{name}, {rows} x {SHAPE[1]}")
        for run, value in seconds.items():
            print(f"  {run:22}{value:8.3f} s{value / seconds['by hand']:8.2f}")


if __name__ == "__main__":
    main()
