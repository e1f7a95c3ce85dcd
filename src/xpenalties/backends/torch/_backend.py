"""PyTorch: detach, one device-to-host copy for many scalars, gradients by torch.autograd or torch.func."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from .._blocks import LEAST, Work, block_size
from .._fast_path import FastPath, run_fast
from ..base import Backend, DType, OfLeaves, Pull, from_numpy
from ._blocks import evaluate_in_blocks
from ._foreach import LARGEST, power_sum
from ._linear import gathered
from ._threads import carried

__all__ = ["BACKEND", "KNOWN", "find"]


class TorchBackend(Backend):
    log_softmax = staticmethod(torch.log_softmax)

    def __init__(self) -> None:
        super().__init__("torch", array_api_compat.torch)
        # whole from the start: a look-up that adds an entry would be a side effect for torch.compile to guard
        dtypes = [found for found in vars(torch).values() if isinstance(found, torch.dtype)]
        self._dtypes = {dtype: self._describe(dtype) for dtype in dtypes}

    def _describe(self, dtype: Any) -> DType:
        if dtype.is_floating_point:
            working = torch.float32 if dtype.itemsize < 4 else None
            return DType("real", working, math.log(torch.finfo(working or dtype).smallest_normal))
        if dtype.is_complex:
            return DType("complex", torch.complex64 if dtype.itemsize < 8 else None)
        return DType("bool" if dtype is torch.bool else "other")

    def default_float(self) -> Any:
        return torch.get_default_dtype()

    def block_elements(self, work: Work) -> int | None:
        if work.arrays[0].device.type != "cpu":
            return 2**25  # 128 MiB of float32 keep any card busy
        return 2**22 if work.matrices else LEAST

    def run(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return formula(*arrays, **options)

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        arrays = work.arrays
        if work.kind == "elements" or not _is_eager(arrays):  # formulas of elements have no guards
            return work.terms(arrays, work.mask), None
        on_cpu = arrays[0].device.type == "cpu"  # elsewhere a look at the result would wait for the device
        elements = self.size_of_blocks(work)
        if elements is not None:
            return evaluate_in_blocks(work._replace(fast_path=FastPath(_finite)) if on_cpu else work, elements)
        if on_cpu:
            return run_fast(_finite, work.terms, (arrays, work.mask), {}), None
        return work.terms(arrays, work.mask), None

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if arrays[0].device.type == "cpu" and _is_eager(arrays):
            return run_fast(_finite, function, arrays, options)
        return function(*arrays, **options)

    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)

    def matmul(self, a: Any, b: Any) -> Any:
        kind = a.device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return a @ b
        with torch.autocast(kind, enabled=False):
            return a @ b

    def linear(self, hidden: Any, weight: Any) -> Any:
        found = None if self.is_tracing(weight) else gathered(hidden, weight)
        return super().linear(hidden, weight) if found is None else found

    def cumulative_sum(self, x: Any, axis: int) -> Any:
        return torch.cumsum(x, axis)  # array-api-compat's looks its namespace up, which torch.compile does not trace

    def extrema(self, x: Any) -> tuple[Any, Any]:
        if self.is_tracing(x):  # torch.vmap has no rule for aminmax
            return super().extrema(x)
        found: tuple[Any, Any] = torch.aminmax(x)
        return found

    def squared_norm(self, x: Any) -> Any:
        if self.is_tracing(x):
            return super().squared_norm(x)
        # in one pass, by blocks so short that vector_norm does not lose what it does over all of x
        flat = x.reshape(-1)
        whole = flat.shape[0] // 256 * 256
        norms = torch.linalg.vector_norm(flat[:whole].reshape(-1, 256), dim=1)
        return super().squared_norm(norms) + super().squared_norm(flat[whole:])

    def add_multiple(self, total: Any, x: Any, factor: Any) -> Any:
        if self.is_tracing(x):
            return super().add_multiple(total, x, factor)
        return total.addcmul_(x, factor) if isinstance(factor, torch.Tensor) else total.add_(x, alpha=factor)

    def with_gradient(self, total: Any, arrays: list[Any], gradient: list[Any]) -> Any:
        if self.is_tracing(total) or total.grad_fn is None or _depends_on_more(total, arrays):
            return total
        return _Known.apply((total, gradient), *arrays)

    def device(self, x: Any) -> Any:
        return x.device  # torch.compile warns of array_api_compat's cached checks

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()

    def power_sum(self, first: float, second: float, arrays: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        if self.is_tracing(arrays):
            return [], frozenset()
        places = [i for i, x in enumerate(arrays) if _is_small(x)]
        places = [i for i in places if _kind(arrays[i]) == _kind(arrays[places[0]])]
        chosen = tuple(arrays[i] for i in places)
        if len(chosen) < 2 or not _is_eager(chosen):
            return [], frozenset()
        return [power_sum(first, second, chosen)], frozenset(places)

    def moved(self, scalar: Any, like: Any) -> Any:
        return scalar.to(like.device)

    def stack(self, scalars: Sequence[Any]) -> Any:
        device = scalars[0].device  # a model may lie on several
        return torch.stack([x.to(device) for x in scalars])

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        dtype = torch.float32 if any(x.device.type == "mps" for x in scalars) else torch.float64
        device = next((x.device for x in scalars if x.device.type != "cpu"), "cpu")  # weights may be on the host
        values: list[float] = torch.stack([x.detach().to(device, dtype) for x in scalars]).tolist()
        return values

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        if self.is_tracing(leaves) or torch.is_inference_mode_enabled():  # where torch.autograd records nothing
            return _functional_vjp(fn, leaves)
        return _eager_vjp(fn, leaves, again)

    def differentiates(self) -> bool:
        return True

    def exported(self, x: Any) -> Any:
        return x.detach().resolve_conj().resolve_neg()

    def return_to(self, owner: Backend, x: Any, device: Any) -> Any:
        return super().return_to(owner, self.exported(x), device)

    def differentiated_again(self, caller: str, gradient: Any) -> Any:
        if self.is_tracing(gradient) or not gradient.requires_grad:
            return gradient
        return _Watched.apply(gradient, caller)

    def escaped(self, error: Exception) -> bool:
        said = str(error)
        return isinstance(error, RuntimeError) and ("numpy()" in said or "data pointer" in said)

    def requires_grad(self, x: Any) -> bool:
        return bool(x.requires_grad)

    def carried(self) -> Callable[[], AbstractContextManager[Any]]:
        return carried()

    def compiles(self) -> bool:
        return not self.is_tracing(None)  # inside of torch.func there is nothing to compile with

    def is_tracing(self, x: Any) -> bool:
        return torch.compiler.is_compiling() or bool(torch._C._are_functorch_transforms_active())

    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return _drawn(caller, rng, shape, like, torch.rand, "random")

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return _drawn(caller, rng, shape, like, torch.randn, "standard_normal")


def _drawn(caller: str, rng: Any, shape: tuple[int, ...], like: Any, draw: Callable[..., Any], numpys: str) -> Any:
    """Random numbers by PyTorch's function, or of NumPy's generator by its method."""
    if rng is None:
        return draw(shape, dtype=like.dtype, device=like.device)
    if isinstance(rng, torch.Generator):
        return draw(shape, dtype=like.dtype, device=rng.device, generator=rng).to(like.device)
    drawn = getattr(from_numpy(caller, rng, or_else="torch.Generator or a "), numpys)(shape)
    return torch.asarray(drawn, dtype=like.dtype, device=like.device)


def _is_small(x: Any) -> bool:
    return x.dtype in (torch.float32, torch.float64) and (x.device.type != "cpu" or x.numel() <= LARGEST)


def _kind(x: Any) -> tuple[Any, Any]:
    return x.dtype, x.device


def _finite(x: Any) -> bool:
    return math.isfinite(sum(x.tolist()) if x.ndim == 1 and len(x) < 32 else x.detach().sum().item())


def _is_eager(arrays: tuple[Any, ...]) -> bool:
    """Whether operations run one by one, on plain tensors that have values and no tangents."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    # torch.jit.trace or make_fx are recording: what depends on values now would be taken for all values
    if torch._C._is_tracing() or (torch._C._len_torch_dispatch_stack() > 0 and get_proxy_mode() is not None):
        return False
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in arrays):
        return False
    for x in arrays:  # noqa: SIM110 - a generator would cost as much as the rest
        if type(x) not in KNOWN or x.device.type == "meta":
            return False
    return True


