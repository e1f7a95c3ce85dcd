"""Penalties in PyTorch's training loops: activities by name, losses, steps, and transforms inside of an optimizer.

As in::

    with capture(model, {"hidden": "encoder.0"}) as activities:
        loss = wrap_loss(torch.nn.functional.cross_entropy, pipeline, activities)
        step = train_step(model, optimizer, loss)
        for i, (x, y) in enumerate(batches):
            total, report = step(x, y, step=i)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._core.optional import require

with require("PyTorch", needed_by=__name__, install="xpenalties[torch]"):
    import torch

from .._core.checks import nearest
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report
from ._named_inputs import asked_for
from ._torch_optimizers import Attached, attach, parameter_groups

__all__ = ["Attached", "Capture", "WrappedLoss", "attach", "capture", "parameter_groups", "train_step", "wrap_loss"]


def capture(model: torch.nn.Module, names: Mapping[str, str] | str | Iterable[str]) -> Capture:
    """The outputs of some of a model's modules, by name, for a pipeline's inputs.

    Parameters
    ----------
    model : torch.nn.Module
        The outermost module that is called: what there is to see is of its latest call.
    names : mapping of str to str, or one or more str
        Names, and the paths of modules as `model.named_modules` has them; or regular expressions of paths, which are
        the names then.

    Returns
    -------
    Capture
        A mapping, and a context manager: hooks are on the modules until it is left.

    Raises
    ------
    TypeError, ValueError
        For a model or names of a wrong kind, for a path that there is not, and for a pattern that matches nothing.

    Notes
    -----
    For a compiled model keep one capture open over the whole run: hooks that come and go compile it again. What
    `torch.utils.checkpoint` computes again on the way back is not seen twice; use ``use_reentrant=False``, for the
    other kind has no gradients inside. Outputs under autocast have its dtype.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> pipe = Pipeline([Penalty("l1", inputs="hidden", weight=0.1)])
    >>> with capture(model, {"hidden": "1"}) as activities:
    ...     output = model(torch.ones(4, 2))
    ...     total = pipe(activities)
    >>> activities["hidden"].shape
    torch.Size([4, 3])
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"capture: `model` must be a torch.nn.Module, got {type(model).__qualname__}. Pass one.")
    return Capture(model, paths_of(model, names))


def paths_of(model: torch.nn.Module, names: Mapping[str, str] | str | Iterable[str]) -> dict[str, str]:
    """The paths of modules by name, of what `capture` takes."""
    paths = dict(model.named_modules())
    if isinstance(names, Mapping):
        found = {name: _known(path, paths) for name, path in names.items()}
    else:
        found = _matched([names] if isinstance(names, str) else list(names), paths)
    if not found:
        raise ValueError("capture: `names` must name a module, got none. Pass names and paths.")
    return found


def _known(path: str, paths: Mapping[str, Any]) -> str:
    if path not in paths:
        raise ValueError(f"capture: `names` must have paths of modules, got {path!r}.{nearest(path, paths)}")
    return path


