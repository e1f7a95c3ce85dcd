"""Sparse arrays: what takes them is right, and all else refuses them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework
from xpenalties import prox, transforms
from xpenalties.trees import over_tree

REFUSING: dict[str, Callable[[Any, Any], Any]] = {  # of a tree that has a sparse array, and the same one, dense
    "over_tree": lambda tree, dense: over_tree("l2")(tree),
    "by_path": lambda tree, dense: over_tree("orthogonality").by_path(tree),
    "prox_step": lambda tree, dense: prox.prox_step(prox.l1, tree, scale=1.0),
    "sparsity": lambda tree, dense: prox.sparsity(tree),
    "add_l2_decay": lambda tree, dense: transforms.add_l2_decay(0.1).update(tree, (), dense),
    "proximal": lambda tree, dense: transforms.proximal(prox.l1, scale=1.0).update(tree, (), dense),
    "clip_by_block_rms": lambda tree, dense: transforms.clip_by_block_rms(1.0).update(tree, ()),
    "adaptive_gradient_clipping": lambda tree, dense: transforms.adaptive_gradient_clipping(1.0).update(
        tree, (), dense
    ),
    "centralize": lambda tree, dense: transforms.centralize().update(tree, ()),
}


def embedding_gradients(torch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return gradients with a sparse one, in which a token comes twice, and the same gradients, dense."""
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(6, 3, sparse=True), "out": torch.nn.Linear(3, 1)})
    (model["out"](model["embed"](torch.tensor([1, 1, 4]))) ** 2).sum().backward()
    gradients = {name: param.grad for name, param in model.named_parameters()}
    assert gradients["embed.weight"].is_sparse and not gradients["embed.weight"].is_coalesced()
    return gradients, {name: x.to_dense() if x.is_sparse else x for name, x in gradients.items()}


@pytest.mark.only("torch", reason="is about PyTorch's sparse tensors")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # before PyTorch 2.13
@pytest.mark.parametrize("make", [transforms.clip, transforms.clip_by_global_norm])
@pytest.mark.parametrize("limit", [0.05, 100.0])
def test_clipping_keeps_gradients_sparse(fw: Framework, make: Callable[..., Any], limit: float) -> None:
    sparse, dense = embedding_gradients(fw.module)
    clip = make(limit)
    (got, _), (want, _) = clip.update(sparse, ()), clip.update(dense, ())
    assert got["embed.weight"].is_sparse
    for name, x in want.items():
        fw.module.testing.assert_close(got[name].to_dense() if got[name].is_sparse else got[name], x)
    optimizer = fw.module.optim.SparseAdam([embed := fw.module.nn.Parameter(fw.module.ones(6, 3))])
    embed.grad = got["embed.weight"]
    optimizer.step()
    assert [bool(row.ne(1).any()) for row in embed] == [False, True, False, False, True, False]


@pytest.mark.only("torch", reason="is about PyTorch's sparse tensors")
@pytest.mark.parametrize("name", REFUSING)
def test_pytorchs_are_refused(fw: Framework, name: str) -> None:
    sparse, dense = embedding_gradients(fw.module)
    argument = "updates" if name in transforms.__all__ else "tree"
    caller = "over_tree" if name == "by_path" else name
    message = (
        rf"^{caller}: `{argument}` must be dense, got torch\.sparse_coo at 'embed\.weight'\. Call its `to_dense` "
        "first, or leave it out with `exclude`"
    )
    with pytest.raises(TypeError, match=message):
        REFUSING[name](sparse, dense)
    left_out = transforms.centralize(exclude="embed").update(sparse, ())[0]
    assert left_out["embed.weight"] is sparse["embed.weight"]


@pytest.mark.only("torch", reason="is about PyTorch's sparse tensors")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_operators_and_layouts(fw: Framework) -> None:
    sparse, dense = embedding_gradients(fw.module)
    x = sparse["embed.weight"]
    with pytest.raises(TypeError, match=r"^l1: `x` must be dense, got torch\.sparse_coo\. Call its `to_dense` first"):
        prox.l1(x, scale=1.0)
    with pytest.raises(TypeError, match=r"^over_tree: `tree` must be dense, got torch\.sparse_csr at 'a'"):
        over_tree("l2")({"a": dense["embed.weight"].to_sparse_csr()})
    new = transforms.apply_updates(dense, sparse)  # a sum with a dense tensor is dense
    fw.module.testing.assert_close(new["embed.weight"], 2 * dense["embed.weight"])


@pytest.mark.parametrize("name", [*REFUSING, "clip", "clip_by_global_norm"])
def test_jaxs_are_refused(name: str) -> None:
    """To JAX they are trees, so that a function of their leaves would see no zeros, and repeated elements twice."""
    jax = selected("jax", reason="is about JAX's sparse arrays")
    from jax.experimental import sparse

    dense = {"w": [jax.numpy.eye(3)]}
    call = REFUSING.get(name) or (lambda tree, dense: getattr(transforms, name)(1.0).update(tree, ()))
    for cls in (sparse.BCOO, sparse.BCSR):
        message = (
            rf"must be dense, got jax\.experimental\.sparse\.\S*{cls.__name__} at 'w\.0'\. Call its `todense` first"
        )
        with pytest.raises(TypeError, match=message):
            call({"w": [cls.fromdense(dense["w"][0])]}, dense)
    with pytest.raises(TypeError, match=r"^apply_updates: `updates` must be dense, got jax\.\S*BCOO at 'w\.0'"):
        transforms.apply_updates(dense, {"w": [sparse.BCOO.fromdense(dense["w"][0])]})
    assert over_tree("l2").explain({"w": sparse.BCOO.fromdense(dense["w"][0])}).left_out == {"w": "not an array, BCOO"}
    assert float(over_tree("l2")(dense)) == 3.0  # with the module of sparse arrays imported


def test_scipys_are_refused() -> None:
    from scipy import sparse

    for x in (sparse.csr_array(np.eye(3)), sparse.coo_matrix(np.eye(3))):
        with pytest.raises(
            TypeError, match=r"^over_tree: `tree` must be dense, got scipy\.sparse\.\S+ at 'b'\. Call its"
        ):
            over_tree("l2")({"a": np.ones(2), "b": x})
