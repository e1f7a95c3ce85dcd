"""Divergences of linear layers equal those of the logits, in value and gradients; the logits are never stored whole."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.backends.torch.test_blocks import Largest
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline, block_size
from xpenalties.backends._work import Work

RNG = np.random.default_rng(23)
HIDDEN_P, WEIGHT_P = RNG.standard_normal((7, 3)), RNG.standard_normal((4, 3))
HIDDEN_Q, WEIGHT_Q = RNG.standard_normal((7, 5)), RNG.standard_normal((4, 5))  # a larger teacher
BOTH = [HIDDEN_P, WEIGHT_P, HIDDEN_Q, WEIGHT_Q]
#: a penalty of linear layers, the penalty of logits that it equals, and options
FORMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "forward": (xp.linear_kl_divergence, xp.kl_divergence, {}),
    "symmetric": (xp.linear_kl_divergence, xp.kl_divergence, {"direction": "symmetric", "temperature": 0.5}),
    "js": (xp.linear_js_divergence, xp.js_divergence, {"beta": 0.2, "temperature": 1.5}),
    "entropy": (xp.linear_entropy, xp.entropy, {}),
    "bonus": (xp.linear_entropy, xp.entropy, {"mode": "bonus", "normalize": True, "temperature": 0.7}),
}
autodiff = pytest.mark.needs("autodiff")
of_forms = pytest.mark.parametrize("form", FORMS)
in_blocks_or_not = pytest.mark.parametrize("elements", [8, None], ids=["blocks", "whole"])


@pytest.fixture(autouse=True)
def _compiled_enough(request: pytest.FixtureRequest) -> None:
    """Skip on JAX what other files test already: it takes seconds to compile a program."""
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    if params.get("fw") == "jax" and params.get("elements", 8) is None:
        pytest.skip("test_matrix.py tests evaluation as a whole")


def arrays_of(form: str) -> list[np.ndarray]:
    return BOTH[:2] if FORMS[form][0] is xp.linear_entropy else BOTH


def linear(form: str, *arrays: Any, **call: Any) -> Any:
    fn, _, options = FORMS[form]
    return fn(*arrays, **options, **call)


def plain(form: str, *arrays: Any, **call: Any) -> Any:
    """Return the same penalty of explicit logits."""
    _, fn, options = FORMS[form]
    ns = xp.namespace(*arrays)
    logits = [h @ ns.permute_dims(w, (1, 0)) for h, w in zip(arrays[::2], arrays[1::2], strict=True)]
    with block_size(None):
        return fn(*logits, from_logits=True, **options, **call)


def mask(fw: Framework) -> dict[str, Any]:
    where = np.asarray([True, False, True, True, True, False, True])
    return {"where": fw.array(where), "weights": fw.array(np.asarray([0.5, 2.0, 0.0, 1.5, 1.0, 0.1, 3.0]))}


@of_forms
@in_blocks_or_not
def test_value(fw: Framework, form: str, elements: int | None) -> None:
    arrays = [fw.array(x) for x in arrays_of(form)]
    three = fw.array(np.asarray(3.0))
    calls: list[dict[str, Any]] = [{"reduction": "none"}, {"reduction": "mean", **mask(fw), "normalizer": three}]
    if fw.name != "jax":
        calls += [{"reduction": "mean"}, {"reduction": "sum", "normalizer": 3}, {"where": mask(fw)["where"]}]
        calls += [{"reduction": "none", **mask(fw)}, {"weights": mask(fw)["weights"], "reduction": "mean"}]
    for call in calls:
        with block_size(elements):
            got = linear(form, *arrays, **call)
        close(fw, got, fw.numpy(plain(form, *arrays, **call)), rtol=1e-11)


@of_forms
@in_blocks_or_not
@autodiff
def test_gradients(fw: Framework, form: str, elements: int | None) -> None:
    """First and second gradients, with respect to hidden states and weights."""
    arrays, call = [fw.array(x) for x in arrays_of(form)], {"reduction": "mean", **mask(fw)}

    def both_orders(fn: Callable[..., Any]) -> Any:
        def squares(nest: Any) -> Any:
            return sum(xp.l2(x) for x in gradient(nest))

        gradient = xp.grad(lambda nest: fn(form, *nest, **call))
        second = fw.once(xp.grad(squares))(arrays) if fw.name != "jax" or form in ("forward", "bonus") else []
        return [*fw.once(gradient)(arrays), *second]

    with block_size(elements):
        got = both_orders(linear)
    for one, other in zip(got, both_orders(plain), strict=True):
        close(fw, one, fw.numpy(other), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", ["forward", "entropy"])
@in_blocks_or_not
@autodiff
def test_gradients_of_each_term(fw: Framework, form: str, elements: int | None) -> None:
    arrays, factors = [fw.array(x) for x in arrays_of(form)], fw.array(np.linspace(0.5, 2.0, 7))

    def gradients(fn: Callable[..., Any]) -> Any:
        def weighted_sum(nest: list[Any]) -> Any:
            return xp.namespace(nest[0]).sum(fn(form, *nest, reduction="none") * factors)

        return fw.once(xp.grad(weighted_sum))(arrays)

    with block_size(elements):
        got = gradients(linear)
    for one, other in zip(got, gradients(plain), strict=True):
        close(fw, one, fw.numpy(other))


@pytest.mark.parametrize("form", ["forward", "entropy"])
@in_blocks_or_not
@autodiff
def test_learned_weights_and_normalizer(fw: Framework, form: str, elements: int | None) -> None:
    """Weights, normalizer and arrays have gradients, also if the weights depend on the hidden states."""
    inputs = {
        "arrays": [fw.array(x) for x in arrays_of(form)],
        "weights": mask(fw)["weights"],
        "normalizer": fw.array(np.asarray(3.0)),
    }

    def gradients(fn: Callable[..., Any]) -> Any:
        def penalty(nest: Any) -> Any:
            hidden, learned = nest["arrays"][0], nest["weights"]
            weights = learned + xp.namespace(hidden).sum(hidden * hidden, axis=-1)
            call = {"where": mask(fw)["where"], "normalizer": nest["normalizer"]}
            return sum(fn(form, *nest["arrays"], weights=w, **call) for w in (learned, weights))

        return fw.once(xp.grad(penalty))(inputs)

    with block_size(elements):
        got = gradients(linear)
    want = gradients(plain)
    for name in ("weights", "normalizer"):
        close(fw, got[name], fw.numpy(want[name]))
    for one, other in zip(got["arrays"], want["arrays"], strict=True):
        close(fw, one, fw.numpy(other))


@pytest.mark.parametrize("shared", ["weight", "hidden", "both"])
@in_blocks_or_not
@autodiff
def test_one_array_in_two_places(fw: Framework, shared: str, elements: int | None) -> None:
    """The gradient is the sum over both places, in the first and the second backward pass."""
    hidden, weight = fw.array(HIDDEN_P), fw.array(WEIGHT_P)
    other_hidden, other_weight = fw.array(HIDDEN_P[::-1].copy()), fw.array(WEIGHT_P[::-1].copy())

    def both_orders(fn: Callable[..., Any]) -> Any:
        def penalty(nest: Any) -> Any:
            h, w = nest
            q = {"weight": (other_hidden, w), "hidden": (h, other_weight), "both": (h * h, w + 1.0)}[shared]
            return fn("forward", h, w, *q)

        gradient = xp.grad(penalty)
        second = xp.grad(lambda nest: xp.l2(gradient(nest)[1]))
        return [x for order in (gradient, second) for x in fw.once(order)([hidden, weight])]

    with block_size(elements):
        got = both_orders(linear)
    for one, expected in zip(got, both_orders(plain), strict=True):
        close(fw, one, fw.numpy(expected))


@autodiff
def test_masked_rows_add_nothing_to_the_gradient_of_the_weights(fw: Framework) -> None:
    """Also if their hidden states are NaN or infinite. If all rows are masked, the gradient is 0."""
    hidden = HIDDEN_P.copy()
    hidden[[1, 5]] = [[np.nan] * 3, [np.inf] * 3]
    call = {"where": fw.array(np.isfinite(hidden[:, 0]))}
    no_row = {"where": fw.array(np.asarray(False))}
    gradient = fw.once(xp.grad(lambda nest, call: xp.linear_entropy(*nest, **call)))
    with block_size(8):
        got = gradient([fw.array(hidden), fw.array(WEIGHT_P)], call)
        zeros = gradient([fw.array(hidden), fw.array(WEIGHT_P)], no_row)
    want = gradient([fw.array(HIDDEN_P), fw.array(WEIGHT_P)], call)
    for one, other, zero in zip(got, want, zeros, strict=True):
        close(fw, one, fw.numpy(other))
        assert (fw.numpy(zero) == 0).all()


@autodiff
def test_no_rows(fw: Framework) -> None:
    arrays = [fw.array(np.zeros((0, 3))), fw.array(WEIGHT_P)]
    value, (hidden, weight) = xp.value_and_grad(lambda nest: xp.linear_entropy(*nest))(arrays)
    assert float(value) == 0.0 and tuple(hidden.shape) == (0, 3)
    close(fw, weight, np.zeros((4, 3)))
    four = [*arrays, fw.array(np.zeros((0, 5))), fw.array(WEIGHT_Q)]
    assert tuple(xp.linear_js_divergence(*four, reduction="none").shape) == (0,)


@in_blocks_or_not
def test_rows_of_any_shape(fw: Framework, elements: int | None) -> None:
    hidden = RNG.standard_normal((2, 3, 2, 3))
    where = RNG.random((2, 3, 2)) < 0.5
    for x, rows in ((hidden, where), (hidden[0, 0, 0], where[0, 0, 0])):
        call = {"reduction": "none", "where": fw.array(np.asarray(rows))}
        with block_size(elements):
            got = xp.linear_entropy(fw.array(x), fw.array(WEIGHT_P), **call)
        assert tuple(got.shape) == x.shape[:-1]
        close(fw, got, fw.numpy(plain("entropy", fw.array(x), fw.array(WEIGHT_P), **call)))


def test_one_class_and_one_feature(fw: Framework) -> None:
    with block_size(2):
        assert float(xp.linear_entropy(fw.array(HIDDEN_P), fw.array(WEIGHT_P[:1]), normalize=True)) == 0.0
        got = xp.linear_entropy(fw.array(HIDDEN_P[:, :1]), fw.array(WEIGHT_P[:, :1]), reduction="none")
    close(fw, got, fw.numpy(plain("entropy", fw.array(HIDDEN_P[:, :1]), fw.array(WEIGHT_P[:, :1]), reduction="none")))


@in_blocks_or_not
def test_precisions(fw: Framework, elements: int | None) -> None:
    """Everything is computed in float32, or in the wider dtype of the two."""
    for hidden, weight, wide in (
        ("float16", "float16", "float32"),
        ("bfloat16", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("float32", "float64", "float64"),
    ):
        if {hidden, weight} - {*fw.dtypes}:
            continue
        arrays = [fw.array(HIDDEN_P, hidden), fw.array(WEIGHT_P, weight)]
        with block_size(elements):
            got = xp.linear_entropy(*arrays, reduction="none")
        assert got.dtype == fw.dtype(wide)
        ns = xp.namespace(*arrays)
        want = plain("entropy", *(ns.astype(x, fw.dtype(wide)) for x in arrays), reduction="none")
        close(fw, got, fw.numpy(want), rtol=1e-6)


@pytest.mark.parametrize("execution", ["sequential", "threads"])
def test_in_a_pipeline(fw: Framework, execution: str) -> None:
    """The report has the metrics of the terms, although their sum is computed in blocks."""
    pipe = Pipeline([Penalty("linear_entropy", inputs=("hidden", "weight"), options=mask(fw))])
    arrays = {"hidden": fw.array(HIDDEN_P), "weight": fw.array(WEIGHT_P)}
    with block_size(8):
        total, report = pipe.compute(arrays, execution=execution)
    terms = fw.numpy(plain("entropy", *arrays.values(), reduction="none"))
    where, weights = (fw.numpy(x) for x in mask(fw).values())
    is_kept = where & (weights > 0)
    mean = (terms * weights)[is_kept].sum() / weights[is_kept].sum()
    close(fw, total, mean)
    metrics = report.regularizers["linear_entropy"].metrics
    assert list(metrics) == ["sum", "mean", "min", "max"]
    want = [(terms * weights)[is_kept].sum(), mean, terms[is_kept].min(), terms[is_kept].max()]
    assert [float(x) for x in metrics.values()] == pytest.approx(want, rel=1e-9)


@pytest.mark.needs("jit")
@in_blocks_or_not
def test_compiled(fw: Framework, elements: int | None) -> None:
    """jax.jit compiles blocks too; torch.compile compiles the whole."""
    arrays = [fw.array(x) for x in BOTH]

    def penalty(arrays: list[Any], where: Any, weights: Any) -> Any:
        return linear("forward", *arrays, where=where, weights=weights)

    args = (arrays, *mask(fw).values())
    with block_size(elements):
        compiled, count = fw.compile(penalty)
        close(fw, compiled(*args), fw.numpy(plain("forward", *arrays, **mask(fw))))
        compiled_once = count()
        compiled(*args)
        assert count() == compiled_once
        gradient, _ = fw.compile(xp.grad(penalty))
        got = gradient(*args)
    want = fw.once(xp.grad(lambda arrays: plain("forward", *arrays, **mask(fw))))(arrays)
    for one, other in zip(got, want, strict=True):
        close(fw, one, fw.numpy(other))


@pytest.mark.needs("jit")
@in_blocks_or_not
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch itself, for its first jvp
def test_transformed(fw: Framework, elements: int | None) -> None:
    arrays, tangents = [fw.array(x) for x in BOTH], [fw.array(x[::-1].copy()) for x in BOTH]
    jvp = fw.module.jvp if fw.name == "jax" else fw.module.func.jvp
    stacked = [xp.namespace(x).stack([x, -x, 0.5 * x]) for x in arrays]

    def transformed(fn: Callable[..., Any]) -> list[Any]:
        penalty = partial(fn, "forward")
        gradient_of_weight = xp.grad(lambda w, h: fn("entropy", h, w))
        return [
            *jvp(fw.once(penalty), tuple(arrays), tuple(tangents)),
            fw.vmap(fw.once(penalty))(*stacked),
            fw.vmap(fw.once(gradient_of_weight))(stacked[1], stacked[0]),
        ]

    with block_size(elements):
        got = transformed(linear)
    for one, other in zip(got, transformed(plain), strict=True):
        close(fw, one, fw.numpy(other))


#: sizes such that a block of 8 rows has more logits than any array has elements, except those of the whole
ROWS, CLASSES, FEATURES, BLOCK = 64, 32, 3, 8 * 32


@pytest.mark.parametrize("name", ["kl", "js", "entropy"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.only("torch", reason="is about PyTorch's memory")
def test_memory_on_torch(fw: Framework, name: str, reduction: str, dtype: str) -> None:
    torch = fw.module
    fn = {"kl": xp.linear_kl_divergence, "js": xp.linear_js_divergence, "entropy": xp.linear_entropy}[name]
    shapes = ((ROWS, FEATURES), (CLASSES, FEATURES)) * (1 if name == "entropy" else 2)
    arrays = [torch.randn(shape).to(getattr(torch, dtype)).requires_grad_() for shape in shapes]
    where, weights, watch = torch.arange(ROWS) % 3 > 0, torch.rand(ROWS), Largest(torch)
    with watch.mode:
        with block_size(BLOCK):
            value = fn(*arrays, reduction=reduction, where=where, weights=weights)
        stored = watch.kept()
        value.sum().backward(retain_graph=True)
        value.sum().backward()
    assert watch.larger_than(BLOCK) == 0
    assert stored <= sum(x.numel() for x in arrays) + 8 * ROWS
    with watch.mode, block_size(None):
        fn(*arrays)
    assert watch.larger_than(BLOCK) > 0  # the watch sees whole logits


@pytest.mark.parametrize(
    ("call", "recomputes"),
    [
        ({"reduction": "mean"}, False),
        ({"reduction": "sum", "where": [True] * 7, "weights": [0.5] * 7}, False),
        ({"reduction": "none"}, True),
        ({"weights": [0.5] * 7, "learned": True}, True),
        ({"dtype": "float16"}, True),
        ({"dtype": "bfloat16"}, False),
        ({"retained": True}, True),
    ],
)
@pytest.mark.only("torch", reason="is about PyTorch's passes")
def test_how_often_torch_evaluates_a_block(
    fw: Framework, monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], recomputes: bool
) -> None:
    """Once, or twice if the gradient cannot be computed in the forward pass."""
    torch, blocks, block = fw.module, [], Work.block
    monkeypatch.setattr(Work, "block", lambda work, index: blocks.append(index) or block(work, index))
    options = dict(call)
    dtype = getattr(torch, options.pop("dtype", "float64"))
    learned, retained = options.pop("learned", False), options.pop("retained", False)
    call_options = {name: torch.tensor(x) if isinstance(x, list) else x for name, x in options.items()}
    if learned:
        call_options["weights"].requires_grad_()
    hidden, weight = (torch.tensor(x).to(dtype).requires_grad_() for x in (HIDDEN_P, WEIGHT_P))
    with block_size(8):
        value = xp.linear_entropy(hidden, weight, **call_options).sum()
    assert len(blocks) == 4
    value.backward(retain_graph=retained)
    if retained:
        assert len(blocks) == 4
        value.backward()
    assert len(blocks) == (8 if recomputes else 4)
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all()


@pytest.mark.only("torch", reason="is about requires_grad")
def test_gradients_that_are_not_required(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen layer, such as a teacher's, has no gradient, and none is computed."""
    torch, block, seen = fw.module, Work.terms, []
    monkeypatch.setattr(Work, "terms", lambda w, a, k: seen.append([x.requires_grad for x in a]) or block(w, a, k))
    for requires_grad in ((False, False, True, True), (True, False, True, False), (False, True, False, False)):
        seen.clear()
        arrays = [torch.tensor(x, requires_grad=needs) for x, needs in zip(BOTH, requires_grad, strict=True)]
        with block_size(8):
            value = xp.linear_kl_divergence(*arrays)
        value.backward()
        assert seen == [list(requires_grad)] * 4
        assert [x.grad is not None for x in arrays] == list(requires_grad)
        gradients = [x.grad for x in arrays if x.grad is not None]
        for x in arrays:
            x.grad = None
        plain("forward", *arrays).backward()
        for one, other in zip(gradients, [x.grad for x in arrays if x.grad is not None], strict=True):
            close(fw, one, fw.numpy(other))


