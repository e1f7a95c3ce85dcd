"""Check a reference model and how it is called, under Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from inspect import signature
from types import FunctionType, MethodType
from typing import Any

import torch

__all__ = ["check_reference", "without_cache"]


def check_reference(reference: Callable[..., Any] | None, model: torch.nn.Module) -> None:
    """Check that the reference is not the trained model, and that its `forward` does not call the trained model's.

    Some trainers replace the `forward` of their model by a function that calls the original one. A deep copy has that
    function too, and it still calls the original model.
    """
    if not isinstance(reference, torch.nn.Module):
        return
    if reference is model:
        raise ValueError(
            "PipelineLoss: `reference` must not be the trained model, got the Trainer's model. Pass a copy of it."
        )
    trained = set(model.modules()).difference(reference.modules())
    for name, module in reference.named_modules():
        if "forward" in vars(module) and not trained.isdisjoint(_modules_called_by(module.forward)):
            raise ValueError(
                "PipelineLoss: `reference` must not call the trained model, got a copy whose `forward` is that of the "
                f"Trainer's model{name and f', at {name!r}'}. Copy the model before a Trainer changes it, or load it "
                "again."
            )


def without_cache(reference: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a call of the reference. They turn off its cache, if it has one.

    The Trainer turns off the cache of its model. With a cache, models do not keep apart the sequences that are packed
    into one row.
    """
    if isinstance(reference, torch.nn.Module) and "use_cache" in signature(reference.forward).parameters:
        return {"use_cache": False, **arguments}
    return dict(arguments)


def _modules_called_by(forward: Any) -> Iterator[torch.nn.Module]:
    """Yield the modules whose methods a replaced `forward` calls: those of its closures and wrappers."""
    pending, seen = [forward], set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.nn.Module):
            yield each
        elif isinstance(each, MethodType):
            pending += [each.__self__, each.__func__]
        elif isinstance(each, partial):
            pending += [each.func, *each.args]
        elif isinstance(each, FunctionType):
            pending += vars(each).values()  # functools.wraps keeps the original here
            for cell in each.__closure__ or ():
                with suppress(ValueError):  # it is empty
                    pending.append(cell.cell_contents)
        elif callable(each) and not isinstance(each, type):
            pending += getattr(each, "__dict__", {}).values()  # an object that wraps a function
