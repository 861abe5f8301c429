"""The fused step, chain and KL know no family: filled by one of real numbers, with two outputs an element, they are its
five lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import tiny
from guests.data.toypoints import Points
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from test_fused_steps import distance, in_the_middle, snapshot

from bdiff_np import diffusion, evaluate, rng, sample
from bdiff_np import model as models
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import fused_chain_numba, fused_kl_numba, fused_step_numba, hooks_numba, input_numba
from bdiff_np.rng import Key
from bdiff_np.train import Training

f32 = np.float32
UNIT, HALF, OFTEN = f32(2.0**-32), f32(0.5), np.uint32(2**31)


class Law(NamedTuple):
    level: np.ndarray  # (T + 1,) float32, the noise at t


class Kernels(diffusion.Kernels):
    """x_t = x_0 + level[t] noise, noise uniform; the network gives x_0 and, for no use, its square. About half of the
    steps back change nothing."""

    work = 1

    def __init__(self, chain, dtype=f32, fused=False, **options):
        self.chain, self.level = chain, np.linspace(0, 2, chain.T + 1).astype(f32)
        self.law = Law(self.level) if fused else None

    def q_sample(self, x0, t, key, first_row=0):
        return x0 + self.level[t, None] * (rng.words(key, *x0.shape, first_row).astype(f32) * UNIT - HALF)

    def kl_grad(self, out, x0, x_t, t, value=True):
        D = x0.shape[1]
        off = np.concatenate([out[:, :D] - x0, out[:, D:] - x0**2], axis=1)
        return (HALF * off**2).sum(1, dtype=np.float64) if value else None, off

    def p_sample(self, out, x_t, t, key, first_row=0):
        words = rng.words(key, *x_t.shape, first_row)
        new = out[:, : x_t.shape[1]] + self.level[t - 1, None] * (words.astype(f32) * UNIT - HALF)
        return np.where(words[:, :1] < OFTEN, new, x_t)

    def prior(self, rows, D, key, first_row=0):
        return rng.words(key, rows, D, first_row).astype(f32) * UNIT - HALF

    def blocks(self, D):
        """A word for each element."""
        return -(-D // 4)

    def limits(self, t, D):
        return np.full((len(t), 1), OFTEN)


def read(chain, x_t, t, features, weight=None):
    return x_t if weight is None else np.concatenate([x_t, x_t * weight[t, None]], axis=1), features[t]


@njit
def read_row(law, t, x_t, out):
    for d in range(x_t.size):
        out[d] = x_t[d]


@njit
def q_sample(law, t, noise, x0, x_t):
    for r in range(x0.shape[0]):
        for d in range(x0.shape[1]):
            x_t[r, d] = x0[r, d] + law.level[t[r]] * (f32(noise.words[r, d]) * UNIT - HALF)


@njit
def kl_grad(law, t, out, x0, x_t, work, dout, kl):
    B, D = x0.shape
    for r in range(B):
        total = 0.0
        for d in range(D):
            dout[r, d] = out[r, d] - x0[r, d]
            dout[r, D + d] = out[r, D + d] - x0[r, d] * x0[r, d]
            total += HALF * dout[r, d] * dout[r, d] + HALF * dout[r, D + d] * dout[r, D + d]
        if kl.size > 0:
            kl[r] = total


@njit
def may_change(law, limits, noise, x, may):
    for r in range(x.shape[0]):
        may[r] = noise.words[r, 0] < limits[0]


@njit
def p_sample(law, t, out, noise, work, x_t):
    for r in range(x_t.shape[0]):
        for d in range(x_t.shape[1]):
            work[d] = f32(noise.words[r, d]) * UNIT - HALF
            x_t[r, d] = out[r, d] + law.level[t[r] - 1] * work[d]


hooks_numba.fill(Law, read_row=read_row, q_sample=q_sample, kl_grad=kl_grad, may_change=may_change, p_sample=p_sample)


class Numbers(Points):
    """Whole numbers, though x_t is none."""

    dtype, D = np.dtype(np.int32), 5

    def __init__(self, N):
        self.array = np.random.default_rng(2).integers(-3, 4, (N, self.D), np.int32)

    @classmethod
    def check_known(cls, known, n, D):
        return ~np.isnan(known), known


class Toy(diffusion.Family):
    name, data, x_dtype = "toy", "numbers", np.dtype(f32)

    def exact_terms(self, chain, x0, kind="learned"):
        return np.zeros(len(x0))

    def outputs(self, D, settings):
        return 2 * D

    def to_data(self, chain, x_0):
        return np.rint(x_0).astype(np.int32)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    """What is compiled for the toy's law stays out of the cache on disk: who reads that would have to import this
    file."""
    for module in (fused_step_numba, fused_chain_numba, fused_kl_numba, input_numba):
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                monkeypatch.setattr(function, "_cache", NullCache())


@pytest.fixture
def job(monkeypatch):
    """job(backend) : a training of the toy under way."""
    module = SimpleNamespace(Kernels=Kernels, read=read)
    monkeypatch.setattr(diffusion, "kernels", lambda family, ops: module)
    monkeypatch.setattr(models, "family_of", lambda config: Toy())
    monkeypatch.setattr(models, "kind_of", lambda family: Numbers)

    def make(backend, fused=True, **values):
        monkeypatch.setattr(
            module, "Kernels", lambda *arguments, **options: Kernels(*arguments, fused=fused, **options)
        )
        chosen = {
            "steps_per_epoch": 64,
            "epochs": 100,
            "hidden": (33, 17),
            "batch_size": 70,
            "clip_thresh": 100.0,
            "T": 7,
        } | values
        return in_the_middle(
            Training(tiny.build(tiny.settings(**chosen), Numbers.D, np.asarray(0.5), backend=backend), Numbers(90))
        )

    return make


CASES = ({}, {"odds_input": True}, {"num_sample_steps": 3}, {"hidden": (300,), "batch_size": 90, "num_sample_steps": 4})


def test_fused_steps_are_the_five_lines(job):  # one test, since it compiles for seconds
    """On NumPy, to float32 rounding of the movement of twelve steps; losses likewise."""
    for values in CASES:
        fused, lines = job("numba", **values), job("numpy", **values)
        assert isinstance(fused.fused, fused_step_numba.FusedSteps) and lines.fused is None
        start, losses = snapshot(fused), [each.advance(12) for each in (fused, lines)]
        for name, array in snapshot(fused).items():
            moved, expected = array - start[name], snapshot(lines)[name] - start[name]
            assert distance(moved, expected) < 2e-5, (values, name)
        np.testing.assert_allclose(*losses, rtol=5e-6)


@pytest.mark.filterwarnings("ignore:what is known was clamped:UserWarning")
def test_the_fused_chain_is_the_chain(job):
    """Rows are those of the chain step by step, known elements included, and depend on their number alone; before they
    are made whole, what BLAS rounds moves them in the last digits."""
    for values, steps in ((CASES[0], None), (CASES[0], 3), (CASES[1], None), (CASES[1], 3)):
        model, there = job("numba", **values).model, job("numpy", **values).model
        known = np.where(np.arange(300 * Numbers.D).reshape(300, -1) % 7 == 0, 2, np.nan)
        rows = sample.draw(model, 300, seed=4, steps=steps, known=known)
        assert (rows[~np.isnan(known)] == 2).all() and rows.dtype == np.int32 and len(np.unique(rows)) > 3
        by_steps = sample.draw(there, 300, seed=4, steps=steps, known=known)
        free = sample.draw(model, 300, seed=4, steps=steps)
        for found, expected in ((rows, by_steps), (sample.draw(model, 40, seed=4, steps=steps), free[:40])):
            assert (found != expected).mean() < 0.005  # numbers that lay near a half
        chain, ends = model.steps(steps), [np.zeros((300, Numbers.D), f32) for _ in range(2)]
        fused = fused_chain_numba.build(model, model.kernels(chain))
        for walk, x in zip((fused, sample._walk_by_steps(there, there.kernels(chain), chain)), ends):
            walk(x, chain.T, chain.T, seed=4, first_row=0, known=None)
        np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-5)
    element_that_is_not_asked_for_stays(model)


def element_that_is_not_asked_for_stays(model) -> None:
    """Half of the rows keep their value in each step: the family's word on it is taken."""
    kernels = model.kernels()
    x = np.random.default_rng(0).normal(size=(300, Numbers.D)).astype(f32)
    new = x.copy()
    fused_chain_numba.build(model, kernels, 300)(new, 5, 1, seed=4)
    changes = rng.words(Key(4, rng.P_NOISE, 5), 300, Numbers.D)[:, 0] < OFTEN
    assert ((new != x).all(axis=1) == changes).all() and (new == x).all(axis=1).sum() == (~changes).sum() > 100


