"""The kernels of training.cu on CuPy, each into arrays that are there; and the structs of training.cuh."""

from __future__ import annotations

import numpy as np

from bdiff_np.kernels.shared.cuda_cupy import Module
from bdiff_np.kernels.shared.cuda_grid import blocks
from bdiff_np.kernels.shared.cuda_source import layout

i32, u64 = np.int32, np.uint64
STEPS, WALK = layout("training.cuh", "Steps"), layout("training.cuh", "Walk")
MODULE = Module("training.cu", "shuffle_words<256>", "draw_t<256>", "finish<256, {C}>")


def shuffle_words(seed: int, stream: int, first: int, words) -> None:
    """words (passes, n) uint64, in whose order passes first, first + 1, ... show the rows."""
    passes, n = words.shape
    arguments = u64(seed), u64(stream), u64(first), words, i32(passes), i32(n)
    MODULE.launch("shuffle_words<256>", np.float32, (blocks(passes * -(-n // 2)),), *arguments)


def draw_t(seed: int, stream: int, clock, T: int, t) -> None:
    """t (B,) int64 of step clock[0], spread over 1..T."""
    MODULE.launch("draw_t<256>", np.float32, (blocks(len(t)),), u64(seed), u64(stream), clock, t, i32(len(t)), i32(T))


def finish(kl, logged, clock, losses) -> None:
    """losses[clock[1]] = the mean of kl (B,) where it is logged; then the clock goes on."""
    MODULE.launch("finish<256, {C}>", kl.dtype, (1,), kl, logged, clock, losses, i32(len(kl)))
