r"""Proximal operators: apply a penalty to parameters in one exact step, which sets some of them to exactly 0.

The proximal operator of :math:`s f` maps :math:`x` to the :math:`z` that minimizes
:math:`\frac{1}{2} \|z - x\|^2 + s f(z)`. Proximal gradient descent on a loss with the penalty :math:`w f` alternates
two steps: gradient descent on the loss alone, with learning rate :math:`\eta`, and the proximal operator of
:math:`\eta w f`. A subgradient of a norm makes parameters small; the proximal operator makes them exactly 0.

Each operator has the name and the factor convention of its penalty, reduced by "sum". Those of constraints are
projections: `box`, `non_negative`, `simplex`, `l1_ball`, `l2_ball`, `l2_sphere`, `spectral_ball` and `top_k`. With a
concave penalty (`mcp`, `scad`, `log_sum`, `lp`), the sum may have two minima. The operator returns the lower one, and
of two that are equal the one closer to 0. Operators return an array with the shape and dtype of `x`; half precision is
computed in float32. They can be traced, as by jax.jit.
"""

from ._balls import l1_ball, l2_ball, l2_sphere, spectral_ball
from ._concave import log_sum, lp, mcp, scad
from ._hard_threshold import top_k
from ._operators import elastic_net, group_lasso, l1, l2, nuclear_norm, sparse_group_lasso
from ._projections import box, non_negative, simplex
from ._trees import prox_step, sparsity

__all__ = [
    "box",
    "elastic_net",
    "group_lasso",
    "l1",
    "l1_ball",
    "l2",
    "l2_ball",
    "l2_sphere",
    "log_sum",
    "lp",
    "mcp",
    "non_negative",
    "nuclear_norm",
    "prox_step",
    "scad",
    "simplex",
    "sparse_group_lasso",
    "sparsity",
    "spectral_ball",
    "top_k",
]
