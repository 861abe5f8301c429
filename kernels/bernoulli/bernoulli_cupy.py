"""The kernels of bernoulli.cu on CuPy: launches into arrays that are there, and `Kernels`, the family's kernels on this
back end."""

from __future__ import annotations

import sys

import numpy as np

from bdiff_np.kernels.bernoulli import bernoulli_device
from bdiff_np.kernels.bernoulli.bernoulli_device import DeviceKernels, Law
from bdiff_np.kernels.dense import arrays_cupy
from bdiff_np.kernels.shared.cuda_cupy import Module, struct
from bdiff_np.kernels.shared.cuda_grid import SIDE, blocks
from bdiff_np.kernels.shared.cuda_source import layout
from bdiff_np.rng import Key

i32, u64 = np.int32, np.uint64
LAW = {C: layout("bernoulli.cuh", "Law", C) for C in "fd"}  # by the dtype of the logits
MODULE = Module(
    "bernoulli.cu", *(f"{name}<256>" for name in ("prior", "unpack")),
    *(f"{name}<256, {{C}}>" for name in ("q_sample", "q_batch", "read", "kl_grad", "p_flip", "p_sample")),
)  # fmt: skip


def prior(law: Law, key: Key, first_row: int, x) -> None:
    """x (B, D) ~ B(pi)."""
    B, D = x.shape
    MODULE.launch(
        "prior<256>",
        law.C,
        _parts(B, D),
        law.noise[law.T + 1 :],
        i32(law.per_bit),
        *_address(key, first_row),
        x,
        i32(B),
        i32(D),
    )


def q_sample(law: Law, x0, t, key: Key, first_row: int, x_t) -> None:
    """x_t (B, D) from x0 (B, D) and t (B,)."""
    B, D = x0.shape
    arguments = argument(law, D), x0, t, *_address(key, first_row), x_t, i32(B)
    MODULE.launch("q_sample<256, {C}>", law.C, _parts(B, D), *arguments)


def q_batch(law: Law, data, index, rows: int, t, seed: int, stream: int, clock, x0, x_t) -> None:
    """x0 and x_t (B, D) of step clock[0]: rows index[clock[1] * rows + ...] of the data (data.bits.Resident), each B /
    rows times."""
    B, D = x0.shape
    arguments = argument(law, D), data.array, index, i32(rows), t, u64(seed), u64(stream), clock, x0, x_t, i32(B)
    MODULE.launch("q_batch<256, {C}>", law.C, _parts(B, D), *arguments)


def unpack(packed, index, x) -> None:
    """x (B, D) uint8: rows index (B,) int32 of packed rows (N, ceil(D / 8))."""
    B, D = x.shape
    MODULE.launch("unpack<256>", np.float32, _parts(B, D), packed, index, x, i32(B), i32(D))


def read_into(x_t, t, features, odds, x, f) -> None:
    """The network's input x (B, D or 2D), bits as -1 and +1, and weighted by odds[t] where odds (T + 1,) are given; f
    (B, F) = features[t]."""
    (B, D), W, F = x_t.shape, x.shape[1], f.shape[1]
    MODULE.launch(
        "read<256, {C}>", x.dtype, (blocks(B, SIDE),), x_t, t, odds, features, x, f, i32(B), i32(D), i32(W), i32(F)
    )


def kl_grad(law: Law, logits, bias, x0, x_t, t, logged, clock, kl, dlogits) -> None:
    """dlogits (B, D), which may be logits, of logits + bias; kl (B,) where logged[clock[1]] says so."""
    B, D = logits.shape
    arguments = argument(law, D), logits, bias, x0, x_t, t, logged, clock, kl, dlogits, i32(B)
    MODULE.launch("kl_grad<256, {C}>", law.C, (blocks(B, SIDE),), *arguments)


def p_flip(law: Law, logits, x_t, t, p) -> None:
    """p (B, D): probabilities of a flip."""
    B, D = logits.shape
    MODULE.launch("p_flip<256, {C}>", law.C, (blocks(B, SIDE),), argument(law, D), logits, x_t, t, p, i32(B))


def p_sample(law: Law, logits, bias, x_t, t, held, key: Key, first_row: int, x_s) -> None:
    """x_s (B, D), which may be x_t, of logits + bias. held : (B, D) uint8, 1 where a bit stays, or None"""
    B, D = x_t.shape
    arguments = argument(law, D), logits, bias, x_t, t, held, *_address(key, first_row), x_s, i32(B)
    MODULE.launch("p_sample<256, {C}>", law.C, _parts(B, D), *arguments)


def argument(law: Law, D: int) -> np.ndarray:
    """The law of rows of D bits as a kernel takes it by value; made once for each D."""
    if D not in law.structs:
        values = {"noise": law.noise, "table": law.table, "T": law.T, "D": D, "form": law.form, "bce": law.bce}
        law.structs[D] = struct(LAW[law.C.char], **values)
    return law.structs[D]


def _address(key: Key, first_row: int) -> tuple:
    return u64(key.seed), u64(key.stream), u64(key.step), u64(first_row)


def _parts(B: int, D: int) -> tuple[int]:
    """A grid with a thread for each sixteen bits of a row."""
    return (blocks(B * -(-D // 16)),)


class Kernels(DeviceKernels):
    """The kernels for one chain and one meaning of the network's output."""

    arrays, launch = arrays_cupy, sys.modules[__name__]
    take, walk_back = Module("bernoulli_step.cu", "take", cooperative=True), Module("bernoulli_chain.cu", "walk_back")

    def argument(self, D: int) -> np.ndarray:
        return argument(self.law, D)


def read(chain, x_t, t, features, weight=None):
    return bernoulli_device.read(arrays_cupy, read_into, x_t, t, features, weight)
