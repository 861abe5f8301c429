"""Rung 4: whole training steps and samplers of the CuPy back end, in every way that it has, beside NumPy's; and that
nothing waits or allocates."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tiny import NET, build, definition, invoke, make_run, newest, settings

from bdiff_np import config, evaluate, rng, sample
from bdiff_np.backends import tryout
from bdiff_np.data import read_run
from bdiff_np.data.bits import Bits
from bdiff_np.errors import InputError
from bdiff_np.kernels.mlp import mlp_plan
from bdiff_np.model import Model
from bdiff_np.optim.adamw import Diverged
from bdiff_np.rng import Key
from bdiff_np.runfolder import checkpoint, conclude, looking, rundir
from bdiff_np.show import pictures
from bdiff_np.train import Training
from gpu.training import CASES, STEP, buffers, distance, take, training

ROOT = Path(__file__).parent.parent.parent


def good(*arguments):
    """A command that must succeed."""
    found = invoke(*arguments)
    assert found.exit_code == 0, found.stderr
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few evaluations, no pictures and no waiting for the disk: none of them is what is tested here."""
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 9)
    monkeypatch.setattr(looking, "VAL_EVALUATIONS", 1 << 7)
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(pictures, "draw", lambda *_: None)


WAYS = ["FusedSteps", "CapturedSteps", "LaunchedSteps", "five lines"]
WHOLE = 12  # steps: several passes over the data, and logged losses
ways = pytest.mark.parametrize("way", WAYS)


# Training
# ----------------------------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_numpy(card, case, way):
    """Twelve steps move weights, moments and average as they do on NumPy, to 1e-5 of the movement; losses and norm
    likewise."""
    here, there = training("numpy", **CASES[case]), take(training("cupy", **CASES[case]), way, card)
    start, losses = buffers(here), [job.advance(WHOLE) for job in (here, there)]
    expected, found = buffers(here), buffers(there)
    for name in start:
        assert distance(found[name] - start[name], expected[name] - start[name]) < 1e-5, name
    assert there.optimizer.taken == STEP + WHOLE and len(losses[0]) == 6
    assert there.optimizer.grad_norm == pytest.approx(here.optimizer.grad_norm, rel=1e-5)
    assert (there.optimizer.grad_norm > (there.settings.clip_thresh or np.inf)) == (case == "clipped")
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-6)


def gradient(job) -> dict[str, np.ndarray]:
    """That of one step: from a first moment of zero, AdamW keeps a tenth of it."""
    job.optimizer.m.flat[...] = 0
    job.advance(1)
    return {name: job.model.ops.to_host(array).astype(np.float64) / 0.1 for name, array in job.optimizer.m.items()}


def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in expected:
        assert distance(found[name], expected[name]) < 1e-5, name


GRADIENTS = [
    "plain",
    "deep",
    "gelu",
    "odds_input",
    "pi-of-each-bit",
    "x_prev-no-skip",
    "bce",
    "repeats-3",
    "batch-250",
    "128-wide",
]


@ways
@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_are_those_of_the_definition(card, case, way):
    """Each parameter's gradient agrees with the float64 definition to 1e-5 in norm: float32 rounding."""
    job = take(training("cupy", **{**CASES[case], "clip_thresh": None}), way, card)
    expected = definition(job, STEP + 1)
    compare(gradient(job), expected)


@ways
def test_a_wrong_gradient_is_found(card, way):
    """The comparison fails for a tenth of a percent on one parameter, or for one unit's column left out, each alone."""
    job = take(training("cupy", clip_thresh=None), way, card)
    expected = definition(job, STEP + 1)
    found = gradient(job)
    for name in expected:
        for planted in (found[name] * 1.001, np.where(np.arange(found[name].shape[-1]) == 3, 0.0, found[name])):
            with pytest.raises(AssertionError, match=name):
                compare({**found, name: planted}, expected)


