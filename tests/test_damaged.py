"""Files of a results folder that are not what they should be: each is a sentence that names the file and the fault,
with exit code 2, and --resume goes on from the newest good checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tiny import NET, invoke, make_run, newest

import bdiff_np
from bdiff_np import evaluate
from bdiff_np.errors import InputError
from bdiff_np.runfolder import checkpoint, conclude, files, rundir, saving
from bdiff_np.runfolder import run as training
from bdiff_np.show import pictures

DEEP = "[" * 50_000
COMMANDS = ("sample", "evaluate", "validate")
HUGE = "9" * 5_000


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run folder with three checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: None)
        patch.setattr(conclude, "EVALUATIONS", 1 << 7)
        folder = make_run(tmp_path_factory.mktemp("finished") / "run", epochs=3)
        assert invoke("train", folder).exit_code == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def last(run: Path) -> Path:
    return rundir.checkpoint_path(newest(run), 3)


def sentence(*arguments) -> str:
    """What a command says that is refused."""
    found = invoke(*arguments)
    assert found.exit_code == 2 and found.stdout == "" and "Traceback" not in found.stderr, found.stderr
    lines = found.stderr.strip().splitlines()
    return lines[-1] if lines[0].startswith("using ") else found.stderr.strip()


def change(**values):
    """A change of the description; None removes."""

    def apply(tensors, meta):
        meta.update(values)
        for name in [name for name, value in values.items() if value is None]:
            del meta[name]

    return apply


def tensor(name, value):
    def apply(tensors, meta):
        tensors[name] = value(tensors[name]) if value else None
        if tensors[name] is None:
            del tensors[name]

    return apply


def filled(value):
    def put(array):
        array = np.array(array)
        array.flat[0] = value
        return array

    return put


CHANGES = {
    "D negative": (change(D=-1), "its D is -1"),
    "D text": (change(D="8"), "its D is '8'"),
    "D fraction": (change(D=8.5), "its D is 8.5"),
    "D huge": (change(D=2**40), "its D is"),
    "no D": (change(D=None), "its description lacks D"),
    "no net": (change(net=None), "its description lacks net"),
    "net a list": (change(net=[1]), "its net is [1]"),
    "no config": (change(config=None), "its description lacks config"),
    "config a list": (change(config=[]), "its config is []"),
    "config of numbers": (change(config={"model": 3}), "its config.model is 3"),
    "config of another family": (change(config={"model": {"family": [1]}}), "its configuration is not one of this"),
    "config unknown": (change(config={"model": {"T": -3}}), "its configuration is not one of this version"),
    "no pi": (tensor("pi", None), "lacks 'pi'"),
    "pi of another shape": (tensor("pi", lambda _: np.full(3, 0.5)), "pi has shape (3,), expected () or (8,)"),
    "pi of two axes": (tensor("pi", lambda _: np.full((1, 8), 0.5)), "pi has shape (1, 8)"),
    "pi above 1": (tensor("pi", lambda _: np.asarray(1.5)), "pi must lie between"),
    "nan weight": (tensor("ema/out/W", filled(np.nan)), "ema/out/W holds values that are not finite"),
    "infinite weight": (tensor("params/out/b", filled(np.inf)), "params/out/b holds values that are not finite"),
    "nan moment": (tensor("v", filled(np.nan)), "v holds values that are not finite"),
    "integer weight": (tensor("ema/out/b", lambda a: a.astype(np.int32)), "ema/out/b holds int32"),
    "no averages": (
        lambda t, m: [t.pop(n) for n in list(t) if n.startswith("ema/")],
        "it holds no averaged weights",
    ),
    "fewer weights": (tensor("params/out/b", None), "m has shape (208,), expected (200,)"),
    "m of another shape": (tensor("m", lambda _: np.zeros(3, np.float32)), "m has shape (3,), expected (208,)"),
    "no v": (tensor("v", None), "it lacks v"),
    "epoch negative": (change(epoch=-1), "its epoch is -1"),
    "another config": (
        lambda t, m: m["config"]["training"].update(lr=0.5),
        "of a training with another training.lr",
    ),
    "another pi": (tensor("pi", lambda _: np.asarray(0.25)), "of a training with another process"),
    "step text": (change(step="15"), "its step is '15'"),
    "step huge": (change(step=10**30), "its step is"),
    "no data": (change(data=None), "its description lacks data"),
    "data of texts": (change(data=["a"]), "its data.0 is 'a'"),
    "best a number": (change(best=3.0), "its best is 3.0"),
    "back ends of numbers": (change(backends=[1, 2]), "its backends.0 is 1"),
    "later a number": (change(later=3), "its later is 3"),
    "seconds negative": (change(wall_seconds=-1.0), "its wall_seconds is -1.0"),
}


def damage(run: Path, case: str) -> str:
    change, says = CHANGES[case]
    tensors, meta = checkpoint.read(last(run))
    change(tensors, meta)
    checkpoint.write(last(run), tensors, meta)
    return says


@pytest.mark.parametrize("case", CHANGES)
def test_right_checksum_wrong_content(run, case):
    """A sentence with the file and what is wrong with it, from all commands that take a model; --resume takes the
    checkpoint before, says so, and comes to the same end."""
    before = checkpoint.read(last(run))[0]
    says = damage(run, case)
    for command in () if case in ("another config", "another pi") else COMMANDS:  # a model all the same
        said = sentence(command, run)
        assert said.startswith(f"{last(run)}: ") and says in said and "\n" not in said, said
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and f"{last(run)}: " in resumed.stderr and says in resumed.stderr
    assert "an earlier checkpoint is taken" in resumed.stderr and "from step 20" in resumed.stderr
    after = checkpoint.read(last(run))[0]
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_a_training_of_an_older_format(run, monkeypatch):
    """Whose random words followed another rule: its weights are read as ever, and to go on with it is refused in one
    sentence, after which every file is as before."""
    rows = invoke("sample", run, "-n", 5, "--seed", 3).stdout
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        for path in rundir.checkpoints(newest(run)).values():
            checkpoint.write(path, *checkpoint.read(path))
    assert checkpoint.load(last(run), training=True)[1]["format"] == 1
    for command in COMMANDS:
        assert invoke(command, run).exit_code == 0
    assert invoke("sample", run, "-n", 5, "--seed", 3).stdout == rows != ""
    model = bdiff_np.load(run)
    assert model.sample(5).shape == (5, model.D)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for sets in ((), ("--set", "training.epochs=9")):
        assert sentence("train", run, "--resume", *sets) == (
            f"{last(run)}: has format 1, and the rule of the random words changed with format 2, so that this training "
            "cannot go on as it began; start anew, without --resume (sample and evaluate still read it)"
        )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", [DEEP, f'{{"format": {HUGE}}}', '{"format": [1], "crc32": 0}', "[[1]]"])
def test_description_of_another_kind(run, text):
    """Lists too deep to read, a number too long, no object."""
    last(run).write_bytes(save({"x": np.zeros(3)}, metadata={checkpoint.KEY: text}))
    said = sentence("sample", run)
    assert said.startswith(f"{last(run)}: ") and "\n" not in said
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and "an earlier checkpoint is taken" in resumed.stderr


def test_step_of_another_epoch(run):
    """A checkpoint whose step is none of its epoch is passed over, though each is right on its own."""
    tensors, meta = checkpoint.read(last(run))
    checkpoint.write(last(run), tensors, {**meta, "step": 12})
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and "step 12 is none of epoch 4" in resumed.stderr and "step 20" in resumed.stderr


RESULTS = {
    "deep": DEEP,
    "a huge number": f'{{"chosen_epoch": {HUGE}}}',
    "chosen a list": '{"chosen_epoch": [1]}',
    "chosen a text": '{"chosen_epoch": "1"}',
    "no object": "[]",
    "no JSON": "{",
}


@pytest.mark.parametrize("case", RESULTS)
def test_damaged_results(run, case):
    """results.json says which epoch a run stands for: one that cannot be read is a sentence."""
    path = newest(run) / "results.json"
    path.write_text(RESULTS[case])
    for command in ("sample", "evaluate", "validate"):
        said = sentence(command, run)
        assert said.startswith(f"{path}: damaged (") and "name a checkpoint" in said and "\n" not in said
    assert sentence("train", run, "--resume").startswith(f"{path}: is missing or damaged")
    assert invoke("sample", last(run)).exit_code == 0
    path.unlink()
    assert invoke("sample", run).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved["examples_per_epoch"][2].pop(),
        lambda saved: saved["examples_per_epoch"][2][0].pop(),
        lambda saved: saved["examples_per_epoch"].__setitem__(2, 3),
        lambda saved: saved["examples_per_epoch"][2][0].__setitem__(0, 10**30),
    ],
)
def test_examples_of_another_shape(run, change):
    """An earlier checkpoint is taken whose history is whole."""
    path = newest(run) / "results.json"
    saved = json.loads(path.read_text())
    change(saved)
    path.write_text(json.dumps(saved))
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and f"{path}: is missing or damaged" in resumed.stderr
    assert "an earlier checkpoint is taken" in resumed.stderr and "from step 20" in resumed.stderr


@pytest.mark.parametrize("content", ['epoch,step\n"' + "x" * 140_000, "epoch,step\n1," + HUGE, "\xff\n", "epoch\n2\n"])
def test_damaged_metrics(run, content):
    """A field too large for Python's csv, a number too long, no text, other epochs."""
    path = newest(run) / "metrics.csv"
    path.write_text(content, encoding="latin-1")
    assert sentence("train", run, "--resume").startswith(f"{path}: is missing or damaged")
    assert invoke("sample", run).exit_code == 0


