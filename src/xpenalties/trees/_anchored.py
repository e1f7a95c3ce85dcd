"""`anchored`: keep parameters near those of an earlier model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..backends import backend_of, flatten_of, parameters_of
from ._over_tree import OverTree, over_tree
from ._selection import PatternsLike

__all__ = ["anchored"]


def anchored(
    reference: Any,
    *,
    importance: Any = None,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
    options: Mapping[str, Any] | None = None,
) -> OverTree:
    r"""Make a penalty on trees: the squared distance from a reference tree, such as a model before fine-tuning.

    :math:`\sum_i F_i (w_i - w^0_i)^2` over all elements of the selected leaves. Without importances, :math:`F` is 1:
    this is L2-SP [1]_. With those of `importance.fisher`, it is elastic weight consolidation [2]_.

    Parameters
    ----------
    reference : pytree of arrays or module
        The tree to stay near. It is copied, so later training does not change it.
    importance : pytree of arrays, optional
        How much each element counts, >= 0. It must have the paths of the selected leaves. It is copied, too.
    match, exclude, options
        As for `over_tree` of `l2`.

    Returns
    -------
    OverTree
        Call it on a tree, or pass it to `Penalty` as `fn`. `reference` must have the paths of the selected leaves.

    Raises
    ------
    TypeError, ValueError
        As for `over_tree`, and for calls of its result.

    Notes
    -----
    No factor 1/2. Gradients flow to the tree, not to the reference or the importances.

    A function that `jax.jit` compiles holds the reference as a constant. To pass it as an argument instead, make it an
    input: ``Penalty("l2", tree={}, inputs={"x": "params", "center": "reference"})``.

    References
    ----------
    .. [1] Li, Grandvalet & Davoine, "Explicit inductive bias for transfer learning with convolutional networks",
       ICML 2018.
    .. [2] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017.

    Examples
    --------
    >>> old = {"kernel": np.zeros((2, 3)), "bias": np.ones(3)}
    >>> stay = trees.anchored(old, match="kernel")
    >>> float(stay({"kernel": np.full((2, 3), 2.0), "bias": np.zeros(3)}))
    24.0
    """
    penalty = over_tree("l2", match=match, exclude=exclude, options=options)
    held = {"center": _copied(reference)}
    if importance is not None:
        held["weights"] = _copied(importance)
    return replace(penalty, held=held)


def _copied(tree: Any) -> Any:
    """Return a tree of constants that do not change with the arrays of `tree`. For a module, a dict by name."""
    leaves, rebuild = flatten_of(parameters_of(tree))
    copies = []
    for x in leaves:
        backend = backend_of(x)
        copies.append(x if backend is None else backend.snapshot(x))
    return rebuild(iter(copies))
