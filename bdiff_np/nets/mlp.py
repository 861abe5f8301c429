"""The default network: a multi-layer perceptron that sees the noisy bits and the time.

    logits, tape = net.forward(ops, params, x_t, t)
    grads        = net.backward(ops, params, tape, dlogits)

It reads x_t as -1 and +1 and gives one number per bit, to which the kernels add x_t's own evidence. The last layer starts at zero, so an
untrained network is the best one that treats bits as independent (derivation, section 8).
"""

from __future__ import annotations

from itertools import count

import numpy as np

from bdiff_np import rng
from bdiff_np.nets.layers import BumpReadout, Context, Dense, Dropout, LayerNorm, Residual, StepReadout
from bdiff_np.params import Params
from bdiff_np.rng import Key


class MLP:
    """Dense layers, plain or in residual blocks.

    D : bits of a row. alpha_bar : (T + 1,) the chain's signal, which the time features are made of
    hidden : widths. activation : one of the back end's ACTIVATIONS
    time : "fourier" (features scale and shift every hidden layer), "bumps" or "readout" (the last layer's weights depend on t)
    odds_input : read each bit a second time, weighted by the log odds that it carries at t: then what bits say of one another can be added up
        by the first layer at every t, down to the smallest, where the odds grow without bound
    residual : hidden[1:] become blocks x + W2 drop(act(film(W1 norm(x)))), all of width hidden[0]
    dropout : probability that a hidden unit is left out while training
    """

    def __init__(self, D, alpha_bar, *, hidden, activation, time, time_features, odds_input, residual, dropout, dtype=np.float32):
        self.width = max(hidden)
        self.D, self.dtype, self.features = D, np.dtype(dtype), time_table(time, alpha_bar, time_features).astype(dtype)
        self.odds = (log_odds(alpha_bar) / 3).astype(dtype) if odds_input else None
        film = time_features if time == "fourier" else 0
        gain = 2**0.5 if activation in ("relu", "silu", "gelu") else 1.0
        self.layers: list = [Dense("dense0", 2 * D if odds_input else D, hidden[0], activation, film, 1.0)]
        for k, width in enumerate(hidden[1:], start=1):
            if residual:
                block = [LayerNorm(f"norm{k}", width), Dense(f"dense{k}", width, width, activation, film, gain)]
                block += [Dropout(dropout, k)] if dropout else []
                self.layers.append(Residual([*block, Dense(f"mix{k}", width, width, None, 0, 0.5)]))
            else:
                self.layers += [Dropout(dropout, k)] if dropout else []
                self.layers.append(Dense(f"dense{k}", hidden[k - 1], width, activation, film, gain))
        if residual:
            self.layers.append(LayerNorm("norm", hidden[-1]))
        elif dropout:
            self.layers.append(Dropout(dropout, len(hidden)))
        if time == "bumps":
            self.layers.append(BumpReadout("out", hidden[-1], D, time_features))
        elif time == "readout":
            self.layers.append(StepReadout("out", hidden[-1], D, len(alpha_bar) - 1))
        else:
            self.layers.append(Dense("out", hidden[-1], D, None, 0, 0.0))
        self.shapes = {name: shape for layer in self.layers for name, shape in layer.shapes.items()}
        self._moved: dict[str, tuple] = {}

    @property
    def dense(self) -> list[Dense] | None:
        """The layers if all are Dense and time scales and shifts the hidden ones, which is what compiled steps know; else None."""
        known = all(type(layer) is Dense for layer in self.layers) and all(layer.film for layer in self.layers[:-1])
        return self.layers if known else None

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """First values of all parameters, float64, from the seed alone."""
        arrays: dict[str, np.ndarray] = {}
        for k, layer in enumerate(self.layers):
            parts = count()  # a layer may draw several matrices
            arrays |= layer.init(lambda shape: rng.normal(Key(seed, rng.INIT, 64 * k + next(parts)), shape))  # noqa: B023
        return arrays

    def forward(self, ops, params, x_t, t, key: Key | None = None):
        """Logits (B, D) and the tape, for x_t (B, D) bits and t (B,). `key` turns dropout on."""
        t = ops.asarray(t)
        y, features = ops.read(x_t, t, *self._tables(ops))
        context, tape = Context(t, features, key), []
        for layer in self.layers:
            y, saved = layer.forward(ops, params, y, context)
            tape.append(saved)
        return y, tape

    def _tables(self, ops) -> tuple:
        """Features of time and odds on a back end."""
        if ops.name not in self._moved:
            self._moved[ops.name] = ops.asarray(self.features), None if self.odds is None else ops.asarray(self.odds)
        return self._moved[ops.name]

    def backward(self, ops, params, tape, dlogits) -> Params:
        """Gradients of all parameters. The returned buffer is the network's own and good until the next call."""
        if not hasattr(self, "_grads"):
            self._grads = Params(ops, self.shapes, self.dtype)
        dy = dlogits
        for k in range(len(self.layers) - 1, -1, -1):
            dy = self.layers[k].backward(ops, params, self._grads, tape[k], dy, k > 0)
        return self._grads


def time_table(time: str, alpha_bar: np.ndarray, count: int) -> np.ndarray:
    """Time features, (T + 1, count) float64.

    fourier : cosines of the signal alpha_bar, and of its log odds, which tell small t apart. They depend on the signal, not on T or on the
        schedule, so that one network serves every chain.
    bumps : Gaussian bumps over t / T that sum to 1.
    """
    T = len(alpha_bar) - 1
    if time == "bumps":
        u, centre = np.arange(T + 1)[:, None] / T, np.linspace(0, 1, count)
        g = np.exp(-0.5 * ((u - centre) * max(1, count - 1)) ** 2)
        return g / g.sum(1, keepdims=True)
    odds = log_odds(alpha_bar) / np.log(1000.0)  # of the order of 1 for chains of tens to thousands of steps
    k = np.arange(count // 2)
    return np.concatenate([np.cos(np.pi * k * alpha_bar[:, None]), odds[:, None], np.cos(np.pi * k[1:] * odds[:, None])], 1)


def log_odds(alpha_bar: np.ndarray) -> np.ndarray:
    """Log odds that a bit of x_t still shows x_0, (T + 1,), for pi = 1/2. Entry 0 is never asked for; it is that of half the noise of t = 1."""
    lost = 1 - alpha_bar
    lost[0] = lost[1] / 2
    return np.log((1 + alpha_bar) / lost)


def build(D: int, chain, settings, dtype=np.float32) -> MLP:
    """The network that the `model` section of a configuration describes."""
    return MLP(
        D, chain.alpha_bar, hidden=settings.hidden, activation=settings.activation, time=settings.time,
        time_features=settings.time_features, odds_input=settings.odds_input, residual=settings.residual, dropout=settings.dropout, dtype=dtype,
    )  # fmt: skip
