"""--resume: what may change, what is said of edits, a run that is finished, two processes on one run, signals and
checkpoints by the clock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from test_resume import interrupt, metrics, same_training
from tiny import invoke, make_run, newest

from bdiff_np import config
from bdiff_np.errors import InputError
from bdiff_np.runfolder import checkpoint, conclude, lock, opening, rundir, saving, session, signals
from bdiff_np.runfolder import run as training
from bdiff_np.show import pictures
from bdiff_np.train import Training

pytestmark = pytest.mark.usefixtures("quick")


def stopped(folder: Path, monkeypatch, step: int = 35, **values) -> Path:
    """A run folder whose training was interrupted after a step of 60."""
    make_run(folder, **values)
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        assert invoke("train", folder).exit_code == 130
    return folder


def state(folder: Path) -> dict:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


# Settings that were edited
# ----------------------------------------------------------------------------------------------------------------------


def test_edits_are_named(tmp_path, monkeypatch):
    """One line each, with both values and that which counts; none where nothing was edited."""
    folder = stopped(tmp_path / "run", monkeypatch)
    text = (folder / "config.yaml").read_text()
    same = invoke("train", shutil.copytree(folder, tmp_path / "same"), "--resume")
    assert "when begun" not in same.stderr
    edited = (
        text.replace("lr: 0.02", "lr: 0.5").replace("hidden: [8]", "hidden: [9, 9]").replace("epochs: 6", "epochs: 7")
    )
    (folder / "config.yaml").write_text(edited)
    found = invoke("train", folder, "--resume")
    assert found.exit_code == 0
    assert [line for line in found.stderr.splitlines() if "when begun" in line] == [
        "model.hidden: [8] when begun, [9, 9] in config.yaml now; going on with [8]",
        "training.epochs: 6 when begun, 7 in config.yaml now; going on with 6",
        "training.lr: 0.02 when begun, 0.5 in config.yaml now; going on with 0.02",
    ]


def edits(found) -> list[str]:
    assert found.exit_code == 0, found.stderr
    return [line for line in found.stderr.splitlines() if "when begun" in line]


def test_what_set_gave_is_no_edit(tmp_path, monkeypatch):
    """Each time: neither a setting of the file that --set overruled, nor one that the file leaves out."""
    folder = make_run(tmp_path / "run")
    text = "".join(line for line in open(folder / "config.yaml") if "  lr:" not in line)
    (folder / "config.yaml").write_text(text)
    with monkeypatch.context() as patch:
        interrupt(patch, 35)
        options = ("--set", "training.lr=0.01", "--set", "model.T=10", "--set", "training.epochs=5")
        assert invoke("train", folder, *options).exit_code == 130
    assert edits(invoke("train", shutil.copytree(folder, tmp_path / "same"), "--resume")) == []
    (folder / "config.yaml").write_text(text.replace("T: 20", "T: 10").replace("epochs: 6", "epochs: 7"))
    # T is what the training has anyway
    expected = "training.epochs: 6 when begun, 7 in config.yaml now; going on with 5"
    assert edits(invoke("train", folder, "--resume")) == [expected]


def test_a_line_taken_out_is_an_edit(tmp_path, monkeypatch):
    folder = stopped(tmp_path / "run", monkeypatch)
    text = "".join(line for line in open(folder / "config.yaml") if "  epochs:" not in line)
    (folder / "config.yaml").write_text(text)
    expected = "training.epochs: 6 when begun, 100 by default now; going on with 6"
    assert edits(invoke("train", folder, "--resume")) == [expected]


def test_a_default_that_has_changed_is_no_edit(tmp_path, monkeypatch):
    """The version that began the training had another default."""
    folder = stopped(tmp_path / "run", monkeypatch)
    (folder / "config.yaml").write_text(
        "# a remark\n" + (folder / "config.yaml").read_text().replace("  ema: 0.999\n", "")
    )
    given = newest(folder) / saving.GIVEN
    given.write_text(given.read_text().replace("  ema: 0.999\n", ""))
    assert edits(invoke("train", folder, "--resume")) == []


def test_results_without_a_copy_of_the_configuration(tmp_path, monkeypatch):
    """Those of an earlier version: what was resolved then is compared, without settings that there were not yet."""
    folder = stopped(tmp_path / "run", monkeypatch, val="none")
    (newest(folder) / saving.GIVEN).unlink()
    cuts = (folder, "  val: none\n"), (newest(folder), "  val: none\n"), (folder, "  save_every_minutes: 10\n")
    for file, cut in cuts:
        text = (file / "config.yaml").read_text()
        assert cut in text
        (file / "config.yaml").write_text(text.replace(cut, "").replace("patience: null", "patience: never"))
    assert edits(invoke("train", shutil.copytree(folder, tmp_path / "same"), "--resume")) == []
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("lr: 0.02", "lr: 0.5"))
    expected = "training.lr: 0.02 when begun, 0.5 in config.yaml now; going on with 0.02"
    assert edits(invoke("train", folder, "--resume")) == [expected]


def test_faulty_edits_are_named(tmp_path, monkeypatch):
    """A config.yaml that cannot be read now is one line, and the run goes on."""
    folder = stopped(tmp_path / "run", monkeypatch)
    (folder / "config.yaml").write_text("training: {lr: fast, epochs: many}\n")
    found = invoke("train", folder, "--resume")
    (line,) = [line for line in found.stderr.splitlines() if "going on with the settings of" in line]
    assert line.startswith(f"{folder / 'config.yaml'}:1:16: training.lr: must be a number")
    assert found.exit_code == 0 and len(metrics(newest(folder))) == 6


def test_a_missing_config_is_the_defaults(tmp_path, monkeypatch):
    folder = stopped(tmp_path / "run", monkeypatch)
    (folder / "config.yaml").unlink()
    found = invoke("train", folder, "--resume")
    said = "training.epochs: 6 when begun, 100 by default now, without a config.yaml; going on with 6"
    assert found.exit_code == 0 and said in found.stderr.splitlines()


# More epochs, or fewer
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun, step", [(4, 35), (6, 60), (6, 25)])
def test_extended_is_one_run(tmp_path, monkeypatch, begun, step):
    """With a constant learning rate a run with more epochs is, to the last bit, one begun with so many."""
    whole = make_run(tmp_path / "whole", epochs=8, lr_schedule="constant")
    assert invoke("train", whole).exit_code == 0
    folder = stopped(tmp_path / "run", monkeypatch, step, epochs=begun, lr_schedule="constant")
    found = invoke("train", folder, "--resume", "--set", "training.epochs=8")
    assert found.exit_code == 0, found.stderr
    assert f"training.epochs: {begun} up to now, 8 from here on" in found.stderr
    assert f"the learning rate goes on as it would have, 0.02 in step {step + 1}" in found.stderr
    same_training(newest(folder), newest(whole))
    now = config.load(newest(folder) / "config.yaml")
    assert now.training.epochs == 8 and len(rundir.all_results(folder)) == 1


def test_the_new_course_of_a_cosine_is_told(tmp_path, monkeypatch):
    """half a cosine of 60 steps becomes one of 80: in step 36, 0.02 (1 + cos(pi 36 / 80)) / 2 instead of 36 / 60."""
    folder = stopped(tmp_path / "run", monkeypatch)
    found = invoke("train", folder, "--resume", "--set", "training.epochs=8")
    new, old = (0.02 * 0.5 * (1 + np.cos(np.pi * 36 / total)) for total in (80, 60))
    assert (
        "the cosine of the learning rate ends with step 80 instead of 60: in step 36 it is "
        f"{new:.6g} instead of {old:.6g}" in found.stderr
    )
    assert found.exit_code == 0 and len(metrics(newest(folder))) == 8


def test_a_finished_run_is_extended(tmp_path):
    folder = make_run(tmp_path / "run")
    assert invoke("train", folder).exit_code == 0
    found = invoke("train", folder, "--resume", "--set", "training.epochs=7")
    assert found.exit_code == 0 and "in step 61" in found.stderr and len(metrics(newest(folder))) == 7
    assert {"bounds", "samples"} < rundir.read_results(newest(folder)).keys()


def test_fewer_epochs(tmp_path, monkeypatch):
    """Down to those that are begun; below, nothing changes."""
    folder = stopped(tmp_path / "run", monkeypatch)
    before = state(folder)
    found = invoke("train", folder, "--resume", "--set", "training.epochs=3")
    assert found.exit_code == 2 and state(folder) == before
    assert found.stderr.strip() == "--set training.epochs=3: epoch 4 is begun already; set 4 at least"
    assert invoke("train", folder, "--resume", "--set", "training.epochs=4").exit_code == 0
    assert len(metrics(newest(folder))) == 4


def test_what_else_may_change(tmp_path, monkeypatch):
    """Checkpoints and patience."""
    folder = stopped(tmp_path / "run", monkeypatch, select="best", save_every_n_epochs=3)
    options = ["training.save_every_n_epochs=1", "training.save_every_minutes=3", "training.patience=5"]
    found = invoke("train", folder, "--resume", *(word for option in options for word in ("--set", option)))
    assert found.exit_code == 0 and "training.patience: null up to now, 5 from here on" in found.stderr
    assert {5, 6} <= rundir.checkpoints(newest(folder)).keys()


# Finished
# ----------------------------------------------------------------------------------------------------------------------


def test_finished_is_said(tmp_path, monkeypatch):
    """With the summary there is, how to go on, and not one file changed or drawn anew."""
    folder = make_run(tmp_path / "run")
    first = invoke("train", folder)
    before = state(folder)
    monkeypatch.setattr(conclude, "conclude", lambda run: pytest.fail("concluded again"))
    found = invoke("train", folder, "--resume")
    assert found.exit_code == 0 and state(folder) == before
    assert found.stderr.splitlines()[-1] == (
        f"finished already: 6 epochs; to go on: python cli.py train {folder} --resume --set training.epochs=12"
    )
    assert found.stdout.strip() and found.stdout in first.stdout
    changed = invoke("train", folder, "--resume", "--set", "training.save_every_n_epochs=2")
    assert changed.exit_code == 0 and state(folder) == before
    said = "training.save_every_n_epochs: 2 is not kept, for there is no step left to take"
    assert said in changed.stderr.splitlines() and "up to now" not in changed.stderr


@pytest.mark.parametrize("lost", ["killed in the pictures", "killed before the bounds"])
def test_a_run_without_its_conclusion_concludes(tmp_path, monkeypatch, lost):
    folder = make_run(tmp_path / "run")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if lost == "killed in the pictures":
            patch.setattr(pictures, "draw", killed)
        else:
            patch.setattr(conclude, "conclude", killed)
        found = invoke("train", folder)
        assert found.exit_code == 130 and f"bounds and pictures: python cli.py train {folder} --resume" in found.stderr
    assert "bounds" not in rundir.read_results(newest(folder))
    drawn = []
    monkeypatch.setattr(pictures, "draw", lambda *_: drawn.append(1))
    assert invoke("train", folder, "--resume").exit_code == 0
    assert {"bounds", "samples"} < rundir.read_results(newest(folder)).keys() and drawn == [1]


def test_an_early_stop_is_finished(tmp_path):
    """And goes on when patience is lifted."""
    values = {"select": "best", "patience": 1, "epochs": 12, "lr": 0.3, "warmup_steps": 0, "ema": 0.0}
    folder = make_run(tmp_path / "run", lr_schedule="constant", **values)
    first = invoke("train", folder)
    assert "the bound of the held-out rows has not been better for 1 epochs" in first.stderr
    before = state(folder)
    found = invoke("train", folder, "--resume")
    assert found.exit_code == 0 and state(folder) == before
    assert "finished already with an early stop: " in found.stderr
    assert found.stderr.strip().endswith("--resume --set training.patience=never")
    more = invoke("train", folder, "--resume", "--set", "training.epochs=20")
    assert more.exit_code == 0 and state(folder) == before and "from here on" not in more.stderr
    said = "training.epochs: 20 is not kept, for training has stopped early; add --set training.patience=never"
    assert said in more.stderr.splitlines()
    assert invoke("train", folder, "--resume", "--set", "training.patience=never").exit_code == 0
    assert len(metrics(newest(folder))) == 12


# Signals
# ----------------------------------------------------------------------------------------------------------------------

SIGNALS = [(name, code) for name, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)) if hasattr(signal, name)]


@pytest.mark.parametrize("name, code", SIGNALS)
@pytest.mark.parametrize("step", [1, 25, 60])
def test_signals_end_in_good_order(tmp_path, monkeypatch, name, code, step):
    """TERM and HUP do what Ctrl-C does: the step is finished, saved and concluded, and the exit code names the
    signal; after --resume the end is that of an undisturbed run."""
    whole = make_run(tmp_path / "whole")
    assert invoke("train", whole).exit_code == 0
    folder, number = make_run(tmp_path / "run"), getattr(signal, name)
    handler, original = signal.getsignal(number), Training.step

    def with_signal(self):
        loss = original(self)
        if self.optimizer.taken == step:
            os.kill(os.getpid(), number)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", with_signal)
        found = invoke("train", folder)
    assert found.exit_code == code and f"train {folder} --resume" in found.stderr
    assert f"{signals.NAMES[name]}: finishing the step, saving" in found.stderr
    last = list(rundir.checkpoints(newest(folder)).values())[-1]
    assert checkpoint.read(last)[1]["step"] == step and "bounds" in rundir.read_results(newest(folder))
    assert signal.getsignal(number) is handler
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), newest(whole))


@pytest.mark.parametrize("name, code", SIGNALS)
def test_a_signal_while_compiling_leaves_nothing(tmp_path, monkeypatch, name, code):
    folder = make_run(tmp_path / "run")
    monkeypatch.setattr(training.Run, "compile", lambda self: os.kill(os.getpid(), getattr(signal, name)))
    found = invoke("train", folder)
    assert found.exit_code == code and "interrupted before the training began; nothing is left behind" in found.stderr
    assert not (folder / "results").exists()


@pytest.mark.parametrize("when", ["made", "told", "first step", "first look"])
def test_a_signal_before_there_is_a_checkpoint(tmp_path, monkeypatch, when):
    """One before it is waited for, or a second in the first epoch: there is nothing to go on from, and nothing left."""
    folder, kill = make_run(tmp_path / "run"), lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
    if when == "made":
        monkeypatch.setattr(saving, "write_config", kill)
    elif when == "told":
        monkeypatch.setattr(training, "progress", kill)
    elif when == "first step":
        interrupt(monkeypatch, 1, times=2)
    else:
        monkeypatch.setattr(Training, "check_finite", lambda self: [kill(), kill()])
    found = invoke("train", folder)
    assert found.exit_code == (130 if when == "first step" else 143)
    assert found.stderr.splitlines()[-1] == "interrupted before there was a checkpoint; nothing is left behind"
    assert not (folder / "results").exists()


def test_a_second_signal_before_there_is_a_checkpoint(tmp_path, monkeypatch):
    """In a later epoch: the metrics are left, and the sentence says no more."""
    folder = make_run(tmp_path / "run", save_every_n_epochs=6)
    interrupt(monkeypatch, 25, times=2)
    found = invoke("train", folder)
    assert found.exit_code == 130 and found.stderr.splitlines()[-1] == (
        f"interrupted before there was a checkpoint; {newest(folder)} has the metrics of 2 epochs and no weights; "
        f"begin again: python cli.py train {folder}"
    )
    assert len(metrics(newest(folder))) == 2


def test_results_that_were_there_are_not_removed(tmp_path, monkeypatch):
    """--resume of results whose checkpoints were taken away begins anew in them, and removes nothing."""
    folder = stopped(tmp_path / "run", monkeypatch)
    shutil.rmtree(newest(folder) / "checkpoints")
    (newest(folder) / "checkpoints").mkdir()
    before = state(folder)
    monkeypatch.setattr(training, "progress", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    found = invoke("train", folder, "--resume")
    assert found.exit_code == 143 and state(folder) == before
    assert f"{newest(folder)} has the metrics of 0 epochs and no weights" in found.stderr


@pytest.mark.parametrize("name, code", SIGNALS)
def test_a_signal_in_the_conclusion(tmp_path, monkeypatch, name, code):
    """At once; nothing is half written, and --resume concludes."""
    folder = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: os.kill(os.getpid(), getattr(signal, name)))
        found = invoke("train", folder)
    assert found.exit_code == code and f"train {folder} --resume" in found.stderr
    assert not list(folder.rglob("*.tmp"))
    assert invoke("train", folder, "--resume").exit_code == 0
    assert "bounds" in rundir.read_results(newest(folder))


@pytest.mark.parametrize("name, code", SIGNALS)
def test_a_signal_before_all_and_while_the_last_is_told(tmp_path, monkeypatch, name, code):
    """The exit code is that of the signal, and nothing is left behind."""
    folder, kill = make_run(tmp_path / "run"), lambda *_, **__: os.kill(os.getpid(), getattr(signal, name))
    for part in ("check", "_prepare", "_where_it_stands"):
        with monkeypatch.context() as patch:
            patch.setattr(session, part, kill)
            if part == "_where_it_stands":
                patch.setattr(session, "_prepare", kill)
            assert invoke("train", folder).exit_code == code
    assert not (folder / "results").exists()


def test_a_signal_that_became_another_exception(tmp_path, monkeypatch):
    """As in Python 3.11 while a class is made: the exit code is the signal's, without a traceback."""

    def prepare(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as fault:
            raise RuntimeError("Error calling __set_name__") from fault

    monkeypatch.setattr(session, "_prepare", prepare)
    found = invoke("train", make_run(tmp_path / "run"))
    assert found.exit_code == 143 and "Traceback" not in found.stderr and "interrupted before" in found.stderr


def test_stderr_that_is_gone_loses_nothing(tmp_path, monkeypatch):
    """After SIGHUP the terminal is closed: what is printed is lost, what is trained is not."""

    class Closed:
        encoding, errors = "utf-8", "strict"

        def isatty(self):
            return False

        def write(self, text):
            raise OSError(5, "Input/output error")

        def flush(self):
            raise OSError(5, "Input/output error")

        fileno = flush

    folder = make_run(tmp_path / "run")
    interrupt(monkeypatch, 35)
    monkeypatch.setattr(sys, "stderr", Closed())
    say = lambda text, err=False: print(text, file=sys.stderr)  # noqa: E731
    with signals.Watch() as watch:
        code = session.train(folder, [], backend="numpy", resume=False, watch=watch, say=say)
    assert code == 130 and isinstance(sys.stderr, Closed)
    assert checkpoint.read(list(rundir.checkpoints(newest(folder)).values())[-1])[1]["step"] == 35


def test_a_training_in_a_thread(tmp_path):
    """Python sets handlers in the main thread alone; elsewhere a training does without."""
    folder, found, before = make_run(tmp_path / "run"), [], signal.getsignal(signal.SIGINT)
    job = opening.prepare(folder, config.load(folder / "config.yaml"), backend="numpy")
    saving.begin(job)
    thread = threading.Thread(target=lambda: found.append(job.train()))
    thread.start()
    thread.join()
    job.release()
    assert found == ["finished"] and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name, code", SIGNALS)
def test_what_is_ignored_stays_so(name, code):
    """nohup ignores SIGHUP, a shell's `&` SIGINT."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals.Watch() as watch:
            os.kill(os.getpid(), number)
            assert watch.number is None and signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_watch_on_some_signals(capsys):
    """The others keep their handlers; the sentence is the one given."""
    term = signal.getsignal(signal.SIGTERM)
    with signals.Watch(["SIGINT"], "finishing the step") as watch:
        assert signal.getsignal(signal.SIGTERM) is term
        with watch.patient():
            os.kill(os.getpid(), signal.SIGINT)
    assert watch.exit_code == 130
    assert capsys.readouterr().err == "\nCtrl-C: finishing the step (again to leave at once)\n"


# The lock
# ----------------------------------------------------------------------------------------------------------------------


def test_two_processes_on_one_run(tmp_path, monkeypatch):
    """The second is refused in a sentence, and neither changes nor removes anything; when the first is killed, its
    lock goes with it."""
    folder = stopped(tmp_path / "run", monkeypatch)
    mark = newest(folder) / ".0123.tmp"
    code = "import sys, time; from pathlib import Path; from bdiff_np.runfolder.lock import Lock\n"
    code += "held = Lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code, newest(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        mark.write_text("of the first")
        before = state(folder)
        found = invoke("train", folder, "--resume")
        assert found.exit_code == 2 and state(folder) == before
        assert found.stderr.startswith(f"{newest(folder)}: another process trains it at this moment")
        assert len(found.stderr.strip().splitlines()) == 1
        beside = invoke("train", folder, "--set", "training.epochs=1")
        assert beside.exit_code == 0 and len(rundir.all_results(folder)) == 2
        shutil.rmtree(newest(folder))
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    assert invoke("train", folder, "--resume").exit_code == 0 and not mark.exists()


def test_a_lock_is_let_go(tmp_path):
    """By `release`; a folder that is gone, or on a disk without locks, is trained without."""
    first = lock.Lock(tmp_path)
    with pytest.raises(InputError, match="another process trains it"):
        lock.Lock(tmp_path)
    first.release()
    lock.Lock(tmp_path).release()
    lock.Lock(tmp_path / "nowhere").release()


def test_a_lock_outlives_its_files(tmp_path, monkeypatch):
    """An editor puts another reverse_model.py in the place of the one there is; or it cannot be written."""
    folder = stopped(tmp_path / "run", monkeypatch)
    code = newest(folder) / "reverse_model.py"
    code.chmod(0o400)
    held = lock.Lock(newest(folder))
    try:
        (newest(folder) / "new").write_text(code.read_text())
        os.replace(newest(folder) / "new", code)
        assert "another process trains it" in invoke("train", folder, "--resume").stderr
        code.unlink()
        assert "another process trains it" in invoke("train", folder, "--resume").stderr
    finally:
        held.release()


def test_a_lock_that_is_forgotten(tmp_path):
    """Is told, as a file that nobody closes is, and let go."""
    with pytest.warns(ResourceWarning, match="a lock on a results folder was not released"):
        lock.Lock(tmp_path)
    lock.Lock(tmp_path).release()


def test_no_locks_on_this_disk(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "_lock", refuse)
    lock.Lock(tmp_path).release()
    lock.Lock(tmp_path).release()


# By the clock
# ----------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_every_ten_minutes(tmp_path, monkeypatch):
    """With steps of 4 minutes there is one after each third, within an epoch too; a run that is killed goes on from
    there to the same end."""
    whole = make_run(tmp_path / "whole", save_every_n_epochs=6)
    assert invoke("train", whole).exit_code == 0
    folder, now, saved = make_run(tmp_path / "run", save_every_n_epochs=6), [0.0], []
    original, write = Training.step, checkpoint.write

    def step(self):
        now[0] += 240
        if self.optimizer.taken == 17:
            raise KeyboardInterrupt
        return original(self)

    def note(path, tensors, meta):
        saved.append((path.name, meta["epoch"], meta["step"]))
        write(path, tensors, meta)

    with monkeypatch.context() as patch:
        patch.setattr(training, "clock", lambda: now[0])
        patch.setattr(Training, "step", step)
        patch.setattr(checkpoint, "write", note)
        assert invoke("train", folder).exit_code == 130
    assert saved == [
        ("model_epoch_1.safetensors", 0, 3),
        ("model_epoch_1.safetensors", 0, 6),
        ("model_epoch_1.safetensors", 0, 9),
        ("model_epoch_1.safetensors", 1, 10),
        ("model_epoch_2.safetensors", 1, 13),
        ("model_epoch_2.safetensors", 1, 16),
    ]
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), newest(whole))


def test_null_is_no_clock(tmp_path, monkeypatch):
    folder, now = (
        make_run(tmp_path / "run", save_every_n_epochs=6, save_every_minutes=None),
        iter(range(0, 10**9, 10**6)),
    )
    monkeypatch.setattr(training, "clock", lambda: next(now))
    assert invoke("train", folder).exit_code == 0
    assert list(rundir.checkpoints(newest(folder))) == [6]
    assert json.loads((newest(folder) / "results.json").read_text())["wall_seconds"] == 10**6
