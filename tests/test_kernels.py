"""Kernels of every back end against the float64 definition in diffusion/bernoulli.py: the same bits, values, gradients
and probabilities."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from here import BACKENDS, kernels_of

from bdiff_np import rng
from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import WORD, Chain, make_chain
from bdiff_np.rng import Key

SHAPES = [(1, 1), (7, 8), (8, 7), (3, 9), (20, 20), (5, 65)]
KEY = Key(11, rng.Q_NOISE, 3)
DEFINED = {np.float64: 1e-9, np.float32: 2e-5}  # relative tolerance of a dtype
EVERY = list(product((1, 2, 7, 2000), ("x0", "x_prev"), (True, False), ("scalar", "per bit")))


@pytest.fixture(params=BACKENDS)
def Kernels(request):
    return kernels_of(request.param).Kernels


def law(kind, D):
    return 0.2 if kind == "scalar" else np.random.default_rng(D).uniform(0.05, 0.95, D)


def batch(T, B, D, seed=0, dtype=np.float64, spread=2.0):
    """x0, x_t, t and logits; t runs over 1..T from both ends, so that 1, 2 and T are among any few rows."""
    generator = np.random.default_rng(seed)
    x0 = generator.integers(0, 2, (B, D)).astype(np.uint8)
    x_t = x0 ^ (generator.random((B, D)) < 0.4)
    t = np.resize(np.unique([1, min(2, T), T, *generator.integers(1, T + 1, B)]), B)
    return (
        x0,
        x_t.astype(np.uint8),
        generator.permutation(t),
        (spread * generator.standard_normal((B, D))).astype(dtype),
    )


def whole_logits(chain, predict, skip, logits, x_t, t):
    return logits.astype(np.float64) + (bernoulli.evidence(chain, predict, x_t, t) if skip else 0)


def defined(chain, predict, skip, logits, x0, x_t, t):
    """KL per row and gradient by the definition."""
    value, gradient = bernoulli.kl(chain, predict, whole_logits(chain, predict, skip, logits, x_t, t), x0, x_t, t)
    return value.sum(1), gradient


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("size", [90.0, 800.0, 1e5, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kl_of_logits_that_no_probability_can_say(Kernels, predict, size, dtype):
    """A very sure network costs what the definition says, a finite figure, however wrong it is."""
    if dtype == np.float64 and Kernels.__module__.endswith("cuda"):
        pytest.skip("the kernels of a GPU are of float32")
    chain, (x0, x_t, t, logits) = make_chain("paper", 7, 0.2), batch(7, 40, 9, dtype=dtype)
    logits = (size * np.sign(logits)).astype(dtype)
    value, _ = defined(chain, predict, False, logits, x0, x_t, t)
    found = Kernels(chain, predict, False, dtype=dtype).kl_grad(logits, x0, x_t, t)[0]
    assert np.isfinite(value).all() and value.max() > size
    np.testing.assert_allclose(np.asarray(found), value, rtol=DEFINED[dtype])


@pytest.mark.parametrize("B, D", SHAPES)
@pytest.mark.parametrize("T", [1, 2, 7, 2000])
@pytest.mark.parametrize("pi", ["scalar", "per bit"])
def test_noisy_bits_are_the_definitions(Kernels, B, D, T, pi):
    """q_sample gives bit for bit what the definition gives for the same words, from the first row on that is asked
    for."""
    chain = make_chain("paper", T, law(pi, D))
    x0, _, t, _ = batch(T, B, D)
    for first_row in (0, 41):
        found = Kernels(chain).q_sample(x0, t, KEY, first_row)
        assert found.dtype == np.uint8 and found.shape == (B, D)
        np.testing.assert_array_equal(found, bernoulli.q_sample(chain, x0, t, rng.draws(KEY, B, D, first_row)))


@pytest.mark.parametrize("above", [0, 1])
def test_thresholds_are_exact_draws(Kernels, above):
    """A draw that is the threshold gives a 0, the next threshold a 1: for a law of each bit whose signal is all lost,
    and so for either bit, the thresholds are pi."""
    D = 40
    draws = rng.draws(KEY, 3, D, 5)
    for r in range(3):
        pi = np.clip(draws[r].astype(np.float64) + above, 1, WORD - 1) / WORD
        x0 = (np.arange(D)[None] % 2).astype(np.uint8)
        kernels = Kernels(Chain(np.array([1.0, 0.0]), pi))
        for found in (kernels.q_sample(x0, np.array([1]), KEY, 5 + r), kernels.prior(1, D, KEY, 5 + r)):
            np.testing.assert_array_equal(found[0], np.full(D, above))


@pytest.mark.parametrize("pi", [2.0**-32, np.full(300, 2.0**-32)], ids=["one", "per-bit"])
def test_thresholds_beyond_all_draws(Kernels, pi):
    """A threshold of 0 gives no draw a 1, one of 2**32 gives a 1 to all of them, whatever their bytes."""
    chain = Chain(np.array([1.0, 1 - 1e-12, 0.5, 0.0]), pi)
    x0 = (np.arange(300)[None] % 2).astype(np.uint8).repeat(9, axis=0)
    assert {0, 255} <= set(rng.top_bytes(KEY, 9, 300).ravel().tolist())
    found = Kernels(chain).q_sample(x0, np.ones(9, int), KEY)
    np.testing.assert_array_equal(found, x0)  # less than 2**-33 is lost


@pytest.mark.parametrize("key", [KEY, Key(0, 0, 0), Key(2**63 - 1, rng.DROPOUT + (3 << 8), 2**32 - 1)])
@pytest.mark.parametrize("T", [1, 7, 100_000])
@pytest.mark.parametrize("pi", ["scalar", "per bit"])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_back_ends_draw_the_same_bits(backend, pi, T, key):
    """Noisy bits and prior are those of NumPy, bit for bit, for ragged shapes, large steps and rows beyond 2**32."""
    for B, D in (*SHAPES, (300, 70)):
        chain = make_chain("paper", T, law(pi, D))
        x0, _, t, _ = batch(T, B, D)
        one, other = (kernels_of(name).Kernels(chain) for name in ("numpy", backend))
        for first_row in (0, 3, 2**32 - 2, 2**50 + 1):
            expected = one.q_sample(x0, t, key, first_row)
            assert B * D < 100 or 0.1 < expected.mean() < 0.9
            np.testing.assert_array_equal(other.q_sample(x0, t, key, first_row), expected)
            np.testing.assert_array_equal(other.prior(B, D, key, first_row), one.prior(B, D, key, first_row))


@pytest.mark.parametrize("dtype", DEFINED)
@pytest.mark.parametrize("T, predict, skip, pi", EVERY)
def test_kl_and_gradient_are_the_definitions(Kernels, T, predict, skip, pi, dtype):
    """Row by row and entry by entry, for ragged shapes; the value is float64, the gradient of the kernels' dtype."""
    for B, D in SHAPES:
        chain = make_chain("paper", T, law(pi, D))
        x0, x_t, t, logits = batch(T, B, D, dtype=dtype)
        value, gradient = Kernels(chain, predict, skip, dtype=dtype).kl_grad(logits, x0, x_t, t)
        expected, slope = defined(chain, predict, skip, logits, x0, x_t, t)
        assert (
            value.dtype == np.float64 and value.shape == (B,) and gradient.dtype == dtype and gradient.shape == (B, D)
        )
        tolerance = DEFINED[dtype]
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("dtype", DEFINED)
@pytest.mark.parametrize("T, predict, skip, pi", EVERY)
def test_gradient_alone_is_the_same_gradient(Kernels, T, predict, skip, pi, dtype):
    """Without the value, which is then None, the gradient is bit for bit what comes with it."""
    for B, D in SHAPES:
        x0, x_t, t, logits = batch(T, B, D, dtype=dtype)
        kernels = Kernels(make_chain("paper", T, law(pi, D)), predict, skip, dtype=dtype)
        value, gradient = kernels.kl_grad(logits, x0, x_t, t)
        none, alone = kernels.kl_grad(logits, x0, x_t, t, value=False)
        assert none is None and value is not None and alone.dtype == dtype and gradient.any()
        np.testing.assert_array_equal(alone, gradient)


