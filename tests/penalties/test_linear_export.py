"""Exported programs of linear forms take any number of rows, and of features and classes where they are symbolic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import block_size

RNG = np.random.default_rng(3)
FORMS: dict[str, tuple[Callable[..., Any], int]] = {
    "kl": (xp.linear_kl_divergence, 2),
    "js": (xp.linear_js_divergence, 2),
    "entropy": (xp.linear_entropy, 1),
}
of_forms = pytest.mark.parametrize("name", FORMS)


def arrays_of(fw: Framework, rows: tuple[int, ...], layers: int) -> list[Any]:
    shapes = ((*rows, 3), (5, 3)) * layers
    return [fw.array(RNG.standard_normal(shape), "float32") for shape in shapes]


@of_forms
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("elements", [10, None], ids=["blocks", "whole"])
@pytest.mark.parametrize(
    ("hidden", "weight", "sizes"),
    [("b, 3", "5, 3", [(1,), (7,)]), ("b, t, 3", "5, 3", [(2, 4)]), ("b, d", "v, d", [(7,)])],
    ids=["rows", "two axes of rows", "everything"],
)
@pytest.mark.only("jax", reason="is about jax.export")
def test_symbolic_sizes_of_jax(
    fw: Framework,
    name: str,
    reduction: str,
    elements: int | None,
    hidden: str,
    weight: str,
    sizes: list[tuple[int, ...]],
) -> None:
    jax = fw.module
    from jax import export

    if reduction == "none" and (name != "entropy" or elements is None):
        pytest.skip("each reduction is tested with one form")
    fn, layers = FORMS[name]
    scope = export.SymbolicScope()
    shapes = [export.symbolic_shape(shape, scope=scope) for shape in (hidden, weight) * layers]
    specs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    both = fn if reduction == "none" else jax.value_and_grad(fn, range(2 * layers))
    with block_size(elements):
        exported = export.export(jax.jit(lambda *arrays: both(*arrays, reduction=reduction)))(*specs)
    for rows in sizes:
        arrays = arrays_of(fw, rows, layers)
        got = jax.tree.leaves(exported.call(*arrays))
        want = jax.tree.leaves(both(*arrays, reduction=reduction))
        for one, other in zip(got, want, strict=True):
            close(fw, one, fw.numpy(other), rtol=1e-5, atol=1e-6)


@pytest.mark.only("jax", reason="is about jax.export")
def test_a_symbolic_number_of_classes_to_normalize_by(fw: Framework) -> None:
    jax = fw.module
    from jax import export

    scope = export.SymbolicScope()
    shapes = tuple(export.symbolic_shape(shape, scope=scope) for shape in ("b, 3", "v, 3"))
    specs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    exported = export.export(jax.jit(lambda *arrays: xp.linear_entropy(*arrays, normalize=True)))(*specs)
    for classes in (5, 1):
        arrays = [fw.array(RNG.standard_normal((n, 3)), "float32") for n in (7, classes)]
        close(fw, exported.call(*arrays), fw.numpy(xp.linear_entropy(*arrays, normalize=True)), rtol=1e-5, atol=1e-6)


@of_forms
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.only("torch", reason="is about torch.export")
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated")  # by PyTorch itself
def test_rows_of_torch_are_not_fixed(fw: Framework, name: str, strict: bool, dtype: str) -> None:
    torch = fw.module
    fn, layers = FORMS[name]

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *arrays: Any) -> Any:
            return fn(*arrays)

    rows = torch.export.Dim("rows")
    shapes = (({0: rows}, {}) * layers,)
    arrays = [x.to(getattr(torch, dtype)) for x in arrays_of(fw, (7,), layers)]
    program = torch.export.export(Module(), tuple(arrays), dynamic_shapes=shapes, strict=strict).module()
    for size in (7, 3, 5, 20):  # 5 is the number of classes
        arrays = [x.to(getattr(torch, dtype)) for x in arrays_of(fw, (size,), layers)]
        torch.testing.assert_close(program(*arrays), fn(*arrays), rtol=1e-5, atol=1e-6)
