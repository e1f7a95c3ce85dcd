"""Controllers: weights that follow what is observed in training, such as the KL divergence from a reference.

A controller is two pure functions. `init` returns a state, and `step` of a state and an observation the weight to go on
with and the next state. A state is plain data, a dict of a number or a 0-d array: it can be saved, and passed through
`jax.jit`. Nothing else remembers anything::

    controller = adaptive_kl(0.2, target=6.0)
    state = controller.init()
    for batch in batches:
        total, report = pipe.with_weights(kl=state["weight"]).compute(batch)
        weight, state = controller.step(state, report.regularizers["kl"].value)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ._arrays.numerics import stop_gradient, wide
from ._arrays.scalars import Python
from ._core.checks import FINITE, POSITIVE, Interval, named, number
from .backends import backend_of, common_backend

__all__ = ["Controller", "adaptive_kl", "target_entropy"]

State = dict[str, Any]
_SHARE = number(Interval(0, 1, low_open=True))


@dataclass(frozen=True)
class Controller(ABC):
    """What `adaptive_kl` and `target_entropy` return: a pair of pure functions, `init` and `step`."""

    name: str
    initial: float

    def init(self, like: Any = None) -> State:
        """The first state.

        Parameters
        ----------
        like : array, optional
            The state is a 0-d array of its framework, device and dtype (float32 at least), so that a compiled step is
            given arrays from the beginning; by default a Python float.
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
        """The next weight, and the state to go on with.

        Parameters
        ----------
        state : dict
            What `init` or `step` has returned.
        observed : number or 0-d array
            What training has come to. One that is NaN makes the weight NaN, if it is an array; a number is refused.

        Returns
        -------
        tuple of number or 0-d array, and dict
            Constants: no gradient goes through them.
        """
        if not isinstance(state, Mapping) or set(state) != {"weight"}:
            raise TypeError(f"{self.name}: `state` must be what `init` or `step` returned, got {state!r}. Pass that.")
        given = state["weight"]
        before = _scalar(self.name, "weight", given, beside=observed)
        observed = _scalar(self.name, "observed", observed, beside=given)
        named_arrays = {n: x for n, x in (("state", before), ("observed", observed)) if type(x) is not float}
        if not named_arrays:
            weight = before * self.factor(observed)
            return weight, {"weight": weight}
        backend = common_backend(self.name, list(named_arrays), list(named_arrays.values()))
        weight = before * self.factor(observed if type(observed) is float else wide(observed))
        if type(before) is not float and weight.dtype != before.dtype:  # a state stays what it is, as loops want it
            weight = backend.xp.astype(weight, before.dtype)
        return weight, {"weight": weight}

    @abstractmethod
    def factor(self, observed: Any) -> Any:
        """What `step` multiplies the weight by."""


def _scalar(caller: str, name: str, value: Any, *, beside: Any) -> Any:
    """A Python float, or a 0-d array as a constant. NumPy's scalars are numbers beside another framework's arrays."""
    backend, other = backend_of(value), backend_of(beside)
    foreign = backend is not None and other is not None and other.library != backend.library
    if backend is None or isinstance(value, Integral) or (foreign and isinstance(value, Real)):
        return named(caller, FINITE, name, value)
    if tuple(value.shape) != ():
        raise ValueError(f"{caller}: `{name}` must be 0-d, got shape {tuple(value.shape)}. Take its mean.")
    if backend.dtype(value.dtype).kind != "real":
        raise TypeError(f"{caller}: `{name}` must be floating-point, got {value.dtype}. Cast it.")
    return stop_gradient(value)


def _functions(x: Any) -> Any:
    backend = None if type(x) is float else backend_of(x)
    return Python if backend is None else backend.xp


@dataclass(frozen=True)
class _AdaptiveKL(Controller):
    target: float
    gain: float
    clip: float

    def factor(self, observed: Any) -> Any:
        xp = _functions(observed)
        error = observed / self.target - 1
        error = xp.where(error > self.clip, self.clip, error)
        error = xp.where(error < -self.clip, -self.clip, error)
        return 1 + self.gain * error


@dataclass(frozen=True)
class _TargetEntropy(Controller):
    target: float
    rate: float

    def factor(self, observed: Any) -> Any:
        return _functions(observed).exp(self.rate * (self.target - observed))


def adaptive_kl(initial: float, *, target: float, gain: float = 0.1, clip: float = 0.2) -> Controller:
    r"""A weight that keeps a KL divergence near a target.

    Each step multiplies it by :math:`1 + g \, \mathrm{clip}(KL / \text{target} - 1, -c, c)`.

    Parameters
    ----------
    initial : float
        The first weight, > 0.
    target : float
        The divergence to have, > 0, in the units of what is observed.
    gain : float, default 0.1
        :math:`g` in (0, 1]; libraries that have a horizon divide the size of a batch by it.
    clip : float, default 0.2
        :math:`c` in (0, 1]: the largest relative error that counts. Times `gain` below 1.

    Returns
    -------
    Controller

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind or value.

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
    initial = named("adaptive_kl", POSITIVE, "initial", initial)
    target = named("adaptive_kl", POSITIVE, "target", target)
    gain = named("adaptive_kl", _SHARE, "gain", gain)
    clip = named("adaptive_kl", _SHARE, "clip", clip)
    if gain * clip >= 1:
        raise ValueError(
            f"adaptive_kl: `gain` times `clip` must be below 1, got {gain} and {clip}. The weight would be 0 for good."
        )
    return _AdaptiveKL("adaptive_kl", initial, target=target, gain=gain, clip=clip)


def target_entropy(initial: float, *, target: float, rate: float = 3e-4) -> Controller:
    r"""A weight for an entropy bonus that keeps a policy's entropy near a target.

    Each step multiplies it by :math:`e^{r (\text{target} - H)}`: gradient descent on the logarithm of the weight, as
    soft actor-critic tunes its temperature.

    Parameters
    ----------
    initial : float
        The first weight, > 0.
    target : float
        The entropy to have, in nats; below 0 for continuous actions, for example.
    rate : float, default 3e-4
        :math:`r`, > 0, for each nat.

    Returns
    -------
    Controller
        What it observes is the entropy :math:`H`, of ``entropy(mode="bonus")`` the value with its sign changed.

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind or value.

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
        named("target_entropy", POSITIVE, "initial", initial),
        target=named("target_entropy", FINITE, "target", target),
        rate=named("target_entropy", POSITIVE, "rate", rate),
    )
