"""A compiled training step for JAX: forward pass, loss with penalties, gradients, and the optimizer's update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from .._arrays.gradients import arrays_of
from .._core.shown import shown
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report
from ..backends.jax import BACKEND
from ..transforms._base import GradientTransformation, accepts_keyword
from ..transforms._chaining import apply_updates
from ._jax_tracking import check_differentiable, pulled_back

__all__ = ["Step"]

_PARAMS = ("params",)


class _Tracking(NamedTuple):
    """How to track gradients. It is a static argument of the compiled step."""

    wrt: tuple[str, ...]
    conflicts: bool

    @classmethod
    def of(cls, track_grad_norms: bool, wrt: Any, gradient_conflicts: bool) -> _Tracking | None:
        """Check the options of a call. Return None if nothing is tracked."""
        is_one = isinstance(wrt, (str, Mapping)) or not isinstance(wrt, Iterable)
        names = _PARAMS if wrt is None else (wrt,) if is_one else tuple(wrt)
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"train_step: `wrt` must be names of inputs, got {shown(wrt)}. Pass strings, or None for 'params'."
            )
        if "params" in names and names != _PARAMS:
            raise ValueError(
                f"train_step: `wrt` must be 'params' or names of other inputs, got {shown(names)}. The others are "
                "computed from the parameters, so pass one of the two."
            )
        return cls(names, bool(gradient_conflicts)) if track_grad_norms or gradient_conflicts else None


class Step:
    """A training step, see `train_step`."""

    def __init__(
        self,
        forward: Callable[..., Any],
        loss: RegularizedLoss,
        optimizer: GradientTransformation,
        has_aux: bool,
        jit: bool,
    ) -> None:
        self._forward = forward
        self._loss = loss
        self._optimizer = optimizer
        self._has_aux = has_aux
        self._extra_names = list(filter(accepts_keyword(optimizer.update), ("value", "grad", "value_fn")))
        self._jit = jit
        self._compiled_update = self._compiled()

    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self._update, static_argnames="tracking") if self._jit else self._update

    def __getstate__(self) -> dict[str, Any]:
        # the result of jax.jit cannot be pickled
        return {name: value for name, value in vars(self).items() if name != "_compiled_update"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._compiled_update = self._compiled()

    def __call__(
        self,
        params: Any,
        state: Any,
        *batch: Any,
        step: Any = None,
        weights: Any = None,
        track_grad_norms: bool = False,
        wrt: Any = None,
        gradient_conflicts: bool = False,
        **others: Any,
    ) -> tuple[Any, ...]:
        if others:
            raise TypeError(
                "train_step: the step takes step=, weights=, track_grad_norms=, wrt= and gradient_conflicts=, got "
                f"{', '.join(others)}. Return inputs of penalties from `forward`, and pass it data by position."
            )
        if weights is not None:
            self._check_weights(weights)
        tracking = _Tracking.of(track_grad_norms, wrt, gradient_conflicts)
        try:
            result: tuple[Any, ...] = self._compiled_update(params, state, batch, step, weights, tracking=tracking)
        except Exception as error:
            if not self._are_swapped(params, state):
                raise
            raise TypeError(
                "train_step: `params` must be the parameters, got the optimizer's state, and the parameters as `state`."
                " Call step(params, state, *batch)."
            ) from error
        return result

    def _are_swapped(self, params: Any, state: Any) -> bool:
        """Return whether `params` has the structure of the optimizer's state for parameters like `state`."""
        try:
            expected = jax.eval_shape(self._optimizer.init, state)
        except (AttributeError, TypeError, ValueError):  # `state` is no tree of arrays
            return False
        swapped: bool = jax.tree.structure(expected) == jax.tree.structure(params)
        return swapped and jax.tree.structure(params) != jax.tree.structure(state)

    def _check_weights(self, weights: Mapping[str, Any]) -> None:
        self._loss.pipeline.with_weights(weights)  # check here: in the compiled update, they are tracers without values
        scheduled = next((name for name, weight in weights.items() if callable(weight)), None)
        if scheduled is not None:
            raise TypeError(
                f"train_step: `weights` must be numbers or arrays, got a schedule for {scheduled!r}. Pass it to "
                "the Penalty."
            )

    def _update(
        self, params: Any, state: Any, batch: tuple[Any, ...], step: Any, weights: Any, *, tracking: _Tracking | None
    ) -> tuple[Any, ...]:
        loss = self._loss
        if weights is not None:
            loss = RegularizedLoss(loss.base_loss, loss.pipeline.with_weights(weights))
        options: dict[str, Any] = {}
        if tracking is not None:
            options = {"track_grad_norms": True, "wrt": tracking.wrt, "gradient_conflicts": tracking.conflicts}

        def total(params: Any) -> tuple[Any, Any]:
            inputs, aux = self._inputs(params, batch)
            value, report = loss.compute({**inputs, "params": params}, step=step, **options)
            return value, (report, aux)

        if tracking is not None and tracking.wrt == _PARAMS:
            value, report, aux, gradient = self._pulled_back(loss, params, batch, step, tracking.conflicts)
        else:
            (value, (report, aux)), gradient = jax.value_and_grad(total, has_aux=True)(params)
        extra = {"value": value, "grad": gradient, "value_fn": lambda params: self._value(loss, params, batch, step)}
        extra = {name: extra[name] for name in self._extra_names}
        updates, state = self._optimizer.update(gradient, state, params, **extra)
        params = apply_updates(params, updates)
        return (params, state, report, aux) if self._has_aux else (params, state, report)

    def _value(self, loss: RegularizedLoss, params: Any, batch: tuple[Any, ...], step: Any) -> Any:
        inputs, _ = self._inputs(params, batch)
        return loss({**inputs, "params": params}, step=step)

    def _pulled_back(
        self, loss: RegularizedLoss, params: Any, batch: tuple[Any, ...], step: Any, conflicts: bool
    ) -> tuple[Any, Report, Any, Any]:
        """Return the total, the report, the other state and the gradient. One forward pass serves all gradients."""
        check_differentiable(params)
        put: Callable[[list[Any]], Any] = dict

        def outputs(params: Any) -> tuple[list[Any], Any]:
            nonlocal put
            inputs, aux = self._inputs(params, batch)
            arrays, put = arrays_of(inputs, BACKEND)
            return arrays, aux

        def total(arrays: list[Any], params: Any) -> tuple[Any, Report]:
            return loss.compute(
                {**put(arrays), "params": params},
                step=step,
                track_grad_norms=True,
                wrt=pulled_back(arrays, params, pull),
                gradient_conflicts=conflicts,
            )

        arrays, pull, aux = jax.vjp(outputs, params, has_aux=True)
        value, pull_total, report = jax.vjp(total, arrays, params, has_aux=True)
        cotangents, direct = pull_total(jax.numpy.ones_like(value))
        (through_forward,) = pull(cotangents)
        return value, report, aux, jax.tree.map(jax.numpy.add, through_forward, direct)

    def _inputs(self, params: Any, batch: tuple[Any, ...]) -> tuple[Mapping[str, Any], Any]:
        """Return the inputs by name, and the other state that `forward` returns if `has_aux`."""
        result = self._forward(params, *batch)
        if self._has_aux and not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"train_step: `forward` must return a pair with has_aux=True, got {type(result).__qualname__}. "
                "Return the inputs by name, and the rest."
            )
        inputs, aux = result if self._has_aux else (result, None)
        if not isinstance(inputs, Mapping) or "params" in inputs:
            got = ", ".join(map(repr, inputs)) if isinstance(inputs, Mapping) else type(inputs).__qualname__
            raise TypeError(
                f"train_step: `forward` must return a mapping without 'params', got {got}. Return the inputs by name."
            )
        return inputs, aux
