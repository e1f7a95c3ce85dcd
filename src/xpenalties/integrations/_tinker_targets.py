"""The targets of Tinker's custom losses: where each comes from, and its tokens in one batch of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tinker
import torch

from .._core.suggestions import did_you_mean

__all__ = ["MODEL_TARGETS", "Batch", "checked_source", "type_name"]

MODEL_TARGETS = ("logprobs", "probs")


def checked_source(name: str, source: Any) -> Any:
    """Check where a target comes from."""
    if isinstance(source, str):
        if source not in MODEL_TARGETS:
            raise ValueError(
                f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
                f"{source!r}.{did_you_mean(source, MODEL_TARGETS)} For a field of the data pass ('field', {source!r})."
            )
    elif not (_is_field(source) or callable(source) or _is_array(source) or isinstance(source, (list, tuple))):
        raise TypeError(
            f"custom_loss: {name} must be 'logprobs', 'probs', ('field', key), tensors or a callable, got "
            f"{type_name(source)}. Pass one of these."
        )
    return source


class Batch:
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
            raise TypeError(f"custom_loss: {name} must be a list of tensors, got {type_name(values)}. Return one.")
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


def type_name(x: Any) -> str:
    """Return the name of a value's type, for messages."""
    return type(x).__qualname__
