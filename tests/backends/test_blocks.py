"""Penalties of rows in blocks, of any size, are what they are whole; and `block_size` holds where it should."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.clocks import PATIENCE
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, options_of
from tests.matrix.test_masks import masks
from xpenalties import Penalty, Pipeline, block_size
from xpenalties.backends import backend_of
from xpenalties.backends._blocks import AUTOMATIC, BLOCK_SIZE, LEAST
from xpenalties.backends._work import Work

INF = math.inf
ROWS = [case for case in CASES if case.kind_of_terms == "rows"]
RNG = np.random.default_rng(17)
X, Y = RNG.standard_normal((7, 4)), RNG.standard_normal((7, 4))

ELSEWHERE = {
    "jax": "XLA is given the whole, but for linear maps: test_linear_divergences.py has those",
    "dask": "its tasks evaluate chunks as NumPy does: tests/scale/test_dask_values.py",
}


def of_rows(test: Callable[..., None]) -> Callable[..., None]:
    """Parametrize a test by the rows of cases.py whose terms are rows, except on backends where they show nothing."""
    for name, reason in ELSEWHERE.items():
        test = pytest.mark.without(name, reason=reason)(test)
    return pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)(test)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The indices of the blocks that have been evaluated."""
    found: list[Any] = []
    block = Work.block

    def recorded(work: Work, index: Any) -> Any:
        found.append(index)
        return block(work, index)

    monkeypatch.setattr(Work, "block", recorded)
    return found


def sizes(case: Case) -> list[int]:
    """From a row to nearly all, of which two rows leave a shorter block at the end."""
    shape, axis = case.arrays[0].shape, case.options.get("axis", -1)
    row = math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
    classes = case.arrays[1].shape[0] if case.is_linear else row
    rows = case.terms(*case.arrays).size
    return sorted({1, 2 * classes, (rows - 1) * classes})


def depends_on_its_block(case: Case) -> bool:
    norms = (xp.group_lasso, xp.sparse_group_lasso, xp.hoyer)
    is_norm = case.function in norms or case.options.get("metric") == "cosine"
    of_logits = case.options.get("from_logits") or case.options.get("temperature", 1.0) != 1.0
    return is_norm or of_logits or case.options.get("tail") == "renormalize"


def same(case: Case, fw: Framework, got: Any, want: Any, dense: bool, *, wide: bool = True) -> None:
    assert got.dtype == want.dtype and tuple(got.shape) == tuple(want.shape)
    # how a product of matrices rounds depends on its size, and how NumPy adds up on where in memory the next number is;
    # a row that needs guards decides how the others of its block are computed
    exact = fw.name == "numpy" and not case.is_linear and not depends_on_its_block(case) and dense
    tolerance = 0.0 if exact else 1e-12 if wide and got.dtype == fw.dtype("float64") else 1e-5
    np.testing.assert_allclose(fw.numpy(got), fw.numpy(want), rtol=tolerance, atol=tolerance / 10)


def in_blocks(case: Case, fw: Framework, arrays: list[Any], *, dense: bool = True, **call: Any) -> None:
    """Compare blocks of all sizes with the whole."""
    with block_size(None):
        want = case(*arrays, **call)
    wide = all(x.dtype == fw.dtype("float64") for x in arrays)
    for elements in sizes(case):
        with block_size(elements):
            same(case, fw, case(*arrays, **call), want, dense, wide=wide)


@of_rows
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_values(case: Case, fw: Framework, reduction: str) -> None:
    in_blocks(case, fw, arrays_of(case, fw), reduction=reduction, **options_of(case, fw))


@of_rows
def test_values_under_masks(case: Case, fw: Framework) -> None:
    where, weights = (fw.array(x) for x in masks(case))
    arrays, options = arrays_of(case, fw), options_of(case, fw)
    in_blocks(case, fw, arrays, where=where, reduction="mean", **options)
    in_blocks(case, fw, arrays, where=where, reduction="none", **options)
    in_blocks(case, fw, arrays, weights=weights, reduction="none", **options)
    in_blocks(case, fw, arrays, where=where, weights=weights, normalizer=3, **options)
    in_blocks(case, fw, arrays, where=where[..., :1], normalizer=fw.array(3.0), **options)


