"""Composable regularization penalties for any framework's arrays.

The mathematics of each penalty is written once against the Python array API standard and dispatched at call time by the
arrays it is given: NumPy, CuPy, PyTorch, JAX, and whatever else follows the standard.
"""

from importlib.metadata import version

from . import (
    _divergences,
    _finite,
    _gradient_penalties,
    _history,
    _linear,
    _loss,
    _norms,
    _structure,
    controllers,
    prox,
    schedules,
    transforms,
    trees,
)
from ._blocks import block_size
from ._compile import Compiled, compile
from ._config_schema import config_schema
from ._divergences import *  # noqa: F403
from ._finite import *  # noqa: F403
from ._gradient_penalties import *  # noqa: F403
from ._gradients import grad, grad_norm, value_and_grad
from ._handover import to_like
from ._history import *  # noqa: F403
from ._linear import *  # noqa: F403
from ._loss import *  # noqa: F403
from ._norms import *  # noqa: F403
from ._pipeline import Pipeline
from ._register import register
from ._report import PenaltyReport, Report
from ._structure import *  # noqa: F403
from ._weighted import Penalty
from .backends import namespace, register_loaded

__all__ = [
    *_norms.__all__,
    *_divergences.__all__,
    *_linear.__all__,
    *_structure.__all__,
    *_gradient_penalties.__all__,
    *_finite.__all__,
    "grad",
    "grad_norm",
    "value_and_grad",
    "Penalty",
    "Pipeline",
    "register",
    "config_schema",
    *_loss.__all__,
    "PenaltyReport",
    "Report",
    *_history.__all__,
    "Compiled",
    "compile",
    "block_size",
    "controllers",
    "prox",
    "schedules",
    "transforms",
    "trees",
    "namespace",
    "to_like",
]
__version__ = version("xpenalties")

register_loaded()
