"""The fused reverse chain of the Numba back end: the rows of NumPy's chain, drawn lazily without a difference, by the
law of the learned chain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny

from bdiff_np import sample
from bdiff_np.diffusion import bernoulli
from bdiff_np.errors import InputError
from bdiff_np.kernels.bernoulli.bernoulli_numba import Kernels, Law
from bdiff_np.kernels.training import fused_chain_numba
from bdiff_np.kernels.training.fused_chain_numba import FusedChain

pytestmark = pytest.mark.filterwarnings("ignore:what is known was clamped")  # the fused chain clamps, by design


def model(D: int = 9, scale: float = 0.5, backend: str = "numba", **values):
    """A model with large random weights, so that each bit has a say in all others."""
    made = tiny.model(**{"D": D, "hidden": (33, 17), **values})
    made.params.flat[...] = scale * np.random.default_rng(3).normal(size=made.params.flat.size)
    return made.on(backend)


def alike(found: np.ndarray, expected: np.ndarray) -> None:
    """The same rows but for one in a thousand. Two back ends differ by about 1e-6 in a probability, relatively; a row
    of 9 bits and 20 steps meets a word so near to one once in 10**5 rows, so that with the fewer rows here all are the
    same."""
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.uint8
    assert (found != expected).any(axis=1).sum() <= len(expected) // 1000


def known_bits(n: int, D: int, seed: int = 0) -> np.ndarray:
    """About a third 0, a third 1, a third to be drawn."""
    return np.random.default_rng(seed).integers(-1, 2, (n, D)).astype(np.int8)


CASES = {
    "plain": {},
    "narrow": {"hidden": (5,)},
    "deep": {"hidden": (20, 20, 20)},
    **{name: {"activation": name} for name in ("relu", "gelu", "tanh", "sigmoid")},
    "odds_input": {"odds_input": True},
    "pi-of-each-bit": {"pi": np.linspace(0.1, 0.9, 9)},
    "pi-of-each-bit-x_prev": {"pi": np.linspace(0.1, 0.9, 9), "predict": "x_prev"},
    "x_prev": {"predict": "x_prev"},
    "x_prev-no-skip": {"predict": "x_prev", "skip": False},
    "no-skip": {"skip": False},
    "residual": {"hidden": (20, 20, 20), "residual": True},
    "residual-dropout": {"hidden": (20, 20), "residual": True, "dropout": 0.3},
    "dropout": {"dropout": 0.3},
    "one-step-chain": {"T": 1},
    "long-chain": {"T": 600, "schedule": "cosine"},
    "one-bit": {"D": 1},
    "8-bits": {"D": 8},
    "17-bits": {"D": 17, "time_features": 2},
}


PER_BIT = {"pi": np.linspace(0.1, 0.9, 9), "odds_input": True}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_numpy(case):
    """The same seed gives the same 300 rows on both back ends, whatever network, chain and meaning of its output."""
    fused, numpy = model(**CASES[case]), model(backend="numpy", **CASES[case])
    found = sample.draw(fused, 300, seed=4)
    alike(found, sample.draw(numpy, 300, seed=4))
    numpy.params.flat[...] = 0
    unlearned = sample.draw(numpy, 300, seed=4)
    assert (found != unlearned).mean() > 0.05, "the network has no say in these rows"


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 300])
def test_any_number_of_rows(n):
    """n rows are n rows, also where they fill no whole task of a thread; with none of them known or some."""
    for known in (None, known_bits(n, 9)):
        found = sample.draw(model(), n, seed=2, known=known)
        assert found.shape == (n, 9)
        alike(found, sample.draw(model(backend="numpy"), n, seed=2, known=known))


@pytest.mark.parametrize("steps", [1, 2, 7, 19, 20, None])
@pytest.mark.parametrize("values", [{}, PER_BIT], ids=["plain", "pi-of-each-bit"])
def test_strided_chains(steps, values):
    """A chain that takes some of the steps alone: the network is told the time of the whole chain, the words are those
    of the strided one's own."""
    found = sample.draw(model(**values), 300, seed=1, steps=steps)
    alike(found, sample.draw(model(backend="numpy", **values), 300, seed=1, steps=steps))
    assert (steps in (20, None)) == np.array_equal(found, sample.draw(model(**values), 300, seed=1))


