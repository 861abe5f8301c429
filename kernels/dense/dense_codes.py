"""What kernels of dense layers are told in numbers: activations, and the rates of an AdamW step. Plain Python, for
every technology."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LAYER_NORM_EPS = 1e-5  # under the root of the variance, so that a constant row has a gradient
RELU, SILU, GELU, TANH, SIGMOID, IDENTITY = range(6)
CODES = {"relu": RELU, "silu": SILU, "gelu": GELU, "tanh": TANH, "sigmoid": SIGMOID}


def code(activation: str | None) -> int:
    """The number of an activation, or of none."""
    return IDENTITY if activation is None else CODES[activation]


class Rates(NamedTuple):
    """The numbers of one AdamW step, of the buffers' dtype."""

    scale: float  # of the gradient
    m: float  # 1 - beta1
    v: float  # 1 - beta2
    step: float  # lr / (1 - beta1**step)
    root: float  # 1 / sqrt(1 - beta2**step)
    eps: float
    decay: float  # lr * weight_decay
    ema: float  # 1 - ema_decay


def drop_threshold(rate: float) -> int:
    """The word below which a unit is dropped, which happens with probability `rate`: keep_mask compares with it."""
    return min(round(rate * 2**32), 2**32 - 1)


def rates(*, lr, scale, beta1, beta2, eps, weight_decay, ema_decay, step) -> Rates:
    """The Rates of a step, or of many if the arguments are arrays, from what the operation `adamw` is told."""
    return Rates(
        scale,
        1 - beta1,
        1 - beta2,
        lr / (1 - beta1**step),
        1 / (1 - beta2**step) ** 0.5,
        eps,
        lr * weight_decay,
        1 - ema_decay,
    )


def rates_table(count: int, numbers: dict) -> np.ndarray:
    """The Rates of so many steps, (count, 8) float32, from what the operation `adamw` is told of each."""
    return np.stack(np.broadcast_arrays(np.zeros(count), *rates(**numbers))[1:], axis=1).astype(np.float32)
