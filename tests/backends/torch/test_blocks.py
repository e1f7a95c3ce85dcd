"""Blocks in eager PyTorch: the gradients of the whole in every mode that PyTorch has, and nothing of its size kept."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.backends.test_blocks import RNG, ROWS, automatic, sizes
from tests.helpers.harness import Framework
from tests.matrix.cases import Case, options_of
from tests.matrix.test_masks import masks
from xpenalties import Penalty, Pipeline, block_size
from xpenalties.backends._work import Work

pytestmark = pytest.mark.only("torch", reason="is about PyTorch")

INF = math.inf
X, Y, H, W = (RNG.standard_normal(shape) for shape in ((7, 4), (7, 4), (7, 3), (4, 3)))
of_rows = pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
#: of one tensor [7, 4] or two; the linear ones have gradients of another kind: sums over all rows
OF_ROWS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "kl": (partial(xp.kl_divergence, from_logits=True), (X, Y)),
    "js": (partial(xp.js_divergence, from_logits=True), (X, Y)),
    "entropy": (partial(xp.entropy, from_logits=True), (X,)),
    "group_lasso": (xp.group_lasso, (X,)),
    "linear": (xp.linear_kl_divergence, (H, W, H[::-1].copy(), W[::-1].copy())),
    "linear, each": (partial(xp.linear_entropy, reduction="none"), (H, W)),
}
each = pytest.mark.parametrize("name", OF_ROWS)


@pytest.fixture
def torch(fw: Framework) -> Any:
    return fw.module


@pytest.fixture
def cut(torch: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The indices of the blocks that have been evaluated."""
    found: list[Any] = []
    block = Work.block

    def recorded(work: Work, index: Any) -> Any:
        found.append(index)
        return block(work, index)

    monkeypatch.setattr(Work, "block", recorded)
    return found


def leaves(torch: Any, arrays: Any, dtype: Any = None) -> list[Any]:
    return [torch.tensor(x, dtype=dtype or torch.float64, requires_grad=True) for x in arrays]


def total(torch: Any, fn: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """A scalar that takes each term times a factor of its own."""
    terms = fn(*arrays, **options)
    factors = torch.linspace(0.5, 2.0, terms.numel(), dtype=terms.dtype, device=terms.device)
    return (terms.reshape(-1) * factors).sum()


def assert_same(torch: Any, got: Any, want: Any, rtol: float = 1e-9) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol / 100, equal_nan=True)


def calls_of(case: Case, fw: Framework) -> list[dict[str, Any]]:
    where, weights = (fw.array(x) for x in masks(case))
    options = options_of(case, fw)
    return [
        {"reduction": "none", **options},
        {"reduction": "mean", "where": where, "weights": weights, **options},
        {"reduction": "sum", "where": where, "normalizer": fw.array(7.0), **options},
    ]


@of_rows
def test_first_gradients(torch: Any, fw: Framework, case: Case) -> None:
    for call in calls_of(case, fw):

        def found(elements: int | None, call: dict[str, Any] = call) -> list[Any]:
            arrays = leaves(torch, case.arrays)
            with block_size(elements):
                value = total(torch, case, *arrays, **call)
            (3 * value).backward(retain_graph=True)
            gradients = [x.grad.clone() for x in arrays]
            value.backward()  # a second pass back, which adds to the first
            alone = torch.autograd.grad(total(torch, case, *arrays, **call), arrays[-1:])
            return [value.detach(), *gradients, *[x.grad for x in arrays], *alone]

        want = found(None)
        for elements in sizes(case):
            assert_same(torch, found(elements), want)


@of_rows
def test_second_gradients(torch: Any, fw: Framework, case: Case) -> None:
    for call in calls_of(case, fw):

        def found(elements: int | None, call: dict[str, Any] = call) -> list[Any]:
            arrays = leaves(torch, case.arrays)
            with block_size(elements):
                value = total(torch, case, *arrays, **call)
            first = torch.autograd.grad(value, arrays, create_graph=True)
            squares = sum((slope**2).sum() for slope in first)
            return [*first, *torch.autograd.grad(squares + value, arrays)]

        want = found(None)
        for elements in sizes(case)[:2]:
            assert_same(torch, found(elements), want)


