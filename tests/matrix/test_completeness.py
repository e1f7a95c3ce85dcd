"""Nothing public is left out of the tests."""

from __future__ import annotations

import inspect

import xpenalties
from tests.matrix.cases import CASES
from xpenalties._core.registry import PENALTIES


def test_every_penalty_has_a_row() -> None:
    assert {case.function for case in CASES} == set(PENALTIES.values())


def test_no_row_is_there_twice() -> None:
    ids = [case.id for case in CASES]
    assert [one for one in set(ids) if ids.count(one) > 1] == []


def test_every_option_has_a_row_that_sets_it() -> None:
    for name, function in PENALTIES.items():
        rows = [case for case in CASES if case.function is function]
        for option in function.spec.checks:  # type: ignore[attr-defined]
            tried = [case for case in rows if option in case.options or any(option in bad[0] for bad in case.bad)]
            assert tried, f"no row tries {name}({option}=)"


def test_every_mode_has_a_row() -> None:
    from typing import Literal, get_args, get_origin, get_type_hints

    special = {
        ("sampled_kl", "gradient", "k2"),
        ("sampled_kl", "gradient", "value"),
    }  # test_topk_and_sampled_divergences.py
    for name, function in PENALTIES.items():
        spec = function.spec  # type: ignore[attr-defined]
        hints = get_type_hints(spec.formula)
        for option, hint in hints.items():
            if get_origin(hint) is not Literal:
                continue
            tried = {{**spec.defaults, **case.options}[option] for case in CASES if case.function is function}
            assert {mode for mode in get_args(hint) if (name, option, mode) not in special} <= tried, (name, option)


def test_every_public_name_is_documented() -> None:
    for name in xpenalties.__all__:
        assert inspect.getdoc(getattr(xpenalties, name)), name


def test_public_penalties_state_what_they_take_and_return() -> None:
    for name, function in PENALTIES.items():
        for section in ("Parameters", "Returns", "Raises", "Other Parameters", "Notes", "References", "Examples"):
            assert f"{section}\n---" in (function.__doc__ or ""), (name, section)


def test_signatures_have_the_options_and_no_more() -> None:
    for name, function in PENALTIES.items():
        spec = function.spec  # type: ignore[attr-defined]
        parameters = inspect.signature(function).parameters
        shown = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert shown == [*spec.checks, "reduction", "where", "weights", "normalizer"], name
        assert parameters["reduction"].default == spec.reduction, name
        assert f'default "{spec.reduction}"' in (function.__doc__ or ""), name
