"""Gradients and gradient penalties beside what is PyTorch's own: modules, modes, torch.func, torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close

pytestmark = pytest.mark.only("torch", reason="is about PyTorch")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((6, 3))


@pytest.fixture
def torch(fw: Framework) -> Any:
    return fw.module


def network(torch: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()


def by_hand(torch: Any, critic: Any, x: Any, target: float = 1.0) -> Any:
    """The usual WGAN-GP code: a double backward pass."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - target) ** 2).mean()


def grads(module: Any) -> list[Any]:
    return [parameter.grad for parameter in module.parameters()]


def assert_same(torch: Any, found: list[Any], want: list[Any]) -> None:
    assert len(found) == len(want)
    for one, other in zip(found, want, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def normalized(torch: Any) -> Any:
    from torch.nn.utils.parametrizations import spectral_norm

    layers = [spectral_norm(torch.nn.Linear(3, 4)), torch.nn.ELU(), spectral_norm(torch.nn.Linear(4, 1))]
    return torch.nn.Sequential(*layers).double()


def images(torch: Any) -> Any:
    layers = [torch.nn.Unflatten(1, (1, 1, 3)), torch.nn.Conv2d(1, 2, (1, 2)), torch.nn.SiLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 1)).double()


@pytest.mark.parametrize("made_by", [network, normalized, images])
def test_a_module(torch: Any, fw: Framework, made_by: Callable[[Any], Any]) -> None:
    """By its parameters, and with buffers updated by one pass, as spectral norm's are."""
    critic = made_by(torch)
    twin = copy.deepcopy(critic)
    value = xp.gradient_penalty(critic, fw.array(X))
    want = by_hand(torch, twin, fw.array(X))
    assert all(grad is None for grad in grads(critic))
    close(fw, value, fw.numpy(want))
    assert_same(torch, list(critic.buffers()), list(twin.buffers()))
    value.backward()
    want.backward()
    assert_same(torch, grads(critic), grads(twin))


def test_the_first_argument_may_require_a_gradient(torch: Any, fw: Framework) -> None:
    critic = network(torch)
    x = fw.array(X).requires_grad_()
    (generated,) = (2 * x,)
    value = xp.gradient_penalty(critic, generated)
    assert x.grad is None
    value.backward()
    want = xp.grad(lambda x: xp.gradient_penalty(critic, 2 * x))(fw.array(X))
    assert_same(torch, [x.grad], [want.detach()])
    frozen = network(torch).requires_grad_(False)
    assert xp.gradient_penalty(frozen, x).requires_grad
    assert not xp.gradient_penalty(frozen, x.detach()).requires_grad


def test_no_grad(torch: Any, fw: Framework) -> None:
    critic, x = network(torch), fw.array(X).requires_grad_()
    want = float(by_hand(torch, critic, x).detach())
    with torch.no_grad():
        penalties = [
            xp.gradient_penalty(critic, x),
            xp.interpolated_gradient_penalty(critic, x, 0 * x, alpha=torch.ones(6)),
            xp.jacobian_penalty(critic, x),
        ]
        value, gradient = xp.value_and_grad(lambda x: critic(x).sum())(x)
        second = xp.grad(lambda x: (xp.grad(lambda x: (x**3).sum())(x)).sum())(x)
    for made in (*penalties, value, gradient, second):
        assert not made.requires_grad and made.grad_fn is None
    close(fw, penalties[0], want)
    close(fw, penalties[1], want)
    close(fw, second, 6 * X)
    assert x.grad is None and all(grad is None for grad in grads(critic))


def test_inference_mode(torch: Any, fw: Framework) -> None:
    critic, x = network(torch), fw.array(X)
    want = float(by_hand(torch, critic, x).detach())
    with torch.inference_mode():
        inside = 1 * x
        for given in (x, inside):
            value, gradient = xp.value_and_grad(xp.l2)(given)
            close(fw, gradient, 2 * X)
            close(fw, xp.gradient_penalty(critic, given), want)
    assert not value.requires_grad


def test_half_precision(torch: Any, fw: Framework) -> None:
    critic = network(torch)
    x = fw.array(X).bfloat16()
    want = by_hand(torch, critic, x.double())
    want.backward()
    half = copy.deepcopy(critic).bfloat16()
    value = xp.gradient_penalty(half, x)
    assert value.dtype == torch.float32
    close(fw, value, fw.numpy(want), rtol=0.05)  # the critic computes in bfloat16
    half.zero_grad()
    value.backward()
    for found, expected in zip(grads(half), grads(critic), strict=True):
        if expected is None:  # the last bias
            assert found is None or not found.any()
        else:
            assert found.dtype == torch.bfloat16
            close(fw, found, fw.numpy(expected), rtol=0.1, atol=0.05)


