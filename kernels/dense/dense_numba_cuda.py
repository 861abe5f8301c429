"""What happens between matrix products, and narrow products themselves: the kernels of dense.cu, dropout.cu and gemm.cu
in Numba-CUDA.

Functions have the names and arguments of dense_cupy.py; activations and AdamW are the device functions of
dense_numba.py, which the CPU runs too. A block is 32 x SIDE threads; sums over rows go through shared memory in a fixed
order, without shuffles, which Numba's simulator lacks.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from bdiff_np.kernels.dense import dense_numba as dense
from bdiff_np.kernels.dense.dense_codes import IDENTITY, code
from bdiff_np.kernels.shared import philox_numba as philox
from bdiff_np.kernels.shared.cuda_grid import MOST_BLOCKS, SIDE, THREADS, WARP, Parts, blocks

i32, i64, u32, u64 = np.int32, np.int64, np.uint32, np.uint64
# rows and columns of a tile of a product, a thread for each number; and of its shared memory, so that columns meet all
# banks
SQUARE, PADDED = 16, 17


@cuda.jit(device=True)
def _rows(B, k, n):
    """First and last row of part k of n."""
    return i64(B) * i64(k) // i64(n), i64(B) * (i64(k) + 1) // i64(n)


@cuda.jit(device=True)
def random_block(seed, stream, step, i):
    """philox.block; the simulator takes what compiled functions give for signed numbers, unless it is told."""
    words = philox.block(seed, stream, step, i)
    return u64(words[0]), u64(words[1]), u64(words[2]), u64(words[3])


@cuda.jit(device=True)
def draw_below(address, row, d, D, byte, threshold):
    """Whether the word of element d of a row of D, whose top byte is `byte`, lies below a threshold of 0 to 2**32.
    address : seed, stream, step"""
    top = u64(threshold) >> u64(24)
    if u64(byte) != top:
        return u64(byte) < top
    return u64(philox.tied(address[0], address[1], address[2], row, d, D, byte)) < u64(threshold)


@cuda.jit(device=True)
def _add_rows(room):
    """Sums shared memory (SIDE, WARP) over its rows, in order, into its first."""
    cuda.syncthreads()
    if cuda.threadIdx.x < WARP:
        for side in range(1, SIDE):
            room[0, cuda.threadIdx.x] += room[side, cuda.threadIdx.x]
    cuda.syncthreads()


@cuda.jit
def _activate(z, bias, film, filmed, code, y):
    H = z.shape[1]
    j = cuda.blockIdx.x * WARP + cuda.threadIdx.x % WARP
    zero, one, c1, c3 = z.dtype.type(0), z.dtype.type(1), z.dtype.type(dense.GELU_1), z.dtype.type(dense.GELU_3)
    lo, hi = _rows(z.shape[0], cuda.blockIdx.y, cuda.gridDim.y)
    if j < H:
        for r in range(lo + cuda.threadIdx.x // WARP, hi, SIDE):
            u, scale, shift = z[r, j] + bias[j], zero, zero
            if filmed:
                at = r if film.shape[0] > 1 else 0
                scale, shift = film[at, j], film[at, H + j]
            v = u * (one + scale) + shift
            y[r, j] = dense.act_of(code, v, one, c1, c3)[0] if code != IDENTITY else v


@cuda.jit
def _activate_backward(dy, z, bias, film, filmed, code, dz, dfilm, sums, stride):
    room = cuda.shared.array((SIDE, WARP), z.dtype)
    H = z.shape[1]
    j = cuda.blockIdx.x * WARP + cuda.threadIdx.x % WARP
    zero, one, c1, c3 = z.dtype.type(0), z.dtype.type(1), z.dtype.type(dense.GELU_1), z.dtype.type(dense.GELU_3)
    lo, hi = _rows(z.shape[0], cuda.blockIdx.y, cuda.gridDim.y)
    own = zero
    if j < H:
        for r in range(lo + cuda.threadIdx.x // WARP, hi, SIDE):
            u, scale, shift, dv = z[r, j] + bias[j], zero, zero, dy[r, j]
            if filmed:
                scale, shift = film[r, j], film[r, H + j]
            if code != IDENTITY:
                dv *= dense.act_of(code, u * (one + scale) + shift, one, c1, c3)[1]
            grad = dv * (one + scale)
            dz[r, j] = grad
            own += grad
            if filmed:
                dfilm[r, j] = dv * u
                dfilm[r, H + j] = dv
    room[cuda.threadIdx.x // WARP, cuda.threadIdx.x % WARP] = own
    _add_rows(room)
    if cuda.threadIdx.x < WARP and j < H:
        sums[cuda.blockIdx.y * stride + j] = room[0, cuda.threadIdx.x]


@cuda.jit
def _column_sums(x, sums, stride):
    room = cuda.shared.array((SIDE, WARP), x.dtype)
    j = cuda.blockIdx.x * WARP + cuda.threadIdx.x % WARP
    lo, hi = _rows(x.shape[0], cuda.blockIdx.y, cuda.gridDim.y)
    own = x.dtype.type(0)
    if j < x.shape[1]:
        for r in range(lo + cuda.threadIdx.x // WARP, hi, SIDE):
            own += x[r, j]
    room[cuda.threadIdx.x // WARP, cuda.threadIdx.x % WARP] = own
    _add_rows(room)
    if cuda.threadIdx.x < WARP and j < x.shape[1]:
        sums[cuda.blockIdx.y * stride + j] = room[0, cuda.threadIdx.x]


@cuda.jit
def _sum_parts(sums, stride, parts, total, wanted, squares, n):
    room = cuda.shared.array((SIDE, WARP), sums.dtype)
    lane, side, pieces = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, i64(cuda.gridDim.x)
    warps = (i64(n) + WARP - 1) // WARP
    each = (warps + pieces - 1) // pieces * WARP
    first, stop = min(i64(n), cuda.blockIdx.x * each), min(i64(n), (cuda.blockIdx.x + 1) * each)
    square = sums.dtype.type(0)
    for start in range(first, stop, WARP):
        i, own = start + lane, sums.dtype.type(0)
        if i < stop:
            for k in range(side, parts, SIDE):
                own += sums[k * stride + i]
        room[side, lane] = own
        _add_rows(room)
        if side == 0 and i < stop:
            if wanted:
                total[i] = room[0, lane]
            square += room[0, lane] * room[0, lane]
        cuda.syncthreads()
    room[side, lane] = square if side == 0 else sums.dtype.type(0)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for k in range(1, WARP):
            room[0, 0] += room[0, k]
        squares[cuda.blockIdx.x] = room[0, 0]


@cuda.jit
def _norm(squares, norms, clock, halted):
    room = cuda.shared.array(THREADS, squares.dtype)
    own = squares.dtype.type(0)
    for k in range(cuda.threadIdx.x, squares.size, THREADS):
        own += squares[k]
    room[cuda.threadIdx.x] = own
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for k in range(1, THREADS):
            room[0] += room[k]
        length = squares.dtype.type(math.sqrt(room[0]))
        if not math.isfinite(length):
            halted[0] = 1
        norms[clock[1]] = squares.dtype.type(np.nan) if halted[0] else length


@cuda.jit
def _adamw(params, grads, m, v, ema, decayed, norms, rates, most, clock):
    one = params.dtype.type(1)
    row = rates[clock[1]]
    norm = norms[clock[1]] * row[0]
    if math.isfinite(norm):
        scale = row[0] * (one if norm <= most else most / norm)
        rates_now = scale, row[1], row[2], row[3], row[4], row[5], row[6], row[7]
        for i in range(cuda.grid(1), params.size, cuda.gridsize(1)):
            now = dense.adamw_of(
                params[i], grads[i], m[i], v[i], ema[i], rates_now, row[6] if decayed[i] else one - one, one
            )
            params[i], m[i], v[i], ema[i] = now


@cuda.jit
def _layer_norm(x, gain, shift, eps, y, moments):
    room = cuda.shared.array((SIDE, WARP), x.dtype)
    lane, side, H = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, x.shape[1]
    r, size = cuda.blockIdx.x * SIDE + side, x.dtype.type(x.shape[1])
    mean = _row_sum(room, x, r, x.dtype.type(0), False) / size
    rstd = x.dtype.type(1) / x.dtype.type(math.sqrt(_row_sum(room, x, r, mean, True) / size + eps))
    if r < x.shape[0]:
        for j in range(lane, H, WARP):
            y[r, j] = (x[r, j] - mean) * rstd * gain[j] + shift[j]
        if lane == 0:
            moments[r, 0], moments[r, 1] = mean, rstd


@cuda.jit(device=True)
def _row_sum(room, x, r, mean, squared):
    """Sum over row r of x - mean, or of its square; every lane of the row's warp gets it."""
    lane, side = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
    own = x.dtype.type(0)
    if r < x.shape[0]:
        for j in range(lane, x.shape[1], WARP):
            off = x[r, j] - mean
            own += off * off if squared else off
    return lane_sum(room, lane, side, own)