def intermediates(jaxpr: Any) -> Iterator[int]:
    """Yield the size of each intermediate array of a program, and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars)
        for parameter in equation.params.values():
            for value in parameter if isinstance(parameter, (list, tuple)) else [parameter]:
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from intermediates(inner)


@pytest.mark.parametrize("name", ["kl", "js", "entropy"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.only("jax", reason="is about XLA's memory")
def test_memory_on_jax(fw: Framework, name: str, masked: bool) -> None:
    jax = fw.module
    fn = {"kl": xp.linear_kl_divergence, "js": xp.linear_js_divergence, "entropy": xp.linear_entropy}[name]

    def largest(rows: int, classes: int, features: int) -> int:
        shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((rows, features), (classes, features))]
        arrays = shapes * (1 if name == "entropy" else 2)
        call = {"where": jax.ShapeDtypeStruct((rows,), bool)} if masked else {}
        both = jax.value_and_grad(lambda arrays, call: fn(*arrays, **call))
        return max(intermediates(jax.make_jaxpr(both)(arrays, call).jaxpr))

    with block_size(BLOCK):
        assert largest(ROWS, CLASSES, FEATURES) == BLOCK
        assert largest(ROWS - 1, CLASSES, FEATURES) == BLOCK
    with block_size(None):
        assert largest(ROWS, CLASSES, FEATURES) >= ROWS * CLASSES
    assert largest(4096, 20_000, 16) <= 2**22  # of 82 million logits


@pytest.mark.only("numpy", reason="is about NumPy's memory")
def test_memory_on_numpy(fw: Framework) -> None:
    hidden, weight = RNG.standard_normal((256, 4)), RNG.standard_normal((4096, 4))
    block = 8 * 4096 * hidden.itemsize
    peaks = []
    for elements in (8 * 4096, None):
        with block_size(elements):
            xp.linear_entropy(hidden, weight)
            tracemalloc.start()
            try:
                xp.linear_entropy(hidden, weight)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    assert peaks[0] < 5 * block < 32 * block < peaks[1]


@pytest.mark.only("jax", reason="is about JAX's programs")
def test_jax_compiles_once_for_each_block_size(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call outside of jit uses its own block size. A function that a user compiled keeps the size of its trace."""
    import xpenalties.backends.jax._programs as programs

    sizes: list[int] = []
    mapped = programs.mapped
    monkeypatch.setattr(programs, "mapped", lambda work, size: sizes.append(size) or mapped(work, size))
    hidden, weight = fw.array(RNG.standard_normal((11, 2))), fw.array(RNG.standard_normal((3, 2)))
    want = fw.numpy(plain("entropy", hidden, weight))
    for elements in (6, None, 12, 6, 12, 33, 32):
        with block_size(elements):
            close(fw, xp.linear_entropy(hidden, weight), want)
    assert sizes == [6, 12, 32]  # None and 33, the size of all logits, evaluate the whole
    compiled = fw.module.jit(xp.linear_entropy)
    for elements in (9, 15):
        with block_size(elements):
            close(fw, compiled(hidden, weight), want)
    assert sizes == [6, 12, 32, 9]