@pytest.mark.parametrize("name", bernoulli.SCHEDULES)
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_kl_is_the_definitions_for_every_schedule(Kernels, name, predict):
    """Also for chains that keep some signal at T."""
    chain = make_chain(name, 100, 0.5)
    x0, x_t, t, logits = batch(100, 64, 9)
    value, gradient = Kernels(chain, predict, dtype=np.float64).kl_grad(logits, x0, x_t, t)
    expected, slope = defined(chain, predict, True, logits, x0, x_t, t)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_small_kls_survive_float32(Kernels, predict):
    """t = 2, T = 2000, all bits agree, the net's flip odds 10 % off: 4.233e-10 bits a bit (specification 1.1.4), to
    1e-4 in float32."""
    chain = make_chain("paper", 2000, 0.5)
    x, t = np.array([[0, 1, 0, 1]], np.uint8), np.array([2])
    flip = bernoulli.q_flip(chain, x, t)
    p = 1 / (1 + flip.not_agree / (1.1 * flip.agree))
    wrong = p if predict == "x_prev" else (p - flip.agree) / flip.gap  # probability that the bit is not what x_t shows
    logits = ((2.0 * x - 1) * np.log((1 - wrong) / wrong)).astype(np.float32)
    value, _ = Kernels(chain, predict, skip=False).kl_grad(logits, x, x, t)
    np.testing.assert_allclose(value, 4 * 4.2329e-10 * np.log(2), rtol=1e-4)


