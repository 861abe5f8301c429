"""The fused training steps of the Numba back end: equal to the five lines of train.py, the same whatever the threads
and the calls."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from tiny import HEARTBEATS, NET, build, definition, settings

from bdiff_np import evaluate, rng
from bdiff_np.data.bits import Bits
from bdiff_np.data.generators import make_rule
from bdiff_np.kernels.bernoulli.bernoulli_numba import Law
from bdiff_np.kernels.training.fused_step_numba import FusedSteps, take
from bdiff_np.optim.adamw import Diverged
from bdiff_np.rng import Key
from bdiff_np.train import Training

STEP = 1000  # steps taken before those that are looked at


def training(
    backend: str = "numba",
    N: int = 300,
    D: int = 9,
    pi=0.25,
    threads: int | None = None,
    code=None,
    dtype=np.float32,
    **values,
):
    """A training on N different rows, row k the number k in binary; with so many threads where they are given."""
    chosen = {"steps_per_epoch": 64, "epochs": 100, "hidden": (33, 17), "batch_size": 64, "clip_thresh": 100.0} | values
    rows = Bits.from_array((np.arange(N)[:, None] >> np.arange(D)) & 1)
    job = Training(build(settings(**chosen), D, np.asarray(pi), backend=backend, code=code, dtype=dtype), rows)
    if threads:
        batch = job.batch_rows * job.repeats
        options = {"rows": job.rows, "batch": batch, "seed": job.seed, "threads": threads}
        job.fused = FusedSteps(job.model.net, job.kernels, job.model.params, job.optimizer, **options)
        assert job.fused.threads == threads, "fewer groups of rows than threads"
    return job


def buffers(job: Training) -> dict[str, np.ndarray]:
    o = job.optimizer
    return {"params": job.model.params.flat, "m": o.m.flat, "v": o.v.flat, "ema": o.ema.flat}


def snapshot(job: Training) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in buffers(job).items()}


def in_the_middle(job: Training) -> Training:
    """Weights, moments and average as of a training under way, so that each layer has a gradient and AdamW divides by
    no rounding error."""
    generator, P, now = np.random.default_rng(1), job.model.params.flat.size, buffers(job)
    now["params"][...], now["ema"][...] = 0.4 * generator.normal(size=(2, P))
    now["m"][...], now["v"][...] = 1e-3 * generator.normal(size=P), 1e-4 * generator.uniform(0.5, 1.5, size=P)
    job.optimizer.taken = STEP
    return job


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Relative, in norm."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def same(job: Training, other: Training) -> None:
    """Bit for bit."""
    for name, array in buffers(job).items():
        np.testing.assert_array_equal(array, buffers(other)[name], err_msg=name)
    assert job.optimizer.taken == other.optimizer.taken
    np.testing.assert_equal(job.optimizer.grad_norm, other.optimizer.grad_norm)


# A batch is cut into groups, a group into slices, a row of bits into blocks of random words: the sizes here leave a
# rest at each cut.
CASES = {
    "plain": {},
    "narrow": {"hidden": (5,)},
    "deep": {"hidden": (50, 50, 50)},
    "several-pieces": {"hidden": (200, 200), "seed": 4},  # of eight seeds the moment moves by 7e-6 to 7e-5
    **{name: {"activation": name} for name in ("relu", "gelu", "tanh", "sigmoid")},
    "odds_input": {"odds_input": True},
    "pi-of-each-bit": {"pi": np.linspace(0.1, 0.9, 9)},
    "pi-of-each-bit-x_prev": {"pi": np.linspace(0.1, 0.9, 9), "predict": "x_prev"},
    "x_prev": {"predict": "x_prev"},
    "x_prev-no-skip": {"predict": "x_prev", "skip": False},
    "no-skip": {"skip": False},
    "bce": {"bce_weight": 0.3},
    "repeats-3": {"num_sample_steps": 3},
    "repeats-50": {"num_sample_steps": 50, "batch_size": 5},
    "batch-1": {"batch_size": 1},
    "batch-2": {"batch_size": 2},
    "batch-5": {"batch_size": 5},
    "batch-250": {"batch_size": 250},
    "batch-300": {"batch_size": 300},
    "batch-701": {"batch_size": 701, "N": 720, "D": 10},
    "wide-batch-250": {"hidden": (300,), "batch_size": 250},
    "wide-batch-383": {"hidden": (300, 7), "batch_size": 383, "N": 400},
    "clipped": {"clip_thresh": 0.01},
    "no-clip": {"clip_thresh": None},
    "weight-decay": {"weight_decay": 0.3},
    "fewer-rows-than-a-batch": {"N": 40},
    "passes-end-in-a-batch": {"N": 10, "batch_size": 4, "D": 4},
    "a-pass-a-batch": {"N": 10, "batch_size": 10, "D": 4},
    "one-step-chain": {"T": 1},
    "long-chain": {"T": 1000, "schedule": "linear"},
    "one-bit": {"D": 1, "N": 2},
    "17-bits": {"D": 17, "time_features": 2},
    "residual": {"hidden": (33, 33, 33), "residual": True},
    "residual-one-layer": {"hidden": (33,), "residual": True},
    "dropout": {"hidden": (33, 17, 20), "dropout": 0.2, "batch_size": 250},
    "dropout-by-ties": {"dropout": 1 / 512, "hidden": (200, 17), "num_sample_steps": 5},
    "residual-dropout": {"hidden": (50, 50), "residual": True, "dropout": 0.3, "batch_size": 250},
    "wide-residual-dropout": {"hidden": (300, 300), "residual": True, "dropout": 0.3, "batch_size": 270},
    "residual-dropout-long-chain": {"hidden": (50, 50), "residual": True, "dropout": 0.3, "T": 1000},
    "no-average": {"ema": 0.0, "lr_schedule": "constant"},
    "largest-seed": {"seed": 2**63 - 2},
}
WHOLE = 12  # steps: several passes, calls and logged losses


@pytest.mark.parametrize("case", CASES)
def test_fused_steps_are_the_five_lines(case):
    """Twelve steps in one call move weights, moments and average as twelve steps of the five lines do, on Numba and on
    NumPy, to 3e-5 of the movement; a sum in another order moves the last of seven digits, and twelve steps little more,
    most in the widest net (2.1e-5). Losses and
    gradient norm likewise."""
    jobs = [in_the_middle(training(backend, **CASES[case])) for backend in ("numba", "numba", "numpy")]
    fused, lines, numpy = jobs
    lines.fused = None
    assert fused.fused is not None and numpy.fused is None
    start, losses = snapshot(fused), [job.advance(WHOLE) for job in jobs]
    assert (fused.optimizer.grad_norm > (fused.settings.clip_thresh or np.inf)) == (case == "clipped")
    for job, found in zip(jobs[1:], losses[1:]):
        for name, array in buffers(fused).items():
            assert distance(array - start[name], buffers(job)[name] - start[name]) < 3e-5, (name, job.model.ops.name)
        assert job.optimizer.taken == fused.optimizer.taken == STEP + WHOLE
        assert fused.optimizer.grad_norm == pytest.approx(job.optimizer.grad_norm, rel=1e-5)
        assert len(found) == 6  # every second
        np.testing.assert_allclose(losses[0], found, rtol=2e-5)


def test_a_training_from_its_start():
    """From the first weights, with warm-up and a last layer of zeros, 100 steps have the losses of NumPy's, to 1e-4:
    AdamW divides young moments by their root, which lets a rounding grow."""
    fused, numpy = (training(backend, batch_size=250, steps_per_epoch=32, lr=5e-3) for backend in ("numba", "numpy"))
    a, b = fused.advance(100), numpy.advance(100)
    assert len(a) == 100 and min(b[50:]) < 0.9 * b[0]
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_training_learns_heartbeats(predict):
    """400 fused steps take the bound on four heartbeats of 8 bits to 0.35 bits above the floor, as NumPy's 400 steps do
    in test_train.py."""
    values = {
        "T": 50,
        "epochs": 4,
        "steps_per_epoch": 100,
        "num_sample_steps": 50,
        "hidden": (24,),
        "time_features": 8,
        "predict": predict,
    }
    rows = Bits.from_array(HEARTBEATS)
    job = Training(build(settings(**values), 8, np.asarray(0.25), backend="numba"), rows)
    job.advance(400)
    found = evaluate.bound(job.averaged, rows, evaluations=1 << 14, population=HEARTBEATS)
    assert found.bits_per_sequence < found.floor_bits + 0.35
    assert found.bits_per_sequence > found.floor_bits - 4 * (
        found.standard_error_bits + found.floor_standard_error_bits
    )


# The gradient
# ----------------------------------------------------------------------------------------------------------------------


def fused_gradient(job: Training) -> dict[str, np.ndarray]:
    """That of one step: from a first moment of zero, AdamW keeps a tenth of it."""
    job.optimizer.m.flat[...] = 0
    job.advance(1)
    return {name: array.astype(np.float64) / 0.1 for name, array in job.optimizer.m.items()}


def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in expected:
        assert distance(found[name], expected[name]) < 1e-5, name


@pytest.mark.parametrize(
    "case", [name for name in CASES if name not in ("clipped", "no-clip", "weight-decay", "no-average")]
)
def test_fused_gradient_is_that_of_the_definition(case):
    """Each parameter's gradient agrees with the float64 definition to 1e-5 in norm: float32 rounding, with a margin of
    eight for the deepest net."""
    job = in_the_middle(training(**{**CASES[case], "clip_thresh": None}))
    expected = definition(job, STEP + 1)
    compare(fused_gradient(job), expected)


def test_a_wrong_gradient_is_found():
    """The comparison fails for a tenth of a percent on one parameter, for one unit's column or one row of a batch of
    250 left out, each alone."""
    job = in_the_middle(training(batch_size=250, clip_thresh=None))
    expected = definition(job, STEP + 1)
    found = fused_gradient(job)
    compare(found, expected)
    for name in expected:
        for planted in (found[name] * 1.001, np.where(np.arange(found[name].shape[-1]) == 3, 0.0, found[name])):
            with pytest.raises(AssertionError, match=name):
                compare({**found, name: planted}, expected)
    x0, t = job.batch(STEP + 1)
    job.batch = lambda _: (x0[:-1], t[:-1])
    with pytest.raises(AssertionError):
        compare(found, definition(job, STEP + 1))


# Threads and calls
# ----------------------------------------------------------------------------------------------------------------------

SHAPES = {
    "narrow": {"batch_size": 770, "N": 800, "D": 10},
    "copies": {"batch_size": 770, "N": 800, "D": 10, "hidden": (5,)},
    "repeats": {"batch_size": 64, "num_sample_steps": 13, "hidden": (33,), "dropout": 0.0},
    "pieces": {"batch_size": 770, "N": 800, "D": 10, "hidden": (200, 200)},
    "blocks": {"batch_size": 770, "N": 800, "D": 10, "hidden": (33, 33), "residual": True, "dropout": 0.3},
    "slices": {"batch_size": 1701, "N": 1720, "D": 11},
}


def run(calls: list[int], threads: int, **values) -> tuple:
    """A checksum of the weights, the losses and the last norm after so many steps in each call."""
    job = training(threads=threads, **values)
    losses = [loss for count in calls for loss in job.advance(count)]
    return (
        zlib.crc32(job.model.params.flat.tobytes()),
        zlib.crc32(job.optimizer.ema.flat.tobytes()),
        losses,
        job.optimizer.grad_norm,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_do_not_depend_on_threads_or_calls(shape):
    """After 200 steps weights, average and losses are the same to the last bit for 1, 2 and 3 threads, in one call or
    in calls of 1, 7 or 64."""
    steps = 200 if shape != "pieces" else 60
    expected = run([steps], 1, **SHAPES[shape])
    assert run([steps - 1], 1, **SHAPES[shape])[0] != expected[0] and len(expected[2]) == steps // 2
    for threads in (2, 3):
        assert run([steps], threads, **SHAPES[shape]) == expected, threads
    for size in (1, 7, 64):
        assert (
            run(
                [*[size] * (steps // size), steps % size] if steps % size else [size] * (steps // size),
                2,
                **SHAPES[shape],
            )
            == expected
        ), size


def test_restored_training_goes_on_exactly():
    """Tensors of step 30, put into a fresh training, lead to the same weights at step 50."""
    job, fresh = training(batch_size=250), training(batch_size=250)
    job.advance(30)
    fresh.restore({name: np.array(array) for name, array in job.tensors().items()}, 30)
    assert job.advance(20) == fresh.advance(20)
    same(job, fresh)


def test_seeds_give_other_trainings():
    """Another seed gives other noise, also from the same weights: the losses of the first steps are all different."""
    losses = []
    for seed in (0, 1, 2**63 - 3, 2**63 - 2):
        job = in_the_middle(training(seed=seed))
        losses += job.advance(8)
    assert len(set(losses)) == len(losses) == 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_goes_on():
    """A process that was forked off a training takes the same steps as its parent: it does not wait for threads that
    did not come along."""
    code = (
        f"import os, sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_fused_steps import run, training\n"
        "job = training(threads=2, batch_size=250); job.advance(3)\n"
        "read, write = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.write(write, repr(job.advance(4)).encode()); os._exit(0)\n"
        "until = time.monotonic() + 20\n"
        "while os.waitpid(child, os.WNOHANG)[0] == 0:\n"
        "    if time.monotonic() > until: os.kill(child, 9); sys.exit('the child hangs')\n"
        "    time.sleep(0.01)\n"
        "assert os.read(read, 1000).decode() == repr(job.advance(4))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


# Which rows
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 12345, 2**63 - 2])
@pytest.mark.parametrize("N", [1, 2, 3, 4, 5, 7, 8, 300])
def test_orders_are_the_permutations(N, seed):
    """The rows' order in each pass is rng.permutation's, from any pass on."""
    job = training(seed=seed)
    for first, passes in ((0, 5), (3, 1), (2**32 - 3, 3)):
        expected = [rng.permutation(Key(seed, rng.SHUFFLE, first + k), N) for k in range(passes)]
        np.testing.assert_array_equal(job.fused.orders(first, passes, N), expected)


@pytest.mark.parametrize("looked_at", [[7], [30], [1, 12], [4, 3]])
def test_a_batch_looked_at_out_of_turn_changes_nothing(looked_at):
    """`batch` tells of any step what its rows are; a training whose batches were looked at takes the same steps as one
    left alone."""
    job, alone = (training(N=10, D=4, batch_size=4) for _ in range(2))
    before = [alone.batch(step) for step in looked_at]
    for step, (x0, t) in zip(looked_at, before):
        for found, expected in zip(job.batch(step), (x0, t)):
            np.testing.assert_array_equal(found, expected)
    untouched = training(N=10, D=4, batch_size=4)
    job.advance(20), untouched.advance(20)
    same(job, untouched)


def test_going_back_takes_the_same_rows_again():
    """A training that is set back to an earlier step goes through the same rows in calls of any size."""
    job = training(N=10, D=4, batch_size=4)
    tensors = {name: np.array(array) for name, array in job.tensors().items()}
    expected = job.advance(20)
    for calls in ([20], [13, 7], [5, 15]):
        job.restore(tensors, 0)
        assert [loss for count in calls for loss in job.advance(count)] == expected


# Losses
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "epoch, every", [(1, 1), (10, 1), (63, 1), (64, 2), (95, 2), (96, 3), (640, 20), (1023, 31), (1024, 32), (5000, 32)]
)
def test_logged_steps(epoch, every):
    """The loss of every step is worked out in short epochs, of one in 32 in those of 1024 steps and more, on both back
    ends alike: `step` gives it or None, `advance` a list of those there are."""
    counts = (1, 2, 13, 8, 16)
    expected = [step for step in range(1, sum(counts) + 1) if step % every == 0]
    whole = []
    for backend in ("numba", "numpy"):
        job, single = (training(backend, batch_size=5, steps_per_epoch=epoch) for _ in range(2))
        single.fused = None
        alone = {step: single.step() for step in range(1, sum(counts) + 1)}
        assert [step for step, loss in alone.items() if loss is not None] == expected
        assert [step for step in alone if job.logged(step)] == expected
        found, first = [], 1
        for count in counts:
            some = job.advance(count)
            assert len(some) == sum(first <= step < first + count for step in expected)
            found, first = found + some, first + count
        np.testing.assert_allclose(found, [alone[step] for step in expected], rtol=1e-4)
        whole.append(found)
    np.testing.assert_allclose(*whole, rtol=1e-4)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_no_steps(backend):
    """To advance by no step gives no loss and changes nothing."""
    job = training(backend)
    job.advance(3)
    before, norm = snapshot(job), job.optimizer.grad_norm
    assert job.advance(0) == []
    for name, array in buffers(job).items():
        np.testing.assert_array_equal(array, before[name])
    assert (job.optimizer.taken, job.optimizer.grad_norm) == (3, norm)


def test_compiling_takes_no_step():
    """`compile` leaves weights, moments, step and noise alone: the training after it is the training without it."""
    job, other = training(), training()
    before = snapshot(job)
    job.compile()
    for name, array in buffers(job).items():
        np.testing.assert_array_equal(array, before[name])
    assert job.advance(5) == other.advance(5)
    same(job, other)


def test_one_compiled_form_serves_all():
    """Whatever network, chain, batch and seed, fresh or restored: nothing compiles a second time, which would take half
    a minute without a word."""
    for case in CASES.values():
        job, other = training(**case), training(**case)
        job.compile()
        job.advance(3)
        other.restore(job.tensors(), 3)
        other.advance(3)
    laws = [law.instance_class for _, _, law, *_ in take.signatures]
    assert laws.count(Law) == 1


def test_inputs_are_not_written(monkeypatch):
    """A call changes its training's buffers alone: neither its own arguments, nor the data, nor the chain."""
    job = training(N=40, batch_size=16)
    fused, seen = job.fused, []

    def watched(*arguments):
        before = copy.deepcopy(arguments)
        found = fused(*arguments)
        np.testing.assert_equal(arguments, before)
        seen.append(len(arguments))
        return found

    watched.orders, watched.empty = fused.orders, fused.empty
    monkeypatch.setattr(job, "fused", watched)
    held = job.rows.packed.copy(), job.model.chain.alpha_bar.copy(), job.model.net.features.copy()
    job.advance(9)
    assert seen and job.optimizer.taken == 9
    for found, expected in zip((job.rows.packed, job.model.chain.alpha_bar, job.model.net.features), held):
        np.testing.assert_array_equal(found, expected)


