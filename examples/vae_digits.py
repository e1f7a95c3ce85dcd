"""A variational autoencoder of digits, with and without free bits: how many latents does it use?

    python examples/vae_digits.py [--backend torch|jax] [--steps N] [--free-bits NATS] [--seed N] [--plot PATH]

Early in training, the KL term is the easiest to lower: a latent that equals its prior costs nothing, and is lost for
good. With free bits, a latent costs nothing up to some nats, so none gains by giving these up.
"""

import argparse
import sys

try:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits

    from xpenalties import Penalty, Pipeline, RegularizedLoss, gaussian_kl, namespace, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]", or with jax for torch')

PIXELS, HIDDEN, LATENTS = 64, 64, 16
BATCH = 128
RATE, BETAS, EPS = 3e-3, (0.9, 0.99), 1e-8  # of Adam
ACTIVE = 0.05  # nats: a latent below this says nothing of the image


def digits():
    """Return images of 8 x 8 pixels as rows of numbers in [0, 1], for training and for testing."""
    images = (load_digits().data / 16).astype(np.float32)
    return images[:1500], images[1500:]


def first_params(rng):
    def layer(inputs, outputs):
        return (rng.standard_normal((inputs, outputs)) * (1 / inputs) ** 0.5).astype(np.float32)

    return {
        "encode": layer(PIXELS, HIDDEN),
        "mean": layer(HIDDEN, LATENTS),
        "log_var": layer(HIDDEN, LATENTS),
        "decode": layer(LATENTS, HIDDEN),
        "pixels": layer(HIDDEN, PIXELS),
        "bias": np.zeros(PIXELS, np.float32),
    }


def encoded(params, images):
    """Return the means and log-variances of the latents."""
    hidden = namespace(images).tanh((images - 0.3) @ params["encode"])
    return hidden @ params["mean"], hidden @ params["log_var"]


def decoded(params, latents):
    """Return the logits of the pixels."""
    return namespace(latents).tanh(latents @ params["decode"]) @ params["pixels"] + params["bias"]


def reconstruction(inputs):
    """Return the cross-entropy of the pixels, in nats for each image."""
    logits, images = inputs["logits"], inputs["images"]
    xp = namespace(logits)
    return xp.sum(xp.logaddexp(xp.zeros_like(logits), logits) - images * logits) / images.shape[0]


def loss_with(free_bits):
    """Return the negative of the evidence lower bound for one image: the KL term adds up the latents."""
    options = {"free_bits": free_bits, "normalizer": 1 / LATENTS}  # one number: the mean over the latents
    if free_bits == 0:
        options = {"reduction": "sum", "normalizer": BATCH}  # a term for each latent of each image
    return RegularizedLoss(reconstruction, Pipeline([Penalty("gaussian_kl", inputs=("mean", "log_var"), **options)]))


def step(state, batch, noise, loss):
    """Take one step of Adam. The state is the number of steps, the parameters and two moving averages of each."""

    def of(params):
        mean, log_var = encoded(params, batch)
        latents = mean + namespace(mean).exp(log_var / 2) * noise
        return loss({"mean": mean, "log_var": log_var, "logits": decoded(params, latents), "images": batch})

    count, params, first, second = state
    total, gradient = value_and_grad(of)(params)
    count, xp = count + 1, namespace(batch)
    first = {k: BETAS[0] * first[k] + (1 - BETAS[0]) * g for k, g in gradient.items()}
    second = {k: BETAS[1] * second[k] + (1 - BETAS[1]) * g * g for k, g in gradient.items()}
    rate = RATE * (1 - BETAS[1] ** count) ** 0.5 / (1 - BETAS[0] ** count)
    params = {k: p - rate * first[k] / (xp.sqrt(second[k]) + EPS) for k, p in params.items()}
    return (count, params, first, second), total


def framework(name):
    """Return what differs: conversions from and to NumPy, and a compiler for `step`."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            return torch.asarray, lambda x: x.numpy(), lambda step: step
        import jax

        return jax.numpy.asarray, np.asarray, jax.jit
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def train(images, *, backend, free_bits, steps, seed):
    """Return the parameters as arrays of `backend`."""
    asarray, _, compiled = framework(backend)
    rng, loss = np.random.default_rng(seed), loss_with(free_bits)
    params = {k: asarray(x) for k, x in first_params(rng).items()}
    zeros = {k: 0 * x for k, x in params.items()}
    state = asarray(np.asarray(0.0, np.float32)), params, zeros, zeros
    one_step = compiled(lambda state, batch, noise: step(state, batch, noise, loss))
    for _ in range(steps):
        batch = images[rng.integers(0, len(images), BATCH)]
        noise = rng.standard_normal((BATCH, LATENTS), np.float32)
        state, _ = one_step(state, asarray(batch), asarray(noise))
    return state[1]


def measure(params, images, backend):
    """Return the divergence of each latent in nats, largest first, and the loss of reconstruction from the means."""
    asarray, to_numpy, _ = framework(backend)
    batch = asarray(images)
    mean, log_var = encoded(params, batch)
    kl = to_numpy(gaussian_kl(mean, log_var, reduction="none")).mean(axis=0)
    loss = reconstruction({"logits": decoded(params, mean), "images": batch})
    return np.sort(kl)[::-1], float(loss)


def plot(picture, found):
    """Plot the divergence of each latent."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (label, (kl, _)) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
        axes.bar(np.arange(1, LATENTS + 1), kl)
        axes.axhline(ACTIVE, color="0.5", lw=0.8)
        axes.set(title=label, xlabel="latent", ylabel="KL in nats")
    figure.savefig(picture, dpi=150)


def main(argv=None):
    """Return the divergences of the latents without and with free bits, and both losses of reconstruction."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["torch", "jax"], default="torch")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--free-bits", type=float, default=0.5, help="nats for each latent (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="PATH", default="vae.png", help="path of the plot (default: %(default)s)")
    args = parser.parse_args(argv)
    training, testing = digits()
    found = {}
    for free_bits in (0.0, args.free_bits):
        params = train(training, backend=args.backend, free_bits=free_bits, steps=args.steps, seed=args.seed)
        found[f"{free_bits:g} free bits"] = measure(params, testing, args.backend)
    view = Table("", "latents in use", "least KL", "sum of KL", "loss of pixels", title=f"Digits ({args.backend})")
    for label, (kl, loss) in found.items():
        used = f"{np.sum(kl > ACTIVE)} of {LATENTS}"
        view.add_row(label, used, f"{kl[-1]:.3f}", f"{kl.sum():.1f}", f"{loss:.2f}")
    Console().print(view)
    plot(args.plot, found)
    print(f"picture: {args.plot}")
    (without, loss_without), (with_bits, loss_with_bits) = found.values()
    return without, with_bits, loss_without, loss_with_bits


if __name__ == "__main__":
    main()
