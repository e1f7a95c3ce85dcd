"""WGAN-GP on eight Gaussians in the plane: a penalty keeps the norm of the critic's gradient near 1.

    python examples/wgan_gp.py [--backend torch|jax] [--steps N] [--seed N] [--plot PATH]

The critic's loss is a base loss and a pipeline, the same for both frameworks. Each framework has its own networks and
optimizers: `torch_game` and `jax_game`.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

try:
    import numpy as np
    from matplotlib.figure import Figure

    from xpenalties import (
        Penalty,
        Pipeline,
        RegularizedLoss,
        gradient_penalty,
        namespace,
    )
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]", or with jax for torch')

BATCH = 256
LATENT = 8
HIDDEN = 64, 64, 64
CRITIC_STEPS = 2
LEARNING_RATE = 5e-3
BETAS = 0.5, 0.9
AVERAGE = 0.99  # decay of the generator's averaged weights, which make the samples
WEIGHT = 2.0  # of the penalty
MODES = 1.5 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=-1)
SPREAD = 0.1
LAST = 0.25  # the fraction of the steps over which the norm is averaged
NORM_BOUNDS = 0.85, 1.15


def wasserstein(game):
    """Return the negative of the critic's estimate of the distance between real and generated samples."""
    critic = game["critic"]
    xp = namespace(game["real"])
    return xp.mean(critic(game["fake"])) - xp.mean(critic(game["real"]))


INPUTS = {"fn": "critic", "real": "real", "fake": "fake", "rng": "rng"}  # random numbers change from step to step
PENALTY = Penalty("interpolated_gradient_penalty", name="gradient_penalty", inputs=INPUTS, weight=WEIGHT)
CRITIC_LOSS = RegularizedLoss(wasserstein, Pipeline([PENALTY]))


def mean_norm(critic, points):
    """Return the mean norm of the critic's gradient. The penalty is its squared distance from 1."""
    squared = gradient_penalty(critic, points, target_norm=0, reduction="none")
    xp = namespace(squared)
    return xp.mean(xp.sqrt(squared))


@dataclass
class Game:
    """Hold the differences between the frameworks: functions that take and return NumPy arrays."""

    train_critic: Any  # real samples, noise -> report
    train_generator: Any  # noise -> None
    norm: Any  # real samples, noise, fractions of the real ones -> mean norm
    generate: Any  # noise -> samples, from the averaged weights
    judge: Any  # points -> values of the critic


def torch_game(seed):
    import torch

    torch.set_num_threads(1)  # arrays this small do not gain from threads
    torch.manual_seed(seed)

    def network(*sizes):
        layers = [(torch.nn.Linear(*pair), torch.nn.ReLU()) for pair in pairwise(sizes)]
        return torch.nn.Sequential(*[layer for pair in layers for layer in pair][:-1])

    def optimizer(net):
        adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)

        def step(loss):
            adam.zero_grad()
            loss.backward()
            adam.step()

        return step

    critic, generator = network(2, *HIDDEN, 1), network(LATENT, *HIDDEN, 2)
    averaged = torch.optim.swa_utils.AveragedModel(
        generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
    )
    critic_step, generator_step = optimizer(critic), optimizer(generator)
    rng = torch.Generator().manual_seed(seed)

    def train_critic(real, noise):
        with torch.no_grad():
            fake = generator(torch.asarray(noise))
        total, report = CRITIC_LOSS.compute({"critic": critic, "real": torch.asarray(real), "fake": fake, "rng": rng})
        critic_step(total)
        return report

    def train_generator(noise):
        generator_step(-critic(generator(torch.asarray(noise))).mean())
        averaged.update_parameters(generator)

    def norm(real, noise, shares):
        fake, real, shares = generator(torch.asarray(noise)).detach(), torch.asarray(real), torch.asarray(shares)
        return mean_norm(critic, shares * real + (1 - shares) * fake).item()

    @torch.no_grad()
    def generate(noise):
        return averaged(torch.asarray(noise)).numpy()

    @torch.no_grad()
    def judge(points):
        return critic(torch.asarray(points))[:, 0].numpy()

    return Game(train_critic, train_generator, norm, generate, judge)


def jax_game(seed):
    import jax
    import jax.numpy as jnp

    def network(key, *sizes):
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            {"weights": jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros(n)}
            for k, (m, n) in zip(keys, pairwise(sizes), strict=True)
        ]

    def apply(params, x):
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["weights"] + layer["bias"])
        return x @ params[-1]["weights"] + params[-1]["bias"]

    def adam(params, gradient, state):
        """Take one step. The state is the number of steps and two moving averages."""
        count, first, second = state
        count = count + 1
        first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, first, gradient)
        second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, second, gradient)
        rate = LEARNING_RATE * jnp.sqrt(1 - BETAS[1] ** count) / (1 - BETAS[0] ** count)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, first, second)
        return params, (count, first, second)

    def critic_loss(critic, generator, real, noise, key):
        fake = jax.lax.stop_gradient(apply(generator, noise))
        return CRITIC_LOSS.compute({"critic": lambda x: apply(critic, x), "real": real, "fake": fake, "rng": key})

    @jax.jit
    def critic_step(critic, generator, state, real, noise, key):
        key, now = jax.random.split(key)
        gradient, report = jax.grad(critic_loss, has_aux=True)(critic, generator, real, noise, now)
        return *adam(critic, gradient, state), key, report

    @jax.jit
    def generator_step(generator, critic, state, averaged, noise):
        gradient = jax.grad(lambda generator: -jnp.mean(apply(critic, apply(generator, noise))))(generator)
        generator, state = adam(generator, gradient, state)
        return generator, state, jax.tree.map(lambda a, p: AVERAGE * a + (1 - AVERAGE) * p, averaged, generator)

    @jax.jit
    def norm_of(critic, generator, real, noise, shares):
        return mean_norm(lambda x: apply(critic, x), shares * real + (1 - shares) * apply(generator, noise))

    key, *keys = jax.random.split(jax.random.key(seed), 3)
    critic, generator = network(keys[0], 2, *HIDDEN, 1), network(keys[1], LATENT, *HIDDEN, 2)
    averaged = generator
    critic_state, generator_state = ((0, zeros, zeros) for zeros in jax.tree.map(jnp.zeros_like, (critic, generator)))

    def train_critic(real, noise):
        nonlocal critic, critic_state, key
        critic, critic_state, key, report = critic_step(critic, generator, critic_state, real, noise, key)
        return report

    def train_generator(noise):
        nonlocal generator, generator_state, averaged
        generator, generator_state, averaged = generator_step(generator, critic, generator_state, averaged, noise)

    return Game(
        train_critic,
        train_generator,
        norm=lambda real, noise, shares: norm_of(critic, generator, real, noise, shares).item(),
        generate=lambda noise: np.asarray(apply(averaged, noise)),
        judge=lambda points: np.asarray(apply(critic, points)[:, 0]),
    )


