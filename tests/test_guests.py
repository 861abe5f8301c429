"""A family, a net, a kind of data and a back end are new files only: toys (tests/guests/) that go through every
command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TOYS = Path(__file__).parent / "guests"
CONFIG = """\
model: {family: toy, net: toynet, T: 12, gain: 0.2}
training: {epochs: 3, steps_per_epoch: 40, num_examples: 4, num_val_samples: 32, save_every_n_epochs: 1, lr: 0.05}
data: {batch_size: 8}
"""
LACKS = "back end toyback has no kernels for toy: those of NumPy run in their place, which takes longer\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the package with the toys in it; none of its own files is written over."""
    root = tmp_path_factory.mktemp("house")
    clean = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bdiff_np", root / "bdiff_np", ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.copytree(ROOT / "kernels", root / "bdiff_np" / "kernels", ignore=clean)
    shutil.copy(ROOT / "cli.py", root)
    for toy in TOYS.rglob("*.py"):
        target = root / "bdiff_np" / toy.relative_to(TOYS)
        assert not target.exists(), target
        target.parent.mkdir(exist_ok=True)
        shutil.copy(toy, target)
    return root


def run_folder(folder: Path) -> Path:
    folder.mkdir()
    points = np.random.default_rng(0).normal(size=(30, 2))
    np.savetxt(folder / "train.pts", points[:24])
    np.savetxt(folder / "val.pts", points[24:])
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def command(house: Path, *arguments, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)], cwd=house, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == code, done.stderr
    return done


def weights(run: Path) -> list[bytes]:
    from bdiff_np.runfolder import checkpoint, rundir

    tensors, _ = checkpoint.read(rundir.resolve(run).checkpoint)
    assert "scale" in tensors  # what the family keeps of its process
    return [tensors[name].tobytes() for name in sorted(tensors)]


@pytest.fixture(scope="module")
def trained(house, tmp_path_factory) -> Path:
    run = run_folder(tmp_path_factory.mktemp("toys") / "run")
    done = command(house, "train", run, "--backend", "toyback", "--seed", "1")
    assert done.stderr.count(LACKS) == 1 and "24 rows of 2 coordinates, 6 held out; T = 12" in done.stderr
    assert "within the range of train" in done.stdout and "bits/example" in done.stdout
    (results,) = (run / "results").iterdir()
    drawn = {path.name for path in results.iterdir() if path.suffix in (".png", ".gif")}
    assert {"loss_curve.png", "samples.png", "reverse_trajectory.gif", "validation.png", "kl_per_step.png"} <= drawn
    found = json.loads((results / "results.json").read_text())
    assert set(found["proportions"]) == {"train", "other"} and found["losses"][-1] < found["losses"][0]
    return run


def test_back_ends_agree(house, trained, tmp_path):
    """On NumPy, and by `auto`, the same weights, without a word about kernels."""
    for k, backend in enumerate(("numpy", "auto")):
        run = run_folder(tmp_path / str(k))
        assert LACKS not in command(house, "train", run, "--backend", backend, "--seed", "1").stderr
        assert weights(run) == weights(trained)


def test_killed_and_resumed(house, trained, tmp_path):
    """A training that is killed after an epoch goes on to the same weights."""
    run = run_folder(tmp_path / "run")
    sets = ("--set", "training.steps_per_epoch=3000")
    job = subprocess.Popen(
        [sys.executable, "cli.py", "train", str(run), "--backend", "toyback", "--seed", "1", *sets],
        cwd=house,
        stderr=subprocess.DEVNULL,
    )
    while not list(run.glob("results/*/checkpoints/model_epoch_1.safetensors")):
        assert job.poll() is None
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    command(house, "train", run, "--resume", "--backend", "toyback")
    whole = run_folder(tmp_path / "whole")
    command(house, "train", whole, "--backend", "toyback", "--seed", "1", *sets)
    assert weights(run) == weights(whole) != weights(trained)


