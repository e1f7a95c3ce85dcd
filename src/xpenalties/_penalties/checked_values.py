"""Check the values of a call for `set_value_checks`: log-probabilities, weights and the normalizer."""

from __future__ import annotations

from .._arrays.value_checks import require_log_probabilities, require_not_negative
from ..backends import common_backend
from .arguments import Call
from .preparation import Prepared

__all__ = ["check_values"]


def check_values(call: Call, prepared: Prepared) -> None:
    """Check the values of a prepared call. Masked terms are not checked."""
    spec = call.spec
    backend, _, mask, weights, axis, _ = prepared
    if weights is not None:
        require_not_negative(spec.name, "weights", backend, weights)
    if call.normalizer is not None and type(call.normalizer) is not float:
        own = common_backend(spec.name, (spec.arrays[0], "normalizer"), (call.arrays[0], call.normalizer))
        require_not_negative(spec.name, "normalizer", own, call.normalizer)
    kind = spec.distributions({**spec.defaults, **call.options})
    if kind is None:
        return
    axis = None if kind == "elements" else axis
    for name, x in zip(spec.arrays, call.arrays, strict=True):
        require_log_probabilities(spec.name, name, backend, x, axis=axis, partial=kind == "partial", mask=mask)