def test_metrics_that_end_early(run):
    """The history of two epochs is enough for the checkpoint of the second."""
    path = newest(run) / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and "from step 20" in resumed.stderr
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["epoch", "1", "2", "3"]


def test_a_network_in_latin_1_is_resumed(run, tmp_path):
    """Python reads it by its coding line; nothing else needs its text."""
    code = "# coding: latin-1\n# r\xe9seau\n" + NET
    folder = make_run(tmp_path / "latin", epochs=1)
    (folder / "reverse_model.py").write_bytes(code.encode("latin-1"))
    assert invoke("train", folder).exit_code == 0
    assert invoke("train", folder, "--resume").exit_code == 0
    assert invoke("sample", folder).exit_code == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
@pytest.mark.parametrize("name", ["results.json", "metrics.csv", "config.yaml", "checkpoint", "reverse_model.py"])
def test_no_file_is_not_waited_for(run, name, make):
    """A pipe or a folder where a file of the results should be: at once a sentence with its name, from the commands
    that read it."""
    path = last(run) if name == "checkpoint" else newest(run) / name
    path.unlink()
    make(path)
    # ends the wait of who waits, who then says something else
    watch = threading.Timer(9, lambda: os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK)))
    watch.start()
    try:
        if name in ("results.json", "checkpoint"):
            assert sentence("sample", run).startswith(f"{path}: ")
        assert f"{path}: " in sentence("train", run, "--resume")
    finally:
        watch.cancel()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("name", ["config.yaml", "reverse_model.py"])
