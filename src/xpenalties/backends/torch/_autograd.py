"""Gradients with torch.autograd and torch.func."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils.weak import WeakTensorKeyDictionary

from .._blocks import block_size
from ..base import Autodiff, OfLeaves, Pull
from ._autocast import without_autocast
from ._tracing import is_tracing
from ._twice_differentiable import OnceDifferentiableCheck

__all__ = ["TorchAutodiff"]


class TorchAutodiff(Autodiff):
    needs_inputs = (
        "tensors in `wrt` must require gradients, and the call must be outside torch.no_grad, torch.compile and "
        "torch.func, got others. Or pass tensors that are among the inputs."
    )

    def differentiates(self) -> bool:
        return True

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        if is_tracing() or torch.is_inference_mode_enabled():  # where torch.autograd records nothing
            return _functional_vjp(fn, leaves, again)
        return _eager_vjp(fn, leaves, again)

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()

    def requires_grad(self, x: Any) -> bool:
        return bool(x.requires_grad)

    def is_computed(self, x: Any) -> bool:
        return x.grad_fn is not None

    def records(self, x: Any) -> bool:
        recording = torch.is_grad_enabled() and not is_tracing() and not torch.is_inference_mode_enabled()
        return recording and bool(x.requires_grad)

    def recorded_gradient(self, value: Any, arrays: list[Any], cotangent: Any) -> list[Any]:
        if not value.requires_grad:
            return [None] * len(arrays)
        with without_autocast(value.device.type):
            gradients = torch.autograd.grad(value, arrays, cotangent, retain_graph=True, allow_unused=True)
        return [_materialized(g.to_dense() if g is not None and g.is_sparse else g) for g in gradients]

    def weight_mask(self, weights: Any) -> Any:
        return None if _is_differentiated(weights) else weights != 0

    def escaped(self, error: Exception) -> bool:
        message = str(error)
        return isinstance(error, RuntimeError) and ("numpy()" in message or "data pointer" in message)

    def checked_twice(self, caller: str, gradient: Any) -> Any:
        if is_tracing() or not gradient.requires_grad:
            return gradient
        return OnceDifferentiableCheck.apply(gradient, caller)

    def squared_norm(self, x: Any) -> Any:
        if is_tracing():
            return super().squared_norm(x)
        # one pass over short blocks: over all of x, vector_norm would lose precision
        flat = x.reshape(-1)
        whole = flat.shape[0] // 256 * 256
        norms = torch.linalg.vector_norm(flat[:whole].reshape(-1, 256), dim=1)
        return super().squared_norm(norms) + super().squared_norm(flat[whole:])

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        if is_tracing():
            return super().add_multiple(total, x, factor)
        return total.addcmul_(x, factor) if isinstance(factor, torch.Tensor) else total.add_(x, alpha=factor)

    def with_gradient(self, total: Any, arrays: list[Any], gradient: list[Any]) -> Any:
        if is_tracing() or total.grad_fn is None or _depends_on_more(total, arrays):
            return total
        return _PrecomputedGradient.apply((total, gradient), *arrays)


def _is_differentiated(x: Any) -> bool:
    """Return True if `x`, or anything that it depends on, is differentiated, in reverse or forward mode."""
    if torch.compiler.is_compiling():  # pragma: no cover - Dynamo's trace, which no coverage sees
        # a view, because requires_grad of an input of torch.func is False
        return bool(x.view_as(x).requires_grad and torch.is_grad_enabled())
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        return True
    while not x.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(x):  # a vmap inside a grad
        x = torch._C._functorch.get_unwrapped(x)
    return bool(x.requires_grad and torch.is_grad_enabled())


#: Cotangents that require a gradient only because `pull` made them so. By identity, while they live.
_COTANGENTS = WeakTensorKeyDictionary()


def _functional_vjp(fn: OfLeaves, leaves: list[Any], again: bool) -> tuple[Any, list[Any], Pull]:
    """Differentiate with torch.func, which can be nested and which torch.compile can trace."""
    depends = True

    def of_leaves(leaves: list[Any]) -> tuple[Any, list[Any]]:
        nonlocal depends
        value, aux = fn(leaves)
        if not again:  # a view, because requires_grad of an input is False
            depends = bool(value.view_as(value).requires_grad)
        return value, aux

    value, pull_all, aux = torch.func.vjp(of_leaves, leaves, has_aux=True)

    def pull(cotangent: Any) -> list[Any]:
        if not depends:
            return [None] * len(leaves)
        with without_autocast(cotangent.device.type):
            return [_materialized(gradient) for gradient in pull_all(cotangent)[0]]

    return value, aux, pull


def _materialized(gradient: Any) -> Any:
    """Give storage to one of PyTorch's zero tensors, which have none and which `numpy()` refuses."""
    if gradient is None or torch.compiler.is_compiling() or not gradient._is_zerotensor():
        return gradient
    return gradient.clone()


