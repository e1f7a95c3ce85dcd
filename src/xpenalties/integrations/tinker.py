"""Penalties in Tinker's custom losses, for `TrainingClient.forward_backward_custom`.

For example::

    loss = custom_loss(negative_log_likelihood, pipeline, targets={"teacher": ("field", "teacher_logprobs")})
    for step in range(100):
        output = client.forward_backward_custom(data, loss.at(step)).result()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from .._core.optional import require

with require("Tinker's SDK with PyTorch", needed_by=__name__, install="xpenalties[tinker]"):
    import tinker  # noqa: F401 - the example uses it
    import torch

from .._core.concurrency import Task, on_threads
from .._core.suggestions import did_you_mean
from .._pipeline.checked_pipeline import check_pipeline
from .._pipeline.computation import is_coroutine_function
from .._pipeline.penalty import Penalty
from .._pipeline.penalty_inputs import Inputs, Source, names_in
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.settings import Settings
from .._reports.report import Report
from ..backends.torch import BACKEND
from ._tinker_targets import MODEL_TARGETS, Batch, checked_source, type_name

__all__ = ["CustomLoss", "custom_loss"]


def custom_loss(
    base_loss: Callable[..., Any],
    pipe: Pipeline,
    *,
    targets: Mapping[str, Any] | None = None,
    where: Any = None,
    step: Any = None,
    prefix: str = "penalties/",
    track_grad_norms: bool = False,
    asynchronous: bool = False,
    timeout: float | None = None,
    on_error: Literal["raise", "drop"] = "raise",
) -> CustomLoss:
    """Make a loss for `TrainingClient.forward_backward_custom` that includes a pipeline's penalties.

    Parameters
    ----------
    base_loss : callable
        A custom loss of the SDK. It is called with the data and a list of their log-probabilities, and returns a scalar
        or ``(scalar, metrics)``.
    pipe : Pipeline
        The `inputs` of its penalties are names of targets, callables of the loss's arguments, or mappings of parameters
        to these. None: "logprobs".
    targets : mapping of str, optional
        Inputs of penalties, by name, in addition to "logprobs" and "probs". Each is one of these:

        - ``("field", key)``, for a field of each datum's `loss_fn_inputs`
        - a list of tensors, one for each datum
        - a callable of the loss's arguments that returns such a list
        - "logprobs" or "probs", to give them another name

        The tokens of all data are concatenated, so that a mean is over tokens. A single tensor, passed or returned, is
        used as it is.
    where : like one of the targets, optional
        One number for each token. Tokens where it is 0, such as the prompt's, are removed from the targets.
    step : int, optional
        For weights that are schedules and for penalties with `every`, see `CustomLoss.at`.
    prefix : str, default "penalties/"
        Prefix of the metrics' names.
    track_grad_norms : bool, default False
        Whether the metrics include the norms of the gradients with respect to the log-probabilities.
    asynchronous : bool, default False
        Whether to run penalties and base loss on an event loop, see `Pipeline.compute_async`. Always True if one of
        them is a coroutine function, or if there is a timeout. Pass True for other callables that return awaitables.
    timeout, on_error
        As for `Pipeline.compute_async`.

    Returns
    -------
    CustomLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, or an input is not one of the targets.

    Notes
    -----
    The SDK requires a gradient for each datum. It is zero if neither the loss nor a penalty uses the datum.

    Examples
    --------
    >>> def negative_log_likelihood(data, logprobs):
    ...     return -torch.cat(logprobs).mean(), {"tokens": sum(map(len, logprobs))}
    >>> pipe = Pipeline([Penalty("consistency", inputs=("teacher", "logprobs"), weight=0.5)])
    >>> loss = custom_loss(negative_log_likelihood, pipe, targets={"teacher": ("field", "teacher_logprobs")})
    >>> field = tinker.TensorData(data=[-1.0, -2.0], dtype="float32")
    >>> datum = tinker.Datum(tinker.ModelInput.from_ints([1, 2]), {"teacher_logprobs": field})
    >>> total, metrics = loss([datum], [torch.tensor([-1.0, -3.0], requires_grad=True)])
    >>> float(total.detach()), metrics["penalties/consistency/value"], metrics["penalties/base_loss/custom/tokens"]
    (2.25, 0.5, 2.0)
    """
    if not callable(base_loss):
        raise TypeError(f"custom_loss: `base_loss` must be callable, got {type_name(base_loss)}. Pass a function.")
    check_pipeline("custom_loss", "pipe", pipe)
    sources = _checked_sources(targets, pipe)
    asynchronous = asynchronous or _is_asynchronous(base_loss, pipe, timeout)
    if asynchronous and track_grad_norms:
        raise ValueError(
            "custom_loss: `track_grad_norms` must be False with coroutines or timeouts, got True. Drop one."
        )
    options = {"timeout": timeout, "on_error": on_error}
    Settings.of("custom_loss", **options, asynchronous=asynchronous)
    if not asynchronous:
        options["track_grad_norms"] = track_grad_norms
    bound = Pipeline([replace(p, inputs=_inputs_from_batch(p)) for p in pipe], name=pipe.name)
    regularized = RegularizedLoss(partial(_with_data, base_loss), bound)
    where = None if where is None else checked_source("`where`", where)
    return CustomLoss(regularized, sources, where, prefix, asynchronous, options, step)


def _checked_sources(targets: Any, pipe: Pipeline) -> dict[str, Any]:
    """Return the source of each target, by name. All inputs of penalties must be among the names."""
    if not (targets is None or isinstance(targets, Mapping)):
        raise TypeError(f"custom_loss: `targets` must be a mapping of names, got {type_name(targets)}. Pass a dict.")
    sources = {name: checked_source(f"target {name!r}", source) for name, source in (targets or {}).items()}
    for name in MODEL_TARGETS:
        source = sources.setdefault(name, name)
        if not isinstance(source, str) or source != name:
            raise ValueError(f"custom_loss: `targets` must not redefine {name!r}, the model's, got another. Rename it.")
    for penalty in pipe:
        for name in _input_names(penalty):
            if name not in sources:
                raise ValueError(
                    f"custom_loss: inputs of penalty {penalty.name!r} must be targets, got {name!r}. The targets are "
                    f"{', '.join(map(repr, sources))}.{did_you_mean(name, sources)}"
                )
    return sources


def _is_asynchronous(base_loss: Callable[..., Any], pipe: Pipeline, timeout: float | None) -> bool:
    """Return whether the loss needs an event loop: for a coroutine function or a timeout."""
    functions = (base_loss, *(penalty.fn for penalty in pipe))
    timeouts = (timeout, *(penalty.timeout for penalty in pipe))
    return any(map(is_coroutine_function, functions)) or any(limit is not None for limit in timeouts)


@dataclass(frozen=True, eq=False)
class CustomLoss:
    """A loss with penalties for Tinker's SDK, see `custom_loss`."""

    loss: RegularizedLoss
    targets: Mapping[str, Any]
    where: Any
    prefix: str
    asynchronous: bool
    options: Mapping[str, Any]
    step: Any = None

    def at(self, step: Any) -> CustomLoss:
        """Return the same loss at another step, for weights that are schedules and for penalties with `every`."""
        return replace(self, step=step)

    def __call__(self, data: Sequence[Any], logprobs: Sequence[Any]) -> tuple[Any, dict[str, float]]:
        """Return the total, which is differentiable, and the metrics: `Report.flat`, with "_" instead of ":"."""
        total, report = self.compute(data, logprobs)
        flat = report.flat(self.prefix)
        # the server's own metrics are named "name:reduction"
        metrics = {name.replace(":", "_"): value for name, value in flat.items()}
        if len(metrics) < len(flat):
            raise ValueError(
                f"custom_loss: names of metrics must differ in more than ':' and '_', got {', '.join(flat)}. "
                "Rename one."
            )
        return total, metrics

    def compute(self, data: Sequence[Any], logprobs: Sequence[Any]) -> tuple[Any, Report]:
        """Return the total, which is differentiable, and a report."""
        logprobs = list(logprobs)
        if not data:
            raise ValueError("custom_loss: `data` must have at least one datum, got none. Pass some.")
        if len(logprobs) != len(data):
            raise ValueError(
                f"custom_loss: `logprobs` must have {len(data)} tensors, got {len(logprobs)}. Pass one for each datum."
            )
        batch = Batch(data, logprobs, self.targets, self.where)
        if self.asynchronous:
            total, report = self._on_event_loop(logprobs, batch)
        else:
            total, report = self.loss.compute(logprobs, batch, step=self.step, **self.options)
        # makes the total depend on each datum; empty slices, because infinity times 0 would be NaN
        zero = torch.cat([each.reshape(-1)[:0] for each in logprobs]).sum()
        return total + zero, report

    def _on_event_loop(self, logprobs: Any, batch: Batch) -> tuple[Any, Report]:
        """Compute on another thread: the SDK calls losses on a thread whose event loop is already running."""
        modes = BACKEND.evaluation.thread_modes()

        def run() -> tuple[Any, Report]:
            with modes():
                return asyncio.run(self.loss.compute_async(logprobs, batch, step=self.step, **self.options))

        return on_threads([Task("custom_loss", run)], max_workers=1)[0].result


def _inputs_from_batch(penalty: Penalty) -> Inputs:
    """Return the penalty's inputs as callables that pick them from the arguments of the bound loss."""
    inputs = penalty.inputs
    if isinstance(inputs, Mapping):
        return {parameter: _from_batch(source) for parameter, source in inputs.items()}
    return _from_batch(inputs) if callable(inputs) else partial(_targets, _input_names(penalty))


def _from_batch(source: Source) -> Callable[..., Any]:
    return partial(_with_data, source) if callable(source) else partial(_target, source)


def _with_data(fn: Callable[..., Any], logprobs: Any, batch: Batch) -> Any:
    return fn(batch.data, logprobs)


def _target(name: str, logprobs: Any, batch: Batch) -> Any:
    return batch.target(name, logprobs)


def _targets(names: tuple[str, ...], logprobs: Any, batch: Batch) -> tuple[Any, ...]:
    return tuple(batch.target(name, logprobs) for name in names)


def _input_names(penalty: Penalty) -> tuple[str, ...]:
    return ("logprobs",) if penalty.inputs is None else names_in(penalty.inputs)
