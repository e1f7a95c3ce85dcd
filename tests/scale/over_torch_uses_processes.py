"""What surrounds penalties of parts, on the processes of a gloo group: masks, blocks, pipelines, errors, compilers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import xpenalties as xp
from tests.helpers.processes import leave
from tests.scale.over_cases import STATISTICS
from tests.scale.over_torch_processes import GROUPS, check, part, start
from xpenalties import Penalty, Pipeline, block_size, over

ROWS, CLASSES = ("batch", None), ("classes", None)
BOTH = ("batch", "classes")


def randn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def gradients(value: Any, *arrays: Any) -> tuple[Any, ...]:
    return torch.autograd.grad(value, arrays)


def summed_over_batch(x: Any) -> Any:
    x = x.clone()
    dist.all_reduce(x, group=GROUPS["batch"]["batch"].get_group())
    return x


class Collectives(TorchDispatchMode):
    """Counts collective operations by the number of their elements."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "_c10d_functional" and "wait" not in func.name():
            self.sizes.append((func.name().split("::")[1].split(".")[0], args[0].numel()))
        return func(*args, **(kwargs or {}))


def masked(reduction: str, *, uneven: bool) -> None:
    """`where`, learned `weights` and `normalizer`, with rows that hold NaN, and a process whose rows are all masked."""
    z, weights = randn(4, 6), randn(4, seed=1).abs().requires_grad_()
    where = torch.tensor([False, False, True, True])  # the first process has none
    z[0] = float("nan")
    z.requires_grad_()
    options = {"from_logits": True, "reduction": reduction}
    local = [part(x.detach(), cut, uneven=uneven).requires_grad_() for x, cut in ((z, BOTH), (weights, BOTH[:1]))]
    mask = part(where, BOTH[:1], uneven=uneven)
    for normalizer in (None, 2.5, torch.tensor(3.0, dtype=torch.float64)):
        want = xp.entropy(z, where=where, weights=weights, normalizer=normalizer, **options)
        with over(**GROUPS["both"]):
            got = xp.entropy(local[0], where=mask, weights=local[1], normalizer=normalizer, **options)
        if reduction == "none":
            close(got.detach(), part(want.detach(), BOTH[:1], uneven=uneven))
            want, got = want.sum(), got.sum()
        else:
            close(got.detach(), want.detach())
        for a, b, cut in zip(gradients(got, *local), gradients(want, z, weights), (BOTH, BOTH[:1]), strict=True):
            close(a, part(b, cut, uneven=uneven))


def statistics(*, uneven: bool) -> None:
    """Samples are left out, and weighted. The first process may have none that is left."""
    for name, options, shape in STATISTICS:
        penalty = getattr(xp, name)
        samples = shape if name == "output_magnitude" else shape[:-1]
        cut = ("batch", *[None] * (len(shape) - 2), "classes")
        x, weights = randn(*shape).requires_grad_(), (randn(*samples, seed=1).abs() + 0.1).requires_grad_()
        first = torch.arange(shape[0]).reshape(-1, *[1] * (len(samples) - 1))
        for where in (randn(*samples, seed=2) > -0.5, (first > 1).expand(samples)):
            want = penalty(x, where=where, weights=weights, **options)
            local = [part(y.detach(), cut[: y.ndim], uneven=uneven).requires_grad_() for y in (x, weights)]
            with over(**GROUPS["both"]):
                mask = part(where, cut[: where.ndim], uneven=uneven)
                got = penalty(local[0], where=mask, weights=local[1], **options)
            close(got.detach(), want.detach())
            for a, b, y in zip(gradients(got, *local), gradients(want, x, weights), local, strict=True):
                close(a, part(b, cut[: y.ndim], uneven=uneven))


def broadcast_weights() -> None:
    """Learned weights that all devices hold, for elements: their gradient is whole over the classes."""
    x, weights = randn(4, 6), randn(4, 1, seed=1).abs().requires_grad_()
    want = gradients(xp.l2(x, weights=weights), weights)[0]
    local = part(weights.detach(), ("batch", None)).requires_grad_()
    with over(**GROUPS["both"]):
        value = xp.l2(part(x, BOTH), weights=local)
    close(value.detach(), xp.l2(x, weights=weights).detach())
    close(gradients(value, local)[0], part(want, ("batch", None)))


def all_masked() -> None:
    z = randn(4, 6).requires_grad_()
    local = part(z.detach(), BOTH).requires_grad_()
    nothing = torch.zeros(2, dtype=torch.bool)
    with over(**GROUPS["both"]):
        value = xp.entropy(local, from_logits=True, where=nothing)
    close(value.detach(), torch.zeros((), dtype=torch.float64))
    close(gradients(value, local)[0], torch.zeros_like(local))