def test_few_roundings_in_many_rows():
    """Of 6000 rows of 17 bits no more than six differ between the back ends."""
    alike(sample.draw(model(D=17), 6000, seed=8), sample.draw(model(D=17, backend="numpy"), 6000, seed=8))


def test_the_comparison_finds_a_wrong_chain():
    """It fails where one step of 20 or one bit in a hundred rows is wrong."""
    rows = sample.draw(model(), 300, seed=4)
    for wrong in (
        sample.draw(model(), 300, seed=5),
        np.where(np.arange(300)[:, None] % 100 == 5, 1 - rows, rows),
        rows[::-1],
    ):
        with pytest.raises(AssertionError):
            alike(wrong, rows)
    with pytest.raises(AssertionError):
        alike(sample.draw(model(), 300, seed=4, steps=19), rows)


# What a row depends on
# ------------------------------------------------------------------------------------------------------------------


def with_threads(monkeypatch, threads: int) -> None:
    monkeypatch.setattr(
        fused_chain_numba, "build", lambda model, kernels, *rows: FusedChain(model, kernels, *rows, threads=threads)
    )


def test_a_row_depends_on_its_number_alone(monkeypatch):
    """Row i is the same for any n, batch, number of threads, and however many steps are taken in one call."""
    m = model(T=200)
    whole = sample.draw(m, 300, seed=3)
    assert len(np.unique(whole, axis=0)) > 50
    for n in (1, 2, 127, 129, 299):
        np.testing.assert_array_equal(sample.draw(m, n, seed=3), whole[:n])
    for batch in (1, 7, 128, 150):
        np.testing.assert_array_equal(sample.draw(m, 160, seed=3, batch=batch), whole[:160])
    for threads in (1, 2, 3, 5):
        with monkeypatch.context() as patch:
            with_threads(patch, threads)
            np.testing.assert_array_equal(sample.draw(m, 300, seed=3), whole)
    for at_once in (1, 3, 1000):
        with monkeypatch.context() as patch:
            patch.setattr(sample, "pace", lambda *_, k=at_once: k)
            np.testing.assert_array_equal(sample.draw(m, 300, seed=3), whole)


@pytest.mark.parametrize(
    "values", [{"time_features": 4}, {"time_features": 32, "hidden": (100, 50)}, {"time_features": 64}], ids=str
)
@pytest.mark.parametrize("steps", [None, 150])
def test_steps_of_a_call_do_not_round_time(values, steps):
    """What the network is told of time is the same to the last bit however many steps a call holds, which the clock
    decides: a matrix product of one row or of many may round otherwise. And it is the product, for the time of the
    whole chain."""
    m = model(T=300, **values)
    kernels = m.kernels(m.steps(steps))
    chain = kernels.chain
    whole = FusedChain(m, kernels)._tables(np.arange(chain.T, 0, -1))
    features = m.net.features[chain.time[chain.T : 0 : -1]].astype(np.float64)
    expected = np.concatenate([features @ array for name, array in m.params.items() if name.endswith("/F")], axis=1)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    for size in (1, 2, 3, 70):
        walk, t = FusedChain(m, kernels), np.arange(chain.T, 0, -1)
        found = np.concatenate([walk._tables(t[k : k + size]) for k in range(0, chain.T, size)])
        np.testing.assert_array_equal(found, whole)


def test_seeds_give_other_rows():
    """Each seed has its own rows, up to the largest one."""
    drawn = {sample.draw(model(), 100, seed=seed).tobytes() for seed in (0, 1, 2**62, 2**63 - 2, 2**63 - 1)}
    assert len(drawn) == 5


