"""Rung 2: the kernels of every .cu against the NumPy definition, in several orders of threads and blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from draws import KNOWN_ANSWERS, near

from bdiff_np import rng
from bdiff_np.diffusion.bernoulli import WORD
from bdiff_np.kernels.shared import cuda_source
from bdiff_np.rng import Key, philox

SUITES = ("test_backends.py", "test_kernels.py", "--stand-in")
FEWER = "cupy and not schedules and not extreme and not surer and not law and not survive"
ORDERS = [("forward", 0, "cupy"), ("backward", 1, FEWER), ("shuffled", 7, FEWER)]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(name, marks=pytest.mark.child("plain", *SUITES, f"--order={number}", "-k", which))
        for name, number, which in ORDERS
    ],
)
def test_every_operation_and_kernel_is_what_it_is_on_numpy(child, order):
    """tests/test_backends.py and tests/test_kernels.py, for CuPy: shapes with a rest at each cut, both dtypes, values,
    gradients, random bits. In the order of its threads that a card happens to take, nothing changes."""
    assert child.code == 0 and " passed" in child.output, child


# Words that are chosen
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(card):
    """The kernels of words.cu, as functions of host arrays."""
    text = (Path(__file__).parent / "words.cu").read_text()
    for name in ("bernoulli.cuh", "philox.cuh", "device.cuh"):
        text = text.replace(f'#include "{name}"', cuda_source.source(name))
    module = card.cupy.RawModule(code=text, options=("-std=c++17",))

    def run(kernel: str, dtype, size: int, *arrays):
        out = card.arrays.empty(size, dtype)
        n = np.int32(size if kernel != "philox_words" else size // 4)
        module.get_function(kernel)((-(-int(n) // 64),), (64,), (*map(card.arrays.asarray, arrays), out, n))
        return card.arrays.to_host(out)

    return run


def test_random_words_are_the_published_ones(card, words):
    """Random123's known answers, and those of rng.py for seeds, streams, steps and blocks up to the largest."""
    large, half = 2**64 - 1, 2**32 - 1
    addresses = [
        *((a.seed, a.stream, a.step, block) for (a, block), _ in KNOWN_ANSWERS),
        (1, 2, 3, 4),
        (2**63 - 1, 5, half - 9, 2**50),
        (large, half, half, large - 1),
        (7, 1 << 30, 0, 2**32 - 1),
    ]
    expected = [philox(seed, stream, step, block) for seed, stream, step, block in addresses]
    for _ in card.orders():
        found = words("philox_words", np.uint32, 4 * len(addresses), np.array(addresses, np.uint64).ravel())
        np.testing.assert_array_equal(found.reshape(-1, 4), expected)
        np.testing.assert_array_equal(found.reshape(-1, 4)[: len(KNOWN_ANSWERS)], [four for _, four in KNOWN_ANSWERS])


@pytest.mark.parametrize("D", [1, 15, 16, 17, 20, 64, 784])
def test_draws_are_compared_as_defined(card, words, D):
    """A draw lies below a threshold where rng.draws does: at each word itself, one above it, with its top byte alone,
    0 and 2**32."""
    key, first, rows = Key(2**64 - 1, rng.Q_NOISE, 2**32 - 1), 2**33 + 1, 5
    thresholds = near(key, rows, D, first)
    address = np.array([*key[:2], key.step, first, D], np.uint64)
    for _ in card.orders():
        for threshold in thresholds:
            found = words("draws_below", np.uint8, rows * D, threshold.ravel(), address)
            np.testing.assert_array_equal(found.reshape(rows, D), rng.draws(key, rows, D, first) < threshold)