def test_the_fused_kl_is_that_of_the_operations(job):
    """Each row's at a step of its own; and every row's at each step, with the noise of the step's number."""
    key, x0, t = Key(4, rng.EVAL_NOISE, 2), Numbers(90).array, rng.stratified_t(Key(4, rng.EVAL_TIME, 2), 90, 7)
    for values in CASES[:3]:
        fused, operations = (evaluate._kl(m, m.kernels()) for m in (job(b, **values).model for b in ("numba", "numpy")))
        assert isinstance(fused, fused_kl_numba.FusedKL) and not isinstance(operations, fused_kl_numba.FusedKL)
        np.testing.assert_allclose(fused(x0, t, key, 5), operations(x0, t, key, 5), rtol=1e-5)
        found = fused(x0, t[:3], key, 5, each=True).reshape(3, 90)
        for k in (0, 44, 89):
            expected = operations(np.repeat(x0[k : k + 1], 3, axis=0), t[:3], key, 5)
            np.testing.assert_allclose(found[:, k], expected, rtol=1e-5)


def test_without_a_law_nothing_is_fused(job):
    """A family that does not fill the hooks trains by the five lines and walks step by step."""
    plain = job("numba", fused=False)
    assert plain.fused is None and fused_chain_numba.build(plain.model, plain.kernels) is None
    assert plain.advance(4) == pytest.approx(job("numpy").advance(4), rel=5e-6)