def no_rows() -> None:
    """No process has rows."""
    for penalty, options in (
        (xp.entropy, {"from_logits": True}),
        (xp.l1, {}),
        (xp.orthogonality, {}),
        (xp.covariance, {}),
    ):
        x = torch.zeros((0, 3), dtype=torch.float64, requires_grad=True)
        with over(**GROUPS["both"]):
            value = penalty(x, **options)
        close(value.detach(), torch.zeros((), dtype=torch.float64))
        assert gradients(value, x)[0].shape == (0, 3)


def metrics() -> None:
    z, where = randn(4, 6), torch.tensor([False, False, True, False])
    pipeline = Pipeline([Penalty("entropy", options={"from_logits": True, "where": where})])
    want = pipeline.compute(z)[1].to_dict()
    mine = Pipeline([Penalty("entropy", options={"from_logits": True, "where": part(where, BOTH[:1])})])
    with over(**GROUPS["both"]):
        got = mine.compute(part(z, BOTH))[1].to_dict()
    close(torch.tensor(list(_numbers(got))), torch.tensor(list(_numbers(want))))


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _numbers(value)
    elif isinstance(tree, float):
        yield tree


def linear(*, reduction: str, blocks: int | None, uneven: bool) -> None:
    """A vocabulary-parallel layer, in blocks and with a mask: values, both gradients."""
    hidden_p, hidden_q = randn(6, 3), randn(6, 4, seed=1)
    weight_p, weight_q = randn(8, 3, seed=2), randn(8, 4, seed=3)
    where = torch.tensor([True, False, True, True, True, False])
    arrays, cuts = (hidden_p, weight_p, hidden_q, weight_q), (ROWS, CLASSES, ROWS, CLASSES)
    whole = [x.clone().requires_grad_() for x in arrays]
    local = [part(x, cut, uneven=uneven).requires_grad_() for x, cut in zip(arrays, cuts, strict=True)]
    want = xp.linear_kl_divergence(*whole, where=where, reduction=reduction)
    with over(**GROUPS["both"]), block_size(blocks):
        got = xp.linear_kl_divergence(*local, where=part(where, ROWS[:1], uneven=uneven), reduction=reduction)
    close(got.detach(), part(want.detach(), ROWS[: want.ndim], uneven=uneven))
    pairs = zip(gradients(got.sum(), *local), gradients(want.sum(), *whole), cuts, strict=True)
    for i, (a, b, cut) in enumerate(pairs):
        close(summed_over_batch(a) if i % 2 else a, part(b, cut, uneven=uneven))


def tokens(*, blocks: int | None, uneven: bool) -> None:
    """Tokens are indices of all classes. One is left out, and one is not a class."""
    hidden, weight = randn(6, 3).requires_grad_(), randn(8, 3, seed=2).requires_grad_()
    ids = torch.tensor([0, 3, -100, 7, 4, 1])
    local_h = part(hidden.detach(), ROWS, uneven=uneven).requires_grad_()
    local_w = part(weight.detach(), CLASSES, uneven=uneven).requires_grad_()
    want = xp.linear_log_probabilities(hidden, weight, ids, temperature=0.7, with_entropy=True)
    with over(**GROUPS["both"]), block_size(blocks):
        mine = part(ids, ROWS[:1], uneven=uneven)
        got = xp.linear_log_probabilities(local_h, local_w, mine, temperature=0.7, with_entropy=True)
        beyond = xp.linear_log_probabilities(local_h, local_w, torch.full_like(mine, 8))
    assert beyond.isnan().all()
    for a, b in zip(got, want, strict=True):
        close(a.detach(), part(b.detach(), ROWS[:1], uneven=uneven))
    of_h, of_w = gradients((got[0] * 2 + got[1]).sum(), local_h, local_w)
    want_h, want_w = gradients((want[0] * 2 + want[1]).sum(), hidden, weight)
    close(of_h, part(want_h, ROWS, uneven=uneven))
    close(summed_over_batch(of_w), part(want_w, CLASSES, uneven=uneven))