def test_progress_adds_up():
    """It is told of all steps of all batches, whatever a call holds, and of none before the first."""
    told = []
    sample.draw(model(), 300, batch=128, progress=told.append)
    assert sum(told) == 3 * 20 and told[0] == 0 and min(told[1:]) >= 1


def test_inputs_are_not_written():
    """Weights, chain and what is known are as they were."""
    m, known = model(), known_bits(20, 9)
    held = m.params.flat.copy(), m.chain.alpha_bar.copy(), m.net.features.copy(), known.copy()
    sample.draw(m, 20, known=known)
    for found, expected in zip((m.params.flat, m.chain.alpha_bar, m.net.features, known), held):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [{"time": "bumps"}, {"time": "readout"}, {"dtype": np.float64}], ids=str)
def test_other_networks_go_step_by_step(values):
    """A network without a compiled form, or in float64, is sampled on Numba too, step by step, with the same rows."""
    m = model(**values)
    assert fused_chain_numba.build(m, m.kernels()) is None
    known = known_bits(60, 9)
    alike(
        sample.draw(m, 60, seed=1, known=known), sample.draw(model(backend="numpy", **values), 60, seed=1, known=known)
    )


# The lazy rule
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_asking_for_all_rows_changes_nothing(monkeypatch, case, scale):
    """The network is asked only for rows that can flip a bit: asked for all of them it leaves every row as it is, also
    where it is as sure as can be, so that probabilities lie at their bound. Asked for none, it would not."""
    values = {"T": 100, **CASES[case]}
    m, known = model(scale=scale, **values), known_bits(300, values.get("D", 9))
    lazy, lazy_known = sample.draw(m, 300, seed=6), sample.draw(m, 300, seed=6, known=known)
    find, low = Kernels.limits, []

    def forced(value):
        def limits(self, t, D):
            low.append((find(self, t, D) < 2**31).any())
            return np.full_like(find(self, t, D), value)

        return limits

    monkeypatch.setattr(Kernels, "limits", forced(2**32 - 1))
    np.testing.assert_array_equal(sample.draw(m, 300, seed=6), lazy)
    np.testing.assert_array_equal(sample.draw(m, 300, seed=6, known=known), lazy_known)
    assert any(low) == (values.get("predict") != "x_prev" and values["T"] > 1), "no step of these leaves a row out"
    monkeypatch.setattr(Kernels, "limits", forced(0))
    assert not np.array_equal(sample.draw(m, 300, seed=6), lazy)


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize(
    "values", [{}, {"skip": False}, {"pi": np.linspace(0.01, 0.99, 9)}, {"schedule": "cosine", "T": 1000}], ids=str
)
def test_limits_leave_no_flip_out(steps, values):
    """A word above the limit of its bit flips it under no network: the flip's probability, in units of 2**-32, for
    logits as large as can be, is at most one more; and the limit is no more than 2e-5 above the largest of them, so
    that it is worth having."""
    m = model(**values)
    chain = m.steps(steps)
    kernels = m.kernels(chain)
    t = np.arange(chain.T, 0, -1)
    limits = kernels.limits(t, m.D)
    assert limits.shape == (len(t), 2, 9) and limits.dtype == np.uint32
    for shown in (0, 1):
        x_t, largest = np.full((len(t), 9), shown, np.uint8), np.zeros((len(t), 9))
        for logit in (-1e30, -1e3, -30, -1, 0, 1, 30, 1e3, 1e30):
            p = kernels.p_flip(np.full((len(t), 9), logit, np.float32), x_t, t).astype(np.float64)
            largest = np.maximum(largest, p * 2.0**32)
        assert (np.minimum(np.ceil(largest) - 1, 2.0**32 - 1) <= limits[:, shown]).all()
        assert (limits[:, shown] <= largest * (1 + 2e-5) + 1).all()