def test_autocast(torch: Any, fw: Framework) -> None:
    critic = network(torch).float()
    x = fw.array(X, "float32")
    want = by_hand(torch, critic, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = xp.gradient_penalty(critic, x)
        terms = xp.gradient_penalty(critic, x, reduction="none", target_norm=0)
    assert value.dtype == terms.dtype == torch.float32
    close(fw, value, fw.numpy(want), rtol=0.05)
    value.backward()
    assert all(grad is None or torch.isfinite(grad).all() for grad in grads(critic))


@pytest.mark.parametrize("made_by", [network, images])
def test_a_compiled_training_step(torch: Any, fw: Framework, made_by: Callable[[Any], Any]) -> None:
    critic = made_by(torch)
    twin = copy.deepcopy(critic)

    def loss(critic: Any, x: Any, alpha: Any) -> Any:
        between = xp.interpolated_gradient_penalty(critic, x, 0.1 * x, alpha=alpha)
        return critic(x).mean() + 10 * xp.gradient_penalty(critic, x, one_sided=True) + between

    compiled, count = fw.compile(lambda x, alpha: loss(critic, x, alpha))
    for scale in (1.0, 2.0):
        given = fw.array(scale * X), fw.array(np.linspace(0, 1, 6))
        value, want = compiled(*given), loss(twin, *given)
        close(fw, value, fw.numpy(want))
        value.backward()
        want.backward()
        assert_same(torch, grads(critic), grads(twin))
    assert count() == 1


def test_torch_func_around_it(torch: Any, fw: Framework) -> None:
    """A user's own transforms: by stateless parameters, and mapped over several critics."""
    critic = network(torch)
    state = {name: p.detach() for name, p in critic.named_parameters()}

    def loss(state: Any, x: Any) -> Any:
        return xp.gradient_penalty(lambda x: torch.func.functional_call(critic, state, (x,)), x)

    x = fw.array(X)
    found = torch.func.grad(loss)(state, x)
    by_hand(torch, critic, x).backward()
    assert_same(
        torch, list(found.values()), [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]
    )
    many = {name: torch.stack([p, 2 * p]) for name, p in state.items()}
    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(many, x)
    assert_same(torch, [p[0] for p in mapped.values()], list(found.values()))
    inner = torch.func.grad(lambda x: xp.grad(lambda y: (y**3).sum())(x).sum())(x)
    close(fw, inner, 6 * X)
    per_row = torch.vmap(lambda row: xp.value_and_grad(xp.l2)(row)[1])(x)
    close(fw, per_row, 2 * X)


def attention(torch: Any) -> Any:
    project = torch.nn.Linear(3, 3)

    def critic(x: Any) -> Any:
        tokens = project(x)[:, None, :, None].expand(-1, 1, -1, 8) * torch.arange(1.0, 9.0)
        return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).sum(dim=(1, 2, 3))

    return project, critic


def test_attention_without_a_second_derivative(torch: Any, fw: Framework) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    project, critic = attention(torch)
    x = fw.array(X, "float32")
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        value = xp.gradient_penalty(critic, x)
        with pytest.raises(
            NotImplementedError,
            match=r"^gradient_penalty: `fn` .*twice differentiable, got an operation that PyTorch differentiates once "
            r"\(torch::autograd::NotImplemented\). If it is attention, call `fn` under torch.nn.attention.sdpa_kernel",
        ):
            value.backward()
    assert all(grad is None for grad in grads(project))

    def as_it_says(x: Any) -> Any:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return critic(x)

    again = xp.gradient_penalty(as_it_says, x)
    close(fw, again, fw.numpy(value), rtol=1e-4)
    again.backward()
    assert project.weight.grad.abs().max() > 0


