"""Penalties over trees: their sums, gradients, programs, and small tensors at once."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework, close
from tests.helpers.parameter_trees import BIAS, KERNEL, PATHS, SCALE, params
from xpenalties import Penalty, Pipeline, transforms, trees
from xpenalties.trees import over_tree


def test_the_sum_over_leaves(fw: Framework) -> None:
    expected = 5 * np.sum(np.abs(KERNEL)) - 2 * np.sum(np.abs(KERNEL)) + 2 * np.sum(np.abs(BIAS))
    expected += np.sum(np.abs(SCALE)) + 0.5
    value = over_tree("l1")(params(fw))
    assert tuple(value.shape) == ()
    close(fw, value, expected)
    parts = over_tree("l1").by_path(params(fw))
    assert sorted(parts) == sorted(PATHS)
    close(fw, parts["encoder.1.kernel"], 2 * np.sum(np.abs(KERNEL)))


def test_several_trees(fw: Framework) -> None:
    new, old = {"a": fw.array(KERNEL), "b": fw.array(BIAS)}, {"b": fw.array(0 * BIAS), "a": fw.array(0 * KERNEL)}
    pull = over_tree(lambda x, start: xp.l2(x, center=start), match="a")
    close(fw, pull(new, old), np.sum(KERNEL**2))
    close(fw, over_tree("consistency")(new, old), np.mean(KERNEL**2) + np.mean(BIAS**2))
    with pytest.raises(
        ValueError, match=r"^over_tree: `others\[0\]` must have 'a' too, got 'aa'\. Did you mean 'aa'\?"
    ):
        pull(new, {"aa": fw.array(KERNEL)})
    layers = {name: {"weight": fw.array(KERNEL)} for name in ("layer1", "layer2")}
    masks = {"layer1": {"weight": fw.array(KERNEL > 0)}}
    with pytest.raises(ValueError, match=r"`where` must have 'layer2\.weight' too, got 'layer1\.weight'\.$"):
        over_tree("l2")(layers, where=masks)


def test_options_and_own_functions(fw: Framework) -> None:
    tree = {"a": fw.array(KERNEL), "b": fw.array(BIAS)}
    close(
        fw, over_tree("l2", options={"clip": 0.5})(tree), np.sum(np.clip(np.r_[KERNEL.ravel(), BIAS], -0.5, 0.5) ** 2)
    )
    close(fw, over_tree(xp.l1, options={"normalizer": 4})(tree), np.sum(np.abs(np.r_[KERNEL.ravel(), BIAS])) / 4)

    def own(x: Any, factor: float) -> Any:
        return factor * xp.l1(x)

    close(fw, over_tree(own, options={"factor": 3.0}, match="b")(tree), 3 * np.sum(np.abs(BIAS)))


def test_dtypes_and_one_leaf(fw: Framework) -> None:
    low = next(name for name in fw.dtypes if name in ("float16", "float32"))
    tree = {"low": fw.array(BIAS, low), "high": fw.array(BIAS, "float64")}
    assert over_tree("l2")(tree).dtype == fw.dtype("float64")
    assert over_tree("l2", match="low")(tree).dtype == fw.dtype("float32")


@pytest.mark.needs("autodiff")
def test_gradient(fw: Framework) -> None:
    tree = {"a": [fw.array(KERNEL), fw.array(BIAS)], "n": 3}
    value, gradient = xp.value_and_grad(over_tree("l2", match=r"a\.0"))(tree)
    close(fw, value, np.sum(KERNEL**2))
    close(fw, gradient["a"][0], 2 * KERNEL)
    close(fw, gradient["a"][1], 0 * BIAS)


@pytest.mark.needs("jit")
@pytest.mark.parametrize(
    "pattern",
    [
        r"kernel",
        pytest.param(r"^ker(?:nel)$", marks=pytest.mark.newest),  # PyTorch 2.12 cannot trace `re.compile` of a new one
    ],
)
def test_compiled_in_a_pipeline(fw: Framework, pattern: str) -> None:
    if pattern == "kernel":
        over_tree("l2", match=pattern)

    def total(tree: Any, weight: Any) -> Any:
        decay = over_tree("l2", match=pattern)  # made anew, and the same program
        return Pipeline([Penalty(decay, name="decay", inputs="params", weight=weight)])({"params": tree})

    run, compilations = fw.compile(total)
    counts = []
    for factor in (1.0, 2.0, 3.0):
        tree = {"kernel": fw.array(factor * KERNEL), "bias": fw.array(BIAS)}
        close(fw, run(tree, fw.array(np.asarray(0.5))), 0.5 * factor**2 * np.sum(KERNEL**2))
        counts.append(compilations())
    assert counts == [counts[0]] * 3


def test_in_a_pipeline(fw: Framework) -> None:
    pipe = Pipeline([Penalty(over_tree("l2", match="kernel"), weight=0.5, inputs="params"), Penalty("l1", inputs="x")])
    x = fw.array(BIAS)
    total, report = pipe.compute({"params": {"kernel": fw.array(KERNEL)}, "x": x})
    close(fw, total, 0.5 * np.sum(KERNEL**2) + np.sum(np.abs(BIAS)))
    assert list(report.regularizers) == ["l2", "l1"]


def test_equal_pipelines_are_one_program() -> None:
    def static(**given: Any) -> Any:
        return Pipeline([Penalty(over_tree("l2", **given), name="decay")])._tree_flatten()[1]

    assert static(match="a", options={"clip": 1.0}) == static(match=["a"], options={"clip": 1})
    assert hash(static(match="a")) == hash(static(match="a"))
    assert static(match=trees.Pattern("a")) == static(match="a")
    assert static(match=trees.Pattern(ndim=[2])) == static(match=trees.Pattern(ndim=2))
    for other in (
        {"match": "b"},
        {"match": "a", "exclude": "b"},
        {"exclude": "a"},
        {"match": "a", "options": {"clip": 1.0}},
        {"match": trees.Pattern("a", ndim=2)},
        {"match": trees.Pattern("a", optional=True)},
    ):
        assert static(match="a") != static(**other)


def test_pickle() -> None:
    again = pickle.loads(pickle.dumps(over_tree("l2", match="a", exclude="b")))
    assert float(again({"a": np.ones(2), "ab": np.ones(3)})) == 2.0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"fn": "hubre"}, ValueError, r"`fn` must be a callable or one of .*Did you mean 'huber'\?"),
        ({"fn": 3}, TypeError, "`fn` must be a name or a callable, got int"),
        (
            {"fn": "gradient_penalty"},
            TypeError,
            "^over_tree: `fn` must take arrays, got 'gradient_penalty', which takes",
        ),
        ({"options": {"clp": 1.0}}, TypeError, r"`clp` is not an option.*Did you mean 'clip'\?"),
        ({"options": {"reduction": "none"}}, ValueError, "l2: `reduction` must be"),
    ],
)
def test_errors_when_made(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        over_tree(**{"fn": "l2", **given})


@pytest.mark.parametrize(
    ("fn", "got"), [(lambda x: x * x, r"shape \(2,\)"), (lambda x: 1.0, "float"), (lambda x: (xp.l1(x), {}), "tuple")]
)
def test_what_a_function_may_return(fn: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"^over_tree: `fn` must return a 0-d array, got {got}") as caught:
        over_tree(fn)({"a": np.ones(2)})
    assert "at 'a'" in caught.value.__notes__[0]


def test_a_penalty_of_one_array_takes_one_tree() -> None:
    with pytest.raises(TypeError, match="l1: takes 1 array"):
        over_tree("l1")([np.ones(2)] * 3, [np.ones(2)] * 3)
    torch = selected("torch", reason="sums small tensors at once")
    with pytest.raises(TypeError, match="l1: takes 1 array"):
        over_tree("l1")([torch.ones(2)] * 3, [torch.ones(2)] * 3)


def test_a_failure_says_where() -> None:
    with pytest.raises(ValueError, match="orthogonality: `x` must") as caught:
        over_tree("orthogonality")({"a": np.ones((2, 2)), "b": np.ones(2)})
    assert caught.value.__notes__ == ["in orthogonality_over_tree, at 'b'"]


def test_a_callable_object_has_a_name() -> None:
    class Own:
        def __call__(self, x: Any) -> Any:
            return xp.l1(x)

    assert over_tree(Own()).__name__ == "Own_over_tree"


def test_names() -> None:
    assert trees.__all__ == ["OverTree", "Pattern", "Selection", "anchored", "over_tree", "paths_within"]


@pytest.mark.parametrize(
    ("name", "options", "first", "second"),
    [("l1", {}, 1.0, 0.0), ("l2", {}, 0.0, 1.0), ("elastic_net", {"l1_ratio": 0.3}, 0.3, 0.7)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_tensors_at_once(name: str, options: Any, first: float, second: float, dtype: str) -> None:
    torch = selected("torch", reason="is about torch._foreach")
    from xpenalties.backends.torch._foreach import LARGEST

    large = LARGEST // 4 + 1
    shapes: list[tuple[int, ...]] = [(3, 4), (5,), (), (0, 2), (4, large), (2, 3)]
    leaves = [torch.randn(shape, dtype=getattr(torch, dtype)).requires_grad_() for shape in shapes]
    leaves[1] = torch.zeros(5, dtype=leaves[0].dtype, requires_grad=True)  # as biases begin
    leaves.append(torch.ones(2, dtype=torch.float16).requires_grad_())
    leaves.append(torch.ones(2, dtype=torch.float64 if dtype == "float32" else torch.float32).requires_grad_())
    penalty = over_tree(name, options=options)
    with counted_operations() as counts:
        value = penalty(leaves)
    assert counts["_foreach_norm"] == (first > 0) + (second > 0)
    wide = [x.double() for x in leaves]
    expected = sum(first * x.abs().sum() + second * (x * x).sum() for x in wide)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, expected, rtol=1e-12 if dtype == "float64" else 1e-6, atol=0)

    gradients = torch.autograd.grad(value, leaves, create_graph=True)
    for x, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(gradient, (first * x.sign() + 2 * second * x).to(x.dtype))
    curvatures = torch.autograd.grad(sum(each.sum() for each in gradients[:6]), leaves[:6], allow_unused=second == 0)
    for x, curvature in zip(leaves, curvatures, strict=False):
        assert curvature is None or torch.equal(curvature, torch.full_like(x, 2 * second))


@contextmanager
def counted_operations() -> Iterator[Counter[str]]:
    """How often PyTorch's operations are called, by name."""
    from torch.utils._python_dispatch import TorchDispatchMode

    counts: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            counts[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    with Counting():
        yield counts


def test_small_tensors_under_torch_func() -> None:
    torch = selected("torch", reason="is about torch.func")
    tree = {"a": torch.ones(3, dtype=torch.float64), "b": torch.full((2,), -2.0, dtype=torch.float64)}
    gradient = torch.func.grad(over_tree("l2"))(tree)
    assert gradient["a"].tolist() == [2.0] * 3
    assert gradient["b"].tolist() == [-4.0] * 2


@pytest.mark.parametrize(("name", "options"), [("l1", {}), ("l2", {}), ("elastic_net", {"l1_ratio": 0.3})])
def test_hypergradients_of_small_tensors(name: str, options: Any) -> None:
    """Derivatives by a learned weight, of every order: by the weight and the tensors, and batched."""
    torch = selected("torch", reason="is about torch._foreach")
    leaves = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((3,), (2, 2), ())]
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    penalty = over_tree(name, options=options)

    def total(weight: Any, *leaves: Any) -> Any:
        return weight**2 * penalty(leaves) ** 2

    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(total, (weight, *leaves))
    gradients = torch.autograd.grad(total(weight, *leaves), leaves, create_graph=True)

    def squares(weight: Any, *leaves: Any) -> Any:
        gradients = torch.autograd.grad(total(weight, *leaves), leaves, create_graph=True)
        return sum(x.square().sum() for x in gradients)

    assert torch.autograd.gradgradcheck(squares, (weight, *leaves))  # the third derivative
    many = torch.eye(3, dtype=torch.float64)
    value = torch.stack([total(weight, *leaves) * factor for factor in (1.0, 2.0, 3.0)])
    batched = torch.autograd.grad(value, leaves, many, is_grads_batched=True)
    for factor in (1.0, 2.0, 3.0):
        for rows, gradient in zip(batched, gradients, strict=True):
            torch.testing.assert_close(rows[int(factor) - 1], factor * gradient)