def train(game, *, steps, seed):
    """Train. Return rows of the step, the critic's loss, the penalty, and the mean norm at interpolates."""
    rng = np.random.default_rng(seed)

    def real():
        return (MODES[rng.integers(8, size=BATCH)] + SPREAD * rng.standard_normal((BATCH, 2))).astype(np.float32)

    def noise():
        return rng.standard_normal((BATCH, LATENT), dtype=np.float32)

    rows = []
    print(f"{'step':>6}  {'critic loss':>11}  {'penalty':>9}  {'gradient norm':>13}")
    for step in range(1, steps + 1):
        for _ in range(CRITIC_STEPS):
            report = game.train_critic(real(), noise())
        game.train_generator(noise())
        if step % 10 == 0 or step == steps:
            norm = game.norm(real(), noise(), rng.random((BATCH, 1), dtype=np.float32))
            found = report.to_dict()
            rows.append((step, found["loss_total"], found["regularizers"]["gradient_penalty"]["value"], norm))
            if step % max(steps // 10, 1) == 0:
                print("{:6}  {:11.4f}  {:9.4f}  {:13.4f}".format(*rows[-1]))
    return rows


def quality(samples):
    """Return the fraction of samples near a mode, and the number of modes with at least a quarter of their share."""
    distance = np.linalg.norm(samples[:, None, :] - MODES, axis=-1)
    near = distance.min(axis=1) < 3 * SPREAD
    found = np.bincount(distance.argmin(axis=1)[near], minlength=8)
    return near.mean(), int((found > len(samples) / 32).sum())


def draw(path, rows, samples, game, backend):
    """Plot the samples over real data, with the critic's level lines, and the norm over the steps."""
    rng = np.random.default_rng(0)
    real = MODES[rng.integers(8, size=1000)] + SPREAD * rng.standard_normal((1000, 2))
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    line = np.linspace(-2.2, 2.2, 100, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    values = game.judge(grid.reshape(-1, 2)).reshape(grid.shape[:-1])
    left.contour(line, line, values, levels=20, cmap="viridis", linewidths=0.8, alpha=0.7)
    left.scatter(*real.T, s=4, color="0.7", label="real")
    left.scatter(*samples.T, s=4, color="tab:red", alpha=0.6, label="generated")
    left.set(
        aspect="equal",
        title=f"samples, and the critic's level lines ({backend})",
        xlim=line[[0, -1]],
        ylim=line[[0, -1]],
    )
    left.legend(loc="upper right", markerscale=3)
    steps, _, _, norms = zip(*rows, strict=True)
    right.plot(steps, norms, color="tab:blue", linewidth=1)
    right.axhline(1, color="black", linestyle="--", linewidth=1, label="target")
    right.axhspan(*NORM_BOUNDS, xmin=0, color="tab:green", alpha=0.15, label="to settle in")
    right.set(xlabel="step", title="mean norm of the critic's gradient at interpolates", ylim=(0, None))
    right.grid(alpha=0.3)
    right.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main(argv=None):
    """Return the final mean norm, the fraction of samples near a mode, and the number of modes found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["torch", "jax"], default="torch")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the generator (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and samples (default: %(default)s)")
    parser.add_argument("--plot", metavar="PATH", default="wgan_gp.png", help="path of the plot (default: %(default)s)")
    args = parser.parse_args(argv)

    try:
        game = {"torch": torch_game, "jax": jax_game}[args.backend](args.seed)
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{args.backend},examples]"')
    began = time.perf_counter()
    rows = train(game, steps=args.steps, seed=args.seed)
    print(f"{args.backend}: {time.perf_counter() - began:.1f} s")
    samples = game.generate(np.random.default_rng(1).standard_normal((1000, LATENT), dtype=np.float32))
    draw(args.plot, rows, samples, game, args.backend)
    norm = float(np.mean([row[3] for row in rows if row[0] > (1 - LAST) * args.steps]))
    near, modes = quality(samples)
    print(f"mean gradient norm {norm:.3f}; {near:.0%} of samples near a mode, {modes} of 8 modes; {args.plot}")
    return {"norm": norm, "near": near, "modes": modes, "rows": rows}


if __name__ == "__main__":
    if not NORM_BOUNDS[0] <= main()["norm"] <= NORM_BOUNDS[1]:
        sys.exit(f"the gradient norm has not settled within {NORM_BOUNDS}")
