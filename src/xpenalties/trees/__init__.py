"""Penalties over trees of parameters.

A tree is a pytree of arrays: a dict, list, tuple, named tuple or dataclass of arrays or other trees, such as a state
dict. Any pytree that JAX knows is a tree too, such as a Flax or Equinox module. A PyTorch module stands for its named
parameters. The path of a leaf joins keys, fields and indices with dots: ``encoder.layers.0.weight``. Leaves that are
not floating-point arrays are ignored. Each leaf counts, even if two are the same array.

Shared parameters count once in a module, but twice in its state dict, where they have two names. A state dict also has
buffers. So pass the module, or ``dict(model.named_parameters())``.
"""

from ._anchored import anchored
from ._modules import paths_within
from ._over_tree import OverTree, over_tree
from ._patterns import Pattern
from ._selection import Selection

__all__ = ["OverTree", "Pattern", "Selection", "anchored", "over_tree", "paths_within"]
