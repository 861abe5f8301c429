"""The default network: a multi-layer perceptron that sees the noisy data and the time.

    out, tape = net.forward(ops, params, x_t, t)
    grads     = net.backward(ops, params, tape, dout)

The family says how it reads x_t (`Task.read`) and what its outputs mean. The last layer starts at zero: an untrained
network adds nothing to what the family knows without one (derivation, section 8).
"""

from __future__ import annotations

from itertools import count
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bdiff_np import rng
from bdiff_np.nets import Net, Stage
from bdiff_np.nets.layers import BumpReadout, Context, Dense, Dropout, LayerNorm, Residual, StepReadout
from bdiff_np.params import Params
from bdiff_np.rng import Key
from bdiff_np.settings import Disagreements, Settings


class MLPSettings(Settings):
    """The perceptron's settings in the section `model`."""

    hidden: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(
        default=(100,), min_length=1, max_length=1000, strict=False
    )
    """Widths of the hidden layers, in units, from the input to the output."""
    activation: Literal["relu", "silu", "gelu", "tanh", "sigmoid"] = "silu"
    """Non-linearity after each hidden layer."""
    time: Literal["fourier", "bumps", "readout"] = "fourier"
    """How t enters the net: Fourier features, Gaussian bumps in t, or one read-out per timestep."""
    time_features: int = Field(default=16, ge=2, le=1024, multiple_of=2)
    """Number of features of t, for fourier and bumps."""
    odds_input: bool = False
    """Whether the net also reads each element of x_t weighted by the log odds that it carries at t."""
    residual: bool = False
    """Whether hidden layers are residual blocks with LayerNorm; all hidden widths are then equal."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a hidden unit is dropped in training."""

    @classmethod
    def disagreements(cls, model, training, data) -> Disagreements:
        if model.residual and len(set(model.hidden)) > 1:
            yield (
                (("model", "hidden"), ("model", "residual")),
                f"widths must all be equal with residual: true (got {list(model.hidden)})",
            )
        elif model.residual and model.hidden[0] == 1:
            reason = "LayerNorm makes 0 of a single unit; take 2 or more with residual: true"
            yield (("model", "hidden"), ("model", "residual")), reason


