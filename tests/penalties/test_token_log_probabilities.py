"""Log-probabilities of tokens, and entropies, are those of the full logits, which are never stored."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.backends.torch.test_blocks import Largest
from tests.helpers.harness import Framework, close
from tests.penalties.test_linear_divergences import intermediates
from xpenalties import block_size, linear_log_probabilities

RNG = np.random.default_rng(11)
HIDDEN, WEIGHT = RNG.standard_normal((7, 3)), RNG.standard_normal((5, 3))
TOKENS = np.asarray([0, 4, 2, -100, 1, 1, -1])
KEPT = TOKENS >= 0
autodiff = pytest.mark.needs("autodiff")
in_blocks_or_not = pytest.mark.parametrize("elements", [10, None], ids=["blocks", "whole"])
with_entropy_or_not = pytest.mark.parametrize("with_entropy", [False, True], ids=["alone", "entropy"])


def oracle(hidden: np.ndarray, weight: np.ndarray, tokens: np.ndarray, temperature: float = 1.0) -> list[np.ndarray]:
    """Return the log-probability and the entropy of each row, from the softmax of the full logits."""
    logits = np.inner(hidden, weight) / temperature
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    of_token = np.take_along_axis(np.log(p), np.maximum(tokens, 0)[..., None], axis=-1)[..., 0]
    return [np.where(tokens < 0, 0.0, x) for x in (of_token, -(p * np.log(p)).sum(axis=-1))]


def plain(hidden: Any, weight: Any, tokens: Any, temperature: float = 1.0) -> list[Any]:
    """Return the same of full logits in the framework of the arrays, to be differentiated."""
    ns = xp.namespace(hidden, weight)
    logits = hidden @ ns.permute_dims(weight, (1, 0)) / temperature
    log_p = logits - ns.log(ns.sum(ns.exp(logits), axis=-1, keepdims=True))
    is_kept = tokens >= 0
    is_token = ns.expand_dims(tokens, axis=-1) == ns.arange(weight.shape[0], dtype=tokens.dtype)
    of_token = ns.sum(ns.where(is_token, log_p, 0.0), axis=-1)
    return [ns.where(is_kept, x, 0.0) for x in (of_token, -ns.sum(ns.exp(log_p) * log_p, axis=-1))]


def arrays_of(fw: Framework, dtype: str | None = None) -> list[Any]:
    return [fw.array(HIDDEN, dtype), fw.array(WEIGHT, dtype), fw.array(TOKENS)]


@in_blocks_or_not
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values(fw: Framework, elements: int | None, temperature: float) -> None:
    with block_size(elements):
        both = linear_log_probabilities(*arrays_of(fw), temperature=temperature, with_entropy=True)
        alone = linear_log_probabilities(*arrays_of(fw), temperature=temperature)
    want = oracle(HIDDEN, WEIGHT, TOKENS, temperature)
    for got, expected in zip((*both, alone), (*want, want[0]), strict=True):
        assert tuple(got.shape) == (7,)
        close(fw, got, expected, rtol=1e-11)


@in_blocks_or_not
def test_rows_of_any_shape(fw: Framework, elements: int | None) -> None:
    hidden = RNG.standard_normal((2, 3, 2, 3))
    tokens = RNG.integers(-2, 5, (2, 3, 2))
    for x, t in ((hidden, tokens), (hidden[0, 0, 0], tokens[0, 0, 0]), (hidden[:0], tokens[:0])):
        with block_size(elements):
            got = linear_log_probabilities(fw.array(x), fw.array(WEIGHT), fw.array(np.asarray(t)), with_entropy=True)
        for one, want in zip(got, oracle(x, WEIGHT, np.asarray(t)), strict=True):
            assert tuple(one.shape) == want.shape
            close(fw, one, want)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_integers_of_any_size(fw: Framework, dtype: str) -> None:
    """Also with more classes than the integer can count."""
    weight, tokens = RNG.standard_normal((300, 3)), np.asarray([0, 127, 5, 100, 1, 1, 3])
    got = linear_log_probabilities(fw.array(HIDDEN), fw.array(weight), fw.array(tokens.astype(dtype)))
    close(fw, got, oracle(HIDDEN, weight, tokens)[0])


@in_blocks_or_not
@with_entropy_or_not
@autodiff
def test_gradients(fw: Framework, elements: int | None, with_entropy: bool) -> None:
    """First and second ones, with respect to hidden states and weight, of both results."""
    hidden, weight, tokens = arrays_of(fw)
    factors = [fw.array(np.linspace(0.5, 2.0, 7)), fw.array(np.linspace(-1.0, 1.0, 7))]

    def ours(hidden: Any, weight: Any) -> list[Any]:
        result = linear_log_probabilities(hidden, weight, tokens, with_entropy=with_entropy)
        return [*result] if with_entropy else [result]

    def both_orders(fn: Callable[..., Any]) -> list[Any]:
        def loss(nest: list[Any]) -> Any:
            terms = fn(*nest)[: 1 + with_entropy]
            return sum(xp.namespace(*nest).sum(x * factor) for x, factor in zip(terms, factors, strict=False))

        gradient = xp.grad(loss)
        second = xp.grad(lambda nest: sum(xp.l2(x) for x in gradient(nest)))
        return [*fw.once(gradient)([hidden, weight]), *fw.once(second)([hidden, weight])]

    with block_size(elements):
        got = both_orders(ours)
    for one, want in zip(got, both_orders(lambda h, w: plain(h, w, tokens)), strict=True):
        close(fw, one, fw.numpy(want), rtol=1e-9, atol=1e-10)


@in_blocks_or_not
@autodiff
def test_rows_that_are_left_out(fw: Framework, elements: int | None) -> None:
    """They add exactly 0, also if the hidden state is NaN or infinite."""
    hidden = HIDDEN.copy()
    hidden[3], hidden[6] = np.nan, np.inf
    tokens = fw.array(TOKENS)

    def loss(nest: list[Any]) -> Any:
        log_p, entropy = linear_log_probabilities(*nest, tokens, with_entropy=True)
        return xp.namespace(log_p).sum(log_p * log_p - entropy)

    both = fw.once(xp.value_and_grad(loss))
    with block_size(elements):
        value, got = both([fw.array(hidden), fw.array(WEIGHT)])
        want_value, want = both([fw.array(HIDDEN), fw.array(WEIGHT)])
    close(fw, value, fw.numpy(want_value))
    for one, other in zip(got, want, strict=True):
        close(fw, one, fw.numpy(other))
    assert (fw.numpy(got[0])[~KEPT] == 0).all()


@in_blocks_or_not
def test_tokens_that_are_no_class(fw: Framework, elements: int | None) -> None:
    """NaN, and only in their rows: an error would have to wait for the device."""
    tokens = np.asarray([0, 5, 2, -100, 1_000_000, 1, -1])
    with block_size(elements):
        got, entropy = linear_log_probabilities(*arrays_of(fw)[:2], fw.array(tokens), with_entropy=True)
    log_p, want = oracle(HIDDEN, WEIGHT, np.where(tokens < 5, tokens, 0))
    close(fw, got, np.where(tokens < 5, log_p, np.nan))
    close(fw, entropy, want)


@in_blocks_or_not
def test_precisions(fw: Framework, elements: int | None) -> None:
    """Half precision is that of float64, of the same operands."""
    for dtype in {"float16", "bfloat16", "float32"} & {*fw.dtypes}:
        hidden, weight, tokens = arrays_of(fw, dtype)
        with block_size(elements):
            got = linear_log_probabilities(hidden, weight, tokens, with_entropy=True)
        for one, want in zip(got, oracle(fw.numpy(hidden), fw.numpy(weight), TOKENS), strict=True):
            assert one.dtype == fw.dtype("float32")
            close(fw, one, want, rtol=3e-6)


@autodiff
def test_no_rows(fw: Framework) -> None:
    def loss(nest: list[Any]) -> Any:
        log_p, entropy = linear_log_probabilities(*nest, fw.array(TOKENS[:0]), with_entropy=True)
        return xp.namespace(log_p).sum(log_p + entropy)

    value, gradients = xp.value_and_grad(loss)([fw.array(HIDDEN[:0]), fw.array(WEIGHT[:1])])
    assert float(value) == 0.0
    for gradient, shape in zip(gradients, ((0, 3), (1, 3)), strict=True):
        close(fw, gradient, np.zeros(shape))


@pytest.mark.needs("jit")
@in_blocks_or_not
def test_compiled(fw: Framework, elements: int | None) -> None:
    arrays = arrays_of(fw)

    def loss(hidden: Any, weight: Any, tokens: Any) -> Any:
        log_p, entropy = linear_log_probabilities(hidden, weight, tokens, with_entropy=True)
        return xp.namespace(log_p).sum(log_p - 0.1 * entropy)

    def plain_loss(hidden: Any, weight: Any, tokens: Any) -> Any:
        log_p, entropy = plain(hidden, weight, tokens)
        return xp.namespace(log_p).sum(log_p - 0.1 * entropy)

    with block_size(elements):
        compiled, count = fw.compile(loss)
        close(fw, compiled(*arrays), fw.numpy(plain_loss(*arrays)))
        once = count()
        compiled(*arrays)
        assert count() == once
        gradient, _ = fw.compile(lambda h, w, t: xp.grad(lambda nest: loss(*nest, t))([h, w]))
        got = gradient(*arrays)
    want = fw.once(xp.grad(lambda nest: plain_loss(*nest, arrays[2])))(arrays[:2])
    for one, other in zip(got, want, strict=True):
        close(fw, one, fw.numpy(other))


@pytest.mark.needs("jit")
@in_blocks_or_not
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by PyTorch itself, for its first jvp
def test_transformed(fw: Framework, elements: int | None) -> None:
    hidden, weight, tokens = arrays_of(fw)
    jvp = fw.module.jvp if fw.name == "jax" else fw.module.func.jvp
    stacked = [xp.namespace(x).stack([x, -x, 0.5 * x]) for x in (hidden, weight)]
    tangents = (fw.array(HIDDEN[::-1].copy()), fw.array(WEIGHT[::-1].copy()))

    def transformed(fn: Callable[..., Any]) -> list[Any]:
        def product(hidden: Any, weight: Any) -> Any:
            log_p, entropy = fn(hidden, weight, tokens)
            return log_p * entropy

        return [*jvp(fw.once(product), (hidden, weight), tangents), fw.vmap(fw.once(product))(*stacked)]

    with block_size(elements):
        got = transformed(lambda *arrays: linear_log_probabilities(*arrays, with_entropy=True))
    for one, other in zip(got, transformed(plain), strict=True):
        close(fw, one, fw.numpy(other))


@with_entropy_or_not
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.only("torch", reason="is about PyTorch's memory")
def test_memory_on_torch(fw: Framework, with_entropy: bool, dtype: str) -> None:
    torch, block = fw.module, 8 * 32
    hidden, weight = (torch.randn(n, 3).to(getattr(torch, dtype)).requires_grad_() for n in (64, 32))
    tokens, watch = torch.randint(0, 32, (64,)), Largest(torch)
    with watch.mode:
        with block_size(block):
            values = linear_log_probabilities(hidden, weight, tokens, with_entropy=with_entropy)
        stored = watch.kept()
        (sum(values) if with_entropy else values).sum().backward()
    assert watch.larger_than(block) == 0
    assert stored <= hidden.numel() + weight.numel() + 8 * 64
    with watch.mode, block_size(None):
        linear_log_probabilities(hidden, weight, tokens)
    assert watch.larger_than(block) > 0  # the watch sees whole logits


@pytest.mark.only("jax", reason="is about XLA's memory")
def test_memory_on_jax(fw: Framework) -> None:
    jax = fw.module
    shapes = [jax.ShapeDtypeStruct((n, 16), "float32") for n in (4096, 20_000)]

    def loss(hidden: Any, weight: Any, tokens: Any) -> Any:
        log_p, entropy = linear_log_probabilities(hidden, weight, tokens, with_entropy=True)
        return jax.numpy.sum(log_p + entropy)

    program = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(*shapes, jax.ShapeDtypeStruct((4096,), "int32"))
    assert max(intermediates(program.jaxpr)) <= 2**22  # of 82 million logits


@pytest.mark.only("numpy", reason="is about NumPy's memory")
def test_memory_on_numpy(fw: Framework) -> None:
    hidden, weight = RNG.standard_normal((256, 4)), RNG.standard_normal((4096, 4))
    tokens, peaks = RNG.integers(0, 4096, 256), []
    for elements in (8 * 4096, None):
        with block_size(elements):
            tracemalloc.start()
            try:
                linear_log_probabilities(hidden, weight, tokens, with_entropy=True)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    assert peaks[0] < 5 * 8 * 4096 * 8 < 256 * 4096 * 8 < peaks[1]


@pytest.mark.only("jax", reason="is about jax.export")
def test_symbolic_rows_of_jax(fw: Framework) -> None:
    jax = fw.module
    from jax import export

    (rows,) = export.symbolic_shape("rows")
    specs = [jax.ShapeDtypeStruct(*spec) for spec in (((rows, 3), "float64"), ((5, 3), "float64"), ((rows,), "int64"))]
    with block_size(10):
        exported = export.export(jax.jit(lambda *x: linear_log_probabilities(*x, with_entropy=True)))(*specs)
    for count in (7, 3):
        got = exported.call(fw.array(HIDDEN[:count]), fw.array(WEIGHT), fw.array(TOKENS[:count]))
        for one, want in zip(got, oracle(HIDDEN[:count], WEIGHT, TOKENS[:count]), strict=True):
            close(fw, one, want)


@pytest.mark.only("torch", reason="is about torch.export")
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated")  # by PyTorch itself
def test_rows_of_torch_are_not_fixed(fw: Framework) -> None:
    torch = fw.module

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *arrays: Any) -> Any:
            return linear_log_probabilities(*arrays, with_entropy=True)

    rows = torch.export.Dim("rows")
    shapes = (({0: rows}, {}, {0: rows}),)
    program = torch.export.export(Module(), tuple(arrays_of(fw)), dynamic_shapes=shapes, strict=False).module()
    for count in (7, 3, 5):
        got = program(fw.array(HIDDEN[:count]), fw.array(WEIGHT), fw.array(TOKENS[:count]))
        for one, want in zip(got, oracle(HIDDEN[:count], WEIGHT, TOKENS[:count]), strict=True):
            close(fw, one, want)


def test_input_of_penalties(fw: Framework) -> None:
    """A row that is left out counts as masked in `sampled_kl`, as equal log-probabilities."""
    log_p = linear_log_probabilities(*arrays_of(fw))
    log_q = linear_log_probabilities(fw.array(HIDDEN[::-1].copy()), *arrays_of(fw)[1:])
    want = [oracle(h, WEIGHT, TOKENS)[0] for h in (HIDDEN, HIDDEN[::-1])]
    r = want[1] - want[0]
    got = xp.sampled_kl(log_p, log_q, where=fw.array(KEPT))
    close(fw, got, (np.exp(r) - 1 - r)[KEPT].mean())


H, W, T = np.zeros((7, 3)), np.zeros((5, 3)), np.zeros(7, dtype=np.int64)
REFUSED: list[tuple[list[Any], dict[str, Any], type[Exception], str]] = [
    (
        [H, W, T[:6]],
        {},
        ValueError,
        "`tokens` must have the shape of `hidden` without the features, got (6,) and",
    ),
    ([H, W, T[:, None]], {}, ValueError, "`tokens` must have the shape of `hidden` without the features, got (7, 1)"),
    (
        [H, W.T, T],
        {},
        ValueError,
        "`weight` must have shape (classes, features) for a `hidden` of shape",
    ),
    ([H, W, T.astype(np.float64)], {}, TypeError, "`tokens` must be integers, got "),
    ([H, W, T > 0], {}, TypeError, "`tokens` must be integers, got "),
    ([H.astype(np.int64), W, T], {}, TypeError, "`hidden` must be real floating point, got "),
    ([H, W + 0j, T], {}, TypeError, "`weight` must be real floating point, got "),
    ([H, W, T], {"temperature": 0.0}, ValueError, "`temperature` must be in (0, inf), got 0.0."),
    ([H, W, T], {"with_entropy": 1}, TypeError, "`with_entropy` must be True or False, got 1. Pass a Python bool."),
]


@pytest.mark.parametrize(("arrays", "options", "kind", "message"), REFUSED, ids=[row[3][:60] for row in REFUSED])
def test_refused(
    fw: Framework, arrays: list[Any], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        linear_log_probabilities(*map(fw.array, arrays), **options)
    assert str(caught.value).startswith(f"linear_log_probabilities: {message}")


def test_refused_lists(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^linear_log_probabilities: `tokens` must be an array, got builtins\.list\."):
        linear_log_probabilities(*arrays_of(fw)[:2], [0] * 7)
    assert math.isfinite(float(linear_log_probabilities(*arrays_of(fw))[0]))