OTHERS = {
    "residual": {"residual": True, "hidden": (20, 20)},
    "dropout": {"dropout": 0.3},
    "bumps": {"time": "bumps"},
    "readout": {"time": "readout"},
    "residual-dropout": {"residual": True, "dropout": 0.2, "hidden": (20, 20), "activation": "gelu"},
}


@pytest.mark.parametrize("case", OTHERS)
def test_networks_that_only_the_five_lines_know(card, case):
    """Layers with LayerNorm, dropout or a read-out of their own for t train as on NumPy; there is nothing fused for
    them."""
    values = OTHERS[case]
    here, there = training("numpy", **values), training("cupy", **values)
    start, losses = buffers(here), [job.advance(WHOLE) for job in (here, there)]
    assert there.fused is None
    expected, found = buffers(here), buffers(there)
    for name in start:
        assert distance(found[name] - start[name], expected[name] - start[name]) < 1e-5, name
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-6)
    np.testing.assert_array_equal(sample.draw(here.averaged, 30, seed=3), sample.draw(there.averaged, 30, seed=3))


def test_the_way_follows_from_the_sizes(card):
    """One kernel where the net fits into a block's shared memory; a captured graph for other narrow nets; launches with
    cuBLAS for wide ones."""
    assert type(training("cupy").fused).__name__ == "FusedSteps"
    large = {"D": 100, "hidden": (128, 128, 128), "odds_input": True, "N": 60, "batch_size": 20}
    assert type(training("cupy", **large).fused).__name__ == "CapturedSteps"
    assert type(training("cupy", hidden=(129,)).fused).__name__ == "LaunchedSteps"
    # that a block takes together: no more than its group has, to the next size
    for batch, rows in ((1, 4), (5, 8), (64, 32), (250, 32)):
        assert training("cupy", batch_size=batch).fused.plan.rows == rows
    if not card.real:
        with card.pretending(shared_memory=6 << 10):
            assert type(training("cupy").fused).__name__ == "CapturedSteps"


@pytest.mark.parametrize(
    "values", [{"hidden": (200, 140)}, {"hidden": (132,), "D": 7, "N": 100, "odds_input": True}, {"D": 130, "N": 90}]
)
def test_wide_nets(card, values):
    """Products by cuBLAS: steps as on NumPy, and rows drawn alike. One step: in wide nets with large weights rounding
    grows tenfold in each."""
    here, there = training("numpy", **values), training("cupy", **values)
    start = buffers(here)
    for job in (here, there):
        job.advance(1)
    expected, found = buffers(here), buffers(there)
    for name in start:
        assert distance(found[name] - start[name], expected[name] - start[name]) < 1e-5, name
    np.testing.assert_array_equal(sample.draw(here.averaged, 30, seed=3), sample.draw(there.averaged, 30, seed=3))


@pytest.mark.parametrize("way", ["FusedSteps", "CapturedSteps"])
def test_weights_do_not_depend_on_the_card_or_the_calls(card, way):
    """The same bits for 1, 3 and 8 multiprocessors, for little shared memory, in every order of threads, in one call or
    in several."""
    values, found = {"batch_size": 250, "hidden": (20, 12)}, []

    def run(calls):
        job = take(training("cupy", **values), way, card)
        losses = [loss for count in calls for loss in job.advance(count)]
        return [*buffers(job).values(), np.array(losses), np.array(job.optimizer.grad_norm)]

    for _ in card.orders():
        found.append(run([15]))
    found += [run([1] * 15), run([7, 7, 1])]
    if not card.real:
        for limits in (
            {"multiprocessors": 1},
            {"multiprocessors": 3},
            {"multiprocessors": 8},
            {"shared_memory": 40 << 10},
        ):
            with card.pretending(**limits):
                found.append(run([15]))
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