class MLP(Net):
    """Dense layers, plain or in residual blocks.

    task : diffusion.Task, of which the time features take the signal, alpha_bar (T + 1,)
    hidden : widths. activation : one of the back end's ACTIVATIONS
    time : "fourier" (features scale and shift every hidden layer), "bumps" or "readout" (the last layer's weights
        depend on t)
    odds_input : read x_t a second time, weighted by the log odds that it carries at t: then what its elements say of
        one another can be added up by the first layer at every t, down to the smallest, where the odds grow without
        bound
    residual : hidden[1:] become blocks x + W2 drop(act(film(W1 norm(x)))), all of width hidden[0]
    dropout : probability that a hidden unit is left out while training
    """

    Settings = MLPSettings
    smaller = "take narrower layers (model.hidden)"

    def __init__(
        self, task, *, hidden, activation, time, time_features, odds_input, residual, dropout, dtype=np.float32
    ):
        self.width, self.task, self.D, M, alpha_bar = max(hidden), task, task.D, task.outputs, task.chain.alpha_bar
        inputs = 2 * task.inputs if odds_input else task.inputs
        self.dtype, self.features = np.dtype(dtype), time_table(time, alpha_bar, time_features).astype(dtype)
        self.odds = (log_odds(alpha_bar) / 3).astype(dtype) if odds_input else None
        film = time_features if time == "fourier" else 0
        gain = 2**0.5 if activation in ("relu", "silu", "gelu") else 1.0
        self.layers: list = [Dense("dense0", inputs, hidden[0], activation, film, 1.0)]
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
            self.layers.append(BumpReadout("out", hidden[-1], M, time_features))
        elif time == "readout":
            self.layers.append(StepReadout("out", hidden[-1], M, task.chain.T))
        else:
            self.layers.append(Dense("out", hidden[-1], M, None, 0, 0.0))
        self.shapes = {name: shape for layer in self.layers for name, shape in layer.shapes.items()}
        if time == "fourier":
            self.stages = _stages(self.layers)
        self._moved: dict[str, tuple] = {}

    @classmethod
    def build(cls, task, settings, dtype=np.float32) -> MLP:
        return cls(task, dtype=dtype, **{name: getattr(settings, name) for name in MLPSettings.model_fields})

    def decays(self) -> dict[str, bool]:
        # The weights of time's features, small at first, would decay away before they are learned.
        return {name: name in layer.decayed for layer in self.layers for name in layer.shapes}

    def units(self) -> int:
        if self.stages is None:
            return super().units()
        return sum(layer.shapes[f"{layer.name}/W"][1] for layer, *_ in self.stages)

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """First values of all parameters, float64, from the seed alone."""
        arrays: dict[str, np.ndarray] = {}
        for k, layer in enumerate(self.layers):
            parts = count()  # a layer may draw several matrices
            arrays |= layer.init(lambda shape: rng.normal(Key(seed, rng.INIT, 64 * k + next(parts)), shape))  # noqa: B023
        return arrays

    def forward(self, ops, params, x_t, t, key: Key | None = None):
        t = ops.asarray(t)
        y, features = self.task.read(ops, x_t, t, *self._tables(ops))
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

    def backward(self, ops, params, tape, dout) -> Params:
        return self._backward(ops, params, tape, dout, False)[0]

    def backward_input(self, ops, params, tape, dout):
        return self._backward(ops, params, tape, dout, True)

    def _backward(self, ops, params, tape, dout, need_dx: bool):
        grads, dy = self.gradients(ops), dout
        for k in range(len(self.layers) - 1, -1, -1):
            dy = self.layers[k].backward(ops, params, grads, tape[k], dy, k > 0 or need_dx)
        return grads, dy


def _stages(layers) -> list[Stage]:
    """Layers as stages."""
    stages: list[Stage] = []
    norm = None
    for layer in layers:
        if type(layer) is Residual:
            *inner, last = _stages(layer.layers)
            stages += [*inner, last._replace(adds=True)]
        elif type(layer) is LayerNorm:
            norm = layer.name
        elif type(layer) is Dropout:
            stages[-1] = stages[-1]._replace(rate=layer.rate, number=layer.index)
        else:
            stages.append(Stage(layer, norm))
            norm = None
    return stages


def time_table(time: str, alpha_bar: np.ndarray, count: int) -> np.ndarray:
    """Time features, (T + 1, count) float64.

    fourier : cosines of the signal alpha_bar, and of its log odds, which tell small t apart. They depend on the signal,
        not on T or on the schedule, so that one network serves every chain.
    bumps : Gaussian bumps over t / T that sum to 1.
    """
    T = len(alpha_bar) - 1
    if time == "bumps":
        u, centre = np.arange(T + 1)[:, None] / T, np.linspace(0, 1, count)
        g = np.exp(-0.5 * ((u - centre) * max(1, count - 1)) ** 2)
        return g / g.sum(1, keepdims=True)
    odds = log_odds(alpha_bar) / np.log(1000.0)  # of the order of 1 for chains of tens to thousands of steps
    k = np.arange(count // 2)
    return np.concatenate(
        [np.cos(np.pi * k * alpha_bar[:, None]), odds[:, None], np.cos(np.pi * k[1:] * odds[:, None])], 1
    )


def log_odds(alpha_bar: np.ndarray) -> np.ndarray:
    """Log odds that a fair coin seen at t still shows its first side, (T + 1,). Entry 0 is never asked for; it is that
    of half the noise of t = 1."""
    lost = 1 - alpha_bar
    lost[0] = lost[1] / 2
    return np.log((1 + alpha_bar) / lost)


NET = MLP
