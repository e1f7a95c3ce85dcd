"""Composable regularization penalties for PyTorch, JAX, NumPy and CuPy.

The mathematics of each penalty is written once, against the Python array API standard. At call time the arrays decide
which framework computes it: NumPy, CuPy, PyTorch, JAX, or any other library that follows the standard.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import controllers, importance, prox, schedules, transforms, trees
from ._arrays import finite as _finite
from ._arrays import value_checks as _value_checks
from ._arrays.conversion import to_like
from ._arrays.finite import *  # noqa: F403
from ._arrays.gradients import grad, grad_norm, value_and_grad
from ._arrays.value_checks import *  # noqa: F403
from ._compilation.compiled import Compiled, compile
from ._core.registry import register
from ._penalties import adversarial as _adversarial
from ._penalties import bernoulli_kl as _bernoulli_kl
from ._penalties import coding_rate as _coding_rate
from ._penalties import concave as _concave
from ._penalties import coral as _coral
from ._penalties import cross_orthogonality as _cross_orthogonality
from ._penalties import divergences as _divergences
from ._penalties import f_divergences as _f_divergences
from ._penalties import features as _features
from ._penalties import gaussian_kl as _gaussian_kl
from ._penalties import gradient_penalties as _gradient_penalties
from ._penalties import groups as _groups
from ._penalties import linear_divergences as _linear
from ._penalties import lipschitz as _lipschitz
from ._penalties import matrix_norms as _matrix_norms
from ._penalties import mixture_of_experts as _mixture_of_experts
from ._penalties import mutual_information as _mutual_information
from ._penalties import norms as _norms
from ._penalties import representations as _representations
from ._penalties import robust as _robust
from ._penalties import sample_distances as _sample_distances
from ._penalties import smoothness as _smoothness
from ._penalties import sparsity as _sparsity
from ._penalties import spread as _spread
from ._penalties import token_log_probabilities as _token_log_probabilities
from ._penalties import topk_and_sampled_divergences as _partial_divergences
from ._penalties import topk_js_divergence as _topk_js_divergence
from ._penalties import transport as _transport
from ._penalties.adversarial import *  # noqa: F403
from ._penalties.bernoulli_kl import *  # noqa: F403
from ._penalties.coding_rate import *  # noqa: F403
from ._penalties.concave import *  # noqa: F403
from ._penalties.coral import *  # noqa: F403
from ._penalties.cross_orthogonality import *  # noqa: F403
from ._penalties.divergences import *  # noqa: F403
from ._penalties.f_divergences import *  # noqa: F403
from ._penalties.features import *  # noqa: F403
from ._penalties.gaussian_kl import *  # noqa: F403
from ._penalties.gradient_penalties import *  # noqa: F403
from ._penalties.groups import *  # noqa: F403
from ._penalties.linear_divergences import *  # noqa: F403
from ._penalties.lipschitz import *  # noqa: F403
from ._penalties.matrix_norms import *  # noqa: F403
from ._penalties.mixture_of_experts import *  # noqa: F403
from ._penalties.mutual_information import *  # noqa: F403
from ._penalties.norms import *  # noqa: F403
from ._penalties.representations import *  # noqa: F403
from ._penalties.robust import *  # noqa: F403
from ._penalties.sample_distances import *  # noqa: F403
from ._penalties.smoothness import *  # noqa: F403
from ._penalties.sparsity import *  # noqa: F403
from ._penalties.spread import *  # noqa: F403
from ._penalties.token_log_probabilities import *  # noqa: F403
from ._penalties.topk_and_sampled_divergences import *  # noqa: F403
from ._penalties.topk_js_divergence import *  # noqa: F403
from ._penalties.transport import *  # noqa: F403
from ._pipeline import regularized_loss as _regularized_loss
from ._pipeline.config.schema import config_schema
from ._pipeline.penalty import Penalty
from ._pipeline.pipeline import Pipeline
from ._pipeline.regularized_loss import *  # noqa: F403
from ._reports import history as _history
from ._reports.history import *  # noqa: F403
from ._reports.report import PenaltyReport, Report
from .backends import namespace
from .backends import register_loaded as _register_loaded
from .backends._blocks import block_size
from .backends._over import over

__all__ = [
    *_norms.__all__,
    *_groups.__all__,
    *_robust.__all__,
    *_sparsity.__all__,
    *_concave.__all__,
    *_matrix_norms.__all__,
    *_smoothness.__all__,
    *_divergences.__all__,
    *_f_divergences.__all__,
    *_bernoulli_kl.__all__,
    *_gaussian_kl.__all__,
    *_partial_divergences.__all__,
    *_topk_js_divergence.__all__,
    *_linear.__all__,
    *_token_log_probabilities.__all__,
    *_representations.__all__,
    *_cross_orthogonality.__all__,
    *_features.__all__,
    *_spread.__all__,
    *_coding_rate.__all__,
    *_sample_distances.__all__,
    *_coral.__all__,
    *_transport.__all__,
    *_mixture_of_experts.__all__,
    *_mutual_information.__all__,
    *_gradient_penalties.__all__,
    *_lipschitz.__all__,
    *_adversarial.__all__,
    *_finite.__all__,
    *_value_checks.__all__,
    "grad",
    "grad_norm",
    "value_and_grad",
    "Penalty",
    "Pipeline",
    "register",
    "config_schema",
    *_regularized_loss.__all__,
    "PenaltyReport",
    "Report",
    *_history.__all__,
    "Compiled",
    "compile",
    "block_size",
    "over",
    "controllers",
    "importance",
    "prox",
    "schedules",
    "transforms",
    "trees",
    "namespace",
    "to_like",
]
__version__: str

if not _TYPE_CHECKING:  # pragma: no branch - a type checker would take any name for an attribute

    def __getattr__(name: str) -> object:
        """Return an attribute that takes time to import."""
        if name == "__version__":
            from importlib.metadata import version

            return version("xpenalties")
        if name == "integrations":
            from importlib import import_module

            return import_module("xpenalties.integrations")
        raise AttributeError(f"module 'xpenalties' has no attribute {name!r}")


def __dir__() -> list[str]:
    special = (name for name in globals() if name.startswith("__"))
    return sorted({*__all__, "backends", "integrations", "telemetry", "__version__", *special})


_register_loaded()
