"""A training begins on NumPy while a process beside it sets another back end up, and goes on there: the same training,
and nothing left of the process, however either of the two ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import TRAIN, invoke, make_run, newest, settings
from tiny import model as untrained

import bdiff_np
from bdiff_np.backends import auto
from bdiff_np.data.bits import Bits
from bdiff_np.kernels.shared import crew_numba
from bdiff_np.runfolder import change_over, checkpoint, rundir, set_up
from bdiff_np.runfolder import run as runs
from bdiff_np.train import Training

ROOT = Path(__file__).parent.parent
STEPS, AT = 60, 23  # of a training of tiny.settings; before which of them it changes over

pytestmark = pytest.mark.usefixtures("quick")


class Ready:
    """In the place of SetUp: ends when it has been asked AT times, which is before step AT + 1."""

    fault = ""
    every: list[Ready] = []

    def __init__(self, backend, training):
        self.training, self.stopped, self.ends = training, 0, True
        Ready.every.append(self)

    def ended(self) -> bool:
        return self.ends and self.training.optimizer.taken >= AT

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture(autouse=True)
def meanwhile(monkeypatch):
    """`auto` takes Numba and has NumPy work meanwhile; it is set up before step AT + 1."""
    monkeypatch.setattr(auto, "for_training", lambda _: auto.Choice("numba", "a test", "numpy"))
    monkeypatch.setattr(change_over, "SetUp", Ready)
    monkeypatch.setattr(Ready, "every", [])


def tensors(results: Path) -> dict[str, np.ndarray]:
    """The last checkpoint's."""
    return checkpoint.read(list(rundir.checkpoints(results).values())[-1])[0]


