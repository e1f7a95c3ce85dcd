"""A gradient transform that adds noise."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.scalars import scalar
from .._core.checks import NON_NEGATIVE
from ..backends import common_backend
from ..trees._selection import Patterns
from ._base import GradientTransformation, check_state, in_working_dtype, incremented, initial_step, remember_call

__all__ = ["NoiseState", "add_noise"]


class NoiseState(NamedTuple):
    """The state of `add_noise`."""

    #: The number of updates so far, a 0-d array.
    step: Any
    #: The generator for the next update.
    rng: Any


@remember_call
def add_noise(eta: Any, *, gamma: Any = 0.55, rng: Any) -> GradientTransformation:
    r"""Add Gaussian noise whose variance decays: :math:`\eta / (1 + t)^\gamma` at step :math:`t`.

    Parameters
    ----------
    eta : float or 0-d array
        The variance at step 0, >= 0; Neelakantan et al. try 0.01, 0.3 and 1.
    gamma : float or 0-d array, default 0.55
        How fast the variance decays, >= 0.
    rng : generator
        A JAX key, which each update replaces with a new one in the state; or a `torch.Generator` or
        `numpy.random.Generator`, which changes with each draw.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or value. `update` raises it if the generator does not fit the arrays'
        framework, or an array is complex.

    Notes
    -----
    Same distribution as `optax.add_noise`, but other random numbers.

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
        check_state("add_noise", NoiseState, state)
        selected = everything.find("add_noise", "updates", updates)
        arrays = selected.arrays()
        if not arrays:
            return updates, state._replace(step=incremented(state.step))
        backend = common_backend("add_noise", selected.array_paths(), arrays)
        next_rng, *rngs = backend.random.split("add_noise", state.rng, len(arrays) + 1)
        remaining = iter(rngs)

        def noisy(update: Any, time: Any, eta: Any, gamma: Any) -> Any:
            if backend.dtype(update.dtype).kind != "real":
                raise TypeError(f"add_noise: `updates` must be real, got {update.dtype}. Split it into its parts.")
            deviation = (eta / (1 + time) ** gamma) ** 0.5
            return update + deviation * backend.random.normal("add_noise", next(remaining), tuple(update.shape), update)

        scalars = state.step, eta, gamma
        noisy_updates = selected.replaced([in_working_dtype("add_noise", noisy, [x], *scalars) for x in arrays])
        return noisy_updates, NoiseState(incremented(state.step), next_rng)

    return GradientTransformation(init, update)
