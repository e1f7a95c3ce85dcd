"""Paths of the parameters within modules of a type."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework
from tests.helpers.parameter_trees import Layer, Norm, params
from xpenalties import transforms, trees
from xpenalties.trees import paths_within


def chosen(tree: Any, pattern: Any) -> list[str]:
    return sorted(trees.over_tree("l2", match=pattern).explain(tree).selected)


def test_dataclasses_and_named_tuples(fw: Framework) -> None:
    tree = params(fw)
    layers = ["encoder.0.bias", "encoder.0.kernel", "encoder.1.bias", "encoder.1.kernel"]
    assert chosen(tree, paths_within(tree, Layer)) == layers
    assert chosen(tree, paths_within(tree, (Norm, Layer))) == [*layers, "norm.offset", "norm.scale"]
    assert chosen(tree["encoder"][0], paths_within(tree["encoder"][0], Layer)) == ["bias", "kernel"]
    more = {"encoder": tree["encoder"], "encoder.2": {"kernel": fw.array(np.ones(2))}, "encode": fw.array(np.ones(2))}
    assert chosen(more, paths_within({"encode": tree["norm"]}, Norm)) == ["encode"]  # and not what begins so


def test_modules_of_pytorch() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    nn = torch.nn
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.TransformerEncoderLayer(4, 2, 8), nn.LayerNorm(4), nn.Linear(4, 5, bias=False)
    )
    model[3].weight = model[0].weight  # the output layer is tied to the embedding
    norms = ["1.norm1.bias", "1.norm1.weight", "1.norm2.bias", "1.norm2.weight", "2.bias", "2.weight"]
    assert chosen(model, paths_within(model, nn.LayerNorm)) == norms
    assert chosen(model, paths_within(model, nn.Embedding)) == ["0.weight"]
    linear = ["0.weight", *(f"1.{layer}.{name}" for layer in ("linear1", "linear2") for name in ("bias", "weight"))]
    assert [path for path in chosen(model, paths_within(model, nn.Linear)) if "attn" not in path] == linear
    assert len(chosen(model, paths_within(model, nn.TransformerEncoderLayer))) == 12
    assert chosen(model, paths_within(model, nn.Sequential)) == chosen(model, None)
    decay = transforms.add_l2_decay(0.1, exclude=[paths_within(model, nn.LayerNorm), trees.Pattern(ndim=1)])
    tree = dict(model.named_parameters())
    with torch.no_grad():
        updates, _ = decay.update(tree, decay.init(tree), tree)
    assert sorted(path for path in tree if updates[path] is tree[path]) == sorted(
        path for path, param in tree.items() if param.ndim == 1
    )
    with pytest.raises(
        ValueError, match=r"^paths_within: `model` must have modules of type Dropout with parameters, got"
    ):
        paths_within(model, nn.Dropout)


def test_pytrees_that_only_jax_knows() -> None:
    jax = selected("jax", reason="is about JAX's pytrees")

    class Block:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

    jax.tree_util.register_pytree_with_keys(
        Block, lambda block: (((jax.tree_util.GetAttrKey("kernel"), block.kernel),), None), lambda _, new: Block(*new)
    )
    tree = {"a": Block(jax.numpy.ones(2)), "b": [jax.numpy.ones(2), Block(jax.numpy.ones(3))]}
    assert chosen(tree, paths_within(tree, Block)) == ["a.kernel", "b.1.kernel"]


@pytest.mark.parametrize("types", ["Linear", (), (Layer, 3)])
def test_what_is_no_type(types: Any) -> None:
    message = f"^paths_within: `types` must be a class or a tuple of classes, got {re.escape(repr(types))}"
    with pytest.raises(TypeError, match=message):
        paths_within({}, types)


def test_a_type_that_is_not_there() -> None:
    with pytest.raises(
        ValueError, match=r"must have modules of type Layer or Norm with parameters, got none in dict\. Pass the model"
    ):
        paths_within({"a": np.ones(2)}, (Layer, Norm))
