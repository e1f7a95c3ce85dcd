"""The check of log-probabilities, eager and in compiled programs, and the switch of all value checks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.processes import on_processes
from xpenalties import check_log_probabilities, set_value_checks
from xpenalties._arrays.value_checks import VALUE_CHECKS

P = np.asarray([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
LOG_P = np.log(P)


def fails(call: Callable[[], Any]) -> str:
    """Return the message of the error that a call raises, at once or when its program runs."""
    with pytest.raises((ValueError, RuntimeError)) as caught:
        float(call())  # waits for a program of JAX
    return str(caught.value)


def test_log_probabilities_come_back_themselves(fw: Framework) -> None:
    padded = np.asarray([[0.0, -np.inf, -np.inf], [-np.inf, -np.inf, -np.inf]])
    for x in (LOG_P, padded, np.zeros((0, 3)), np.zeros((2, 0)), LOG_P.T[:, None] + math.log(1 / 0.25) * 0):
        given = fw.array(x)
        assert check_log_probabilities(given, axis=0 if x.ndim == 3 else -1) is given
    for dtype in fw.dtypes:
        wide = np.log(np.full((2, 4096), 1 / 4096))
        assert check_log_probabilities(fw.array(wide, dtype)).shape == (2, 4096)
    assert check_log_probabilities(fw.array(LOG_P - 1), partial=True) is not None
    assert check_log_probabilities(fw.array(LOG_P), axis=None) is not None
    assert check_log_probabilities(fw.array(LOG_P.T), axis=0) is not None


def test_the_error_says_what_it_is(fw: Framework) -> None:
    logits = np.stack([LOG_P[0], LOG_P[1] + 1])
    for x, options, message in (
        (
            P,
            {},
            r"got 2 of 2 rows that do not, the first at (0,): its elements are probabilities. Pass their log",
        ),
        (
            logits,
            {},
            "got 1 of 2 rows that do not, the first at (1,): its probabilities sum to 2.72. Pass the log",
        ),
        (LOG_P - 1, {}, "got 2 of 2 rows that do not, the first at (0,): its probabilities sum to 0.368."),
        (LOG_P * np.nan, {}, "got 2 of 2 rows that do not, the first at (0,): its probabilities sum to nan."),
        (P.T, {"axis": 0}, "the first at (0,): its elements are probabilities."),
        (logits, {"partial": True}, "the first at (1,): its probabilities sum to 2.72."),
        (
            LOG_P + 2,
            {"axis": None},
            "got 4 of 6 elements > 0 or NaN, the first at (0, 0): it is 1.31. Pass",
        ),
    ):
        text = fails(lambda x=x, options=options: check_log_probabilities(fw.array(x), **options))
        assert text.startswith("check_log_probabilities: `x` must hold log-probabilities, ") and message in text


def test_masked_rows_are_not_checked(fw: Framework) -> None:
    x = np.stack([LOG_P[0], [np.nan, 1.0, 2.0]])
    assert check_log_probabilities(fw.array(x), where=fw.array(np.asarray([True, False]))) is not None
    text = fails(lambda: check_log_probabilities(fw.array(x), where=fw.array(np.asarray([False, True]))))
    assert "1 of 2 rows" in text and "(1,)" in text


def test_what_is_refused(fw: Framework) -> None:
    x = fw.array(LOG_P)
    with pytest.raises(TypeError, match=r"^check_log_probabilities: `x` must be an array, got builtins.list"):
        check_log_probabilities([0.0])  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"^check_log_probabilities: `x` must be real floating point, got .*int64"):
        check_log_probabilities(fw.array(np.zeros(2, dtype=np.int64)))
    with pytest.raises(TypeError, match=r"^check_log_probabilities: `axis` must be an integer, got 'a'"):
        check_log_probabilities(x, axis="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^check_log_probabilities: `axis` must be an axis of `x`, got 2 for shape"):
        check_log_probabilities(x, axis=2)
    with pytest.raises(TypeError, match=r"^check_log_probabilities: `where` must be a boolean array, got .*float64"):
        check_log_probabilities(x, where=x)


@pytest.mark.needs("jit")
def test_in_a_compiled_program(fw: Framework) -> None:
    """The good call comes first: the check is a part of the program, not of its compilation."""
    compiled, compilations = fw.compile(lambda x: xp.l2(check_log_probabilities(x)))
    assert float(compiled(fw.array(LOG_P))) == pytest.approx(float((LOG_P**2).sum()))
    message = "check_log_probabilities: `x` must hold log-probabilities, got rows that do not. Pass the log"
    assert message in fails(lambda: compiled(fw.array(P)))
    assert compilations() == 1


@pytest.mark.needs("jit")
def test_under_vmap(fw: Framework) -> None:
    mapped = fw.vmap(lambda x: xp.l2(check_log_probabilities(x)))
    assert fw.numpy(mapped(fw.array(LOG_P))).tolist() == pytest.approx((LOG_P**2).sum(axis=1).tolist())
    assert "must hold log-probabilities, got rows that do not" in fails(lambda: mapped(fw.array(P)))


@pytest.mark.needs("autodiff")
def test_inside_of_a_gradient(fw: Framework) -> None:
    gradient = xp.grad(lambda x: xp.l2(check_log_probabilities(x)))
    assert np.allclose(fw.numpy(gradient(fw.array(LOG_P))), 2 * LOG_P)
    assert "must hold log-probabilities" in fails(lambda: gradient(fw.array(P)))


@pytest.mark.only("torch", reason="is about PyTorch's tracers")
def test_tracers_of_torch(fw: Framework) -> None:
    torch = fw.module

    class Module(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            return xp.l2(check_log_probabilities(x))

    good, bad = fw.array(LOG_P), fw.array(P)
    exported = torch.export.export(Module(), (good,)).module()
    gradient = torch.func.grad(Module())
    traced = torch.fx.experimental.proxy_tensor.make_fx(Module())(good)
    compiled_gradient = torch.compile(torch.func.grad(Module()), fullgraph=True, backend="aot_eager")
    for program in (exported, traced, gradient, compiled_gradient):
        program(good)
        assert "must hold log-probabilities, got rows that do not" in fails(lambda program=program: program(bad))
    assert Module()(torch.zeros(2, 3, device="meta")).device.type == "meta"
    assert torch.func.vmap(Module())(torch.zeros(2, 3, device="meta")).shape == (2,)
    mapped = torch.compile(torch.func.vmap(Module()), fullgraph=True, backend="aot_eager")
    assert mapped(bad).shape == (2,)  # the one place where nothing is checked


@pytest.mark.only("torch", reason="is about PyTorch's sharded tensors")
def test_all_processes_agree_on_a_sharded_tensor(fw: Framework, tmp_path: Path) -> None:
    on_processes(2, "arrays.checked_processes", tmp_path)
    for rank in (0, 1):
        good, bad = (tmp_path / f"{rank}.txt").read_text("utf-8").splitlines()
        assert good == "1.3863"
        assert bad.startswith(
            "entropy: `log_p` must hold log-probabilities, got 1 of 2 rows that do not, the first at (1,)"
        )


# the switch


def test_the_switch() -> None:
    before = VALUE_CHECKS.enabled
    try:
        set_value_checks(False)
        with set_value_checks():
            assert VALUE_CHECKS.enabled
            with set_value_checks(False):
                assert not VALUE_CHECKS.enabled
            assert VALUE_CHECKS.enabled
        assert not VALUE_CHECKS.enabled
        with pytest.raises(ZeroDivisionError), set_value_checks(True):
            1 / 0  # noqa: B018
        assert not VALUE_CHECKS.enabled
        set_value_checks(True)
        assert VALUE_CHECKS.enabled
    finally:
        set_value_checks(before)
    with pytest.raises(TypeError, match=r"^set_value_checks: `enabled` must be True or False, got 1. Pass a bool."):
        set_value_checks(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "enabled"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_environment_variable(value: str | None, enabled: bool) -> None:
    env = {name: x for name, x in os.environ.items() if name != "XPENALTIES_CHECK"}
    program = "from xpenalties._arrays.value_checks import VALUE_CHECKS; print(VALUE_CHECKS.enabled)"
    env |= {} if value is None else {"XPENALTIES_CHECK": value}
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.strip() == str(enabled)
