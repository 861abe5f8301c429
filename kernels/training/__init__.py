"""Many training steps, or many steps of the sampler, in one compiled call, for any family that fills in what is its own
(hooks_numba.py, hooks_device.py).

fused_step_<back end>.py, fused_chain_<back end>.py and fused_kl_<back end>.py each have

    build(...) -> FusedStep, FusedChain or FusedKL, or None where they cannot take the network or the family

and are found by these names alone; a back end without them goes step by step, in the lines of train.py, sample.py and
evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class FusedStep(Protocol):
    """Of build(model, kernels, optimizer, *, rows, batch, seed): what train.Training asks of it.

    function : what takes long to compile, "file.function" as compiled.is_compiled has it, or None
    empty : of numpy.empty's arguments, makes the arrays that `orders` fills
    """

    function: str | None
    empty: Callable[..., Any]

    def __call__(self, index, first: int, numbers: dict, logged: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Takes steps first, first + 1, ... on the optimiser's buffers, in place; none for an empty index.

        index : (steps, b) rows of the data. numbers : optim's numbers of each step. logged : (steps,) bool, whether a
        step's loss is wanted. Returns how many were taken, fewer where a gradient is not finite; their mean KL in nats,
        (steps,), where wanted; the lengths of their gradients, (steps,).
        """

    def orders(self, first: int, passes: int, N: int) -> Any:
        """rng.permutations of N rows for so many passes over the data, (passes, N)."""


class FusedChain(Protocol):
    """Of build(model, kernels, rows): what sample.draw asks of it. function : as FusedStep's"""

    function: str | None

    def __call__(self, x, first: int, steps: int, *, seed: int, first_row: int = 0, known=None) -> None:
        """Takes x (B, D), in place, from x_first to x_{first - steps}. known : (B, D) bool, elements that stay"""


class FusedKL(Protocol):
    """Of build(model, kernels, rows): what evaluate asks of it. function : as FusedStep's"""

    function: str | None

    def __call__(self, x0, t, key, first_row: int = 0, each: bool = False) -> Any:
        """KL in nats of one x_t of each row x0 (B, D) at t (B,), (B,) on the back end, with the noise of rows
        first_row, first_row + 1, ... of the key. each : of every row at each of t (m,), (m * B,), with noise that all
        rows share, that of row first_row of the key for the first t, and so on"""