@ways
def test_a_step_that_diverges(card, way, monkeypatch):
    """A gradient that is not finite: no weight, moment or average changes from that step on, and Diverged names it;
    NumPy says the same."""
    said, kept = [], []
    for backend in ("numpy", "cupy"):
        job = take(training(backend), way if backend == "cupy" else "five lines", card)
        job.advance(3)
        kept.append(buffers(job))

        # From step 4 on the rate is so large that step 5 has weights of infinite size, and step 6 no gradient.
        def numbers(step, told=job.optimizer.numbers):
            return told(step) | {"lr": np.where(np.asarray(step) > STEP + 3, 1e38, 1e-3)}

        monkeypatch.setattr(job.optimizer, "numbers", numbers)
        with pytest.raises(Diverged) as fault, np.errstate(all="ignore"):
            job.advance(40)
        said.append((str(fault.value), job.optimizer.taken))
        again = buffers(job)
        # the same step, tried again, diverges again and changes nothing
        with pytest.raises(Diverged), np.errstate(all="ignore"):
            job.advance(40)
        for name, array in buffers(job).items():
            np.testing.assert_array_equal(array, again[name])
    assert said[0] == said[1] and STEP + 3 < said[1][1] < STEP + 8


def test_a_spoiled_step_is_not_taken_and_the_next_one_may_be(card):
    """What `halted` remembers is forgotten once it was reported: with a sound gradient the training goes on."""
    job = take(training("cupy"), "five lines", card)
    job.advance(2)
    before, backward, ops = buffers(job), job.model.net.backward, job.model.ops

    def spoil(*arguments):
        grads = backward(*arguments)
        grads.flat[3:4] = np.nan
        return grads

    job.model.net.backward = spoil
    with pytest.raises(Diverged, match=f"step {STEP + 3}"):
        job.advance(3)
        job.optimizer.settle()
    for name, array in buffers(job).items():
        np.testing.assert_array_equal(array, before[name])
    job.model.net.backward = backward
    twin = take(training("cupy"), "five lines", card)
    twin.advance(2)
    assert job.advance(4) == twin.advance(4) and job.optimizer.taken == STEP + 6
    np.testing.assert_array_equal(ops.to_host(job.model.params.flat), ops.to_host(twin.model.params.flat))


# Nothing waits, nothing is allocated
# ----------------------------------------------------------------------------------------------------------


def stand_in_of(card):
    if card.real:
        pytest.skip("a real card does not tell what was asked of it")
    return card.stand_in


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_call_copies_once_and_allocates_nothing(card, way):
    """However many steps a call takes, three arrays go to the card and two come back, and no memory is taken; rows'
    orders are made on the card."""
    events = stand_in_of(card)
    job = take(training("cupy"), way, card)
    job.advance(3)
    counts, first = {}, job.optimizer.taken + 1
    for count in (2, 40):
        steps = np.arange(first, first + count)
        events.clear()
        index = job._index(first, count).reshape(count, job.batch_rows)
        assert not events.count("h2d") and not events.count("d2h") and events.count("launch") <= 1
        events.clear()
        job.fused(index, first, job.optimizer.numbers(steps), job.logged(steps))
        counts[count] = {kind: events.count(kind) for kind in ("h2d", "d2h", "alloc", "sync")}
        first += count
    assert counts[2] == counts[40]
    assert counts[40]["d2h"] == 2 and counts[40]["alloc"] == 0 and counts[40]["h2d"] <= 3


def test_a_captured_step_is_one_launch(card):
    """Once captured, the host starts one graph a step, which holds every kernel of it."""
    events = stand_in_of(card)
    job = take(training("cupy"), "CapturedSteps", card)
    job.advance(1)
    events.clear()
    job.advance(20)
    graphs = [event for event in events.events if event[0] == "graph"]
    assert len(graphs) == 20 and all(nodes > 15 for _, nodes in graphs)
    assert events.count("launch") == events.count("launch", "shuffle_words<256>") == 1


