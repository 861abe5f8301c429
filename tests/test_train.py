"""Training: which rows and steps a batch holds, that a step is its five lines, and that seeds decide everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny import HEARTBEATS, build, model, settings

from bdiff_np import evaluate, rng
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.errors import InputError
from bdiff_np.optim.adamw import AdamW, Diverged
from bdiff_np.rng import Key
from bdiff_np.train import MOST_STEPS, Training


def numbered(N: int, D: int = 8) -> Bits:
    """N different rows: row k is the number k, so that a batch tells which rows it holds."""
    return Bits.from_array((np.arange(N)[:, None] >> np.arange(D)) & 1)


def numbers(bits: np.ndarray) -> np.ndarray:
    return bits.astype(int) @ (1 << np.arange(bits.shape[1]))


def training(rows: Bits | None = None, dtype=np.float32, **values) -> Training:
    rows = numbered(10) if rows is None else rows
    return Training(build(settings(**values), rows.D, np.asarray(0.25), dtype=dtype), rows)


# Batches
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N, size", [(10, 4), (10, 10), (10, 3), (10, 1), (7, 5), (1, 1), (3, 64)])
def test_each_pass_covers_every_row_once(N, size):
    """The rows of successive batches, end to end, are passes over the data: each a permutation, though batches straddle
    two of them."""
    job = training(numbered(N), batch_size=size)
    b = min(N, size)
    assert job.batch_rows == b
    stream = np.concatenate([numbers(job.batch(step)[0]) for step in range(1, 5 * N + 1)])
    assert len(stream) == 5 * N * b
    passes = stream.reshape(-1, N)
    np.testing.assert_array_equal(np.sort(passes, 1), np.tile(np.arange(N), (len(passes), 1)))


def test_each_pass_has_an_order_of_its_own():
    """No two of 60 passes over ten rows are in the same order, and each place meets each row about equally often."""
    job = training(batch_size=10)
    orders = np.array([numbers(job.batch(step)[0]) for step in range(1, 601)])
    assert len(np.unique(orders[:60], axis=0)) == 60
    counts = np.array([np.bincount(orders[:, place], minlength=10) for place in range(10)])
    chi_square = ((counts - 60) ** 2 / 60).sum()  # 81 degrees of freedom
    assert 45 < chi_square < 130


def test_a_batch_is_a_function_of_the_step():
    """Batches asked for out of turn, twice, or by another training of the same seed are the same: a resumed run meets
    the same rows."""
    job, other = training(batch_size=4), training(batch_size=4)
    in_turn = [job.batch(step) for step in range(1, 30)]
    for step in (29, 3, 3, 17, 1):
        for a, b in zip(other.batch(step), in_turn[step - 1]):
            np.testing.assert_array_equal(a, b)


def test_repeated_rows():
    """num_sample_steps r shows each row of the batch r times, at timesteps T / r apart, up to one step."""
    job = training(batch_size=4, num_sample_steps=5, T=20)
    for step in range(1, 40):
        x0, t = job.batch(step)
        assert x0.shape == (20, 8) and t.shape == (20,)
        rows = numbers(x0).reshape(5, 4)
        np.testing.assert_array_equal(rows, np.tile(rows[0], (5, 1)))
        np.testing.assert_array_equal(np.diff(t.reshape(5, 4), axis=0), 4)
    np.testing.assert_array_equal(rows[0], numbers(training(batch_size=4).batch(39)[0]))


@pytest.mark.parametrize("T, size", [(20, 10), (7, 10), (50, 10), (1, 4)])
def test_timesteps_are_spread(T, size):
    """Timestep i of B lies in its share of 1..T, from 1 + floor(T i / B) to ceil(T (i + 1) / B), and all steps are
    equally frequent."""
    job = training(batch_size=size, T=T)
    drawn = np.array([job.batch(step)[1] for step in range(1, 801)])
    i = np.arange(size)
    assert (drawn >= 1 + T * i // size).all() and (drawn <= -(-T * (i + 1) // size)).all()
    counts = np.bincount(drawn.ravel(), minlength=T + 1)[1:]
    assert (np.abs(counts / (800 * size / T) - 1) < 0.2).all()


def test_rows_and_timesteps_are_independent():
    """Every row meets early and late steps alike, though timesteps rise along the batch: the mean of t per row is that
    of all."""
    job = training(batch_size=10, T=50)
    total = np.zeros(10)
    for step in range(1, 1001):
        x0, t = job.batch(step)
        total[numbers(x0)] += t
    deviation = 50 / math.sqrt(12 * 1000)
    assert (np.abs(total / 1000 - 25.5) < 4 * deviation).all()


@pytest.mark.parametrize(
    "N, values, steps",
    [
        (10, {"batch_size": 4, "T": 20}, 60),  # ceil(10 / 4) * 20
        (10, {"batch_size": 4, "T": 20, "num_sample_steps": 3}, 21),  # ceil(10 / 4) * ceil(20 / 3)
        (10, {"batch_size": 64, "T": 20}, 20),
        (10, {"batch_size": 1, "T": 2000}, MOST_STEPS),
        (10, {"batch_size": 1, "T": 2000, "steps_per_epoch": 12_345}, 12_345),
    ],
)
def test_length_of_an_epoch(N, values, steps):
    """By default every row meets T timesteps, up to MOST_STEPS; a given length is kept."""
    job = training(numbered(N), **{"steps_per_epoch": None, "epochs": 3, **values})
    assert job.steps_per_epoch == steps and job.total_steps == 3 * steps


# Steps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"predict": "x_prev"},
        {"dropout": 0.3, "hidden": (8, 8)},
        {"num_sample_steps": 3, "bce_weight": 0.1},
        {"bce_weight": None},
        {"bce_weight": None, "predict": "x_prev"},
    ],
)
def test_step_is_its_five_lines(values):
    """Twelve steps give bit for bit what the five lines give that are written out here, with the keys and the scale of
    the derivation."""
    job, rows = training(batch_size=4, seed=5, **values), numbered(10)
    m = model(**{"batch_size": 4, "seed": 5, **values})
    auxiliary = values.get("bce_weight", 0.0)
    if auxiliary is None:  # the default
        auxiliary = 0.0 if "predict" in values else 1.0
    ops, net, params, K = m.ops, m.net, m.params, m.kernels(bce_weight=auxiliary)
    B = 4 * values.get("num_sample_steps", 1)
    optimizer = AdamW(ops, params, net.decays(), m.config.training, 60, 20 / (B * 8))
    order = np.concatenate([rng.permutation(Key(5, rng.SHUFFLE, number), 10) for number in range(6)])
    for step in range(1, 13):
        x0 = np.tile(rows.all()[order[4 * step - 4 : 4 * step]], (B // 4, 1))
        t = rng.stratified_t(Key(5, rng.TIME, step), B, 20)
        key = Key(5, rng.Q_NOISE, step)

        x_t = K.q_sample(x0, t, key)
        logits, tape = net.forward(ops, params, x_t, t, key)
        kl, dlogits = K.kl_grad(logits, x0, x_t, t)
        grads = net.backward(ops, params, tape, dlogits)
        optimizer.step(ops, params, grads)

        assert job.step() == 20 * kl.mean()
        np.testing.assert_array_equal(job.model.params.flat, params.flat)
    np.testing.assert_array_equal(job.optimizer.ema.flat, optimizer.ema.flat)
    assert job.averaged.params is job.optimizer.ema and job.optimizer.taken == 12


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_gradient_is_that_of_the_bound_per_bit(predict):
    """The optimiser meets the derivative of T mean KL / D: a finite difference of the float64 definition agrees to
    1e-6."""
    job = training(dtype=np.float64, batch_size=4, predict=predict, hidden=(6,), num_sample_steps=2, clip_thresh=None)
    for _ in range(5):
        job.step()
    m, optimizer, step = job.model, job.optimizer, 6
    x0, t = job.batch(step)
    x_t = bernoulli.q_sample(m.chain, x0, t, rng.draws(Key(0, rng.Q_NOISE, step), *x0.shape))
    start, moment = m.params.flat.copy(), optimizer.m.flat.copy()

    def value() -> float:
        logits = m.output(x_t, t) + bernoulli.evidence(m.chain, predict, x_t, t)
        return 20 / 8 * float(bernoulli.kl(m.chain, predict, logits, x0, x_t, t)[0].sum(-1).mean())

    directions = np.random.default_rng(0).normal(size=(3, start.size))
    numeric = []
    for direction in directions:
        sides = []
        for sign in (1, -1):
            m.params.flat[...] = start + sign * 1e-5 * direction
            sides.append(value())
        numeric.append((sides[0] - sides[1]) / 2e-5)
    m.params.flat[...] = start
    loss = job.step()
    gradient = (optimizer.m.flat - 0.9 * moment) / 0.1
    np.testing.assert_allclose(directions @ gradient, numeric, rtol=1e-6)
    after = m.params.flat.copy()
    m.params.flat[...] = start
    assert loss == pytest.approx(8 * value(), rel=1e-10)  # nats per row
    m.params.flat[...] = after


def test_diverged_step_is_not_taken(monkeypatch):
    """A gradient that is not a number raises and leaves step, weights and average, so that the same step can be tried
    again."""
    job, twin = training(batch_size=4), training(batch_size=4)
    for _ in range(3):
        job.step(), twin.step()
    backward = job.model.net.backward

    def spoil(*arguments):
        grads = backward(*arguments)
        grads["dense0/b"][0] = np.nan
        return grads

    monkeypatch.setattr(job.model.net, "backward", spoil)
    with pytest.raises(Diverged, match="step 4"):
        job.step()
    monkeypatch.undo()
    assert job.step() == twin.step()
    np.testing.assert_array_equal(job.model.params.flat, twin.model.params.flat)


# Seeds
# ----------------------------------------------------------------------------------------------------------------------


def weights(steps: int = 25, **values) -> tuple[np.ndarray, list[float]]:
    job = training(batch_size=4, dropout=0.2, hidden=(8, 8), **values)
    losses = [job.step() for _ in range(steps)]
    return np.concatenate(
        [job.model.params.flat, job.optimizer.ema.flat, job.optimizer.m.flat, job.optimizer.v.flat]
    ), losses


def test_one_seed_one_result():
    """Two trainings with one seed are bit-identical in losses, weights, moments and average; another seed gives another
    training."""
    (a, losses), (b, again), (c, others) = weights(seed=1), weights(seed=1), weights(seed=2)
    np.testing.assert_array_equal(a, b)
    assert losses == again and not set(losses) & set(others) and not np.array_equal(a, c)


def test_largest_seed():
    """Seeds go up to 2^63 - 1; the next to the largest gives something else."""
    assert weights(2, seed=2**63 - 2)[1] != weights(2, seed=2**63 - 3)[1]


def test_restore_goes_on_exactly():
    """Tensors of step 7, put into a fresh training, lead to the same weights at step 20; the tensors are no views that
    go on changing."""
    job, fresh = training(batch_size=4), training(batch_size=4, seed=0)
    for _ in range(7):
        job.step()
    saved = {name: np.array(array) for name, array in job.tensors().items()}
    fresh.restore(saved, 7)
    for _ in range(13):
        assert job.step() == fresh.step()
    for name, array in job.tensors().items():
        np.testing.assert_array_equal(array, fresh.tensors()[name])
    assert saved.keys() == {f"{kind}/{name}" for kind in ("params", "ema") for name in job.model.net.shapes} | {
        "m",
        "v",
        "pi",
    }


@pytest.mark.parametrize("change", ["missing", "shape", "moment"])
def test_restore_refuses_another_network(change):
    """Tensors of a network with other names or shapes are an InputError."""
    job = training()
    tensors = {name: np.array(array) for name, array in job.tensors().items()}
    if change == "missing":
        del tensors["params/dense0/b"]
    elif change == "shape":
        tensors["ema/dense0/b"] = tensors["ema/dense0/b"][:-1]
    else:
        tensors["v"] = tensors["v"][:-1]
    with pytest.raises(InputError, match="does not fit the network"):
        job.restore(tensors, 3)


# Learning
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_training_learns_heartbeats(predict):
    """400 steps take the bound on four heartbeats of 8 bits from 6.49 bits, that of independent bits, to 0.35 bits
    above the floor."""
    rows = Bits.from_array(HEARTBEATS)
    values = {"T": 50, "epochs": 4, "steps_per_epoch": 100, "num_sample_steps": 50, "hidden": (24,), "time_features": 8}
    job = Training(model(predict=predict, **values), rows)
    measure = lambda: evaluate.bound(job.averaged, rows, evaluations=1 << 14, population=HEARTBEATS)  # noqa: E731
    before = measure()
    for _ in range(400):
        job.step()
    after = measure()
    assert before.bits_per_sequence == pytest.approx(
        -2 * math.log2(0.25) - 6 * math.log2(0.75), abs=4 * before.standard_error_bits
    )
    assert after.bits_per_sequence < after.floor_bits + 0.35
    assert after.bits_per_sequence > after.floor_bits - 4 * (
        after.standard_error_bits + after.floor_standard_error_bits
    )


# Law and fingerprint
# --------------------------------------------------------------------------------------------------------------------


def test_stationary_law():
    """A number is taken as it is; `data` is the mean of each bit, with half a row of doubt where a bit never varies."""
    law = lambda pi, rows: FAMILY.make_chain(settings(pi=pi).model, rows).pi  # noqa: E731
    assert law(0.3, numbered(4)) == 0.3 and law(0.3, numbered(4)).shape == ()
    rows = Bits.from_array(np.array([[0, 1, 0], [0, 1, 1], [0, 1, 1], [0, 1, 1]]))
    np.testing.assert_array_equal(law("data", rows), [0.125, 0.875, 0.75])


def test_fingerprint_tells_rows_apart():
    """It changes with a bit, with the order and with the number of bits, also where the packed bytes stay the same."""
    rows = numbered(10, 5)
    changed = rows.all()
    changed[3, 2] ^= 1
    others = [
        rows,
        Bits.from_array(changed),
        Bits.from_array(rows.all()[::-1]),
        Bits.from_array(rows.all()[:9]),
        Bits(rows.packed, 6),
    ]
    assert len({r.fingerprint() for r in others}) == len(others)
    assert rows.fingerprint() == Bits.from_array(rows.all()).fingerprint()


def test_all_steps_have_random_words():
    """A step's number has 32 bits in the address of the words; more steps than that are a sentence, also where their
    number comes from the rows."""
    with pytest.raises(InputError) as caught:
        Training(model(epochs=2**31, steps_per_epoch=None), Bits.from_array(HEARTBEATS))
    assert str(caught.value).startswith("training.epochs: 2147483648 epochs of ")
    assert str(caught.value).endswith(" steps are 2^32 steps or more, which have no random words; take fewer")
    assert Training(model(epochs=2**32 - 1, steps_per_epoch=1), Bits.from_array(HEARTBEATS)).total_steps == 2**32 - 1