@of_rows
def test_dtypes(case: Case, fw: Framework) -> None:
    where, weights = (fw.array(x) for x in masks(case))
    for dtype in fw.dtypes:
        options = options_of(case, fw, dtype)
        in_blocks(case, fw, arrays_of(case, fw, dtype), reduction="none", **options)
        in_blocks(case, fw, arrays_of(case, fw, dtype), where=where, weights=weights, **options)
    first, *rest = case.arrays
    in_blocks(case, fw, [fw.array(first, "float32"), *[fw.array(x) for x in rest]], **options_of(case, fw))


@of_rows
def test_arrays_of_any_layout(case: Case, fw: Framework) -> None:
    ns, options = xp.namespace(fw.array(X)), options_of(case, fw)
    arrays = [ns.permute_dims(fw.array(x.T.copy()), tuple(range(x.ndim))[::-1]) for x in case.arrays]
    in_blocks(case, fw, arrays, dense=False, **options)
    ends = [fw.array(np.repeat(x, 2, axis=-1)) for x in case.arrays]
    in_blocks(case, fw, [x[..., ::2] for x in ends], dense=False, **options)
    axis = 1 if case.options.get("axis", -1) == 0 else 0
    ones = [
        x if i in case.function.spec.matrices else ns.broadcast_to(x[:1, ...] if axis == 0 else x[:, :1], x.shape)  # type: ignore[attr-defined]
        for i, x in enumerate(arrays_of(case, fw))
    ]
    in_blocks(case, fw, ones, dense=False, **options)


def test_complex(fw: Framework) -> None:
    z = fw.array(X + 1j * Y)
    with block_size(None):
        want = xp.group_lasso(z, reduction="none", where=fw.array(X[:, 0] > 0))
    with block_size(8):
        got = xp.group_lasso(z, reduction="none", where=fw.array(X[:, 0] > 0))
    close(fw, got, fw.numpy(want), rtol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -2])
def test_many_axes(fw: Framework, axis: int) -> None:
    x, y = (fw.array(np.random.default_rng(seed).standard_normal((3, 2, 5, 4))) for seed in (0, 1))
    terms = x.shape[:axis] + x.shape[axis % 4 + 1 :]
    weights = fw.array(np.random.default_rng(2).random(terms))
    for reduction in ("none", "mean"):
        call = {"axis": axis, "from_logits": True, "weights": weights, "reduction": reduction}
        with block_size(None):
            want = xp.kl_divergence(x, y, **call)
        for elements in (40,) if fw.name == "dask" else (1, 12, 40, 119):
            with block_size(elements):
                close(fw, xp.kl_divergence(x, y, **call), fw.numpy(want), rtol=1e-13)


