"""The kernels of dense.cu, dropout.cu and gemm.cu on CuPy's arrays: each writes into arrays that it is given.

All arrays are contiguous, of one dtype, on the device. B rows of H units. Formulas: derivation, section 12.
"""

from __future__ import annotations

import numpy as np

from bdiff_np.kernels.dense.dense_codes import code
from bdiff_np.kernels.shared.cuda_cupy import Module
from bdiff_np.kernels.shared.cuda_grid import MOST_BLOCKS, SIDE, TILE, WARP, Parts, blocks

i32, u32, u64 = np.int32, np.uint32, np.uint64

_dense = Module(
    "dense.cu", "activate<{C}, 1>", "activate<{C}, 4>", "activate_backward<{C}, 1>", "activate_backward<{C}, 4>",
    "column_sums<{C}, 1>", "column_sums<{C}, 4>", "sum_parts<{C}>", "norm<{C}>", "adamw<{C}>", "layer_norm<{C}>",
    "layer_norm_backward<{C}>", "layer_norm_sums<{C}>",
)  # fmt: skip
_dropout = Module("dropout.cu", "keep_mask<256, {C}>")
_gemm = Module("gemm.cu", "multiply<false, false, {C}>", "multiply<true, false, {C}>", "multiply<false, true, {C}>")


def activate(z, bias, film, activation: str | None, y) -> None:
    """y = act((z + bias) * (1 + scale) + shift). film : (B, 2H), or (1, 2H) for all rows alike, or None. y may be z"""
    B, H = z.shape
    shared = film is not None and film.shape[0] == 1 < B
    arguments = z, bias, film, i32(shared), i32(code(activation)), y, i32(B), i32(H)
    _dense.launch(f"activate<{{C}}, {_wide(H)}>", z.dtype, _grid(B, H, blocks(B, SIDE)), *arguments)


def activate_backward(dy, z, bias, film, activation: str | None, dz, dfilm, sums: Parts) -> None:
    """dz (B, H), which may be dy, and dfilm (B, 2H), which may be film, from dy; sums of dz over the rows of each
    part."""
    B, H = z.shape
    arguments = dy, z, bias, film, i32(code(activation)), dz, dfilm, sums.flat, u64(sums.stride), i32(B), i32(H)
    _dense.launch(f"activate_backward<{{C}}, {_wide(H)}>", z.dtype, _grid(B, H, sums.parts), *arguments)


def column_sums(x, sums: Parts) -> None:
    """Sums of x (B, H) over the rows of each part."""
    B, H = x.shape
    _dense.launch(
        f"column_sums<{{C}}, {_wide(H)}>",
        x.dtype,
        _grid(B, H, sums.parts),
        x,
        sums.flat,
        u64(sums.stride),
        i32(B),
        i32(H),
    )


def sum_parts(sums: Parts, total, squares) -> None:
    """total (n,) = the sum over the parts, or nothing if None, for n = sums.stride; squares (pieces(n),): of the pieces
    of it."""
    arguments = sums.flat, u64(sums.stride), i32(sums.parts), total, squares, u64(sums.stride)
    _dense.launch("sum_parts<{C}>", sums.flat.dtype, (len(squares),), *arguments)


def norm(squares, norms, clock, halted) -> None:
    """norms[clock[1]] = the length of a gradient with these squares of pieces; nan from the first on that is not
    finite, which halted remembers."""
    _dense.launch("norm<{C}>", squares.dtype, (1,), squares, i32(len(squares)), norms, clock, halted)


def adamw(params, grads, m, v, ema, decayed, norms, rates, clip: float, clock) -> None:
    """One AdamW step on flat buffers, unless norms[clock[1]] is not finite. rates : (steps, 8), dense_codes.Rates.
    decayed : uint8"""
    n, most = params.size, params.dtype.type(clip)
    grid = (min(4096, blocks(n)),)
    _dense.launch(
        "adamw<{C}>", params.dtype, grid, params, grads, m, v, ema, decayed, norms, rates, most, clock, u64(n)
    )


def layer_norm(x, gain, shift, eps: float, y, moments) -> None:
    """y = gain * unit + shift, unit the rows of x at mean 0 and variance 1; moments (B, 2)."""
    B, H = x.shape
    _dense.launch(
        "layer_norm<{C}>", x.dtype, (blocks(B, SIDE),), x, gain, shift, x.dtype.type(eps), y, moments, i32(B), i32(H)
    )


def layer_norm_backward(dy, x, gain, moments, dx, sums: Parts) -> None:
    """dx (B, H); sums of 2H columns: gradients of gain, then of shift, of each part's rows."""
    B, H = x.shape
    _dense.launch("layer_norm_backward<{C}>", x.dtype, (blocks(B, SIDE),), dy, x, gain, moments, dx, i32(B), i32(H))
    grid = (blocks(H, WARP), sums.parts)
    _dense.launch("layer_norm_sums<{C}>", x.dtype, grid, dy, x, moments, sums.flat, u64(sums.stride), i32(B), i32(H))


def keep_mask(key, threshold: int, kept: float, mask) -> None:
    """mask (B, H): 0 where a word of the key lies below the threshold, else `kept`."""
    B, H = mask.shape
    arguments = (
        u64(key.seed),
        u64(key.stream),
        u64(key.step),
        u32(threshold),
        mask.dtype.type(kept),
        mask,
        i32(B),
        i32(H),
    )
    _dropout.launch("keep_mask<256, {C}>", mask.dtype, (blocks(B * -(-H // 16)),), *arguments)


def multiply(a, b, c) -> None:
    """c (M, N) = a (M, K) @ b (K, N), by our own kernel, which a graph may hold."""
    _multiply("multiply<false, false, {C}>", a, b, Parts(c, 1, 0), (a.shape[0], b.shape[1], a.shape[1]))


def multiply_right(a, b, c) -> None:
    """c (M, N) = a (M, K) @ b.T, b (N, K)."""
    _multiply("multiply<false, true, {C}>", a, b, Parts(c, 1, 0), (a.shape[0], b.shape[0], a.shape[1]))


def multiply_left(a, b, sums: Parts) -> None:
    """a.T @ b, a (K, M), b (K, N), over the rows of each part."""
    _multiply("multiply<true, false, {C}>", a, b, sums, (a.shape[1], b.shape[1], a.shape[0]))


def _multiply(kernel: str, a, b, c: Parts, sizes: tuple[int, int, int]) -> None:
    M, N, K = map(i32, sizes)
    _gemm.launch(kernel, a.dtype, (blocks(M, TILE), blocks(N, TILE), c.parts), a, b, c.flat, u64(c.stride), N, M, N, K)


def _wide(H: int) -> int:
    """Units that a thread takes together: four where rows begin on multiples of four."""
    return 4 if H % 4 == 0 else 1


def _grid(B: int, H: int, rows: int) -> tuple[int, int]:
    return blocks(H, WARP * _wide(H)), min(MOST_BLOCKS, rows)
