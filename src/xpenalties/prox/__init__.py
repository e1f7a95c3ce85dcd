r"""Proximal operators: what a penalty makes of weights in one exact step, zeros included.

The proximal operator of :math:`s f` maps :math:`x` to the :math:`z` with the least
:math:`\frac{1}{2} \|z - x\|^2 + s f(z)`. After a step of gradient descent on the loss alone, with a learning rate of
:math:`\eta`, that of :math:`\eta w f` is a step on the loss with the penalty :math:`w f`: proximal gradient descent.
A subgradient of a norm makes weights small; this makes them exactly 0.

Functions have the names, and the factors, of the penalties whose sums they belong to; `box` and `simplex` are
projections. They return an array like `x`, of its dtype; half precision is computed in float32. They can be traced.
"""

from ._operators import elastic_net, group_lasso, l1, l2, nuclear_norm
from ._projections import box, simplex
from ._trees import prox_step, sparsity

__all__ = ["box", "elastic_net", "group_lasso", "l1", "l2", "nuclear_norm", "prox_step", "simplex", "sparsity"]
