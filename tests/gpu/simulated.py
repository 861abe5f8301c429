"""Numba-CUDA's kernels in Numba's simulator, on grids of a few threads, beside NumPy. Run by test_rung6_simulator.py in
a session of its own:

    python -m pytest tests/gpu/simulated.py --simulator
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from draws import KNOWN_ANSWERS, near

from bdiff_np import rng, sample
from bdiff_np.diffusion.bernoulli import make_chain
from bdiff_np.kernels.bernoulli import bernoulli_numba_cuda, bernoulli_numpy
from bdiff_np.kernels.dense import arrays_numba_cuda, dense_numba_cuda
from bdiff_np.kernels.shared import cuda_grid
from bdiff_np.model import load_ops
from bdiff_np.rng import Key
from gpu import strict
from gpu.training import buffers, distance, training

cuda_grid.THREADS, cuda_grid.SIDE = 64, 2  # a thread of the simulator is a thread of the system
strict.install()

f32 = np.float32
KEY = Key(2**63 - 1, rng.Q_NOISE, 2**32 - 1)


@pytest.fixture(scope="module")
def ops():
    return load_ops("numba-cuda")


@pytest.fixture(scope="module")
def numpy_ops():
    return load_ops("numpy")


def same(ops, found, expected, rtol=3e-6):
    np.testing.assert_allclose(ops.to_host(found), expected, rtol=rtol, atol=rtol)


def test_the_simulator_is_strict():
    """What a card's arrays cannot do fails here too; without that this file would have let `array[...] = x` pass, which
    no card takes."""
    assert strict.allowed(np.arange(4).reshape(2, 2)) == []


def test_draws_are_compared_as_defined(ops):
    """As rng.draws are, at each word itself and around it: x_T of a law per bit takes any threshold but 0 and 2**32;
    and the words are the published ones."""
    D, on = 19, arrays_numba_cuda
    for address, four in KNOWN_ANSWERS:
        found = dense_numba_cuda.random_block(*map(np.uint64, (*address[0], address[1])))
        assert tuple(map(int, found)) == four
    for threshold in near(KEY, 1, D, 2**33):
        pi, x = on.asarray(threshold[0]), on.empty((1, D), np.uint8)
        bernoulli_numba_cuda.prior(SimpleNamespace(noise=pi, T=-1, per_bit=1), KEY, 2**33, x)
        np.testing.assert_array_equal(ops.to_host(x), rng.draws(KEY, 1, D, 2**33) < threshold)


@pytest.mark.parametrize("pi", [0.3, np.linspace(0.1, 0.9, 9)], ids=["one", "per-bit"])
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_kernels(ops, pi, predict):
    """Noisy bits and prior bit for bit; KL, gradient, flips and reverse steps, for ragged sizes."""
    from bdiff_np.kernels.bernoulli import bernoulli_numba_cuda

    generator, (B, D), T = np.random.default_rng(0), (3, 9), 7
    chain = make_chain("paper", T, pi)
    ours, numpys = bernoulli_numba_cuda.Kernels(chain, predict), bernoulli_numpy.Kernels(chain, predict)
    x0, t, logits = (
        generator.integers(0, 2, (B, D)).astype(np.uint8),
        np.array([1, 7, 3]),
        (2 * generator.normal(size=(B, D))).astype(f32),
    )
    x_t = numpys.q_sample(x0, t, KEY, 2**33)
    np.testing.assert_array_equal(ops.to_host(ours.q_sample(x0, t, KEY, 2**33)), x_t)
    np.testing.assert_array_equal(ops.to_host(ours.prior(B, D, KEY, 5)), numpys.prior(B, D, KEY, 5))
    for found, expected in zip(ours.kl_grad(logits, x0, x_t, t), numpys.kl_grad(logits, x0, x_t, t)):
        same(ops, found, expected)
    same(ops, ours.p_flip(logits, x_t, t), numpys.p_flip(logits, x_t, t))
    np.testing.assert_array_equal(ops.to_host(ours.p_sample(logits, x_t, t, KEY)), numpys.p_sample(logits, x_t, t, KEY))


@pytest.mark.parametrize(
    "activation, film",
    [("relu", True), ("silu", True), ("gelu", False), ("tanh", True), ("sigmoid", False), (None, True)],
)
def test_activations(ops, numpy_ops, activation, film):
    """activate and its backward, with the sums over rows."""
    generator, (B, H) = np.random.default_rng(1), (3, 5)
    z, bias, dy, table = (generator.normal(size=s).astype(f32) for s in ((B, H), H, (B, H), (B, 2 * H)))
    found, expected = [], []
    for on, results in ((ops, found), (numpy_ops, expected)):
        y, tape = on.activate(on.asarray(z), on.asarray(bias), activation, on.asarray(table) if film else None)
        dbias = on.zeros(H, f32)
        results += [y, *on.activate_backward(on.asarray(dy), tape, dbias), dbias]
    for a, b in zip(found, expected):
        assert (a is None) == (b is None)
        if b is not None:
            same(ops, a, b)


def test_layer_norm(ops, numpy_ops):
    generator, (B, H) = np.random.default_rng(2), (3, 37)
    x, gain, shift, dy = (generator.normal(size=s).astype(f32) for s in ((B, H), H, H, (B, H)))
    found = []
    for on in (ops, numpy_ops):
        y, tape = on.layer_norm(*map(on.asarray, (x, gain, shift)))
        dgain, dshift = on.zeros(H, f32), on.zeros(H, f32)
        found.append([y, on.layer_norm_backward(on.asarray(dy), tape, dgain, dshift), dgain, dshift])
    for a, b in zip(*found):
        same(ops, a, b, 1e-5)


def test_masks_norms_and_what_is_read(ops, numpy_ops):
    """keep_mask bit for bit; norm and what halts it; read; rows taken from packed data; AdamW is in the training
    below."""
    np.testing.assert_array_equal(
        ops.to_host(ops.keep_mask(KEY, (2, 11), 0.3, f32)), numpy_ops.keep_mask(KEY, (2, 11), 0.3, f32)
    )
    flat, halted = np.random.default_rng(3).normal(size=70).astype(f32), ops.zeros(1, np.int32)
    same(ops, ops.norm(ops.asarray(flat), halted), np.linalg.norm(flat))
    ops.norm(ops.asarray(np.array([np.inf], f32)), halted)
    assert np.isnan(ops.to_host(ops.norm(ops.asarray(flat), halted))).all()
    x_t, t = np.array([[0, 1, 1], [1, 0, 0]], np.uint8), np.array([1, 2])
    features, odds = np.arange(6, dtype=f32).reshape(3, 2), np.array([9, 2, 3], f32)
    for found, expected in zip(
        bernoulli_numba_cuda.read(None, *map(ops.asarray, (x_t, t, features, odds))),
        bernoulli_numpy.read(None, x_t, t, features, odds),
    ):
        np.testing.assert_array_equal(ops.to_host(found), expected)


@pytest.mark.parametrize("M, N, K", [(17, 3, 20)])
def test_products(ops, M, N, K):
    """Our own product, of matrices and of transposed ones."""
    generator = np.random.default_rng(4)
    a, b = generator.integers(-4, 5, (M, K)).astype(f32), generator.integers(-4, 5, (K, N)).astype(f32)
    b_turned, a_turned = ops.asarray(np.ascontiguousarray(b.T)), ops.asarray(np.ascontiguousarray(a.T))
    a_there, b_there = ops.asarray(a), ops.asarray(b)
    for found in (
        ops.matmul(a_there, b_there),
        ops.matmul(a_there, b_turned, right=True),
        ops.matmul(a_turned, b_there, left=True),
    ):
        np.testing.assert_array_equal(ops.to_host(found), a @ b)


@pytest.mark.parametrize("passes, n", [(3, 5), (1, 9), (2, 1)])
def test_orders(ops, passes, n):
    """Which rows are shown when: as on NumPy."""
    from bdiff_np.kernels.dense import arrays_numba_cuda
    from bdiff_np.kernels.training import training_numba_cuda

    words = arrays_numba_cuda.empty((passes, n), np.uint64)
    training_numba_cuda.shuffle_words(2**63 - 1, rng.SHUFFLE, 2**32 - 9, words)
    expected = rng.permutations(2**63 - 1, rng.SHUFFLE, 2**32 - 9, passes, n)
    np.testing.assert_array_equal(ops.to_host(arrays_numba_cuda.argsort(words)), expected)


def test_a_training_and_its_rows():
    """A step of a small net moves weights, moments and average as on NumPy; rows drawn with it are the same."""
    values = {"batch_size": 5, "hidden": (4,), "T": 2, "N": 20, "time_features": 2, "odds_input": True}
    here, there = training("numpy", **values), training("numba-cuda", **values)
    start, losses = buffers(here), [job.advance(1) for job in (here, there)]
    found, expected = buffers(there), buffers(here)
    for name in start:
        assert distance(found[name] - start[name], expected[name] - start[name]) < 1e-5, name
    np.testing.assert_allclose(*losses, rtol=1e-5)
    known = np.array([1] + [-1] * 8, np.int8)
    np.testing.assert_array_equal(*(sample.draw(job.averaged, 3, seed=1, known=known) for job in (here, there)))
