"""Run a gradient transform in the step of a PyTorch optimizer, with hooks for the step and the state dict."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import torch

from .._core.pytrees import flatten
from ..transforms._base import GradientTransformation
from ._torch_steps import closure_of, creates_state, is_skipped, refuse_scaler, unscale, with_closure

__all__ = ["Attached", "attached_to"]


class Attached:
    """A gradient transform in an optimizer's step. See `attach`."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        transform: GradientTransformation,
        to: str,
        model: torch.nn.Module | None,
        *,
        scale_by_learning_rate: bool,
    ) -> None:
        self._optimizer = optimizer
        self._transform = transform
        self._to = to
        self._model = model
        self._names: list[list[str]] = []  # of each group; the optimizer's names change if a checkpoint is loaded
        self._scale_by_learning_rate = scale_by_learning_rate
        self._before: dict[str, torch.Tensor] | None = None  # copies of the parameters, during a step
        self._scale: torch.Tensor | None = None  # of a GradScaler, during a step
        params = {path: place.param for path, place in self._places().items()}
        with torch.no_grad():
            self.state = self._init(params)
        taken = {attached._key for attached in attached_to(optimizer)}
        self._key: str = next(key for key in (f"xpenalties.{i}" for i in count()) if key not in taken)
        self._write_state(optimizer)
        self._hooks = self._registered()

    def remove(self) -> None:
        """Detach it from the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._forget_saved(self._optimizer.param_groups[0])

    def _registered(self) -> list[Any]:
        optimizer = self._optimizer
        hooks = [
            optimizer.register_state_dict_pre_hook(self._write_state),
            optimizer.register_load_state_dict_pre_hook(self._check_saved),
            optimizer.register_load_state_dict_post_hook(self._read_state),
        ]
        before, after = self._before_gradients, self._after_gradients
        if self._to == "updates":
            before, after = self._before_updates, self._after_updates
        return [*hooks, optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_hooks": bool(self._hooks)}

    def __copy__(self) -> Attached:
        raise TypeError(
            "attach: an Attached must be copied with its optimizer, got a shallow copy, which the optimizer would run "
            "twice. Call copy.deepcopy((optimizer, attached))."
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hooks = self._registered() if state["_hooks"] else []  # a copied optimizer has no hooks

    # parameters

    def _init(self, params: dict[str, torch.Tensor]) -> Any:
        try:
            return self._transform.init(params)
        except ValueError as error:
            if self._model is not None or "param_names" in self._optimizer.param_groups[0]:
                raise
            raise ValueError(
                f"{error} The paths are group and position, because the optimizer's parameters have no names. Pass "
                "attach(model=), or make the optimizer with model.named_parameters()."
            ) from error

    def _places(self) -> dict[str, _Place]:
        """Return the optimizer's parameters by path, including groups that were added later."""
        by_model = None if self._model is None else {id(p): name for name, p in self._model.named_parameters()}
        places: dict[str, _Place] = {}
        for i, group in enumerate(self._optimizer.param_groups):
            if i == len(self._names):
                self._names.append(group.get("param_names") or [f"{i}.{j}" for j in range(len(group["params"]))])
            for j, param in enumerate(group["params"]):
                if by_model is None:
                    path = self._names[i][j]
                elif id(param) in by_model:
                    path = by_model[id(param)]
                else:
                    raise ValueError(
                        f"attach: `model` must have all of the optimizer's parameters, got none for place {j} of group "
                        f"{i}. Pass the model that it was made for."
                    )
                if places.setdefault(path, _Place(param, group)).param is not param:
                    raise ValueError(
                        f"attach: the optimizer's parameters must have different names, got {path!r} twice. Give those "
                        'of each model a prefix: named_parameters("generator").'
                    )
        return places

    # the step

    def _before_gradients(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        self._scale = None
        refuse_scaler(kwargs)
        if creates_state(optimizer, kwargs):
            return None
        closure = closure_of(args, kwargs)
        if closure is None:
            self._transform_gradients(optimizer, self.state)
            return None
        return with_closure(args, kwargs, self._transforming(optimizer, closure))

    def _transforming(self, optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a closure that transforms the gradients that `closure` computes.

        An optimizer may call it several times in a step. All calls start from the same state. So schedules count steps,
        and a line search always evaluates the same function.
        """
        state = self.state

        def transforming() -> Any:
            loss = closure()
            self._transform_gradients(optimizer, state)
            return loss

        return transforming

    def _transform_gradients(self, optimizer: Any, state: Any) -> None:
        if is_skipped(optimizer):
            return
        scale = unscale(optimizer)
        self._scale = scale if self._scale is None else self._scale
        places = self._places()
        gradients = {path: place.descent_direction() for path, place in places.items()}
        params = {path: place.param for path, place in places.items()}
        updates = self._transformed(gradients, state, params)
        for path, place in places.items():
            if updates[path] is not gradients[path]:
                place.param.grad = -updates[path] if place.maximizes else updates[path]

    def _after_gradients(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._scale is not None:
            optimizer.grad_scale, self._scale = self._scale, None

    def _before_updates(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._before = None
        refuse_scaler(kwargs)
        if creates_state(optimizer, kwargs) or is_skipped(optimizer):
            return
        everything = closure_of(args, kwargs) is not None  # the closure may compute any of the gradients
        self._before = {
            path: place.param.detach().clone()
            for path, place in self._places().items()
            if everything or place.param.grad is not None
        }

    def _after_updates(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._before is None:
            return
        before, self._before = self._before, None
        places = self._places()
        updates: dict[str, Any] = dict.fromkeys(places)
        params = {}
        for path, place in places.items():
            param = place.param.detach()
            params[path] = before.get(path, param)
            if place.param.grad is not None:  # else the optimizer leaves the parameter as it is
                updates[path] = param - params[path]
        extra = {}
        if self._scale_by_learning_rate:
            extra["learning_rate"] = {path: place.group["lr"] for path, place in places.items()}
        for path, update in self._transformed(updates, self.state, params, **extra).items():
            if update is not updates[path]:
                places[path].param.detach().copy_(params[path] + update)

    def _transformed(self, updates: dict[str, Any], state: Any, params: dict[str, Any], **extra: Any) -> dict[str, Any]:
        with torch.no_grad():
            transformed, self.state = self._transform.update(updates, state, params, **extra)
        result: dict[str, Any] = transformed
        return result

    # the state dict

    def _write_state(self, optimizer: Any) -> None:
        """Put the state into the first group. torch.distributed.checkpoint saves groups, but no other keys."""
        group = optimizer.param_groups[0]
        for i, leaf in enumerate(flatten(self.state)[0]):
            is_generator = isinstance(leaf, torch.Generator)
            # on the parameters' device, as torch.distributed.checkpoint requires
            saved = leaf.get_state().to(_devices(optimizer)[0]) if is_generator else leaf
            group[f"{self._key}.{i}"] = saved

    def _saved(self, group: dict[str, Any]) -> list[str]:
        return [key for key in group if key.startswith(f"{self._key}.")]

    def _forget_saved(self, group: dict[str, Any]) -> None:
        for key in self._saved(group):
            del group[key]

    def _check_saved(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        """Check the loaded state before anything changes."""
        saved = [key for group in state_dict["param_groups"][:1] for key in self._saved(group)]
        expected = len(flatten(self.state)[0])
        if saved and len(saved) != expected:
            raise ValueError(
                f"attach: the saved state must be of the same transform, got {len(saved)} arrays instead of "
                f"{expected}. Attach the transform that was saved."
            )

    def _read_state(self, optimizer: Any) -> None:
        """Take the state from the groups that were loaded, if they have it."""
        group = optimizer.param_groups[0]
        if self._saved(group):
            leaves, rebuild = flatten(self.state)
            loaded = [_loaded(leaf, group[f"{self._key}.{i}"], _devices(optimizer)) for i, leaf in enumerate(leaves)]
            self.state = rebuild(iter(loaded))
        self._write_state(optimizer)


class _Place(NamedTuple):
    """A parameter and its group."""

    param: torch.Tensor
    group: dict[str, Any]

    @property
    def maximizes(self) -> bool:
        return bool(self.group.get("maximize", False))

    def descent_direction(self) -> Any:
        """Return the gradient, or its negative if the optimizer maximizes. Then decays always shrink parameters."""
        gradient = self.param.grad
        return -gradient if gradient is not None and self.maximizes else gradient


def _devices(optimizer: torch.optim.Optimizer) -> list[torch.device]:
    return [param.device for group in optimizer.param_groups for param in group["params"]]


def attached_to(optimizer: torch.optim.Optimizer) -> list[Attached]:
    """Return the transforms in an optimizer's step, in the order in which they run."""
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", {}).values()
    owners = [getattr(hook, "__self__", None) for hook in hooks]
    return [owner for owner in owners if isinstance(owner, Attached)]


def _loaded(leaf: Any, value: Any, devices: list[torch.device]) -> Any:
    """Return a loaded leaf of the state, on the device of the current leaf if a parameter is there, too."""
    if isinstance(leaf, torch.Generator):
        leaf.set_state(value.cpu())
        return leaf
    if isinstance(leaf, torch.Tensor) and isinstance(value, torch.Tensor):
        return value.to(leaf.device if leaf.device in devices else devices[0])
    return value
