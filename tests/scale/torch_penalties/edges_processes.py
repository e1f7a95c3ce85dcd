"""DTensors in edge cases, on two processes: empty and masked parts, layers, half precision, values, random numbers."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import loss_parallel

import xpenalties as xp
from tests.helpers.processes import leave
from tests.matrix.cases import CASES
from tests.scale.over_cases import STATISTICS
from tests.scale.torch_penalties.matrix_processes import arrays_of, gradients, options_of, whole
from tests.scale.torch_penalties.moved_processes import Moved
from xpenalties.backends import backend_of

_ = torch.distributed.is_initialized() or torch.distributed.init_process_group("gloo")
MESH = init_device_mesh("cpu", (2,))
RANK = torch.distributed.get_rank()
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def cut(x: torch.Tensor, placement: Any) -> Any:
    return distribute_tensor(x, MESH, [placement])


def randn(*shape: int, dtype: Any = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def same(got: Any, want: Any, rtol: float = 1e-9, message: str = "") -> None:
    np.testing.assert_allclose(whole(got).astype(float), whole(want).astype(float), rtol, 1e-11, err_msg=message)


def compare(
    fn: Callable[..., Any], arrays: list[Any], placements: list[Any], *, rtol: float = 1e-9, message: str = ""
) -> None:
    """Compare value, gradients and second gradients with those of one process. Gradients are cut as their arrays."""
    want = gradients(fn, arrays)
    parts = [cut(x, p) for x, p in zip(arrays, placements, strict=True)]
    got = gradients(fn, parts)
    same(got[0], want[0], rtol, f"{message} value")
    for i, (x, part) in enumerate(zip(got[1], parts, strict=True)):
        assert not isinstance(part, DTensor) or x.placements == part.placements, f"{message} gradient {i}"
    for order in (1, 2):
        for i, (x, y) in enumerate(zip(got[order], want[order], strict=True)):
            same(x, y, rtol, f"{message} gradient {i} of order {order}")


#: Statistics that one sample does not have.
NEEDS_TWO = ("variance", "covariance", "cross_correlation", "coral", "koleo", "uniformity")


@check
def empty_parts() -> None:
    for case in CASES:
        needs_two = case.name in NEEDS_TWO or case.options.get("unbiased")
        if needs_two or any(isinstance(x, np.ndarray) for x in case.options.values()):
            continue
        options = options_of(case)
        for size in (0, 1):
            small = [torch.from_numpy(np.array(x)) for x in case.changed(lambda x, size=size: x[:size])]
            spec = case.function.spec  # type: ignore[attr-defined]
            placements = [Replicate() if i in spec.matrices else Shard(0) for i in range(len(small))]
            call = lambda *arrays, case=case, options=options: case(*arrays, **options)  # noqa: E731
            compare(call, small, placements, message=f"{case.id} {size}")
            last = case.arrays[0].ndim - 1
            is_refused = case.options.get("top_k", 1) > 1  # more experts than there are
            if case.is_linear or last == 0 or case.options.get("axis") in (0, 1) or is_refused:
                continue
            narrow = [torch.from_numpy(np.array(x[..., :size])) for x in case.arrays]
            compare(call, narrow, [Shard(last)] * len(narrow), message=f"{case.id} narrow {size}")


@check
def a_part_that_is_masked() -> None:
    for case in CASES:
        shape = tuple(case(*arrays_of(case), **options_of(case), reduction="none").shape)
        if not shape:
            continue
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[0] = True
        spec = case.function.spec  # type: ignore[attr-defined]
        arrays = arrays_of(case)
        for name, first in (("rows", mask), ("all", torch.zeros_like(mask))):
            options = {**options_of(case), "where": first, "reduction": "mean"}
            placements = [Replicate() if i in spec.matrices else Shard(0) for i in range(len(arrays))]
            call = lambda *arrays, case=case, options=options: case(*arrays, **options)  # noqa: E731
            compare(call, arrays, placements, message=f"{case.id} {name}")


@check
def masks_and_weights_that_are_cut() -> None:
    x, y, mask = randn(6, 5), randn(6, 5) + 1, randn(6) > 0
    weights = randn(6).abs()
    for place_x in (Shard(0), Shard(1), Replicate()):
        for place in (Shard(0), Replicate()):

            def call(x: Any, y: Any, weights: Any, place: Any = place) -> Any:
                where = cut(mask, place) if isinstance(weights, DTensor) else mask
                return xp.kl_divergence(x, y, from_logits=True, where=where, weights=weights, reduction="mean")

            compare(call, [x, y, weights], [place_x, place_x, place], message=f"{place_x} {place}")


@check
def statistics_of_samples() -> None:
    for name, options, shape in STATISTICS:
        samples = shape if name == "output_magnitude" else shape[:-1]
        selected = {"where": randn(*samples) > -0.5, **options}
        weights = randn(*samples, 2)[..., 0].abs() + 0.1

        def call(x: Any, weights: Any, name: str = name, selected: Any = selected) -> Any:
            return getattr(xp, name)(x, weights=weights, **selected)

        for place in (*map(Shard, range(len(shape))), Replicate()):
            for of_weights in (Shard(0), Replicate()):  # learned ones too
                compare(call, [randn(*shape), weights], [place, of_weights], message=f"{name} {options} {place}")


@check
def operands_in_different_layouts() -> None:
    x, y = randn(6, 5), randn(6, 5) + 1
    for one in (Shard(0), Shard(1), Replicate()):
        for other in (Shard(0), Shard(1), Replicate()):
            call = lambda x, y: xp.js_divergence(x, y, from_logits=True)  # noqa: E731
            compare(call, [x, y], [one, other], message=f"{one} {other}")
            compare(xp.consistency, [x, y], [one, other], message=f"mse {one} {other}")
    same(xp.kl_divergence(cut(x, Shard(1)), y, from_logits=True), xp.kl_divergence(x, y, from_logits=True))


@check
def a_sum_that_is_not_complete() -> None:
    x = randn(6, 5)
    part = DTensor.from_local(x * (0.25 if RANK else 0.75), MESH, [Partial()])
    same(xp.entropy(part, from_logits=True), xp.entropy(x, from_logits=True))
    same(xp.orthogonality(part), xp.orthogonality(x))
    same(xp.l1(part), xp.l1(x))
    normalizer = DTensor.from_local(torch.tensor(1.5, dtype=torch.float64), MESH, [Partial()])
    same(xp.l1(cut(x, Shard(0)), normalizer=normalizer), xp.l1(x) / 3)


@check
def terms_without_reduction() -> None:
    for case in CASES:
        arrays, options = arrays_of(case), {**options_of(case), "reduction": "none"}
        spec = case.function.spec  # type: ignore[attr-defined]
        for placement in (Shard(0), Shard(-1)):
            parts = [cut(x, placement) for x in arrays]
            if case.is_linear:  # rows of hidden states, or classes
                at = [(i in spec.matrices) == (placement == Shard(-1)) for i in range(len(arrays))]
                parts = [cut(x, Shard(0) if is_cut else Replicate()) for x, is_cut in zip(arrays, at, strict=True)]
            if "rng" in case.options:
                continue
            terms = case(*parts, **options)
            want = case(*arrays, **options)
            assert terms.shape == want.shape
            assert isinstance(terms, DTensor) == bool(want.ndim), (case.id, placement, type(terms), want.shape)
            same(terms, want, message=f"{case.id} {placement}")


LAYERS = {
    "rows": (Shard(0), Replicate()),
    "classes": (Replicate(), Shard(0)),
    "features": (Shard(1), Shard(1)),
    "features of the weight": (Replicate(), Shard(1)),
    "features of the states": (Shard(1), Replicate()),
    "rows and classes": (Shard(0), Shard(0)),
    "rows and features": (Shard(0), Shard(1)),
    "features and classes": (Shard(1), Shard(0)),
    "copies": (Replicate(), Replicate()),
}


@check
def layers() -> None:
    h, w, g, v = randn(7, 4), randn(11, 4), randn(7, 3), randn(11, 3)
    mask = randn(7) > -0.5
    for name, (states, weight) in LAYERS.items():
        for other in ("rows", "classes", name):
            places = [states, weight, *LAYERS[other]]
            compare(xp.linear_kl_divergence, [h, w, g, v], places, message=f"{name}, {other}")
        call = lambda *arrays: xp.linear_js_divergence(*arrays, where=mask, temperature=0.5)  # noqa: E731
        compare(call, [h, w, g, v], [states, weight] * 2, message=name)
        for elements in (22, 1000):
            with xp.block_size(elements):
                compare(xp.linear_entropy, [h, w], [states, weight], message=f"{name} in blocks of {elements}")


@check
def tokens() -> None:
    h, w, t = randn(7, 4), randn(11, 4), torch.tensor([0, 10, -100, 3, 5, 11, 6])
    scale, kept = randn(7), torch.arange(7) != 5
    for name, (states, weight) in LAYERS.items():
        for elements in (22, 1000):

            def call(h: Any, w: Any, states: Any = states) -> Any:
                own = cut(t, states if states == Shard(0) else Replicate()) if isinstance(h, DTensor) else t
                log_p, entropy = xp.linear_log_probabilities(h, w, own, with_entropy=True)
                factor = cut(scale, Replicate()) if isinstance(h, DTensor) else scale
                space = xp.namespace(log_p)
                keep = cut(kept, Replicate()) if isinstance(h, DTensor) else kept
                return space.sum(space.where(keep, log_p, 0.0) * factor + entropy * entropy)

            with xp.block_size(elements):
                compare(call, [h, w], [states, weight], message=f"{name} {elements}")


@check
def blocks_of_rows() -> None:
    x, y = randn(13, 9), randn(13, 9) + 0.5
    for placement in (Shard(0), Shard(1), Replicate()):
        for elements in (1, 20, 50):
            with xp.block_size(elements):
                for reduction in ("mean", "none"):

                    def call(x: Any, y: Any, reduction: Any = reduction) -> Any:
                        value = xp.kl_divergence(x, y, from_logits=True, reduction=reduction)
                        return xp.namespace(value).sum(value * value)

                    compare(call, [x, y], [placement] * 2, message=f"{placement} {elements} {reduction}")


@check
def half_precision() -> None:
    h, w = randn(6, 8, dtype=torch.float32), randn(10, 8, dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        for name, (states, weight) in LAYERS.items():
            arrays = [h.to(dtype), w.to(dtype)]
            leaves = [x.clone().requires_grad_() for x in arrays]
            parts = [cut(x, p).requires_grad_() for x, p in zip(arrays, (states, weight), strict=True)]
            want, got = xp.linear_entropy(*leaves), xp.linear_entropy(*parts)
            assert got.dtype == torch.float32
            same(got, want, 1e-5, name)
            want.backward()
            got.backward()
            for x, y in zip(parts, leaves, strict=True):
                assert x.grad.dtype == dtype
                assert torch.allclose(x.grad.full_tensor().float(), y.grad.float(), rtol=0.02, atol=1e-3), name
        x = randn(6, 8).to(dtype)
        for placement in (Shard(0), Shard(1)):
            same(xp.entropy(cut(x, placement), from_logits=True), xp.entropy(x, from_logits=True), 1e-5)
            same(xp.l2(cut(x, placement)), xp.l2(x), 1e-5)


@check
def complex_numbers() -> None:
    x = torch.complex(randn(4, 3), randn(3, 4).T.contiguous())
    for penalty in (xp.l1, xp.l2, xp.huber, xp.group_lasso, xp.elastic_net):
        for placement in (Shard(0), Shard(1), Replicate()):
            one, other = x.clone().requires_grad_(), cut(x, placement).requires_grad_()
            want, got = penalty(one), penalty(other)
            same(got, want)
            want.backward()
            got.backward()
            np.testing.assert_allclose(other.grad.full_tensor().numpy(), one.grad.numpy(), 1e-9, 1e-11)


@check
def not_finite() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        x = randn(5, 6)
        x[1, 4] = value
        for placement in (Shard(0), Shard(1)):
            for call in (lambda x: xp.entropy(x, from_logits=True, reduction="none"), xp.z_loss, xp.l1):
                same(call(cut(x, placement)), call(x), message=f"{value} {placement}")
            space = xp.namespace(cut(x, placement))
            for name in ("max", "min"):
                same(getattr(space, name)(cut(x, placement)), getattr(torch, name)(x))


@check
def beside_other_losses() -> None:
    x = randn(6, 5)
    for placement in (Shard(0), Shard(1), Replicate()):
        leaf = cut(x, placement).requires_grad_()
        plain = torch.ones((), dtype=torch.float64, requires_grad=True)
        (plain * 2 + 3 * xp.entropy(leaf, from_logits=True)).backward()
        assert not isinstance(plain.grad, DTensor)
        own = x.clone().requires_grad_()
        (3 * xp.entropy(own, from_logits=True)).backward()
        same(leaf.grad, own.grad)
        leaf.grad = own.grad = None
        (leaf.square().sum() + 3 * xp.l2(leaf, center="mean") + xp.orthogonality(leaf)).backward()
        (own.square().sum() + 3 * xp.l2(own, center="mean") + xp.orthogonality(own)).backward()
        same(leaf.grad, own.grad)
        with loss_parallel():
            leaf.grad = own.grad = None
            (
                xp.kl_divergence(leaf, cut(x.flip(0), placement), from_logits=True) + xp.entropy(leaf, from_logits=True)
            ).backward()
            (xp.kl_divergence(own, x.flip(0), from_logits=True) + xp.entropy(own, from_logits=True)).backward()
            same(leaf.grad, own.grad)


def raised(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "nothing"


def raised_everywhere(call: Callable[[], Any]) -> str:
    messages: list[Any] = [None, None]
    torch.distributed.all_gather_object(messages, raised(call))
    assert messages[0] == messages[1], messages
    return messages[0]


@check
def checks_of_values() -> None:
    x = randn(5, 4)
    for placement in (Shard(0), Shard(1), Replicate()):
        good = cut(x.log_softmax(-1), placement)
        assert xp.check_finite(good) is good
        bad = x.clone()
        bad[4, 3] = float("nan")  # in the part of the last process only
        assert raised_everywhere(lambda b=bad, p=placement: xp.check_finite(cut(b, p))) == raised(
            lambda b=bad: xp.check_finite(b)
        )
        with xp.set_value_checks():
            assert raised_everywhere(lambda g=good: xp.entropy(g)) == "nothing"
            wrong = x.log_softmax(-1)
            wrong[4] = wrong[4].exp()
            message = raised(lambda w=wrong: xp.entropy(w))
            assert "probabilities" in message
            assert raised_everywhere(lambda w=wrong, p=placement: xp.entropy(cut(w, p))) == message
            weights = torch.tensor([1.0, 1, 1, 1, -1], dtype=torch.float64)
            message = raised(lambda w=weights: xp.entropy(x.log_softmax(-1), weights=w))
            assert "`weights` must not be negative" in message
            assert raised_everywhere(lambda g=good, w=weights: xp.entropy(g, weights=w)) == message


@check
def errors() -> None:
    h, w = randn(6, 4), randn(5, 4)
    message = raised_everywhere(lambda: xp.linear_entropy(h, cut(w, Shard(0))))
    assert message.startswith("TypeError: linear_entropy: `hidden` must be cut into parts or copied"), message
    other = init_device_mesh("cpu", (1, 2))
    y = distribute_tensor(h, other, [Replicate(), Shard(0)])
    message = raised_everywhere(lambda: xp.kl_divergence(cut(h, Shard(0)), y))
    assert "one device mesh" in message, message


@check
def operations() -> None:
    backend = backend_of(cut(randn(2), Shard(0)))
    assert backend is not None
    x, y = randn(5, 4), randn(4, 5).T.contiguous()
    for placement in (Shard(0), Shard(1), Replicate()):
        a, b = cut(x, placement), cut(y, placement)
        with Moved() as moved:
            same(backend.autodiff.squared_norm(a), (x * x).sum())
            same(torch.stack(backend.extrema(a)), torch.stack(x.aminmax()))
            total = backend.autodiff.add_multiple(a.clone(), b, 0.5)
            floats = backend.to_floats([backend.xp.sum(a), x.sum()])
            copy = backend.snapshot(a)
            assert backend.identity(a) == backend.identity(a) != backend.identity(copy)
        assert all(count <= 2 for _, count in moved.calls), moved.calls
        same(total, x + 0.5 * y)
        assert total.placements == copy.placements == a.placements
        assert floats[0] == floats[0]
        np.testing.assert_allclose(floats, x.sum().item())
        same(copy, x)
        for sums in backend.evaluation.power_sum(0.3, 0.7, [a, b])[:1]:
            for value in sums:
                same(value, 0.3 * (x.abs().sum() + y.abs().sum()) + 0.7 * (x.square().sum() + y.square().sum()))


@check
def functions_of_the_namespace() -> None:
    x = randn(5, 6)
    for placement in (Shard(0), Shard(1), Replicate()):
        a = cut(x, placement)
        space, plain = xp.namespace(a), xp.namespace(x)
        for name in ("sum", "mean", "max", "min", "argmax", "argmin", "std", "var", "prod", "any", "all"):
            for axis in (None, 0, 1):
                for keepdims in (False, True):
                    want = getattr(plain, name)(x, axis=axis, keepdims=keepdims)
                    got = getattr(space, name)(a, axis=axis, keepdims=keepdims)
                    assert got.shape == want.shape
                    same(got, want, message=f"{name} {axis} {placement}")
        for axis in (0, 1):
            call = lambda x, axis=axis: xp.namespace(x).sum(xp.namespace(x).cumulative_sum(x, axis=axis) ** 2)  # noqa: E731
            compare(call, [x], [placement], message=f"cumulative_sum {axis}")
            call = lambda x, axis=axis: xp.namespace(x).sum(xp.namespace(x).max(x, axis=axis) ** 3)  # noqa: E731
            compare(call, [x], [placement], message=f"max {axis}")
        for shape in ((30,), (6, 5), (5, 2, 3), (5, 6, 1), (1, 30), (10, 3)):
            call = lambda x, shape=shape: xp.namespace(x).sum(xp.namespace(x).reshape(x, shape) ** 3)  # noqa: E731
            same(space.reshape(a, shape), plain.reshape(x, shape), message=str(shape))
            compare(call, [x], [placement], message=f"reshape {shape}")
        value, slope = xp.value_and_grad(lambda x: xp.namespace(x).sum(x * x) / 2)(a)
        same(value, (x * x).sum() / 2)
        same(slope, x)
        assert slope.placements == a.placements
        hessian = xp.grad(lambda x: xp.namespace(x).sum(xp.grad(lambda x: xp.namespace(x).sum(x**3))(x)))(a)
        same(hessian, 6 * x)


@check
def random_numbers() -> None:
    x, y = randn(6, 3), randn(3, 6).T.contiguous()
    fn = lambda x: xp.namespace(x).sum(x * xp.namespace(x).sin(x), axis=-1)  # noqa: E731
    for rng in (None, torch.Generator().manual_seed(RANK), np.random.default_rng(RANK)):
        for placement in (Shard(0), Shard(1), Replicate()):
            a, b = cut(x, placement), cut(y, placement)
            values = [torch.empty(()), torch.empty(())]
            torch.distributed.all_gather(values, xp.interpolated_gradient_penalty(fn, a, b, rng=rng).float())
            assert values[0] == values[1], (rng, placement)
            square = lambda x: x * x  # noqa: E731
            same(xp.jacobian_penalty(square, a, rng=rng), xp.jacobian_penalty(square, x))
    backend = backend_of(a)
    assert backend is not None
    generator = torch.Generator().manual_seed(3)
    numbers = backend.random.uniform("test", generator, (4, 6, 3), cut(x, Shard(0)))
    drawn = numbers.full_tensor()
    assert numbers.placements == (Shard(1),)
    assert len(drawn.unique()) == drawn.numel()
    assert 0.3 < drawn.mean() < 0.7
    first = xp.interpolated_gradient_penalty(fn, x, y, rng=torch.Generator().manual_seed(5))
    again = xp.interpolated_gradient_penalty(
        fn, cut(x, Shard(0)), cut(y, Shard(0)), rng=torch.Generator().manual_seed(5 + RANK)
    )
    same(again, first)


@check
def compiled() -> None:
    x, y, mask = randn(6, 5), randn(6, 5) + 0.5, randn(6) > -0.5

    def divergence(x: Any, y: Any) -> Any:
        return xp.js_divergence(x, y, from_logits=True, where=mask)

    def structure(x: Any, y: Any) -> Any:
        return xp.orthogonality(x) + xp.l2(y, center="mean")

    for function in (divergence, structure):
        for placement in (Shard(0), Shard(1)):
            torch.compiler.reset()
            parts = [cut(z, placement).requires_grad_() for z in (x, y)]
            leaves = [z.clone().requires_grad_() for z in (x, y)]
            got = torch.compile(function, fullgraph=True, backend="aot_eager")(*parts)
            want = function(*leaves)
            same(got, want)
            got.backward()
            want.backward()
            for part, leaf in zip(parts, leaves, strict=True):
                same(part.grad, leaf.grad)


def main(out: Path, names: list[str]) -> None:
    """Run all checks. Each process writes its failures."""
    warnings.simplefilter("ignore")
    failures = []
    for function in CHECKS:
        if names and function.__name__ not in names:
            continue
        try:
            function()
        except Exception:  # noqa: BLE001 - all failures are reported together
            failures.append(f"{function.__name__}: {traceback.format_exc()[-1500:]}")
    (out / f"{RANK}.json").write_text(json.dumps(failures))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
