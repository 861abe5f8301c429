"""Golden losses: a tiny training against a second implementation that shares nothing with the first but the noise and
the first weights.

The second one is plain float64, one example after another. It takes the loss from probabilities, as the paper writes
it, and the gradient by complex steps: each parameter in turn gets an imaginary part h; that of the loss over h is the
derivative, exact to rounding.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny import build

from bdiff_np import rng
from bdiff_np.config import schema
from bdiff_np.data.bits import Bits
from bdiff_np.rng import Key
from bdiff_np.train import Training as Trained

Config, (ModelSection, Training, Data) = schema().Config, schema().sections.values()

D, T, N, BATCH, STEPS, FEATURES = 6, 20, 11, 8, 30, 4
H = 1e-40  # of the complex step: far below rounding, so that nothing but the derivative is left
ROWS = np.array([[(3 * i + j * (i + 1)) % 5 < 2 for j in range(D)] for i in range(N)], np.uint8)

CASES = {
    "relu, x0": dict(activation="relu", predict="x0"),
    "silu, x_prev": dict(activation="silu", predict="x_prev", weight_decay=0.1),
    "tanh, x0, two steps a row, cross entropy": dict(
        activation="tanh", predict="x0", num_sample_steps=2, bce_weight=0.3, pi=0.3
    ),
    "silu, x0, no skip, pi per bit": dict(
        activation="silu", predict="x0", skip=False, pi="data", clip_thresh=0.05, weight_decay=0.02
    ),
    "tanh, x_prev, no skip": dict(
        activation="tanh", predict="x_prev", skip=False, lr_schedule="constant", clip_thresh=None
    ),
}
DEFAULTS = dict(
    num_sample_steps=1, bce_weight=0.0, pi=0.5, skip=True, weight_decay=0.0, clip_thresh=0.5, lr_schedule="cosine"
)
TRAINING = dict(epochs=3, steps_per_epoch=10, lr=0.02, warmup_steps=7, ema=0.9, seed=9)


def configuration(case):
    given = DEFAULTS | CASES[case]
    of_model = {k: given[k] for k in ("activation", "predict", "num_sample_steps", "pi", "skip")}
    of_training = {k: given[k] for k in ("bce_weight", "weight_decay", "clip_thresh", "lr_schedule")}
    return Config(
        model=ModelSection(T=T, hidden=(8, 8), time_features=FEATURES, **of_model), training=Training(**TRAINING,
        **of_training), data=Data(batch_size=BATCH),
    )  # fmt: skip


def stationary(given):
    return np.clip(ROWS.mean(0), 0.5 / N, 1 - 0.5 / N) if given["pi"] == "data" else np.full(D, given["pi"])


# The second implementation
# ----------------------------------------------------------------------------------------------------------------


def time_features(t):
    signal = 1 - t / T
    odds = math.log((1 + signal) / max(1 - signal, 0.5 / T)) / math.log(1000)
    half = FEATURES // 2
    return np.array(
        [math.cos(math.pi * k * signal) for k in range(half)]
        + [odds]
        + [math.cos(math.pi * k * odds) for k in range(1, half)]
    )


ACTIVATION = {"relu": lambda z: np.where(z.real > 0, z, 0), "silu": lambda z: z / (1 + np.exp(-z)), "tanh": np.tanh}


def network(weights, x_t, t, activation):
    """Output (P, D) for one example, of P sets of weights at once."""
    y, features = np.tile(2.0 * x_t - 1, (len(weights["out/b"]), 1)), time_features(t)
    for layer in ("dense0", "dense1"):
        film = np.einsum("f,pfh->ph", features, weights[f"{layer}/F"])
        z = np.einsum("pi,pih->ph", y, weights[f"{layer}/W"]) + weights[f"{layer}/b"]
        y = ACTIVATION[activation](z * (1 + film[:, :8]) + film[:, 8:])
    return np.einsum("pi,pih->ph", y, weights["out/W"]) + weights["out/b"]


def example_loss(weights, x0, x_t, t, given):
    """KL in nats, and KL plus the auxiliary cross entropy, (P,) each, of one example."""
    pi, logits = stationary(given), network(weights, x_t, t, given["activation"])
    kl = cross = 0
    for d in range(D):
        p, v = pi[d], x_t[d]
        signal, before = 1 - t / T, 1 - (t - 1) / T
        beta = 1 - signal / before
        # q(v | u)
        step = [(beta * p, 1 - beta + beta * p)[u] if v else (1 - beta * p, beta * (1 - p))[u] for u in (0, 1)]

        def posterior(clean):
            one = before * clean + (1 - before) * p  # noqa: B023
            return one * step[1] / (one * step[1] + (1 - one) * step[0])  # noqa: B023

        if given["predict"] == "x0":
            own = [signal * (v == u) + (1 - signal) * (p if v else 1 - p) for u in (0, 1)]
            odds = p * own[1] / ((1 - p) * own[0])
        else:
            odds = p * step[1] / ((1 - p) * step[0])
        odds = odds if given["skip"] else 1.0
        said = odds / (odds + np.exp(-logits[:, d]))  # the net's probability of a 1
        mixed = said * posterior(1) + (1 - said) * posterior(0) if given["predict"] == "x0" else said
        q = posterior(x0[d])
        for true, model in ((q, mixed), (1 - q, 1 - mixed)):
            if true > 1e-12:  # at t = 1 it is 0 or 1
                kl = kl + true * np.log(true / model)
        cross = cross - np.log(said if x0[d] else 1 - said)
    return kl, kl + given["bce_weight"] / T * cross


def word_fraction(words):
    return words / 2.0**32


def example_batch(step, given):
    """Rows and steps of an optimiser step: the rows go on through shuffled passes, the steps are spread over 1..T."""
    chosen = []
    for position in range((step - 1) * BATCH, step * BATCH):
        wide = rng.words(Key(9, rng.SHUFFLE, position // N), 1, 2 * N)[0].astype(object)
        order = sorted(range(N), key=lambda i: wide[2 * i] + (wide[2 * i + 1] << 32))
        chosen.append(ROWS[order[position % N]])
    chosen = chosen * given["num_sample_steps"]
    u = float(word_fraction(rng.words(Key(9, rng.TIME, step), 1, 1))[0, 0])
    return chosen, [1 + math.floor(T * (u + i) / len(chosen)) for i in range(len(chosen))]


def second_training(first, case):
    """Losses of all steps, final weights and their averages, by names."""
    given = DEFAULTS | CASES[case]
    shapes = {name: np.shape(value) for name, value in first.items()}
    theta = np.concatenate([np.ravel(first[name]) for name in shapes]).astype(float)
    decayed = np.concatenate([np.full(math.prod(shape), float(name[-1] == "W")) for name, shape in shapes.items()])
    m, v, mean, losses = np.zeros_like(theta), np.zeros_like(theta), theta.copy(), []

    def named(flat):
        parts = np.split(flat, np.cumsum([math.prod(s) for s in shapes.values()])[:-1], axis=-1)
        return {name: part.reshape(*flat.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts)}

    for step in range(1, STEPS + 1):
        rows, times = example_batch(step, given)
        noise = word_fraction(rng.draws(Key(9, rng.Q_NOISE, step), len(rows), D))
        nudged = named(theta + 1j * H * np.eye(len(theta)))
        gradient, loss = np.zeros_like(theta), 0.0
        for x0, t, u in zip(rows, times, noise):
            x_t = (u < (1 - t / T) * x0 + t / T * stationary(given)).astype(int)
            kl, whole = example_loss(nudged, x0, x_t, t, given)
            loss += T * kl[0].real / len(rows)
            gradient += T * whole.imag / H / (len(rows) * D)
        losses.append(loss)
        length = math.sqrt(float((gradient**2).sum()))
        if given["clip_thresh"] is not None and length > given["clip_thresh"]:
            gradient *= given["clip_thresh"] / length
        rate = (
            0.02
            * min(1, step / 7)
            * (0.5 * (1 + math.cos(math.pi * step / STEPS)) if given["lr_schedule"] == "cosine" else 1)
        )
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - rate * given["weight_decay"] * decayed * theta
        theta = theta - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * theta
    return np.array(losses), named(theta), named(mean)


GOLDEN = {}


def golden(case, first):
    if case not in GOLDEN:
        GOLDEN[case] = second_training(first, case)
    return GOLDEN[case]


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-4)])
@pytest.mark.parametrize("case", CASES)
def test_training_is_the_second_implementation(case, dtype, tolerance):
    """Losses of 30 steps, final weights and their averages agree to 1e-9 in float64 and 1e-4 in float32, of the largest
    of an array."""
    pi = stationary(DEFAULTS | CASES[case])
    model = build(configuration(case), D, pi if CASES[case].get("pi") == "data" else pi[0], dtype=dtype)
    training = Trained(model, Bits.from_array(ROWS))
    assert training.total_steps == STEPS
    losses, weights, averages = golden(case, training.model.net.init(9))
    np.testing.assert_allclose([training.step() for _ in range(STEPS)], losses, rtol=tolerance)
    assert losses[-5:].mean() < losses[:5].mean()
    for ours, theirs in ((training.model.params, weights), (training.optimizer.ema, averages)):
        assert list(ours) == list(theirs)
        for name in theirs:
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=0, atol=tolerance * np.abs(theirs[name]).max(), err_msg=name
            )


@pytest.mark.parametrize("case", ["relu, x0", "silu, x_prev"])
def test_golden_losses_would_show_a_thousandth(case):
    """With a learning rate 0.1 % higher the losses leave the golden ones by more than the tolerance of float64."""
    config = configuration(case)
    config = config.model_copy(update={"training": config.training.model_copy(update={"lr": 0.02 * 1.001})})
    training = Trained(build(config, D, 0.5, dtype=np.float64), Bits.from_array(ROWS))
    losses = golden(case, training.model.net.init(9))[0]
    found = np.array([training.step() for _ in range(STEPS)])
    np.testing.assert_allclose(found[0], losses[0], rtol=1e-9)
    assert np.abs(found / losses - 1).max() > 1e-6
