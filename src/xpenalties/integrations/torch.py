"""Penalties in PyTorch's training loops: activities by name, losses, steps, and transforms inside an optimizer.

For example::

    with capture(model, {"hidden": "encoder.0"}) as activities:
        loss = wrap_loss(torch.nn.functional.cross_entropy, pipeline, activities)
        step = train_step(model, optimizer, loss)
        for i, (x, y) in enumerate(batches):
            total, report = step(x, y, step=i)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Never

from .._core.hidden_parameters import hide_parameters
from .._core.optional import require

with require("PyTorch", needed_by=__name__, install="xpenalties[torch]"):
    import torch

from .._core.shown import listed, shown_function
from .._pipeline.checked_pipeline import check_pipeline
from .._pipeline.penalty_inputs import names_in
from .._pipeline.pipeline import Pipeline
from .._pipeline.pipeline_table import title_of
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.wrt import Recorded, checked_wrt
from .._reports.report import Report
from ._named_inputs import check_inputs, select_inputs
from ._torch_arguments import check_call, check_options, check_step, check_wrapping, refuse_options
from ._torch_attached import Attached, attached_to
from ._torch_capture import Capture, capture
from ._torch_optimizers import attach, parameter_groups
from ._torch_tracking import add_named, recorded, recorded_leaves, tracks_gradients

__all__ = ["Attached", "Capture", "WrappedLoss", "attach", "capture", "parameter_groups", "train_step", "wrap_loss"]


def wrap_loss(
    loss_fn: Callable[..., Any],
    pipe: Pipeline,
    activities: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, ...] = ("outputs", "targets"),
) -> WrappedLoss:
    """Add a pipeline's penalties to a loss. The new loss takes the same arguments.

    Parameters
    ----------
    loss_fn : callable
        A loss like those of `torch.nn` and `torch.nn.functional`: it takes `names` by position and returns a scalar.
    pipe : Pipeline
        The `inputs` of its penalties are names, or mappings of parameters to names.
    activities : mapping, optional
        More inputs, looked up in each call: a `Capture`, or any other mapping.
    names : tuple of str
        The names of the loss's arguments, as inputs of the pipeline.

    Returns
    -------
    WrappedLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, or a built-in penalty of `pipe` does not name its inputs.

    Examples
    --------
    >>> pipe = Pipeline([Penalty("l2", inputs="outputs", weight=0.1)])
    >>> loss = wrap_loss(torch.nn.functional.mse_loss, pipe)
    >>> float(loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])))
    1.0
    """
    activities = {} if activities is None else activities
    names = check_wrapping(loss_fn, activities, names)
    check_pipeline("wrap_loss", "pipe", pipe)
    loss = RegularizedLoss(_BaseLoss(loss_fn, names), pipe)
    check_inputs("wrap_loss", pipe, example=names[0] if names else "outputs")
    return WrappedLoss(loss, names, activities)


@dataclass(frozen=True)
class _BaseLoss:
    """Convert a loss of positional arguments to a loss of one mapping of inputs."""

    loss_fn: Callable[..., Any]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"{shown_function(self.loss_fn)}({', '.join(self.names)})"

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        return self.loss_fn(*(inputs[name] for name in self.names))


@dataclass(frozen=True, eq=False)
class WrappedLoss:
    """A loss with penalties, see `wrap_loss`."""

    loss: RegularizedLoss
    names: tuple[str, ...]
    activities: Mapping[str, Any]

    def __call__(self, *args: Any, step: Any = None, inputs: Mapping[str, Any] | None = None, **keywords: Never) -> Any:
        """Return the total, a 0-d tensor. `inputs` are more inputs of the pipeline, by name."""
        if keywords:
            refuse_options("wrap_loss", keywords)
        return self.loss(self._all_inputs(args, inputs), step=step)

    def compute(self, *args: Any, step: Any = None, inputs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the total and the report. `options` are those of `RegularizedLoss.compute`.

        By default, `wrt` is what the inputs are computed from, so usually all parameters that require gradients.
        """
        check_options("wrap_loss", options)
        by_name = self._all_inputs(args, inputs)
        if tracks_gradients(options):
            options["wrt"] = checked_wrt("wrap_loss", options.get("wrt"))
            add_named("wrap_loss", by_name, options["wrt"], self.activities, argument="inputs")
            if options["wrt"] is None and (leaves := recorded_leaves(by_name.values())):
                options["wrt"] = Recorded(tuple(leaves))
        return self.loss.compute(by_name, step=step, **options)

    def __repr__(self) -> str:
        """Return the names of the loss, its arguments and its inputs. The pipeline prints its own table."""
        loss, names = self.loss.base_loss, list(self.activities)
        activities = f", activities {listed(names)}" if names else ""
        return f"WrappedLoss of {shown_function(loss)} and {title_of(self.loss.pipeline.name)}{activities}"

    def _all_inputs(self, args: tuple[Any, ...], inputs: Mapping[str, Any] | None) -> dict[str, Any]:
        check_call(self.names, args, inputs)
        passed = {**(inputs or {}), **dict(zip(self.names, args, strict=True))}
        return {**select_inputs(self.loss.pipeline, passed, self.activities, argument="inputs"), **passed}