MAPS = "must have shape (classes, features) for a `hidden{0}` of shape (..., features), got {1} and {2}. Transpose a"
ROWS_DIFFER = (
    "must have the same shape except for the features, got {}. "
    "Broadcast them explicitly, in the order hidden_p, weight_p, hidden_q, weight_q."
)
REFUSED: list[tuple[str, list[tuple[int, ...]], str]] = [
    ("linear_entropy", [(7, 3), (3,)], "`weight` " + MAPS.format("", "(3,)", "(7, 3)")),
    ("linear_entropy", [(7, 3), (2, 4, 3)], "`weight` " + MAPS.format("", "(2, 4, 3)", "(7, 3)")),
    ("linear_entropy", [(7, 3), (3, 4)], "`weight` " + MAPS.format("", "(3, 4)", "(7, 3)")),
    ("linear_entropy", [(7, 3), (0, 3)], "`weight` " + MAPS.format("", "(0, 3)", "(7, 3)")),
    ("linear_entropy", [(7, 0), (4, 0)], "`weight` " + MAPS.format("", "(4, 0)", "(7, 0)")),
    ("linear_entropy", [(), (4, 3)], "`weight` " + MAPS.format("", "(4, 3)", "()")),
    ("linear_kl_divergence", [(7, 3), (3, 4), (7, 3), (4, 3)], "`weight_p` " + MAPS.format("_p", "(3, 4)", "(7, 3)")),
    ("linear_js_divergence", [(7, 3), (4, 3), (7, 5), (4, 3)], "`weight_q` " + MAPS.format("_q", "(4, 3)", "(7, 5)")),
    (
        "linear_kl_divergence",
        [(7, 3), (4, 3), (6, 3), (4, 3)],
        "`hidden_p` and `hidden_q` " + ROWS_DIFFER.format("(7, 3) and (6, 3)"),
    ),
    (
        "linear_kl_divergence",
        [(7, 3), (4, 3), (1, 7, 3), (4, 3)],
        "`hidden_p` and `hidden_q` " + ROWS_DIFFER.format("(7, 3) and (1, 7, 3)"),
    ),
    (  # both hidden states before both weights
        "linear_kl_divergence",
        [(7, 3), (7, 3), (4, 3), (4, 3)],
        "`hidden_p` and `hidden_q` " + ROWS_DIFFER.format("(7, 3) and (4, 3)"),
    ),
    (
        "linear_js_divergence",
        [(7, 3), (4, 3), (7, 5), (6, 5)],
        "`weight_p` and `weight_q` must have the same number of classes, got 4 and 6. Cut or pad one",
    ),
    (
        "linear_kl_divergence",
        [(7, 3), (4, 3)],
        "takes 4 arrays (hidden_p, weight_p, hidden_q, weight_q), got 2 by position. Pass arrays by position",
    ),
]


