"""Matrix products inside compiled code against NumPy's in float64.

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

from bdiff_np.kernels.shared import blas_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import fused_chain_numba, fused_step_numba
from bdiff_np.optim.adamw import AdamW

SIZES = (1, 2, 3, 7, 16, 17, 33, 100, 129)
MOST = 127  # of an entry: 129 * 127**2 < 2**24
AROUND = 5000.0  # what lies beside the matrices


@njit
def times(address, a, b, c, beta):
    blas_numba.multiply(address, a, b, c, beta)


@njit
def times_left(address, a, b, c, beta):
    blas_numba.multiply_left(address, a, b, c, beta)


@njit
def times_right(address, a, b, c, beta):
    blas_numba.multiply_right(address, a, b, c, beta)


FUNCTIONS = {  # and the shapes of a and b for a result (m, n) from sums of k products, and the product itself
    "multiply": (times, lambda m, n, k: ((m, k), (k, n)), lambda a, b: a @ b),
    "multiply_left": (times_left, lambda m, n, k: ((k, m), (k, n)), lambda a, b: a.T @ b),
    "multiply_right": (times_right, lambda m, n, k: ((m, k), (n, k)), lambda a, b: a @ b.T),
}


def address() -> int:
    found = blas_numba.sgemm()
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
def test_products_are_exact(name, wide):
    """For all sizes, alone or as columns of wider arrays: over NaN with beta = 0, on top of what is there with beta =
    1; nothing else is written."""
    function, shapes, expected = FUNCTIONS[name]
    sgemm, generator = address(), np.random.default_rng(1)
    with blas_numba.one_thread():
        for m, n, k in product(SIZES, repeat=3):
            (a, _), (b, _), (c, room) = (integers(generator, shape, wide) for shape in (*shapes(m, n, k), (m, n)))
            before, exact = (
                (a.copy(), b.copy(), c.astype(np.float64)),
                expected(a.astype(np.float64), b.astype(np.float64)),
            )
            function(sgemm, a, b, c, np.float32(1))
            assert np.array_equal(c, before[2] + exact), f"{m} {n} {k}, beta = 1"
            c[...] = np.nan
            function(sgemm, a, b, c, np.float32(0))
            assert np.array_equal(c, exact), f"{m} {n} {k}, beta = 0"
            assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])
            c[...] = AROUND
            assert not wide or (room == AROUND).all(), f"{m} {n} {k}"


def test_products_are_in_full_precision():
    """Random numbers, within the bound of any order of summation: k units of rounding of the sum of sizes."""
    sgemm, generator, k = address(), np.random.default_rng(2), 129
    a, b, c = generator.normal(size=(33, k)), generator.normal(size=(k, 17)), np.full((33, 17), np.nan, np.float32)
    a, b = a.astype(np.float32), b.astype(np.float32)
    with blas_numba.one_thread():
        times(sgemm, a, b, c, np.float32(0))
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert np.all(np.abs(c - a @ b) <= k * 2.0**-24 * (np.abs(a) @ np.abs(b)))


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
    address()
    found = blas_numba._controller().lib_controllers
    other = SimpleNamespace(filepath=numba._helperlib.__file__)  # a library, but no BLAS
    for libraries, there in (([], False), ([other], False), ([other, *found], True)):
        monkeypatch.setattr(
            blas_numba, "_controller", lambda libraries=libraries: SimpleNamespace(lib_controllers=libraries)
        )
        assert (blas_numba.sgemm.__wrapped__() is not None) == there


def test_nothing_is_fused_without_sgemm(monkeypatch):
    """Fused steps and chain are built where there is an address, and are None where there is not."""
    address()
    model = tiny.model(hidden=(5,)).on("numba")
    optimizer = AdamW(model.ops, model.params, model.net.decays(), model.config.training, total_steps=10, scale=1.0)

    def both():
        steps = fused_step_numba.build(model, model.kernels(), optimizer, rows=tiny.TRAIN, batch=4, seed=0)
        return [fused is not None for fused in (steps, fused_chain_numba.build(model, model.kernels()))]

    assert both() == [True, True]
    monkeypatch.setattr(blas_numba, "sgemm", lambda: None)
    assert both() == [False, False]
