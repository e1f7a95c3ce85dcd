"""Penalties over trees: which leaves are in, what they add up to, and on what kinds of nests."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline, prox, trees
from xpenalties.trees import over_tree

RNG = np.random.default_rng(5)
KERNEL, BIAS, SCALE = RNG.normal(size=(3, 4)), RNG.normal(size=4), RNG.normal(size=4)


class Norm(NamedTuple):
    scale: Any
    offset: Any


@dataclass
class Layer:
    kernel: Any
    bias: Any


def params(fw: Framework) -> dict[str, Any]:
    return {
        "encoder": [Layer(fw.array(KERNEL), fw.array(BIAS)), Layer(fw.array(2 * KERNEL), fw.array(-BIAS))],
        "norm": Norm(fw.array(SCALE), fw.array(0 * SCALE)),
        "steps": 3,
        "seen": fw.array(np.asarray([1, 2])),
        "rate": fw.array(np.asarray(0.5)),
    }


PATHS = [
    "encoder.0.kernel",
    "encoder.0.bias",
    "encoder.1.kernel",
    "encoder.1.bias",
    "norm.scale",
    "norm.offset",
    "rate",
]


def test_the_sum_over_leaves(fw: Framework) -> None:
    expected = 5 * np.sum(np.abs(KERNEL)) - 2 * np.sum(np.abs(KERNEL)) + 2 * np.sum(np.abs(BIAS))
    expected += np.sum(np.abs(SCALE)) + 0.5
    value = over_tree("l1")(params(fw))
    assert tuple(value.shape) == ()
    close(fw, value, expected)
    parts = over_tree("l1").by_path(params(fw))
    assert sorted(parts) == sorted(PATHS)
    close(fw, parts["encoder.1.kernel"], 2 * np.sum(np.abs(KERNEL)))


@pytest.mark.parametrize(
    ("match", "exclude", "expected"),
    [
        ("kernel$", None, ["encoder.0.kernel", "encoder.1.kernel"]),
        (["kernel$", r"^norm\.s"], r"^encoder\.1", ["encoder.0.kernel", "norm.scale"]),
        (None, ["encoder", "rate"], ["norm.scale", "norm.offset"]),
        (r"kernel$|\.bias$", r"\.0\.", ["encoder.1.kernel", "encoder.1.bias"]),
    ],
)
def test_patterns(fw: Framework, match: Any, exclude: Any, expected: list[str]) -> None:
    chosen = over_tree("l2", match=match, exclude=exclude)
    assert sorted(chosen.by_path(params(fw))) == sorted(expected)
    found = chosen.explain(params(fw))
    assert sorted(found.selected) == sorted(expected)
    assert found.unused == ()
    assert set(found.selected) | set(found.left_out) == {*PATHS, "seen", "steps"}
    assert found.left_out["steps"] == "no array, int"


def test_explain_says_why(fw: Framework) -> None:
    chosen = over_tree("l2", match=["kernel", "nowhere"], exclude="1")
    found = chosen.explain(params(fw))
    assert found.selected == {"encoder.0.kernel": (3, 4)}
    assert found.left_out["encoder.1.kernel"] == "excluded by '1'"
    assert found.left_out["rate"] == "matches no pattern"
    assert found.left_out["seen"].startswith("not floating-point, ")
    assert found.unused == ("nowhere",)
    assert "encoder.0.kernel  selected, (3, 4)" in str(found)
    assert "'nowhere'         matches nothing" in str(found)
    assert str(over_tree("l2").explain({})) == ""


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        (lambda x: x, [""]),
        (lambda x: [x, (x, [x])], ["0", "1.0", "1.1.0"]),
        (lambda x: OrderedDict([("b.weight", x), ("a", x)]), ["b.weight", "a"]),
        (lambda x: {0: {"x": x}}, ["0.x"]),
        (lambda x: Norm(x, [x]), ["scale", "offset.0"]),
        (lambda x: Layer({"k": x}, x), ["kernel.k", "bias"]),
        (lambda x: Pipeline([Penalty("l1", weight=x)]), ["l1"]),
    ],
    ids=["array", "sequences", "mapping", "numbers as keys", "named tuple", "dataclass", "pipeline"],
)
def test_kinds_of_nests(fw: Framework, make: Callable[[Any], Any], paths: list[str]) -> None:
    tree = make(fw.array(np.asarray(2.0)))
    assert sorted(over_tree("l2").by_path(tree)) == sorted(paths)
    close(fw, over_tree("l2")(tree), np.asarray(4.0 * len(paths)))


def test_several_trees(fw: Framework) -> None:
    new, old = {"a": fw.array(KERNEL), "b": fw.array(BIAS)}, {"b": fw.array(0 * BIAS), "a": fw.array(0 * KERNEL)}
    pull = over_tree(lambda x, start: xp.l2(x, center=start), match="a")
    close(fw, pull(new, old), np.sum(KERNEL**2))
    close(fw, over_tree("consistency")(new, old), np.mean(KERNEL**2) + np.mean(BIAS**2))
    with pytest.raises(
        ValueError, match=r"^over_tree: `others\[0\]` must have 'a' too, got 'aa'\. Did you mean 'aa'\?"
    ):
        pull(new, {"aa": fw.array(KERNEL)})


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
def test_compiled_in_a_pipeline(fw: Framework) -> None:
    def total(tree: Any, weight: Any) -> Any:
        decay = over_tree("l2", match="kernel")  # made anew, and the same program
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
    assert list(report.regularizers) == ["l2_over_tree", "l1"]


def test_equal_pipelines_are_one_program() -> None:
    def static(**given: Any) -> Any:
        return Pipeline([Penalty(over_tree("l2", **given), name="decay")]).tree_flatten()[1]

    assert static(match="a", options={"clip": 1.0}) == static(match=["a"], options={"clip": 1})
    assert hash(static(match="a")) == hash(static(match="a"))
    for other in (
        {"match": "b"},
        {"match": "a", "exclude": "b"},
        {"exclude": "a"},
        {"match": "a", "options": {"clip": 1.0}},
    ):
        assert static(match="a") != static(**other)


def test_pickle() -> None:
    again = pickle.loads(pickle.dumps(over_tree("l2", match="a", exclude="b")))
    assert float(again({"a": np.ones(2), "ab": np.ones(3)})) == 2.0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"fn": "l3"}, ValueError, r"`fn` must be a callable or one of .*Did you mean 'l2'\?"),
        ({"fn": 3}, TypeError, "`fn` must be a name or a callable, got int"),
        (
            {"fn": "gradient_penalty"},
            TypeError,
            "^over_tree: `fn` must take arrays, got 'gradient_penalty', which takes",
        ),
        ({"options": {"clp": 1.0}}, TypeError, r"`clp` is not an option.*Did you mean 'clip'\?"),
        ({"options": {"reduction": "none"}}, ValueError, "l2: `reduction` must be"),
        ({"match": "("}, ValueError, r"^over_tree: `match` must be a regular expression, got '\(': .* Escape"),
        ({"match": [3]}, TypeError, "^over_tree: `match` must be a regular expression or several, got 3"),
        ({"match": b"a"}, TypeError, "^over_tree: `match` must be a regular expression or several, got b'a'"),
        ({"exclude": 3}, TypeError, "^over_tree: `exclude` must be a regular expression or several, got 3"),
        ({"exclude": []}, ValueError, "^over_tree: `exclude` must have a pattern, got none"),
    ],
)
def test_errors_when_made(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        over_tree(**{"fn": "l2", **given})


@pytest.mark.parametrize(
    ("tree", "match", "error", "message"),
    [
        (
            {"kernel": 1.0},
            None,
            ValueError,
            r"must hold a floating-point array to select, got none \(kernel: no array, f",
        ),
        ({}, None, ValueError, r"got none \(it is empty\)\. Pass a nest of arrays"),
        (3, None, ValueError, r"got none \(it: no array, int\)"),
        (
            {"kernel": np.ones(2)},
            "kernle",
            ValueError,
            r"each pattern must match a path in `tree`, got 'kernle', which matches none of 'kernel'\. Did you mean 'k",
        ),
        ({str(i): np.ones(2) for i in range(20)}, "x", ValueError, "'7' and 12 more"),
        ({"a": np.ones(2), "b": np.ones(2)}, ["a", "c"], ValueError, "got 'c', which matches none"),
    ],
    ids=["no array", "empty", "a number", "misspelt", "many", "one of two"],
)
def test_errors_of_a_call(tree: Any, match: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        over_tree("l2", match=match)(tree)


@pytest.mark.parametrize(
    ("fn", "got"), [(lambda x: x * x, r"shape \(2,\)"), (lambda x: 1.0, "float"), (lambda x: (xp.l1(x), {}), "tuple")]
)
def test_what_a_function_may_return(fn: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"^over_tree: `fn` must return a 0-d array, got {got}") as caught:
        over_tree(fn)({"a": np.ones(2)})
    assert "at 'a'" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("tree", "got"),
    [
        (iter([np.ones(2)]), r"list_iterator at ''"),
        ({"a": np.ma.masked_array([1.0])}, r"numpy\.ma\S*MaskedArray at 'a'"),
        ({"a": np.zeros(2, np.dtype("V2"))}, r"\|V2 at 'a'"),
    ],
)
def test_what_is_not_seen_is_refused(tree: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"^over_tree: `tree` must be a nest of arrays of one framework, got .*{got}"):
        over_tree("l2")(tree)


def test_patterns_of_exclude_must_match_too() -> None:
    with pytest.raises(ValueError, match="got 'z', which matches none of 'a'"):
        over_tree("l2", exclude="z")({"a": np.ones(2)})


def test_paths_that_are_the_same() -> None:
    tree = {"a.b": np.ones(2), "a": {"b": np.ones(3)}}
    assert float(over_tree("l2")(tree)) == 5.0
    assert float(over_tree("consistency")(tree, tree)) == 0.0
    for ask in (over_tree("l2").by_path, over_tree("l2").explain):
        with pytest.raises(ValueError, match=r"paths must be unique, got 'a\.b' twice in `tree`\. Rename a key"):
            ask(tree)


def test_a_penalty_of_one_array_takes_one_tree() -> None:
    with pytest.raises(TypeError, match="l1: takes 1 array"):
        over_tree("l1")([np.ones(2)] * 3, [np.ones(2)] * 3)
    torch = selected("torch", reason="sums small tensors at once")
    with pytest.raises(TypeError, match="l1: takes 1 array"):
        over_tree("l1")([torch.ones(2)] * 3, [torch.ones(2)] * 3)


def test_mappings_of_their_own_kind(fw: Framework) -> None:
    class Output(OrderedDict):  # type: ignore[type-arg]
        def update(self, *args: Any, **kwargs: Any) -> None:
            raise TypeError("there is no update")

    class Loose(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self.setdefault(name, None)

    for cls in (Output, Loose):
        tree = cls(a=fw.array(BIAS))
        close(fw, over_tree("l1")(tree), np.sum(np.abs(BIAS)))
        new = prox.prox_step(prox.l1, tree, scale=100.0)
        assert type(new) is cls and list(tree) == ["a"]
        close(fw, new["a"], 0 * BIAS)


def test_a_dataclass_without_a_value() -> None:
    @dataclass
    class Lazy:
        a: Any
        b: Any = field(init=False)

    assert float(over_tree("l1")(Lazy(np.ones(2)))) == 2.0


def test_a_module_within_a_tree_is_refused() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    with pytest.raises(
        TypeError, match=r"got torch\.nn\.\S*Linear at 'm'\. Pass what .* dict\(model\.named_parameters"
    ):
        over_tree("l2")({"m": torch.nn.Linear(2, 2), "t": torch.ones(1)})


def test_numpy_beside_what_only_jax_knows() -> None:
    jax = selected("jax", reason="is about JAX's pytrees")

    class Block:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

    jax.tree_util.register_pytree_node(Block, lambda block: ((block.kernel,), None), lambda _, parts: Block(*parts))
    tree = {"block": Block(np.ones(3)), "head": np.ones(2)}
    assert float(over_tree("l2")(tree)) == 5.0
    mixed = {"steps": np.asarray(3), "block": Block(jax.numpy.ones(3))}
    assert float(over_tree("l2")(mixed)) == 3.0


def test_a_failure_says_where() -> None:
    with pytest.raises(ValueError, match="orthogonality: `x` must") as caught:
        over_tree("orthogonality")({"a": np.ones((2, 2)), "b": np.ones(2)})
    assert caught.value.__notes__ == ["in orthogonality_over_tree, at 'b'"]


def test_a_callable_object_has_a_name() -> None:
    class Own:
        def __call__(self, x: Any) -> Any:
            return xp.l1(x)

    assert over_tree(Own()).__name__ == "Own_over_tree"


def test_modules_of_pytorch() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    model[2].weight = model[2].weight  # as it is
    decay = over_tree("l2", match=r"weight$", exclude=r"^1\.")
    expected = (model[0].weight ** 2).sum() + (model[2].weight ** 2).sum()
    for tree in (model, dict(model.named_parameters()), model.state_dict()):
        assert torch.allclose(decay(tree), expected)
    assert decay.explain(model.state_dict()).left_out["1.num_batches_tracked"] == "not floating-point, torch.int64"
    decay(model).backward()
    assert torch.allclose(model[0].weight.grad, 2 * model[0].weight)
    assert model[1].weight.grad is None


def test_pytrees_that_only_jax_knows() -> None:
    jax = selected("jax", reason="is about JAX's pytrees")

    @jax.tree_util.register_pytree_with_keys_class
    class Module:
        def __init__(self, kernel: Any, inner: Any) -> None:
            self.kernel, self.inner = kernel, inner

        def tree_flatten_with_keys(self) -> Any:
            keys = jax.tree_util.GetAttrKey
            return ((keys("kernel"), self.kernel), (keys("inner"), self.inner)), None

        @classmethod
        def tree_unflatten(cls, aux: Any, children: Any) -> Any:
            return cls(*children)

    inner = Layer(jax.numpy.ones(2), None)  # a leaf to JAX
    tree = {"m": Module(jax.numpy.ones(3), [inner])}
    assert over_tree("l2").by_path(tree).keys() == {"m.kernel", "m.inner.0.kernel"}
    assert float(jax.jit(over_tree("l2", match=r"m\.kernel"))({"m": Module(jax.numpy.ones(3), None)})) == 3.0


def test_a_class_without_names_for_its_parts() -> None:
    class Pair:
        def __init__(self, a: Any, b: Any) -> None:
            self.parts = (a, b)

        def tree_flatten(self) -> Any:
            return self.parts, None

        @classmethod
        def tree_unflatten(cls, static: Any, parts: Any) -> Any:
            return cls(*parts)

    assert over_tree("l1").by_path({"p": Pair(np.ones(1), np.ones(2))}) == {"p.0": 1.0, "p.1": 2.0}


def test_names() -> None:
    assert trees.__all__ == ["OverTree", "Selection", "over_tree"]


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