@cuda.jit(device=True)
def lane_sum(room, lane, side, own):
    """Sum over the lanes of a row of threads, in order."""
    room[side, lane] = own
    cuda.syncthreads()
    if lane == 0:
        for k in range(1, WARP):
            room[side, 0] += room[side, k]
    cuda.syncthreads()
    total = room[side, 0]
    cuda.syncthreads()
    return total


@cuda.jit
def _layer_norm_backward(dy, x, gain, moments, dx):
    room = cuda.shared.array((SIDE, WARP), x.dtype)
    lane, side, H, size = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, x.shape[1], x.dtype.type(x.shape[1])
    r = cuda.blockIdx.x * SIDE + side
    there = r < x.shape[0]
    mean, rstd = (moments[r, 0], moments[r, 1]) if there else (x.dtype.type(0), x.dtype.type(0))
    total, along = x.dtype.type(0), x.dtype.type(0)
    if there:
        for j in range(lane, H, WARP):
            total += dy[r, j] * gain[j]
            along += dy[r, j] * gain[j] * ((x[r, j] - mean) * rstd)
    total = lane_sum(room, lane, side, total) / size
    along = lane_sum(room, lane, side, along) / size
    if there:
        for j in range(lane, H, WARP):
            dx[r, j] = rstd * (dy[r, j] * gain[j] - total - (x[r, j] - mean) * rstd * along)