def communication() -> None:
    """Only arrays of rows, Gram matrices and scalars are communicated, and with equal parts no sizes."""
    rows, classes = 8, 64
    z, other = randn(rows, classes), randn(rows, classes, seed=1)
    cases: list[tuple[Callable[..., Any], dict[str, Any], int, int]] = [
        (xp.entropy, {"from_logits": True}, 1, 6),
        (xp.z_loss, {}, 1, 6),
        (xp.kl_divergence, {"from_logits": True}, 2, 16),
        (xp.js_divergence, {"from_logits": True}, 2, 12),
        (xp.l2, {"center": "mean"}, 1, 4),
        (xp.group_lasso, {}, 1, 3),
    ]
    for penalty, options, count, most in cases:
        local = [part(x, (None, "classes")).requires_grad_() for x in (z, other)[:count]]
        with over(**GROUPS["classes"], equal_parts=True), Collectives() as seen:
            penalty(*local, **options).backward()
        assert all(kind == "all_reduce" and size <= rows for kind, size in seen.sizes), (penalty, seen.sizes)
        assert 0 < len(seen.sizes) <= most, (penalty.__name__, seen.sizes)
    hidden, weight = randn(rows, 3).requires_grad_(), part(randn(classes, 3), CLASSES).requires_grad_()
    with over(**GROUPS["classes"], equal_parts=True), block_size(2 * classes // 2), Collectives() as seen:
        xp.linear_entropy(hidden, weight).backward()
    sizes = [size for _, size in seen.sizes]
    blocks = rows // 2
    assert set(sizes) == {2, 2 * 3}, sizes  # rows of a block, and its hidden states
    assert sizes.count(6) == blocks, sizes
    assert sizes.count(2) <= 6 * blocks, sizes
    with over(**GROUPS["batch"], equal_parts=True), Collectives() as seen:  # rows are whole: one sum
        xp.entropy(part(z, ("batch", None)).requires_grad_(), from_logits=True).backward()
    assert seen.sizes == [("all_reduce", 1)], seen.sizes
    x = part(randn(8, 16), ("batch", None)).requires_grad_()
    with over(**GROUPS["batch"], equal_parts=True), Collectives() as seen:  # 8 rows of 16: the matrix of rows
        xp.orthogonality(x).backward()
    assert sorted(size for kind, size in seen.sizes if kind == "all_reduce") == [8 * 8], seen.sizes
    assert [size for kind, size in seen.sizes if kind != "all_reduce"] == [x.numel()] * 2, seen.sizes


def pipeline(*, uneven: bool) -> None:
    """Totals, norms of whole gradients, cosines, and the gradient of the total."""
    arrays = {"hidden": randn(6, 3), "weight": randn(8, 3, seed=1), "logits": randn(4, 6, seed=2)}
    cuts = {"hidden": ROWS, "weight": CLASSES, "logits": BOTH}
    penalties = Pipeline(
        [
            Penalty("linear_entropy", inputs=("hidden", "weight"), weight=0.3),
            Penalty("entropy", inputs="logits", options={"from_logits": True}),
            Penalty("z_loss", inputs="logits", weight=0.1),
        ]
    )
    whole = {name: x.clone().requires_grad_() for name, x in arrays.items()}
    local = {name: part(x, cuts[name], uneven=uneven).requires_grad_() for name, x in arrays.items()}
    how = {"track_grad_norms": True, "gradient_conflicts": True}
    total, report = penalties.compute(whole, **how)
    with over(**GROUPS["both"]):
        got, mine = penalties.compute(local, **how)
        named = penalties.compute(local, track_grad_norms=True, wrt=("hidden", "weight", "logits"))[1]
    close(torch.tensor(list(_numbers(mine.to_dict()))), torch.tensor(list(_numbers(report.to_dict()))))
    close(named.total_grad_norm, report.total_grad_norm)
    got.backward()
    total.backward()
    for name, cut in cuts.items():
        gradient = summed_over_batch(local[name].grad) if name == "weight" else local[name].grad
        close(gradient, part(whole[name].grad, cut, uneven=uneven))


def no_norms_of_computed_arrays() -> None:
    """A penalty that gets another array than the one in `wrt` says so."""
    local = part(randn(4, 6), BOTH).requires_grad_()
    penalties = Pipeline([Penalty("entropy", inputs=lambda z: z.log_softmax(-1))])
    with over(**GROUPS["both"]):
        report = penalties.compute(local, track_grad_norms=True)[1]
    assert "unchanged" in report.regularizers["entropy"].error, report
    assert report.total_grad_norm is None


def errors() -> None:
    """Each error is the same on every process, and no process waits for another."""
    rank = dist.get_rank()
    uneven_rows = randn(2 + rank % 2, 3)  # over `classes`, rows must be equal
    group = GROUPS["both"]
    own = randn(2, 3)
    is_last = rank == dist.get_world_size() - 1
    calls: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: xp.entropy(uneven_rows), ValueError, "`log_p` must have the same size along axis 0 on all devices"),
        (lambda: xp.l1(torch.tensor(1.0)), ValueError, "`x` must have an axis to be cut, got shape"),
        (lambda: xp.l1(torch.ones(3)), ValueError, "`x` must have one axis for `classes` and another"),
        (lambda: xp.l1(own.numpy()), TypeError, "`x` must be a plain PyTorch tensor inside over"),
        (lambda: xp.entropy(own, where=torch.ones(3) > 0), ValueError, "`where` must broadcast to its part"),
        (lambda: xp.orthogonality(own, per_sample=True, where=torch.ones(2) > 0), ValueError, "`where` must broadcast"),
        (
            lambda: xp.entropy(own, where=torch.ones(2 + rank % 2) > 0),
            ValueError,
            "`where` must have the same size along",
        ),
        # what only the last process does; the first one is in none of its lines
        (lambda: xp.entropy(randn(2 + is_last, 3)), ValueError, "`log_p` must have the same size along axis 0 on all"),
        (
            lambda: xp.l1(randn(*[2] * (2 + is_last))),
            ValueError,
            "must make the same call, got l1(x: Tensor",
        ),
        (
            lambda: xp.l1(own.float() if is_last else own),
            ValueError,
            "torch.float32 with 2 axes, normalizer",
        ),
        (
            lambda: (xp.l2 if is_last else xp.l1)(own),
            ValueError,
            "on one and l2(x: Tensor of torch.float64",
        ),
        (lambda: xp.entropy(own, mode="bonus" if is_last else "penalty"), ValueError, "mode='penalty'"),
        (lambda: xp.l1(own, where=own > 0 if is_last else None), ValueError, "where: Tensor of torch.bool with 2 axes"),
        (lambda: xp.l1(own, reduction="sum" if is_last else "mean"), ValueError, "reduction='sum') on another"),
        (
            lambda: xp.kl_divergence(randn(*[2] * 8), randn(*[2] * 7, 2 + is_last)),  # more sizes than one message has
            ValueError,
            "`log_q`",
        ),
        (lambda: xp.entropy(own, axis=5), ValueError, "`axis` must be an axis of `log_p`, got 5"),
        (lambda: xp.entropy(own, mode="bonsu"), ValueError, "`mode` must be one of"),
        (lambda: xp.linear_entropy(own[0], own), ValueError, "`hidden` must have an axis of rows"),
        (lambda: xp.linear_entropy(own, randn(2, 4)), ValueError, r"`weight` must have shape (classes, features)"),
        (lambda: Pipeline({"l1": 1.0}).compute(own, execution="threads"), ValueError, "must be 'sequential' inside"),
    ]
    for call, kind, message in calls:
        raised: BaseException | None = None
        with over(**group):
            try:
                call()
            except (TypeError, ValueError) as error:
                raised = error
        assert type(raised) is kind, (raised, message)
        assert message in str(raised), (raised, message)
        of_all: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(of_all, str(raised))
        assert len(set(of_all)) == 1 or kind is TypeError, of_all  # a type's error has the name of the own group
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ValueError, "must have `classes` or `batch`, got neither"),
        ({"classes": 3}, TypeError, "`classes` must be an axis name, a torch.distributed.ProcessGroup"),
        ({"classes": group["classes"], "batch": group["classes"]}, ValueError, "must be different groups"),
        ({"classes": group["classes"], "equal_parts": 1}, TypeError, "`equal_parts` must be True or False"),
    ]
    for arguments, kind, message in wrong:
        raised = None
        try:
            over(**arguments)
        except (TypeError, ValueError) as error:
            raised = error
        assert type(raised) is kind, raised
        assert message in str(raised), raised


