"""Penalties in JAX's training loops: a training step for Optax's optimizers, and values that Flax modules sow.

For example::

    loss = RegularizedLoss(base_loss, pipeline)
    step = train_step(forward, loss, optimizer)
    for i, batch in enumerate(batches):
        params, state, report = step(params, state, *batch, step=i)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._core.optional import require

with require("JAX", needed_by=__name__, install="xpenalties[jax]"):
    import jax  # noqa: F401

from .._pipeline.regularized_loss import RegularizedLoss
from ..transforms._base import GradientTransformation, check_transform
from ._jax_step import Step
from ._named_inputs import check_inputs

__all__ = ["sown", "train_step"]


def train_step(
    forward: Callable[..., Any],
    loss: RegularizedLoss,
    optimizer: GradientTransformation,
    *,
    has_aux: bool = False,
    jit: bool = True,
) -> Callable[..., tuple[Any, ...]]:
    """Make a compiled training step: forward pass, loss with penalties, gradients, and the optimizer's update.

    Parameters
    ----------
    forward : callable
        ``forward(params, *batch)`` returns the mapping of inputs for the base loss and the penalties. The step adds
        ``"params"`` to it.
    loss : RegularizedLoss
        The base loss and the pipeline. Both take the mapping.
    optimizer : GradientTransformation
        One of Optax's, or of `xpenalties.transforms`. If its `update` takes `value`, `grad` or `value_fn`, the step
        passes them.
    has_aux : bool, default False
        Whether `forward` returns a pair: the mapping, and other state of the model, which the step returns too.
    jit : bool, default True
        Whether to compile the step.

    Returns
    -------
    callable
        ``step(params, state, *batch, step=None, weights=None, **options)`` returns the parameters, the optimizer's
        state, the `Report`, and with `has_aux` the other state. `params` is any pytree of arrays: of an Equinox module,
        pass the arrays. `weights` sets weights by name, like `Pipeline.with_weights`. New values do not recompile the
        step.

        `options` are `track_grad_norms`, `wrt` and `gradient_conflicts`, as for `Pipeline.compute`. Steps with other
        values of these options are other programs. Norms are by default with respect to the parameters: `forward` is
        evaluated once, and each penalty's gradient is pulled back through it. `wrt` may instead name inputs that
        `forward` returns. Norms are then those of the base loss and the penalties as functions of these inputs.
        Tracking does not change the training, except for rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, or a built-in penalty of the loss does not name its inputs.

    Examples
    --------
    >>> def forward(params, x, y):
    ...     hidden = jax.numpy.tanh(x @ params["first"])
    ...     return {"hidden": hidden, "error": hidden @ params["second"] - y}
    >>> pipe = Pipeline(
    ...     [
    ...         Penalty("l1", inputs="hidden", weight=0.01),
    ...         Penalty("l2", tree={"match": "second"}, name="decay", inputs="params", weight=0.1),
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
    check_inputs("train_step", loss.pipeline, example="params")
    check_transform("train_step", "optimizer", optimizer)
    return Step(forward, loss, optimizer, has_aux, jit)


def sown(intermediates: Any) -> dict[str, Any]:
    """Return the values that Flax modules have sown, by path.

    Parameters
    ----------
    intermediates : flax.nnx.State or mapping
        The second result of a function under `flax.nnx.capture`, or Linen's collection ``state["intermediates"]``.

    Returns
    -------
    dict
        Arrays by path, with dots between the names: ``"encoder.hidden"``. A tuple, if a value was sown several times.

    Raises
    ------
    TypeError
        If `intermediates` is not a mapping.

    Examples
    --------
    >>> sown({"encoder": {"hidden": (np.ones(2),)}, "calls": (np.ones(1), np.zeros(1))})
    {'encoder.hidden': array([1., 1.]), 'calls': (array([1.]), array([0.]))}
    """
    if not isinstance(intermediates, Mapping):
        raise TypeError(
            f"sown: `intermediates` must be a mapping, got {type(intermediates).__qualname__}. Pass what "
            "nnx.capture or apply(..., mutable=...) returned."
        )
    values: dict[str, Any] = {}
    for name, child in intermediates.items():
        if isinstance(child, Mapping):
            values.update({f"{name}.{path}": value for path, value in sown(child).items()})
            continue
        value = child.get_value() if hasattr(child, "get_value") else child  # an nnx variable
        values[str(name)] = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return values