# Known bits
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, steps",
    [({}, None), ({}, 7), ({"predict": "x_prev"}, None), (PER_BIT, None), (PER_BIT, 7)],
    ids=["plain", "strided", "x_prev", "pi-of-each-bit", "pi-of-each-bit-strided"],
)
def test_known_bits(values, steps):
    """Bits known for each row on its own, or for all rows alike, stand as they are, and the others follow them as on
    NumPy."""
    m, numpy = model(scale=0.3, **values), model(scale=0.3, backend="numpy", **values)
    free = sample.draw(m, 300, seed=2, steps=steps)
    for known in (known_bits(300, 9), known_bits(1, 9, seed=7)[0]):
        found = sample.draw(m, 300, seed=2, steps=steps, known=known)
        alike(found, sample.draw(numpy, 300, seed=2, steps=steps, known=known))
        every = np.broadcast_to(known, found.shape)
        np.testing.assert_array_equal(found[every >= 0], every[every >= 0])
        assert (found != free)[every < 0].mean() > 0.02, "the unknown bits do not look at the known ones"
        assert 0.02 < found[every < 0].mean() < 0.98


def test_a_row_depends_on_what_is_known_of_it_alone():
    """Whatever is known of other rows, a row is the same; with nothing known it is the row that is drawn freely, with
    all known it is that."""
    m, known = model(), known_bits(200, 9)
    found = sample.draw(m, 200, seed=5, known=known)
    changed = known.copy()
    changed[::2] = known_bits(100, 9, seed=1)
    np.testing.assert_array_equal(sample.draw(m, 200, seed=5, known=changed)[1::2], found[1::2])
    np.testing.assert_array_equal(sample.draw(m, 150, seed=5, known=known[:150], batch=7), found[:150])
    free = sample.draw(m, 200, seed=5)
    np.testing.assert_array_equal(sample.draw(m, 200, seed=5, known=np.full(9, -1)), free)
    some = np.where(np.arange(200)[:, None] % 3 == 0, known, -1)
    np.testing.assert_array_equal(sample.draw(m, 200, seed=5, known=some)[1::3], free[1::3])
    np.testing.assert_array_equal(sample.draw(m, 200, seed=5, known=abs(known)), abs(known))


def test_known_bits_of_any_type():
    """int8 or int64, lists, rows in Fortran's order or turned around: the same rows."""
    m, known = model(), known_bits(30, 9)
    expected = sample.draw(m, 30, known=known)
    for same in (
        known.astype(np.int64),
        known.tolist(),
        np.asfortranarray(known),
        known[::-1].copy()[::-1],
        known.astype(float),
    ):
        np.testing.assert_array_equal(sample.draw(m, 30, known=same), expected)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize(
    "known",
    [np.zeros(8), np.zeros(10), np.zeros((1, 9)), np.zeros((21, 9)), np.zeros((9, 20)), np.zeros((20, 9, 1)), 0, [],
    np.full(9, 2), np.full(9, -2),
     np.full(9, 0.5), np.full(9, np.nan), np.full(9, 255), ["0"] * 9],
    ids=lambda known: f"{np.shape(known)}-{np.ravel(known)[:1]}",
)  # fmt: skip
def test_faults_of_what_is_known(backend, known):
    """Another shape than (D,) or (n, D) is a fault that names the shapes, another value than -1, 0 and 1 one that names
    these."""
    says = (
        "what is known of a bit is 0, 1 or"
        if np.shape(known) == (9,)
        else r"what is known of 20 rows of 9 bits has shape .*; give \(9,\) or \(20, 9\)"
    )
    with pytest.raises(InputError, match=says):
        sample.draw(model(backend=backend), 20, known=known)


