"""Apply proximal operators to trees of parameters, and measure how sparse they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.numerics import at_least_float32, sum_scalars
from .._core.shown import shown
from ..backends import common_backend
from ..trees._selection import Patterns, PatternsLike

__all__ = ["prox_step", "sparsity"]


def prox_step(
    operator: Callable[..., Any],
    tree: Any,
    /,
    *,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
    **options: Any,
) -> Any:
    """Apply a proximal operator to the leaves of a tree, after an optimizer's step.

    Parameters
    ----------
    operator : callable
        An operator of this module, or a callable that takes an array and `options`, and returns an array of the same
        shape and dtype.
    tree : pytree of arrays
        A tree as for `trees.over_tree`.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.
    **options
        Options of the operator, the same for each leaf. `scale` is the learning rate times the penalty's weight.

    Returns
    -------
    pytree of arrays
        Leaves that are not selected are the same objects. For a PyTorch module, the result is a dict of its parameters:
        copy them into the module under `torch.no_grad`.

    Raises
    ------
    TypeError, ValueError
        If `operator` is not callable, or a pattern matches nothing. Errors of the operator get a note with the path.

    Examples
    --------
    >>> params = {"kernel": np.asarray([0.25, -2.0]), "bias": np.asarray([0.25])}
    >>> prox.prox_step(prox.l1, params, scale=0.5, match="kernel")
    {'kernel': array([ 0. , -1.5]), 'bias': array([0.25])}
    """
    if not callable(operator):
        raise TypeError(f"prox_step: `operator` must be a callable, got {shown(operator)}. Pass for example `prox.l1`.")
    selected = Patterns.of("prox_step", match, exclude).select("prox_step", "tree", tree)

    def apply(index: int) -> Any:
        try:
            return operator(selected.leaves[index], **options)
        except Exception as error:
            error.add_note(f"in prox_step, at {selected.paths[index]!r}")
            raise

    return selected.replaced(map(apply, selected.indices))


def sparsity(tree: Any, /, *, match: PatternsLike = None, exclude: PatternsLike = None) -> Any:
    """Return the fraction of elements that are exactly 0.

    Parameters
    ----------
    tree : array or pytree of arrays
        A tree as for `trees.over_tree`.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.

    Returns
    -------
    array, shape ()
        In [0, 1], over all elements of the selected leaves together; 0 if they have no elements. In the real dtype of
        the first leaf, or float32 if that is wider. A callable in a `Pipeline` may return it as a metric.

    Raises
    ------
    TypeError, ValueError
        If the arrays are of several frameworks, or a pattern matches nothing.

    Examples
    --------
    >>> float(prox.sparsity({"a": np.asarray([0.0, 1.0]), "b": np.asarray([0.0, 0.0])}))
    0.75
    """
    selected = Patterns.of("sparsity", match, exclude).select("sparsity", "tree", tree)
    arrays = selected.arrays()
    if not arrays:
        return selected.zero()
    backend = common_backend("sparsity", selected.array_paths(), arrays)
    xp = backend.xp
    size = sum(math.prod(x.shape) for x in arrays)
    fits_int32 = size < 2**31  # JAX has no larger integers by default
    dtype = at_least_float32(
        xp.real(arrays[0]) if backend.dtype(arrays[0].dtype).kind == "complex" else arrays[0]
    ).dtype
    counts = [xp.sum(xp.astype(x == 0, xp.int32 if fits_int32 else dtype)) for x in arrays]
    return xp.astype(sum_scalars(counts), dtype) / float(max(size, 1))