@of_rows
def test_arrays_of_any_layout(torch: Any, fw: Framework, case: Case) -> None:
    common = case.function.spec.matrices  # type: ignore[attr-defined]
    options = {"reduction": "none", **options_of(case, fw)}

    def found(elements: int | None, change: Callable[[Any], Any]) -> list[Any]:
        given = leaves(torch, case.arrays)
        arrays = [x if i in common else change(x) for i, x in enumerate(given)]
        with block_size(elements):
            value = total(torch, case, *arrays, **options)
        value.backward()
        return [x.grad for x in given]

    dim = 1 if case.options.get("axis", -1) == 0 else 0
    for change in (
        lambda x: x.mT.contiguous().mT,
        lambda x: x.repeat_interleave(2, -1)[..., ::2],
        lambda x: x.narrow(dim, 1, 1).expand(x.shape),
    ):
        for elements in sizes(case)[:2]:
            assert_same(torch, found(elements, change), found(None, change))
    leaf = torch.tensor(case.arrays[0]).narrow(dim, 0, 1).expand(case.arrays[0].shape).requires_grad_()
    with block_size(1):
        case(leaf, *[torch.tensor(x) for x in case.arrays[1:]], **options).sum().backward()
    assert leaf.grad.shape == leaf.shape and leaf.grad.isfinite().all()