hide_parameters(WrappedLoss.__call__, "keywords")


def train_step(
    model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    loss: WrappedLoss,
    *,
    autocast: Callable[[], Any] = nullcontext,
    scaler: Any = None,
) -> Callable[..., tuple[torch.Tensor, Report]]:
    """Make a training step: forward pass, loss with penalties, backward pass, and the optimizer's step.

    Parameters
    ----------
    model : callable
        A module, compiled or not.
    optimizer : torch.optim.Optimizer
        An optimizer whose step needs no closure.
    loss : WrappedLoss
        It takes the model's output and the step's targets.
    autocast : callable, optional
        Returns a context manager for the forward pass: ``partial(torch.autocast, "cuda", torch.bfloat16)``. With a
        lambda, the step cannot be pickled.
    scaler : torch.amp.GradScaler, optional
        For half precision.

    Returns
    -------
    callable
        ``step(x, *targets, step=None, inputs=None, **options)`` clears the gradients, calls ``model(x)``, evaluates the
        loss, runs the backward pass, and steps the optimizer. It returns the detached total and the report.

        `inputs` are more inputs of the pipeline, by name. If a penalty names the input "params" and nothing else
        provides it, the step passes the model, if that is a module.

        `options` are those of `Pipeline.compute`. With ``track_grad_norms=True``, norms are by default with respect to
        the optimizer's parameters; `wrt` also takes names of inputs. Tracking does not change the training. A copy of
        the step has its own model, optimizer, transforms and captures.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or the optimizer needs a closure, like LBFGS.

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
    check_step(model, optimizer, autocast, scaler)
    if not isinstance(loss, WrappedLoss):
        raise TypeError(
            f"train_step: `loss` must be a loss of wrap_loss, got {type(loss).__qualname__}. "
            "Pass wrap_loss(loss_fn, pipeline)."
        )
    return _TrainStep(model, optimizer, loss, autocast, scaler)


@dataclass(frozen=True, eq=False)
class _TrainStep:
    """A training step. See `train_step`."""

    model: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    loss: WrappedLoss
    autocast: Callable[[], Any]
    scaler: Any

    def __call__(
        self, x: Any, *targets: Any, step: Any = None, inputs: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[torch.Tensor, Report]:
        check_options("train_step", options)
        self.optimizer.zero_grad(set_to_none=True)
        if tracks_gradients(options):
            options["wrt"] = self._recorded(options.get("wrt"))
        inputs = self._with_params(inputs, options.get("wrt"))
        with self.autocast():
            total, report = self.loss.compute(self.model(x), *targets, step=step, inputs=inputs, **options)
        if self.scaler is None:
            total.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(total).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return total.detach(), report

    def _with_params(self, inputs: Any, wrt: Any) -> Any:
        """Add the model as the input "params", if a penalty or `wrt` names it and nothing else has this name."""
        if not isinstance(self.model, torch.nn.Module) or not (inputs is None or isinstance(inputs, Mapping)):
            return inputs
        if any("params" in names for names in (self.loss.names, self.loss.activities, inputs or ())):
            return inputs
        asked = {name for penalty in self.loss.loss.pipeline if penalty.enabled for name in names_in(penalty.inputs)}
        if isinstance(wrt, Recorded):
            asked.update(item for item in wrt.items if isinstance(item, str))
        return {**(inputs or {}), "params": self.model} if "params" in asked else inputs

    def _recorded(self, wrt: Any) -> Any:
        if wrt is None:
            wrt = tuple(param for group in self.optimizer.param_groups for param in group["params"])
        return recorded("train_step", wrt, self.scaler)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "attached": attached_to(self.optimizer)}  # a copied optimizer has no hooks

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: value for name, value in state.items() if name != "attached"})