@pytest.mark.parametrize("dtype", DEFINED)
@pytest.mark.parametrize("T", [1, 2, 50, 2000, 100_000])
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("size", [10.0, 30.0, 80.0])
def test_extreme_logits_are_finite_and_right(Kernels, dtype, T, predict, size):
    """A net that is sure, rightly or wrongly, pays what the definition says, without a warning, for every pair of
    bits."""
    chain = make_chain("paper", T, 0.5)
    pairs = np.array([[0, 0, 1, 1, 0, 0, 1, 1]], np.uint8), np.array([[0, 1, 0, 1, 0, 1, 0, 1]], np.uint8)
    t = np.unique([1, min(2, T), min(3, T), -(-T // 2), T])
    x0, x_t = (np.repeat(x, len(t), 0) for x in pairs)
    logits = np.repeat(np.array([[size] * 4 + [-size] * 4], dtype), len(t), 0)
    kernels = Kernels(chain, predict, dtype=dtype)
    with warnings.catch_warnings(), np.errstate(divide="warn", invalid="warn", over="warn"):
        warnings.simplefilter("error")
        for column in range(8):
            one = [np.ascontiguousarray(array[:, column : column + 1]) for array in (logits, x0, x_t)]
            value, gradient = kernels.kl_grad(*one, t)
            p = kernels.p_flip(one[0], one[2], t)
            expected, slope = defined(chain, predict, True, *one, t)
            assert np.isfinite(value).all() and np.isfinite(gradient).all() and np.all((p >= 0) & (p <= 1))
            tolerance = 1e-7 if dtype == np.float64 else 1e-3
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=1e-12, err_msg=f"pair {column}")
            rounding = 6e-8 if dtype == np.float32 else 1e-14  # of p - q, where both are next to 1
            np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=rounding, err_msg=f"pair {column}")


@pytest.mark.parametrize("dtype", DEFINED)
@pytest.mark.parametrize("T", [1, 2, 2000])
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_gradient_of_a_net_that_is_surer_than_exp_can_say(Kernels, dtype, T, predict):
    """At logits of +-1e4, whose exp is 0 or infinite in float64 too, it is the limit: at t = 1 it is 1 if the net is
    wrong, and 0 if it is right."""
    chain = make_chain("paper", T, 0.2)
    x0, x_t, right = (x.reshape(1, 8).astype(np.uint8) for x in np.indices((2, 2, 2)))
    logits = np.where(right == x0, 1e4, -1e4).astype(dtype)
    for t in np.unique([1, min(2, T), T]):
        _, gradient = Kernels(chain, predict, dtype=dtype).kl_grad(logits, x0, x_t, np.array([t]), value=False)
        _, slope = defined(chain, predict, True, logits, x0, x_t, np.array([t]))
        np.testing.assert_allclose(gradient, slope, rtol=DEFINED[dtype], atol=1e-30)
        if t == 1:
            np.testing.assert_allclose(gradient, (logits > 0) - x0.astype(float), atol=1e-30)


@pytest.mark.parametrize("dtype", DEFINED)
@pytest.mark.parametrize("T, predict, skip, pi", EVERY)
def test_flip_probabilities_are_the_definitions(Kernels, T, predict, skip, pi, dtype):
    """p(x_{t-1} != x_t | x_t) to full relative precision, however small."""
    for B, D in SHAPES:
        chain = make_chain("paper", T, law(pi, D))
        _, x_t, t, logits = batch(T, B, D, dtype=dtype, spread=5.0)
        found = Kernels(chain, predict, skip, dtype=dtype).p_flip(logits, x_t, t)
        logit = bernoulli.p_flip_logit(chain, predict, whole_logits(chain, predict, skip, logits, x_t, t), x_t, t)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, np.exp(-np.logaddexp(0, -logit)), rtol=DEFINED[dtype] / 2)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_reverse_step_flips_where_the_word_is_below(Kernels, predict):
    """x_{t-1} differs from x_t exactly where word / 2**32 < p_flip, the row's own word from the first row on that is
    asked for."""
    chain = make_chain("paper", 7, 0.2)
    _, x_t, t, logits = batch(7, 200, 9)
    kernels = Kernels(chain, predict, dtype=np.float64)
    found = kernels.p_sample(logits, x_t, t, KEY, 30)
    flips = rng.draws(KEY, 200, 9, 30) / 2.0**32 < kernels.p_flip(logits, x_t, t)
    assert found.dtype == np.uint8 and 0.1 < flips.mean() < 0.9
    np.testing.assert_array_equal(found, np.where(flips, 1 - x_t, x_t))


