"""Gradient noise."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.scalars import scalar
from .._core.checks import NON_NEGATIVE
from ..backends import common_backend
from ..trees._selection import Patterns
from ._base import GradientTransformation, checked_state, counted, in_working_dtype, initial_step

__all__ = ["NoiseState", "add_noise"]


class NoiseState(NamedTuple):
    """The state of `add_noise`."""

    #: The number of updates so far, a 0-d array.
    step: Any
    #: What to draw from next.
    rng: Any


def add_noise(eta: Any, *, gamma: Any = 0.55, rng: Any) -> GradientTransformation:
    r"""Add Gaussian noise that fades: with variance :math:`\eta / (1 + t)^\gamma` at step :math:`t`.

    Parameters
    ----------
    eta : float or 0-d array
        The variance at step 0, >= 0; Neelakantan et al. try 0.01, 0.3 and 1.
    gamma : float or 0-d array, default 0.55
        How fast it fades, >= 0.
    rng : generator
        A JAX key, which each state has another one of; or a `torch.Generator` or `numpy.random.Generator`, which
        drawing changes.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value; by `update` for a generator that is not of the arrays' framework, and for
        complex arrays.

    Notes
    -----
    As `optax.add_noise`, of which it has not the very numbers.

    References
    ----------
    .. [1] Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015.

    Examples
    --------
    >>> noise = transforms.add_noise(0.01, rng=np.random.default_rng(0))
    >>> gradients = np.zeros(3)
    >>> updates, state = noise.update(gradients, noise.init(gradients))
    >>> updates.shape, int(state.step)
    ((3,), 1)
    """
    eta = scalar("add_noise", NON_NEGATIVE, "eta", eta)
    gamma = scalar("add_noise", NON_NEGATIVE, "gamma", gamma)
    everything = Patterns.of("add_noise", None, None)

    def init(params: Any) -> NoiseState:
        return NoiseState(initial_step("add_noise", params), rng)

    def update(updates: Any, state: NoiseState, params: Any = None) -> tuple[Any, NoiseState]:
        checked_state("add_noise", NoiseState, state)
        selected = everything.find("add_noise", "updates", updates)
        arrays = selected.chosen()
        if not arrays:
            return updates, state._replace(step=counted(state.step))
        backend = common_backend("add_noise", [selected.paths[i] for i in selected.places], arrays)
        following, *rngs = backend.split("add_noise", state.rng, len(arrays) + 1)
        drawn = iter(rngs)

        def noisy(update: Any, time: Any, eta: Any, gamma: Any) -> Any:
            if backend.dtype(update.dtype).kind != "real":
                raise TypeError(f"add_noise: `updates` must be real, got {update.dtype}. Split it into its parts.")
            deviation = (eta / (1 + time) ** gamma) ** 0.5
            return update + deviation * backend.normal("add_noise", next(drawn), tuple(update.shape), update)

        figures = state.step, eta, gamma
        new = selected.replaced([in_working_dtype("add_noise", noisy, [x], *figures) for x in arrays])
        return new, NoiseState(counted(state.step), following)

    return GradientTransformation(init, update)