def _matched(patterns: list[str], paths: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pattern in patterns:
        matching = [path for path in paths if path and re.search(pattern, path)]
        if not matching:
            raise ValueError(
                f"capture: each of `names` must match a path of a module, got {pattern!r}.{nearest(pattern, paths)}"
            )
        found.update(zip(matching, matching, strict=True))
    return found


class Capture(Mapping[str, Any]):
    """What `capture` returns: the outputs of modules in the latest call of a model, by name."""

    def __init__(self, model: torch.nn.Module, paths: Mapping[str, str], *, own: bool = True) -> None:
        self._model = model
        self._own = own  # a call begins and ends with the model's; else with `begin` and `end`
        self._paths = dict(paths)
        self._modules: dict[str, Any] = {}
        self._outputs: dict[str, list[Any]] = {name: [] for name in paths}
        self._running = False
        self._handles: list[Any] = []

    def __enter__(self) -> Capture:
        if self._handles:
            raise RuntimeError("capture: must not be entered twice. Make another one.")
        modules = dict(self._model.named_modules())
        self._modules = {name: modules[path] for name, path in self._paths.items()}
        if self._own:
            self._handles.append(self._model.register_forward_pre_hook(self._model_called))
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(partial(self._called, name)))
        if self._own:
            self._handles.append(self._model.register_forward_hook(self._model_done))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __deepcopy__(self, memo: Any) -> Capture:
        return self  # a copy of the model has its hooks, which see that it is another one

    def begin(self) -> None:
        """Forget the latest call, and see what is called from here on."""
        for name in self._paths:
            self._outputs[name] = []
        self._running = True

    def end(self) -> None:
        """See nothing more: what is computed again for a gradient is no other call."""
        self._running = False

    def _model_called(self, module: Any, args: Any) -> None:
        if module is self._model:
            self.begin()

    def _model_done(self, module: Any, args: Any, output: Any) -> None:
        if module is self._model:
            self.end()

    def _called(self, name: str, module: Any, args: Any, output: Any) -> None:
        if self._running and module is self._modules[name]:
            self._outputs[name].append(output)

    def seen(self) -> dict[str, Any]:
        """What there is: an output, or a tuple of those of several calls; nothing of modules that were not called."""
        found = {name: tuple(outputs) for name, outputs in self._outputs.items() if outputs}
        return {name: outputs[0] if len(outputs) == 1 else outputs for name, outputs in found.items()}

    def calls(self, name: str) -> list[Any]:
        """The outputs of a module that is called several times, in order."""
        if name not in self._outputs:
            raise KeyError(name)
        return list(self._outputs[name])

    def __getitem__(self, name: str) -> Any:
        outputs = self.calls(name)
        if len(outputs) != 1:
            remedy = "Take all of them by `calls`." if outputs else "Call the model that is captured first."
            raise ValueError(
                f"capture: {name!r} must have been called once in the latest call of the model, got {len(outputs)} "
                f"calls. {remedy}"
            )
        return outputs[0]

    def __contains__(self, name: object) -> bool:
        return name in self._paths  # whether it has been called or not

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def wrap_loss(
    loss_fn: Callable[..., Any],
    pipe: Pipeline,
    activities: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, ...] = ("outputs", "targets"),
) -> WrappedLoss:
    """A loss that takes what another takes, with a pipeline's penalties added.

    Parameters
    ----------
    loss_fn : callable
        As those of `torch.nn` and `torch.nn.functional`: takes `names` by position, and returns a scalar.
    pipe : Pipeline
        Its penalties' `inputs` are names.
    activities : mapping, optional
        More inputs, looked up at each call: a `Capture`, or any other mapping.
    names : tuple of str
        Of what the loss takes, as inputs of the pipeline.

    Returns
    -------
    WrappedLoss

    Raises
    ------
    TypeError
        For what is not callable, or no pipeline.

    Examples
    --------
    >>> pipe = Pipeline([Penalty("l2", inputs="outputs", weight=0.1)])
    >>> loss = wrap_loss(torch.nn.functional.mse_loss, pipe)
    >>> float(loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])))
    1.0
    """

    def base_loss(inputs: Mapping[str, Any]) -> Any:
        return loss_fn(*(inputs[name] for name in names))

    if not callable(loss_fn):
        raise TypeError(f"wrap_loss: `loss_fn` must be callable, got {type(loss_fn).__qualname__}. Pass a function.")
    return WrappedLoss(RegularizedLoss(base_loss, pipe), names, {} if activities is None else activities)


@dataclass(frozen=True, eq=False)
class WrappedLoss:
    """What `wrap_loss` returns."""

    loss: RegularizedLoss
    names: tuple[str, ...]
    activities: Mapping[str, Any]

    def __call__(self, *args: Any, step: Any = None, inputs: Mapping[str, Any] | None = None) -> Any:
        """The total, a 0-d tensor, of what the loss takes; `inputs` are more of the pipeline's, by name."""
        return self.loss(self._inputs(args, inputs), step=step)

    def compute(self, *args: Any, step: Any = None, inputs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Total and report of the same, with the options of `RegularizedLoss.compute`."""
        return self.loss.compute(self._inputs(args, inputs), step=step, **options)

    def _inputs(self, args: tuple[Any, ...], more: Mapping[str, Any] | None) -> dict[str, Any]:
        if len(args) != len(self.names):
            raise TypeError(f"wrap_loss: the loss takes {', '.join(self.names)}, got {len(args)} arguments. Pass them.")
        given = {**(more or {}), **dict(zip(self.names, args, strict=True))}
        return {**asked_for(self.loss.pipeline, given, self.activities), **given}


def train_step(
    model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    loss: WrappedLoss,
    *,
    autocast: Callable[[], Any] = nullcontext,
    scaler: Any = None,
) -> Callable[..., tuple[torch.Tensor, Report]]:
    """A step of training: forward, loss with penalties, backward, and the optimizer's step.

    Parameters
    ----------
    model : callable
        A module, compiled or not.
    optimizer : torch.optim.Optimizer
    loss : WrappedLoss
        Takes what the model returns, and what the step is given beside the model's input.
    autocast : callable, optional
        Returns the context of the forward pass: ``lambda: torch.autocast("cuda", torch.bfloat16)``.
    scaler : torch.amp.GradScaler, optional
        For half precision.

    Returns
    -------
    callable
        ``step(x, *targets, step=None, inputs=None, **options)`` returns the total, detached, and the report. `options`
        are those of `Pipeline.compute`.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> loss = wrap_loss(torch.nn.functional.mse_loss, Pipeline([Penalty("l2", inputs="outputs", weight=0.1)]))
    >>> step = train_step(model, optimizer, loss)
    >>> total, report = step(torch.ones(4, 2), torch.zeros(4, 1))
    >>> list(report.regularizers)
    ['l2']
    """

    def train(
        x: Any, *targets: Any, step: Any = None, inputs: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[torch.Tensor, Report]:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            total, report = loss.compute(model(x), *targets, step=step, inputs=inputs, **options)
        if scaler is None:
            total.backward()
            optimizer.step()
        else:
            scaler.scale(total).backward()
            scaler.step(optimizer)
            scaler.update()
        return total.detach(), report

    return train
