"""Blocks of rows in eager PyTorch: run each one forward and backward at once, without a graph of all rows.

A term depends only on its own row. So once a block has been evaluated, the result of the backward pass is known up to a
factor for each row. PyTorch's autograd differentiates the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from .._blocks import keep_pages
from .._work import Index, Work
from ._autocast import without_autocast
from ._linear import Sum
from ._threads import carried, side_by_side
from ._tracing import are_batched

__all__ = ["evaluate_in_blocks"]


def evaluate_in_blocks(work: Work, elements: int) -> tuple[Any, Any]:
    """Evaluate terms in blocks. Returns terms and None, or constant terms and their sum divided by `work.divisor`."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in work.arrays)):
        return _blocks(work, elements, (False,) * len(work.arrays), None)[0], None
    learned = work.factors is not None and work.factors.requires_grad
    if work.divisor is not None and not learned:
        terms_and_sum: tuple[Any, Any] = _Blocks.apply(work, elements, True, *work.arrays)
        return terms_and_sum
    return _Blocks.apply(work, elements, False, *work.arrays), None


class _Blocks(torch.autograd.Function):  # type: ignore[misc]
    """Evaluate terms, or their sum, and compute their gradients in the forward pass.

    The gradient with respect to an array that all rows share is a sum over rows, so it needs the factors of the terms.
    They are known if only the sum of the terms is differentiated.

    The backward pass evaluates the blocks again if the factors are not known, if a gradient would be rounded before it
    is multiplied, or if it runs a second time. A sum with bfloat16 arrays is an exception, because it cannot underflow:
    there, a factor that is not a power of 2 rounds a second time.
    """

    @staticmethod
    def forward(ctx: Any, work: Work, elements: int, summed: bool, *arrays: Any) -> Any:
        needed = ctx.needs_input_grad[3:]
        tensors = (*arrays, work.mask, work.factors if summed else None)
        constant = [x is not None and x.is_inference() for x in tensors]  # cannot be saved, has no version counter
        ctx.constants = [x if is_constant else None for x, is_constant in zip(tensors, constant, strict=True)]
        ctx.save_for_backward(*(None if is_constant else x for x, is_constant in zip(tensors, constant, strict=True)))
        ctx.work = work._replace(arrays=(), mask=None, factors=None)
        ctx.elements, ctx.summed = elements, summed
        rounded = (torch.float16,) if summed else (torch.float16, torch.bfloat16)
        at_once = summed or not work.matrices
        at_once = at_once and not any(x.dtype in rounded for x, need in zip(arrays, needed, strict=True) if need)
        factors = _factors(work) if summed else None
        terms, ctx.gradients = _blocks(work, elements, needed if at_once else (False,) * len(arrays), factors)
        if not at_once:
            ctx.gradients = None
        if not summed:
            return terms
        ctx.mark_non_differentiable(terms)
        return terms, (terms if work.factors is None else terms * work.factors).sum() / work.divisor

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        needed = ctx.needs_input_grad[3:]
        pairs = zip(ctx.saved_tensors, ctx.constants, strict=True)
        *arrays, mask, factors = (saved if constant is None else constant for saved, constant in pairs)
        work: Work = ctx.work._replace(arrays=tuple(arrays), mask=mask, factors=factors)
        of_terms = cotangents[-1]
        if ctx.summed:
            of_terms = of_terms * _factors(work)
        if torch.is_grad_enabled() or are_batched(of_terms):
            return None, None, None, *_plain(work, needed, of_terms)
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _blocks(work, ctx.elements, needed, of_terms)
        else:
            scale = cotangents[-1] if ctx.summed else of_terms.unsqueeze(work.axis)
            if not (ctx.summed and scale.device.type == "cpu" and scale.item() == 1):
                for gradient in gradients:
                    if gradient is not None:
                        gradient.mul_(scale)
        pairs = zip(gradients, work.arrays, strict=True)
        return None, None, None, *[None if gradient is None else gradient.to(x.dtype) for gradient, x in pairs]


def _factors(work: Work) -> Any:
    """Return the factors of the terms in the divided sum, in the dtype of the terms."""
    first = work.arrays[0]
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in work.arrays) else torch.float32
    assert work.divisor is not None
    if work.factors is None:
        return torch.full((), 1 / work.divisor, dtype=dtype, device=first.device).expand(work.terms_shape)
    return work.factors.to(dtype) / work.divisor


def _blocks(work: Work, elements: int, needed: tuple[bool, ...], cotangents: Any) -> tuple[Any, list[Any]]:
    """Evaluate all blocks. Returns the terms and the gradients for `cotangents` of the terms (None: ones)."""
    pairs = enumerate(zip(work.arrays, needed, strict=True))
    initial = (Sum() if i in work.matrices else torch.empty_like(x) if need else None for i, (x, need) in pairs)
    gradients = list(initial)
    indices = list(work.indices(elements))

    def evaluate(index: Index) -> Any:
        return _block(work, index, needed, cotangents, gradients)

    device = work.arrays[0].device.type
    with without_autocast(device):  # a backward pass must not run under autocast
        if work.matrices or work.classes is not None or device != "cpu":  # a matrix product uses all threads well
            terms = [evaluate(index) for index in indices]
        else:
            keep_pages(_empty)
            terms = side_by_side(evaluate, indices, carried())
    results = [gradient.value if isinstance(gradient, Sum) else gradient for gradient in gradients]
    return torch.cat(terms).reshape(work.terms_shape + work.values), results


def _empty(size: int) -> Any:
    return torch.empty(size, dtype=torch.uint8)


def _block(work: Work, index: Index, needed: tuple[bool, ...], cotangents: Any, gradients: list[Any]) -> Any:
    """Evaluate the terms of a block, and write or add their gradients to `gradients`."""
    block, mask = work.block(index)
    leaves = tuple(x.detach().requires_grad_(need) for x, need in zip(block, needed, strict=True))
    for i in work.matrices:
        if needed[i]:
            gradients[i].gathers(leaves[i])
    with torch.set_grad_enabled(any(needed)), _without_hooks():
        terms = work.terms(leaves, mask)
    if any(needed):
        pulled = torch.ones_like(terms) if cotangents is None else cotangents[work.outer(index)].to(terms.dtype)
        differentiated = [x for x in leaves if x.requires_grad]
        block_gradients = torch.autograd.grad(terms, differentiated, pulled, allow_unused=True)
        for i, gradient in zip((i for i, need in enumerate(needed) if need), block_gradients, strict=True):
            if i not in work.matrices:
                gradients[i][index] = 0.0 if gradient is None else gradient
    return terms.detach().reshape(-1, *work.values)


def _without_hooks() -> AbstractContextManager[Any]:
    """Disable hooks for saved tensors, such as a checkpoint's. They are for graphs that outlive the call."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return nullcontext()
    return saved_tensors_hooks(lambda x: x.detach(), lambda x: x)


def _plain(work: Work, needed: tuple[bool, ...], cotangents: Any) -> Iterator[Any]:
    """Return the gradients of all rows at once, with a graph if grad mode is on."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():  # views, because one array may depend on another or be the same one
        inputs = tuple(x.view_as(x) if need else x for x, need in zip(work.arrays, needed, strict=True))
        terms = work._replace(arrays=inputs).whole()
    differentiated = [x for x, need in zip(inputs, needed, strict=True) if need]
    gradients = iter(torch.autograd.grad(terms, differentiated, cotangents, create_graph=again, allow_unused=True))
    return (next(gradients) if need else None for need in needed)
