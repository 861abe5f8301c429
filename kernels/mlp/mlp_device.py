"""A perceptron of dense layers on a GPU, launch by launch, in arrays that are laid out once: nothing is allocated from
step to step.

Narrow nets multiply by our own kernels, so that a graph can hold the whole step; wide ones by cuBLAS, which CuPy keeps
out of graphs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bdiff_np.kernels.shared.cuda_grid import PIECES, Parts, make_parts, pieces
from bdiff_np.params import offsets

NARROW = 128  # width of all layers up to which the launches of a step take longer than its products


class Technology(NamedTuple):
    """What launches: modules arrays_*, dense_*, training_* and <family>_* of one technology."""

    arrays: Any
    dense: Any
    training: Any
    family: Any


def is_narrow(net) -> bool:
    """Whether no layer is wider than NARROW, the input included."""
    return max(net.D, net.width) <= NARROW


class Perceptron:
    """Arrays for B rows, and what fills them.

    net : nets/mlp.py, with `dense`. params : Params on the device. groups : parts of the batch that a narrow net's
        gradient is summed over;
    0 for a net that is only walked forward
    """

    def __init__(self, on: Technology, net, params, B: int, groups: int = 0):
        self.on, self.net, self.params, self.narrow = on, net, params, is_narrow(net)
        self.groups = groups if self.narrow else min(groups, 1)
        arrays, C, F = on.arrays, params.flat.dtype, net.features.shape[1]
        new = lambda *shape: arrays.empty(shape, C)  # noqa: E731
        widths = _widths(net)
        self.features, self.odds = arrays.asarray(net.features), None if net.odds is None else arrays.asarray(net.odds)
        self.x = [new(B, n_in) for n_in, _ in widths]
        self.z = [new(B, n_out) for _, n_out in widths]
        self.f = new(B, F)
        if groups:
            self.film, self.dy = [new(B, 2 * n_out) for _, n_out in widths[:-1]], [new(B, n_out) for _, n_out in widths]
            self.grads, self.places = arrays.empty(self.groups * params.flat.size, C), offsets(net.shapes)
            self.sums = [make_parts(arrays, B, n_out, C) for _, n_out in widths] if not self.narrow else []
            self.unused = arrays.empty(PIECES, C)  # squares that nobody asks for

    @staticmethod
    def floats(net, B: int, groups: int, P: int) -> int:
        """About what the arrays take, in numbers."""
        rows = sum(n_in + (4 if groups else 1) * n_out for n_in, n_out in _widths(net))
        return B * (rows + net.features.shape[1]) + (groups if is_narrow(net) else min(groups, 1)) * P

    @property
    def logits_bias(self):
        """(D,), which the last z lacks."""
        return self.params[f"{self.net.dense[-1].name}/b"]

    def forward(self, x_t, t) -> None:
        """All layers, for x_t (B, D) and t (B,) int64: the last z holds the logits, without their bias."""
        self.on.family.read_into(x_t, t, self.features, self.odds, self.x[0], self.f)
        for k, layer in enumerate(self.net.dense[:-1]):
            self._multiply(self.f, self.params[f"{layer.name}/F"], self.film[k])
        self._layers(self.film)

    def forward_at(self, x_t, t, features, odds, films) -> None:
        """The same for rows that are all at one t; films : (1, 2H) of each hidden layer. features, odds : by t, as
        x_t's chain has it"""
        self.on.family.read_into(x_t, t, features, odds, self.x[0], self.f)
        self._layers(films)

    def _layers(self, films) -> None:
        for k, layer in enumerate(self.net.dense):
            self._multiply(self.x[k], self.params[f"{layer.name}/W"], self.z[k])
            if k + 1 < len(self.x):
                self.on.dense.activate(
                    self.z[k], self.params[f"{layer.name}/b"], films[k], layer.activation, self.x[k + 1]
                )

    def backward(self) -> None:
        """From the logits' gradients in dy[-1] to the gradients of all parameters: `grads`, one for each group."""
        dense = self.on.dense
        for k in range(len(self.x) - 1, -1, -1):
            layer, dz = self.net.dense[k], self.dy[k]
            sums = self._part(f"{layer.name}/b") if self.narrow else self.sums[k]
            if k + 1 == len(self.x):
                dense.column_sums(dz, sums)
            else:
                film, bias = self.film[k], self.params[f"{layer.name}/b"]
                dense.activate_backward(dz, self.z[k], bias, film, layer.activation, dz, film, sums)
                self._multiply_left(self.f, film, f"{layer.name}/F")
            if not self.narrow:
                dense.sum_parts(sums, self._part(f"{layer.name}/b").flat, self.unused[: pieces(sums.stride)])
            self._multiply_left(self.x[k], dz, f"{layer.name}/W")
            if k:
                self._multiply_right(dz, self.params[f"{layer.name}/W"], self.dy[k - 1])

    def _part(self, name: str) -> Parts:
        """Where a parameter's gradient goes, of each group."""
        return Parts(self.grads[self.places[name] :], self.groups, self.params.flat.size)

    def _multiply(self, a, b, c) -> None:
        self.on.dense.multiply(a, b, c) if self.narrow else self.on.arrays.matmul(a, b, c)

    def _multiply_right(self, a, b, c) -> None:
        self.on.dense.multiply_right(a, b, c) if self.narrow else self.on.arrays.matmul(a, b, c, right=True)

    def _multiply_left(self, a, b, name: str) -> None:
        if self.narrow:
            self.on.dense.multiply_left(a, b, self._part(name))
            return
        shape, start = self.net.shapes[name], self.places[name]
        self.on.arrays.matmul(a, b, self.grads[start : start + int(np.prod(shape))].reshape(shape), left=True)


def _widths(net) -> list[tuple[int, int]]:
    return [layer.shapes[f"{layer.name}/W"] for layer in net.dense]