def test_the_fused_step_is_one_launch_for_all(card):
    events = stand_in_of(card)
    job = training("cupy")
    job.advance(1)
    events.clear()
    job.advance(50)
    assert [event[1] for event in events.events if event[0] == "launch"] == ["shuffle_words<256>", "take"]


def test_the_five_lines_wait_only_where_a_loss_is_logged(card):
    """Between two logged steps nothing comes back from the card."""
    events = stand_in_of(card)
    job = take(training("cupy", steps_per_epoch=1024), "five lines", card)
    for step in range(1, 35):
        logged = bool(job.logged(job.optimizer.taken + 1))
        events.clear()
        job.advance(1)
        assert (events.count("d2h") + events.count("sync") > 0) == logged or step == 32, step


def test_too_little_memory_is_said_before_it_is_taken(card):
    """A step that the card cannot hold: one sentence with what it needs, what there is and what to change; nothing was
    allocated for it."""
    events = stand_in_of(card)
    with card.pretending(memory=events.card.used + 3_000_000):
        events.clear()
        with pytest.raises(
            InputError,
            match=r"needs .* GiB on the GPU, .* GiB are free; take a smaller data.batch_size .* or narrower layers",
        ):
            training("cupy", batch_size=250, num_sample_steps=200)
        assert sum(event[1] for event in events.events if event[0] == "alloc") < 1_000_000


@pytest.mark.parametrize(
    "values", [{"hidden": (150,)}, {"hidden": (150, 150), "residual": True}], ids=["dense", "residual"]
)
def test_tf32_is_off_unless_asked_for(card, values):
    """CuPy is told either way, by each training, whatever the one before it asked for."""
    from cupy._core import _routines_linalg as products

    for asked in (False, True, False):
        training("cupy", tf32=asked, **values)
        assert products.get_compute_type(np.float32) == (
            products.COMPUTE_TYPE_TF32 if asked else products.COMPUTE_TYPE_DEFAULT
        )


# Sampling and evaluation
# ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def walked(card, monkeypatch):
    """draw(model, way, ...) by one kernel, by launches, or step by step."""

    def draw(model, way, *arguments, **options):
        with monkeypatch.context() as patched:
            if way != "FusedChain":
                patched.setattr(
                    card.chain,
                    *(("plan", lambda net: None) if way == "LaunchedChain" else ("can_fuse", lambda *_: False)),
                )
            return sample.draw(model, *arguments, **options)

    return draw


DRAWN = [
    "plain",
    "odds_input",
    "pi-of-each-bit",
    "x_prev-no-skip",
    "no-skip",
    "one-step-chain",
    "17-bits",
    "one-bit",
    "deep",
]


@pytest.mark.parametrize("case", DRAWN)
def test_rows_are_those_of_numpy(card, walked, case):
    """In every way, whatever the split into batches, whole chain or part of it, with known bits or without: the same
    rows."""
    here, there = training("numpy", **CASES[case]).averaged, training("cupy", **CASES[case]).averaged
    known = np.full((150, here.D), -1, np.int8)
    known[:, 0], known[3:60, here.D - 1] = 1, 0
    steps = 1 if here.chain.T == 1 else None if here.config.model.predict == "x_prev" else 7
    for options in ({}, {"known": known}, {"steps": steps}):
        expected = sample.draw(here, 150, seed=3, **options)
        for way in ("FusedChain", "LaunchedChain", "steps"):
            for batch in (150, 64):
                np.testing.assert_array_equal(
                    walked(there, way, 150, seed=3, batch=batch, **options),
                    expected,
                    err_msg=f"{way} {batch} {options}",
                )


def test_rows_do_not_depend_on_the_card(card, walked):
    """Few multiprocessors give a block many rows; the network is then asked for many of them together, in parts."""
    stand_in_of(card)
    model, found = training("cupy", T=6, hidden=(9,)).averaged, []
    for _ in card.orders():
        found.append(walked(model, "FusedChain", 700, seed=5))
    for limits in ({"multiprocessors": 1}, {"multiprocessors": 13}, {"shared_memory": 20 << 10}):
        with card.pretending(**limits):
            found.append(walked(model, "FusedChain", 700, seed=5))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("case", ["plain", "pi-of-each-bit", "x_prev-no-skip", "odds_input"])
