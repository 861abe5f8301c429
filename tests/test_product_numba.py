"""Matrix products inside compiled code, by tiles and by BLAS, against NumPy's in float64.

Entries are small integers: every product of them and every sum is exact in float32 too, so the results must be equal,
whatever the order.
"""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numba._helperlib
import numpy as np
import pytest
import tiny
from threadpoolctl import threadpool_limits

from bdiff_np.kernels.dense import product_numba
from bdiff_np.kernels.shared import blas_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.vectors_numba import KIND
from bdiff_np.kernels.training import fused_chain_numba, fused_step_numba
from bdiff_np.optim.adamw import AdamW

SIZES = (1, 2, 5, 6, 7, 16, 17, 33, 64, 100, 129)
LARGE = ((97, 70, 300), (7, 1100, 257), (130, 200, 129), (200, 65, 400), (30, 600, 600))  # m, n, k: panels and chunks
MOST = 127  # of an entry: 600 * 127**2 < 2**24
AROUND = 5000.0  # what lies beside the matrices
PANELS = np.zeros(product_numba.room(1200, 1200), np.float32)


@njit
def times(address, a, b, c, add, panels):
    product_numba.multiply(address, a, b, c, panels)


@njit
def times_bias(address, a, b, c, add, panels):
    product_numba.multiply_bias(address, a, b, b[0], c, panels)


@njit
def times_left(address, a, b, c, add, panels):
    product_numba.multiply_left(address, a, b, c, add, panels)


@njit
def times_right(address, a, b, c, add, panels):
    product_numba.multiply_right(address, a, b, c, panels)


@njit
def sums(address, a, b, c, add, panels):
    product_numba.sum_rows(address, a[0], b, c[:1], add, panels)


FUNCTIONS = {  # and the shapes of a and b for a result (m, n) from sums of k products, and the product itself
    "multiply": (times, lambda m, n, k: ((m, k), (k, n)), lambda a, b: a @ b),
    "multiply_bias": (times_bias, lambda m, n, k: ((m, k), (k, n)), lambda a, b: a @ b + b[0]),
    "multiply_left": (times_left, lambda m, n, k: ((k, m), (k, n)), lambda a, b: a.T @ b),
    "multiply_right": (times_right, lambda m, n, k: ((m, k), (n, k)), lambda a, b: a @ b.T),
    "sum_rows": (sums, lambda m, n, k: ((1, 1), (k, n)), lambda a, b: a[0, 0] * b.sum(0, keepdims=True)),
}
ADD = ("multiply_left", "sum_rows")  # those that can add to what is there


@pytest.fixture(params=["tiles", "blas"])
def address(request) -> int:
    if request.param == "tiles" and KIND is None:
        pytest.skip("no tiles are written for this processor: bdiff_np/kernels/shared/vectors_numba.py")
    return product_numba.tiles() if request.param == "tiles" else by_blas()


def by_blas() -> int:
    found = blas_numba.product()
    if found is None:
        pytest.skip("this BLAS does not show its sgemm")
    return found


def integers(generator, shape, wide):
    """(the matrix, the array that it lies in): if `wide`, it is some columns of a wider one."""
    if not wide:
        matrix = generator.integers(-MOST, MOST + 1, shape).astype(np.float32)
        return matrix, matrix
    room = np.full((shape[0] + 2, shape[1] + 9), AROUND, np.float32)
    matrix = room[1:-1, 4:-5]
    matrix[...] = generator.integers(-MOST, MOST + 1, shape)
    return matrix, room


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_are_exact(name, wide, address):
    """For all sizes, alone or as columns of wider arrays: over NaN, or on top of what is there; nothing else is
    written."""
    function, shapes, expected = FUNCTIONS[name]
    generator = np.random.default_rng(1)
    with blas_numba.one_thread():
        for m, n, k in (*product(SIZES, repeat=3), *LARGE):
            if name == "sum_rows" and m > 1:
                continue
            (a, _), (b, _), (c, room) = (integers(generator, shape, wide) for shape in (*shapes(m, n, k), (m, n)))
            before = a.copy(), b.copy(), c.astype(np.float64)
            exact = expected(a.astype(np.float64), b.astype(np.float64))
            for add in [False, True] if name in ADD else [False]:
                c[...] = before[2] if add else np.nan
                function(address, a, b, c, add, PANELS)
                assert np.array_equal(c, exact + add * before[2]), f"{m} {n} {k}, {add}"
            assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])
            c[...] = AROUND
            assert not wide or (room == AROUND).all(), f"{m} {n} {k}"


