"""The fused KL of the Numba back end: what `evaluate` works out operation by operation, whatever the threads and the
calls."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from bdiff_np import evaluate, rng
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion import bernoulli
from bdiff_np.kernels.bernoulli.bernoulli_numba import Law
from bdiff_np.kernels.mlp import mlp_numba
from bdiff_np.kernels.training import fused_kl_numba
from bdiff_np.kernels.training.fused_kl_numba import FusedKL
from bdiff_np.nets.layers import Dense
from bdiff_np.rng import Key

KEY = Key(11, rng.EVAL_NOISE, 3)


def model(backend: str = "numba", D: int = 9, dtype=np.float32, pi=0.25, **values):
    made = tiny.build(tiny.settings(**{"hidden": (33, 17), **values}), D, np.asarray(pi), dtype=dtype)
    made.params.flat[...] = 0.4 * np.random.default_rng(3).normal(size=made.params.flat.size)
    return made.on(backend) if backend != "numpy" else made


def rows(n: int, D: int = 9) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 2, (n, D)).astype(np.uint8)


CASES = {
    "plain": {},
    "wide": {"hidden": (300, 7)},
    "residual": {"hidden": (20, 20, 20), "residual": True},
    "dropout": {"dropout": 0.3},  # of which nothing happens here
    "odds_input": {"odds_input": True},
    "x_prev": {"predict": "x_prev"},
    "no-skip": {"skip": False},
    "relu": {"activation": "relu"},
    "long-chain": {"T": 3000, "schedule": "cosine"},  # hardly any two rows at one t
    "pi-of-each-bit": {"pi": np.linspace(0.1, 0.9, 9)},
    "one-bit": {"D": 1},
    "17-bits": {"D": 17},
    "cross-entropy": {"bce_weight": 3.0},  # is no part of the bound
}


def definition(m, x0, t, words) -> np.ndarray:
    """In float64, from diffusion/bernoulli.py and the network on NumPy."""
    chain, settings = m.chain, m.config.model
    exact = tiny.build(m.config, m.D, chain.pi, dtype=np.float64)
    exact.params.flat[...] = m.params.flat
    x_t = bernoulli.q_sample(chain, x0, t, words)
    out = exact.net.forward(exact.ops, exact.params, x_t, t)[0]
    if settings.skip:
        out = out + bernoulli.evidence(chain, settings.predict, x_t, t)
    return bernoulli.kl(chain, settings.predict, out, x0, x_t, t)[0].sum(1)


@pytest.mark.parametrize("case", CASES)
def test_kl_is_that_of_the_definition(case):
    """A thousand rows at steps of the whole chain agree with float64, each to 1e-4 and 1e-5 of the largest; and a
    wrong row of noise is seen."""
    m = model(**CASES[case])
    x0, t = rows(1000, m.D), rng.stratified_t(KEY, 1000, m.chain.T)
    found = fused_kl_numba.build(m, m.kernels())(x0, t, KEY, 70)
    expected = definition(m, x0, t, rng.draws(KEY, 1000, m.D, 70))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
    wrong = definition(m, x0, t, rng.draws(KEY, 1000, m.D, 71))
    assert not np.allclose(found, wrong, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.parametrize("n", [1, 5, 64, 70, 300])
def test_every_row_at_each_step(n):
    """`each` is one call a step in which all rows have the noise of one number."""
    m = model()
    kl, x0, t = fused_kl_numba.build(m, m.kernels()), rows(n), np.array([1, 1, 7, 20, 3])
    found = kl(x0, t, KEY, 4, each=True).reshape(5, n)
    for k, step in enumerate(t):
        words = np.repeat(rng.draws(KEY, 1, m.D, 4 + k), n, axis=0)
        expected = definition(m, x0, np.full(n, step), words)
        np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [(33, 17), (300, 7)])
def test_the_same_whatever_threads_and_calls(hidden):
    """To the last bit; to rounding where a call ends in the middle of a run of one t."""
    m = model(hidden=hidden)
    x0, t = rows(700), rng.stratified_t(KEY, 700, m.chain.T)
    expected = FusedKL(m, m.kernels(), threads=1)(x0, t, KEY)
    for threads in (2, 3):
        np.testing.assert_array_equal(FusedKL(m, m.kernels(), threads=threads)(x0, t, KEY), expected)
    one = FusedKL(m, m.kernels())
    parts = [one(x0[lo : lo + 123], t[lo : lo + 123], KEY, lo) for lo in range(0, 700, 123)]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4, atol=1e-6)
    assert one(x0[:0], t[:0], KEY).shape == (0,)


@pytest.mark.parametrize("values", [{}, {"residual": True, "hidden": (20, 20)}], ids=str)
@pytest.mark.parametrize("steps", [None, 5])
def test_bound_and_score_are_those_of_numpy(values, steps):
    """On a chain with steps left out too; the estimates, which have the same noise, to 1e-5."""
    data = Bits.from_array(rows(50))
    one, other = (model(backend, **values) for backend in ("numba", "numpy"))
    found, expected = (evaluate.bound(m, data, evaluations=5000, steps=steps) for m in (one, other))
    assert found.bits_per_sequence == pytest.approx(expected.bits_per_sequence, rel=1e-5)
    assert found.standard_error_bits == pytest.approx(expected.standard_error_bits, rel=1e-4)
    scores = [evaluate.score(m, data, evaluations=40) for m in (one, other)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_one_compiled_form_serves_all():
    """Whatever network, chain, seed and form of the rows: nothing compiles a second time, for that would take seconds
    without a word."""
    for case in CASES.values():
        m = model(**case)
        evaluate.bound(m, Bits.from_array(rows(50, m.D)), evaluations=2000, seed=2**63 - 1)
        evaluate.score(m, Bits.from_array(rows(5, m.D)), evaluations=np.int64(10))
    m, x0 = model(), rows(20)
    for form in (x0, np.asfortranarray(x0), np.repeat(x0, 2, axis=1)[:, ::2]):
        FusedKL(m, m.kernels())(form, np.arange(1, 21, dtype=np.int32), KEY)
    laws = [law.instance_class for _, _, law, *_ in fused_kl_numba.work_out.signatures]
    assert laws.count(Law) == 1


@pytest.mark.parametrize("values", [{"time": "bumps"}, {"dtype": np.float64}], ids=str)
def test_other_networks_go_by_operations(values):
    m = model(**values)
    assert fused_kl_numba.build(m, m.kernels()) is None
    data = Bits.from_array(rows(50))
    found, expected = (evaluate.bound(x, data, evaluations=2000) for x in (m, model("numpy", **values)))
    assert found.bits_per_sequence == pytest.approx(expected.bits_per_sequence, rel=1e-5)


ODD = {
    "no-film": lambda s: [s[0], s[1]._replace(dense=Dense("dense1", 33, 17, "silu")), s[2]],
    "no-activation": lambda s: [s[0]._replace(dense=Dense("dense0", 9, 33, None, 16)), *s[1:]],
    "adds-without-a-block": lambda s: [s[0], s[1]._replace(adds=True), s[2]],
    "a-block-without-an-end": lambda s: [s[0], s[1]._replace(norm="norm1"), s[2]],
    "dropout-at-the-end": lambda s: [*s[:2], s[2]._replace(rate=0.5)],
    "norm-at-the-start": lambda s: [s[0]._replace(norm="norm0"), *s[1:]],
    "no-hidden-stage": lambda s: s[2:],
    "none": lambda s: None,
}


@pytest.mark.parametrize("case", ODD)
def test_stages_that_compiled_code_does_not_know(case):
    """A net that describes itself otherwise is not fused, and not taken for another."""
    m = model()
    assert mlp_numba.fits(m.net)
    m.net.stages = ODD[case](m.net.stages)
    assert not mlp_numba.fits(m.net) and fused_kl_numba.build(m, m.kernels()) is None