def value_checks() -> None:
    """`set_value_checks` sees probabilities of whole rows."""
    log_p = randn(4, 6).log_softmax(-1)
    with over(**GROUPS["both"]), xp.set_value_checks():
        xp.entropy(part(log_p, BOTH))
        raised = None
        try:
            xp.entropy(part(log_p + 0.1, BOTH))
        except ValueError as error:
            raised = error
    assert "must hold log-probabilities" in str(raised), raised


def extreme(*, uneven: bool) -> None:
    """Masked classes, huge logits and equal distributions, where plain formulas give NaN or lose digits."""
    z = torch.tensor([[0.0, -torch.inf, 3.0, -torch.inf], [1e4, -1e4, 5.0, 1e4], [1.0, 1 + 1e-9, 1.0, 1.0], [2.0] * 4])
    z = z.double()
    q = torch.roll(z, 1, dims=0)
    for penalty, arrays in (
        (xp.entropy, (z,)),
        (xp.kl_divergence, (z, q)),
        (xp.kl_divergence, (z, z + 1e-7)),
        (xp.z_loss, (z,)),
    ):
        options = {} if penalty is xp.z_loss else {"from_logits": True}
        with over(**GROUPS["both"]):
            got = penalty(*(part(x, BOTH, uneven=uneven) for x in arrays), reduction="none", **options)
        close(got, part(penalty(*arrays, reduction="none", **options), BOTH[:1], uneven=uneven))


