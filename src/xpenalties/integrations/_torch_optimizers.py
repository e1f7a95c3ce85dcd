"""Gradient transforms inside of PyTorch's optimizers, by the hooks of their steps, and groups of parameters by path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Literal

import torch

from .._core.checks import member, named, nearest
from .._core.pytrees import flatten
from ..transforms._base import GradientTransformation, check_transform

__all__ = ["Attached", "attach", "parameter_groups"]

_WHERE = member(("gradients", "updates"))


def attach(
    optimizer: torch.optim.Optimizer,
    transform: GradientTransformation,
    *,
    to: Literal["gradients", "updates"] = "gradients",
    model: torch.nn.Module | None = None,
) -> Attached:
    """Make a gradient transform a part of an optimizer's step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        All of its groups are meant; the transform's patterns say which parameters.
    transform : GradientTransformation
        Of `xpenalties.transforms`.
    to : {"gradients", "updates"}, default "gradients"
        Before the optimizer sees the gradients, or to the difference that its step has made, learning rate included:
        for `decoupled` decays and `proximal` ones. The latter keeps a copy of the parameters over each step.
    model : torch.nn.Module, optional
        Whose names of parameters are the paths. By default those that the optimizer was given
        (``SGD(model.named_parameters())``), else their group and place: ``0.3``.

    Returns
    -------
    Attached
        Its state goes with `optimizer.state_dict` and `load_state_dict`; `remove` takes it off.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or value, for parameters that the model has not, and for patterns that match none.

    Notes
    -----
    With `torch.amp.GradScaler` unscale first, ``scaler.unscale_(optimizer)``, as for any clipping.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    >>> clipping = attach(optimizer, transforms.clip_by_global_norm(1.0))
    >>> sparse = attach(optimizer, transforms.add_l1_decay(0.01, match="weight", decoupled=True), to="updates")
    >>> model(torch.ones(4, 2)).sum().backward()
    >>> optimizer.step()
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"attach: `optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__qualname__}. Pass one."
        )
    check_transform("attach", "transform", transform)
    return Attached(optimizer, transform, named("attach", _WHERE, "to", to), model)


class Attached:
    """A transform that is a part of an optimizer's step, see `attach`."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        transform: GradientTransformation,
        to: str,
        model: torch.nn.Module | None,
    ) -> None:
        self._optimizer = optimizer
        self._transform = transform
        self._model = model
        params = self._params()
        with torch.no_grad():
            self.state = transform.init(params)
        taken = optimizer.state_dict()
        self._key = next(key for key in (f"xpenalties.{i}" for i in count()) if key not in taken)
        hooks = [self._optimizer.register_state_dict_post_hook(self._saved)]
        hooks.append(self._optimizer.register_load_state_dict_pre_hook(self._loaded))
        if to == "gradients":
            hooks.append(optimizer.register_step_pre_hook(self._to_gradients))
        else:
            self._before: dict[str, torch.Tensor] = {}
            hooks.append(optimizer.register_step_pre_hook(self._copied))
            hooks.append(optimizer.register_step_post_hook(self._to_updates))
        self._hooks = hooks

    def remove(self) -> None:
        """Take it off the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _params(self) -> dict[str, torch.Tensor]:
        """The optimizer's parameters by path; it may have been given more of them."""
        names = None if self._model is None else {id(p): name for name, p in self._model.named_parameters()}
        found = {}
        for i, group in enumerate(self._optimizer.param_groups):
            for j, param in enumerate(group["params"]):
                if names is None:
                    path = group["param_names"][j] if "param_names" in group else f"{i}.{j}"
                elif id(param) in names:
                    path = names[id(param)]
                else:
                    raise ValueError(
                        f"attach: `model` must have all of the optimizer's parameters, got none for place {j} of group "
                        f"{i}. Pass the model that it was made for."
                    )
                found[path] = param
        return found

    def _to_gradients(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        params = self._params()
        gradients = {path: param.grad for path, param in params.items()}
        updates = self._updated(gradients, params)
        for path, param in params.items():
            if updates[path] is not param.grad:
                param.grad = updates[path]

    def _copied(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._before = {path: param.detach().clone() for path, param in self._params().items()}

    def _to_updates(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        params, before = self._params(), self._before
        self._before = {}
        made = {path: param.detach() - before[path] for path, param in params.items()}
        for path, update in self._updated(made, before).items():
            if update is not made[path]:
                params[path].detach().copy_(before[path] + update)

    def _updated(self, updates: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            new, self.state = self._transform.update(updates, self.state, params)
        found: dict[str, Any] = new
        return found

    def _saved(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        leaves, _ = flatten(self.state)
        state_dict[self._key] = [leaf.get_state() if isinstance(leaf, torch.Generator) else leaf for leaf in leaves]

    def _loaded(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        if self._key not in state_dict:
            return
        leaves, rebuild = flatten(self.state)
        saved = state_dict[self._key]
        if len(saved) != len(leaves):
            raise ValueError(
                f"attach: the saved state must be of the same transform, got {len(saved)} arrays in place of "
                f"{len(leaves)}. Attach what was attached when it was saved."
            )
        for leaf, kept in zip(leaves, saved, strict=True):
            if isinstance(leaf, torch.Generator):
                leaf.set_state(kept)
        new = [leaf if isinstance(leaf, torch.Generator) else kept for leaf, kept in zip(leaves, saved, strict=True)]
        self.state = rebuild(iter(new))


def parameter_groups(
    model: torch.nn.Module, options: Mapping[str, Mapping[str, Any]] | Sequence[tuple[str, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer, by patterns of their paths.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters that require gradients are in the groups.
    options : mapping or pairs of str and mapping
        Regular expressions, searched for in the names, and the options of the group. The first that matches counts;
        what no pattern matches is in a last group without options.

    Returns
    -------
    list of dict
        With names, so that `attach` knows them.

    Raises
    ------
    ValueError
        For a pattern that matches nothing that is left.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 1)
    >>> groups = parameter_groups(model, {r"bias$": {"weight_decay": 0.0}})
    >>> optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    [(1, 0.0), (1, 0.01)]
    """
    rest = {name: param for name, param in model.named_parameters() if param.requires_grad}
    names = list(rest)
    groups: list[dict[str, Any]] = []
    for pattern, given in [*(options.items() if isinstance(options, Mapping) else options)]:
        chosen = [name for name in rest if re.search(pattern, name)]
        if not chosen:
            raise ValueError(
                f"parameter_groups: each pattern must match a parameter that is left, got {pattern!r}."
                + nearest(pattern, names)
            )
        groups.append({"params": [(name, rest.pop(name)) for name in chosen], **given})
    return [*groups, {"params": list(rest.items())}] if rest else groups
