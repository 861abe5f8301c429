"""How a perceptron of dense layers lies in the shared memory of a block: what mlp.cuh reads. On the host, without a
GPU.

A matrix there has rows `pitch` numbers apart; see mlp.cuh for why.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.kernels.dense.dense_codes import CODES, IDENTITY
from bdiff_np.params import offsets

SUMS = 4 * 8 * 32  # bytes that sums over a block take beside the network (sums.cuh)


class Plan(NamedTuple):
    """A layout for so many rows.

    numbers : (n,) int32, mlp.cuh's Net and Layers. floats : what the network takes of shared memory. rows : that it has
        room for
    """

    numbers: np.ndarray
    floats: int
    rows: int


def fours(n: int) -> int:
    """n rounded up to a multiple of four."""
    return -(-n // 4) * 4


def pitch(n: int) -> int:
    """Numbers from one row of n to the next: a multiple of four whose fourth is odd."""
    return fours(n) if fours(n) % 8 else fours(n) + 4


def parameter_offsets(net) -> dict[str, int]:
    """Where each parameter begins in the flat buffer. Raises ValueError where a dense layer's bias does not follow its
    weights: one product brings both; or the shift of a LayerNorm its gain."""
    starts = offsets(net.shapes)
    for layer, norm, *_ in net.stages:
        n_in, n_out = layer.shapes[f"{layer.name}/W"]
        if norm and starts[f"{norm}/shift"] != starts[f"{norm}/gain"] + n_in:
            raise ValueError(f"{norm}: shift must follow gain in the parameters")
        if starts[f"{layer.name}/b"] != starts[f"{layer.name}/W"] + n_in * n_out:
            raise ValueError(f"{layer.name}: b must follow W in the parameters, one product brings both")
    return starts


def lay_out(net, rows: int, training: bool) -> Plan:
    """A network with `dense`, its layers (nets/mlp.py), for `rows` rows, a multiple of four; training : with all that
    backward needs.

    Raises ValueError as `parameter_offsets`.
    """
    used, places, F = 0, parameter_offsets(net), net.features.shape[1]

    def take(floats: int) -> int:
        nonlocal used
        used += fours(floats)
        return used - fours(floats)

    layers = []
    x = start = take(rows * pitch(net.dense[0].shapes[f"{net.dense[0].name}/W"][0] + 1))
    time = take(rows * pitch(F)) if training else 0
    for layer in net.dense:
        n_in, n_out = layer.shapes[f"{layer.name}/W"]
        W, last = places[f"{layer.name}/W"], layer is net.dense[-1]
        w = take(fours(n_in + 1) * pitch(n_out))
        f = take(2 * fours(F) * pitch(n_out)) if training and not last else 0
        y = 0 if last else take(rows * pitch(n_out + 1))
        u, g = (take(rows * pitch(n_out)) if training and not last else 0 for _ in range(2))
        s = take(rows * pitch(n_out)) if training or last else 0
        code = IDENTITY if last else CODES[layer.activation]
        layers.append((n_in, n_out, code, W, -1 if last else places[f"{layer.name}/F"], w, f, x, u, s, g))
        x = y
    bits = take(-(-2 * rows * -(-net.D // 8) // 4)) if training else 0
    P = sum(int(np.prod(shape)) for shape in net.shapes.values())
    head = (len(layers), net.D, layers[0][0], F, P, net.odds is not None, start, time, bits, used)
    return Plan(np.array([*head, *np.concatenate(layers)], np.int32), used, rows)


def largest(net, limit: int, candidates: tuple[int, ...], training: bool, extra: int = 0) -> Plan | None:
    """The layout for the most rows among the candidates, the largest first, that `limit` bytes hold beside `extra`;
    None if none fits."""
    for rows in candidates:
        plan = lay_out(net, rows, training)
        if 4 * plan.floats + extra <= limit:
            return plan
    return None
