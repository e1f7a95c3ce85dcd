"""Every penalty of Dask arrays, cut in several ways: the values of NumPy, and nothing computed during a call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import integration
from tests.helpers.harness import framework
from tests.helpers.scale_results import record
from tests.matrix.cases import CASES, Case, options_of
from tests.matrix.test_masks import masks

integration("dask", backends=("dask",), session="scale")
pytestmark = [pytest.mark.scale, pytest.mark.only("dask", reason="is about Dask")]
PENALTIES = [case for case in CASES if case.fn is None]  # Dask has no gradients
da = import_module("dask.array")
RNG = np.random.default_rng(5)


def cut(x: np.ndarray, how: str) -> Any:
    """Return a Dask array that is cut along its rows, its classes, or both."""
    few, whole = 2, -1
    chunks: Any = {
        "rows": [few] * (x.ndim - 1) + [whole] if x.ndim > 1 else whole,
        "classes": [whole] * (x.ndim - 1) + [few],
        "both": few,
        "uneven": tuple((1,) * min(size, 2) + (size - 2,) * (size > 2) for size in x.shape),
        "elements": 1,
    }[how]
    return da.from_array(x, chunks=tuple(chunks) if isinstance(chunks, list) else chunks)


@pytest.fixture(autouse=True)
def _strictly() -> Iterator[None]:
    """NumPy's warnings are errors. Dask computes on this thread."""
    import dask

    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def starts() -> Iterator[list[int]]:
    """The number of computations that have started."""
    from dask.callbacks import Callback

    started = [0]

    def start(graph: Any) -> None:
        started[0] += 1

    with Callback(start=start):
        yield started


def same(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got.compute(), want, rtol=1e-12, atol=1e-12)


def refusal(case: Case, arrays: list[Any]) -> tuple[str, str] | None:
    """Return a part of the error and the reason if the row is refused for arrays that are cut so, with weights."""
    if case.name in ("koleo", "sliced_wasserstein"):
        return "chunks or with weights", "refused: samples are in other chunks"
    rows_are_cut = case.name == "wasserstein" and len(arrays[0].chunks[case.options.get("axis", -1)]) > 1
    if rows_are_cut or any(x.shape != arrays[0].shape for x in arrays if case.name == "wasserstein"):
        return "rows that are in one chunk", "refused: rows must be in one chunk, and of the same size"
    return None


@pytest.mark.parametrize("how", ["rows", "classes", "both", "uneven", "elements"])
@pytest.mark.parametrize("case", PENALTIES, ids=lambda case: case.id)
def test_values(case: Case, how: str, starts: list[int]) -> None:
    arrays, options = [cut(x, how) for x in case.arrays], options_of(case, framework("dask"))
    plain = options_of(case, framework("numpy"))
    where, weights = masks(case)
    if case.name == "nuclear_norm" and any(len(chunks) > 1 for chunks in arrays[0].chunks[-2:]):
        with pytest.raises(NotImplementedError, match="chunks of whole matrices"):
            case(*arrays)
        reason = "refused: singular values need whole matrices"
        record(case.name, "Dask", {"both": "rows and classes"}.get(how, how), reason)
        return
    shared = {"where": da.from_array(where, chunks=2), "weights": da.from_array(weights, chunks=-1)}
    refused = refusal(case, arrays)
    if refused is not None:
        message, reason = refused
        with pytest.raises(NotImplementedError, match=message):
            case(*arrays, **options, **shared)
        record(case.name, "Dask", {"both": "rows and classes"}.get(how, how), reason)
        return
    values = [
        case(*arrays, **options),
        case(*arrays, **options, reduction="none"),
        case(*arrays, **options, **shared, reduction="mean"),
    ]
    assert starts == [0] and values[0].shape == () and isinstance(values[0], da.Array)
    same(values[0], case(*case.arrays, **plain))
    same(values[1], case(*case.arrays, **plain, reduction="none"))
    same(values[2], case(*case.arrays, **plain, where=where, weights=weights, reduction="mean"))
    record(case.name, "Dask", {"both": "rows and classes"}.get(how, how))


EXTREME = np.asarray(
    [
        [0.0, -math.inf, -math.inf, -math.inf],
        [math.log(0.5), math.log(0.5), -math.inf, -math.inf],
        [-1e-9, -21.0, -800.0, -1e30],
        [math.log(0.25)] * 4,
    ]
)
OF_LOGS = [
    ("kl_divergence", {"from_logits": True}),
    ("kl_divergence", {"from_logits": True, "direction": "symmetric"}),
    ("kl_divergence", {}),
    ("kl_divergence", {"from_logits": True, "skew": 0.1}),
    ("js_divergence", {"from_logits": True}),
    ("js_divergence", {"beta": 0.3}),
    ("f_divergence", {"from_logits": True}),
    ("f_divergence", {"kind": "renyi", "alpha": 2.0}),
    ("f_divergence", {"kind": "alpha", "alpha": 0.3}),
    ("topk_kl_divergence", {}),
    ("topk_js_divergence", {}),
    ("entropy", {"from_logits": True, "temperature": 0.5}),
    ("entropy", {"normalize": True}),
    ("entropy", {"kind": "tsallis", "alpha": 0.5}),
    ("entropy", {"kind": "renyi", "alpha": 2.0, "normalize": True}),
    ("z_loss", {}),
]