@cuda.jit
def _layer_norm_sums(dy, x, moments, sums, stride):
    gains = cuda.shared.array((SIDE, WARP), x.dtype)
    shifts = cuda.shared.array((SIDE, WARP), x.dtype)
    lane, side, H = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, x.shape[1]
    j = cuda.blockIdx.x * WARP + lane
    lo, hi = _rows(x.shape[0], cuda.blockIdx.y, cuda.gridDim.y)
    dgain, dshift = x.dtype.type(0), x.dtype.type(0)
    if j < H:
        for r in range(lo + side, hi, SIDE):
            dgain += dy[r, j] * (x[r, j] - moments[r, 0]) * moments[r, 1]
            dshift += dy[r, j]
    gains[side, lane] = dgain
    shifts[side, lane] = dshift
    _add_rows(gains)
    _add_rows(shifts)
    if side == 0 and j < H:
        sums[cuda.blockIdx.y * stride + j] = gains[0, lane]
        sums[cuda.blockIdx.y * stride + H + j] = shifts[0, lane]


@cuda.jit
def _keep_mask(seed, stream, step, threshold, kept, mask):
    B, H = mask.shape
    parts, address = (H + 15) // 16, (seed, stream, step)
    i = cuda.grid(1)
    if i < B * parts:
        r, j = i // parts, i % parts
        block = random_block(seed, stream, step, u64(i))
        for k in range(min(16, H - 16 * j)):
            drops = draw_below(address, r, 16 * j + k, H, philox.byte(block, k), threshold)
            mask[r, 16 * j + k] = mask.dtype.type(0) if drops else kept


@cuda.jit
def _fill(array, value):
    for i in range(cuda.grid(1), array.size, cuda.gridsize(1)):
        array[i] = value


@cuda.jit
def _multiply(a, b, c, stride, pitch, sizes, transposed):
    """c (M, N) = op(a) op(b) over a part of the sum, SQUARE x SQUARE numbers a block, a thread for each."""
    left = cuda.shared.array((SQUARE, PADDED), a.dtype)
    right = cuda.shared.array((SQUARE, PADDED), a.dtype)
    (M, N, K), (a_transposed, b_transposed) = sizes, transposed
    x, y = cuda.threadIdx.x % SQUARE, cuda.threadIdx.x // SQUARE
    i, j = cuda.blockIdx.x * SQUARE, cuda.blockIdx.y * SQUARE
    lo, hi = _rows(K, cuda.blockIdx.z, cuda.gridDim.z)
    zero = a.dtype.type(0)
    acc = zero
    for k in range(lo, hi, SQUARE):
        # Threads of a warp run along what is contiguous in memory.
        if a_transposed:
            left[x, y] = a[(k + y) * M + i + x] if i + x < M and k + y < hi else zero
        else:
            left[y, x] = a[(i + y) * K + k + x] if i + y < M and k + x < hi else zero
        if b_transposed:
            right[x, y] = b[(j + y) * K + k + x] if j + y < N and k + x < hi else zero
        else:
            right[y, x] = b[(k + y) * N + j + x] if j + x < N and k + y < hi else zero
        cuda.syncthreads()
        for s in range(SQUARE):
            acc += left[y, s] * right[s, x]
        cuda.syncthreads()
    if i + y < M and j + x < N:
        c[cuda.blockIdx.z * stride + (i + y) * pitch + j + x] = acc


