"""The random words of bdiff_np/rng.py in compiled code: Philox4x32-10 (Salmon et al. 2011)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np import rng
from bdiff_np.kernels.shared.compiled_numba import njit

u64 = np.uint64
M0, M1, W0, W1, MASK, TIE = map(u64, (rng.M0, rng.M1, rng.W0, rng.W1, rng.MASK, rng.TIE))
HALF, BYTE = u64(32), u64(8)
LANES = 8  # blocks in a vector


class Noise(NamedTuple):
    """The noise of B rows: their words, drawn, and the address that further words of theirs are drawn from."""

    words: np.ndarray  # (B, 4 blocks) uint32
    row: np.ndarray  # (B,) int64, the rows' numbers
    seed: u64
    stream: u64
    step: u64


@njit(inline="always")
def block(seed, stream, step, i):
    """Block number i of a key: four words of 32 bits, each a uint64."""
    c0, c1, c2, c3 = u64(i) & MASK, u64(i) >> HALF, u64(step), u64(stream)
    k0, k1 = u64(seed) & MASK, u64(seed) >> HALF
    for _ in range(rng.ROUNDS):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@njit
def word(words, k):
    """Word number k of a block."""
    return np.uint32(words[0] if k == 0 else words[1] if k == 1 else words[2] if k == 2 else words[3])


@njit
def byte(words, k):
    """Byte number k of a block, the lowest of a word first."""
    return np.uint8(u64(word(words, k // 4)) >> (BYTE * u64(k % 4)))


@njit
def tied(seed, stream, step, row, d, D, byte):
    """The word of element d of a row of D, rng.draws, whose top byte is known: uint64."""
    fours = u64((D + 3) // 4)
    low = word(block(seed, u64(stream) | TIE, step, u64(row) * fours + u64(d // 4)), d % 4)
    return (u64(byte) << u64(24)) | (u64(low) >> BYTE)


@njit
def tied_draw(noise, r, d, D, byte):
    """`tied` for row r of a batch."""
    return tied(noise.seed, noise.stream, noise.step, noise.row[r], d, D, byte)


@njit(error_model="numpy")
def stratified_t(word, row, rows, T):
    """The step of a row of a batch, spread over 1..T by one random word: rng.stratified_t."""
    offset = (u64(word) * u64(T)) >> u64(32)
    return np.int64(u64(1) + (u64(row) * u64(T) + offset) // u64(rows))


def noise(key: rng.Key, rows: int, blocks: int, first_row: int = 0) -> Noise:
    """The noise of rows first_row, first_row + 1, ... of a key, so many blocks each."""
    words, row = np.empty((rows, 4 * blocks), np.uint32), np.empty(rows, np.int64)
    address = u64(key.seed), u64(key.stream), u64(key.step)
    fill_rows(*address, first_row, words, row)
    return Noise(words, row, *address)


@njit
def fill(seed, stream, step, first, out):
    """Blocks first, first + 1, ... of a key into `out`, (n, 4) uint32: each block is four words."""
    whole = out.shape[0] // LANES * LANES
    at = out.ctypes.data
    for i in range(0, whole, LANES):
        _vector(seed, stream, step, u64(first) + u64(i), at + 16 * i)
    for i in range(whole, out.shape[0]):
        words = block(seed, stream, step, u64(first) + u64(i))
        for k in range(4):
            out[i, k] = word(words, k)


@njit
def fill_rows(seed, stream, step, first_row, words, row):
    """The words of rows first_row, first_row + 1, ..., (B, 4 blocks) uint32, and their numbers (B,)."""
    B, blocks = words.shape[0], words.shape[1] // 4
    fill(seed, stream, step, u64(first_row) * u64(blocks), words.reshape(B * blocks, 4))
    for r in range(B):
        row[r] = first_row + r


@intrinsic
def _vector(typing, seed, stream, step, first, address):
    """Blocks first .. first + LANES - 1, to an address in memory: `block` written in vectors, since LLVM finds none in
    a loop over it whose words are to lie side by side."""

    def codegen(context, builder, signature, arguments):
        seed, stream, step, first, address = arguments
        i32, i64, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.IntType(64), LANES)

        def number(x):
            return ir.Constant(i64, int(x))

        def all_lanes(x):
            single = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(i32, 0))
            return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(i32, LANES), [0] * LANES))

        def low(x):
            return builder.and_(x, all_lanes(number(MASK)))

        def high(x):
            return builder.lshr(x, all_lanes(number(32)))

        i = builder.add(all_lanes(first), ir.Constant(vector, list(range(LANES))))
        c0, c1, c2, c3 = i, high(i), all_lanes(step), all_lanes(stream)
        k0, k1 = builder.and_(seed, number(MASK)), builder.lshr(seed, number(32))
        # Upper halves hold anything: a vector's product of lower halves does not look at them.
        for _ in range(rng.ROUNDS):
            p0, p1 = builder.mul(low(c0), all_lanes(number(M0))), builder.mul(low(c2), all_lanes(number(M1)))
            c0, c1 = builder.xor(builder.xor(high(p1), c1), all_lanes(k0)), p1
            c2, c3 = builder.xor(builder.xor(high(p0), c3), all_lanes(k1)), p0
            k0, k1 = (builder.and_(builder.add(k, number(w)), number(MASK)) for k, w in ((k0, W0), (k1, W1)))
        pairs = [builder.or_(low(a), builder.shl(b, all_lanes(number(32)))) for a, b in ((c0, c1), (c2, c3))]
        order = [lane for j in range(LANES) for lane in (j, LANES + j)]
        both = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(i32, 2 * LANES), order))
        target = builder.inttoptr(address, ir.PointerType(both.type))
        builder.store(both, target).align = 4  # of a uint32
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64, types.uint64, types.uint64), codegen
