"""The kernels of training.cu in Numba-CUDA. Launches have the names and arguments of training_cupy.py."""

from __future__ import annotations

import numpy as np
from numba import cuda

from bdiff_np.kernels.dense.dense_numba_cuda import random_block
from bdiff_np.kernels.shared import philox_numba as philox
from bdiff_np.kernels.shared.cuda_grid import THREADS, blocks

u64 = np.uint64


@cuda.jit
def _shuffle_words(seed, stream, first, words):
    passes, n = words.shape
    twos = (n + 1) // 2
    i = cuda.grid(1)
    if i < passes * twos:
        p, j = i // twos, i % twos
        block = random_block(seed, stream, first + u64(p), u64(j))
        words[p, 2 * j] = block[1] << u64(32) | block[0]
        if 2 * j + 1 < n:
            words[p, 2 * j + 1] = block[3] << u64(32) | block[2]


@cuda.jit
def _draw_t(seed, stream, clock, T, t):
    i = cuda.grid(1)
    if i < t.size:
        t[i] = philox.stratified_t(philox.word(random_block(seed, stream, clock[0], u64(0)), 0), i, t.size, T)


@cuda.jit
def _finish(kl, logged, clock, losses):
    room = cuda.shared.array(THREADS, kl.dtype)
    now = clock[1]
    own = kl.dtype.type(0)
    if logged[now]:
        for r in range(cuda.threadIdx.x, kl.size, THREADS):
            own += kl[r]
    room[cuda.threadIdx.x] = own
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for k in range(1, THREADS):
            room[0] += room[k]
        if logged[now]:
            losses[now] = room[0] / kl.dtype.type(kl.size)
        clock[0] += u64(1)
        clock[1] += u64(1)


def shuffle_words(seed: int, stream: int, first: int, words) -> None:
    passes, n = words.shape
    _shuffle_words[blocks(passes * -(-n // 2)), THREADS](u64(seed), u64(stream), u64(first), words)


def draw_t(seed: int, stream: int, clock, T: int, t) -> None:
    _draw_t[blocks(len(t)), THREADS](u64(seed), u64(stream), clock, T, t)


def finish(kl, logged, clock, losses) -> None:
    _finish[1, THREADS](kl, logged, clock, losses)