# Launches
# ----------------------------------------------------------------------------------------------------------------------


def activate(z, bias, film, activation: str | None, y) -> None:
    filmed = film is not None
    _activate[_grid(len(z), z.shape[1], blocks(len(z), SIDE)), THREADS](
        z, bias, film if filmed else z, filmed, code(activation), y
    )


def activate_backward(dy, z, bias, film, activation: str | None, dz, dfilm, sums: Parts) -> None:
    filmed = film is not None
    films = (film, dfilm) if filmed else (z, dz)
    grid = _grid(len(z), z.shape[1], sums.parts)
    _activate_backward[grid, THREADS](
        dy, z, bias, films[0], filmed, code(activation), dz, films[1], sums.flat, sums.stride
    )


def column_sums(x, sums: Parts) -> None:
    _column_sums[_grid(len(x), x.shape[1], sums.parts), THREADS](x, sums.flat, sums.stride)


def sum_parts(sums: Parts, total, squares) -> None:
    wanted = total is not None
    _sum_parts[len(squares), THREADS](
        sums.flat, sums.stride, sums.parts, total if wanted else squares, wanted, squares, sums.stride
    )


def norm(squares, norms, clock, halted) -> None:
    _norm[1, THREADS](squares, norms, clock, halted)


def adamw(params, grads, m, v, ema, decayed, norms, rates, clip: float, clock) -> None:
    _adamw[min(4096, blocks(params.size)), THREADS](
        params, grads, m, v, ema, decayed, norms, rates, params.dtype.type(clip), clock
    )


def layer_norm(x, gain, shift, eps: float, y, moments) -> None:
    _layer_norm[blocks(len(x), SIDE), THREADS](x, gain, shift, x.dtype.type(eps), y, moments)


def layer_norm_backward(dy, x, gain, moments, dx, sums: Parts) -> None:
    _layer_norm_backward[blocks(len(x), SIDE), THREADS](dy, x, gain, moments, dx)
    _layer_norm_sums[(blocks(x.shape[1], WARP), sums.parts), THREADS](dy, x, moments, sums.flat, sums.stride)


def keep_mask(key, threshold: int, kept: float, mask) -> None:
    B, H = mask.shape
    address = u64(key.seed), u64(key.stream), u64(key.step)
    _keep_mask[blocks(B * -(-H // 16)), THREADS](*address, u64(threshold), mask.dtype.type(kept), mask)


def fill(array, value) -> None:
    """A flat array of one value."""
    _fill[min(4096, blocks(array.size)), THREADS](array, array.dtype.type(value))


def multiply(a, b, c) -> None:
    _launch_multiply(a, b, Parts(c, 1, 0), (a.shape[0], b.shape[1], a.shape[1]), (False, False))


def multiply_right(a, b, c) -> None:
    _launch_multiply(a, b, Parts(c, 1, 0), (a.shape[0], b.shape[0], a.shape[1]), (False, True))


def multiply_left(a, b, sums: Parts) -> None:
    _launch_multiply(a, b, sums, (a.shape[1], b.shape[1], a.shape[0]), (True, False))


def _launch_multiply(a, b, c: Parts, sizes: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    grid = blocks(sizes[0], SQUARE), blocks(sizes[1], SQUARE), c.parts
    flat = [array.reshape(-1) if array.ndim > 1 else array for array in (a, b, c.flat)]
    _multiply[grid, SQUARE * SQUARE](*flat, c.stride, sizes[1], sizes, transposed)


def _grid(B: int, H: int, rows: int) -> tuple[int, int]:
    return blocks(H, WARP), min(MOST_BLOCKS, rows)