@pytest.mark.parametrize(("name", "shapes", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_refused_shapes(fw: Framework, name: str, shapes: list[tuple[int, ...]], message: str) -> None:
    kind = TypeError if "takes" in message else ValueError
    with pytest.raises(kind) as caught:
        getattr(xp, name)(*[fw.array(np.zeros(shape)) for shape in shapes])
    assert str(caught.value).startswith(f"{name}: {message}")


def test_refused_dtypes_and_masks(fw: Framework) -> None:
    hidden, weight = fw.array(HIDDEN_P), fw.array(WEIGHT_P)
    with pytest.raises(TypeError, match=r"^linear_entropy: `weight` must be real floating point, got .*int64.*Cast it"):
        xp.linear_entropy(hidden, fw.array(np.ones((4, 3), dtype=np.int64)))
    with pytest.raises(TypeError, match=r"^linear_entropy: `weight` must be real floating point, got .*complex.*Take"):
        xp.linear_entropy(hidden, fw.array(WEIGHT_P + 0j))
    with pytest.raises(
        ValueError, match=r"^linear_entropy: `where` must broadcast to the terms' shape \(7,\), got \(7,"
    ):
        xp.linear_entropy(hidden, weight, where=fw.array(np.ones((7, 3)) > 0))
    with pytest.raises(ValueError, match=r"^linear_entropy: `weights` must broadcast to the terms' shape \(7,\), got"):
        xp.linear_entropy(hidden, weight, weights=fw.array(np.ones(4)))
    assert math.isfinite(float(xp.linear_entropy(hidden, weight, weights=fw.array(np.ones(7)))))