def test_one_compiled_form_serves_all():
    """Whatever network, chain, seed and form of what is known: nothing compiles a second time, for that would take
    seconds without a word."""
    for case in CASES.values():
        sample.draw(model(**case), 5, seed=2**63 - 1)
    known = known_bits(20, 9)
    for form in (
        None,
        known,
        known[0],
        known.tolist(),
        known.astype(float),
        np.asfortranarray(known),
        np.repeat(known, 2, axis=1)[:, ::2],
    ):
        sample.draw(model(), 20, seed=np.int64(1), steps=7, known=form)
    laws = [law.instance_class for _, _, law, *_ in fused_chain_numba.walk_back.signatures]
    assert laws.count(Law) == 1


def test_less_than_no_rows():
    with pytest.raises(InputError, match="-1 rows"):
        sample.draw(model(), -1)


# The law
# ----------------------------------------------------------------------------------------------------------------------

STATES = (np.arange(8)[:, None] >> np.arange(3)) & 1  # (8, 3): all rows of three bits


def law(m, steps: int | None, known: np.ndarray | None) -> np.ndarray:
    """The probability of each of STATES under the learned reverse chain, exactly: 8 x 8 matrices of transition in
    float64, multiplied."""
    chain = m.steps(steps)
    config, free = m.config.model, np.full(3, True) if known is None else known < 0
    at_start = np.where(STATES == 1, chain.pi, 1 - chain.pi)
    if known is not None:
        at_start = np.where(free, at_start, STATES == known)
    p = at_start.prod(1)
    for t in range(chain.T, 0, -1):
        every = np.full(8, t)
        logits = m.output(STATES.astype(np.uint8), chain.time[every]).astype(np.float64)
        if config.skip:
            logits = logits + bernoulli.evidence(chain, config.predict, STATES, every)
        flip = bernoulli.sigmoid(bernoulli.p_flip_logit(chain, config.predict, logits, STATES, every)) * free
        turned = STATES[:, None] != STATES[None]  # (from, to, bit)
        p = p @ np.where(turned, flip[:, None], 1 - flip[:, None]).prod(2)
    assert p.sum() == pytest.approx(1)
    return p


def chi_square(rows: np.ndarray, p: np.ndarray) -> tuple[float, int]:
    """Of the counts of STATES against a law, and the degrees of freedom; infinite where a state is drawn that the law
    excludes."""
    counts = np.bincount(rows @ (1 << np.arange(3)), minlength=8)
    if counts[p == 0].any():
        return math.inf, 0
    expected = len(rows) * p[p > 0]
    assert expected.min() > 5
    return float(((counts[p > 0] - expected) ** 2 / expected).sum()), int((p > 0).sum()) - 1


@pytest.mark.parametrize(
    "known", [None, np.array([-1, 1, -1]), np.array([0, -1, 1])], ids=["free", "one-known", "two-known"]
)
@pytest.mark.parametrize(
    "values, steps",
    [
        ({}, None),
        ({}, 3),
        ({"predict": "x_prev"}, None),
        ({"skip": False}, None),
        ({"pi": np.array([0.3, 0.5, 0.8]), "schedule": "linear"}, 5),
        ({"odds_input": True, "T": 60}, None),
    ],
    ids=["plain", "strided", "x_prev", "no-skip", "pi-of-each-bit", "odds_input"],
)
def test_law_of_the_rows(values, steps, known):
    """40,000 rows of three bits have the frequencies that all paths of the learned chain give together, worked out by
    enumeration: chi-square below its 99.9 % point. The law of a chain of one step fewer, or of the untaught network, is
    told from it."""
    m = model(**{"D": 3, "T": 6, "hidden": (8,), "scale": 0.8, **values})
    rows = sample.draw(m, 40_000, seed=11, steps=steps, known=known)
    found, freedom = chi_square(rows, law(m, steps, known))
    assert freedom == {0: 7, 1: 3, 2: 1}[0 if known is None else int((known >= 0).sum())]
    assert found < {7: 24.3, 3: 16.3, 1: 10.8}[freedom]
    m.params.flat[...] = 0
    assert chi_square(rows, law(m, steps, known))[0] > 100