def test_a_function_that_is_once_differentiable(torch: Any, fw: Framework) -> None:
    from torch.autograd.function import once_differentiable

    def square_of(decorate: Callable[..., Any]) -> Any:
        class Square(torch.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            @decorate
            def backward(ctx: Any, cotangent: Any) -> Any:
                return 2 * ctx.saved_tensors[0] * cotangent

        return Square.apply

    critic = network(torch)
    once, twice = square_of(once_differentiable), square_of(lambda fn: fn)
    for fn in (lambda x: once(critic(x)), lambda x: critic(once(x))):
        with pytest.raises(
            NotImplementedError,
            match=r"^jacobian_penalty: .*\(torch::autograd::Error\). Remove once_differentiable from its",
        ):
            xp.jacobian_penalty(fn, fw.array(X)).backward()
    value = xp.gradient_penalty(lambda x: twice(critic(x)), fw.array(X))
    want = by_hand(torch, lambda x: critic(x) ** 2, fw.array(X))
    assert_same(
        torch,
        list(torch.autograd.grad(value, critic[0].parameters())),
        list(torch.autograd.grad(want, critic[0].parameters())),
    )


def test_a_critic_that_is_compiled_already(torch: Any, fw: Framework) -> None:
    critic = network(torch)
    torch.compiler.reset()
    with pytest.raises(
        NotImplementedError,
        match=r"^gradient_penalty: .*\(CompiledFunctionBackwardBackward\). Pass the function before torch",
    ):
        xp.gradient_penalty(torch.compile(critic, backend="aot_eager"), fw.array(X)).backward()
    assert all(grad is None for grad in grads(critic))
    xp.gradient_penalty(torch.compile(critic, backend="aot_eager"), fw.array(X)).detach()  # a value needs no second
    compiled = torch.compile(lambda x: xp.gradient_penalty(critic, x), backend="aot_eager", fullgraph=True)
    compiled(fw.array(X)).backward()
    found, critic_again = grads(critic), copy.deepcopy(critic)
    critic_again.zero_grad()
    by_hand(torch, critic_again, fw.array(X)).backward()
    assert_same(
        torch, [g for g in found if g is not None and g.any()], [g for g in grads(critic_again) if g is not None]
    )


def test_value_and_grad_of_a_module_in_training(torch: Any, fw: Framework) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)).double()
    before = module[1].running_mean.clone()
    value, gradient = xp.value_and_grad(lambda x: (module(x) ** 3).sum())(fw.array(X))
    assert module[1].num_batches_tracked == 1 and (module[1].running_mean != before).all()
    assert all(grad is None for grad in grads(module))
    assert value.requires_grad and gradient.requires_grad
    (gradient**2).sum().backward()
    assert module[0].weight.grad.abs().max() > 0
    whole = xp.gradient_penalty(lambda x: (module(x) ** 3).sum(), fw.array(X), per_sample=False)
    assert module[1].num_batches_tracked == 2 and whole.requires_grad


def test_what_requires_a_gradient(torch: Any, fw: Framework) -> None:
    """What depends on something of the caller's that does, and nothing else."""
    x = fw.array(X)
    weight = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)

    def of(x: Any, w: Any) -> Any:
        return (w * x**3).sum(), {"x": x * x, "w": w * x, "plain": x, "constant": torch.ones(2), "weight": w}

    (value, aux), gradient = xp.value_and_grad(of, has_aux=True)(x, weight.detach())
    assert not any(y.requires_grad for y in (value, gradient, *aux.values()))
    assert aux["plain"] is not x or not x.requires_grad
    (value, aux), gradient = xp.value_and_grad(of, has_aux=True)(x, weight)
    assert value.requires_grad and gradient.requires_grad
    assert {name for name, y in aux.items() if y.requires_grad} == {"w", "weight"}
    (gradient**2).sum().backward()  # sum (3 w x^2)^2
    close(fw, weight.grad, (18 * 2.0 * X**4).sum(axis=0))
    leaf = fw.array(X).requires_grad_()
    (value, aux), gradient = xp.value_and_grad(of, has_aux=True)(leaf, weight.detach())
    assert value.requires_grad and gradient.requires_grad and leaf.grad is None
    assert {name for name, y in aux.items() if y.requires_grad} == {"x", "w", "plain"}
    (value + gradient.sum()).backward()
    close(fw, leaf.grad, 2 * (3 * X**2 + 6 * X))


def test_values_that_are_the_argument(torch: Any, fw: Framework) -> None:
    for requires in (False, True):
        point = torch.tensor(3.0, requires_grad=requires)
        value, gradient = xp.value_and_grad(lambda x: x)(point)
        assert value.requires_grad == requires and gradient.item() == 1.0 and point.grad is None
        curvature = xp.grad(xp.grad(lambda x: x**3))(point)
        assert curvature.requires_grad == requires and curvature.item() == 18.0
        value, gradient = xp.value_and_grad(lambda x, point=point: point)(torch.tensor(1.0))
        assert value.requires_grad == requires and gradient.item() == 0.0
