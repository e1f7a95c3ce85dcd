"""How often the data are read for penalties of Dask arrays, and what a report computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import integration
from tests.helpers.scale_results import record
from xpenalties import Penalty, Pipeline, Report, transforms

integration("dask", backends=("dask",), session="scale")
pytestmark = [pytest.mark.scale, pytest.mark.only("dask", reason="is about Dask")]
da = import_module("dask.array")
ROWS, BOTH, WHOLE = (2, 6), (2, 2), (8, 6)


@pytest.fixture(autouse=True)
def _on_this_thread() -> Iterator[None]:
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield


class Source:
    """Makes an array chunk by chunk, and counts how often it makes each chunk."""

    def __init__(self, chunks: tuple[int, int], shape: tuple[int, int] = (8, 6)) -> None:
        self.made: Counter[Any] = Counter()
        self.plain = np.random.default_rng(3).standard_normal(shape)
        numbers = da.core.normalize_chunks(chunks, shape)
        self.x = da.map_blocks(self._chunk, chunks=numbers, dtype=float, meta=np.empty((0, 0)))

    def _chunk(self, block_info: Any = None) -> np.ndarray:
        location = block_info[None]["array-location"]
        self.made[tuple(location)] += 1
        return self.plain[tuple(slice(*ends) for ends in location)]

    def reads(self) -> int:
        """Return how often each chunk was made, which must be the same for all."""
        chunks = len(self.x.__dask_keys__()) * len(self.x.__dask_keys__()[0])
        assert len(self.made) == chunks and len(set(self.made.values())) == 1, self.made
        return next(iter(self.made.values()))

    def __dask_tokenize__(self) -> int:
        return id(self)


PASSES: list[tuple[str, Callable[..., Any], int, int]] = [
    # for rows in whole chunks, and for chunks of both axes
    ("l1", xp.l1, 1, 1),
    ("l2", lambda x: xp.l2(x, reduction="mean"), 1, 1),
    ("l2 to the mean", lambda x: xp.l2(x, center="mean", clip=1.0), 2, 2),
    ("group_lasso", xp.group_lasso, 1, 2),
    ("output_magnitude", xp.output_magnitude, 1, 1),
    ("entropy of log-probabilities", xp.entropy, 1, 1),
    ("entropy of logits", lambda x: xp.entropy(x, from_logits=True), 1, 2),
    ("z_loss", xp.z_loss, 1, 2),
    ("kl_divergence", lambda x: xp.kl_divergence(x, x * 2), 1, 1),
    ("kl_divergence of logits", lambda x: xp.kl_divergence(x, x * 2, from_logits=True), 1, 3),
    ("js_divergence of logits", lambda x: xp.js_divergence(x, x * 2, from_logits=True), 1, 3),
    ("cosine", lambda x: xp.consistency(x, x * 2, metric="cosine"), 1, 3),
    ("covariance", xp.covariance, 2, 2),
    ("orthogonality, not normalized", lambda x: xp.orthogonality(x, normalize=False), 1, 1),
    ("orthogonality", xp.orthogonality, 1, 2),
    ("spectral", lambda x: xp.orthogonality(x, mode="spectral"), 1, 2),
]


@pytest.mark.parametrize(("name", "penalty", "of_rows", "of_both"), PASSES, ids=[row[0] for row in PASSES])
def test_reads(name: str, penalty: Callable[..., Any], of_rows: int, of_both: int) -> None:
    for chunks, most in ((WHOLE, 1), (ROWS, of_rows), (BOTH, of_both)):
        source = Source(chunks)
        value = penalty(source.x)
        assert not source.made
        np.testing.assert_allclose(value.compute(), penalty(source.plain), rtol=1e-12)
        assert source.reads() == most, chunks


def test_a_report_reads_once(starts: list[int]) -> None:
    source = Source(ROWS)
    logits = {"from_logits": True}
    pipeline = Pipeline(
        [
            Penalty("l1", weight=0.1),
            Penalty("l2", weight=0.1),
            Penalty("group_lasso"),
            Penalty("output_magnitude"),
            Penalty("entropy", options=logits),
            Penalty("z_loss"),
            Penalty("orthogonality"),
        ]
    )
    total, report = pipeline.compute(source.x)
    assert starts == [0] and isinstance(total, da.Array)
    got = report.to_dict()
    assert starts == [1] and source.reads() == 1
    want = pipeline.compute(source.plain)[1].to_dict()
    assert got["loss_total"] == pytest.approx(want["loss_total"], rel=1e-12)
    for name, figures in want["regularizers"].items():
        assert got["regularizers"][name]["custom"] == pytest.approx(figures["custom"], rel=1e-12)
    for read in (Report.to_json, Report.flat, str):
        starts[0] = 0
        read(report)
        assert starts == [1]
    record("Report", "Dask", "rows")
    record("Pipeline", "Dask", "rows")


def test_a_report_reads_as_often_as_the_penalty_with_most_passes(starts: list[int]) -> None:
    source = Source(BOTH)
    options = {"from_logits": True}
    penalties = [Penalty("l1"), Penalty("l2", options={"center": "mean"}), Penalty("entropy", options=options)]
    pipeline = Pipeline([*penalties, Penalty("covariance"), Penalty("orthogonality")])
    _, report = pipeline.compute(source.x)
    got = report.flat()
    assert starts == [1] and source.reads() == 2
    assert got["loss_total"] == pytest.approx(float(pipeline(source.plain)), rel=1e-12)


def test_a_history_is_computed_at_once(starts: list[int]) -> None:
    history, pipeline = xp.GradientHistory(), Pipeline({"l1": 1.0, "l2": 0.5})
    sources = [Source(ROWS) for _ in range(3)]
    for step, source in enumerate(sources):
        _, report = pipeline.compute(source.x, step=step)
        history.append(report, step)
    assert starts == [0]
    rows = history.rows()
    assert starts == [1] and [source.reads() for source in sources] == [1, 1, 1]
    assert [row["l1/value"] for row in rows] == pytest.approx([float(xp.l1(x.plain)) for x in sources])


@pytest.fixture
def starts() -> Iterator[list[int]]:
    """The number of computations that have started."""
    from dask.callbacks import Callback

    started = [0]

    def start(graph: Any) -> None:
        started[0] += 1

    with Callback(start=start):
        yield started


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("clip_by_global_norm", lambda: transforms.clip_by_global_norm(1.0)),
        ("clip_by_block_rms", lambda: transforms.clip_by_block_rms(0.1)),
        ("adaptive_gradient_clipping", lambda: transforms.adaptive_gradient_clipping(0.01)),
        ("centralize", transforms.centralize),
        ("clip", lambda: transforms.clip(0.5)),
        ("add_l2_decay", lambda: transforms.add_l2_decay(0.1)),
    ],
)
def test_transforms_read_at_most_twice(name: str, transform: Callable[[], Any], starts: list[int]) -> None:
    source, params = Source(BOTH), np.random.default_rng(4).standard_normal((8, 6))
    updates = {"a": source.x, "b": da.ones((3, 2), chunks=2)}
    of = {"a": da.from_array(params, chunks=BOTH), "b": da.zeros((3, 2), chunks=2)}
    got, _ = transform().update(updates, transform().init(of), of)
    assert starts == [0]
    plain = {"a": source.plain, "b": np.ones((3, 2))}
    want, _ = transform().update(plain, transform().init(plain), {"a": params, "b": np.zeros((3, 2))})
    np.testing.assert_allclose(got["a"].compute(), want["a"], rtol=1e-12)
    assert source.reads() == (1 if name in ("clip", "add_l2_decay") else 2)
    np.testing.assert_allclose(got["b"].compute(), want["b"], rtol=1e-12)
    record(f"transforms.{name}", "Dask", "rows and classes")


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_noise_is_drawn_by_chunk_from_the_seed(scheduler: str, starts: list[int]) -> None:
    x = da.zeros((400, 30), chunks=(100, 10))

    def noisy(seed: int) -> Any:
        noise = transforms.add_noise(1.0, rng=np.random.default_rng(seed))
        return noise.update([x, x], noise.init([x, x]))[0]

    one, other, again = noisy(0), noisy(1), noisy(0)
    assert starts == [0] and one[0].chunks == x.chunks and one[0].dtype == x.dtype
    import dask

    first, second, different, repeated = dask.compute(*one, other[0], again[0], scheduler=scheduler)
    np.testing.assert_array_equal(first, repeated)
    assert not np.array_equal(first, second) and not np.array_equal(first, different)
    assert abs(first.mean()) < 0.05 and abs(first.std() - 1) < 0.05
    assert len(np.unique(first)) == first.size  # no two chunks draw the same
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(noisy(0)[0].compute(), first)
    record("transforms.add_noise", "Dask", "rows and classes")


@pytest.mark.parametrize("chunks", [ROWS, BOTH])
def test_proximal_operators(chunks: tuple[int, int], starts: list[int]) -> None:
    prox = xp.prox
    source = Source(chunks)
    calls: dict[str, Callable[[Any], Any]] = {
        "l1": lambda x: prox.l1(x, scale=0.5),
        "l2": lambda x: prox.l2(x, scale=0.5),
        "group_lasso": lambda x: prox.group_lasso(x, scale=0.5),
        "box": lambda x: prox.box(x, low=-0.5, high=0.5),
        "simplex": prox.simplex,
    }
    for name, call in calls.items():
        lazy = call(source.x)
        assert starts == [0]
        np.testing.assert_allclose(lazy.compute(), call(source.plain), rtol=1e-12, atol=1e-12, err_msg=name)
        starts[0] = 0
        record(f"prox.{name}", "Dask", "rows" if chunks is ROWS else "rows and classes")


def test_nuclear_norm_of_rows() -> None:
    source = Source(ROWS)
    got = xp.prox.nuclear_norm(source.x, scale=0.5)
    np.testing.assert_allclose(got.compute(), xp.prox.nuclear_norm(source.plain, scale=0.5), rtol=1e-9, atol=1e-12)
    with pytest.raises((NotImplementedError, ValueError)):
        xp.prox.nuclear_norm(Source(BOTH).x, scale=0.5)
    record("prox.nuclear_norm", "Dask", "rows")
    record("prox.nuclear_norm", "Dask", "rows and classes", "refused: Dask decomposes a matrix in chunks of whole rows")
