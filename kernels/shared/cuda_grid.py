"""How work is cut into blocks and parts, the same for CUDA C and Numba-CUDA: from sizes alone, with a tail."""

from __future__ import annotations

from typing import Any, NamedTuple

THREADS, WARP = 256, 32  # of a block, in every kernel
SIDE = THREADS // WARP  # rows that a block takes at once where its warps lie side by side (sums.cuh)
MOST_BLOCKS = 65535  # in the second and third direction of a grid
PIECES = 1024  # of a flat buffer, at most, whose sums of squares are added up in order
TILE = 64  # rows and columns of a matrix product that a block takes (gemm.cu)


class Parts(NamedTuple):
    """Where the sums over each part of a batch's rows go: those of part k begin at flat[k * stride]."""

    flat: Any
    parts: int
    stride: int


def blocks(n: int, each: int = THREADS) -> int:
    """How many blocks take n things, `each` to a block; one at least, since a grid is never empty."""
    return max(1, -(-n // each))


def parts(B: int) -> int:
    """Into how many parts the rows of a batch are cut whose sums over rows are wanted: 16 rows or more each."""
    return max(1, min(256, B // 16))


def pieces(n: int) -> int:
    """Pieces of a flat buffer of n numbers."""
    return max(1, min(PIECES, -(-n // WARP)))


def make_parts(arrays, B: int, H: int, dtype) -> Parts:
    """Parts for sums of H columns over B rows. arrays : arrays_*.py"""
    return Parts(arrays.empty(parts(B) * H, dtype), parts(B), H)
