"""What surrounds penalties of parts on eight CPU devices: ways to differentiate, masks, blocks, pipelines, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import xpenalties as xp
from tests.scale.over_cases import STATISTICS
from tests.scale.over_jax_processes import GROUPS, MESH, check
from xpenalties import Penalty, Pipeline, block_size, over

RNG = np.random.default_rng(0)
Z, Q = (jnp.asarray(RNG.standard_normal((4, 8))) for _ in range(2))
HIDDEN, WEIGHT = jnp.asarray(RNG.standard_normal((8, 3))), jnp.asarray(RNG.standard_normal((8, 3)))
SPECS = (P("batch"), P("classes"))


def close(got: Any, want: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def mapped(fn: Callable[..., Any], in_specs: Any, out_specs: Any, *, check_vma: bool = True) -> Callable[..., Any]:
    return jax.jit(jax.shard_map(fn, mesh=MESH, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma))


def layer(hidden: Any, weight: Any) -> Any:
    with over(**GROUPS["both"]), block_size(8):
        return xp.linear_entropy(hidden, weight)


def gradients_in_four_ways(*, check_vma: bool, inside: bool) -> None:
    """A gradient that is taken outside is the whole one. Inside, it is with ``check_vma=True``."""
    gradient = partial(jax.grad, argnums=(0, 1))
    want = gradient(xp.linear_entropy)(HIDDEN, WEIGHT)
    if not inside:
        close(gradient(mapped(layer, SPECS, P(), check_vma=check_vma))(HIDDEN, WEIGHT), want)
    elif check_vma:
        close(mapped(gradient(layer), SPECS, SPECS)(HIDDEN, WEIGHT), want)
    else:  # the gradient of the sum over all eight devices, of which each has its own summand

        def summed(hidden: Any, weight: Any) -> Any:
            of_hidden, of_weight = gradient(layer)(hidden, weight)
            return jax.lax.psum(of_hidden, "classes") / 8, jax.lax.psum(of_weight, "batch") / 8

        close(mapped(summed, SPECS, SPECS, check_vma=False)(HIDDEN, WEIGHT), want)


def named_axis_of_vmap() -> None:
    def value(z: Any) -> Any:
        with over(classes="model"):
            return xp.entropy(z, from_logits=True) + xp.orthogonality(z)

    def of_parts(parts: Any) -> Any:
        return jax.vmap(value, in_axes=1, axis_name="model")(parts)[0]

    def whole(z: Any) -> Any:
        return xp.entropy(z, from_logits=True) + xp.orthogonality(z)

    parts = Z.reshape(4, 2, 4)
    close(of_parts(parts), whole(Z))
    close(jax.grad(of_parts)(parts).reshape(4, 8), jax.grad(whole)(Z))


def several_names() -> None:
    """One axis over all eight devices."""

    def value(z: Any) -> Any:
        with over(classes=("batch", "classes")):
            return xp.entropy(z, from_logits=True), jax.grad(lambda z: xp.kl_divergence(z, z * z, from_logits=True))(z)

    want = xp.entropy(Z, from_logits=True), jax.grad(lambda z: xp.kl_divergence(z, z * z, from_logits=True))(Z)
    specs = P(None, ("batch", "classes"))
    close(mapped(value, specs, (P(), specs))(Z), want)

    def tokens(weight: Any) -> Any:
        with over(classes=("batch", "classes")):
            return xp.linear_log_probabilities(HIDDEN, weight, jnp.arange(8))

    close(
        mapped(tokens, P(("batch", "classes")), P())(WEIGHT), xp.linear_log_probabilities(HIDDEN, WEIGHT, jnp.arange(8))
    )


def masked(reduction: str) -> None:
    """`where`, learned `weights`, `normalizer`, a device whose rows are all masked, and rows that hold NaN."""
    z, where = Z.at[0].set(jnp.nan), jnp.asarray([False, False, True, True])
    weights = jnp.asarray([1.0, 2.0, 0.0, 0.5])

    def value(z: Any, where: Any, weights: Any) -> Any:
        options = {"where": where, "weights": weights, "from_logits": True, "reduction": reduction}
        return [xp.entropy(z, normalizer=n, **options) for n in (None, 2.5, jnp.asarray(3.0))]

    def parts(z: Any, where: Any, weights: Any) -> Any:
        with over(**GROUPS["both"]):
            return value(z, where, weights)

    def gradient(z: Any, where: Any, weights: Any) -> Any:
        return jax.grad(lambda z, w: sum(map(jnp.sum, parts(z, where, w))), argnums=(0, 1))(z, weights)

    specs = (P("batch", "classes"), P("batch"), P("batch"))
    close(mapped(parts, specs, P("batch") if reduction == "none" else P())(z, where, weights), value(z, where, weights))
    want = jax.grad(lambda z, w: sum(map(jnp.sum, value(z, where, w))), argnums=(0, 1))(z, weights)
    close(mapped(gradient, specs, (specs[0], specs[2]))(z, where, weights), want)


def statistics() -> None:
    """Samples are left out and weighted."""
    for name, options, shape in STATISTICS:
        samples = shape if name == "output_magnitude" else shape[:-1]
        x, weights, where = (jnp.asarray(RNG.standard_normal(s)) for s in (shape, samples, samples))
        arrays = x, jnp.abs(weights) + 0.1

        def value(x: Any, weights: Any, where: Any, name: str = name, options: Any = options) -> Any:
            return getattr(xp, name)(x, weights=weights, where=where, **options)

        def parts(*local: Any, value: Callable[..., Any] = value) -> Any:
            with over(**GROUPS["both"]):
                return value(*local)

        specs = P("batch", *[None] * (len(shape) - 2), "classes")
        of_samples = specs if samples == shape else P(*specs[:-1])
        gradient = partial(jax.value_and_grad, argnums=(0, 1))
        got = gradient(mapped(parts, (specs, of_samples, of_samples), P()))(*arrays, where > -0.5)
        close(got, gradient(value)(*arrays, where > -0.5))


def all_masked() -> None:
    def parts(z: Any) -> Any:
        with over(**GROUPS["both"]):
            return xp.entropy(z, from_logits=True, where=jnp.zeros(z.shape[0], bool))

    specs = P("batch", "classes")
    close(mapped(jax.value_and_grad(parts), specs, (P(), specs))(Z), (0.0, jnp.zeros_like(Z)))


def tokens() -> None:
    ids = jnp.asarray([0, 3, -100, 7, 4, 1, 6, 8])  # one is left out, and one is not a class

    def parts(hidden: Any, weight: Any, ids: Any) -> Any:
        with over(**GROUPS["both"]), block_size(4):
            return xp.linear_log_probabilities(hidden, weight, ids, temperature=0.7, with_entropy=True)

    want = xp.linear_log_probabilities(HIDDEN, WEIGHT, ids, temperature=0.7, with_entropy=True)
    close(mapped(parts, (*SPECS, P("batch")), (P("batch"), P("batch")))(HIDDEN, WEIGHT, ids), want)


def linear(reduction: str, blocks: int | None) -> None:
    where = jnp.asarray([True, False, True, True, True, False, True, False])

    def value(h: Any, w: Any, where: Any) -> Any:
        return xp.linear_js_divergence(h, w, 2 * h, w * w, where=where, reduction=reduction)

    def parts(h: Any, w: Any, where: Any) -> Any:
        with over(**GROUPS["both"]), block_size(blocks):
            return value(h, w, where)

    specs = (*SPECS, P("batch"))
    close(
        mapped(parts, specs, P("batch") if reduction == "none" else P())(HIDDEN, WEIGHT, where),
        value(HIDDEN, WEIGHT, where),
    )
    want = jax.grad(lambda *a: jnp.sum(value(*a)), argnums=(0, 1))(HIDDEN, WEIGHT, where)
    got = jax.grad(
        lambda *a: jnp.sum(mapped(parts, specs, P("batch") if reduction == "none" else P())(*a)), argnums=(0, 1)
    )
    close(got(HIDDEN, WEIGHT, where), want)


def pipeline(*, check_vma: bool) -> None:
    """Totals, norms of whole gradients, and cosines."""
    penalties = Pipeline(
        [
            Penalty("linear_entropy", inputs=("hidden", "weight"), weight=0.3),
            Penalty("entropy", inputs="logits", options={"from_logits": True}),
            Penalty("z_loss", inputs="logits", weight=0.1),
        ]
    )
    how = {"track_grad_norms": True, "gradient_conflicts": True}

    def parts(inputs: Any) -> Any:
        with over(**GROUPS["both"]):
            return penalties.compute(inputs, **how)

    specs = {"hidden": P("batch"), "weight": P("classes"), "logits": P("batch", "classes")}
    inputs = {"hidden": HIDDEN, "weight": WEIGHT, "logits": Z}
    got = mapped(parts, (specs,), P(), check_vma=check_vma)(inputs)
    close(got, penalties.compute(inputs, **how))


def communication() -> None:
    """Programs hold all-reduces of rows, of a Gram matrix and of scalars, and exchange a part for one Gram matrix."""
    wide = jnp.asarray(RNG.standard_normal((8, 128)))
    shapes = _communicated(lambda z: xp.entropy(z, from_logits=True), P(None, "classes"), wide)
    assert max(map(_size, shapes["all-reduce"])) <= 8, shapes
    assert set(shapes) == {"all-reduce"}, shapes
    shapes = _communicated(xp.orthogonality, P("classes", None), wide)  # 8 rows, 2 on each device
    assert max(map(_size, shapes["all-reduce"])) == 64, shapes
    assert set(shapes) == {"all-reduce", "all-to-all"}, shapes
    shapes = _communicated(xp.orthogonality, P(None, "classes"), wide)
    assert set(shapes) == {"all-reduce"}, shapes
    assert max(map(_size, shapes["all-reduce"])) == 64, shapes


def _communicated(penalty: Callable[..., Any], spec: Any, x: Any) -> dict[str, list[str]]:
    """Return the shapes that each kind of collective operation of the program of a gradient has."""
    group = {"classes": "classes"} if spec[1] == "classes" else {"batch": "classes"}

    def value(x: Any) -> Any:
        with over(**group):
            return penalty(x)

    text = mapped(jax.grad(value), spec, spec).lower(x).compile().as_text()
    found: dict[str, list[str]] = {}
    for shapes, kind in re.findall(
        r" = (.+?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)\(", text
    ):
        found.setdefault(kind, []).extend(re.findall(r"f64\[([\d,]*)\]", shapes))
    return found


def _size(shape: str) -> int:
    return int(np.prod([int(n) for n in shape.split(",") if n]))


def errors() -> None:
    def call(penalty: Callable[..., Any], *arrays: Any, **groups: Any) -> str:
        try:
            with over(**groups):
                penalty(*arrays)
        except (TypeError, ValueError, NotImplementedError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    assert "`classes` of `over` must name an axis of the jax.shard_map" in call(xp.entropy, Z, classes="nowhere")
    assert "`x` must be a plain JAX array inside over(classes='model'), got numpy.ndarray" in call(
        xp.l1, np.ones(3), classes="model"
    )
    assert call(xp.l1, Z, classes="a", batch="a").startswith(
        "ValueError: over: `classes` and `batch` must be different"
    )
    text = mapped_error(lambda z: xp.gradient_penalty(lambda z: z.sum(1), z), classes="classes")
    assert text.startswith("NotImplementedError: gradient_penalty: samples must be whole, got over(classes='classes')")
    text = mapped_error(lambda z: xp.entropy(z, axis=0), **GROUPS["both"])
    assert "`log_p` must have one axis for `classes` and another, the first, for `batch`, got shape (2, 2)" in text


def mapped_error(fn: Callable[..., Any], **groups: Any) -> str:
    def parts(z: Any) -> Any:
        with over(**groups):
            return fn(z)

    try:
        mapped(parts, P("batch", "classes"), P())(Z)
    except (TypeError, ValueError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def nesting() -> None:
    """An inner `over` replaces the outer one, and after an error everything is as before."""

    def parts(z: Any) -> Any:
        with over(**GROUPS["both"]):
            with over(classes="classes"):
                own_rows = xp.entropy(z, from_logits=True, reduction="sum")
            both = xp.entropy(z, from_logits=True, reduction="sum")
        alone = xp.entropy(z, from_logits=True, reduction="sum")
        return jax.lax.psum(own_rows, "batch"), both, jax.lax.psum(alone, ("batch", "classes"))

    whole = xp.entropy(Z, from_logits=True, reduction="sum")
    blocks = xp.entropy(Z.reshape(4, 4, 2), from_logits=True, reduction="sum")
    close(mapped(parts, P("batch", "classes"), P())(Z), (whole, whole, blocks))
    mapped_error(lambda z: xp.entropy(z, axis=0), **GROUPS["both"])
    close(xp.entropy(Z, from_logits=True, reduction="sum"), whole)


RUNS: dict[str, Callable[[], None]] = {
    "named axis of vmap": named_axis_of_vmap,
    "several names": several_names,
    "statistics": statistics,
    "all masked": all_masked,
    "tokens": tokens,
    "communication": communication,
    "errors": errors,
    "nesting": nesting,
    "linear sum without blocks": partial(linear, "sum", None),
}
for _check_vma in (True, False):
    RUNS[f"pipeline check_vma={_check_vma}"] = partial(pipeline, check_vma=_check_vma)
    for _inside in (True, False):
        _name = f"gradient {'inside' if _inside else 'outside'} check_vma={_check_vma}"
        RUNS[_name] = partial(gradients_in_four_ways, check_vma=_check_vma, inside=_inside)
for _reduction in ("sum", "mean", "none"):
    RUNS[f"masked {_reduction}"] = partial(masked, _reduction)
    RUNS[f"linear {_reduction}"] = partial(linear, _reduction, 4)


if __name__ == "__main__":
    for _name, _run in RUNS.items():
        check(_name, _run)
