"""Penalties of parts on eight CPU devices, in a process of its own. Prints one line of JSON for each check."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.matrix.cases import KEY, Case
from tests.scale.over_cases import cut_of, family, is_refused, layouts_of
from xpenalties import over

jax.config.update("jax_enable_x64", True)
MESH = jax.make_mesh((2, 4), ("batch", "classes"), axis_types=(AxisType.Auto,) * 2)
GROUPS = {"classes": {"classes": "classes"}, "batch": {"batch": "batch"}}
GROUPS["both"] = {**GROUPS["classes"], **GROUPS["batch"]}
Results = tuple[Any, Any, Any]


def arguments(case: Case) -> tuple[list[Any], list[str], dict[str, Any]]:
    """Return the arrays, those of options last, their names, and the other options."""
    names = [name for name, value in case.options.items() if isinstance(value, np.ndarray)]
    options = {name: jax.random.key(0) if v is KEY else v for name, v in case.options.items() if name not in names}
    return [jnp.asarray(x) for x in (*case.arrays, *(case.options[n] for n in names))], names, options


def value_of(case: Case, count: int, names: list[str], options: dict[str, Any]) -> Callable[..., Any]:
    def value(xs: list[Any]) -> Any:
        return case(*xs[:count], **options, **dict(zip(names, xs[count:], strict=True)))

    return value


def results(value: Callable[..., Any], xs: list[Any], total: Callable[[Any], Any]) -> Results:
    """Return value, gradients, and the gradients of the sum of their squares, which `total` completes."""
    gradient = jax.grad(value)

    def squares(xs: list[Any]) -> Any:
        return sum(total(jnp.sum(g * g), i) for i, g in enumerate(gradient(xs)))

    return value(xs), gradient(xs), jax.grad(squares)(xs)


def on_parts(case: Case, layout: str) -> Results:
    arrays, names, options = arguments(case)
    cuts, of_options = cut_of(case, layout)
    specs = [P(*cut) for cut in (*cuts, *(of_options[name] for name in names))]
    value = value_of(case, len(case.arrays), names, options)

    def local(xs: list[Any]) -> Results:
        def inside(xs: list[Any]) -> Any:
            with over(**GROUPS[layout]):
                return value(xs)

        def total(x: Any, i: int) -> Any:
            axes = tuple(axis for axis in specs[i] if axis is not None)
            return jax.lax.psum(x, axes) if axes else x

        return results(inside, xs, total)

    mapped = jax.shard_map(local, mesh=MESH, in_specs=(specs,), out_specs=(P(), specs, specs))
    return jax.jit(mapped)(arrays)


def whole_of(case: Case) -> Results:
    arrays, names, options = arguments(case)
    value = value_of(case, len(case.arrays), names, options)
    return jax.jit(lambda xs: results(value, xs, lambda x, i: x))(arrays)


def check(name: str, run: Callable[[], None], **details: Any) -> None:
    """Run a check, and print its name, its details, and its error or None."""
    try:
        run()
        error = None
    except Exception:  # noqa: BLE001 - reported, and the other checks go on
        error = traceback.format_exc()[-4000:]
    print(json.dumps({"check": name, "error": error, **details}), flush=True)


def refused(case: Case, layout: str, message: str) -> None:
    try:
        on_parts(case, layout)
    except (ValueError, NotImplementedError) as error:
        text = str(error)
    else:
        text = "not refused"
    assert message in text, text


def compared(case: Case, layout: str, want: Results) -> None:
    for a, b in zip(jax.tree.leaves(on_parts(case, layout)), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def main(name: str) -> None:
    for case in family(name):
        want = None
        for layout in layouts_of(case):
            message = is_refused(case, layout)
            details = {"function": case.name, "sharding": layout, "refused": message}
            if message is not None:
                check(f"{case.id} {layout}", partial(refused, case, layout, message), **details)
                continue
            want = whole_of(case) if want is None else want
            check(f"{case.id} {layout}", partial(compared, case, layout, want), **details)


if __name__ == "__main__":
    main(sys.argv[1])
