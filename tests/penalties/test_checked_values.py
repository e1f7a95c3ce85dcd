"""Values that penalties check while the switch is on: log-probabilities, weights and the normalizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.arrays.test_value_checks import LOG_P, P, fails
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline, set_value_checks
from xpenalties._core.registry import PENALTIES
from xpenalties._penalties.spec import spec_of

Q = np.log([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])


@pytest.fixture
def checked() -> Iterator[None]:
    with set_value_checks():
        yield


def test_penalties_of_log_probabilities_declare_it() -> None:
    """So a new one cannot be forgotten."""
    specs = [spec for fn in PENALTIES.values() if (spec := spec_of(fn))]
    declared = {spec.name for spec in specs if spec.distributions(spec.defaults) is not None}
    assert declared == {spec.name for spec in specs if {"log_p", "log_q"} & set(spec.arrays)} != set()
    consistency = spec_of(xp.consistency)
    assert consistency is not None
    declared_by_metric = {m: consistency.distributions({"metric": m}) for m in ("mse", "l1", "cosine", "kl", "js")}
    assert declared_by_metric == {"mse": None, "l1": None, "cosine": None, "kl": "complete", "js": "complete"}


CALLS: list[tuple[Any, dict[str, Any]]] = [
    (xp.kl_divergence, {}),
    (xp.kl_divergence, {"direction": "symmetric"}),
    (xp.js_divergence, {}),
    (xp.topk_kl_divergence, {"tail": "included"}),
    (xp.consistency, {"metric": "kl"}),
    (xp.consistency, {"metric": "js"}),
]


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(("penalty", "options"), CALLS, ids=lambda x: getattr(x, "__name__", ""))
def test_probabilities_and_logits_are_found(fw: Framework, penalty: Any, options: dict[str, Any]) -> None:
    good, q = fw.array(LOG_P), fw.array(Q)
    with set_value_checks(False):
        want = penalty(good, q, **options)
    assert float(penalty(good, q, **options)) == pytest.approx(float(want))
    names = spec_of(penalty).arrays  # type: ignore[union-attr]
    for bad in (P, LOG_P + 1.0, LOG_P - 1.0):
        for arrays, name in (((fw.array(bad), q), names[0]), ((good, fw.array(bad)), names[1])):
            message = f"{penalty.__name__}: `{name}` must hold log-probabilities, got 2 of 2 rows that do not"
            assert fails(lambda arrays=arrays: penalty(*arrays, **options)).startswith(message)


@pytest.mark.usefixtures("checked")
def test_entropy_top_k_and_single_tokens(fw: Framework) -> None:
    good, bad = fw.array(LOG_P), fw.array(P)
    assert fails(lambda: xp.entropy(bad)).startswith("entropy: `log_p` must hold log-probabilities, got 2 of 2 rows")
    assert float(xp.topk_kl_divergence(fw.array(LOG_P - 1), fw.array(Q - 1))) > 0
    text = fails(lambda: xp.topk_kl_divergence(good, fw.array(Q + 1)))
    assert text.startswith("topk_kl_divergence: `log_q` must hold log-probabilities, got 2 of 2 rows that do not")
    assert float(xp.sampled_kl(fw.array(LOG_P - 1), fw.array(Q - 2))) > 0
    text = fails(lambda: xp.sampled_kl(good, bad))
    assert text.startswith("sampled_kl: `log_q` must hold log-probabilities, got 6 of 6 elements > 0 or NaN")


@pytest.mark.usefixtures("checked")
def test_what_is_normalized_here_is_not_checked(fw: Framework) -> None:
    logits = fw.array(LOG_P + 5.0), fw.array(P)
    for options in ({"from_logits": True}, {"temperature": 2.0}):
        assert float(xp.kl_divergence(*logits, **options)) > 0 and float(xp.entropy(logits[0], **options)) > 0
    for penalty in (xp.l1, xp.z_loss, xp.group_lasso):
        assert float(penalty(logits[0])) > 0
    assert float(xp.consistency(*logits)) > 0


@pytest.mark.usefixtures("checked")
def test_masked_terms_are_not_checked(fw: Framework) -> None:
    log_p = fw.array(np.stack([LOG_P[0], [np.nan, 3.0, 4.0], [0.0, -np.inf, -np.inf], [-np.inf] * 3]))
    where, weights = fw.array(np.asarray([True, False, True, True])), fw.array(np.asarray([1.0, 0.0, 1.0, 0.0]))
    assert float(xp.entropy(log_p, where=where)) >= 0
    assert float(xp.entropy(log_p, where=where, weights=fw.array(np.asarray([1.0, -1.0, 1.0, 0.0])))) >= 0
    assert float(xp.entropy(log_p, weights=weights)) >= 0
    assert "1 of 4 rows that do not, the first at (1,)" in fails(lambda: xp.entropy(log_p))


@pytest.mark.usefixtures("checked")
def test_negative_weights_and_normalizers(fw: Framework) -> None:
    x, good = fw.array(P), fw.array(np.asarray([1.0, 0.0, 2.0]))
    assert float(xp.l1(x, weights=good, normalizer=fw.array(np.asarray(2.0)))) > 0
    text = fails(lambda: xp.l1(x, weights=fw.array(np.asarray([1.0, -0.5, 2.0]))))
    assert text == (
        "l1: `weights` must not be negative or NaN, got 2 of 6 elements < 0 or NaN, the first at (0, 1): it is -0.5. "
        "Pass numbers >= 0."
    )
    assert "it is nan" in fails(lambda: xp.l2(x, weights=fw.array(np.asarray([1.0, np.nan, 2.0]))))
    text = fails(lambda: xp.l1(x, normalizer=fw.array(np.asarray(-3.0))))
    assert text.startswith(
        "l1: `normalizer` must not be negative or NaN, got 1 of 1 elements < 0 or NaN, the first at ():"
    )


@pytest.mark.usefixtures("checked")
@pytest.mark.needs("jit")
def test_in_compiled_programs(fw: Framework) -> None:
    compiled, _ = fw.compile(lambda p, q, where: xp.kl_divergence(p, q, where=where))
    where, good, bad = fw.array(np.asarray([True, False])), fw.array(LOG_P), fw.array(np.stack([LOG_P[0], P[1]]))
    assert float(compiled(good, bad, where)) == 0.0
    message = "kl_divergence: `log_q` must hold log-probabilities, got rows that do not."
    assert message in fails(lambda: compiled(good, bad, ~where))
    compiled, _ = fw.compile(lambda x, weights: xp.l1(x, weights=weights))
    assert float(compiled(good, fw.array(np.ones(3)))) > 0
    assert "l1: `weights` must not be negative or NaN" in fails(lambda: compiled(good, fw.array(-np.ones(3))))
    pipe = xp.compile(Pipeline({"entropy": 1.0}), torch={"backend": "aot_eager"})
    assert float(pipe(good)) > 0
    assert "entropy: `log_p` must hold log-probabilities" in fails(lambda: pipe(fw.array(P)))


@pytest.mark.usefixtures("checked")
@pytest.mark.needs("autodiff")
def test_in_a_tracked_pipeline(fw: Framework) -> None:
    pipe = Pipeline([Penalty("entropy", weight=0.5), Penalty("l1")])
    assert float(pipe.compute(fw.array(LOG_P), track_grad_norms=True)[0]) > 0
    assert "entropy: `log_p` must hold log-probabilities" in fails(
        lambda: pipe.compute(fw.array(P), track_grad_norms=True)
    )


@pytest.mark.only("torch", reason="is about torch.compile")
def test_the_switch_recompiles(fw: Framework) -> None:
    compiled, compilations = fw.compile(xp.entropy)
    bad = fw.array(P)
    assert float(compiled(bad)) < 0
    with set_value_checks():
        assert "must hold log-probabilities" in fails(lambda: compiled(bad))
    assert float(compiled(bad)) < 0
    assert compilations() == 2


@pytest.mark.only("torch", reason="is about nested tensors")
@pytest.mark.usefixtures("checked")
def test_ragged_arrays(fw: Framework) -> None:
    torch = fw.module
    rows = [fw.array(LOG_P), fw.array(Q[:1])]
    good = torch.nested.nested_tensor(rows, layout=torch.jagged)
    bad = torch.nested.nested_tensor([rows[0], fw.array(P)], layout=torch.jagged)
    assert float(xp.entropy(good)) > 0
    assert "entropy: `log_p` must hold log-probabilities, got 2 of 4 rows" in fails(lambda: xp.entropy(bad))
