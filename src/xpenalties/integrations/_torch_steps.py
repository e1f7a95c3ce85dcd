"""Inspect a step of a PyTorch optimizer: its closure, the scale of its gradients, and whether it is skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["closure_of", "creates_state", "is_skipped", "refuse_scaler", "unscale", "with_closure"]


def closure_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any] | None:
    """Return the closure among the arguments of a step, which begin with the optimizer."""
    closure = kwargs["closure"] if "closure" in kwargs else args[1] if len(args) > 1 else None
    return closure if callable(closure) else None


def with_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], closure: Callable[[], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a step with another closure."""
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def creates_state(optimizer: torch.optim.Optimizer, kwargs: dict[str, Any]) -> bool:
    """Return whether a step only creates the optimizer's state.

    Before it loads a state, torch.distributed.checkpoint calls ``step(closure=None)`` with learning rates and gradients
    of 0, so that the optimizer creates its state.
    """
    if "closure" not in kwargs or kwargs["closure"] is not None:
        return False
    rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
    if not rates or any(rate is None or float(rate) != 0 for rate in rates):
        return False
    gradients = [param.grad for group in optimizer.param_groups for param in group["params"]]
    return not any(bool(gradient.any()) for gradient in gradients if gradient is not None)


def _handles_scale(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer itself divides gradients by the scale of a GradScaler, as fused ones do."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def refuse_scaler(kwargs: dict[str, Any]) -> None:
    """Raise an error if the step gets a GradScaler: it would unscale the gradients only after the transform."""
    if "grad_scaler" in kwargs:
        raise ValueError(
            "attach: the optimizer's `step` must not take a `grad_scaler`, because the transform would get scaled "
            "gradients, got one that does. Let it read `grad_scale` and `found_inf`, as PyTorch's fused optimizers do."
        )


def is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a fused optimizer will skip the step, because a GradScaler has found infinite gradients."""
    found_inf = getattr(optimizer, "found_inf", None) if _handles_scale(optimizer) else None
    return found_inf is not None and bool(found_inf != 0)


def unscale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Divide the gradients by the scale, as a fused optimizer would do. Return the scale.

    The optimizer then has no scale, so it does not divide again. Put the scale back after the step.
    """
    scale = getattr(optimizer, "grad_scale", None) if _handles_scale(optimizer) else None
    if scale is None:
        return None
    params = [param for group in optimizer.param_groups for param in group["params"] if param.grad is not None]
    if any(param.grad.dtype == torch.float16 for param in params):
        raise ValueError(
            "attach: gradients must not be float16 in a fused optimizer with a GradScaler, got float16, where "
            "unscaled gradients may be 0. Keep the parameters in float32, and use autocast."
        )
    for param in params:
        param.grad.div_(scale.to(param.grad.device))
    optimizer.grad_scale = None
    return scale