@pytest.mark.parametrize("command", ["train", "check-net"])
def test_a_pipe_in_the_run_folder(tmp_path, name, command):
    folder = make_run(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert sentence(command, folder).startswith(f"{folder / name}: is a pipe or a device, not a file")


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    """A training whose weights overflow, though no gradient was at fault, stops with the cause and leaves the
    checkpoint before."""
    folder = make_run(tmp_path / "run")
    step = training.Training.step

    def poisoned(self):
        loss = step(self)
        if self.optimizer.taken == 27:
            self.optimizer.ema.flat[3] = np.inf
        return loss

    monkeypatch.setattr(training.Training, "step", poisoned)
    found = invoke("train", folder)
    assert found.exit_code == 1 and "Traceback" not in found.stderr
    said = found.stderr.strip().splitlines()[-1]
    assert "training stopped in epoch 3: the weights after step 30 are not finite numbers" in said
    assert f"the last good checkpoint is {rundir.checkpoint_path(newest(folder), 2)}" in said
    assert list(rundir.checkpoints(newest(folder))) == [1, 2]
    assert len((newest(folder) / "metrics.csv").read_text().splitlines()) == 3
    monkeypatch.undo()
    assert invoke("sample", folder).exit_code == 0


RISING = {"select": "best", "epochs": 4, "lr": 0.3, "warmup_steps": 0, "ema": 0.0, "lr_schedule": "constant"}


def lose(path: Path, how: str) -> None:
    """A checkpoint that is gone, cut off, or of another epoch."""
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        shutil.copy(path.with_name("model_epoch_3.safetensors"), path)


@pytest.mark.parametrize("how", ["gone", "cut", "another"])
@pytest.mark.parametrize("done", [3, 4])
def test_the_best_checkpoint_is_lost(tmp_path, done, how):
    """--resume says so in a line and takes the best epoch of those that are whole; it concludes, once."""
    folder = make_run(tmp_path / "run", **RISING, patience="never")
    assert invoke("train", folder, "--set", f"training.epochs={done}").exit_code == 0
    bounds = rundir.read_results(newest(folder))["val_bounds"]
    best, second = (int(k) + 1 for k in np.argsort(bounds, kind="stable")[:2])
    assert best == 1 and second < done
    lose(rundir.checkpoint_path(newest(folder), best), how)
    more = ["--set", "training.epochs=4"] if done == 3 else []
    found = invoke("train", folder, "--resume", *more)
    path = rundir.checkpoint_path(newest(folder), 1)
    (line,) = [line for line in found.stderr.splitlines() if line.startswith(f"{path}: ")]
    assert found.exit_code == 0 and line.endswith(f"; the run stood for that epoch, and stands for epoch {second} now")
    saved = rundir.read_results(newest(folder))
    assert saved["chosen_epoch"] == second and "bounds" in saved and len(saved["losses"]) == 4
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert invoke("train", folder, "--resume").exit_code == 0
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert invoke("sample", folder).exit_code == 0


def test_the_best_checkpoint_is_lost_in_the_end(tmp_path, monkeypatch):
    """While training runs: it concludes with the last epoch where no other checkpoint is left."""
    folder = make_run(tmp_path / "run", **RISING)
    original = conclude.conclude

    def without(run):
        for epoch in (1, 2, 3):
            rundir.checkpoint_path(run.results, epoch).unlink()
        return original(run)

    monkeypatch.setattr(conclude, "conclude", without)
    found = invoke("train", folder)
    assert found.exit_code == 0 and "model_epoch_1.safetensors: no such checkpoint; the run stood for" in found.stderr
    assert rundir.read_results(newest(folder))["chosen_epoch"] == 4


def test_check_regular(tmp_path):
    """What is missing, a file and a link to a file pass."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    for name in ("none", "file", "link"):
        files.check_regular(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_at_an_earlier_checkpoint(run):
    """It would be written over after a training that begins again: refused before."""
    path = rundir.checkpoint_path(newest(run), 2)
    path.unlink()
    os.mkfifo(path)
    assert sentence("train", run, "--resume").startswith(f"{path}: is a pipe or a device, not a file")
    with pytest.raises(InputError, match="is a pipe"):
        files.write_own(path, b"text")


def test_checkpoints_folder_is_made_again(run, monkeypatch):
    """Removed between two trainings, and while one is under way."""
    shutil.rmtree(newest(run) / "checkpoints")
    step = training.Training.step

    def removing(self):
        if self.optimizer.taken == 15:
            shutil.rmtree(newest(run) / "checkpoints")
        return step(self)

    monkeypatch.setattr(training.Training, "step", removing)
    assert invoke("train", run, "--resume").exit_code == 0
    assert list(rundir.checkpoints(newest(run))) == [2, 3]


def test_a_full_disk_at_the_start(tmp_path, monkeypatch):
    """Nothing half made is left."""
    folder = make_run(tmp_path / "run")

    def full(path, _):
        raise InputError(f"{path}: cannot be written: no space")

    monkeypatch.setattr(saving, "write_own", full)
    assert "no space" in sentence("train", folder)
    assert not (folder / "results").exists()


def test_results_removed_in_the_first_epoch(tmp_path, monkeypatch):
    """What is to be discarded is gone: no traceback."""
    folder = make_run(tmp_path / "run")

    def removing(self):
        shutil.rmtree(folder / "results")
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "step", removing)
    found = invoke("train", folder)
    assert found.exit_code == 130 and "nothing is left behind" in found.stderr


CONCLUSIONS = {
    "bounds a number": {"bounds": 5},
    "no samples": {"samples": {}},
    "samples a text": {"samples": "x"},
    "another bound": {"bounds": {"train": {"bits": "x"}}},
    "no bounds": {"bounds": {}},
}


@pytest.mark.parametrize("case", CONCLUSIONS)
def test_a_conclusion_that_does_not_fit_is_made_anew(run, case):
    before = rundir.read_results(newest(run))
    rundir.write_json(newest(run) / "results.json", {**before, **CONCLUSIONS[case]})
    resumed = invoke("train", run, "--resume")
    assert resumed.exit_code == 0 and "Traceback" not in resumed.stderr
    after = rundir.read_results(newest(run))
    assert after["samples"] == before["samples"] and after["bounds"].keys() == before["bounds"].keys()
    assert "n_sequences" in after["bounds"]["train"]


@pytest.mark.parametrize("command", ["sample", "evaluate", "train", "check-net"])
def test_a_name_that_is_too_long(command):
    said = sentence(command, "x" * 300)
    assert said.endswith(": cannot be read: File name too long; take a shorter name") and len(said) < 300
    with pytest.raises(InputError, match="too long"):
        bdiff_np.load("x" * 5000)


def test_what_may_not_be_read(run, monkeypatch):
    """A folder, and a checkpoint, without the permission: root has it always, so the system is imitated."""
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(InputError, match=f"^{run}: cannot be read: Permission denied; allow reading it"):
        rundir.resolve(run)
    monkeypatch.undo()
    path, opening = last(run), Path.open

    def denied(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opening(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    assert sentence("sample", run) == f"{path}: cannot be read: Permission denied; allow reading it"


def test_results_that_are_a_dangling_link(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "results").symlink_to("nowhere")
    last_line = sentence("train", folder).splitlines()[-1]
    assert last_line == f"{folder / 'results'}: is a link that leads nowhere; remove it or mend it"


def test_the_current_folder_is_gone(run, tmp_path):
    (tmp_path / "gone").mkdir()
    work = "import os, sys; os.rmdir(os.getcwd()); from bdiff_np.cli import main; main()"
    command = [sys.executable, "-c", work, "sample", run, "-n", "2"]
    found = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 2, found.stderr


def test_standard_input_is_closed(run):
    work = "import sys; sys.stdin = None; from bdiff_np.cli import main; main()"
    command = [sys.executable, "-c", work, "evaluate", run, "--data", "-"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2 and found.stderr.endswith("standard input is closed; name a file\n")


def test_numba_that_does_not_compile(run):
    work = "from bdiff_np.cli import main; main()"
    command = [sys.executable, "-c", work, "sample", run, "--backend", "numba"]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert found.returncode == 2 and "--backend numba: NUMBA_DISABLE_JIT is set" in found.stderr


def test_a_tolerance_that_nothing_reaches(run, monkeypatch):
    monkeypatch.setattr(evaluate, "FIRST", 64)
    monkeypatch.setattr(evaluate, "MOST", 500)
    assert invoke("evaluate", run, "--tolerance", "1e-300").exit_code == 0


def test_interrupted_before_anything_stands(run, monkeypatch):
    """Ctrl-C while modules are loaded: the code of a shell."""

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rundir, "resolve", stop)
    found = invoke("sample", run)
    assert (found.exit_code, found.stdout, found.stderr) == (130, "", "\ninterrupted\n")


def test_the_sampler_speaks_of_options(run):
    said = sentence("sample", run, "-n", 3, "--known", "11111111", "--limit", 5)
    assert "(--limit)" in said and "take --method clamp, " in said
    found = invoke("sample", run, "-n", 1, "--known", "1???????", "--method", "clamp")
    assert "--method rejection draws" in found.stderr


def test_a_key_of_the_whole_file_that_is_no_word(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "config.yaml").write_text("? [a]\n: b")
    assert sentence("train", folder).startswith(f"{folder / 'config.yaml'}:1:3: a key must be one word")


USING = """from __future__ import annotations
import os
from dataclasses import dataclass
from typing import ClassVar
os.chdir("/")

@dataclass
class Sizes:
    kind: ClassVar[str] = "x"
    h: int = 3

"""


def test_a_network_with_dataclasses_that_changes_the_folder(tmp_path, monkeypatch):
    """Paths relative to the folder where the command was given stay good."""
    make_run(tmp_path / "run", USING + NET)
    monkeypatch.chdir(tmp_path)
    found = invoke("train", "run")
    assert found.exit_code == 0, found.stderr
    assert Path.cwd() == tmp_path and len(rundir.checkpoints(newest(tmp_path / "run"))) > 1


def test_a_long_message_of_a_network(tmp_path):
    folder = make_run(tmp_path / "run", NET + "raise ValueError('y' * 100000)\n")
    assert len(sentence("train", folder)) < 1000
