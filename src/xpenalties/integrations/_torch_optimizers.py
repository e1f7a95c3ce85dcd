"""Run gradient transforms inside PyTorch's optimizers, and group parameters by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from .._core.checks import check_argument, one_of
from .._core.shown import shown
from .._core.suggestions import did_you_mean
from ..transforms._base import GradientTransformation, accepts_keyword, check_transform
from ..trees._patterns import Pattern, as_patterns
from ._torch_attached import Attached

__all__ = ["attach", "parameter_groups"]

_TO = one_of(("gradients", "updates"))


def attach(
    optimizer: torch.optim.Optimizer,
    transform: GradientTransformation,
    *,
    to: Literal["gradients", "updates"] = "gradients",
    scale_by_learning_rate: bool = False,
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
    scale_by_learning_rate : bool, default False
        If True, multiply the weight of a `decoupled` decay, and the scale of `proximal`, by the current learning rate
        of each parameter's group. Then ``add_l2_decay(w, decoupled=True)`` is ``AdamW(weight_decay=w)``.
    model : torch.nn.Module, optional
        Its parameter names are the paths. By default, the paths are the names that the optimizer was made with
        (``SGD(model.named_parameters())``), or else group and position, such as ``0.3``.

    Returns
    -------
    Attached
        Its state is saved and loaded with the optimizer's, so attach before you load. Call `remove` to detach it.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, the model lacks a parameter, or a pattern matches nothing. Also if
        `to` does not fit the transform: `decoupled` decays and `proximal` need "updates", other decays "gradients".

    Notes
    -----
    Only parameters that have a gradient change, as in the optimizer itself. If a group has ``maximize=True``, decays
    still shrink its parameters.

    If an optimizer calls a closure, gradients are transformed after each call. All calls of a step start from the same
    state, so schedules count steps. The loss that the line search of LBFGS compares does not include what a decay adds
    to the gradients, so put such penalties into the loss.

    With `torch.amp.GradScaler`, transforms see unscaled gradients, and a step that it skips changes nothing. This holds
    for fused optimizers too, but their step then waits for the device.

    A copied optimizer has no hooks, so copy or pickle both in one call: ``copy.deepcopy((optimizer, attached))``.

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
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise TypeError(
            f"attach: `optimizer` must take hooks, got {type(optimizer).__qualname__}, a wrapper that does not. Pass "
            "the optimizer inside it: for one of accelerate, `optimizer.optimizer`."
        )
    check_transform("attach", "transform", transform)
    to = check_argument("attach", _TO, "to", to)
    if not isinstance(scale_by_learning_rate, bool):
        raise TypeError(
            f"attach: `scale_by_learning_rate` must be True or False, got {shown(scale_by_learning_rate)}. Pass a bool."
        )
    if scale_by_learning_rate:
        _check_learning_rate(optimizer, transform, to)
    _check_place(transform, to)
    return Attached(optimizer, transform, to, model, scale_by_learning_rate=scale_by_learning_rate)


def _check_place(transform: GradientTransformation, to: str) -> None:
    """Check that `to` fits the transform. Otherwise, a decay would make parameters grow."""
    places = sorted(getattr(transform.update, "applies_to", ()))
    if all(place == to for place in places):
        return
    if len(places) > 1:
        remedy = "Attach the parts of the chain one by one."
    elif to == "updates":
        remedy = "Pass decoupled=True to the decay."
    else:
        remedy = "Pass to='updates'."
    raise ValueError(
        f"attach: `to` must be {' and '.join(map(repr, places))} for this transform, got {shown(to)}. {remedy}"
    )


def _check_learning_rate(optimizer: torch.optim.Optimizer, transform: GradientTransformation, to: str) -> None:
    """Check that a transform can be scaled by the learning rate."""
    if to != "updates":
        raise ValueError(
            f"attach: `scale_by_learning_rate` must come with to='updates', got to={to!r}. The optimizer itself "
            "multiplies gradients by the learning rate."
        )
    if not accepts_keyword(transform.update)("learning_rate"):
        raise ValueError(
            "attach: `transform` must be a decoupled decay, `proximal` with a scale, or a chain with one of them, got "
            "one that takes no learning rate. Pass decoupled=True to the decay."
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise ValueError(
            f"attach: the groups of `optimizer` must have an 'lr', got {type(optimizer).__qualname__} without. Set "
            "scale_by_learning_rate=False."
        )


def parameter_groups(
    model: torch.nn.Module,
    options: Mapping[str | Pattern, Mapping[str, Any]] | Sequence[tuple[str | Pattern, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Group a model's parameters for an optimizer, by patterns.

    Parameters
    ----------
    model : torch.nn.Module
        The groups hold its parameters that require gradients.
    options : mapping or pairs of str or `trees.Pattern` and mapping
        Patterns, and the options of each group. A str is a regular expression, searched for in the names. A Pattern may
        also require a number of axes or a shape. A parameter goes into the group of the first pattern that matches. The
        last group has no options, and holds the parameters that match no pattern.

    Returns
    -------
    list of dict
        The groups. They include the names, so that `attach` can use them as paths.

    Raises
    ------
    TypeError, ValueError
        If a pattern has a wrong type or value. Also if a pattern that is not optional matches no parameter, or only
        parameters of earlier groups.

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
    for key, group_options in [*(options.items() if isinstance(options, Mapping) else options)]:
        (pattern,) = as_patterns("parameter_groups", "options", [key])
        matching = [name for name, param in rest.items() if pattern.matches(name, param)]
        if not (matching or pattern.optional):
            raise ValueError(
                f"parameter_groups: each pattern must match a parameter that is left, got {shown(pattern.simplest())}."
                + did_you_mean(pattern.path or "", names)
            )
        if matching:
            groups.append({"params": [(name, rest.pop(name)) for name in matching], **group_options})
    return [*groups, {"params": list(rest.items())}] if rest else groups
