"""Which inputs of a pipeline only weight or scale terms, so that gradients are not tracked with respect to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .._penalties.spec import SHARED, spec_of
from ..trees._over_tree import OverTree
from .penalty import Penalty
from .penalty_inputs import Inputs, names_in

__all__ = ["constants_of"]


def constants_of(penalties: Iterable[Penalty]) -> frozenset[str]:
    """Return the names of inputs that are passed to no parameter but `where`, `weights` and `normalizer`."""
    constants: set[str] = set()
    others: list[Inputs] = []
    for penalty in penalties:
        fn = penalty.fn.fn if isinstance(penalty.fn, OverTree) else penalty.fn
        if isinstance(penalty.inputs, Mapping) and spec_of(fn) is not None:
            constants.update(names_in({name: penalty.inputs[name] for name in SHARED if name in penalty.inputs}))
            others.append({name: source for name, source in penalty.inputs.items() if name not in SHARED})
        else:
            others.append(penalty.inputs)
    return frozenset(constants.difference(*map(names_in, others)) if constants else ())