def test_bounds_are_those_of_numpy(card, case):
    """bound, score, the KL of each step and a trajectory, to the rounding of float32."""
    here, there = training("numpy", **CASES[case]).averaged, training("cupy", **CASES[case]).averaged
    rows = Bits.from_array((np.arange(40)[:, None] >> np.arange(here.D)) & 1)
    for kind in ("learned", "paper"):
        a, b = (evaluate.bound(model, rows, kind=kind, evaluations=4000) for model in (here, there))
        assert b.bits_per_sequence == pytest.approx(a.bits_per_sequence, rel=1e-6)
        assert b.standard_error_bits == pytest.approx(a.standard_error_bits, rel=1e-4)
    scores = [evaluate.score(model, rows.take(slice(0, 7)), evaluations=200) for model in (here, there)]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    steps = [evaluate.kl_per_step(model, rows, evaluations=2000)[0] for model in (here, there)]
    np.testing.assert_allclose(*steps, rtol=1e-5, atol=1e-9)
    for a, b in zip(sample.trajectory(here, 6, seed=1), sample.trajectory(there, 6, seed=1)):
        np.testing.assert_array_equal(a, b)


# Plans
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_too", [True, False])
@pytest.mark.parametrize(
    "values", [{}, {"hidden": (5,)}, {"hidden": (64, 100, 7), "odds_input": True}, {"D": 1, "N": 2}]
)
def test_a_plan_has_a_place_for_everything(values, training_too):
    """No two arrays of a network overlap in shared memory, each begins on 16 bytes, rows are a multiple of four apart
    whose fourth is odd."""
    net = training("numpy", **values).model.net
    plan = mlp_plan.lay_out(net, 8, training_too)
    head, layers, F = plan.numbers[:10], plan.numbers[10:].reshape(-1, 11), net.features.shape[1]
    pitch, taken = mlp_plan.pitch, []
    for n in range(1, 300):
        assert pitch(n) >= n and pitch(n) % 8 == 4 and pitch(n) < n + 8
    taken.append((head[6], 8 * pitch(head[2] + 1)))
    if training_too:
        taken += [(head[7], 8 * pitch(F)), (head[8], -(-2 * 8 * -(-net.D // 8) // 4))]
    for k, (n_in, n_out, _, _, at_F, w, f, x, u, s, g) in enumerate(layers):
        taken.append((w, mlp_plan.fours(n_in + 1) * pitch(n_out)))
        last = k + 1 == len(layers)
        assert (at_F < 0) == last
        if k:
            taken.append((x, 8 * pitch(n_in + 1)))
        if training_too or last:
            taken.append((s, 8 * pitch(n_out)))
        if training_too and not last:
            taken += [(f, 2 * mlp_plan.fours(F) * pitch(n_out)), (u, 8 * pitch(n_out)), (g, 8 * pitch(n_out))]
    taken.sort()
    assert all(start % 4 == 0 for start, _ in taken)
    assert (
        all(a + n <= b for (a, n), (b, _) in zip(taken, taken[1:]))
        and taken[-1][0] + taken[-1][1] <= head[9] == plan.floats
    )


def test_a_plan_keeps_within_the_limit(card):
    """The most rows that fit, and none where none do."""
    net = training("numpy").model.net
    sizes = {rows: 4 * mlp_plan.lay_out(net, rows, True).floats for rows in (64, 32, 16)}
    for rows in (64, 32):
        assert mlp_plan.largest(net, sizes[rows], (64, 32, 16), True).rows == rows
        assert mlp_plan.largest(net, sizes[rows] - 1, (64, 32, 16), True).rows == rows // 2
    assert mlp_plan.largest(net, sizes[16] - 1, (64, 32, 16), True) is None


# Commands
# ----------------------------------------------------------------------------------------------------------------------


def test_a_run_on_cupy(card, tmp_path):
    """train, --resume, sample, evaluate and validate with --backend cupy: the same numbers and rows as on NumPy, and
    files that either can read."""
    said = {}
    for backend in ("numpy", "cupy"):
        run = make_run(tmp_path / backend, steps_per_epoch=20)
        said[backend] = good("train", run, "--backend", backend).stderr
        assert checkpoint.read(rundir.resolve(run).checkpoint)[1]["backend"] == backend
    assert "back end cupy" in said["cupy"]
    tensors = [checkpoint.read(rundir.resolve(tmp_path / backend).checkpoint)[0] for backend in ("numpy", "cupy")]
    for name, array in tensors[0].items():
        np.testing.assert_allclose(tensors[1][name], array, rtol=2e-3, atol=2e-6, err_msg=name)
    for command in (("sample", "-n", 40, "--seed", 2), ("validate", "-n", 60), ("evaluate", "--evaluations", 2000)):
        found = [
            good(command[0], tmp_path / "cupy", *command[1:], "--backend", backend).stdout
            for backend in ("numpy", "cupy")
        ]
        numbers = [[float(x) for x in re.findall(r"\d+(?:\.\d+)?", text)] for text in found]
        np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1.1e-4)


def test_resume_is_exact(card, tmp_path):
    """A run stopped after three of its six epochs and resumed ends with the bits of one that was not stopped."""
    whole, parts = (make_run(tmp_path / name) for name in ("whole", "parts"))
    good("train", whole, "--backend", "cupy")
    good("train", parts, "--backend", "cupy")
    for path in list(rundir.checkpoints(newest(parts)).values())[3:]:
        path.unlink()
    assert "from step 30" in good("train", parts, "--resume", "--backend", "cupy").stderr
    a, b = (checkpoint.read(rundir.resolve(run).checkpoint)[0] for run in (whole, parts))
    for name, array in a.items():
        np.testing.assert_array_equal(b[name], array, err_msg=name)


def test_a_network_of_the_users_own(card, tmp_path):
    """Written in NumPy, it runs on the host, its arrays travel, and its training is NumPy's own."""
    runs = [make_run(tmp_path / backend, code=NET, epochs=2) for backend in ("numpy", "cupy")]
    for run, backend in zip(runs, ("numpy", "cupy")):
        good("train", run, "--backend", backend)
    a, b = (checkpoint.read(rundir.resolve(run).checkpoint)[0] for run in runs)
    for name, array in a.items():
        np.testing.assert_allclose(b[name], array, rtol=1e-3, atol=1e-6, err_msg=name)
    model = Model.load(runs[0])
    np.testing.assert_array_equal(model.sample(20, seed=1), model.on("cupy").sample(20, seed=1))
    np.testing.assert_array_equal(model.on("cupy").on("numpy").sample(20, seed=1), model.sample(20, seed=1))


@pytest.mark.parametrize(
    "fault, says",
    [
        (RuntimeError("no kernel image is available"), "it fails: no kernel image"),
        (MemoryError("9 GiB"), "memory is full (9 GiB)"),
    ],
)
def test_a_gpu_that_does_not_work(card, tmp_path, monkeypatch, fault, says):
    """A driver's error at the first try: one sentence with a fix, exit code 2, nothing left behind; auto goes on
    without it and says why."""
    from bdiff_np.backends import auto

    def fail(*_):
        raise fault

    run = make_run(tmp_path / "run")
    monkeypatch.setattr(card.ops, "matmul", fail)
    tryout.tried.discard(card.ops)
    found = invoke("train", run, "--backend", "cupy")
    assert (
        found.exit_code == 2
        and found.stderr.count("\n") == 1
        and f"--backend cupy: {says}" in found.stderr.replace("the GPU's ", "")
    )
    assert not (run / "results").exists()
    model = build(settings(hidden=(9,)), 9, 0.3)
    choice = auto.for_sampling(model, 10**10, 2000)
    assert choice.backend != "cupy" and str(fault) in choice.reason
    monkeypatch.undo()
    tryout.try_out(card.ops, str)


def test_a_gpu_draws_more_rows_at_a_time(card):
    """So that it is busy; rows stay those of NumPy, which draws fewer at a time."""
    here, there = training("numpy", T=2).averaged, training("cupy", T=2).averaged
    assert sample.rows_at_once(here) == 4096 and sample.rows_at_once(there) == 1 << 17
    np.testing.assert_array_equal(sample.draw(there, 4500, seed=2), sample.draw(here, 4500, seed=2))


def test_too_little_memory_on_the_command_line(card, tmp_path):
    """Exit code 2, one sentence, and nothing left behind."""
    events, run = stand_in_of(card), make_run(tmp_path / "run", num_sample_steps=20_000, hidden=(100,))
    with card.pretending(memory=events.card.used + 1_000_000):
        found = invoke("train", run, "--backend", "cupy")
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "GiB on the GPU" in found.stderr
    assert not (run / "results").exists()


# Three hundred steps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS[:2])
def test_heartbeats_300_steps(card, way, monkeypatch):
    """The run heartbeat_paper for 300 steps: the same noisy bits at every step, and in the end the weights of NumPy
    within 1e-4 of themselves.

    The one kernel keeps its bits to itself: for it, every row's KL is that of NumPy to 2e-4, and one bit that differed
    would move nearly any row's by more.
    """
    folder = ROOT / "runs" / "heartbeat_paper"
    rows, conf = read_run(Bits, folder)[0], config.load(folder / "config.yaml")
    here, there = (
        Training(build(conf, rows.D, np.asarray(conf.model.pi), backend=backend), rows) for backend in ("numpy", "cupy")
    )
    # each is a thread that waits for the others at the grid's barrier
    with nullcontext() if card.real else card.pretending(multiprocessors=2):
        take(there, way, card)
    for job in (here, there):
        monkeypatch.setattr(job, "logged", lambda step: np.ones_like(step, bool))
    drawn, kls = [], []
    q_sample, kl_grad = here.kernels.q_sample, here.kernels.kl_grad
    monkeypatch.setattr(here.kernels, "q_sample", lambda *arguments: drawn.append(q_sample(*arguments)) or drawn[-1])
    monkeypatch.setattr(here.kernels, "kl_grad", lambda *arguments: kls.append(kl_grad(*arguments)) or kls[-1])
    for step in range(1, 301):
        a, b = here.advance(1)[0], there.advance(1)[0]
        assert b == pytest.approx(a, rel=2e-5), step
        if way == "FusedSteps":
            np.testing.assert_allclose(
                there.model.ops.to_host(there.fused.kl), kls[-1][0], rtol=2e-4, atol=1e-9, err_msg=f"step {step}"
            )
        else:
            np.testing.assert_array_equal(there.model.ops.to_host(there.fused.x_t), drawn[-1], err_msg=f"step {step}")
    assert len(drawn) == 300
    found, expected = buffers(there), buffers(here)
    assert distance(found["params"], expected["params"]) < 1e-4 and distance(found["ema"], expected["ema"]) < 1e-4

    x0, t = here.batch(301)
    x_t = q_sample(x0, t, Key(conf.training.seed, rng.Q_NOISE, 301))

    def kl(bits):
        return kl_grad(here.model.output(bits, t), x0, bits, t)[0]

    moved = []
    for r, d in np.random.default_rng(0).integers(0, x_t.shape, (200, 2)):
        other = x_t.copy()
        other[r, d] ^= 1
        moved.append(abs(kl(other)[r] - kl(x_t)[r]) > 1e-9 + 2e-4 * kl(x_t)[r])
    assert np.mean(moved) > 0.98
