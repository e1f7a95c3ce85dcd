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
    import numpy as np
    import tinker
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

__all__ = ["CustomLoss", "custom_loss"]

_MODEL_TARGETS = ("logprobs", "probs")


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
        raise TypeError(f"custom_loss: `base_loss` must be callable, got {_type_name(base_loss)}. Pass a function.")
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
    where = None if where is None else _checked_source("`where`", where)
    return CustomLoss(regularized, sources, where, prefix, asynchronous, options, step)


def _checked_sources(targets: Any, pipe: Pipeline) -> dict[str, Any]:
    """Return the source of each target, by name. All inputs of penalties must be among the names."""
    if not (targets is None or isinstance(targets, Mapping)):
        raise TypeError(f"custom_loss: `targets` must be a mapping of names, got {_type_name(targets)}. Pass a dict.")
    sources = {name: _checked_source(f"target {name!r}", source) for name, source in (targets or {}).items()}
    for name in _MODEL_TARGETS:
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
        batch = _Batch(data, logprobs, self.targets, self.where)
        if self.asynchronous:
            total, report = self._on_event_loop(logprobs, batch)
        else:
            total, report = self.loss.compute(logprobs, batch, step=self.step, **self.options)
        # makes the total depend on each datum; empty slices, because infinity times 0 would be NaN
        zero = torch.cat([each.reshape(-1)[:0] for each in logprobs]).sum()
        return total + zero, report

    def _on_event_loop(self, logprobs: Any, batch: _Batch) -> tuple[Any, Report]:
        """Compute on another thread: the SDK calls losses on a thread whose event loop is already running."""
        modes = BACKEND.evaluation.thread_modes()

        def run() -> tuple[Any, Report]:
            with modes():
                return asyncio.run(self.loss.compute_async(logprobs, batch, step=self.step, **self.options))

        return on_threads([Task("custom_loss", run)], max_workers=1)[0].result


class _Batch:
    """The targets of one call, each made at most once."""

    def __init__(self, data: Sequence[Any], logprobs: list[Any], sources: Mapping[str, Any], where: Any) -> None:
        self.data = data
        self._logprobs = logprobs
        self._sources = sources
        self._targets: dict[str, Any] = {}
        self._mask = None
        if where is not None:
            self._mask = self._joined("`where`", where, logprobs) != 0
            tokens = sum(map(len, logprobs))
            if tuple(self._mask.shape) != (tokens,):
                raise ValueError(
                    f"custom_loss: `where` must have one number for each of {tokens} tokens, got shape "
                    f"{tuple(self._mask.shape)}. Reduce it."
                )

    def target(self, name: str, logprobs: list[Any]) -> Any:
        """Return a target made from `logprobs`. If gradients are tracked, these are a penalty's own copies."""
        if name not in self._targets:  # only now, so that an error belongs to the penalty
            self._targets[name] = self._joined(f"target {name!r}", self._sources[name], self._logprobs)
        target = self._targets[name]
        if logprobs is self._logprobs or not (target.requires_grad or isinstance(self._sources[name], str)):
            return target
        return self._joined(f"target {name!r}", self._sources[name], logprobs)

    def _joined(self, name: str, source: Any, logprobs: list[Any]) -> Any:
        """Concatenate the tokens of all data, without those that `where` removes."""
        values = self._values(name, source, logprobs)
        if isinstance(values, torch.Tensor):
            return values
        _check_lengths(name, values, logprobs)
        joined = torch.cat(values) if self._mask is None else torch.cat(values)[self._mask]
        # exp after the mask, so that a masked NaN does not reach its gradient
        return joined.exp() if isinstance(source, str) and source == "probs" else joined

    def _values(self, name: str, source: Any, logprobs: list[Any]) -> Any:
        """Return a tensor for each datum, or a single tensor that is used as it is."""
        if isinstance(source, str):
            return logprobs
        if _is_field(source):
            return [_field(name, i, datum, source[1]) for i, datum in enumerate(self.data)]
        values = source(self.data, logprobs) if callable(source) else source
        if _is_array(values):
            return _tensor(values)
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"custom_loss: {name} must be a list of tensors, got {_type_name(values)}. Return one.")
        return [_tensor(value) for value in values]


def _check_lengths(name: str, values: list[Any], logprobs: list[Any]) -> None:
    """Check that there is a tensor for each datum, with an element for each of its tokens."""
    if len(values) != len(logprobs):
        raise ValueError(
            f"custom_loss: {name} must have {len(logprobs)} tensors, got {len(values)}. Pass one per datum."
        )
    for i, (value, model) in enumerate(zip(values, logprobs, strict=True)):
        if value.ndim == 0 or len(value) != len(model) or value.shape[1:] != values[0].shape[1:]:
            expected = (len(model), *values[0].shape[1:])
            raise ValueError(
                f"custom_loss: {name} must have shape {expected} in datum {i}, which has {len(model)} tokens, got "
                f"{tuple(value.shape)}. For other shapes, return one tensor from a callable."
            )


def _inputs_from_batch(penalty: Penalty) -> Inputs:
    """Return the penalty's inputs as callables that pick them from the arguments of the bound loss."""
    inputs = penalty.inputs
    if isinstance(inputs, Mapping):
        return {parameter: _from_batch(source) for parameter, source in inputs.items()}
    return _from_batch(inputs) if callable(inputs) else partial(_targets, _input_names(penalty))


def _from_batch(source: Source) -> Callable[..., Any]:
    return partial(_with_data, source) if callable(source) else partial(_target, source)


def _with_data(fn: Callable[..., Any], logprobs: Any, batch: _Batch) -> Any:
    return fn(batch.data, logprobs)


def _target(name: str, logprobs: Any, batch: _Batch) -> Any:
    return batch.target(name, logprobs)


def _targets(names: tuple[str, ...], logprobs: Any, batch: _Batch) -> tuple[Any, ...]:
    return tuple(batch.target(name, logprobs) for name in names)


def _input_names(penalty: Penalty) -> tuple[str, ...]:
    return ("logprobs",) if penalty.inputs is None else names_in(penalty.inputs)


def _checked_source(name: str, source: Any) -> Any:
    if isinstance(source, str):
        if source not in _MODEL_TARGETS:
            raise ValueError(
                f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
                f"{source!r}.{did_you_mean(source, _MODEL_TARGETS)} For a field of the data pass ('field', {source!r})."
            )
    elif not (_is_field(source) or callable(source) or _is_array(source) or isinstance(source, (list, tuple))):
        raise TypeError(
            f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
            f"{_type_name(source)}. Pass one of these."
        )
    return source


def _is_field(source: Any) -> bool:
    return isinstance(source, (tuple, list)) and [type(item) for item in source] == [str, str] and source[0] == "field"


def _field(name: str, i: int, datum: Any, key: str) -> Any:
    fields = datum.loss_fn_inputs
    if key not in fields:
        raise ValueError(
            f"custom_loss: datum {i} must have the field {key!r} for {name}, got the fields "
            f"{', '.join(map(repr, fields)) or 'none'}.{did_you_mean(key, fields)}"
        )
    return fields[key].to_torch()


def _is_array(x: Any) -> bool:
    return isinstance(x, (torch.Tensor, tinker.TensorData, np.ndarray))


def _tensor(x: Any) -> Any:
    return x.to_torch() if isinstance(x, tinker.TensorData) else torch.as_tensor(x)


def _type_name(x: Any) -> str:
    return type(x).__qualname__