def assert_same(a: dict, b: dict, **tolerance) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_allclose(array, b[name], err_msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


def train(folder: Path, *options, exit_code: int = 0):
    done = invoke("train", folder, *options)
    assert done.exit_code == exit_code, done.stderr
    return done


# The training
# ----------------------------------------------------------------------------------------------------------------------


def test_the_same_training(tmp_path):
    """To the step of the change bit for bit NumPy's, from there bit for bit that of Numba restored there, and in all
    NumPy's up to rounding; stderr, checkpoints and results.json say what was where."""
    folder, alone = make_run(tmp_path / "run"), make_run(tmp_path / "alone")
    said = train(folder).stderr
    assert "back end numpy, then numba (auto: a test)" in said
    assert said.count(f"from step {AT + 1} the training runs on numba, which is ready now\n") == 1
    train(alone, "--backend", "numpy")
    assert_same(tensors(newest(folder)), tensors(newest(alone)), rtol=1e-3, atol=1e-5)

    on_numpy, on_numba = (Training(untrained(pi=0.5).on(name), TRAIN) for name in ("numpy", "numba"))
    on_numpy.advance(AT)
    on_numba.restore(on_numpy.tensors(), AT)
    on_numba.advance(STEPS - AT)
    assert_same(tensors(newest(folder)), on_numba.tensors())

    metas = {e: checkpoint.read(path)[1] for e, path in rundir.checkpoints(newest(folder)).items()}
    assert {e: meta["backend"] for e, meta in metas.items()} == {1: "numpy", 2: "numpy"} | dict.fromkeys(
        range(3, 7), "numba"
    )
    assert {e: meta["later"] for e, meta in metas.items()} == {1: "numba", 2: "numba"} | dict.fromkeys(range(3, 7), "")
    assert rundir.read_results(newest(folder))["backends"] == [
        {"from_step": 1, "name": "numpy"}, {"from_step": AT + 1, "name": "numba"},
    ]  # fmt: skip
    assert Ready.every[0].stopped == 1


@pytest.mark.parametrize("fault", ["", "the compiler is out of order"])
def test_not_ready(tmp_path, monkeypatch, fault):
    """Where the set-up fails, or is not done in time, the training is NumPy's to the end; of a fault, and of that
    alone, a line on stderr tells."""
    monkeypatch.setattr(Ready, "fault", fault)
    monkeypatch.setattr(Ready, "ended", lambda self: bool(fault) and self.training.optimizer.taken >= AT)
    folder, alone = make_run(tmp_path / "run"), make_run(tmp_path / "alone")
    said = train(folder).stderr
    sentence = f"numba could not be set up ({fault}); the training stays on numpy\n"
    assert said.count(sentence) == bool(fault) and "runs on numba" not in said
    train(alone, "--backend", "numpy")
    assert_same(tensors(newest(folder)), tensors(newest(alone)))
    assert [each["name"] for each in rundir.read_results(newest(folder))["backends"]] == ["numpy"]
    assert [each.stopped for each in Ready.every] == [1]


def test_no_process_can_be_begun(tmp_path, monkeypatch):
    """Then it is Numba's from the first step."""

    def none(*_):
        raise OSError("no process")

    monkeypatch.setattr(change_over, "SetUp", none)
    folder, alone = make_run(tmp_path / "run"), make_run(tmp_path / "alone")
    train(folder)
    train(alone, "--backend", "numba")
    assert_same(tensors(newest(folder)), tensors(newest(alone)))


def test_a_named_back_end_needs_no_process(tmp_path):
    train(make_run(tmp_path / "run"), "--backend", "numba")
    train(tmp_path / "run", "--dry-run")
    assert Ready.every == []


@pytest.mark.parametrize("at", [AT - 3, AT + 7])
def test_interrupted_and_resumed(tmp_path, monkeypatch, at):
    """Ctrl-C before the change or after it stops the set-up; --resume goes on waiting, or on Numba."""
    folder, advance = make_run(tmp_path / "run"), Training.advance

    def with_signal(self, count):
        losses = advance(self, count)
        if self.optimizer.taken - count < at <= self.optimizer.taken:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", with_signal)
        train(folder, exit_code=130)
    assert [each.stopped for each in Ready.every] == [1]
    changed = at > AT
    said = train(folder, "--resume").stderr
    first = "numba (auto: the training began on it)" if changed else "numpy, then numba (auto: a test)"
    assert f"back end {first}" in said and ("from step 24 the training runs on numba" in said) == (not changed)
    assert rundir.read_results(newest(folder))["backends"] == [
        {"from_step": 1, "name": "numpy"}, {"from_step": AT + 1, "name": "numba"},
    ]  # fmt: skip
    assert all(each.stopped == 1 for each in Ready.every) and len(Ready.every) == 2 - changed


def test_begun_on_numpy_and_resumed(tmp_path, monkeypatch):
    """A training that was to stay on NumPy does so after --resume too, bit for bit, whatever `auto` says by then."""
    folder, alone = make_run(tmp_path / "run"), make_run(tmp_path / "alone")
    train(alone, "--backend", "numpy")
    train(folder, "--backend", "numpy")
    for epoch, path in rundir.checkpoints(newest(folder)).items():
        if epoch > 3:
            path.unlink()
    assert "back end numpy (auto: the training began on it)" in train(folder, "--resume").stderr
    assert_same(tensors(newest(folder)), tensors(newest(alone)))
    assert Ready.every == []


def test_from_python(capsys):
    """fit changes over as well."""
    values = {"epochs": 2, "steps_per_epoch": 30, "T": 20, "hidden": (8,), "seed": 1}
    bdiff_np.fit(TRAIN.all(), **values)
    assert f"from step {AT + 1} the training runs on numba" in capsys.readouterr().err
    assert [each.stopped for each in Ready.every] == [1]


# The process
# ----------------------------------------------------------------------------------------------------------------------

KINDS = [
    {},
    {"pi": "data", "num_sample_steps": 3},
    {"predict": "x_prev", "hidden": (300,), "batch_size": 300, "skip": False},
    {"odds_input": True, "weight_decay": 0.1, "bce_weight": 0.3, "clip_thresh": None},
]


@pytest.mark.parametrize("values", KINDS, ids=["plain", "pi-of-each-bit", "wide", "odds"])
def test_the_same_functions(monkeypatch, values):
    """The small training calls the compiled functions that take long to compile with arguments of the same types as
    the training itself: what it compiled is what that will look for."""
    from numba import typeof

    calls: list = []
    monkeypatch.setattr(
        crew_numba, "run", lambda threads, tasks, work, *all: calls.append((work.py_func, [*map(typeof, all)]))
    )
    monkeypatch.setattr(Training, "check_finite", lambda _: None)
    rows = Bits.from_array(np.random.default_rng(0).integers(0, 2, (600, 10)))
    monkeypatch.setattr("bdiff_np.optim.adamw.AdamW.check", lambda *_: None)

    def called(work) -> list:
        calls.clear()
        work()
        return [*calls]

    run = runs.Run(
        Path(), settings(epochs=100, num_val_samples=0, **values), backend="numba", code=None, place=str,
        rows=(rows, None),
    )  # fmt: skip
    own = called(lambda: (run.training.advance(5), run.looking.look(run.watch)))
    small = called(lambda: set_up.work(**set_up._small("numba", run.training)))
    assert {work.__name__ for work, _ in own} == {"take", "walk_back", "work_out", "_argsort"}
    for each in own:
        assert each in small


def test_the_process_does_it_and_ends():
    """It says nothing, ends well, and leaves no zombie; a training that it cannot do is a fault in a line."""
    job = Training(untrained(), TRAIN)
    for backend, fault in ("numba", ""), ("punched-cards", "'punched-cards' is not part of this version"):
        process = set_up.SetUp(backend, job)
        deadline = time.monotonic() + 60
        while not process.ended():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert fault in process.fault and bool(fault) == bool(process.fault) and "\n" not in process.fault
        process.stop()
        with pytest.raises(ChildProcessError):
            os.waitpid(process._process.pid, 0)


PARENT = """
import sys
from bdiff_np import cli, evaluate
from bdiff_np.backends import gpu
from bdiff_np.diffusion.bernoulli_family import Bernoulli
from bdiff_np.runfolder import conclude, looking
from bdiff_np.show import pictures

gpu.driver = lambda: gpu.Driver(None, (), "none")
conclude.EVALUATIONS = looking.VAL_EVALUATIONS = 1 << 7
pictures.draw, Bernoulli.floor = (lambda *_: None), (lambda *_: None)
cli.main(["train", *sys.argv[1:]])
"""


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie that waits for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_signal_ends_both(tmp_path, number):
    """On a machine that has compiled nothing, a training takes steps while the process compiles. SIGTERM saves, says
    so, and leaves no process; SIGKILL leaves none either. No half file stands where the kernels are kept."""
    folder = make_run(tmp_path / "run", epochs=10**5, steps_per_epoch=100, num_val_samples=0, num_examples=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PARENT, folder]
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        (child,) = until(lambda: children(parent.pid))
        until(lambda: rundir.all_results(folder) and rundir.checkpoints(newest(folder)))
        until(lambda: any((tmp_path / "cache").rglob("*.nbc")))
        assert alive(child)
        parent.send_signal(number)
        _, said = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == (143 if number == signal.SIGTERM else -number), said
    assert re.search(r"back end numpy, then numba \(auto: about \d+ s on NumPy, or \d+ s there while ", said)
    until(lambda: not alive(child), 5)
    if number == signal.SIGTERM:
        assert "--resume" in said
        assert checkpoint.read(list(rundir.checkpoints(newest(folder)).values())[-1])[1]["later"] == "numba"