def test_hypergradients_of_small_tensors_at_infinity() -> None:
    torch = selected("torch", reason="is about torch._foreach")
    leaves = [torch.tensor([1.0, float("inf")], requires_grad=True), torch.zeros(2, requires_grad=True)]
    for name, expected in (("l1", [1.0, 1.0]), ("l2", [2.0, float("inf")])):
        gradient = torch.autograd.grad(over_tree(name)(leaves), leaves, create_graph=True)[0]
        assert gradient.tolist() == expected


def test_a_step_by_small_tensors_is_differentiated() -> None:
    """As meta-learning does: gradients of the penalty, clipped together, and the loss after the step."""
    torch = selected("torch", reason="is about torch._foreach")
    start = [torch.tensor([3.0, -1.0], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)]
    clip = transforms.clip_by_global_norm(0.5)

    def after(weight: Any) -> Any:
        pipe = Pipeline([Penalty(over_tree("l2"), name="decay", weight=weight)])
        leaves = [x.clone().requires_grad_() for x in start]
        gradients = torch.autograd.grad(pipe(leaves), leaves, create_graph=True)
        halved = [x / 2 for x in clip.update(list(gradients), ())[0]]
        return sum(((x - u) ** 3).sum() for x, u in zip(leaves, halved, strict=True)) + weight * gradients[0].sum()

    assert torch.autograd.gradcheck(after, torch.tensor(0.01, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(after, torch.tensor(3.0, dtype=torch.float64, requires_grad=True))


def test_small_tensors_of_nan_and_without_gradients() -> None:
    torch = selected("torch", reason="is about torch._foreach")
    values = [[1.0, float("nan")], [float("inf"), 0.0]]
    leaves = [torch.tensor(each, requires_grad=True) for each in values]
    for name, plain in (("l1", lambda x: x.abs().sum()), ("l2", lambda x: (x * x).sum())):
        gradients = torch.autograd.grad(over_tree(name)(leaves), leaves)
        for gradient, expected in zip(gradients, torch.autograd.grad(sum(map(plain, leaves)), leaves), strict=True):
            torch.testing.assert_close(gradient, expected, equal_nan=True)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = over_tree("l2")([torch.ones(2), torch.ones(3)])
            assert float(value) == 5.0 and not value.requires_grad