def test_commands(house, trained, tmp_path):
    """sample, evaluate, validate, doctor, check-net, --dry-run, and a fault of the toy's own settings with its
    place."""
    rows = command(house, "sample", trained, "-n", 5, "--seed", 3, "--backend", "toyback").stdout
    assert (
        rows == command(house, "sample", trained, "-n", 5, "--seed", 3, "--backend", "numpy").stdout
        and len(rows.splitlines()) == 5
    )
    command(house, "sample", trained, "-n", 3, "--steps", 4, "--out", tmp_path / "x.pts")
    assert np.loadtxt(tmp_path / "x.pts").shape == (3, 2)
    bound = json.loads(
        command(house, "evaluate", trained, "--json", "--evaluations", 4000, "--backend", "toyback").stdout
    )
    assert bound["data"] == "val rows" and bound["floor_bits"] is None and bound["standard_error_bits"] > 0
    assert json.loads(command(house, "validate", trained, "-n", 50, "--json").stdout)["n"] == 50
    assert json.loads(command(house, "doctor", "--json").stdout)["backends"]["toyback"]["available"]
    assert "all 3 gradients are right" in command(house, "check-net", trained).stdout
    assert "gain: 0.2" in command(house, "train", trained, "--dry-run").stdout
    fault = command(house, "train", trained, "--set", "model.gian=1", code=2).stderr
    assert fault == "--set model.gian=1: model.gian: unknown key; did you mean gain?\n"


def test_the_perceptron_takes_the_toys_data(house, tmp_path):
    """A net of the house for a family that it has never heard of; on Numba too, whose fused paths it does not fill."""
    run = run_folder(tmp_path / "run")
    (run / "config.yaml").write_text(
        CONFIG.replace("net: toynet, ", "net: mlp, ").replace(", gain: 0.2", ", hidden: [8]")
    )
    assert "gradients are right" in command(house, "check-net", run).stdout
    done = command(house, "train", run, "--backend", "numba", "--set", "training.epochs=1")
    assert "back end numba has no kernels for toy" in done.stderr


# Guests at fault
# ----------------------------------------------------------------------------------------------------------------------

FAMILY = "diffusion/faulty_family.py"
COPY = "from bdiff_np.diffusion import toy_family\n\n\nclass Faulty(toy_family.Toy):\n    name = 'faulty'\n"
FAULTY = {
    "raises": (FAMILY, "raise RuntimeError('boom')", "faulty_family.py: cannot be imported: RuntimeError: boom"),
    "no family": (FAMILY, "FAMILY = 3", "faulty_family.py: FAMILY is no Family; derive its class from"),
    "lacks": (
        FAMILY,
        "from bdiff_np import diffusion\n\n\nclass F(diffusion.Family):\n    name = 'faulty'\n\n\nFAMILY = F()",
        "faulty_family.py: FAMILY lacks data, Settings;",
    ),
    "another name": (
        FAMILY,
        "from bdiff_np.diffusion.toy_family import FAMILY",
        "the name of FAMILY is 'toy'; give it that of the file",
    ),
    "no kernels": (FAMILY, COPY + "\n\nFAMILY = Faulty()", "the family faulty has no kernels: write kernels/faulty/"),
    "clash": (
        FAMILY,
        COPY + "    class Settings(toy_family.Model):\n        gain: int = 3\n\n\nFAMILY = Faulty()",
        "model.gain is a setting of bdiff_np.diffusion.faulty_family too; rename it",
    ),
    "no default": (
        FAMILY,
        COPY + "    class Settings(toy_family.Model):\n        k: int\n\n\nFAMILY = Faulty()",
        "model.k has no default; every setting needs one",
    ),
}


@pytest.fixture
def put(house):
    """put(file, text) : a file in the house, which is gone after the test."""
    made = []

    def write(file: str, text: str) -> None:
        made.append(house / "bdiff_np" / file)
        made[-1].write_text(text + "\n")

    yield write
    for path in set(made):
        path.unlink()


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_family_is_a_sentence(house, put, tmp_path, fault):
    """With file and fix, exit code 2, nothing left behind."""
    file, text, says = FAULTY[fault]
    put(file, text)
    run = run_folder(tmp_path / "run")
    (run / "config.yaml").write_text(CONFIG.replace("family: toy", "family: faulty"))
    said = command(house, "train", run, "--backend", "numpy", code=2).stderr
    assert says in said and "Traceback" not in said and not (run / "results").exists()


