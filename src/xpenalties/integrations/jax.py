"""Penalties in JAX's training loops: a step for Optax's optimizers, and what Flax's modules sow.

As in::

    loss = RegularizedLoss(base_loss, pipeline)
    step = train_step(forward, loss, optimizer)
    for i, batch in enumerate(batches):
        params, state, report = step(params, state, *batch, step=i)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

from .._core.optional import require

with require("JAX", needed_by=__name__, install="xpenalties[jax]"):
    import jax

from .._pipeline.regularized_loss import RegularizedLoss
from ..transforms._base import GradientTransformation, check_transform
from ..transforms._chaining import apply_updates

__all__ = ["sown", "train_step"]


def train_step(
    forward: Callable[..., Any],
    loss: RegularizedLoss,
    optimizer: GradientTransformation,
    *,
    has_aux: bool = False,
    jit: bool = True,
    track_grad_norms: bool = False,
    wrt: str | Iterable[str] | None = None,
    gradient_conflicts: bool = False,
) -> Callable[..., tuple[Any, ...]]:
    """A step of training, compiled: forward, loss with penalties, gradients, and the optimizer's update.

    Parameters
    ----------
    forward : callable
        ``forward(params, *batch)`` returns the mapping that the base loss and the penalties take, to which ``"params"``
        is added.
    loss : RegularizedLoss
    optimizer : GradientTransformation
        Optax's, or one of `xpenalties.transforms`. One that takes more is given `value`, `grad` and `value_fn`.
    has_aux : bool, default False
        Whether `forward` returns a pair, of the mapping and what the step returns too: other state of a model.
    jit : bool, default True
        Whether to compile it.
    track_grad_norms, wrt, gradient_conflicts
        As for `RegularizedLoss.compute`.

    Returns
    -------
    callable
        ``step(params, state, *batch, step=None, weights=None)`` returns parameters, the optimizer's state, the
        `Report`, and with `has_aux` the rest. `params` are any pytree of arrays: Equinox's modules, too, without what
        is no array. `weights` are by name, as `Pipeline.with_weights` takes them: other ones do not compile again.

    Raises
    ------
    TypeError
        For arguments of a wrong kind.

    Examples
    --------
    >>> def forward(params, x, y):
    ...     hidden = jax.numpy.tanh(x @ params["first"])
    ...     return {"hidden": hidden, "error": hidden @ params["second"] - y}
    >>> pipe = Pipeline(
    ...     [
    ...         Penalty("l1", inputs="hidden", weight=0.01),
    ...         Penalty(trees.over_tree("l2", match="second"), name="decay", inputs="params", weight=0.1),
    ...     ]
    ... )
    >>> loss = RegularizedLoss(lambda inputs: jax.numpy.mean(inputs["error"] ** 2), pipe)
    >>> optimizer = transforms.chain(transforms.clip_by_global_norm(1.0), optax.sgd(0.1))
    >>> step = train_step(forward, loss, optimizer)
    >>> params = {"first": jax.numpy.ones((2, 3)), "second": jax.numpy.ones((3, 1))}
    >>> x, y = jax.numpy.ones((4, 2)), jax.numpy.zeros((4, 1))
    >>> params, state, report = step(params, optimizer.init(params), x, y)
    >>> list(report.regularizers)
    ['l1', 'decay']
    """
    if not callable(forward):
        raise TypeError(f"train_step: `forward` must be callable, got {type(forward).__qualname__}. Pass a function.")
    if not isinstance(loss, RegularizedLoss):
        raise TypeError(f"train_step: `loss` must be a RegularizedLoss, got {type(loss).__qualname__}. Make one.")
    check_transform("train_step", "optimizer", optimizer)
    options: dict[str, Any] = {"track_grad_norms": track_grad_norms, "gradient_conflicts": gradient_conflicts}
    if wrt is not None:
        options["wrt"] = wrt if isinstance(wrt, str) else tuple(wrt)
    extra = _taken_by_name(optimizer.update, ("value", "grad", "value_fn"))

    def update(params: Any, state: Any, batch: tuple[Any, ...], step: Any, weights: Any) -> tuple[Any, ...]:
        own = loss if weights is None else RegularizedLoss(loss.base_loss, loss.pipeline.with_weights(weights))

        def total(params: Any) -> tuple[Any, Any]:
            found = forward(params, *batch)
            if has_aux and not (isinstance(found, tuple) and len(found) == 2):
                raise TypeError(
                    f"train_step: `forward` must return a pair with has_aux=True, got {type(found).__qualname__}. "
                    "Return the inputs by name, and the rest."
                )
            inputs, aux = found if has_aux else (found, None)
            if not isinstance(inputs, Mapping) or "params" in inputs:
                got = ", ".join(map(repr, inputs)) if isinstance(inputs, Mapping) else type(inputs).__qualname__
                raise TypeError(
                    f"train_step: `forward` must return a mapping without 'params', got {got}. Return the inputs "
                    "by name."
                )
            value, report = own.compute({**inputs, "params": params}, step=step, **options)
            return value, (report, aux)

        (value, (report, aux)), gradient = jax.value_and_grad(total, has_aux=True)(params)
        more = {"value": value, "grad": gradient, "value_fn": lambda params: total(params)[0]}
        updates, state = optimizer.update(gradient, state, params, **{name: more[name] for name in extra})
        params = apply_updates(params, updates)
        return (params, state, report, aux) if has_aux else (params, state, report)

    compiled = jax.jit(update) if jit else update

    def train(params: Any, state: Any, *batch: Any, step: Any = None, weights: Any = None) -> tuple[Any, ...]:
        if weights is not None:
            loss.pipeline.with_weights(weights)  # for its checks, which see no values inside
            scheduled = next((name for name, weight in weights.items() if callable(weight)), None)
            if scheduled is not None:
                raise TypeError(
                    f"train_step: `weights` must be numbers or arrays, got a schedule for {scheduled!r}. Give it to "
                    "the Penalty."
                )
        result: tuple[Any, ...] = compiled(params, state, batch, step, weights)
        return result

    return train


def _taken_by_name(update: Callable[..., Any], names: tuple[str, ...]) -> list[str]:
    """Which of them a function of three arguments, passed by position whatever their names are, takes beside these."""
    parameters = list(signature(update).parameters.values())
    by_position = {p.name for p in parameters[:3] if p.kind is not p.KEYWORD_ONLY}
    by_name = {p.name for p in parameters} - by_position
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [name for name in names if name in by_name or (any_name and name not in by_position)]


def sown(intermediates: Any) -> dict[str, Any]:
    """What Flax's modules have sown, by path.

    Parameters
    ----------
    intermediates : flax.nnx.State or mapping
        What a function under `flax.nnx.capture` returns second; or Linen's collection, ``state["intermediates"]``.

    Returns
    -------
    dict
        Arrays by paths, with dots between: ``"encoder.hidden"``; of what is sown several times a tuple of them.

    Raises
    ------
    TypeError
        For what is no mapping.

    Examples
    --------
    >>> sown({"encoder": {"hidden": (np.ones(2),)}, "calls": (np.ones(1), np.zeros(1))})
    {'encoder.hidden': array([1., 1.]), 'calls': (array([1.]), array([0.]))}
    """
    if not isinstance(intermediates, Mapping):
        raise TypeError(
            f"sown: `intermediates` must be a mapping, got {type(intermediates).__qualname__}. Pass what "
            "nnx.capture or apply(..., mutable=...) found."
        )
    found: dict[str, Any] = {}
    for name, part in intermediates.items():
        if isinstance(part, Mapping):
            found.update({f"{name}.{path}": value for path, value in sown(part).items()})
            continue
        value = part.get_value() if hasattr(part, "get_value") else part  # of one of nnx' variables
        found[str(name)] = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return found