def test_products_are_in_full_precision(address):
    """Random numbers, within the bound of any order of summation: k units of rounding of the sum of sizes."""
    generator, k = np.random.default_rng(2), 300
    a, b, c = generator.normal(size=(33, k)), generator.normal(size=(k, 70)), np.full((33, 70), np.nan, np.float32)
    a, b = a.astype(np.float32), b.astype(np.float32)
    with blas_numba.one_thread():
        times(address, a, b, c, False, PANELS)
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert np.all(np.abs(c - a @ b) <= k * 2.0**-24 * (np.abs(a) @ np.abs(b)))


def test_a_row_does_not_depend_on_its_neighbours():
    """Bit for bit, by tiles: alone, or among others, where B is read as it lies and where it is copied."""
    if KIND is None:
        pytest.skip("no tiles are written for this processor: bdiff_np/kernels/shared/vectors_numba.py")
    generator = np.random.default_rng(3)
    for K, N in ((50, 50), (300, 200)):
        a, b = (generator.normal(size=shape).astype(np.float32) for shape in ((101, K), (K, N)))
        whole, part = (np.zeros((101, N), np.float32) for _ in range(2))
        times(product_numba.tiles(), a, b, whole, False, PANELS)
        for first, last in ((0, 1), (1, 5), (5, 36), (36, 101)):
            times(product_numba.tiles(), a[first:last], b, part[first:last], False, PANELS)
        assert np.array_equal(whole, part)


# Threads and places
# ----------------------------------------------------------------------------------------------------------------------


def blas_threads() -> list[int]:
    """Of NumPy's; another library may have loaded a BLAS of its own since."""
    return [pool["num_threads"] for pool in blas_numba._controller().info()]


def test_one_thread_gives_threads_back():
    """One thread inside, those of before outside, after a fault too."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        assert max(before) == 2
        with blas_numba.one_thread():
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(ZeroDivisionError), blas_numba.one_thread():
            raise ZeroDivisionError
        assert blas_threads() == before


def test_no_address_where_blas_shows_none(monkeypatch):
    """Where no BLAS is loaded, or none has the symbol; but a later one that has it is found."""
    by_blas()
    found = blas_numba._controller().lib_controllers
    other = SimpleNamespace(filepath=numba._helperlib.__file__)  # a library, but no BLAS
    for libraries, there in (([], False), ([other], False), ([other, *found], True)):
        monkeypatch.setattr(
            blas_numba, "_controller", lambda libraries=libraries: SimpleNamespace(lib_controllers=libraries)
        )
        assert (blas_numba.sgemm.__wrapped__() is not None) == there


def test_nothing_is_fused_without_a_product(monkeypatch):
    """Fused steps and chain are built where there is one, and are None where there is not."""
    model = tiny.model(hidden=(5,)).on("numba")
    optimizer = AdamW(model.ops, model.params, model.net.decays(), model.config.training, total_steps=10, scale=1.0)

    def both():
        steps = fused_step_numba.build(model, model.kernels(), optimizer, rows=tiny.TRAIN, batch=4, seed=0)
        return [fused is not None for fused in (steps, fused_chain_numba.build(model, model.kernels()))]

    assert both() == [True, True]
    monkeypatch.setattr(product_numba, "exists", lambda: False)
    assert both() == [False, False]
