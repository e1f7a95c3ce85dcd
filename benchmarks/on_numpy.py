"""NumPy, with autograd's gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tracking
from by_hand import cases
from case import Case
from dispatch import overheads
from growth import series
from peaks import of_numpy
from problems import arrays
from scipy.special import logsumexp, rel_entr
from table import Fed, Framework, Goal, Row, Scale

from xpenalties import value_and_grad

__all__ = ["rows"]

NUMPY = Framework("numpy", lambda x: x, lambda *xs: [np.sum(x) for x in xs], of_numpy)


def log_softmax(z: Any) -> Any:
    shifted = z - np.max(z, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def scipy_kl(p: Any, q: Any) -> Any:
    return np.mean(np.sum(rel_entr(p, q), axis=-1))


def probabilities(*log_ps: Any) -> tuple[Any, ...]:
    return tuple(np.exp(log_p) for log_p in log_ps)


def penalty(scale: Scale, case: Case) -> Row:
    """Return rows for a penalty and the obvious NumPy formula."""
    peers: dict[str, Any] = {"by hand": case.by_hand}
    goals = []
    if case.label == "kl_divergence":
        peers["scipy.special.rel_entr"] = Fed(scipy_kl, probabilities)
        goals = [Goal("KL forward, numpy", 0.65, "by hand"), Goal("KL forward, numpy", 16, of="memory")]
    inputs = partial(arrays, NUMPY, scale, *case.kinds)
    return Row(f"{case.label} forward", NUMPY, inputs, case.penalty, peers, goals=tuple(goals), memory=True)


def tracking_row(scale: Scale) -> Row:
    def by_hand(student: Any, teacher: Any) -> Any:
        gradients = [value_and_grad(fn)(student)[1] for _, fn in tracking.each_penalty(teacher)]
        norms = [np.sqrt(np.sum(own * own)) for own in gradients]
        total, gradient = value_and_grad(lambda x: sum(w * fn(x) for w, fn in tracking.each_penalty(teacher)))(student)
        return total, norms, gradient

    def tracked(student: Any, teacher: Any) -> Any:
        compute = value_and_grad(partial(tracking.tracked, teacher=teacher, wrt="student"), has_aux=True)
        (total, norms), gradient = compute(student)
        return total, norms, gradient

    def untracked(student: Any, teacher: Any) -> Any:
        return value_and_grad(lambda x: tracking.PIPELINE({"student": x, "teacher": teacher}))(student)

    fewer = replace(scale, rows=max(scale.rows // 16, 1))  # autograd is slow
    inputs = partial(arrays, NUMPY, fewer, "logits", "logits")
    return tracking.row(NUMPY, fewer.rows, inputs, tracked, by_hand, untracked)


def rows(scale: Scale) -> list[Row]:
    """Return the rows of NumPy."""
    known = {case.label: case for case in cases(np, log_softmax, partial(logsumexp, axis=-1))}
    shown = ("kl_divergence", "kl_divergence(from_logits=True)", "js_divergence", "entropy(from_logits=True)")
    return [
        *[penalty(scale, known[label]) for label in shown],
        tracking_row(scale),
        *series(NUMPY, scale, {"by hand": known["kl_divergence"].by_hand}),
        *overheads(NUMPY, scale, list(known.values())),
    ]