def functional() -> None:
    """torch.func.grad, torch.func.jvp and torch.vmap of penalties of parts."""
    z = randn(4, 6)
    local = part(z, BOTH)

    def value(x: Any) -> Any:
        with over(**GROUPS["both"], equal_parts=True):
            return xp.entropy(x, from_logits=True)

    want = torch.func.grad(lambda x: xp.entropy(x, from_logits=True))(z)
    close(torch.func.grad(value)(local), part(want, BOTH))
    stacked = torch.stack([z, 2 * z])
    got = torch.vmap(value)(torch.stack([local, 2 * local]))
    close(got, torch.vmap(lambda x: xp.entropy(x, from_logits=True))(stacked))


def compiled() -> None:
    """torch.compile without graph breaks, with `over` outside and inside of the compiled function."""
    z = randn(4, 6)

    def value(x: Any) -> Any:
        return xp.entropy(x, from_logits=True) + xp.l2(x, center="mean")

    def inside(x: Any) -> Any:
        with over(**GROUPS["both"], equal_parts=True):
            return value(x)

    want = value(z.requires_grad_())
    want_gradient = part(gradients(want, z)[0], BOTH)
    local = part(z.detach(), BOTH).requires_grad_()
    with over(**GROUPS["both"], equal_parts=True):
        got = torch.compile(value, fullgraph=True, backend="aot_eager")(local)
        close(got.detach(), want.detach())
        close(gradients(got, local)[0], want_gradient)
    got = torch.compile(inside, fullgraph=True, backend="aot_eager")(local)
    close(got.detach(), want.detach())
    close(gradients(got, local)[0], want_gradient)
    close(torch.compile(value, fullgraph=True, backend="aot_eager")(z).detach(), want.detach())  # without `over`

    def exchanging(x: Any) -> Any:
        with over(**GROUPS["both"]):
            return value(x)

    raised: BaseException | None = None
    try:
        torch.compile(exchanging, fullgraph=True, backend="aot_eager")(local)
    except torch._dynamo.exc.Unsupported as error:
        raised = error
    assert "`equal_parts` of `over` must be True in torch.compile" in str(raised), raised
    close(torch.compile(exchanging, backend="aot_eager")(local).detach(), want.detach())  # runs as written


RUNS: dict[str, Callable[[], None]] = {
    "no rows": no_rows,
    "all masked": all_masked,
    "broadcast weights": broadcast_weights,
    "metrics": metrics,
    "communication": communication,
    "no norms of computed arrays": no_norms_of_computed_arrays,
    "errors": errors,
    "value checks": value_checks,
    "functional": functional,
    "compiled": compiled,
}
for _uneven in (False, True):
    _suffix = " uneven" if _uneven else ""
    RUNS[f"extreme{_suffix}"] = partial(extreme, uneven=_uneven)
    RUNS[f"statistics{_suffix}"] = partial(statistics, uneven=_uneven)
    RUNS[f"pipeline{_suffix}"] = partial(pipeline, uneven=_uneven)
    for _reduction in ("sum", "mean", "none"):
        RUNS[f"masked {_reduction}{_suffix}"] = partial(masked, _reduction, uneven=_uneven)
        for _blocks in (None, 4, 16):
            _name = f"linear {_reduction} in blocks of {_blocks}{_suffix}"
            RUNS[_name] = partial(linear, reduction=_reduction, blocks=_blocks, uneven=_uneven)
    for _blocks in (None, 4):
        RUNS[f"tokens in blocks of {_blocks}{_suffix}"] = partial(tokens, blocks=_blocks, uneven=_uneven)


def main(rank: int, count: int, store: str, of: str) -> None:
    start(rank, count, store)
    for name, run in RUNS.items():
        if name.startswith(("linear", "tokens")) is (of == "layers"):
            check(name, run)
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
