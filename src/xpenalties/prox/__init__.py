r"""Proximal operators: apply a penalty to parameters in one exact step, which sets some of them to exactly 0.

The proximal operator of :math:`s f` maps :math:`x` to the :math:`z` that minimizes
:math:`\frac{1}{2} \|z - x\|^2 + s f(z)`. Proximal gradient descent on a loss with the penalty :math:`w f` alternates
two steps: gradient descent on the loss alone, with learning rate :math:`\eta`, and the proximal operator of
:math:`\eta w f`. A subgradient of a norm makes parameters small; the proximal operator makes them exactly 0.

Each operator has the name and the factor convention of its penalty, reduced by "sum"; `box` and `simplex` are
projections. Operators return an array with the shape and dtype of `x`; half precision is computed in float32. They can
be traced, as by jax.jit.
"""

from ._operators import elastic_net, group_lasso, l1, l2, nuclear_norm
from ._projections import box, simplex
from ._trees import prox_step, sparsity

__all__ = ["box", "elastic_net", "group_lasso", "l1", "l2", "nuclear_norm", "prox_step", "simplex", "sparsity"]