def _functional_vjp(fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], Pull]:
    """By torch.func, which composes with itself and which torch.compile traces, backward pass and all."""
    value, pull, aux = torch.func.vjp(fn, leaves, has_aux=True)
    return value, aux, lambda cotangent: [_materialized(gradient) for gradient in pull(cotangent)[0]]


def _materialized(gradient: Any) -> Any:
    """PyTorch marks some zeros by a tensor without storage, which `numpy()` refuses."""
    if gradient is None or torch.compiler.is_compiling() or not gradient._is_zerotensor():
        return gradient
    return gradient.clone()


def _eager_vjp(fn: OfLeaves, leaves: list[Any], again: bool) -> tuple[Any, list[Any], Pull]:
    """By torch.autograd, for torch.func takes no module that updates a buffer (batch and spectral norm)."""
    wanted = torch.is_grad_enabled()  # by the caller, of what comes out
    plain = again and wanted and any(x.requires_grad for x in leaves)  # as the gradient's own gradient will have it
    with torch.enable_grad(), block_size(None) if plain else nullcontext():
        own = [x.view_as(x) if wanted and x.requires_grad else x.detach().requires_grad_() for x in leaves]
        hidden = {id(x) for x in own if x.is_leaf}
        traced, aux = fn(own)
    value, *aux = (x if wanted and _needs_grad(x, hidden) else x.detach() for x in (traced, *aux))
    if not traced.requires_grad:
        return value, aux, lambda cotangent: [None] * len(leaves)

    def pull(cotangent: Any) -> list[Any]:
        create_graph = again and value.requires_grad and torch.is_grad_enabled()
        if create_graph and not cotangent.requires_grad:  # else once_differentiable in the last operation goes unseen
            cotangent = cotangent.detach().requires_grad_()
            cotangent._of_xpenalties = True
        found = torch.autograd.grad(
            traced, own, cotangent, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
        return [_materialized(gradient) for gradient in found]

    return value, aux, pull


class _Known(torch.autograd.Function):  # type: ignore[misc]
    """A total whose gradient has been computed already: its backward pass costs a product, not all of it again."""

    @staticmethod
    def forward(ctx: Any, known: tuple[Any, list[Any]], *arrays: Any) -> Any:
        ctx.known, ctx.arrays = known, arrays
        return known[0].detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        total, gradient = ctx.known
        if torch.is_grad_enabled():  # to be differentiated again: through all of it
            found = torch.autograd.grad(
                total, ctx.arrays, cotangent, retain_graph=True, create_graph=True, allow_unused=True
            )
            return None, *found
        pulled = [None if g is None else (g * cotangent).to(x.dtype) for g, x in zip(gradient, ctx.arrays, strict=True)]
        return None, *pulled


def _depends_on_more(total: Any, arrays: list[Any]) -> bool:
    """Whether `total` depends on anything that requires a gradient but through `arrays`."""
    own = {(x.grad_fn, x.output_nr) for x in arrays if x.grad_fn is not None}
    leaves = {id(x) for x in arrays if x.grad_fn is None}
    edges, seen = [(total.grad_fn, 0)], set()
    while edges:
        edge = edges.pop()
        node, _ = edge
        if node is None or edge in own or edge in seen:
            continue
        seen.add(edge)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in leaves:
            return True
        edges += node.next_functions
    return False


class _Watched(torch.autograd.Function):  # type: ignore[misc]
    """The identity, whose backward pass first looks for what would fail further on, to say what to do about it."""

    @staticmethod
    def forward(ctx: Any, x: Any, caller: str) -> Any:
        ctx.caller = caller
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        nodes = [node for node, _ in ctx.next_functions]
        for name in (node.name() for node in _nodes_from(nodes)):
            if name in _ONCE:
                raise NotImplementedError(
                    f"{ctx.caller}: `fn` must be twice differentiable, got an operation that PyTorch differentiates "
                    f"once ({name}). {_ONCE[name]}"
                )
        return cotangent, None


_ONCE = {
    "torch::autograd::NotImplemented": "If it is attention, call `fn` under "
    "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH); else write it with other operations, or "
    "penalise `output_magnitude` instead.",
    "torch::autograd::Error": "Remove once_differentiable from its autograd.Function, whose backward must then be made "
    "of torch's own operations.",
    "CompiledFunctionBackwardBackward": "Pass the function before torch.compile, and compile what calls the penalty.",
}


def _needs_grad(x: Any, hidden: set[int]) -> bool:
    """Whether `x` depends on anything that requires a gradient beside the hidden leaves, ids of tensors."""
    if x.grad_fn is None:
        return bool(x.requires_grad) and id(x) not in hidden
    leaves = (getattr(node, "variable", None) for node in _nodes_from([x.grad_fn]))
    return any(leaf is not None and id(leaf) not in hidden and not hasattr(leaf, "_of_xpenalties") for leaf in leaves)


def _nodes_from(nodes: list[Any]) -> Iterator[Any]:
    """All nodes of an autograd graph that can be reached from `nodes`."""
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            nodes += [following for following, _ in node.next_functions]


BACKEND = TorchBackend()
KNOWN: dict[type, Backend] = {torch.Tensor: BACKEND, torch.nn.Parameter: BACKEND}


def find(cls: type) -> Backend | None:
    return BACKEND if issubclass(cls, torch.Tensor) else None
