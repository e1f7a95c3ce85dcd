"""Eager PyTorch on the CPU, and on a CUDA device if there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import heads
import torch
import torch_peers as peer
import tracking
from by_hand import cases
from dispatch import overheads
from growth import series
from peaks import of_cuda, of_process
from table import Framework, Goal, Row, Scale
from torch_peers import inputs, with_gradients

import xpenalties as xp

__all__ = ["CPU", "by_hand", "rows"]

CPU = Framework(
    "torch",
    torch.from_numpy,
    lambda *xs: [torch.sum(x) for x in xs],
    of_process,
    fresh=partial(torch.set_num_threads, torch.get_num_threads()),
)
ONE_THREAD = replace(CPU, fresh=partial(torch.set_num_threads, 1))  # log_softmax uses several, even for 4 elements


def by_hand() -> list:
    """Return rows for every array penalty and the obvious formula."""
    return cases(torch, lambda x: torch.log_softmax(x, dim=-1), lambda x: torch.logsumexp(x, dim=-1))


def never_in_blocks(fn: Callable[..., Any]) -> Callable[..., Any]:
    def run(*xs: Any) -> Any:
        with xp.block_size(None):
            return fn(*xs)

    return run


def kl_of_logits(p: Any, q: Any) -> Any:
    return xp.kl_divergence(p, q, from_logits=True)


def js_of_logits(p: Any, q: Any) -> Any:
    return xp.js_divergence(p, q, from_logits=True)


def entropy_of_logits(z: Any) -> Any:
    return xp.entropy(z, from_logits=True)


Ways = dict[str, Callable[..., Any]]
KL: Ways = {"F.kl_div": peer.f_kl_div, "torch.distributions": peer.distributions_kl}
LOGITS_KL: Ways = {"F.kl_div of log_softmax": peer.f_kl_div_of_logits, "torch.distributions": peer.distributions_kl}
ENTROPY: Ways = {"unchunked formula": peer.unchunked_entropy, "torch.distributions": peer.distributions_entropy}
JSD: Ways = {"TRL's formula": peer.generalised_jsd}
SUBJECTS: list[tuple[str, tuple[str, ...], Callable[..., Any], Ways]] = [
    ("KL", ("log_p", "log_p"), xp.kl_divergence, KL),
    ("KL of logits", ("logits", "logits"), kl_of_logits, LOGITS_KL),
    ("entropy of logits", ("logits",), entropy_of_logits, ENTROPY),
    ("JS of logits", ("logits", "logits"), js_of_logits, JSD),
]
GOALS = {  # work: (limit, peer, of what)
    "KL forward": [(0.6, "F.kl_div", "time")],
    "KL forward + backward": [
        (0.6, "F.kl_div", "time"),
        (0.2, "torch.distributions", "time"),
        (64, "", "memory"),
    ],
    "KL forward + backward by q": [(0.6, "F.kl_div", "time"), (0.2, "torch.distributions", "time")],
    "entropy of logits forward": [(0.35, "unchunked formula", "time")],
    "entropy of logits forward + backward": [(64, "", "memory")],
    "KL of logits forward + backward": [(64, "", "memory")],
}


def both_ways(framework: Framework, scale: Scale, subject: tuple, *, dtype: Any = None) -> list[Row]:
    """Return rows for a subject, forward, and forward and backward."""
    name, kinds, ours, peers = subject
    if dtype is not None:
        name = f"{name} in {str(dtype).removeprefix('torch.')}"
    differentiated = {peer: with_gradients(fn) for peer, fn in peers.items()}

    def row(work: str, ours: Any, peers: Ways, wrt: str, *, memory: bool) -> Row:
        return Row(
            work,
            framework,
            partial(inputs, framework, scale, *kinds, wrt=wrt, dtype=dtype),
            ours,
            peers,
            goals=tuple(Goal(f"{work}, {framework.name}", *goal) for goal in GOALS.get(work, ())),
            memory=memory,
            rtol=1e-3 if dtype is None else 0.1,
            unlike=("torch.distributions",) if name == "KL" else (),  # it normalizes, and so do its gradients
        )

    none, each = "0" * len(kinds), "1" * len(kinds)
    found = [
        row(f"{name} forward", ours, peers, none, memory=dtype is None),
        row(f"{name} forward + backward", with_gradients(ours), differentiated, each, memory=dtype is None),
    ]
    if name == "KL":
        for letter, wrt in (("p", "10"), ("q", "01")):
            work = f"{name} forward + backward by {letter}"
            found.append(row(work, with_gradients(ours), differentiated, wrt, memory=False))
    return found


def blocks(framework: Framework, scale: Scale) -> list[Row]:
    """Return rows that show what blocks of rows save."""
    return [
        Row(
            f"{name} forward + backward, in blocks",
            framework,
            partial(inputs, framework, scale, *kinds),
            with_gradients(ours),
            {"never in blocks": with_gradients(never_in_blocks(ours))},
            memory=True,
        )
        for name, kinds, ours, _ in SUBJECTS[:3:2]
    ]


def orthogonality(framework: Framework, scale: Scale) -> Row:
    n, d = scale.tall
    work = f"orthogonality {n} x {d} forward + backward"
    return Row(
        work,
        framework,
        partial(inputs, framework, scale, "tall"),
        with_gradients(xp.orthogonality),
        {"n x n Gram form": with_gradients(peer.gram_form)},
        goals=(Goal(f"{work}, {framework.name}", 0.02, "n x n Gram form"),),
        memory=True,
    )


def tracking_row(framework: Framework, scale: Scale) -> Row:
    def gradient(total: Any, student: Any) -> Any:
        return torch.autograd.grad(total, student)[0]

    def by_hand(student: Any, teacher: Any) -> Any:
        norms = []
        for _, penalty in tracking.each_penalty(teacher):
            own = gradient(penalty(student), student)
            norms.append((own * own).sum().sqrt())  # vector_norm of so many is off by 1e-3 in float32
        total = sum(weight * penalty(student) for weight, penalty in tracking.each_penalty(teacher))
        return total.detach(), norms, gradient(total, student)

    def tracked(student: Any, teacher: Any) -> Any:
        total, norms = tracking.tracked(student, teacher, wrt="student")
        return total.detach(), norms, gradient(total, student)

    def untracked(student: Any, teacher: Any) -> Any:
        total = tracking.PIPELINE({"student": student, "teacher": teacher})
        return total.detach(), gradient(total, student)

    student_and_teacher = partial(inputs, framework, scale, "logits", "logits", wrt="10")
    return tracking.row(framework, scale.rows, student_and_teacher, tracked, by_hand, untracked)


def rows(scale: Scale) -> list[Row]:
    """Return the rows of eager PyTorch."""
    frameworks = [CPU]
    if torch.cuda.is_available():
        frameworks.append(
            Framework("torch, CUDA", lambda x: torch.from_numpy(x).cuda(), CPU.read, of_cuda, wait=_synchronized)
        )
    found = []
    for framework in frameworks:
        found += [row for subject in SUBJECTS for row in both_ways(framework, scale, subject)]
        found += [
            row for subject in SUBJECTS[1:3] for row in both_ways(framework, scale, subject, dtype=torch.bfloat16)
        ]
        found += [orthogonality(framework, scale), tracking_row(framework, scale)]
        found += [*heads.rows(framework, scale), *blocks(framework, scale)]
    return [*found, *series(CPU, scale, {"F.kl_div": peer.f_kl_div}), *overheads(ONE_THREAD, scale, by_hand())]


def _synchronized(result: Any) -> Any:
    torch.cuda.synchronize()
    return result
