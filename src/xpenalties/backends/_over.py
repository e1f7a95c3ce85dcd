"""`over`: the groups of devices that hold the parts of the arrays in a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from threading import Lock
from typing import Any, NamedTuple

from .._core.dynamo import in_dynamo
from .._core.shown import shown
from ._registry import group_of
from .parts._group import Group

__all__ = ["ACTIVE", "Groups", "Layouts", "active_groups", "over", "record", "recorded_layouts", "suspended"]


class Groups(NamedTuple):
    """What `over` sets."""

    classes: Group | None
    batch: Group | None
    equal_parts: bool

    @property
    def shown(self) -> str:
        """Return the arguments, for errors."""
        pairs = (("classes", self.classes), ("batch", self.batch))
        return ", ".join(f"{name}={group}" for name, group in pairs if group is not None)

    @property
    def all(self) -> list[Group]:
        return [group for group in (self.classes, self.batch) if group is not None]

    @property
    def library(self) -> str:
        return self.all[0].library

    @property
    def exchange_sizes(self) -> bool:
        """Return True if parts may have different sizes, or devices make different calls."""
        return self.library == "torch" and not self.equal_parts

    def leaves_sums_to_user(self, group: Group) -> bool:
        """Return True if gradients with respect to arrays that all devices of `group` hold are left to be added up.

        They are in PyTorch over the batch, because whatever makes training data-parallel adds them up.
        """
        return self.library == "torch" and group == self.batch


class Layouts:
    """How the arrays of penalties are cut.

    Attributes
    ----------
    cut : dict
        By the id of an array, while it lives: the groups it is cut over.
    marked : set
        Groups whose collective operations the framework differentiates as `Group` says.
    """

    def __init__(self) -> None:
        self.cut: dict[int, list[Group]] = {}
        self.marked: set[Group] = set()

    def add(self, x: Any, groups: list[Group]) -> None:
        self.cut[id(x)] = groups
        self.marked.update(group for group in groups if group.marks(x))


class _Active:
    """Whether any `over` is active in this process. It is an object, because torch.compile guards its attributes."""

    def __init__(self) -> None:
        self.any = False
        self.innermost: Groups | None = None  # the one entered last, for torch.compile, which has no context variables
        self.entered: list[Groups] = []


ACTIVE = _Active()
_GROUPS: ContextVar[Groups | None] = ContextVar("_GROUPS", default=None)
_LAYOUTS: ContextVar[Layouts | None] = ContextVar("_LAYOUTS", default=None)
_LOCK = Lock()


def active_groups() -> Groups | None:
    """Return the groups of the innermost `over` around this code, or None."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return ACTIVE.innermost
    return _GROUPS.get()


@contextmanager
def recorded_layouts() -> Iterator[Layouts]:
    """Record how the arrays of penalties are cut."""
    layouts = Layouts()
    token = _LAYOUTS.set(layouts)
    try:
        yield layouts
    finally:
        _LAYOUTS.reset(token)


def record(x: Any, groups: list[Group]) -> None:
    """Record the groups that an array of a penalty is cut over."""
    layouts = None if in_dynamo() else _LAYOUTS.get()
    if layouts is not None:
        layouts.add(x, groups)


class suspended:  # noqa: N801 - used like a function
    """Run a user's function as if there were no `over` around it."""

    def __enter__(self) -> None:
        self._innermost = ACTIVE.innermost
        if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
            ACTIVE.innermost = None
        else:
            self._token = _GROUPS.set(None)

    def __exit__(self, *exception: object) -> None:
        if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
            ACTIVE.innermost = self._innermost
        else:
            _GROUPS.reset(self._token)


