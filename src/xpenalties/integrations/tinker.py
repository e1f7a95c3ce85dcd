"""Penalties in Tinker's custom losses: what `TrainingClient.forward_backward_custom` takes.

As in::

    loss = custom_loss(negative_log_likelihood, pipeline, targets={"teacher": ("field", "teacher_logprobs")})
    for step in range(100):
        output = client.forward_backward_custom(data, loss.at(step)).result()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .._core.optional import require

with require("Tinker's SDK with PyTorch", needed_by=__name__, install="xpenalties[tinker]"):
    import numpy as np
    import tinker
    import torch

from .._core.checks import nearest
from .._core.concurrency import Task, on_threads
from .._pipeline.computation import is_coroutine_function
from .._pipeline.penalty import Penalty
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.settings import Settings
from .._reports.report import Report
from ..backends.torch import BACKEND

__all__ = ["CustomLoss", "custom_loss"]

_OF_MODEL = ("logprobs", "probs")


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
    """A loss for `TrainingClient.forward_backward_custom`, with a pipeline's penalties added.

    Parameters
    ----------
    base_loss : callable
        As the SDK takes them: of the data and a list of their log-probabilities; returns a scalar or ``(scalar,
        metrics)``.
    pipe : Pipeline
        Its penalties' `inputs` are names of targets, or callables of what the loss takes; None is "logprobs".
    targets : mapping of str, optional
        What there is to penalize beside "logprobs" and "probs", by name: ``("field", key)`` of each datum's
        `loss_fn_inputs`; a list of tensors, one for each datum; a callable of what the loss takes, which returns such a
        list; or one of "logprobs" and "probs". The tokens of all data are concatenated, so that a mean is one over
        tokens. A single tensor, given or returned, is taken as it is.
    where : as one of the targets, optional
        One number for each token: where it is 0, as for a prompt, targets leave the token out.
    step : int, optional
        For weights that are schedules, and penalties that count on each k-th step; see `CustomLoss.at`.
    prefix : str, default "penalties/"
        Of the metrics' names.
    track_grad_norms : bool, default False
        Whether the metrics have the norms of the gradients by the log-probabilities.
    asynchronous : bool, default False
        Whether to run penalties and base loss as `Pipeline.compute_async` does. Where one is a coroutine function, or
        there is a timeout, that is so anyway; True is for other callables that return awaitables.
    timeout, on_error
        As for `Pipeline.compute_async`.

    Returns
    -------
    CustomLoss

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind, and for inputs that are no targets.

    Notes
    -----
    The SDK asks for a gradient of each datum: one that neither loss nor penalties use has zeros.

    Examples
    --------
    >>> def negative_log_likelihood(data, logprobs):
    ...     return -torch.cat(logprobs).mean(), {"tokens": sum(map(len, logprobs))}
    >>> pipe = Pipeline([Penalty("consistency", inputs=("logprobs", "teacher"), weight=0.5)])
    >>> loss = custom_loss(negative_log_likelihood, pipe, targets={"teacher": ("field", "teacher_logprobs")})
    >>> field = tinker.TensorData(data=[-1.0, -2.0], dtype="float32")
    >>> datum = tinker.Datum(tinker.ModelInput.from_ints([1, 2]), {"teacher_logprobs": field})
    >>> total, metrics = loss([datum], [torch.tensor([-1.0, -3.0], requires_grad=True)])
    >>> float(total.detach()), metrics["penalties/consistency/value"], metrics["penalties/base_loss/custom/tokens"]
    (2.25, 0.5, 2.0)
    """
    if not callable(base_loss):
        raise TypeError(f"custom_loss: `base_loss` must be callable, got {_kind(base_loss)}. Pass a function.")
    if not isinstance(pipe, Pipeline):
        raise TypeError(f"custom_loss: `pipe` must be a Pipeline, got {_kind(pipe)}. Make one.")
    if not (targets is None or isinstance(targets, Mapping)):
        raise TypeError(f"custom_loss: `targets` must be a mapping of names, got {_kind(targets)}. Pass a dict.")
    sources = {name: _checked_source(f"target {name!r}", source) for name, source in (targets or {}).items()}
    for name in _OF_MODEL:
        source = sources.setdefault(name, name)
        if not isinstance(source, str) or source != name:
            raise ValueError(f"custom_loss: `targets` must leave {name!r} the model's, got another. Rename it.")
    for penalty in pipe:
        for name in _names(penalty):
            if name not in sources:
                raise ValueError(
                    f"custom_loss: inputs of penalty {penalty.name!r} must be targets, got {name!r}, there are "
                    f"{', '.join(map(repr, sources))}.{nearest(name, sources)}"
                )
    asynchronous = asynchronous or any(is_coroutine_function(fn) for fn in (base_loss, *(p.fn for p in pipe)))
    asynchronous = asynchronous or any(limit is not None for limit in (timeout, *(p.timeout for p in pipe)))
    if asynchronous and track_grad_norms:
        raise ValueError(
            "custom_loss: `track_grad_norms` must be False beside coroutines and timeouts, got True. Do without."
        )
    options = {"timeout": timeout, "on_error": on_error}
    Settings.of("custom_loss", **options, asynchronous=asynchronous)
    if not asynchronous:
        options["track_grad_norms"] = track_grad_norms
    bound = Pipeline([replace(p, inputs=_of_batch(p)) for p in pipe], name=pipe.name)
    regularized = RegularizedLoss(lambda logprobs, batch: base_loss(batch.data, logprobs), bound)
    where = None if where is None else _checked_source("`where`", where)
    return CustomLoss(regularized, sources, where, prefix, asynchronous, options, step)


@dataclass(frozen=True, eq=False)
class CustomLoss:
    """What `custom_loss` returns."""

    loss: RegularizedLoss
    targets: Mapping[str, Any]
    where: Any
    prefix: str
    asynchronous: bool
    options: Mapping[str, Any]
    step: Any = None

    def at(self, step: Any) -> CustomLoss:
        """The same at a step, for weights that are schedules, and penalties that count on each k-th step."""
        return replace(self, step=step)

    def __call__(self, data: Sequence[Any], logprobs: Sequence[Any]) -> tuple[Any, dict[str, float]]:
        """The total to differentiate, and metrics, which are `Report.flat` without ":"."""
        total, report = self.compute(data, logprobs)
        flat = report.flat(self.prefix)
        metrics = {name.replace(":", "_"): value for name, value in flat.items()}  # the server's are "name:reduction"
        if len(metrics) < len(flat):
            raise ValueError(
                f"custom_loss: metrics' names must differ in more than ':' and '_', got {', '.join(flat)}. Rename one."
            )
        return total, metrics

    def compute(self, data: Sequence[Any], logprobs: Sequence[Any]) -> tuple[Any, Report]:
        """The total to differentiate, and a report."""
        logprobs = list(logprobs)
        if not data:
            raise ValueError("custom_loss: `data` must have a datum at least, got none. Pass some.")
        if len(logprobs) != len(data):
            raise ValueError(
                f"custom_loss: `logprobs` must have {len(data)} tensors, got {len(logprobs)}. Pass one a datum."
            )
        batch = _Batch(data, logprobs, self.targets, self.where)
        if self.asynchronous:
            total, report = self._on_event_loop(logprobs, batch)
        else:
            total, report = self.loss.compute(logprobs, batch, step=self.step, **self.options)
        # a part of no elements, for a product with 0 would make NaN of infinities
        unused = torch.cat([each.reshape(-1)[:0] for each in logprobs]).sum()
        return total + unused, report

    def _on_event_loop(self, logprobs: Any, batch: _Batch) -> tuple[Any, Report]:
        """On a thread of its own: the SDK calls losses where an event loop is running already."""
        modes = BACKEND.carried()

        def run() -> tuple[Any, Report]:
            with modes():
                return asyncio.run(self.loss.compute_async(logprobs, batch, step=self.step, **self.options))

        return on_threads([Task("custom_loss", run)], max_workers=1)[0].result


class _Batch:
    """The targets of one call, each found once."""

    def __init__(self, data: Sequence[Any], logprobs: list[Any], sources: Mapping[str, Any], where: Any) -> None:
        self.data, self._logprobs, self._sources, self._kept = data, logprobs, sources, None
        if where is not None:
            self._kept = self._joined("`where`", where, logprobs) != 0
            tokens = sum(map(len, logprobs))
            if tuple(self._kept.shape) != (tokens,):
                raise ValueError(
                    f"custom_loss: `where` must have one number for each of {tokens} tokens, got shape "
                    f"{tuple(self._kept.shape)}. Reduce it."
                )
        self._found: dict[str, Any] = {}

    def target(self, name: str, logprobs: list[Any]) -> Any:
        """One of the targets, of these log-probabilities: where gradients are tracked, a penalty has its own."""
        if name not in self._found:  # by the penalty that wants it, which may be dropped where it fails
            self._found[name] = self._joined(f"target {name!r}", self._sources[name], self._logprobs)
        found = self._found[name]
        if logprobs is self._logprobs or not (found.requires_grad or isinstance(self._sources[name], str)):
            return found
        return self._joined(f"target {name!r}", self._sources[name], logprobs)

    def _joined(self, name: str, source: Any, logprobs: list[Any]) -> Any:
        """All data's tokens, but those that are left out."""
        if isinstance(source, str):
            found = logprobs
        elif _is_field(source):
            found = [_field(name, i, datum, source[1]) for i, datum in enumerate(self.data)]
        else:
            found = source(self.data, logprobs) if callable(source) else source
            if _is_array(found):
                return _tensor(found)
            if not isinstance(found, (list, tuple)):
                raise TypeError(f"custom_loss: {name} must be a list of tensors, got {_kind(found)}. Return one.")
            found = [_tensor(each) for each in found]
        if len(found) != len(logprobs):
            raise ValueError(
                f"custom_loss: {name} must have {len(logprobs)} tensors, got {len(found)}. Pass one a datum."
            )
        for i, (part, model) in enumerate(zip(found, logprobs, strict=True)):
            if part.ndim == 0 or len(part) != len(model) or part.shape[1:] != found[0].shape[1:]:
                expected = (len(model), *found[0].shape[1:])
                raise ValueError(
                    f"custom_loss: {name} must have shape {expected} in datum {i}, which has {len(model)} tokens, got "
                    f"{tuple(part.shape)}. Have a callable return what is not one for each token as a tensor."
                )
        joined = torch.cat(found) if self._kept is None else torch.cat(found)[self._kept]
        # after that, for a NaN that is left out has no part in the gradient of exp then
        return joined.exp() if isinstance(source, str) and source == "probs" else joined