# Diverged
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place, value", [(0, np.nan), (-1, np.nan), (0, -np.inf)])
def test_spoilt_weights_stop_before_their_step(threads, place, value):
    """With one weight that is not finite the next step is not taken, nor any after it: Diverged names it, nothing
    changes, and with the weight put right the training goes on as if nothing had happened. Again and again, so that a
    thread left behind would be met."""
    job, twin = (training(threads=threads, batch_size=250) for _ in range(2))
    job.advance(5), twin.advance(5)
    right = job.model.params.flat[place]
    for _ in range(20):
        job.model.params.flat[place] = value
        before = snapshot(job)
        with pytest.raises(Diverged, match="^the gradient of step 6 is not a number$"):
            job.advance(7)
        for name, array in buffers(job).items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
        assert (job.optimizer.taken, job.optimizer.grad_norm) == (5, twin.optimizer.grad_norm)
    job.model.params.flat[place] = right
    assert job.advance(7) == twin.advance(7)
    same(job, twin)


@pytest.mark.parametrize("hidden, step", [((8,), 19), ((16, 16, 16), 10), ((300, 300), 10)])
def test_a_gradient_that_float32_cannot_measure_is_one_everywhere(hidden, step):
    """Of float64 sums of squares its length is a number for a while yet: all back ends stop at the same step."""
    diverging = {"lr": 1e8, "warmup_steps": 0, "lr_schedule": "constant", "clip_thresh": None, "activation": "relu"}
    rows = Bits.from_array(make_rule("heartbeat", period=5).rows(20))
    for backend in "numpy", "numba":
        values = settings(hidden=hidden, batch_size=64, **diverging)
        job = Training(build(values, 20, np.asarray(0.5), backend=backend), rows)
        with np.errstate(all="ignore"), pytest.raises(Diverged, match=f"^the gradient of step {step} is not a number$"):
            job.advance(5), job.advance(40)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_divergence_in_the_middle_of_a_call(threads):
    """A learning rate without measure is found out some steps into the call: those before it are taken, and are those
    of a shorter call, at each of 200 calls. A thread that comes late to steps that the others have made meets what a
    later step has left, and must not be misled by it."""
    job, twin = (training(threads=k, batch_size=770, N=800, D=10, lr=1e30, warmup_steps=0) for k in (threads, 1))
    tensors = {name: np.array(array) for name, array in job.tensors().items()}
    with pytest.raises(Diverged) as fault:
        for _ in range(50):
            twin.advance(1)
    taken = twin.optimizer.taken
    assert 0 < taken < 40 and str(fault.value) == f"the gradient of step {taken + 1} is not a number"
    for _ in range(200):
        job.restore(tensors, 0)
        with pytest.raises(Diverged, match=f"step {taken + 1} "):
            job.advance(50)
        same(job, twin)


