"""Check what `wrap_loss` and `train_step` are called with, so that no mistake waits for the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from inspect import signature
from typing import Any, Never

from .._core.shown import listed, shorten, shown
from .._core.suggestions import nearest
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss

__all__ = ["check_call", "check_options", "check_step", "check_wrapping", "refuse_options"]

#: The options of a call, besides `step` and `inputs`.
_OPTIONS = tuple(p.name for p in signature(RegularizedLoss.compute).parameters.values() if p.kind is p.KEYWORD_ONLY)


def _kind(value: Any) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else type(value).__qualname__


def _has(value: Any, *methods: str) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)


# wrap_loss


def check_wrapping(loss_fn: Any, activities: Any, names: Any) -> tuple[str, ...]:
    """Check the arguments of `wrap_loss`, except the pipeline. Return the names as a tuple."""
    _check_loss_fn(loss_fn)
    if not isinstance(activities, Mapping):
        raise TypeError(
            f"wrap_loss: `activities` must be a mapping of names, got {_kind(activities)}. Pass what `capture` returns."
        )
    return _checked_names(names)


def _check_loss_fn(loss_fn: Any) -> None:
    if isinstance(loss_fn, (Pipeline, RegularizedLoss)):
        raise TypeError(
            f"wrap_loss: `loss_fn` must be a loss without penalties, got {_kind(loss_fn)}. "
            "Call wrap_loss(loss_fn, pipe)."
        )
    if not callable(loss_fn) or isinstance(loss_fn, type):
        remedy = f"Pass {loss_fn.__name__}()" if isinstance(loss_fn, type) else "Pass a function"
        raise TypeError(f"wrap_loss: `loss_fn` must be callable, got {_kind(loss_fn)}. {remedy}.")


def _checked_names(names: Any) -> tuple[str, ...]:
    """Return the names of the loss's arguments as a tuple."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(
            f"wrap_loss: `names` must be a tuple of strings, got {shown(names)}. Pass one name for each argument of "
            "the loss."
        )
    names = tuple(names)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"wrap_loss: `names` must be different strings, got {shown(names)}. Rename one.")
    return names


# calls of a loss


def check_call(names: tuple[str, ...], args: tuple[Any, ...], inputs: Any) -> None:
    """Check that a loss is called with as many arguments as it has names, and with other inputs by name."""
    if not (inputs is None or isinstance(inputs, Mapping)):
        raise TypeError(f"wrap_loss: `inputs` must be a mapping of names, got {_kind(inputs)}. Pass a dict.")
    if len(args) == len(names):
        return
    if len(args) > len(names):
        remedy = "Pass other inputs by name, as inputs={name: value}"
    else:
        remedy = "Pass all of them, or say with wrap_loss(..., names=...) what the loss takes"
    raise TypeError(
        f"wrap_loss: the loss takes {', '.join(names) or 'nothing'}, got {len(args)} argument{'s' * (len(args) != 1)}. "
        f"{remedy}."
    )


def check_options(caller: str, options: Iterable[str]) -> None:
    """Check the keywords of a call. Inputs are no keywords, they are in `inputs`."""
    for option in options:
        if option not in _OPTIONS:
            near = nearest(option, (*_OPTIONS, "inputs"))
            remedy = f"Did you mean {near!r}?" if near else f"If it is an input, pass inputs={{{shown(option)}: ...}}."
            raise TypeError(f"{caller}: `{shorten(option)}` is not an option of a call. {remedy}")


def refuse_options(caller: str, options: Iterable[str]) -> Never:
    """Refuse the keywords of a call that returns no report. Options are for `compute`."""
    check_options(caller, options)
    raise TypeError(
        f"{caller}: a call must have no options, got {listed(options)}. Call the loss's compute(), which takes them."
    )


# train_step


def check_step(model: Any, optimizer: Any, autocast: Any, scaler: Any) -> None:
    """Check the arguments of `train_step`, except the loss."""
    _check_model(model)
    _check_optimizer(optimizer)
    _check_autocast(autocast)
    _check_scaler(scaler)


def _check_model(model: Any) -> None:
    if not callable(model) or isinstance(model, type):
        raise TypeError(
            f"train_step: `model` must be a module or a function, got {_kind(model)}. "
            "Call train_step(model, optimizer, loss)."
        )


def _check_optimizer(optimizer: Any) -> None:
    """Check for the methods of an optimizer. A wrapper of one need not be a subclass."""
    if not _has(optimizer, "zero_grad", "step"):
        raise TypeError(
            f"train_step: `optimizer` must be a torch.optim.Optimizer, got {_kind(optimizer)}. "
            "Call train_step(model, optimizer, loss)."
        )
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise TypeError(
            f"train_step: `optimizer` must step without a closure, got {type(optimizer).__qualname__} that needs one. "
            "Call the loss of `wrap_loss` inside a closure."
        )


def _check_autocast(autocast: Any) -> None:
    if not callable(autocast) or isinstance(autocast, AbstractContextManager):
        raise TypeError(
            f"train_step: `autocast` must be a function that returns a context manager, got {_kind(autocast)}. "
            "Pass partial(torch.autocast, device, dtype)."
        )


def _check_scaler(scaler: Any) -> None:
    if scaler is not None and not _has(scaler, "scale", "step", "update"):
        raise TypeError(
            f"train_step: `scaler` must be a torch.amp.GradScaler or None, got {_kind(scaler)}. "
            "Pass torch.amp.GradScaler(device)."
        )