def test_one_faulty_guest_leaves_the_others_alone(house, put, trained, tmp_path):
    """A back end and a family that cannot be imported, and a back end without an operation: other names go on, doctor
    says what is wrong, a misspelt name is told with all that there are."""
    put("backends/broken_backend.py", "raise RuntimeError('boom')")
    put(FAMILY, "raise RuntimeError('boom')")
    put("backends/lean_backend.py", (TOYS / "backends" / "toyback_backend.py").read_text().replace("toyback", "lean"))
    put("backends/lean_ops.py", "from bdiff_np.backends.numpy_ops import *  # noqa\n\ndel layer_norm\nname = 'lean'")
    assert command(house, "sample", trained, "-n", 2, "--backend", "auto").stdout
    state = json.loads(command(house, "doctor", "--json").stdout)["backends"]
    assert "RuntimeError: boom" in state["broken"]["reason"] and state["numpy"]["available"]
    assert state["lean"]["reason"].startswith("it lacks layer_norm") and "lean_ops.py" in state["lean"]["fix"]
    said = command(house, "sample", trained, "-n", 2, "--backend", "lean", code=2).stderr
    assert "--backend lean: it lacks layer_norm" in said
    fault = command(house, "train", trained, "--set", "model.family=toi", "--dry-run", code=2).stderr
    assert fault.count("\n") == 1 and "there is no 'toi' in bdiff_np/diffusion; there is: bernoulli, faulty, " in fault


def test_what_no_kind_can_read(house, trained, tmp_path):
    """A file that is missing, a folder, not text or empty is a sentence for every kind of data."""
    empty, binary, folder = tmp_path / "a.pts", tmp_path / "b.pts", tmp_path / "c.pts"
    empty.touch()
    binary.write_bytes(b"1 2\n\xff 3\n")
    folder.mkdir()
    for path, says in ((empty, "holds no coordinates"), (binary, ""), (folder, ""), (tmp_path / "no.pts", "")):
        said = command(house, "evaluate", trained, "--data", path, code=2).stderr
        assert f"{path}: " in said.splitlines()[-1] and says in said and "Traceback" not in said


@pytest.mark.parametrize(
    "text, says",
    [("raise RuntimeError('boom')", "cannot be imported: RuntimeError: boom"), ("class Kernels: ...", "needs a class")],
)
def test_faulty_kernels_are_a_sentence(house, put, tmp_path, text, says):
    """Of a file that cannot be imported, or does not hold what the contract asks for."""
    folder = house / "bdiff_np" / "kernels" / "faulty"
    folder.mkdir()
    try:
        (folder / "__init__.py").touch()
        (folder / "faulty_numpy.py").write_text(text)
        put(FAMILY, COPY + "\n\nFAMILY = Faulty()")
        run = run_folder(tmp_path / "run")
        (run / "config.yaml").write_text(CONFIG.replace("family: toy", "family: faulty"))
        said = command(house, "train", run, "--backend", "numpy", code=2).stderr
        assert "kernels/faulty/faulty_numpy.py: " + says in said and "Traceback" not in said
    finally:
        shutil.rmtree(folder)


def test_a_contract_that_is_not_kept(house, put, tmp_path):
    """A net of another output, a state that takes Adam's name, a method that is not written."""
    toy = "from bdiff_np.diffusion import toy_family\n\n\nclass Faulty(toy_family.Toy):\n    name = 'faulty'\n\n"
    kernels = house / "bdiff_np" / "kernels"
    shutil.copytree(kernels / "toy", kernels / "faulty")
    (kernels / "faulty" / "toy_numpy.py").rename(kernels / "faulty" / "faulty_numpy.py")
    wide = "toynet gives an output of shape (8, 2); the family faulty asks for (8, 6)"
    cases = {
        "    def outputs(self, D, settings):\n        return 3 * D": wide,
        "    def state(self, chain):\n        return {'m': chain.scale}": "a state is named 'm'",
        "    null_bound = toy_family.diffusion.Family.null_bound": "`null_bound` is not written",
    }
    try:
        for k, (body, says) in enumerate(cases.items()):
            put(FAMILY, toy + body + "\n\n\nFAMILY = Faulty()")
            net = "wide" if "outputs" in body else "toynet"
            put("nets/wide.py", (TOYS / "nets" / "toynet.py").read_text().replace("task.outputs", "task.D"))
            run = run_folder(tmp_path / str(k))
            (run / "config.yaml").write_text(CONFIG.replace("family: toy", "family: faulty").replace("toynet", net))
            said = command(house, "train", run, "--backend", "numpy", code=2).stderr
            assert says.replace("toynet", net) in said and "Traceback" not in said, said
    finally:
        shutil.rmtree(kernels / "faulty")
