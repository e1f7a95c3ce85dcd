"""Gradient norms in PyTorch's training loops: the arrays of `wrt`, and the scale of mixed precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .._core.shown import shown
from .._pipeline.wrt import Recorded, Wrt, checked_wrt
from ..backends import flatten_of, parameters_of, reshard
from ._named_inputs import lookup

__all__ = ["add_named", "named_parameters", "recorded", "recorded_leaves", "tracks_gradients"]


def named_parameters(module: torch.nn.Module) -> dict[str, Any]:
    """Return a module's parameters by name, the sharded ones if FSDP2 has sharded them."""
    reshard((module,))
    return dict(module.named_parameters())


def tracks_gradients(options: Mapping[str, Any]) -> bool:
    """Return whether these options of `Pipeline.compute` track gradients."""
    return bool(options.get("track_grad_norms") or options.get("gradient_conflicts"))


def recorded(caller: str, wrt: Any, scaler: Any = None) -> Recorded:
    """Return `wrt` for gradients through the whole graph. `scaler` is a torch.amp.GradScaler or None."""
    checked = checked_wrt(caller, wrt)
    items = checked.items if isinstance(checked, Recorded) else checked
    assert isinstance(items, tuple)
    position = next((item for item in items if isinstance(item, int)), None)
    if position is not None:
        raise TypeError(f"{caller}: `wrt` must have names of inputs, not positions, got {shown(position)}. Pass names.")
    return Recorded(items, None if scaler is None or not scaler.is_enabled() else scaler.scale)


def add_named(caller: str, inputs: dict[str, Any], wrt: Wrt, *sources: Mapping[str, Any], argument: str = "") -> None:
    """Add the inputs that `wrt` names and that no penalty uses."""
    items = wrt.items if isinstance(wrt, Recorded) else wrt
    for name in items if isinstance(items, tuple) else ():
        if isinstance(name, str) and name not in inputs:
            inputs[name] = lookup(f"{caller}: `wrt`", name, inputs, *sources, argument=argument)


def recorded_leaves(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors that require gradients and that the values are computed from, such as parameters.

    Return none of them if no value has a graph.
    """
    arrays = [x for value in values for x in flatten_of(parameters_of(value))[0] if isinstance(x, torch.Tensor)]
    leaves = {id(x): x for x in arrays if x.requires_grad and x.grad_fn is None}
    nodes = [x.grad_fn for x in arrays if x.grad_fn is not None]
    if not nodes or not torch.is_grad_enabled():
        return []
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves[id(leaf)] = leaf
        nodes += [following for following, _ in node.next_functions]
    return list(leaves.values())