def _of_batch(penalty: Penalty) -> Callable[..., Any]:
    """The inputs of `penalty` out of what the loss is given."""
    inputs = penalty.inputs
    if callable(inputs):
        return lambda logprobs, batch: inputs(batch.data, logprobs)
    names = _names(penalty)
    return lambda logprobs, batch: tuple(batch.target(name, logprobs) for name in names)


def _names(penalty: Penalty) -> tuple[str, ...]:
    inputs = penalty.inputs
    if inputs is None:
        return ("logprobs",)
    return (inputs,) if isinstance(inputs, str) else inputs if isinstance(inputs, tuple) else ()


def _checked_source(name: str, source: Any) -> Any:
    if isinstance(source, str):
        if source not in _OF_MODEL:
            raise ValueError(
                f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
                f"{source!r}.{nearest(source, _OF_MODEL)} For a field of the data pass ('field', {source!r})."
            )
    elif not (_is_field(source) or callable(source) or _is_array(source) or isinstance(source, (list, tuple))):
        raise TypeError(
            f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
            f"{_kind(source)}. Pass one of these."
        )
    return source


def _is_field(source: Any) -> bool:
    return isinstance(source, (tuple, list)) and [type(each) for each in source] == [str, str] and source[0] == "field"


def _field(name: str, i: int, datum: Any, key: str) -> Any:
    fields = datum.loss_fn_inputs
    if key not in fields:
        raise ValueError(
            f"custom_loss: datum {i} must have the field {key!r} for {name}, it has "
            f"{', '.join(map(repr, fields)) or 'none'}.{nearest(key, fields)}"
        )
    return fields[key].to_torch()


def _is_array(x: Any) -> bool:
    return isinstance(x, (torch.Tensor, tinker.TensorData, np.ndarray))


def _tensor(x: Any) -> Any:
    return x.to_torch() if isinstance(x, tinker.TensorData) else torch.as_tensor(x)


def _kind(x: Any) -> str:
    return type(x).__qualname__
