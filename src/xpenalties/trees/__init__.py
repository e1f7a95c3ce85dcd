"""Penalties over trees of parameters: nests of arrays, some of whose leaves are meant.

A tree is a dict, list, tuple, named tuple or dataclass of arrays or of other trees, a pytree that JAX knows (Flax's and
Equinox's are), a state dict, or a module of PyTorch's, which stands for its parameters by name. Where a leaf is, its
path, is written with dots between keys, fields and indices: ``encoder.layers.0.weight``. Leaves that are no
floating-point arrays are left out.
"""

from ._over_tree import OverTree, over_tree
from ._selection import Selection

__all__ = ["OverTree", "Selection", "over_tree"]
