"""The specification of a penalty: formula, options and their checks, what a term belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._core.checks import Check, check_argument
from .._core.registry import PENALTIES
from .._core.suggestions import did_you_mean
from ..backends import is_array

__all__ = ["SHARED", "Distributions", "Extra", "Reduction", "Shape", "Spec", "spec_of"]

Shape = Literal["elements", "neighborhoods", "rows", "matrices", "samples", "whole"]
Reduction = Literal["sum", "mean", "none"]
#: A formula may request the mask over its arrays, the weights of its terms or samples, the eps of its dtype.
Extra = Literal["mask", "weights", "eps"]
#: What the arrays hold: log-probabilities of all classes, of some classes, or of single elements.
Distributions = Literal["complete", "partial", "elements"]
SHARED = ("reduction", "where", "weights", "normalizer")  # the options that every penalty takes


@dataclass(frozen=True, eq=False)
class Spec:
    """The properties of a penalty, which the decorator `penalty` collects."""

    name: str
    formula: Callable[..., Any]
    functions: tuple[str, ...]  # names of the arguments before the arrays
    arrays: tuple[str, ...]
    matrices: tuple[int, ...]  # indices of the arrays that all rows share, see `Work`
    checks: Mapping[str, Check]
    defaults: Mapping[str, Any]
    terms: Shape | Callable[[Mapping[str, Any]], Shape]
    reduction: Reduction
    complex: bool
    extras: frozenset[Extra]  # what the formula gets in addition to the options
    check_arrays: (
        Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None
    )  # the formula's own check of arrays and options

    distributions: Callable[[Mapping[str, Any]], Distributions | None]  # of the options; None: no log-probabilities
    samples: Shape | Callable[[Mapping[str, Any]], Shape | None] | None = None  # of a statistic
    differentiates: bool = True  # the functions, if there are any
    same_shape: bool = True  # of all arrays; else the sizes of rows, or the numbers of rows of matrices, may differ

    def shape_of_samples(self, options: Mapping[str, Any]) -> Shape | None:
        """Return what a sample is if the penalty is a statistic of samples, for given options. Else None."""
        return self.samples({**self.defaults, **options}) if callable(self.samples) else self.samples

    def selected(self, options: Mapping[str, Any]) -> Shape:
        """Return what `where` and `weights` select, for given options: terms, or the samples of a statistic."""
        return self.shape_of_samples(options) or self.shape_of_terms(options)

    def shape_of_terms(self, options: Mapping[str, Any]) -> Shape:
        """Return what a term belongs to, for given options. A statistic has a single one."""
        if self.samples is not None and self.shape_of_samples(options) is not None:
            return "whole"
        return self.terms({**self.defaults, **options}) if callable(self.terms) else self.terms

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Check options. Returns them as plain Python values."""
        for name in options:
            if name not in self.checks:
                valid = (*self.checks, *SHARED)
                raise TypeError(
                    f"{self.name}: `{name}` is not an option. The options are {', '.join(valid)}."
                    + did_you_mean(name, valid)
                )
        checked = {}
        try:
            for name, value in options.items():
                checked[name] = self.checks[name](name, value)
        except (TypeError, ValueError) as error:
            remedy = self._remedy_for_array() if name == "temperature" and is_array(value) else ""
            raise type(error)(f"{self.name}: {error}{remedy}") from None
        return checked

    def _remedy_for_array(self) -> str:
        """Say what to do in place of a temperature that is an array. For linear layers, hidden states are divided."""
        divided = [f"{name} / t" if not name.startswith("weight") else name for name in self.arrays]
        options = ", from_logits=True" if "from_logits" in self.checks else ""
        return f" To learn or anneal it, divide by it: {self.name}({', '.join(divided)}{options})."

    def check(self, name: str, value: Any, check: Check) -> Any:
        """Check one value. Returns it as `check` does; errors name the penalty."""
        return check_argument(self.name, check, name, value)


def spec_of(function: object) -> Spec | None:
    """Return the specification of a penalty that `penalty` made, or None for any other function.

    The attribute alone is no proof: functools.wraps copies it to wrappers such as jax.jit(l1) or grad(l1).
    """
    spec = getattr(function, "spec", None)
    return spec if isinstance(spec, Spec) and PENALTIES.get(spec.name) is function else None
