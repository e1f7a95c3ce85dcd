"""Find the inputs of a pipeline that only weight or scale terms. Gradients are not tracked with respect to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .._penalties.parameters import HasParameters, call_parameters_of
from .penalty import Penalty
from .penalty_inputs import names_in

__all__ = ["constants_of"]


def constants_of(penalties: Iterable[Penalty]) -> frozenset[str]:
    """Return the names of inputs that are passed to no parameter but `where`, `weights` and `normalizer`."""
    constants: set[str] = set()
    others: set[str] = set()
    for penalty in penalties:
        inputs, parameters = penalty.inputs, penalty._parameters
        if inputs is None and isinstance(penalty.fn, HasParameters):  # another pipeline, with the same names
            parameters = call_parameters_of(penalty.fn)
            inputs = {name: name for name in parameters.positional} if parameters.in_mapping else None
        if isinstance(inputs, Mapping) and parameters is not None:
            fixed = parameters.constants
            constants.update(names_in({name: inputs[name] for name in fixed if name in inputs}))
            inputs = {name: source for name, source in inputs.items() if name not in fixed}
        others.update(names_in(inputs))
    return frozenset(constants - others)
