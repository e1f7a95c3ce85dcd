"""Selection of leaves: by patterns of their paths, in every kind of tree."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from tests.helpers.parameter_trees import BIAS, PATHS, Layer, Norm, params
from xpenalties import Penalty, Pipeline, prox, transforms
from xpenalties.trees import Pattern, over_tree


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
    result = chosen.explain(params(fw))
    assert sorted(result.selected) == sorted(expected)
    assert result.unused == ()
    assert set(result.selected) | set(result.left_out) == {*PATHS, "seen", "steps"}
    assert result.left_out["steps"] == "not an array, int"


def test_explain_says_why(fw: Framework) -> None:
    chosen = over_tree("l2", match=["kernel", "nowhere"], exclude="1")
    result = chosen.explain(params(fw))
    assert result.selected == {"encoder.0.kernel": (3, 4)}
    assert result.left_out["encoder.1.kernel"] == "excluded by '1'"
    assert result.left_out["rate"] == "matches no pattern"
    assert result.left_out["seen"].startswith("not floating-point, ")
    assert result.unused == ("nowhere",)
    assert "encoder.0.kernel  selected, (3, 4)" in str(result)
    assert "'nowhere'         matches nothing" in str(result)
    assert str(over_tree("l2").explain({})) == ""


def test_explain_says_what_is_the_same_array(fw: Framework) -> None:
    x, y = fw.array(BIAS), fw.array(BIAS + 0)
    result = over_tree("l2").explain({"a": x, "b": y, "c": [x]})
    assert result.same_as == {"c.0": "a"}
    assert str(result) == "a    selected, (4,)\nb    selected, (4,)\nc.0  selected, (4,), the same array as a"
    close(fw, over_tree("l2")({"a": x, "b": y, "c": [x]}), 3 * np.sum(BIAS**2))


@pytest.mark.only("torch", reason="is about state dicts")
def test_tied_weights(fw: Framework) -> None:
    """Once in a module, and once for each name in a state dict."""
    torch = fw.module
    model = torch.nn.ModuleList(torch.nn.Linear(3, 3, bias=False) for _ in range(3))
    model[2].weight = model[0].weight
    decay = over_tree("l2")
    parts = [float(value.detach()) for value in decay.by_path(model).values()]
    assert len(parts) == 2
    assert float(decay(model.state_dict())) == pytest.approx(2 * parts[0] + parts[1])
    assert decay.explain(model.state_dict()).same_as == {"2.weight": "0.weight"}
    transposed = {"a": model[0].weight, "b": model[0].weight.T}
    assert decay.explain(transposed).same_as == {}
    batched = []
    for transform in (torch.vmap, torch.func.grad):
        transform(lambda x: batched.append(decay.explain({"a": x, "b": x, "c": x + 1})) or x.sum())(torch.ones(3))
    assert [result.same_as for result in batched] == [{"b": "a"}] * 2


@pytest.mark.parametrize(
    ("match", "exclude", "expected"),
    [
        (Pattern(ndim=2), None, ["encoder.0.kernel", "encoder.1.kernel"]),
        (Pattern(ndim=(0, 2)), "1", ["encoder.0.kernel", "rate"]),
        (Pattern("0", ndim=1), None, ["encoder.0.bias"]),
        (Pattern(shape=(-1, 4)), None, ["encoder.0.kernel", "encoder.1.kernel"]),
        (Pattern(shape=[4]), Pattern("norm", shape=(4,)), ["encoder.0.bias", "encoder.1.bias"]),
        (["kernel", Pattern(shape=())], None, ["encoder.0.kernel", "encoder.1.kernel", "rate"]),
        (None, Pattern(ndim=(0, 1)), ["encoder.0.kernel", "encoder.1.kernel"]),
    ],
)
def test_patterns_of_axes_and_shapes(fw: Framework, match: Any, exclude: Any, expected: list[str]) -> None:
    chosen = over_tree("l2", match=match, exclude=exclude)
    assert sorted(chosen.by_path(params(fw))) == sorted(expected)
    assert chosen.explain(params(fw)).unused == ()
    assert set(prox.prox_step(lambda x: x * 0, {"a": fw.array(np.ones((2, 4)))}, match=Pattern(ndim=2))) == {"a"}
    decay = transforms.add_l2_decay(1.0, match=match, exclude=exclude)
    tree = params(fw)
    changed = over_tree("l2").by_path(decay.update(tree, decay.init(tree), tree)[0])
    before = over_tree("l2").by_path(tree)
    moved = [path for path in before if float(changed[path]) != float(before[path])]
    assert sorted(moved) == sorted(set(expected) - {"norm.offset"})  # which is 0


def test_patterns_that_may_match_nothing(fw: Framework) -> None:
    tree = {"a": fw.array(BIAS), "n": 3}
    lora = Pattern("lora", optional=True)
    for match in (lora, [lora, Pattern(ndim=7, optional=True)]):
        decay = over_tree("l2", match=match)
        value = decay(tree)
        assert tuple(value.shape) == () and float(value) == 0.0 and value.dtype == fw.dtype("float64")
        assert decay.by_path(tree) == {}
        assert float(Pipeline([Penalty(decay, inputs="p")])({"p": tree})) == 0.0
        assert prox.prox_step(prox.l1, tree, match=match, scale=1.0)["a"] is tree["a"]
        assert float(prox.sparsity(tree, match=match)) == 0.0
        none = transforms.add_l2_decay(1.0, match=match)
        assert none.update(tree, none.init(tree), tree)[0]["a"] is tree["a"]
    complex_tree = {"a": fw.array(np.asarray([1j]), "complex64")}
    assert over_tree("l2", match=lora)(complex_tree).dtype == fw.dtype("float32")
    close(fw, over_tree("l2", exclude=lora)(tree), np.sum(BIAS**2))
    close(fw, over_tree("l2", match=["a", lora])(tree), np.sum(BIAS**2))
    with pytest.raises(
        ValueError, match=r"must hold a floating-point array to select, got none \(n: not an array, int\)"
    ):
        over_tree("l2", match=lora)({"n": 3})
    with pytest.raises(ValueError, match="must hold a floating-point array to select, got none"):
        over_tree("l2", match=["n", lora])(tree)
    assert over_tree("l2", match=["zz", lora]).explain(tree).unused == ("zz", lora)


@pytest.mark.needs("jit")
def test_patterns_in_a_compiled_program(fw: Framework) -> None:
    tree = {"a": fw.array(np.ones((2, 3))), "b": fw.array(np.ones(3))}
    decay = over_tree("l2", match=Pattern(shape=(-1, 3)), exclude=Pattern("lora", optional=True))
    empty = over_tree("l2", match=Pattern("lora", optional=True))
    run, compilations = fw.compile(lambda tree: (decay(tree), empty(tree)))
    for _ in range(2):
        values = run(tree)
        assert [float(value) for value in values] == [6.0, 0.0]
    assert compilations() == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Pattern, ValueError, "^Pattern: `path`, `ndim` or `shape` must be given, got none. Pass one"),
        (lambda: Pattern("("), ValueError, r"^Pattern: `path` must be a regular expression, got '\(': "),
        (lambda: Pattern(3), TypeError, "^Pattern: `path` must be a regular expression or several, got 3"),
        (lambda: Pattern(ndim=-1), ValueError, "^Pattern: `ndim` must be at least 0, got -1"),
        (lambda: Pattern(ndim=()), ValueError, "^Pattern: `ndim` must have a number, got none. Leave it out"),
        (lambda: Pattern(ndim="2"), TypeError, "^Pattern: `ndim` must be an integer, got '2'"),
        (
            lambda: Pattern(shape=3),
            TypeError,
            "^Pattern: `shape` must be a tuple of sizes, got 3. Pass ints in a tuple",
        ),
        (lambda: Pattern(shape=(None, 2)), TypeError, "^Pattern: `shape` must be an integer, got None"),
        (lambda: Pattern("a", optional=1), TypeError, "^Pattern: `optional` must be True or False, got 1. Pass a bool"),
    ],
)
def test_errors_of_patterns(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_patterns_read_as_they_are_written() -> None:
    for text in ("Pattern('a')", "Pattern('a', ndim=2, optional=True)", "Pattern(ndim=(0, 1), shape=(-1, 3))"):
        assert repr(eval(text)) == text and eval(text) == eval(text)
    with pytest.raises(
        ValueError,
        match=r"got Pattern\(ndim=3\), which matches none of 'a'\. If it may match nothing, pass Pattern\(ndim=3, opt",
    ):
        over_tree("l2", match=Pattern(ndim=3))({"a": np.ones(2)})


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


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
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
            r"must hold a floating-point array to select, got none \(kernel: not an array, f",
        ),
        ({}, None, ValueError, r"got none \(it is empty\)\. Pass a tree of arrays"),
        (3, None, ValueError, r"got none \(it: not an array, int\)"),
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
    ("tree", "got"),
    [
        (iter([np.ones(2)]), r"list_iterator at ''"),
        ({"a": np.ma.masked_array([1.0])}, r"numpy\.ma\S*MaskedArray at 'a'"),
        ({"a": np.zeros(2, np.dtype("V2"))}, r"\|V2 at 'a'"),
    ],
)
def test_what_is_not_seen_is_refused(tree: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"^over_tree: `tree` must be a tree of arrays of one framework, got .*{got}"):
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


def test_a_module_within_a_tree_is_refused() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    with pytest.raises(
        TypeError, match=r"got torch\.nn\.\S*Linear at 'm'\. Pass what .* dict\(model\.named_parameters"
    ):
        over_tree("l2")({"m": torch.nn.Linear(2, 2), "t": torch.ones(1)})


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
