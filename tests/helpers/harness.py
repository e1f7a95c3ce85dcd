"""One small object for each backend, so that tests are written once: it makes and reads arrays, compiles and maps."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from array_api_extra.testing import assert_close

import xpenalties as xp

__all__ = ["ROWS", "Framework", "close", "curvature", "first_and_second", "framework"]

ROOT = Path(__file__).parents[2]
ROWS: dict[str, dict[str, Any]] = {
    row["name"]: row for row in tomllib.loads((ROOT / "backend_matrix/backends.toml").read_text("utf-8"))["backend"]
}


Compiled = tuple[Callable[..., Any], Callable[[], int]]


class Framework:
    """What the tests need from a backend. The defaults work for the array API standard."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.name: str = row["name"]
        self.module = importlib.import_module(row["module"])
        self.dtypes: list[str] = row["dtypes"]
        self.has_autodiff = bool(row["autodiff"])
        self.has_jit = bool(row["jit"])

    def __repr__(self) -> str:
        return self.name

    def dtype(self, name: str) -> Any:
        return getattr(self.module, name)

    def array(self, x: Any, dtype: str | None = None) -> Any:
        """Make an array of this framework. Floating-point values are float64 unless `dtype` says otherwise."""
        x = np.asarray(x)
        if dtype is None and x.dtype.kind in "fc":
            dtype = "float64" if x.dtype.kind == "f" else "complex128"
        return self._array(x, dtype)

    def _array(self, x: Any, dtype: str | None) -> Any:
        return self.module.asarray(x) if dtype is None else self.module.asarray(x, dtype=self.dtype(dtype))

    def key(self, seed: int) -> Any:
        """Return a source of random numbers. None is the framework's global generator."""
        return None

    def numpy(self, x: Any) -> Any:
        """Return a NumPy array of float64, complex128 or bool."""
        x = np.asarray(self._numpy(x))
        return x if x.dtype.kind in "bc" else x.astype(np.float64)

    def _numpy(self, x: Any) -> Any:
        return x

    def compile(self, fn: Callable[..., Any], *, traced_only: bool = False) -> Compiled:
        """Compile without graph breaks. Return the compiled function, and a function that counts compilations.

        If `traced_only` is True, and the framework can, the traced graph runs without being compiled further.
        """
        raise NotImplementedError(self.row["no_jit"])

    def once(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compile `fn` to one program if the framework would otherwise compile each operation."""
        return fn

    def vmap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError(self.row["no_jit"])

    def locked(self, x: Any) -> Any:
        """Return `x`, read-only if the framework can."""
        return x


class Numpy(Framework):
    def locked(self, x: Any) -> Any:
        x.flags.writeable = False
        return x


class Torch(Framework):
    def _array(self, x: Any, dtype: str | None) -> Any:
        x = self.module.from_numpy(np.array(x))
        return x if dtype is None else x.to(self.dtype(dtype))

    def _numpy(self, x: Any) -> Any:
        x = x.detach()
        return (x.double() if x.is_floating_point() else x).numpy()

    def compile(self, fn: Callable[..., Any], *, traced_only: bool = False) -> Compiled:
        from torch._dynamo.testing import CompileCounterWithBackend

        self.module.compiler.reset()
        counter = CompileCounterWithBackend("eager" if traced_only else "aot_eager")
        return self.module.compile(fn, fullgraph=True, backend=counter), lambda: counter.frame_count

    def vmap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.module.vmap(fn, randomness="same")


class Jax(Framework):
    def dtype(self, name: str) -> Any:
        return getattr(self.module.numpy, name)

    def key(self, seed: int) -> Any:
        return self.module.random.key(seed)

    def _array(self, x: Any, dtype: str | None) -> Any:
        return self.module.numpy.asarray(x) if dtype is None else self.module.numpy.asarray(x, dtype=self.dtype(dtype))

    def compile(self, fn: Callable[..., Any], *, traced_only: bool = False) -> Compiled:
        traced = []

        def counted(*args: Any) -> Any:
            traced.append(1)
            return fn(*args)

        return self.module.jit(counted), lambda: len(traced)

    def once(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.module.jit(fn)

    def vmap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.module.vmap(fn)


class Strict(Framework):
    def _numpy(self, x: Any) -> Any:
        return np.from_dlpack(x)


class Dask(Framework):
    def dtype(self, name: str) -> Any:
        return name

    def _numpy(self, x: Any) -> Any:
        return x.compute()


class Cupy(Framework):
    def _numpy(self, x: Any) -> Any:
        return x.get()


_KINDS = {"numpy": Numpy, "torch": Torch, "jax": Jax, "strict": Strict, "dask": Dask, "cupy": Cupy}
_MADE: dict[str, Framework] = {}


def close(fw: Framework, got: Any, want: Any, *, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Compare values, by default with the tolerance of float64."""
    assert_close(fw.numpy(got), np.asarray(want, dtype=np.float64), rtol=rtol, atol=atol)


def first_and_second(
    fw: Framework, fn: Callable[..., Any], *arrays: np.ndarray, wrt: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient, and the gradient of the sum of its squares, which needs every second derivative."""
    others = [fw.array(x) for x in arrays]
    x = others.pop(wrt)

    def of(x: Any) -> Any:
        return fn(*others[:wrt], x, *others[wrt:])

    gradient = xp.grad(of)
    second = fw.once(xp.grad(lambda x: xp.namespace(x).sum(gradient(x) ** 2)))
    return fw.numpy(gradient(x)), fw.numpy(second(x))


def curvature(fw: Framework, fn: Callable[..., Any], x: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Multiply the Hessian of `fn` at `x` by a vector."""
    direction = fw.array(along)
    slope = xp.grad(fn)
    return fw.numpy(xp.grad(lambda x: xp.namespace(x).sum(slope(x) * direction))(fw.array(x)))


def framework(name: str) -> Framework:
    if name not in _MADE:
        _MADE[name] = _KINDS[name](ROWS[name])
    return _MADE[name]
