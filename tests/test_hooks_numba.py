"""The fused step and the fused chain know no family: filled by one of real numbers, with two outputs an element, they
are its five lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import tiny
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from test_fused_steps import distance, in_the_middle, snapshot

from bdiff_np import data, diffusion, rng, sample
from bdiff_np import model as models
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import fused_chain_numba, fused_step_numba, hooks_numba, input_numba
from bdiff_np.rng import Key
from bdiff_np.train import Training

f32 = np.float32
UNIT, HALF, OFTEN = f32(2.0**-32), f32(0.5), np.uint32(2**31)


class Law(NamedTuple):
    level: np.ndarray  # (T + 1,) float32, the noise at t


class Kernels:
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

    def limits(self, t, D):
        return np.full((len(t), 1), OFTEN)


def read(x_t, t, features, weight=None):
    return x_t if weight is None else np.concatenate([x_t, x_t * weight[t, None]], axis=1), features[t]


@njit
def read_rows(law, x_t, out):
    for r in range(x_t.shape[0]):
        for d in range(x_t.shape[1]):
            out[r, d] = x_t[r, d]


@njit
def q_sample(law, t, words, x0, x_t):
    for r in range(x0.shape[0]):
        for d in range(x0.shape[1]):
            x_t[r, d] = x0[r, d] + law.level[t[r]] * (f32(words[r, d]) * UNIT - HALF)


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
def may_change(law, limits, words, x):
    return words[0] < limits[0]


@njit
def p_sample(law, t, out, words, work, x_t):
    for r in range(x_t.shape[0]):
        for d in range(x_t.shape[1]):
            work[d] = f32(words[r, d]) * UNIT - HALF
            x_t[r, d] = out[r, d] + law.level[t[r] - 1] * work[d]


hooks_numba.fill(Law, read_rows=read_rows, q_sample=q_sample, kl_grad=kl_grad, may_change=may_change, p_sample=p_sample)


class Numbers(data.Data):
    dtype, D = np.dtype(f32), 5

    def __init__(self, N):
        self.array = np.random.default_rng(2).normal(size=(N, self.D)).astype(f32)

    def __len__(self):
        return len(self.array)

    def take(self, index):
        return self.array[index]

    @property
    def nbytes(self):
        return self.array.nbytes

    @classmethod
    def check_known(cls, known, n, D):
        return ~np.isnan(known), known


class Whole(Numbers):
    """Whole numbers, though x_t is none."""

    dtype = np.dtype(np.int32)

    def __init__(self, N):
        self.array = np.random.default_rng(2).integers(-3, 4, (N, self.D), np.int32)


class Toy(diffusion.Family):
    name, data = "toy", "numbers"

    def outputs(self, D):
        return 2 * D


class WholeToy(Toy):
    x_dtype = np.dtype(f32)

    def to_data(self, x_0):
        return np.rint(x_0).astype(np.int32)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    """What is compiled for the toy's law stays out of the cache on disk: who reads that would have to import this
    file."""
    for module in (fused_step_numba, fused_chain_numba, input_numba):
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                monkeypatch.setattr(function, "_cache", NullCache())


@pytest.fixture
def job(monkeypatch):
    """job(backend) : a training of the toy under way; whole : of the one whose data is whole numbers."""
    module = SimpleNamespace(Kernels=Kernels, read=read)
    monkeypatch.setattr(diffusion, "kernels", lambda family, ops: module)

    def make(backend, fused=True, whole=False, **values):
        family, kind = (WholeToy(), Whole) if whole else (Toy(), Numbers)
        monkeypatch.setattr(models, "family_of", lambda config: family)
        monkeypatch.setattr(models, "kind_of", lambda family: kind)
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
            Training(tiny.build(tiny.settings(**chosen), Numbers.D, np.asarray(0.5), backend=backend), kind(90))
        )

    return make


@pytest.mark.parametrize(
    "values",
    [{}, {"odds_input": True}, {"num_sample_steps": 3}, {"hidden": (300,), "batch_size": 90, "num_sample_steps": 4}],
    ids=str,
)
def test_fused_steps_are_the_five_lines(job, values):
    """On NumPy, to float32 rounding of the movement of twelve steps; losses likewise."""
    fused, lines = job("numba", **values), job("numpy", **values)
    assert isinstance(fused.fused, fused_step_numba.FusedSteps) and lines.fused is None
    start, losses = snapshot(fused), [each.advance(12) for each in (fused, lines)]
    for name, array in snapshot(fused).items():
        assert distance(array - start[name], snapshot(lines)[name] - start[name]) < 2e-5, name
    np.testing.assert_allclose(*losses, rtol=5e-6)


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("values", [{}, {"odds_input": True}], ids=str)
def test_the_fused_chain_is_the_chain(job, monkeypatch, values, steps):
    """Rows are those of the chain step by step, known elements included; how many there are moves a row by no more than
    BLAS rounds."""
    model, there = job("numba", **values).model, job("numpy", **values).model
    asked = []
    build = fused_chain_numba.build
    monkeypatch.setattr(fused_chain_numba, "build", lambda *arguments: asked.append(build(*arguments)) or asked[-1])
    known = np.where(np.arange(300 * Numbers.D).reshape(300, -1) % 7 == 0, 0.25, np.nan).astype(f32)
    rows = sample.draw(model, 300, seed=4, steps=steps, known=known)
    assert (
        isinstance(asked[0], fused_chain_numba.FusedChain)
        and (rows[~np.isnan(known)] == 0.25).all()
        and rows.dtype == f32
    )
    np.testing.assert_allclose(rows, sample.draw(there, 300, seed=4, steps=steps, known=known), rtol=1e-5, atol=1e-5)
    free = sample.draw(model, 300, seed=4, steps=steps)
    np.testing.assert_allclose(sample.draw(model, 40, seed=4, steps=steps), free[:40], rtol=1e-5, atol=1e-5)


def test_what_is_walked_may_be_of_another_type_than_the_data(job):
    """Real x_t of whole numbers: trained alike on both back ends, and drawn as whole numbers again."""
    fused, lines = job("numba", whole=True), job("numpy", whole=True)
    np.testing.assert_allclose(fused.advance(12), lines.advance(12), rtol=5e-6)
    assert fused.fused is not None and fused.fused.space.x_t.dtype == f32 and fused.fused.space.x0.dtype == np.int32
    rows = sample.draw(fused.model, 200, seed=4)
    assert rows.dtype == np.int32 and len(np.unique(rows)) > 3
    assert (rows != sample.draw(lines.model, 200, seed=4)).mean() < 0.01  # those that lie near a half


def test_an_element_that_is_not_asked_for_stays(job):
    """Half of the rows keep their value in each step: the family's word on it is taken."""
    model = job("numba").model
    kernels = model.kernels()
    x = np.random.default_rng(0).normal(size=(300, Numbers.D)).astype(f32)
    new = x.copy()
    fused_chain_numba.build(model, kernels, 300)(new, 5, 1, seed=4)
    changes = rng.words(Key(4, rng.P_NOISE, 5), 300, Numbers.D)[:, 0] < OFTEN
    assert ((new != x).all(axis=1) == changes).all() and (new == x).all(axis=1).sum() == (~changes).sum() > 100


def test_without_a_law_nothing_is_fused(job):
    """A family that does not fill the hooks trains by the five lines and walks step by step."""
    plain = job("numba", fused=False)
    assert plain.fused is None and fused_chain_numba.build(plain.model, plain.kernels) is None
    assert plain.advance(4) == pytest.approx(job("numpy").advance(4), rel=5e-6)