@pytest.mark.parametrize("x0", [0, 1])
def test_thresholds_are_exact_words(words, x0):
    """The word below floor(beta_bar pi) + (x_0 ? 1 - beta_bar : 0) gives a 1, the threshold itself a 0; 0 and 2**32 are
    no word's threshold."""
    generator = np.random.default_rng(x0)
    lost = np.concatenate([[0, WORD, WORD, 1, WORD], generator.integers(0, WORD + 1, 500)]).astype(np.uint64)
    pi = np.concatenate([[1, 1, WORD - 1, WORD - 1, WORD // 2], generator.integers(1, WORD, 500)]).astype(np.uint64)
    threshold = np.array([int(a) * int(b) // WORD + x0 * (WORD - int(a)) for a, b in zip(lost, pi)])
    bits = np.full(len(lost), x0, np.uint8)
    for below in (1, 0):
        word = np.clip(threshold - below, 0, WORD - 1).astype(np.uint32)
        found = words("noisy_bits", np.uint8, len(lost), word, lost, pi, bits)
        np.testing.assert_array_equal(found, word < threshold)
    assert (WORD if x0 else 0) in threshold


def test_a_word_is_below_a_probability_exactly(words):
    """word < p 2**32 in exact arithmetic, for probabilities from 0 to 1 and words on both sides of the edge."""
    generator = np.random.default_rng(2)
    p = np.concatenate(
        [
            [0, 1, 0.5, 2.0**-32, 2.0**-33, 1 - 2.0**-24, 1.5 * 2.0**-32],
            generator.random(300),
            10 ** -generator.uniform(0, 12, 300),
        ]
    )
    p = p.astype(np.float32)
    edge = p.astype(np.float64) * WORD  # exact: a float32 times a power of two
    for offset in (-1, 0, 1):
        word = np.clip(np.floor(edge) + offset, 0, WORD - 1).astype(np.uint32)
        np.testing.assert_array_equal(words("below_float", np.uint8, len(p), word, p), word < edge)


def test_phi_keeps_its_digits_in_float32(words):
    """y - log(1 + y) to 6e-7 of itself, for y from -.999 to 1e4 and down to 1e-6, where the difference of two float32
    numbers would be nothing."""
    generator = np.random.default_rng(3)
    size = 10 ** generator.uniform(-6, 4, 4000)
    y = np.concatenate([size, -size[size < 0.999]]).astype(np.float32)
    wide = y.astype(np.longdouble)
    expected = (wide - np.log1p(wide)).astype(np.float64)
    small = np.abs(wide) < 1e-3  # where long double loses digits too
    expected[small] = (wide**2 / 2 - wide**3 / 3 + wide**4 / 4 - wide**5 / 5)[small]
    np.testing.assert_allclose(words("phi_float", np.float32, len(y), y), expected, rtol=6e-7)


# Products and sums
# ----------------------------------------------------------------------------------------------------------------------

SIZES = [(1, 1, 1), (64, 64, 16), (65, 63, 17), (3, 130, 5), (128, 20, 300), (20, 128, 1), (7, 9, 1000)]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_products(card, sizes, dtype):
    """a b, a b^T and a^T b for sizes with a rest in every direction, into room that is not zero; the same in every
    order of threads."""
    (M, N, K), generator, on = sizes, np.random.default_rng(1), card.arrays
    a, b = generator.normal(size=(M, K)).astype(dtype), generator.normal(size=(K, N)).astype(dtype)
    expected, found = a.astype(np.longdouble) @ b, []
    for _ in card.orders():
        for multiply, left, right in (
            (card.dense.multiply, a, b),
            (card.dense.multiply_right, a, b.T),
            (card.dense.multiply_left, a.T, b),
        ):
            c = on.empty((M, N), dtype)
            given = on.asarray(np.ascontiguousarray(left)), on.asarray(np.ascontiguousarray(right))
            multiply(*given, card.dense.Parts(c.reshape(-1), 1, 0) if multiply is card.dense.multiply_left else c)
            found.append(on.to_host(c))
            np.testing.assert_allclose(
                found[-1], expected.astype(dtype), rtol=0, atol=(2e-6 if dtype == np.float32 else 1e-14) * K**0.5 * 4
            )
    for other in found[3:]:
        np.testing.assert_array_equal(other, found[0])
    for other in found[1:3]:  # each number is summed in order of k by one thread, however its operands lie
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_a_product_over_parts_of_the_rows(card, parts):
    """Each part of a^T b is the product over its own rows, cut as everywhere, and goes to its own place; a part without
    rows is zero."""
    B, M, N, P, generator, on = 5, 3, 70, 300, np.random.default_rng(2), card.arrays
    a, b = generator.integers(-3, 4, (B, M)).astype(np.float32), generator.integers(-3, 4, (B, N)).astype(np.float32)
    flat = on.asarray(np.full(parts * P, 7, np.float32))
    card.dense.multiply_left(on.asarray(a), on.asarray(b), card.dense.Parts(flat[11:], parts, P))
    found = on.to_host(flat).reshape(parts, P)
    for k in range(parts):
        own = slice(B * k // parts, B * (k + 1) // parts)
        np.testing.assert_array_equal(found[k, 11 : 11 + M * N].reshape(M, N), a[own].T @ b[own])
        assert np.all(found[k, :11] == 7) and np.all(found[k, 11 + M * N :] == 7)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000, 40_000])
@pytest.mark.parametrize("parts", [1, 2, 8, 9, 100])
def test_sums_of_parts(card, n, parts):
    """The sum over parts and the squares of its pieces; small integers, so that every order gives the same, and all is
    exact."""
    generator, on, dense = np.random.default_rng(n), card.arrays, card.dense
    sums = generator.integers(-9, 10, (parts, n)).astype(np.float32)
    for _ in card.orders():
        from bdiff_np.kernels.shared.cuda_grid import pieces

        total, squares = on.empty(n, np.float32), on.empty(pieces(n), np.float32)
        dense.sum_parts(dense.Parts(on.asarray(sums.ravel()), parts, n), total, squares)
        np.testing.assert_array_equal(on.to_host(total), sums.sum(0))
        assert on.to_host(squares).sum(dtype=np.float64) == pytest.approx(
            (sums.sum(0, dtype=np.float64) ** 2).sum(), rel=1e-6
        )


def test_prior_and_masks_of_keys(card):
    """x_T and dropout's factors are of the words of rng.py, whatever the row that is begun with."""
    kernels = card.family.Kernels(_chain(0.3))
    for _ in card.orders():
        for first in (0, 5, 2**33):
            found = card.arrays.to_host(kernels.prior(300, 13, Key(3, rng.PRIOR, 0), first))
            np.testing.assert_array_equal(found, rng.draws(Key(3, rng.PRIOR, 0), 300, 13, first) < round(0.3 * WORD))


@pytest.mark.parametrize("passes, n", [(1, 1), (3, 5), (70, 11), (2, 1000)])
def test_orders_of_rows(card, passes, n):
    """Which rows are shown when is NumPy's, bit for bit, pass by pass; keys and passes as large as they come."""
    for _ in card.orders():
        words = card.arrays.empty((passes, n), np.uint64)
        card.training.shuffle_words(2**63 - 1, rng.SHUFFLE, 2**32 - 99, words)
        found = card.arrays.argsort(words)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(
            card.arrays.to_host(found), rng.permutations(2**63 - 1, rng.SHUFFLE, 2**32 - 99, passes, n)
        )


def _chain(pi):
    from bdiff_np.diffusion.bernoulli import make_chain

    return make_chain("paper", 20, pi)
