"""Controllers: weights that follow an observation of training, such as the KL divergence from a reference.

A controller is two pure functions. `init` returns a state. `step` takes a state and an observation, and returns the
next weight and the next state. A state is a dict of a number or a 0-d array: you can save it, and pass it through
`jax.jit`. There is no other state::

    controller = adaptive_kl(0.2, target=6.0)
    state = controller.init()
    for batch in batches:
        total, report = pipe.with_weights(kl=state["weight"]).compute(batch)
        weight, state = controller.step(state, report.regularizers["kl"].value)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from ._arrays.numerics import at_least_float32, stop_gradient
from ._arrays.scalars import PythonNamespace
from ._core.checks import FINITE, POSITIVE, Interval, check_argument, number_in
from ._core.shown import shown
from .backends import backend_of, common_backend

__all__ = ["Controller", "adaptive_kl", "target_entropy"]

State = dict[str, Any]
_FRACTION = number_in(Interval(0, 1, low_open=True))
_LEAST, _LARGEST = 2.0**-126, 2.0**127  # normal numbers of float32, because processors may flush smaller ones to 0
_BOUND = number_in(Interval(_LEAST, _LARGEST))
_RANGE = 1e8  # the default bounds are `initial` divided and multiplied by this


@dataclass(frozen=True, repr=False)
class Controller(ABC):
    """A pair of pure functions, `init` and `step`. Made by `adaptive_kl` and `target_entropy`."""

    name: str
    initial: float
    #: The least and the largest weight that `step` returns. A weight of 0 or infinity could never change again.
    minimum: float
    maximum: float

    def __repr__(self) -> str:
        """Return the call that makes this controller, without default bounds."""
        defaults = dict(zip(("minimum", "maximum"), _default_bounds(self.initial), strict=True))
        values = {field.name: getattr(self, field.name) for field in (*fields(self)[4:], *fields(self)[2:4])}
        named = [f"{name}={value!r}" for name, value in values.items() if value != defaults.get(name)]
        return f"{self.name}({', '.join([repr(self.initial), *named])})"

    def init(self, like: Any = None) -> State:
        """Return the first state.

        Parameters
        ----------
        like : array, optional
            The weight in the state becomes a 0-d array of its framework, device and dtype (float32 at least), so that a
            compiled step takes arrays from the start. By default it is a Python float.
        """
        if like is None:
            return {"weight": self.initial}
        backend = backend_of(like)
        if backend is None or backend.dtype(like.dtype).kind != "real":
            got = type(like).__qualname__ if backend is None else like.dtype
            raise TypeError(f"{self.name}: `like` must be a real floating-point array, got {got}. Pass an input.")
        constant = stop_gradient(like)
        dtype = backend.dtype(constant.dtype).working or constant.dtype
        device = backend.device(constant)
        return {"weight": backend.xp.asarray(self.initial, dtype=dtype, device=device)}

    def step(self, state: Mapping[str, Any], observed: Any) -> tuple[Any, State]:
        """Return the next weight and the next state.

        Parameters
        ----------
        state : dict
            The result of `init` or the last `step`.
        observed : number or 0-d array
            The value to control. An array that is NaN makes the weight NaN. A number that is NaN or infinite raises an
            error.

        Returns
        -------
        tuple of number or 0-d array, and dict
            Constants: no gradient flows through them.
        """
        if not isinstance(state, Mapping) or set(state) != {"weight"}:
            raise TypeError(
                f"{self.name}: `state` must be what `init` or `step` returned, got {shown(state)}. Pass that."
            )
        before = _scalar(self.name, "weight", state["weight"], other=observed)
        observed = _scalar(self.name, "observed", observed, other=state["weight"])
        arrays = {name: x for name, x in (("state", before), ("observed", observed)) if type(x) is not float}
        if not arrays:
            weight = self._next(before, observed)
            return weight, {"weight": weight}
        backend = common_backend(self.name, list(arrays), list(arrays.values()))
        observed = observed if type(observed) is float else at_least_float32(observed)
        weight = backend.evaluation.run(self._next, (before, observed), {})
        if type(before) is not float and weight.dtype != before.dtype:  # compiled loops need a state of one dtype
            weight = backend.xp.astype(weight, before.dtype)
        return weight, {"weight": weight}

    def _next(self, before: Any, observed: Any) -> Any:
        weight = before * self.factor(observed)
        xp = _namespace(weight)
        weight = xp.where(weight < self.minimum, self.minimum, weight)
        return xp.where(weight > self.maximum, self.maximum, weight)

    @abstractmethod
    def factor(self, observed: Any) -> Any:
        """Return the factor by which `step` multiplies the weight."""


def _scalar(caller: str, name: str, value: Any, *, other: Any) -> Any:
    """Return a Python float or a detached 0-d array.

    If `other` is another framework's array, a NumPy scalar counts as a number.
    """
    backend, other_backend = backend_of(value), backend_of(other)
    differs = backend is not None and other_backend is not None and other_backend.library != backend.library
    if backend is None or isinstance(value, Integral) or (differs and isinstance(value, Real)):
        return check_argument(caller, FINITE, name, value)
    if tuple(value.shape) != ():
        raise ValueError(f"{caller}: `{name}` must be 0-d, got shape {tuple(value.shape)}. Take its mean.")
    if backend.dtype(value.dtype).kind != "real":
        raise TypeError(f"{caller}: `{name}` must be floating-point, got {value.dtype}. Cast it.")
    return stop_gradient(value)


def _namespace(x: Any) -> Any:
    backend = None if type(x) is float else backend_of(x)
    return PythonNamespace if backend is None else backend.xp


@dataclass(frozen=True, repr=False)
class _AdaptiveKL(Controller):
    target: float
    gain: float
    clip: float

    def factor(self, observed: Any) -> Any:
        xp = _namespace(observed)
        error = observed / self.target - 1
        error = xp.where(error > self.clip, self.clip, error)
        error = xp.where(error < -self.clip, -self.clip, error)
        return 1 + self.gain * error


@dataclass(frozen=True, repr=False)
class _TargetEntropy(Controller):
    target: float
    rate: float

    def factor(self, observed: Any) -> Any:
        return _namespace(observed).exp(self.rate * (self.target - observed))


def _bounds(caller: str, initial: Any, minimum: Any, maximum: Any) -> tuple[float, float, float]:
    """Check the first weight and its bounds, and fill in their defaults."""
    initial = check_argument(caller, POSITIVE, "initial", initial)
    least, largest = _default_bounds(initial)
    minimum = least if minimum is None else check_argument(caller, _BOUND, "minimum", minimum)
    maximum = largest if maximum is None else check_argument(caller, _BOUND, "maximum", maximum)
    if not minimum <= initial <= maximum:
        raise ValueError(
            f"{caller}: `initial` must be between `minimum` and `maximum`, got {initial!r}, {minimum!r} and "
            f"{maximum!r}. Move the bound."
        )
    return initial, minimum, maximum


def _default_bounds(initial: float) -> tuple[float, float]:
    return max(initial / _RANGE, _LEAST), min(initial * _RANGE, _LARGEST)


def adaptive_kl(
    initial: float,
    *,
    target: float,
    gain: float = 0.1,
    clip: float = 0.2,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Controller:
    r"""Control a weight so that a KL divergence stays near a target.

    Each step multiplies the weight by :math:`1 + g \, \mathrm{clip}(\mathrm{KL} / \text{target} - 1, -c, c)`.

    Parameters
    ----------
    initial : float
        The first weight, > 0.
    target : float
        The desired divergence, > 0, in the units of the observation.
    gain : float, default 0.1
        :math:`g`, in (0, 1]. Other libraries have a horizon instead: then :math:`g` is the batch size divided by the
        horizon.
    clip : float, default 0.2
        :math:`c`, in (0, 1], the limit of the relative error. ``clip * gain`` must be below 1.
    minimum, maximum : float, optional
        Bounds of the weight, by default ``1e-8 * initial`` and ``1e8 * initial``. Without bounds, some thousand steps
        below the target would make a float32 weight 0 for good.

    Returns
    -------
    Controller

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    References
    ----------
    .. [1] Ziegler et al., "Fine-tuning language models from human preferences", 2019, section 2.2.

    Examples
    --------
    >>> controller = controllers.adaptive_kl(0.2, target=6.0)
    >>> state = controller.init()
    >>> weight, state = controller.step(state, 9.0)
    >>> round(weight, 4), state == {"weight": weight}
    (0.204, True)
    """
    bounds = _bounds("adaptive_kl", initial, minimum, maximum)
    target = check_argument("adaptive_kl", POSITIVE, "target", target)
    gain = check_argument("adaptive_kl", _FRACTION, "gain", gain)
    clip = check_argument("adaptive_kl", _FRACTION, "clip", clip)
    if gain * clip >= 1:
        raise ValueError(
            f"adaptive_kl: `gain` times `clip` must be below 1, got {gain} and {clip}. The weight would be 0 for good."
        )
    return _AdaptiveKL("adaptive_kl", *bounds, target=target, gain=gain, clip=clip)


def target_entropy(
    initial: float,
    *,
    target: float,
    rate: float = 3e-4,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Controller:
    r"""Control the weight of an entropy bonus so that a policy's entropy stays near a target.

    Each step multiplies the weight by :math:`e^{r (\text{target} - H)}`. This is gradient descent on the logarithm of
    the weight, as soft actor-critic tunes its temperature.

    Parameters
    ----------
    initial : float
        The first weight, > 0.
    target : float
        The desired entropy, in nats. It may be negative, as for continuous actions.
    rate : float, default 3e-4
        :math:`r`, > 0, per nat.
    minimum, maximum : float, optional
        As for `adaptive_kl`.

    Returns
    -------
    Controller
        Its `step` observes the entropy :math:`H`, which is the negated value of ``entropy(mode="bonus")``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    References
    ----------
    .. [1] Haarnoja et al., "Soft actor-critic algorithms and applications", 2018, section 5.

    Examples
    --------
    >>> controller = controllers.target_entropy(0.01, target=1.0, rate=0.1)
    >>> weight, state = controller.step(controller.init(), 0.5)
    >>> round(weight, 6)
    0.010513
    """
    return _TargetEntropy(
        "target_entropy",
        *_bounds("target_entropy", initial, minimum, maximum),
        target=check_argument("target_entropy", FINITE, "target", target),
        rate=check_argument("target_entropy", POSITIVE, "rate", rate),
    )
