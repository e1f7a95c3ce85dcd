"""Proximal steps of whole trees of parameters, and how sparse they have become."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.numerics import total, wide
from ..backends import common_backend
from ..trees._selection import Given, Patterns

__all__ = ["prox_step", "sparsity"]


def prox_step(
    operator: Callable[..., Any],
    tree: Any,
    /,
    *,
    match: Given = None,
    exclude: Given = None,
    **options: Any,
) -> Any:
    """A proximal operator of each leaf of a tree, for after an optimizer's step.

    Parameters
    ----------
    operator : callable
        One of this module, or another that takes an array and `options`, and returns an array of its shape and dtype.
    tree : nest of arrays
        As `trees.over_tree` takes it.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.
    **options
        Of the operator, the same for each leaf; `scale` is the learning rate times the penalty's weight.

    Returns
    -------
    nest of arrays
        What is not selected is the very same; of a PyTorch module's parameters a dict, to be copied into them under
        `torch.no_grad`.

    Raises
    ------
    TypeError, ValueError
        For an operator that is no callable, a pattern that matches nothing, and what the operator raises, with a note
        of the path.

    Examples
    --------
    >>> params = {"kernel": np.asarray([0.25, -2.0]), "bias": np.asarray([0.25])}
    >>> prox.prox_step(prox.l1, params, scale=0.5, match="kernel")
    {'kernel': array([ 0. , -1.5]), 'bias': array([0.25])}
    """
    if not callable(operator):
        raise TypeError(f"prox_step: `operator` must be a callable, got {operator!r}. Pass for example `prox.l1`.")
    selected = Patterns.of("prox_step", match, exclude).select("prox_step", "tree", tree)

    def moved(place: int) -> Any:
        try:
            return operator(selected.leaves[place], **options)
        except Exception as error:
            error.add_note(f"in prox_step, at {selected.paths[place]!r}")
            raise

    return selected.replaced(map(moved, selected.places))


def sparsity(tree: Any, /, *, match: Given = None, exclude: Given = None) -> Any:
    """The share of exact zeros.

    Parameters
    ----------
    tree : array or nest of arrays
        As `trees.over_tree` takes it.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.

    Returns
    -------
    array, shape ()
        In [0, 1], of all elements of what is selected together; 0 where there are none. Of the first leaf's real dtype,
        float32 at least. A metric that a callable of a `Pipeline` may return.

    Raises
    ------
    TypeError, ValueError
        For arrays of several frameworks, and a pattern that matches nothing.

    Examples
    --------
    >>> float(prox.sparsity({"a": np.asarray([0.0, 1.0]), "b": np.asarray([0.0, 0.0])}))
    0.75
    """
    selected = Patterns.of("sparsity", match, exclude).select("sparsity", "tree", tree)
    arrays = selected.chosen()
    backend = common_backend("sparsity", [selected.paths[i] for i in selected.places], arrays)
    xp = backend.xp
    size = sum(math.prod(x.shape) for x in arrays)
    exact = size < 2**31  # what JAX counts to without 64 bits
    dtype = wide(xp.real(arrays[0]) if backend.dtype(arrays[0].dtype).kind == "complex" else arrays[0]).dtype
    counts = [xp.sum(xp.astype(x == 0, xp.int32 if exact else dtype)) for x in arrays]
    return xp.astype(total(counts), dtype) / float(max(size, 1))
