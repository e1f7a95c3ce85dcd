"""Random numbers, from the framework's own generator or NumPy's."""

from __future__ import annotations

from typing import Any

import array_api_compat

__all__ = ["Random", "from_numpy"]


class Random:
    """Random numbers for a framework. The default draws them with NumPy."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        """Draw from U[0, 1), in the dtype and on the device of `like`."""
        return self._array(from_numpy(caller, rng).random(shape), like)

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        """Draw from N(0, 1), in the dtype and on the device of `like`."""
        return self._array(from_numpy(caller, rng).standard_normal(shape), like)

    def split(self, caller: str, rng: Any, count: int) -> list[Any]:
        """Return `count` generators. If drawing changes a generator, they are all the same one."""
        return [rng] * count

    def _array(self, numbers: Any, like: Any) -> Any:
        return self.xp.asarray(numbers, dtype=like.dtype, device=array_api_compat.device(like))


def from_numpy(caller: str, rng: Any, *, or_else: str = "") -> Any:
    """Check that `rng` is a NumPy generator or None. It draws float64, so every framework gets the same numbers."""
    import numpy as np

    if rng is None:
        rng = np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{caller}: `rng` must be a {or_else}numpy.random.Generator, got {type(rng).__qualname__}. "
            "Pass for example numpy.random.default_rng(0)."
        )
    return rng