@pytest.mark.parametrize("off", [-0.5, 0.5])
def test_reverse_step_compares_exact_draws(Kernels, off):
    """A draw flips its bit if it lies half below p 2**32, and not if it lies half above it: a network that gives p
    itself, in float64, to that precision."""
    if Kernels.__module__.endswith("cuda"):
        pytest.skip("its draws are compared in tests/gpu")
    D = 400
    draws = rng.draws(KEY, 1, D, 7).astype(np.float64)
    shown = (np.arange(D)[None] % 2).astype(np.uint8)
    p = (draws + off) / WORD
    logits = np.where(shown != 0, 1, -1) * (np.log1p(-p) - np.log(p))  # of "the bit is a 1": it stays with 1 - p
    kernels = Kernels(make_chain("paper", 7, 0.5), "x_prev", skip=False, dtype=np.float64)
    found = kernels.p_sample(logits, shown, np.array([3]), KEY, 7)
    np.testing.assert_array_equal(found, shown ^ (off > 0))


def test_reverse_step_is_sure_where_the_net_is(Kernels):
    """Logits of +-80 with predict x_prev give x_{t-1} itself, whatever x_t and the words."""
    chain = make_chain("paper", 7, 0.5)
    _, x_t, t, _ = batch(7, 500, 9)
    wanted = np.random.default_rng(3).integers(0, 2, x_t.shape).astype(np.uint8)
    for dtype in DEFINED:
        found = Kernels(chain, "x_prev", skip=False, dtype=dtype).p_sample(
            (wanted * 160.0 - 80).astype(dtype), x_t, t, KEY
        )
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("pi", ["scalar", "per bit"])
def test_prior_draws_the_stationary_law(Kernels, pi):
    """Bits are 1 where the word is below pi, so that their mean is pi within 4 standard errors; rows do not depend on
    the slice."""
    chain = make_chain("paper", 7, law(pi, 9))
    kernels = Kernels(chain)
    found = kernels.prior(20_000, 9, KEY)
    np.testing.assert_array_equal(found, rng.draws(KEY, 20_000, 9) < np.round(np.asarray(law(pi, 9)) * WORD))
    assert np.all(np.abs(found.mean(0) - law(pi, 9)) < 4 * np.sqrt(chain.pi * (1 - chain.pi) / 20_000))
    np.testing.assert_array_equal(kernels.prior(10, 9, KEY, 500), found[500:510])
    assert found.dtype == np.uint8


