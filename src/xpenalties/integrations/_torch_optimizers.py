"""Run gradient transforms inside PyTorch's optimizers, by hooks of the step, and group parameters by path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Literal

import torch

from .._core.checks import check_argument, one_of
from .._core.pytrees import flatten
from .._core.suggestions import did_you_mean
from ..transforms._base import GradientTransformation, check_transform
from ..trees._selection import check_pattern

__all__ = ["Attached", "attach", "parameter_groups"]

_TO = one_of(("gradients", "updates"))


def attach(
    optimizer: torch.optim.Optimizer,
    transform: GradientTransformation,
    *,
    to: Literal["gradients", "updates"] = "gradients",
    model: torch.nn.Module | None = None,
) -> Attached:
    """Apply a gradient transform in each step of an optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The transform applies to all of its groups. Patterns in the transform select parameters.
    transform : GradientTransformation
        One of `xpenalties.transforms`.
    to : {"gradients", "updates"}, default "gradients"
        "gradients" transforms the gradients before the optimizer sees them. "updates" transforms the step's change of
        the parameters, learning rate included. Use it for `decoupled` decays and for `proximal`. It copies the
        parameters before each step.
    model : torch.nn.Module, optional
        Its parameter names are the paths. By default, the paths are the names that the optimizer was made with
        (``SGD(model.named_parameters())``), or else group and position, such as ``0.3``.

    Returns
    -------
    Attached
        Its state is saved and loaded with the optimizer's. Call `remove` to detach it.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, the model lacks a parameter, or a pattern matches nothing.

    Notes
    -----
    With `torch.amp.GradScaler`, unscale first, as for any clipping: ``scaler.unscale_(optimizer)``.

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
    return Attached(optimizer, transform, check_argument("attach", _TO, "to", to), model)


class Attached:
    """A gradient transform in an optimizer's step, see `attach`."""

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
        keys = optimizer.state_dict()
        self._key = next(key for key in (f"xpenalties.{i}" for i in count()) if key not in keys)
        hooks = [self._optimizer.register_state_dict_post_hook(self._save)]
        hooks.append(self._optimizer.register_load_state_dict_pre_hook(self._load))
        if to == "gradients":
            hooks.append(optimizer.register_step_pre_hook(self._transform_gradients))
        else:
            self._before: dict[str, torch.Tensor] = {}  # copies of the parameters
            hooks.append(optimizer.register_step_pre_hook(self._copy_params))
            hooks.append(optimizer.register_step_post_hook(self._transform_updates))
        self._hooks = hooks

    def remove(self) -> None:
        """Detach it from the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _params(self) -> dict[str, torch.Tensor]:
        """Return the optimizer's parameters by path, including groups that were added later."""
        names = None if self._model is None else {id(p): name for name, p in self._model.named_parameters()}
        params = {}
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
                params[path] = param
        return params

    def _transform_gradients(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        params = self._params()
        gradients = {path: param.grad for path, param in params.items()}
        updates = self._transformed(gradients, params)
        for path, param in params.items():
            if updates[path] is not param.grad:
                param.grad = updates[path]

    def _copy_params(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._before = {path: param.detach().clone() for path, param in self._params().items()}

    def _transform_updates(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        params, before = self._params(), self._before
        self._before = {}
        updates = {path: param.detach() - before[path] for path, param in params.items()}
        for path, update in self._transformed(updates, before).items():
            if update is not updates[path]:
                params[path].detach().copy_(before[path] + update)

    def _transformed(self, updates: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            transformed, self.state = self._transform.update(updates, self.state, params)
        result: dict[str, Any] = transformed
        return result

    def _save(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        leaves, _ = flatten(self.state)
        state_dict[self._key] = [leaf.get_state() if isinstance(leaf, torch.Generator) else leaf for leaf in leaves]

    def _load(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        if self._key not in state_dict:
            return
        leaves, rebuild = flatten(self.state)
        saved = state_dict[self._key]
        if len(saved) != len(leaves):
            raise ValueError(
                f"attach: the saved state must be of the same transform, got {len(saved)} arrays instead of "
                f"{len(leaves)}. Attach the transform that was saved."
            )
        loaded = []
        for leaf, value in zip(leaves, saved, strict=True):
            if isinstance(leaf, torch.Generator):
                leaf.set_state(value)
            loaded.append(leaf if isinstance(leaf, torch.Generator) else value)
        self.state = rebuild(iter(loaded))


def parameter_groups(
    model: torch.nn.Module, options: Mapping[str, Mapping[str, Any]] | Sequence[tuple[str, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Group a model's parameters for an optimizer, by patterns of their paths.

    Parameters
    ----------
    model : torch.nn.Module
        The groups hold its parameters that require gradients.
    options : mapping or pairs of str and mapping
        Regular expressions, searched for in the names, and the options of each group. A parameter goes into the group
        of the first pattern that matches. The last group has no options. It holds the parameters that match no pattern.

    Returns
    -------
    list of dict
        The groups. They include the names, so that `attach` can use them as paths.

    Raises
    ------
    ValueError
        If a pattern matches no parameter, or only parameters of earlier groups.

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
    for pattern, group_options in [*(options.items() if isinstance(options, Mapping) else options)]:
        check_pattern("parameter_groups", "each pattern", pattern)
        matching = [name for name in rest if re.search(pattern, name)]
        if not matching:
            raise ValueError(
                f"parameter_groups: each pattern must match a parameter that is left, got {pattern!r}."
                + did_you_mean(pattern, names)
            )
        groups.append({"params": [(name, rest.pop(name)) for name in matching], **group_options})
    return [*groups, {"params": list(rest.items())}] if rest else groups
