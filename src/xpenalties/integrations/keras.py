"""Penalties as regularizers of Keras 3, on its PyTorch and JAX backends.

For example::

    layer = keras.layers.Dense(8, kernel_regularizer=KerasRegularizer("group_lasso", weight=1e-3))
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from .._core.optional import require

with require("Keras 3", needed_by=__name__, install="xpenalties[keras]", remedy=", and PyTorch or JAX"):
    import keras

from .._core.shown import listed
from .._pipeline.penalty import Penalty
from .._pipeline.penalty_inputs import names_in
from .._pipeline.pipeline import Pipeline

__all__ = ["KerasRegularizer"]


@keras.saving.register_keras_serializable(package="xpenalties")
class KerasRegularizer(keras.regularizers.Regularizer):  # type: ignore[misc]
    """A penalty or a pipeline as `kernel_regularizer`, `bias_regularizer` or `activity_regularizer`.

    It is saved with the model, by `Pipeline.to_config`. For that, name your own functions with `register`.

    Parameters
    ----------
    penalty : str, Penalty, Pipeline, or configuration
        A string that ends in ``.toml`` or ``.json`` is a configuration file; any other is the name of a penalty. A
        configuration is what `Pipeline.from_config` takes.
    weight : float, default 1.0
        The weight, if `penalty` is a name.
    **options
        Options of the penalty, if `penalty` is a name.

    Raises
    ------
    TypeError, ValueError
        As for `Penalty` and `Pipeline.from_config`. Also if a weight is a schedule, because Keras passes no step. Also
        if a penalty names its inputs, or if `weight` or options are passed with a penalty that has its own.

    Notes
    -----
    The penalty gets the array of Keras' backend, PyTorch or JAX, and Keras adds its value to the loss. An activity
    regularizer gets the whole batch: sums such as `l1` are over the batch, and Keras divides them by the batch size.
    Keras before 3.14 does not divide them, so the extra `keras` requires 3.14.

    Examples
    --------
    >>> regularizer = KerasRegularizer("elastic_net", weight=0.01, l1_ratio=0.9)
    >>> float(regularizer(keras.ops.ones((2, 3))))  # doctest: +ELLIPSIS
    0.0599...
    >>> KerasRegularizer.from_config(regularizer.get_config()).pipeline["elastic_net"]
    Penalty('elastic_net', weight=0.01, options={'l1_ratio': 0.9})
    """

    def __init__(
        self,
        penalty: str | Penalty | Pipeline | Mapping[str, Any] | list[Any] | PathLike[str],
        *,
        weight: float | None = None,
        **options: Any,
    ) -> None:
        by_name = isinstance(penalty, str) and not penalty.endswith((".toml", ".json"))
        if not by_name and (weight is not None or options):
            raise TypeError(
                "KerasRegularizer: `weight` and options must come with a penalty's name, got them with "
                f"{type(penalty).__qualname__}. Pass them to the Penalty."
            )
        if isinstance(penalty, Pipeline):
            self.pipeline = penalty
        elif isinstance(penalty, Penalty):
            self.pipeline = Pipeline([penalty])
        elif by_name and isinstance(penalty, str):
            self.pipeline = Pipeline([Penalty(penalty, weight=1.0 if weight is None else weight, options=options)])
        else:
            self.pipeline = Pipeline.from_config(penalty)
        for member in self.pipeline:
            if callable(member.weight) or member.every != 1:
                raise ValueError(
                    "KerasRegularizer: weights must be numbers, and `every` must be 1, because Keras passes "
                    f"no step, got others in {member.name!r}. Use `pipeline.at(step)`."
                )
            if names_in(member.inputs):
                raise ValueError(
                    "KerasRegularizer: penalties must not name inputs, because Keras passes one array, got "
                    f"{listed(names_in(member.inputs))} in {member.name!r}. Leave `inputs` out."
                )

    def __call__(self, x: Any) -> Any:
        """Return the weighted sum of the penalties, a 0-d array of Keras' backend."""
        return self.pipeline(x.value if isinstance(x, keras.Variable) else x)

    def get_config(self) -> dict[str, Any]:
        """Return a configuration of JSON types, from which `from_config` makes an equal regularizer."""
        return {"config": self.pipeline.to_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KerasRegularizer:
        """Make a regularizer from a result of `get_config`."""
        return cls(config["config"])