@pytest.mark.parametrize("name", ["q_sample", "p_sample"])
def test_draws_do_not_depend_on_how_rows_are_split(Kernels, name):
    """Halves, each told its first row, joined give the whole."""
    chain = make_chain("paper", 7, 0.3)
    x0, x_t, t, logits = batch(7, 21, 13)
    kernels = Kernels(chain, dtype=np.float64)

    def draw(rows, first):
        given = (x0[rows], t[rows]) if name == "q_sample" else (logits[rows], x_t[rows], t[rows])
        return getattr(kernels, name)(*given, KEY, first)

    whole = draw(slice(None), 0)
    np.testing.assert_array_equal(np.concatenate([draw(slice(0, 8), 0), draw(slice(8, 21), 8)]), whole)


@pytest.mark.parametrize("T", [1, 2, 7, 2000])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_auxiliary_cross_entropy_enters_the_gradient_alone(Kernels, T, skip, weight):
    """The gradient is that of T KL + weight * cross entropy of x_0, divided by T; the value stays the KL."""
    chain = make_chain("paper", T, 0.2)
    x0, x_t, t, logits = batch(T, 20, 9)

    def total(z):
        whole = whole_logits(chain, "x0", skip, z, x_t, t)
        return bernoulli.kl(chain, "x0", whole, x0, x_t, t)[0] + weight / T * (np.logaddexp(0, whole) - x0 * whole)

    value, gradient = Kernels(chain, "x0", skip, weight, np.float64).kl_grad(logits, x0, x_t, t)
    h = 1e-5
    np.testing.assert_allclose(gradient, (total(logits + h) - total(logits - h)) / (2 * h), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(value, defined(chain, "x0", skip, logits, x0, x_t, t)[0], rtol=1e-9)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("pi", ["scalar", "per bit"])
def test_kernels_leave_their_inputs_alone(Kernels, predict, pi):
    """No kernel writes into an array that it was given: all are read-only here."""
    chain = make_chain("paper", 7, law(pi, 9))
    for dtype in DEFINED:
        arrays = x0, x_t, t, logits = batch(7, 20, 9, dtype=dtype)
        for array in arrays:
            array.flags.writeable = False
        for skip in (True, False):
            kernels = Kernels(chain, predict, skip, dtype=dtype)
            kernels.q_sample(x0, t, KEY)
            first = kernels.kl_grad(logits, x0, x_t, t)
            kernels.p_flip(logits, x_t, t)
            kernels.p_sample(logits, x_t, t, KEY)
            for again, before in zip(kernels.kl_grad(logits, x0, x_t, t), first):  # nor into its own tables
                np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("pi", ["scalar", "per bit"])
def test_kernels_take_views(Kernels, predict, pi):
    """Every second column of wider arrays gives what their copies give."""
    chain = make_chain("paper", 7, law(pi, 9))
    views = [array[:, ::2] if array.ndim == 2 else array for array in batch(7, 20, 18, dtype=np.float32)]
    kernels, found = Kernels(chain, predict), []
    for x0, x_t, t, logits in (views, [array.copy() for array in views]):
        draws = kernels.q_sample(x0, t, KEY), kernels.p_sample(logits, x_t, t, KEY), kernels.p_flip(logits, x_t, t)
        found.append([*draws, *kernels.kl_grad(logits, x0, x_t, t)])
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)