def _eager_vjp(fn: OfLeaves, leaves: list[Any], again: bool) -> tuple[Any, list[Any], Pull]:
    """Differentiate with torch.autograd. torch.func refuses modules that update a buffer (batch and spectral norm)."""
    outer = torch.is_grad_enabled()  # the caller may differentiate the results
    at_once = again and outer and any(x.requires_grad for x in leaves)  # second derivatives need all rows
    with torch.enable_grad(), block_size(None) if at_once else nullcontext():
        inputs = [_view(x) if outer and x.requires_grad else x.detach().requires_grad_() for x in leaves]
        hidden = {id(x) for x in inputs if x.is_leaf}
        traced, aux = fn(inputs)
    keep = outer and traced.requires_grad and _needs_grad(traced, hidden)
    value = traced if keep else traced.detach()
    aux = [x if outer and x.requires_grad and _needs_grad(x, hidden) else x.detach() for x in aux]
    if not traced.requires_grad:
        return value, aux, lambda cotangent: [None] * len(leaves)

    def pull(cotangent: Any) -> list[Any]:
        create_graph = again and value.requires_grad and torch.is_grad_enabled()
        if create_graph and not cotangent.requires_grad:
            # else a once_differentiable last operation would go unnoticed
            cotangent = cotangent.detach().requires_grad_()
            _COTANGENTS[cotangent] = True
        with without_autocast(cotangent.device.type):
            gradients = torch.autograd.grad(
                traced, inputs, cotangent, retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        return [_materialized(gradient) for gradient in gradients]

    return value, aux, pull


def _view(x: Any) -> Any:
    """Return a view of all of `x`, so that gradients can be taken with respect to it."""
    if not x.is_nested:
        return x.view_as(x)
    values = x.values()
    return _nested(values.view_as(values), x)


def _nested(values: Any, like: Any) -> Any:
    """Return a jagged nested tensor of these values, with the lengths of `like`."""
    return torch.nested.nested_tensor_from_jagged(values, like.offsets(), like.lengths(), like._ragged_idx)


class _PrecomputedGradient(torch.autograd.Function):  # type: ignore[misc]
    """A total with a precomputed gradient: its backward pass is one product for each array."""

    @staticmethod
    def forward(ctx: Any, precomputed: tuple[Any, list[Any]], *arrays: Any) -> Any:
        ctx.precomputed, ctx.arrays = precomputed, arrays
        return precomputed[0].detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        total, gradient = ctx.precomputed
        if torch.is_grad_enabled():  # for a second derivative: through the whole graph
            gradients = torch.autograd.grad(
                total, ctx.arrays, cotangent, retain_graph=True, create_graph=True, allow_unused=True
            )
            return None, *gradients
        pulled = [None if g is None else (g * cotangent).to(x.dtype) for g, x in zip(gradient, ctx.arrays, strict=True)]
        pairs = zip(pulled, ctx.arrays, strict=True)
        return None, *(_nested(g, x) if g is not None and x.is_nested else g for g, x in pairs)


def _depends_on_more(total: Any, arrays: list[Any]) -> bool:
    """Return True if `total` depends, other than through `arrays`, on anything that requires a gradient."""
    outputs = {(x.grad_fn, x.output_nr) for x in arrays if x.grad_fn is not None}
    leaves = {id(x) for x in arrays if x.grad_fn is None}
    edges, seen = [(total.grad_fn, 0)], set()
    while edges:
        edge = edges.pop()
        node, _ = edge
        if node is None or edge in outputs or edge in seen:
            continue
        seen.add(edge)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in leaves:
            return True
        edges += node.next_functions
    return False


def _needs_grad(x: Any, hidden: set[int]) -> bool:
    """Return True if `x` depends on anything that requires a gradient, except the leaves with ids in `hidden`."""
    if x.grad_fn is None:
        return bool(x.requires_grad) and id(x) not in hidden
    nodes, seen = [x.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in hidden and leaf not in _COTANGENTS:
            return True
        nodes += [following for following, _ in node.next_functions]
    return False