class over:  # noqa: N801 - used like a function
    """Treat the arrays in a `with` block as parts of larger arrays, one part on each device or process.

    Inside, each penalty, pipeline and report has the value of the whole arrays, on each device. The gradient with
    respect to a part is that part of the whole gradient. With ``reduction="none"``, a penalty returns the terms of the
    device's own rows.

    Parameters
    ----------
    classes : axis name, process group or device mesh, optional
        The devices that share the classes, such as the vocabulary of "vocabulary-parallel" logits. The penalty's `axis`
        is cut over them, or the last axis if the penalty has no rows. For the ``linear_`` functions, axis 0 of the
        layers' weights is cut, and tokens are indices of all classes. `sampled_kl` has no classes: its arrays are
        whole.
    batch : axis name, process group or device mesh, optional
        The devices that share the batch. The first axis of each array is cut over them. This includes `where`,
        `weights` and hidden states, but not the layers' weights of the ``linear_`` functions.
    equal_parts : bool, default False
        True if all parts have the same size. If False, each call in PyTorch exchanges the sizes and compares the calls,
        and the host waits for both. torch.compile needs True. In JAX, parts always have the same size.

    Raises
    ------
    TypeError
        If a group is of the wrong kind, or an array inside does not belong to its framework.
    ValueError
        If there is no group, or both are the same. Inside: if an array cannot be cut in this way, or parts do not fit
        together, or if processes of PyTorch make different calls.
    NotImplementedError
        Inside: if a penalty cannot be computed from parts, such as a gradient penalty over `classes`. Only your
        function knows how the parts of a sample belong together.

    Notes
    -----
    In JAX, pass the name of an axis of jax.shard_map or of ``jax.vmap(axis_name=...)``. In PyTorch, pass a
    torch.distributed.ProcessGroup or a one-dimensional DeviceMesh. All devices must make the same calls.

    An inner `over` replaces an outer one. It applies in this thread or asyncio task. Your own functions in a pipeline
    get the local arrays. `normalizer` divides the whole sum.

    Some arrays are whole on all devices. Their gradients are:

    - over `classes`, such as for hidden states: the whole gradient on each device, as for a column-parallel layer.
    - over `batch`, such as for an output layer's weight: in PyTorch, the gradient from the process's own rows, because
      DistributedDataParallel, FSDP and Megatron add up such gradients themselves. In JAX with ``check_vma=True``, the
      whole gradient.
    - In JAX with ``check_vma=False`` or in jax.vmap, take gradients outside the mapped function. Inside, they are those
      of the sum over all devices, as for any function that uses jax.lax.psum.

    Devices exchange arrays with one number for each row, Gram matrices, single numbers, and the gradients of hidden
    states. `orthogonality` and `covariance` also exchange the parts themselves if an array is cut along its shorter
    axis.

    Examples
    --------
    >>> import jax
    >>> log_p = jax.numpy.log(jax.numpy.full((3, 8), 1 / 8))
    >>> def of_a_part(log_p):
    ...     with over(classes="model"):
    ...         return entropy(log_p)
    >>> parts = log_p.reshape(3, 2, 4)  # two devices with 4 classes each
    >>> of_devices = jax.vmap(of_a_part, in_axes=1, axis_name="model")(parts)
    >>> [round(float(value), 4) for value in of_devices]  # log(8)
    [2.0794, 2.0794]
    """

    def __init__(self, *, classes: Any = None, batch: Any = None, equal_parts: bool = False) -> None:
        if not isinstance(equal_parts, bool):
            raise TypeError(f"over: `equal_parts` must be True or False, got {shown(equal_parts)}. Pass a bool.")
        arguments = {"classes": classes, "batch": batch}
        given = {name: _group(name, value) for name, value in arguments.items() if value is not None}
        if not given:
            raise ValueError("over: must have `classes` or `batch`, got neither. Pass an axis name or a process group.")
        if len(given) == 2:
            first, second = given.values()
            if first.library != second.library:
                raise TypeError(
                    f"over: `classes` and `batch` must be of one framework, got {first.library} and {second.library}. "
                    "Pass axis names for JAX, or process groups for PyTorch."
                )
            if first == second:
                raise ValueError(
                    "over: `classes` and `batch` must be different groups, got one. An array is cut over a group once."
                )
        self._groups = Groups(given.get("classes"), given.get("batch"), equal_parts)
        self._tokens: list[Token[Groups | None]] = []

    def __enter__(self) -> None:
        if not in_dynamo():
            self._tokens.append(_GROUPS.set(self._groups))
        _enter(self._groups)

    def __exit__(self, *exception: object) -> None:
        if not in_dynamo():
            _GROUPS.reset(self._tokens.pop())
        _leave(self._groups)


def _enter(groups: Groups) -> None:
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        ACTIVE.entered.append(groups)
        ACTIVE.any, ACTIVE.innermost = True, groups
        return
    with _LOCK:
        ACTIVE.entered.append(groups)
        ACTIVE.any, ACTIVE.innermost = True, groups


def _leave(groups: Groups) -> None:
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        _forget(groups)
        return
    with _LOCK:
        _forget(groups)


def _forget(groups: Groups) -> None:
    entered = ACTIVE.entered
    entered.pop(len(entered) - 1 - entered[::-1].index(groups))
    ACTIVE.innermost = entered[-1] if entered else None
    ACTIVE.any = bool(entered)


def _group(name: str, value: Any) -> Group:
    group: Group | None = group_of(value)
    if group is None:
        raise TypeError(
            f"over: `{name}` must be an axis name, a torch.distributed.ProcessGroup or a one-dimensional DeviceMesh, "
            f"got {shown(value)}. Pass the name of an axis of jax.shard_map, or the process group of the parts."
        )
    return group