@each
def test_one_tensor_that_depends_on_another(torch: Any, name: str) -> None:
    """Or is the same: each has the gradient by its own place, for autograd to add up."""
    fn, given = OF_ROWS[name]

    def found(elements: int | None, create_graph: bool, same: bool) -> list[Any]:
        first = leaves(torch, given[: (len(given) + 1) // 2])
        arrays = [*first, *(first if same else [x * x + 0.5 for x in first])][: len(given)]
        with block_size(elements):
            value = total(torch, fn, *arrays) + total(torch, fn, *[x**2 for x in arrays])
        slopes = torch.autograd.grad(value, first, create_graph=create_graph)
        if not create_graph:
            return list(slopes)
        return [*slopes, *torch.autograd.grad(sum((slope**2).sum() for slope in slopes), first)]

    for create_graph in (False, True):
        for same in (False, True):
            assert_same(torch, found(8, create_graph, same), found(None, create_graph, same))


@pytest.mark.parametrize("name", ["kl", "entropy", "linear", "linear, each"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch itself, for its first jvp
def test_as_pytorch_checks_it(torch: Any, name: str) -> None:
    """Against differences, with cotangents in batches and gradients forward; and the second derivatives."""
    fn, given = OF_ROWS[name]
    arrays = leaves(torch, [x[:3] for x in given])
    with block_size(8):
        # a first pass back multiplies what is known, and a second one evaluates again: not equal to the bit
        checks = {"check_batched_grad": True, "nondet_tol": 1e-13}
        assert torch.autograd.gradcheck(fn, arrays, check_forward_ad=True, **checks)
        assert torch.autograd.gradgradcheck(fn, arrays, **checks)


@each
def test_cotangents_in_batches(torch: Any, name: str) -> None:
    fn, given = OF_ROWS[name]

    def found(elements: int | None) -> list[Any]:
        arrays = leaves(torch, given)
        with block_size(elements):
            value = fn(*arrays)
        eye = torch.eye(max(value.numel(), 1), dtype=value.dtype).reshape(-1, *value.shape)
        older = torch.autograd.grad(value, arrays, eye, is_grads_batched=True, retain_graph=True)
        mapped = torch.vmap(lambda v: torch.autograd.grad(value, arrays, v, retain_graph=True))(eye)
        one = torch.autograd.grad(value, arrays, torch.ones_like(value))  # what is known is still there
        again = torch.autograd.functional.hessian(partial(total, torch, fn), tuple(arrays), vectorize=True)
        return [*older, *mapped, *one, *(x for row in again for x in row)]

    assert_same(torch, found(8), found(None))


def test_what_requires_no_gradient_has_none(torch: Any, cut: list[Any]) -> None:
    for requires in ((True, False), (False, True), (False, False)):
        x, y = (torch.tensor(a, requires_grad=r) for a, r in zip((X, Y), requires, strict=True))
        with block_size(8):
            value = xp.js_divergence(x, y, from_logits=True)
        assert value.requires_grad == any(requires)
        if any(requires):
            value.backward()
            want = xp.grad(partial(xp.js_divergence, from_logits=True))(*((x, y) if requires[0] else (y, x)))
            assert_same(torch, [(x if requires[0] else y).grad], [want.detach()])
        assert [a.grad is None for a in (x, y)] == [not r for r in requires]
    assert len(cut) == 3 * 4


def test_a_gradient_by_one_of_two(torch: Any) -> None:
    def found(elements: int | None, wrt: int) -> list[Any]:
        arrays = leaves(torch, (X, Y))
        with block_size(elements):
            value = xp.kl_divergence(*arrays, from_logits=True)
        (alone,) = torch.autograd.grad(value, arrays[wrt], retain_graph=True)
        return [alone, *torch.autograd.grad(value, arrays)]

    for wrt in (0, 1):
        assert_same(torch, found(8, wrt), found(None, wrt))


def test_without_a_graph(torch: Any, cut: list[Any]) -> None:
    x, y = leaves(torch, (X, Y))
    want = xp.kl_divergence(x, y, from_logits=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), block_size(8):
            got = xp.kl_divergence(x, y, from_logits=True)
        assert not got.requires_grad and got.is_inference() == (mode is torch.inference_mode)
        assert_same(torch, [got.clone()], [want.detach()])
    assert len(cut) == 8


@pytest.mark.parametrize("name", ["kl", "js", "linear"])
def test_a_teacher_of_inference_mode(torch: Any, name: str) -> None:
    """Its tensors cannot be saved for a pass back."""
    fn, given = OF_ROWS[name]
    count = len(given) // 2
    with torch.inference_mode():
        teacher = [torch.tensor(x) for x in given[:count]]

    def found(elements: int | None, again: bool) -> list[Any]:
        student = leaves(torch, given[count:])
        with block_size(elements):
            value = fn(*teacher, *student, where=torch.tensor(np.arange(7) % 3 > 0))
        slopes = torch.autograd.grad(value, student, retain_graph=True, create_graph=again)
        more = sum((x * x).sum() for x in slopes) if again else 2 * value
        return [value.detach(), *slopes, *torch.autograd.grad(more, student)]

    for again in (False, True):
        assert_same(torch, found(8, again), found(None, again))


@each
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_functional_transforms(torch: Any, cut: list[Any], name: str) -> None:
    fn, given = OF_ROWS[name]
    arrays = tuple(torch.tensor(x) for x in given)
    tangents = tuple(torch.tensor(x[::-1].copy()) for x in given)
    stacked = tuple(torch.stack([x, -x]) for x in arrays)
    scalar = partial(total, torch, fn)
    wrt = tuple(range(len(given)))

    def found() -> list[Any]:
        return [
            *torch.func.grad(scalar, wrt)(*arrays),
            *torch.func.jvp(fn, arrays, tangents),
            torch.vmap(fn)(*stacked),
            *torch.vmap(torch.func.grad(scalar, wrt))(*stacked),
            torch.func.hessian(scalar)(*arrays),
            *torch.func.vjp(scalar, *arrays)[1](torch.tensor(2.0, dtype=torch.float64)),
        ]

    with block_size(8):
        got = found()
    assert not cut
    assert_same(torch, got, found())


@each
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode(torch: Any, cut: list[Any], name: str) -> None:
    fn, given = OF_ROWS[name]
    ad = torch.autograd.forward_ad
    arrays = tuple(torch.tensor(x) for x in given)
    tangents = tuple(torch.tensor(x[::-1].copy()) for x in given)
    want = torch.func.jvp(fn, arrays, tangents)
    with ad.dual_level(), block_size(8):
        got = ad.unpack_dual(fn(*map(ad.make_dual, arrays, tangents)))
        last = ad.unpack_dual(fn(*arrays[:-1], ad.make_dual(arrays[-1], tangents[-1])))
        assert not cut
        assert ad.unpack_dual(fn(*arrays)).tangent is None and len(cut) > 0
    assert_same(torch, got, want)
    zeros = tuple(map(torch.zeros_like, tangents[:-1]))
    assert_same(torch, last, torch.func.jvp(fn, arrays, (*zeros, tangents[-1])))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_dual_cotangent(torch: Any) -> None:
    """Forward over backward: what is known takes a cotangent's tangent along."""
    ad = torch.autograd.forward_ad
    for elements in (8, None):
        (x,) = leaves(torch, (X,))
        with block_size(elements):
            terms = xp.entropy(x, from_logits=True, reduction="none")
        with ad.dual_level():
            cotangent = ad.make_dual(torch.full((7,), 2.0).double(), torch.arange(7.0).double())
            primal, tangent = ad.unpack_dual(torch.autograd.grad(terms, x, cotangent, retain_graph=True)[0])
        (ones,) = torch.autograd.grad(terms, x, torch.ones_like(terms))
        assert_same(torch, [primal, tangent], [2 * ones, torch.arange(7.0)[:, None] * ones])


@each
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(torch: Any, name: str, reentrant: bool) -> None:
    """What is checkpointed runs twice, however many blocks it has."""
    from torch.utils.checkpoint import checkpoint

    fn, given = OF_ROWS[name]
    runs = []

    def of(*arrays: Any) -> Any:
        runs.append(1)
        return total(torch, fn, *[2 * torch.tanh(x) for x in arrays])

    def found(elements: int | None, wrapped: Callable[..., Any]) -> list[Any]:
        arrays = leaves(torch, given)
        with block_size(elements):
            value = wrapped(*arrays)
            value.backward()
        return [value.detach(), *[x.grad for x in arrays]]

    want = found(None, of)
    runs.clear()
    assert_same(torch, found(4, partial(checkpoint, of, use_reentrant=reentrant)), want)
    assert len(runs) == 2


@each
def test_hooks_of_saved_tensors(torch: Any, name: str) -> None:
    """They are given the inputs, as they are, and no more: none of what a block takes."""
    fn, given = OF_ROWS[name]
    packed: list[Any] = []

    def pack(x: Any) -> np.ndarray:
        packed.append(x)
        return x.detach().numpy().copy()

    def found(elements: int | None, hooks: Any) -> list[Any]:
        arrays = leaves(torch, given)
        with hooks, block_size(elements):
            value = fn(*arrays).sum()
        known = [sum(x is y for y in arrays) for x in packed]
        slopes = torch.autograd.grad(value, arrays, retain_graph=True)
        again = torch.autograd.grad(value, arrays, create_graph=True)
        assert elements is None or known == [1] * len(given)
        return [*slopes, *again, *torch.autograd.grad(sum((x * x).sum() for x in again), arrays)]

    want = found(None, torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x))
    packed.clear()
    assert_same(torch, found(4, torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy)), want)


def test_where_no_hooks_are_allowed(torch: Any) -> None:
    (x,) = leaves(torch, (X,))
    with torch.autograd.graph.disable_saved_tensors_hooks("none of your own here"), block_size(8):
        xp.z_loss(x).backward()
    assert x.grad.isfinite().all()


def test_what_is_recorded_is_whole(torch: Any, cut: list[Any]) -> None:
    """It is to hold for other values: with zeros where there were none."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def fn(x: Any, y: Any) -> Any:
        return xp.kl_divergence(x, y, direction="symmetric")

    x, y = (torch.log_softmax(torch.tensor(a), 1) for a in (X, Y))
    zeros = [torch.where(a < -2.0, -INF, a) for a in (x, x)]
    with block_size(8), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and has a remark on each look at a shape
        programs = [make_fx(fn)(x, y), torch.jit.trace(fn, (x, y), check_trace=False)]
    assert not cut
    for program in programs:
        assert_same(torch, [program(x, y), program(*zeros)], [fn(x, y), fn(*zeros)])
        assert fn(*zeros).item() == 0.0


def test_complex(torch: Any) -> None:
    def found(elements: int | None) -> list[Any]:
        (x,) = leaves(torch, (X + 1j * Y,), torch.complex128)
        with block_size(elements):
            value = total(torch, xp.group_lasso, x, reduction="none")
        (plain,) = torch.autograd.grad(value, x, retain_graph=True)
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        squares = (slope * slope.conj()).real.sum()
        return [value.detach(), plain, slope.detach(), *torch.autograd.grad(squares + value, x)]

    assert_same(torch, found(8), found(None))


@each
def test_autocast(torch: Any, name: str) -> None:
    """Lowers nothing, in blocks as in the whole; nor the pass back that is a part of the one forward."""
    fn, given = OF_ROWS[name]

    def found(elements: int | None, enabled: bool) -> list[Any]:
        arrays = leaves(torch, given, torch.float32)
        with block_size(elements), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = fn(*arrays).sum()
        assert value.dtype == torch.float32
        value.backward(retain_graph=True)
        first = [x.grad.clone() for x in arrays]
        value.backward()
        return [value.detach(), *first, *[x.grad for x in arrays]]

    want = found(None, False)
    assert_same(torch, found(8, True), want, rtol=1e-5)
    assert_same(torch, found(None, True), want, rtol=1e-5)


def test_tensors_with_ways_of_their_own_are_not_cut(torch: Any, cut: list[Any]) -> None:
    class Own(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    for elements in (8, 1):
        with block_size(elements):
            for made in (lambda x: x.as_subclass(Own), lambda x: x.to("meta")):
                x, y = (made(torch.tensor(a)).requires_grad_() for a in (X, Y))
                value = xp.kl_divergence(x, y, from_logits=True)
                value.backward()
                assert type(value) is type(x) and value.device == x.device and y.grad.shape == y.shape
    assert not cut
    large = torch.zeros(2**15, 2**15, device="meta")
    assert xp.entropy(large, from_logits=True).device.type == "meta" and not cut
    (parameter,) = leaves(torch, (X,))
    with block_size(8):
        xp.z_loss(torch.nn.Parameter(parameter)).backward()
    assert len(cut) == 4


@each
@pytest.mark.parametrize("changed", ["arrays", "where", "weights"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_changes_between_the_passes(torch: Any, name: str, changed: str, dtype: str) -> None:
    """PyTorch sees them, or they have no effect; never a gradient of what has not been computed."""
    fn, given = OF_ROWS[name]

    def slopes(value: Any, arrays: list[Any]) -> list[Any]:
        once = torch.autograd.grad(value, arrays, retain_graph=True)
        twice = torch.autograd.grad(value, arrays, retain_graph=True)
        return [*once, *twice, *torch.autograd.grad(value, arrays, create_graph=True)]

    def found(elements: int | None, change: bool) -> list[Any] | None:
        arrays = leaves(torch, given, getattr(torch, dtype))
        where, weights = torch.tensor(np.arange(7) % 2 == 0), torch.linspace(0.1, 1.0, 7)
        with block_size(elements):
            value = fn(*arrays, **({"weights": weights} if changed == "weights" else {"where": where})).sum()
        with torch.no_grad():
            for x in {"arrays": arrays, "where": [where], "weights": [weights]}[changed] if change else ():
                x.copy_(x.flip(0) if changed == "arrays" else torch.roll(x, 1))
        try:
            return slopes(value, arrays)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            return None

    got, want = found(8, change=True), found(None, change=False)
    assert want is not None
    if got is not None:
        assert changed != "arrays"
        assert_same(torch, got, want, rtol=2e-2 if dtype == "float16" else 1e-9)


def test_a_first_pass_back_after_a_change(torch: Any) -> None:
    """Of float16, whose blocks are evaluated only then."""
    hidden, weight = leaves(torch, (H, W), torch.float16)
    where = torch.tensor(np.arange(7) % 2 == 0)
    with block_size(8):
        value = xp.linear_entropy(hidden, weight, where=where)
    where.logical_not_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def in_half(torch: Any, dtype: Any, elements: int | None, fn: Callable[..., Any], given: list[Any]) -> list[Any]:
    arrays = [x.detach().clone().to(dtype).requires_grad_() for x in given]
    with block_size(elements):
        fn(*arrays).backward()
    return [x.grad for x in arrays]


@pytest.mark.parametrize("name", ["kl", "js", "entropy", "group_lasso"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(torch: Any, name: str, dtype: str) -> None:
    """Equal, loss scale and all, for a gradient is rounded once, after it has been multiplied.

    But for the few of which a processor's exponential, at the end of a block, takes another last bit in float32.
    """
    fn, arrays = OF_ROWS[name]
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(128, 4, generator=generator) for _ in arrays]
    for of in (
        lambda *arrays: 2.0**16 * fn(*arrays, reduction="mean"),
        lambda *arrays: 2.0**6 * total(torch, fn, *arrays, reduction="none"),
        lambda *arrays: fn(*arrays, reduction="sum", weights=torch.linspace(0, 1, 128)),
    ):
        got, want = (in_half(torch, getattr(torch, dtype), elements, of, given) for elements in (36, None))
        for one, other in zip(got, want, strict=True):
            assert one.dtype == getattr(torch, dtype) and other.isfinite().all() and other.abs().max() > 0
            assert int((one != other).sum()) <= 0.01 * one.numel()
            torch.testing.assert_close(one, other, rtol=torch.finfo(one.dtype).eps, atol=0.0)


@pytest.mark.parametrize("name", ["kl", "js", "entropy", "group_lasso"])
def test_a_sum_in_bfloat16(torch: Any, name: str) -> None:
    """Its gradient is known before the factor that comes last: two roundings of 2^-8 at most."""
    fn, arrays = OF_ROWS[name]
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(128, 4, generator=generator).bfloat16() for _ in arrays]

    def of(*arrays: Any) -> Any:
        return 0.3 * fn(*arrays)

    exact = in_half(torch, torch.float32, None, of, given)
    for one, want in zip(in_half(torch, torch.bfloat16, 36, of, given), exact, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), want, rtol=2.01 * 2**-8, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_linear_maps(torch: Any, reduction: str, dtype: str) -> None:
    """No further from the gradient in float64 than the whole is, whose weights' are sums in half precision."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 8), (16, 8), (64, 8), (16, 8))
    half = getattr(torch, dtype)
    given = [torch.randn(*shape, generator=generator).to(half).double() for shape in shapes]
    scale = 2.0**14 if reduction == "mean" else 2.0**6

    def of(*arrays: Any) -> Any:
        return scale * total(torch, xp.linear_kl_divergence, *arrays, reduction=reduction)

    exact = in_half(torch, torch.float64, None, of, given)
    got, whole = (in_half(torch, half, elements, of, given) for elements in (48, None))
    for one, other, want in zip(got, whole, exact, strict=True):
        assert one.dtype == half and other.isfinite().all()
        of_blocks, of_all = ((x.double() - want).norm() / want.norm() for x in (one, other))
        assert of_blocks <= 1.1 * of_all + torch.finfo(half).eps / 2


def test_gradients_of_two_precisions(torch: Any) -> None:
    for first, second in (("float32", "float64"), ("float16", "float32"), ("bfloat16", "float16")):
        for name in ("kl", "linear"):
            fn, given = OF_ROWS[name]
            dtypes = [getattr(torch, first), getattr(torch, second)] * 2

            def found(elements: int | None, fn: Any = fn, given: Any = given, dtypes: Any = dtypes) -> list[Any]:
                arrays = [torch.tensor(x).to(dtype).requires_grad_() for x, dtype in zip(given, dtypes, strict=False)]
                with block_size(elements):
                    fn(*arrays, weights=torch.linspace(0, 1, 7)).backward()
                return [x.grad for x in arrays]

            coarse = max(torch.finfo(dtype).eps for dtype in dtypes)
            for one, other in zip(found(8), found(None), strict=True):
                torch.testing.assert_close(one, other, rtol=4 * coarse, atol=coarse)


def test_gradients_are_added_up(torch: Any) -> None:
    """Over micro-batches, into one leaf's `.grad`, as hooks see them."""
    for name, (fn, given) in OF_ROWS.items():

        def found(elements: int | None, fn: Any = fn, given: Any = given) -> list[Any]:
            arrays = leaves(torch, given)
            seen = []
            arrays[0].register_hook(lambda gradient: seen.append(gradient.clone()))
            for scale in (1.0, 2.0, 3.0):
                with block_size(elements):
                    value = scale * fn(*arrays).sum()
                value.backward()
            return [*[x.grad for x in arrays], *seen]

        got = found(8)
        assert_same(torch, got, found(None))
        assert len(got) == len(given) + 3, name


@each
def test_value_and_grad(torch: Any, name: str) -> None:
    fn, given = OF_ROWS[name]

    def found(elements: int | None, requires: bool) -> list[Any]:
        arrays = [torch.tensor(x, requires_grad=requires) for x in given]
        with block_size(elements):
            value, slopes = xp.value_and_grad(lambda nest: total(torch, fn, *nest))(arrays)
            curved = xp.grad(lambda nest: xp.grad_norm(lambda n: total(torch, fn, *n), nest))(arrays)
        assert all(x.requires_grad == requires for x in (value, *slopes))
        more = torch.autograd.grad(value + sum((x * x).sum() for x in slopes), arrays) if requires else []
        return [value.detach(), *slopes, *curved, *more]

    for requires in (False, True):
        assert_same(torch, found(8, requires), found(None, requires))


@pytest.mark.filterwarnings("ignore:pipeline. gradient norms are with respect to different inputs")
def test_a_tracked_pipeline(torch: Any) -> None:
    pipe = Pipeline(
        [
            Penalty("kl_divergence", inputs=("x", "y"), weight=2.0, options={"from_logits": True}),
            Penalty("entropy", inputs=("x",), weight=0.5, options={"from_logits": True, "reduction": "sum"}),
            Penalty("linear_entropy", inputs=("hidden", "weight")),
        ]
    )

    def found(elements: int | None, **call: Any) -> list[Any]:
        x, y, hidden, weight = leaves(torch, (X, Y, H, W))
        with block_size(elements):
            value, report = pipe.compute({"x": x, "y": y, "hidden": hidden, "weight": weight}, **call)
        value.backward()
        parts = report.regularizers.values()
        figures = [value, *(f for p in parts for f in (p.value, p.contribution, *p.metrics.values()))]
        norms = [p.grad_norm for p in parts] if call else []
        return [*[f.detach() for f in (*figures, *norms)], *[a.grad for a in (x, y, hidden, weight)]]

    assert_same(torch, found(8), found(None))
    assert_same(torch, found(8, track_grad_norms=True), found(None, track_grad_norms=True))


def test_the_compiler_traces_the_whole(torch: Any, fw: Framework, cut: list[Any]) -> None:
    """Whatever the size; a block's own is nothing that it could trace."""
    rows = automatic(torch.zeros(1, 512)) // 512 + 1
    x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(0))
    fn = partial(xp.kl_divergence, from_logits=True)
    compiled, count = fw.compile(fn)
    for requires in (False, True):
        given = [a.clone().requires_grad_(requires) for a in (x, x.flip(0))]
        got = compiled(*given)
        if requires:
            got.backward()
        assert not cut
        torch.testing.assert_close(got, fn(*given), rtol=1e-5, atol=0.0)
        assert len(cut) == 2
        cut.clear()
    assert count() == 2  # with a gradient it is another program


class Largest:
    """How many elements the tensors have that are made while a dispatch mode watches, and those still alive."""

    def __init__(self, torch: Any) -> None:
        from torch.utils._python_dispatch import TorchDispatchMode

        made: list[tuple[int, Any]] = []

        class Mode(TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                found = func(*args, **(kwargs or {}))
                given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
                for x in found if isinstance(found, (list, tuple)) else [found]:
                    if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                        storage = x.untyped_storage()
                        made.append((storage.nbytes() // x.element_size(), weakref.ref(storage)))
                return found

        self.made, self.mode = made, Mode()

    def larger_than(self, elements: int) -> int:
        return sum(size > elements for size, _ in self.made)

    def kept(self) -> int:
        return sum(size for size, alive in self.made if alive() is not None)


@pytest.mark.parametrize("name", ["kl", "js", "entropy", "group_lasso"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nothing_of_its_size_but_the_gradients(torch: Any, name: str, reduction: str) -> None:
    """Not in the pass forward, nor in the one back, which only multiplies them in place."""
    fn, given = OF_ROWS[name]
    arrays = [torch.randn(64, 128).requires_grad_() for _ in given]
    where, watch = torch.arange(64) % 3 > 0, Largest(torch)
    with block_size(512), watch.mode:
        value = fn(*arrays, reduction=reduction, where=where, weights=torch.rand(64))
    assert watch.larger_than(512) == len(given)
    assert watch.kept() <= len(given) * 64 * 128 + 10 * 64
    watch.made.clear()
    cotangent = torch.full_like(value, 2.0)
    with watch.mode:
        value.backward(cotangent)
    assert watch.larger_than(64) == 0


def test_nothing_of_its_size_without_a_gradient(torch: Any) -> None:
    x, y = torch.randn(64, 128), torch.randn(64, 128)
    for dtype in (torch.float32, torch.bfloat16):
        watch = Largest(torch)
        with block_size(512), watch.mode:
            xp.js_divergence(x.to(dtype), y.to(dtype), from_logits=True)
        assert watch.larger_than(512) == (0 if dtype == torch.float32 else 2)  # the copies made here
        assert watch.kept() <= 64


@pytest.mark.parametrize(("dtype", "reduction"), [("float16", "mean"), ("float16", "none"), ("bfloat16", "none")])
def test_nothing_of_its_size_in_half_precision(torch: Any, dtype: str, reduction: str) -> None:
    """The inputs are widened a block at a time; their gradients are made in the pass back."""
    x, y = (torch.randn(64, 128).to(getattr(torch, dtype)).requires_grad_() for _ in range(2))
    watch = Largest(torch)
    with block_size(512), watch.mode:
        value = xp.kl_divergence(x, y, from_logits=True, reduction=reduction)
    assert watch.larger_than(512) == 0 and watch.kept() <= 64
    with watch.mode:
        value.backward(torch.ones_like(value))
    assert watch.larger_than(512) == 2


def test_blocks_fill_a_device(torch: Any) -> None:
    assert automatic(torch.zeros(1, device="meta")) == 2**25 > automatic(torch.zeros(1))


def test_masks_are_left_out(torch: Any) -> None:
    """Where no probability is 0, the first time a formula is evaluated; a block with a zero is evaluated twice."""
    from torch.utils._python_dispatch import TorchDispatchMode

    asked: list[str] = []

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            asked.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    x = torch.randn(8, 4).log_softmax(1)
    for row, exps, wheres in ((None, 4, 0), (3, 5, 3), (7, 5, 1)):
        y = x.clone()
        if row is not None:
            y[row, 0] = -math.inf
        asked.clear()
        with block_size(8), Mode():
            xp.kl_divergence(y, x)
        assert (asked.count("exp"), asked.count("where")) == (exps, wheres)


@pytest.mark.parametrize(("dtype", "made"), [("float32", 1), ("float64", 1), ("bfloat16", 9)])
def test_the_gradient_of_a_linear_map_is_added_in_place(torch: Any, dtype: str, made: int) -> None:
    """8 blocks, one array as large as the map; in half precision each block also casts the map, which is small here."""
    hidden, weight = (torch.randn(*shape).to(getattr(torch, dtype)) for shape in ((64, 16), (256, 16)))
    weight.requires_grad_()
    watch = Largest(torch)
    with block_size(8 * 256), watch.mode:
        value = xp.linear_entropy(hidden, weight)
    assert watch.larger_than(256 * 16 - 1) == made
    value.backward()
    want = torch.func.grad(lambda weight: xp.entropy(hidden.double() @ weight.T, from_logits=True))(weight.double())
    torch.testing.assert_close(weight.grad.double(), want, rtol=1e-2, atol={"bfloat16": 2e-3}.get(dtype, 1e-6))


def test_a_linear_map_that_is_given(torch: Any) -> None:
    """Where only the hidden states have gradients, nothing as large as the map is made."""
    hidden, weight = torch.randn(64, 16).requires_grad_(), torch.randn(256, 16)
    watch = Largest(torch)
    with block_size(8 * 256), watch.mode:
        xp.linear_entropy(hidden, weight)
    assert watch.larger_than(256 * 16 - 1) == 0


def test_what_is_known_is_freed(torch: Any) -> None:
    (x,) = leaves(torch, (X,))
    with block_size(8):
        value = xp.entropy(x, from_logits=True)
    value.backward()
    gradient = weakref.ref(x.grad.untyped_storage())
    x.grad = None
    assert gradient() is None


def test_a_formula_that_leaves_an_array_out(torch: Any) -> None:
    from xpenalties.backends import backend_of

    x, y = leaves(torch, (X, Y))
    backend = backend_of(x)
    assert backend is not None
    work = Work(lambda x, y: (x * y.detach()).sum(1), {}, backend.xp, None, (x, y), None, False, 1)
    with block_size(8):
        terms, _ = backend.evaluation.evaluate(work)
    terms.sum().backward()
    assert_same(torch, [x.grad], [y.detach()])
    assert y.grad is None or not y.grad.any()


def test_backward_in_another_thread(torch: Any) -> None:
    """The size is that of the call: the pass back, wherever it runs, needs none."""
    from concurrent.futures import ThreadPoolExecutor

    for dtype in (torch.float32, torch.bfloat16):
        (x,) = leaves(torch, (X,), dtype)
        with block_size(8):
            value = xp.z_loss(x)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(value.backward).result()
        want = xp.grad(xp.z_loss)(x.detach())
        torch.testing.assert_close(x.grad, want)


@of_rows
def test_terms_under_a_mask(case: Case, fw: Framework, torch: Any) -> None:
    """With gradients: the terms keep their shape and values, and each its own gradient."""
    where, _ = (fw.array(x) for x in masks(case))
    options = options_of(case, fw)
    results = []
    for elements in (None, sizes(case)[0]):
        arrays = leaves(torch, case.arrays)
        with block_size(elements):
            terms = case(*arrays, where=where, reduction="none", **options)
        factors = torch.arange(1.0, terms.numel() + 1, dtype=torch.float64).reshape(terms.shape)
        results.append((terms.detach(), *torch.autograd.grad((terms * factors).sum(), arrays)))
    assert tuple(results[1][0].shape) == case.terms(*case.arrays).shape
    assert not results[1][0][~where.broadcast_to(results[1][0].shape)].any()
    for got, want in zip(*results[::-1], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
