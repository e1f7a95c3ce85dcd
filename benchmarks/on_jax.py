"""JAX, eager and jitted; the peers are always jitted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tracking
from by_hand import cases
from case import Case
from growth import series
from peaks import of_process
from problems import arrays
from table import Framework, Goal, Row, Scale

__all__ = ["rows"]

EAGER = Framework(
    "jax",
    lambda x: jax.block_until_ready(jnp.asarray(x)),  # it may copy in the background
    jax.jit(lambda *xs: [jnp.sum(x) for x in xs]),
    of_process,
    wait=jax.block_until_ready,
)
JITTED = replace(EAGER, name="jax.jit")
BY_HAND = "by hand, jitted"
OPTAX = "optax, jitted"
IN_EAGER = Goal("any penalty, eager JAX", 1.2, BY_HAND)
IN_JIT = Goal("any penalty under jax.jit", 1.1, BY_HAND)


def optax_kl(log_p: Any, log_q: Any) -> Any:
    return jnp.mean(optax.losses.kl_divergence_with_log_targets(log_q, log_p))


def penalty(scale: Scale, case: Case) -> list[Row]:
    """Return rows for a penalty and the obvious formula, eager and jitted."""
    peers = {BY_HAND: jax.jit(case.by_hand)}
    if case.label == "kl_divergence":
        peers[OPTAX] = jax.jit(optax_kl)
    return [
        Row(case.label, framework, partial(arrays, framework, scale, *case.kinds), ours, peers, goals=(goal,))
        for framework, ours, goal in ((EAGER, case.penalty, IN_EAGER), (JITTED, jax.jit(case.penalty), IN_JIT))
    ]


def gradients(scale: Scale, case: Case) -> Row:
    """Run forward and backward, with respect to all inputs."""
    wrt = tuple(range(len(case.kinds)))
    fns = {"ours": case.penalty, BY_HAND: case.by_hand}
    if case.label == "kl_divergence":
        fns[OPTAX] = optax_kl
    ours, *peers = (jax.jit(jax.value_and_grad(fn, argnums=wrt)) for fn in fns.values())
    inputs = partial(arrays, JITTED, scale, *case.kinds)
    return Row(f"{case.label} forward + backward", JITTED, inputs, ours, dict(zip(list(fns)[1:], peers, strict=True)))


def tracking_row(scale: Scale) -> Row:
    def total_by_hand(x: Any, teacher: Any) -> Any:
        return sum(weight * fn(x) for weight, fn in tracking.each_penalty(teacher))

    def norm_by_hand(i: int) -> Any:
        def norm(x: Any, teacher: Any) -> Any:
            own = jax.grad(tracking.each_penalty(teacher)[i][1])(x)
            return jnp.sqrt(jnp.sum(own * own))

        return jax.jit(norm)

    norms = [norm_by_hand(i) for i in range(len(tracking.PIPELINE))]
    total = jax.jit(jax.value_and_grad(total_by_hand))
    with_norms = jax.jit(jax.value_and_grad(partial(tracking.tracked, wrt="student"), has_aux=True))
    without = jax.jit(jax.value_and_grad(lambda x, fixed: tracking.PIPELINE({"student": x, "teacher": fixed})))

    def by_hand(student: Any, teacher: Any) -> Any:
        found = [norm(student, teacher) for norm in norms]
        value, gradient = total(student, teacher)
        return value, found, gradient

    def tracked(student: Any, teacher: Any) -> Any:
        (value, found), gradient = with_norms(student, teacher)
        return value, found, gradient

    inputs = partial(arrays, JITTED, scale, "logits", "logits")
    return tracking.row(JITTED, scale.rows, inputs, tracked, by_hand, without)


def rows(scale: Scale) -> list[Row]:
    """Return the rows of JAX."""
    known = cases(jnp, jax.nn.log_softmax, partial(jax.nn.logsumexp, axis=-1))
    with_gradients = ("kl_divergence", "entropy(from_logits=True)")
    return [
        *[row for case in known for row in penalty(scale, case)],
        *[gradients(scale, case) for case in known if case.label in with_gradients],
        tracking_row(scale),
        tracking.whole(JITTED, scale, known, jax.jit),
        *series(EAGER, scale, {BY_HAND: jax.jit(next(c.by_hand for c in known if c.label == "kl_divergence"))}),
    ]