@pytest.mark.parametrize("how", ["rows", "classes", "both"])
@pytest.mark.parametrize(("name", "options"), OF_LOGS)
def test_masked_classes_and_small_probabilities(name: str, options: dict[str, Any], how: str) -> None:
    penalty = getattr(xp, name)
    one = len(penalty.spec.arrays) == 1
    pairs = [(EXTREME,)] if one else [(EXTREME, EXTREME[::-1].copy()), (EXTREME, EXTREME + 1e-7), (EXTREME, EXTREME)]
    for arrays in pairs:
        got = penalty(*(cut(x, how) for x in arrays), **options, reduction="none").compute()
        want = penalty(*arrays, **options, reduction="none")
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("how", ["rows", "classes"])
def test_padding_of_nan(how: str) -> None:
    x = RNG.standard_normal((4, 6))
    x[1] = math.nan
    where = np.asarray([True, False, True, True])
    for penalty in (xp.entropy, xp.z_loss, xp.group_lasso):
        options = {"from_logits": True} if penalty is xp.entropy else {}
        same(penalty(cut(x, how), where=da.from_array(where), **options), penalty(x, where=where, **options))


@pytest.mark.parametrize("scale", [1e200, 1e-200, 0.0])
@pytest.mark.parametrize("how", ["rows", "classes", "both"])
def test_norms_that_overflow_or_underflow(scale: float, how: str) -> None:
    x = scale * RNG.standard_normal((5, 4))
    np.testing.assert_allclose(xp.group_lasso(cut(x, how)).compute(), xp.group_lasso(x), rtol=1e-12)
    if scale < 1:
        same(xp.output_magnitude(cut(x, how), norm="l2"), xp.output_magnitude(x, norm="l2"))
    same(xp.orthogonality(cut(x, how)), xp.orthogonality(x))
    same(xp.consistency(cut(x, how), cut(x[::-1], how), metric="cosine"), xp.consistency(x, x[::-1], metric="cosine"))


@pytest.mark.parametrize("how", ["rows", "classes"])
def test_half_precision_is_computed_in_float32(how: str) -> None:
    x = RNG.standard_normal((5, 4)).astype(np.float16)
    for penalty in (xp.l2, xp.group_lasso, xp.z_loss, xp.covariance, xp.output_magnitude, xp.orthogonality):
        got, want = penalty(cut(x, how)), penalty(x)
        assert got.dtype == want.dtype == np.float32
        np.testing.assert_allclose(got.compute(), want, rtol=1e-5)
    got = xp.l2(cut(x, how), center="mean")
    np.testing.assert_allclose(got.compute(), xp.l2(x, center="mean"), rtol=1e-5)


def test_large_chunks_are_computed_in_blocks() -> None:
    """Blocks of a chunk are put together in order: along rows, along classes, and in one row."""
    x = np.sin(np.arange(300 * 700.0)).reshape(300, 700)
    center = np.cos(np.arange(700.0))
    cut_x, weights = da.from_array(x, chunks=(300, 350)), RNG.random((300, 1))
    where = x > -0.5
    same(
        xp.l2(cut_x, center=da.from_array(center, chunks=100), clip=0.5, where=da.from_array(where), reduction="none"),
        xp.l2(x, center=center, clip=0.5, where=where, reduction="none"),
    )
    same(xp.huber(cut_x, weights=da.from_array(weights)), xp.huber(x, weights=weights))
    same(xp.entropy(cut_x, from_logits=True, reduction="none"), xp.entropy(x, from_logits=True, reduction="none"))
    row = x.reshape(-1)
    same(xp.z_loss(da.from_array(row, chunks=150_000)), xp.z_loss(row))
    same(xp.output_magnitude(cut_x), xp.output_magnitude(x))


def test_other_axes() -> None:
    x = RNG.standard_normal((4, 6, 3))
    for chunks in ((2, 2, 2), (4, 2, 3), (1, 6, 1)):
        for axis in (0, 1, 2):
            same(xp.z_loss(da.from_array(x, chunks=chunks), axis=axis), xp.z_loss(x, axis=axis))
        same(xp.group_lasso(da.from_array(x, chunks=chunks), axis=(0, 2)), xp.group_lasso(x, axis=(0, 2)))


