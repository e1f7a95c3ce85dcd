"""Gradient transforms: change gradients, or an optimizer's updates, on their way to the parameters.

The protocol is Optax's: ``init(params)`` returns a state, and ``update(updates, state, params)`` returns the
transformed updates and the next state. Both are free of side effects. `optax.chain` takes these transforms as they are.
Trees may hold any framework's arrays, as `xpenalties.trees` describes them. Leaves that are not floating-point arrays,
such as None for a parameter without a gradient, are returned unchanged. Half precision is computed in float32 and cast
back::

    transform = transforms.chain(transforms.clip_by_global_norm(1.0), transforms.add_l2_decay(1e-4))
    state = transform.init(params)
    updates, state = transform.update(gradients, state, params)

The weight of a decay is a number >= 0, a 0-d array, or a schedule: a callable of the number of updates so far. By
default, a decay adds to the gradient before the optimizer sees it. A `decoupled` decay changes the optimizer's updates,
which already contain the sign and the learning rate (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR
2019). Its weight is multiplied by the learning rate only if you pass ``learning_rate=`` to `update`. In PyTorch, call
transforms under `torch.no_grad` unless you differentiate through the updates.
"""

from ._base import GradientTransformation, StepState
from ._chaining import apply_updates, chain
from ._clipping import clip, clip_by_block_rms, clip_by_global_norm
from ._decay import add_elastic_net_decay, add_l1_decay, add_l2_decay, proximal
from ._noise import NoiseState, add_noise
from ._units import adaptive_gradient_clipping, centralize

__all__ = [
    "GradientTransformation",
    "NoiseState",
    "StepState",
    "adaptive_gradient_clipping",
    "add_elastic_net_decay",
    "add_l1_decay",
    "add_l2_decay",
    "add_noise",
    "apply_updates",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "proximal",
]