# Networks without a compiled form
# ---------------------------------------------------------------------------------------------------------

OTHERS = {
    "bumps": {"time": "bumps"},
    "readout": {"time": "readout"},
    "float64": {"dtype": np.float64},
    "custom": {},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_networks_go_by_the_five_lines(tmp_path, case):
    """A network that is not a perceptron of stages, or not in float32, has no fused steps on Numba, and trains there
    as it does on NumPy."""
    code = None
    if case == "custom":
        code = tmp_path / "reverse_model.py"
        code.write_text(NET)
    job, lines, numpy = (
        in_the_middle(training(backend, code=code, **OTHERS[case])) for backend in ("numba", "numba", "numpy")
    )
    assert job.fused is None and job.model.ops.name == "numba"
    start, losses = snapshot(job), job.advance(6)
    assert losses == [loss for _ in range(6) if (loss := lines.step()) is not None] and len(losses) == 3
    same(job, lines)
    np.testing.assert_allclose(losses, numpy.advance(6), rtol=5e-6)
    for name, array in buffers(job).items():
        assert distance(array - start[name], buffers(numpy)[name] - start[name]) < 1e-5, name


def test_dense_networks_are_fused_on_numba_alone():
    """The default network has fused steps on Numba and none on NumPy."""
    assert isinstance(training().fused, FusedSteps) and training("numpy").fused is None