def test_empty_arrays_and_empty_chunks() -> None:
    assert float(xp.entropy(da.ones((0, 3), chunks=2))) == 0
    assert float(xp.l2(da.ones((0, 3), chunks=2), center="mean")) == 0
    x = RNG.standard_normal((4, 6))
    with_empty = da.from_array(x, chunks=((4, 0), (3, 0, 3)))
    same(xp.z_loss(with_empty), xp.z_loss(x))
    same(xp.entropy(with_empty, from_logits=True), xp.entropy(x, from_logits=True))


def test_linear_layers() -> None:
    hidden, weight, tokens = RNG.standard_normal((7, 6)), RNG.standard_normal((9, 6)), RNG.integers(-1, 9, 7)
    for chunks in ((3, 6), (3, 2), (7, 6)):
        arrays = da.from_array(hidden, chunks=chunks), da.from_array(weight, chunks=(4, 3))
        same(xp.linear_entropy(*arrays, reduction="none"), xp.linear_entropy(hidden, weight, reduction="none"))
        got = xp.linear_log_probabilities(*arrays, da.from_array(tokens, chunks=2), with_entropy=True)
        for one, other in zip(got, xp.linear_log_probabilities(hidden, weight, tokens, with_entropy=True), strict=True):
            same(one, other)
    same(xp.linear_entropy(da.from_array(hidden[0]), arrays[1]), xp.linear_entropy(hidden[0], weight))
    with xp.block_size(2):
        lazy = xp.linear_entropy(*arrays)
    same(lazy, xp.linear_entropy(hidden, weight))


def test_the_size_of_blocks_goes_along_with_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpenalties.backends._work import Work

    blocks = []
    block = Work.block
    monkeypatch.setattr(Work, "block", lambda work, index: blocks.append(index) or block(work, index))
    with xp.block_size(8):
        value = xp.z_loss(da.ones((6, 4), chunks=(3, 4)))
    blocks.clear()
    value.compute()
    assert len(blocks) == 4  # two for each chunk


def test_unknown_sizes_are_refused() -> None:
    x = da.from_array(RNG.standard_normal((6, 4)), chunks=2)
    some, noise = x[x[:, 0] > 0], xp.transforms.add_noise(1.0, rng=np.random.default_rng(0))
    remedy = r"must have chunks of known sizes, got shape \(nan, 4\)\. Call its method compute_chunk_sizes\(\) first\."
    for call in (
        lambda: xp.entropy(some),
        lambda: xp.l1(some),
        lambda: xp.covariance(some),
        lambda: xp.consistency(some, some),
        lambda: xp.check_finite(some),
        lambda: xp.linear_log_probabilities(some, x, some[:, 0].astype(int)),
        lambda: xp.prox.simplex(some),
        lambda: xp.transforms.clip_by_block_rms(1.0).update(some, ()),
        lambda: noise.update(some, noise.init(x)),
    ):
        with pytest.raises(ValueError, match=rf"^\w+: `\w+` {remedy}"):
            call()
    with pytest.raises(ValueError, match=r"^z_loss: `where` must have chunks of known sizes, got shape \(nan,\)"):
        xp.z_loss(x, where=some[:, 0] > 0)
    some.compute_chunk_sizes()
    same(xp.entropy(some, from_logits=True), xp.entropy(some.compute(), from_logits=True))
    for function in ("entropy", "l1", "orthogonality"):
        record(function, "Dask", "unknown sizes", "refused: chunks must have known sizes")


def test_gradients_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="dask arrays have no automatic differentiation"):
        xp.grad(xp.l2)(da.ones(3))
    record("value_and_grad", "Dask", "rows", "refused: Dask has no automatic differentiation")


def test_value_checks() -> None:
    probabilities = cut(np.asarray([[0.5, 0.5], [0.9, 0.1]]), "both")
    with xp.set_value_checks():
        with pytest.raises(ValueError, match=r"got 2 of 2 rows that do not, the first at \(0,\)"):
            xp.entropy(probabilities)
        same(xp.entropy(np.log(probabilities)), xp.entropy(np.log(probabilities.compute())))


@pytest.mark.parametrize("how", ["rows", "classes", "both"])
def test_check_finite_reads_once_and_finds_the_first(how: str, starts: list[int]) -> None:
    x = np.zeros((3, 4, 5))
    assert xp.check_finite(ok := cut(x, how)) is ok
    assert starts == [1]
    x[2, 0, 0], x[1, 3, 4], x[1, 3, 1] = math.nan, math.nan, -math.inf
    with pytest.raises(ValueError, match=r"got 2 NaN and 1 Inf of 60 elements, the first at \(1, 3, 1\)"):
        xp.check_finite(cut(x, how))
    assert starts == [2]
    with pytest.raises(ValueError, match=r"got 1 NaN and 0 Inf of 1 elements, the first at \(\)"):
        xp.check_finite(da.from_array(np.asarray(math.nan)))
