"""torch.compile makes two programs of a numeric option that changes: for the first value, and for all values."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, options_of

VALUES = (0.11, 0.37, 0.52, 0.83)  # valid for every option but one, and none that a formula treats on its own, as 1
ABOVE = {"scad-a": 2.0, "wasserstein-p": 1.0, "sliced_wasserstein-p": 1.0}  # what an option must be above, if not 0


def is_number(hint: Any) -> bool:
    """Return True if an option's annotation accepts any floating-point number of an interval."""
    if get_origin(hint) is Annotated:
        return is_number(get_args(hint)[0])
    return hint is float or float in get_args(hint) or any(map(is_number, get_args(hint)))


def numeric_options() -> dict[str, tuple[Case, str]]:
    """Return the first row of each penalty that has a numeric option, for each such option."""
    rows: dict[str, tuple[Case, str]] = {}
    for case in CASES:
        spec = case.function.spec
        hints = get_type_hints(spec.formula, include_extras=True)
        names = [name for name in spec.defaults if is_number(hints[name])]
        if spec.name == "l0":  # each of its kinds has options of its own
            names = [name for name in names if name in case.options]
        if spec.name == "entropy":  # Shannon's has no power
            names = [name for name in names if name != "alpha" or name in case.options]
        for name in [
            *names,
            *(["center"] if spec.name == "l2" else []),
            *(["normalizer"] if spec.name == "l1" else []),
        ]:
            rows.setdefault(f"{spec.name}-{name}", (case, name))
    return rows


OPTIONS = numeric_options()
#: How many programs there are if not two. Below a power of 1/2, P and Q are exchanged.
PROGRAMS = {"f_divergence-alpha": 3}


def test_the_options_are_found() -> None:
    assert {"l2-clip", "js_divergence-beta", "kl_divergence-temperature", "gradient_penalty-target_norm"} < set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.only("torch", reason="is about numbers that torch.compile turns into symbols")
def test_programs_for_values_that_change(fw: Framework, name: str) -> None:
    case, option = OPTIONS[name]
    others = {key: value for key, value in options_of(case, fw).items() if key != option}
    compiled, count = fw.compile(lambda *arrays, value: case(*arrays, **others, **{option: value}))
    for value in (ABOVE.get(name, 0.0) + each for each in VALUES):
        arrays = [x.requires_grad_() for x in arrays_of(case, fw)]
        got = compiled(*arrays, value=value)
        close(fw, got, fw.numpy(case(*arrays, **others, **{option: value})), rtol=1e-12)
    assert count() == PROGRAMS.get(name, 2)
