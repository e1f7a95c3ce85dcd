"""Gradient transforms: what is done to gradients, or to an optimizer's updates, on their way to the parameters.

The protocol is Optax's: ``init(params)`` makes a state and ``update(updates, state, params)`` returns the transformed
updates and the next state, both without side effects; the transforms go into `optax.chain` as they are. Trees are taken
of any framework's arrays, as `xpenalties.trees` describes them. Leaves that are no floating-point arrays, such as None
for a parameter without a gradient, stay as they are. Half precision is computed in float32 and returned as it came::

    transform = transforms.chain(transforms.clip_by_global_norm(1.0), transforms.add_l2_decay(1e-4))
    state = transform.init(params)
    updates, state = transform.update(gradients, state, params)

The weight of a decay is a number >= 0, a 0-d array, or a schedule: a callable of the number of updates so far. A decay
that is not `decoupled` adds to the gradient, before the optimizer sees it. One that is works on what comes out of the
optimizer and is added to the parameters, learning rate and sign included; the learning rate does not multiply its
weight (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019). PyTorch users who do not differentiate
through the updates call them under `torch.no_grad`.
"""

from ._base import GradientTransformation, StepState
from ._chaining import apply_updates, chain
from ._clipping import adaptive_gradient_clipping, centralize, clip_by_global_norm
from ._decay import add_elastic_net_decay, add_l1_decay, add_l2_decay, proximal
from ._noise import NoiseState, add_noise

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
    "clip_by_global_norm",
    "proximal",
]