@pytest.mark.parametrize(
    ("shape", "axis", "elements", "blocks"),
    [
        ((7, 4), 1, 8, [(2, 4), (2, 4), (2, 4), (1, 4)]),
        ((7, 4), 1, 11, [(2, 4), (2, 4), (2, 4), (1, 4)]),
        ((3, 4), 1, 1, [(1, 4)] * 3),
        ((4, 7), 0, 12, [(4, 3), (4, 3), (4, 1)]),
        ((2, 3, 4), 2, 12, [(1, 3, 4)] * 2),
        ((2, 3, 4), 2, 11, [(1, 2, 4), (1, 1, 4)] * 2),
        ((5, 3, 4), 2, 24, [(2, 3, 4), (2, 3, 4), (1, 3, 4)]),
        ((2, 4, 3), 1, 12, [(1, 4, 3)] * 2),
        ((3, 2, 2, 2), 0, 12, [(3, 1, 2, 2)] * 2),
        ((3, 2, 2, 2), 0, 7, [(3, 1, 1, 2)] * 4),
    ],
)
def test_where_blocks_lie(shape: tuple[int, ...], axis: int, elements: int, blocks: list[tuple[int, ...]]) -> None:
    """As many rows as fit and lie together, in the order of the terms; a row has one block at least."""
    terms = np.arange(math.prod(shape) // shape[axis]).reshape(shape[:axis] + shape[axis + 1 :])
    x = np.broadcast_to(np.expand_dims(terms, axis), shape)
    work = Work(lambda x: x.max(axis=axis), {}, np, None, (x,), None, False, axis)
    assert [x[index].shape for index in work.indices(elements)] == blocks
    assert (work.in_blocks(elements) == terms).all()
    assert work.size() == x.size and work.terms_shape == terms.shape


@pytest.mark.parametrize("elements", [1, 8, 27, 28, 29, None])
@pytest.mark.without("jax", "strict", "dask", reason="never in blocks, or only on request")
def test_what_is_cut(fw: Framework, cut: list[Any], elements: int | None) -> None:
    with block_size(elements):
        xp.kl_divergence(fw.array(X), fw.array(Y), from_logits=True)
    assert len(cut) == {1: 7, 8: 4, 27: 2}.get(elements or 0, 0)  # what is no larger than a block has none


def automatic(x: Any, matrices: tuple[int, ...] = ()) -> int:
    """How many elements a block has on the device of `x`, if no one says otherwise."""
    backend = backend_of(x)
    assert backend is not None
    found = backend.evaluation.block_elements(Work(lambda x: x, {}, backend.xp, None, (x,), None, False, 1, matrices))
    assert found is not None
    return found


@pytest.mark.only("numpy", "torch", reason="is about CPUs, without a compiler")
def test_the_size_chosen_for_the_device(fw: Framework, cut: list[Any]) -> None:
    rows = automatic(fw.array(X)) // 1024
    assert 2**16 <= 1024 * rows <= 2**22  # of 4 bytes each: not so few that it is slow, nor too many for a cache
    x = fw.array(np.zeros((LEAST // 1024 + 1, 1024)), "float32")
    xp.z_loss(x[:-1])
    assert not cut
    xp.z_loss(x)
    assert len(cut) == math.ceil(len(x) / rows) > 1
    cut.clear()
    rows = automatic(fw.array(X), (1,)) // 2**12
    hidden, weight = fw.array(np.zeros((rows + 1, 2)), "float32"), fw.array(np.zeros((2**12, 2)), "float32")
    xp.linear_entropy(hidden[:-1], weight)
    assert not cut
    xp.linear_entropy(hidden, weight)
    assert len(cut) == 2


def test_nothing_but_rows_is_cut(fw: Framework, cut: list[Any]) -> None:
    with block_size(1):
        for got in (
            xp.l2(fw.array(X), where=fw.array(X > 0)),
            xp.covariance(fw.array(X)),
            xp.output_magnitude(fw.array(X)),
            xp.z_loss(fw.array(X[0])),
            xp.linear_entropy(fw.array(X[0]), fw.array(Y)),
        ):
            assert math.isfinite(float(got))
    assert not cut


@pytest.mark.only("jax", reason="others have no compiler, or torch/test_blocks.py asks it")
def test_nothing_is_cut_for_a_compiler(fw: Framework, cut: list[Any]) -> None:
    with block_size(4):
        for fn in (xp.z_loss, xp.group_lasso, xp.entropy):
            assert math.isfinite(float(fn(fw.array(X), where=fw.array(X[:, 0] > 0))))
    assert not cut


#: zeros and NaN in one argument, in both, in whole rows; and numbers of which there is no normal exponential
EDGES = {
    "zeros": ([0.0, -INF, -INF, -1.0], [-1.0, -INF, -2.0, -INF]),
    "nothing": ([-INF] * 4, [-INF] * 4),
    "no p": ([-INF] * 4, [-1.0, -2.0, -1.0, -2.0]),
    "no q": ([-1.0, -2.0, -1.0, -2.0], [-INF] * 4),
    "nan": ([-1.0, math.nan, -1.0, -2.0], [-1.0, -2.0, -1.0, -2.0]),
    "all nan": ([math.nan] * 4, [-1.0] * 4),
    "nan in q": ([-1.0, -1.0, -1.0, -2.0], [-1.0, math.nan, -1.0, -2.0]),
    "underflow": ([0.0, -90.0, -1000.0, -1.0], [-1.0, -INF, -INF, -1000.0]),
    "infinite": ([INF, 0.0, -INF, 1.0], [0.0, INF, INF, -INF]),
    "plain": ([-1.0, -2.0, -1.5, -1.0], [-2.0, -1.0, -1.0, -1.5]),
}
OF_EDGES: dict[str, Callable[..., Any]] = {
    "forward": xp.kl_divergence,
    "reverse": lambda p, q, **o: xp.kl_divergence(p, q, direction="reverse", **o),
    "symmetric": lambda p, q, **o: xp.kl_divergence(p, q, direction="symmetric", **o),
    "logits": lambda p, q, **o: xp.kl_divergence(p, q, from_logits=True, temperature=2.0, **o),
    "js": xp.js_divergence,
    "entropy": lambda p, q, **o: xp.entropy(q, **o),
    "topk": xp.topk_kl_divergence,
    "z_loss": lambda p, q, **o: xp.z_loss(p, **o),
    "cosine": lambda p, q, **o: xp.consistency(p, q, metric="cosine", **o),
}


@pytest.fixture(params=OF_EDGES)
def at_edges(request: pytest.FixtureRequest) -> Callable[..., Any]:
    found: Callable[..., Any] = OF_EDGES[request.param]
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges(fw: Framework, at_edges: Callable[..., Any], dtype: str) -> None:
    p, q = (fw.array(np.asarray(rows), dtype) for rows in zip(*EDGES.values(), strict=True))
    for call in ({"reduction": "none"}, {"reduction": "mean"}, {"where": fw.array(np.arange(len(EDGES)) % 2 == 0)}):
        with block_size(None):
            want = fw.numpy(at_edges(p, q, **call))
        for elements in (4, 12):
            with block_size(elements):
                np.testing.assert_allclose(fw.numpy(at_edges(p, q, **call)), want, rtol=1e-6)


@pytest.mark.needs("autodiff")
@pytest.mark.without("jax", reason="XLA is given the whole")
def test_gradients_at_edges(fw: Framework, at_edges: Callable[..., Any]) -> None:
    """The first one in blocks; a second one is through the whole, but for what it starts from."""
    p, q = (fw.array(np.asarray(rows)) for rows in zip(*EDGES.values(), strict=True))

    def of_finite(terms: Any) -> Any:
        ns = xp.namespace(terms)
        return ns.where(ns.isfinite(terms), terms, 0.0)

    def found(elements: int | None, wrt: int) -> list[np.ndarray]:
        def of(x: Any) -> Any:
            return xp.namespace(x).sum(of_finite(at_edges(*((x, q) if wrt == 0 else (p, x)), reduction="none")))

        def squares(x: Any) -> Any:
            return xp.namespace(x).sum(of_finite(xp.grad(of)(x)) ** 2)

        with block_size(elements), np.errstate(all="ignore"):  # autograd goes back without our saying so
            return [fw.numpy(xp.grad(fn)((p, q)[wrt])) for fn in (of, squares)]

    for wrt in (0, 1):
        for got, want in zip(found(8, wrt), found(None, wrt), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("first", [True, False])
def test_zeros_in_some_of_the_blocks(fw: Framework, first: bool) -> None:
    """A block without a zero takes another way than one with zeros, where it is large enough to look first."""
    x, y = (np.random.default_rng(seed).standard_normal((6, 700)) for seed in (0, 1))
    x, y = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (x, y))
    rows = [0, 1] if first else [4, 5]
    x[rows, :9], y[rows, 5:14] = -INF, -INF
    p, q = np.exp(x), np.exp(y)
    with np.errstate(all="ignore"):
        terms = np.where(p > 0, p * (x - y), 0.0).sum(-1)
        mixed = np.where((p > 0) | (q > 0), 0.5 * (p - q) * (x - y), 0.0).sum(-1)
        negative = np.where(p > 0, p * x, 0.0).sum(-1)
    for elements in (700, 1400, 2800, None):
        with block_size(elements):
            a, b = fw.array(x), fw.array(y)
            close(fw, xp.kl_divergence(a, b, reduction="none"), terms)
            close(fw, xp.kl_divergence(a, b, direction="symmetric", reduction="none"), mixed)
            close(fw, xp.entropy(a, mode="bonus", reduction="none"), negative)
            assert np.isfinite(fw.numpy(xp.js_divergence(a, b, reduction="none"))).all()


@pytest.mark.parametrize("classes", [3, 1200])
def test_what_is_no_normal_number_is_none(fw: Framework, classes: int) -> None:
    """Below the smallest one a probability has no precision left: as little as 0 it makes of a q of 0 an infinity."""
    for dtype, least in (("float32", -87.34), ("float64", -708.4)):
        for log_p, none in ((least - 0.1, True), (-1000.0, True), (least + 0.1, False)):
            a, b = np.full((2, classes), -1.0), np.full((2, classes), -1.0)
            a[1, 0], b[1, 0] = log_p, -INF
            given = fw.array(a, dtype), fw.array(b, dtype)
            for direction, arrays in (("forward", given), ("reverse", given[::-1])):
                got = xp.kl_divergence(*arrays, direction=direction, reduction="none")
                assert fw.numpy(got).tolist() == [0.0, 0.0 if none else INF], (dtype, log_p, direction)
            # what there is of the other distribution alone is all that its share has to be
            js = fw.numpy(xp.js_divergence(*given, reduction="none"))
            assert js[0] == 0.0 and abs(js[1]) < 1e-36


#: how many arrays of a block's size a penalty takes at most; js has as many numbers for each class
OF_A_BLOCK: dict[str, tuple[int, Callable[..., Any]]] = {
    "kl": (11, lambda x, y, where: xp.kl_divergence(x, y, from_logits=True)),
    "kl of log-probabilities": (4, lambda x, y, where: xp.kl_divergence(x, y)),
    "symmetric": (10, lambda x, y, where: xp.kl_divergence(x, y, from_logits=True, direction="symmetric", where=where)),
    "js": (17, lambda x, y, where: xp.js_divergence(x, y)),
    "entropy": (4, lambda x, y, where: xp.entropy(x, from_logits=True, where=where, reduction="none")),
    "group_lasso": (4, lambda x, y, where: xp.group_lasso(x, weights=where.astype(np.float32))),
    "z_loss": (3, lambda x, y, where: xp.z_loss(x)),
}


@pytest.mark.parametrize("name", OF_A_BLOCK)
@pytest.mark.only("numpy", reason="is about NumPy's memory")
def test_memory_on_numpy(fw: Framework, name: str) -> None:
    x, y = (np.random.default_rng(seed).standard_normal((256, 8192), np.float32) for seed in (0, 1))
    block = 4 * automatic(x)
    assert x.nbytes >= 4 * block
    where = np.arange(256) % 2 == 0
    x[5, :100] = -INF  # a row with zeros takes more than one without
    most, fn = OF_A_BLOCK[name]
    fn(x, y, where)
    tracemalloc.start()
    try:
        fn(x, y, where)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most * block, peak / block


def chosen(automatic: int | None) -> int | None:
    """Elements of a block if the device would like `automatic`."""
    elements = BLOCK_SIZE.get()
    return automatic if elements == AUTOMATIC else elements


@pytest.mark.parametrize(
    ("elements", "error", "message"),
    [
        (0, ValueError, "`elements` must be at least 1, got 0. Pass None for no blocks."),
        (-5, ValueError, "`elements` must be at least 1, got -5. Pass None for no blocks."),
        (True, TypeError, "`elements` must be an integer or None, got True. Pass a Python int."),
        (2.0, TypeError, "`elements` must be an integer or None, got 2.0. Pass a Python int."),
        ("4", TypeError, "`elements` must be an integer or None, got '4'. Pass a Python int."),
    ],
)
def test_refused_sizes(elements: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^block_size: {re.escape(message)}$"), block_size(elements):
        pass  # pragma: no cover - not reached
    assert chosen(7) == 7


def test_nested_sizes() -> None:
    assert (chosen(7), chosen(None)) == (7, None)
    with block_size(3):
        assert (chosen(7), chosen(None)) == (3, 3)
        with block_size(None):
            assert (chosen(7), chosen(None)) == (None, None)
        assert chosen(7) == 3
        with pytest.raises(KeyError), block_size(2):
            raise KeyError
        assert chosen(7) == 3
    assert chosen(7) == 7


def test_sizes_of_threads() -> None:
    """A thread of the user's starts without the size; what another one sets is nothing to this one."""
    found: list[int | None] = []
    here, there = threading.Event(), threading.Event()

    def other() -> None:
        found.append(chosen(7))
        with block_size(2):
            here.set()
            assert there.wait(PATIENCE)
            found.append(chosen(7))

    with block_size(3):
        thread = threading.Thread(target=other)
        thread.start()
        assert here.wait(PATIENCE)
        found.append(chosen(7))
        there.set()
        thread.join()
    assert found == [7, 3, 2]


def test_sizes_of_tasks() -> None:
    async def task(elements: int) -> list[int | None]:
        with block_size(elements):
            await asyncio.sleep(0)
            return [chosen(7)]

    async def all_of_them() -> list[list[int | None]]:
        with block_size(5):
            inherited = asyncio.ensure_future(asyncio.sleep(0, chosen(7)))
            found = await asyncio.gather(*[task(i) for i in (1, 2, 3)])
            return [*found, [await inherited, chosen(7)]]

    assert asyncio.run(all_of_them()) == [[1], [2], [3], [5, 5]]


@pytest.mark.parametrize("execution", ["sequential", "threads"])
def test_sizes_within_a_pipeline(fw: Framework, execution: str) -> None:
    seen: list[tuple[int | None, bool]] = []
    main = threading.get_ident()

    def asks(x: Any) -> Any:
        seen.append((chosen(7), threading.get_ident() == main))
        return xp.entropy(x, from_logits=True)

    pipe = Pipeline([Penalty(asks, name="one"), Penalty(asks, name="other")])
    for elements in (4, None):
        with block_size(elements):
            total, _ = pipe.compute(fw.array(X), execution=execution)
        close(fw, total, 2 * fw.numpy(xp.entropy(fw.array(X), from_logits=True)))
    assert [size for size, _ in seen] == [4, 4, None, None]
    assert {is_main for _, is_main in seen} == {execution == "sequential"}


def test_sizes_within_an_async_pipeline(fw: Framework) -> None:
    seen: list[int | None] = []

    async def asks(x: Any) -> Any:
        await asyncio.sleep(0)
        seen.append(chosen(7))
        return xp.entropy(x, from_logits=True)

    async def run() -> Any:
        with block_size(4):
            return await Pipeline([Penalty(asks), Penalty("z_loss")]).compute_async(fw.array(X))

    total, _ = asyncio.run(run())
    want = xp.entropy(fw.array(X), from_logits=True) + xp.z_loss(fw.array(X))
    close(fw, total, fw.numpy(want))
    assert seen == [4]


def test_a_generator_keeps_its_size_to_itself(fw: Framework) -> None:
    def terms() -> Iterator[Any]:
        for _ in range(2):
            with block_size(4):
                found = xp.z_loss(fw.array(X))
            yield found

    for got in terms():
        close(fw, got, fw.numpy(xp.z_loss(fw.array(X))))
        assert chosen(7) == 7


@pytest.mark.only("strict", reason="is about what the standard alone describes")
def test_backends_that_are_not_cut_unasked(fw: Framework, cut: list[Any]) -> None:
    x = fw.array(np.zeros((3, 2**20)), "float32")
    backend = backend_of(x)
    assert backend is not None
    work = Work(lambda x: x, {}, backend.xp, None, (x,), None, False, 1)
    assert backend.evaluation.size_of_blocks(work) is None
    assert float(xp.entropy(x, from_logits=True)) == pytest.approx(math.log(2**20), rel=1e-5)
    assert not cut
