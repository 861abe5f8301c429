"""`--backend auto`: which back end the rule takes and what it says, whether kernels are compiled, and what a command
loads and resumes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_resume import same_training
from tiny import NET, TRAIN, build, invoke, make_run, model, newest, settings

from bdiff_np import cli, evaluate, sample
from bdiff_np import model as models
from bdiff_np.backends import auto, gpu, numba_backend, numpy_ops
from bdiff_np.diffusion.bernoulli_family import Bernoulli
from bdiff_np.errors import InputError
from bdiff_np.kernels.shared import compiled
from bdiff_np.kernels.training import fused_chain_numba, fused_step_numba
from bdiff_np.runfolder import checkpoint, conclude, looking, rundir
from bdiff_np.runfolder.progress import compiling
from bdiff_np.show import pictures
from bdiff_np.train import Training

ROOT = Path(__file__).parent.parent
COMMANDS = ("train", "sample", "evaluate", "validate")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few evaluations, no floor, no pictures, no waiting for the disk and no GPU: none of them is what is tested
    here."""
    monkeypatch.setattr(gpu, "driver", lambda: gpu.Driver(None, (), "none"))
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    monkeypatch.setattr(looking, "VAL_EVALUATIONS", 1 << 7)
    monkeypatch.setattr(Bernoulli, "floor", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(pictures, "draw", lambda *_: None)


@pytest.fixture(params=[True, False], ids=["compiled", "not-compiled"])
def there(request, monkeypatch):
    """Whether the kernels are said to be compiled."""
    monkeypatch.setattr(compiled, "is_compiled", lambda _: request.param)
    return request.param


def trained_on(**values) -> Training:
    return Training(model(**values), TRAIN)


# The rule
# ----------------------------------------------------------------------------------------------------------------------

SMALL = [
    lambda: auto.for_training(trained_on(epochs=1, steps_per_epoch=10)),
    lambda: auto.for_sampling(model(), 10, 20),
    lambda: auto.for_sampling(model(), 0, 20),
    lambda: auto.for_evaluation(model(), 1000),
]
LARGE = [
    lambda: auto.for_training(trained_on(epochs=10_000, steps_per_epoch=1000)),
    lambda: auto.for_sampling(model(), 10**6, 2000),
    lambda: auto.for_evaluation(model(), 10**10),
]


@pytest.mark.parametrize("work", SMALL)
def test_little_work_stays_on_numpy(there, work):
    """What NumPy does in less than a second is not worth a compiler, and not even its loading."""
    assert work().backend == "numpy" and re.match(r"about [01] s on NumPy, ", work().reason)


@pytest.mark.parametrize("work", LARGE)
def test_much_work_goes_to_numba(there, work):
    """What takes NumPy minutes is worth the compiler."""
    choice = work()
    assert choice.backend == "numba"
    assert int(re.match(r"about (\d+) s on NumPy, ", choice.reason)[1]) > 60


@pytest.mark.parametrize(
    "choose",
    [
        lambda n: auto.for_training(trained_on(epochs=n, steps_per_epoch=100)),
        lambda n: auto.for_sampling(model(), n, 100),
        lambda n: auto.for_evaluation(model(), n),
    ],
    ids=["training", "sampling", "evaluation"],
)
def test_the_compiler_counts(monkeypatch, choose):
    """With growing work the answer changes once, from numpy to numba: where kernels are compiled sooner, where they are
    not for some ten times as much; and there, the reason tells seconds of NumPy by which the wait is made up for."""
    turn = {}
    for already in (True, False):
        monkeypatch.setattr(compiled, "is_compiled", lambda _, answer=already: answer)
        choices = {2**k: choose(2**k) for k in range(1, 26)}
        answers = [choice.backend for choice in choices.values()]
        assert answers == sorted(answers, reverse=True) and set(answers) == {"numpy", "numba"}
        turn[already] = 2 ** (1 + answers.index("numba"))
        choice = choices[turn[already]]
        form = r"about (\d+) s on NumPy, (\d+) s on Numba and (\d+) s, (to load|once, to compile) its kernels; no GPU$"
        if choice.meanwhile:  # a training is NumPy's until the compiler has ended
            form = r"about (\d+) s on NumPy, or (\d+) s there while .* compiled, once, then (\d+) s on (Numba); no GPU$"
        seconds, other, least, how = re.match(form, choice.reason).groups()
        wait = int(other if choice.meanwhile else least)
        assert int(other) + int(least) <= int(seconds) + 1 <= 10 * max(1, wait), (
            "what is said bears the choice out, to rounding"
        )
        assert already == (how == "to load")
    assert 3 * turn[True] <= turn[False] <= 64 * turn[True]


@pytest.mark.parametrize(
    "more",
    [{"hidden": (64, 64)}, {"epochs": 12}, {"batch_size": 3}, {"num_sample_steps": 4}, {"steps_per_epoch": 200_000}],
    ids=lambda more: next(iter(more)),
)
def test_each_size_counts(more):
    """A wider network, more epochs, rows, repeats or steps: each makes the estimate larger."""
    seconds = [
        int(
            re.match(
                r"about (\d+) s",
                auto.for_training(trained_on(**{"steps_per_epoch": 100_000, "hidden": (32, 32), **values})).reason,
            )[1]
        )
        for values in ({}, more)
    ]
    assert seconds[1] > seconds[0] > 5


@pytest.mark.parametrize("work", LARGE)
def test_without_numba(monkeypatch, work):
    """Where Numba is not installed, NumPy does it, and the reason says so."""
    monkeypatch.setattr(numba_backend, "find_spec", lambda name: None if name == "numba" else pytest.fail(name))
    assert work() == auto.Choice("numpy", "Numba is not installed; no GPU")


@pytest.mark.parametrize("asked", ["0", "-1", "abc", "", "4097", "2.0"])
def test_threads_that_cannot_be(tmp_path, monkeypatch, asked):
    """Numba is not loaded with them: NumPy does it, and says why; who asks for Numba gets one sentence."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", asked)
    assert LARGE[1]() == auto.Choice("numpy", f"NUMBA_NUM_THREADS is {asked!r}; no GPU")
    call = [sys.executable, ROOT / "cli.py", "train", make_run(tmp_path / "run"), "--backend", "numba"]
    done = subprocess.run(call, capture_output=True, text=True)
    sentence = f"--backend numba: NUMBA_NUM_THREADS is {asked!r}; set a whole number from 1 to 4096, or unset it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


@pytest.mark.parametrize("values", [{"residual": True}, {"dropout": 0.1}], ids=str)
def test_residual_and_dropout_nets_go_to_numba(there, values):
    """Where no GPU takes them whole."""
    assert auto.for_training(trained_on(epochs=100_000, **values)).backend == "numba"


@pytest.mark.parametrize("case", ["custom", "bumps"])
def test_networks_without_a_compiled_form(tmp_path, there, case):
    """A network of the user's own, or one with read-outs that depend on t, stays on NumPy whatever the work."""
    values = {"bumps": {"time": "bumps"}}.get(case, {})
    (tmp_path / "reverse_model.py").write_text(NET)
    code = tmp_path / "reverse_model.py" if case == "custom" else None
    m = build(settings(epochs=100_000, **values), 8, np.asarray(0.25), code=code)
    for choice in (
        auto.for_training(Training(m, TRAIN)),
        auto.for_sampling(m, 10**7, 2000),
        auto.for_evaluation(m, 10**10),
    ):
        assert choice == auto.Choice("numpy", "this network has no compiled form")


# Compiled kernels
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """A copy of the kernels' folder, which `compiled` looks at in place of the real one; kernels(name, text) writes to
    a file of it."""
    folder = Path(shutil.copytree(compiled.FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.setattr(compiled, "FOLDER", folder)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    compiled.cache_folder.cache_clear()

    def write(name: str, text: str) -> Path:
        (folder / name).write_text(text)
        compiled.cache_folder.cache_clear()
        return folder

    yield write
    monkeypatch.undo()
    compiled.cache_folder.cache_clear()


def place() -> Path:
    compiled.cache_folder.cache_clear()
    return compiled.cache_folder()


def test_the_place_changes_with_the_kernels(kernels, monkeypatch):
    """Any change of a compiled file, a new one, another Numba or another Python gives another folder, and the change
    undone the old one; a file that is not compiled gives none."""
    seen = [place()]
    assert place() == seen[0]
    original = (compiled.FOLDER / "shared" / "philox_numba.py").read_text()
    kernels("shared/philox_numba.py", original + "\n")
    seen.append(place())
    kernels("shared/philox_numba.py", original)
    assert place() == seen[0]
    kernels("bernoulli/bernoulli_numpy.py", "")
    assert place() == seen[0]
    kernels("mlp/other_numba.py", "X = 1\n")
    seen.append(place())
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_numba_version", lambda: "0.1")
        seen.append(place())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", sys.version + " ")
        seen.append(place())
    assert len(set(seen)) == len(seen) == 5


def test_the_place_knows_where_a_line_stands(kernels):
    """A line that moves from the end of one file to the head of the next changes the folder, as does a file's name:
    constants belong to files."""
    kernels("mlp/other_numba.py", "X = 1\n")
    kernels("mlp/pair_numba.py", "")
    seen = {place()}
    kernels("mlp/other_numba.py", "")
    kernels("mlp/pair_numba.py", "X = 1\n")
    seen.add(place())
    kernels("mlp/pair_numba.py", "").joinpath("mlp/pair_numba.py").rename(compiled.FOLDER / "mlp" / "quad_numba.py")
    (compiled.FOLDER / "mlp" / "quad_numba.py").write_text("X = 1\n")
    assert len(seen | {place()}) == 3


def test_where_the_place_is(kernels, monkeypatch, tmp_path):
    """The first that can be written to: NUMBA_CACHE_DIR, beside the kernels, the user's cache; None where there is
    none, and then nothing is kept."""
    beside = place()
    assert compiled.FOLDER in beside.parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    shutil.rmtree(compiled.FOLDER / "__pycache__")
    (compiled.FOLDER / "__pycache__").write_text("a file where a folder should be")
    assert place() == tmp_path / "xdg" / beside.name
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert place() == tmp_path / "home" / ".cache" / beside.name
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert place() == tmp_path / "numba" / beside.name
    for blocked in ("blocked", "home2"):
        (tmp_path / blocked).write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "blocked"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home2")
    assert place() is None and not compiled.is_compiled("step_numba.take")


def test_a_user_without_a_home(kernels, monkeypatch, tmp_path):
    """A number without a name, as in a container, with no HOME: that place is passed over, the others are taken, and
    where there is none the wait says that it comes again."""

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    beside = place()
    assert compiled.FOLDER in beside.parents
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert place() == tmp_path / "numba" / beside.name
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    shutil.rmtree(compiled.FOLDER / "__pycache__")
    (compiled.FOLDER / "__pycache__").write_text("a file where a folder should be")
    assert place() is None


def test_the_wait_comes_again_where_nothing_is_kept(monkeypatch, capsys):
    """Without a folder to write to, the line says so and names the variable that gives one."""
    monkeypatch.setattr(compiled, "cache_folder", lambda: None)
    with compiling("sampler", "file.function"):
        pass
    assert capsys.readouterr().err.splitlines()[0] == (
        "compiling the kernels of the sampler; no folder to keep them in can be written to, so that each run compiles "
        "anew; set NUMBA_CACHE_DIR to one"
    )


@pytest.mark.skipif(not hasattr(os, "setuid") or os.name != "posix", reason="users of numbers are Unix's")
def test_commands_without_a_home_or_a_name(tmp_path):
    """train and sample as a user that is a number alone, without HOME: as for everyone else, pictures included."""
    begin = (
        "import os, pathlib, pwd, sys\n"
        "os.environ.pop('HOME', None)\n"
        "def nobody(*_): raise KeyError('getpwuid(): uid not found: 12345')\n"
        "pwd.getpwuid = nobody\n"
        "try: sys.exit('a home: ' + str(pathlib.Path.home()))\n"
        "except RuntimeError: pass\n"
        "from bdiff_np.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.txt").write_text("1000010000\n0100001000\n0010000100\n0000100001\n")
    sets = "model.T=8", "training.epochs=1", "training.steps_per_epoch=3", "training.num_val_samples=8"
    for words in (["train", run, "--backend", "numba", *(f"--set={s}" for s in sets)], ["sample", run, "-n", 2]):
        environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        done = subprocess.run(
            [sys.executable, "-c", begin, *map(str, words)],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 2
    (results,) = (run / "results").iterdir()
    assert len([p for p in results.iterdir() if p.suffix in (".png", ".gif")]) == 6


def test_what_is_compiled(kernels):
    """The name is matched whole, in the folder of these kernels alone; an empty or missing folder has nothing."""
    assert not compiled.is_compiled("step_numba.take")
    folder = place() / "kernels_0123"
    folder.mkdir(parents=True)
    (folder / "step_numba.take-12.py311.nbi").write_bytes(b"")
    assert compiled.is_compiled("step_numba.take")
    for other in ("step_numba.tak", "step_numba.take2", "numba.take", "chain_numba.take"):
        assert not compiled.is_compiled(other), other
    kernels("mlp/other_numba.py", "X = 1\n")
    assert not compiled.is_compiled("step_numba.take")


def test_compiled_after_the_first_use():
    """The functions by which the rule judges are those that training, sampling and evaluation compile: after these they
    are on the disk, in the place of these kernels, under the names that the rule and the fused forms know."""
    job = Training(model().on("numba"), TRAIN)
    job.compile()
    sample.draw(job.model, 1)
    job.model.score(TRAIN.all(), evaluations=4)
    names = [work.function.format(family="bernoulli") for work in numba_backend.WORK.values()]
    assert names[:2] == [fused_step_numba.FusedSteps.function, fused_chain_numba.FusedChain.function]
    for name in names:
        assert compiled.is_compiled(name), name


def test_a_kernel_is_kept_where_the_place_is(tmp_path):
    """In a process with a NUMBA_CACHE_DIR of its own a kernel is not compiled before its first call and is after it;
    everything lies in one folder under there, and Numba's own setting is left as it was."""
    code = (
        "import numpy as np\n"
        "from bdiff_np.kernels.shared.compiled import is_compiled\n"
        "print(is_compiled('dense_numba.square_sum'))\n"
        "import numba; before = numba.config.CACHE_DIR\n"
        "from bdiff_np.kernels.dense import dense_numba\n"
        "print(numba.config.CACHE_DIR == before, is_compiled('dense_numba.square_sum'))\n"
        "dense_numba.square_sum(np.ones(3))\n"
        "print(is_compiled('dense_numba.square_sum'), is_compiled('dense_numba.adamw'))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True", "False", "True", "False"]
    (folder,) = (tmp_path / "cache").iterdir()
    assert re.fullmatch(r"bdiff_np-[0-9a-f]{12}", folder.name) and list(folder.glob("*/dense_numba.square_sum-*.nbi"))


def test_the_wait_is_announced(monkeypatch, capsys):
    """Before a function that is not compiled, stderr says in one line why nothing happens, and after it how long that
    took; else nothing."""
    for already in (True, False):
        monkeypatch.setattr(compiled, "is_compiled", lambda _, answer=already: answer)
        with compiling("sampler", "file.function"):
            said = capsys.readouterr()
            assert said.out == "" and said.err == (
                "" if already else "compiling the kernels of the sampler; they are kept for later runs\n"
            )
        assert capsys.readouterr().err == ("" if already else "compiled in 0 s\n")


# The commands
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a trained model, which tests only read."""
    patch = pytest.MonkeyPatch()
    patch.setattr(conclude, "EVALUATIONS", 1 << 7)
    patch.setattr(pictures, "draw", lambda *_: None)
    folder = make_run(tmp_path_factory.mktemp("auto") / "run", epochs=1)
    assert invoke("train", folder).exit_code == 0
    patch.undo()
    return folder


def make_dear(monkeypatch) -> None:
    """From here on everything is said to take long on NumPy."""
    monkeypatch.setattr(auto, "_seconds", lambda model, rows: 1e6)


def plan(folder: Path, *options) -> str:
    """What `train` says about the back end before it begins."""
    found = invoke("train", folder, *options)
    assert found.exit_code == 0, found.stderr
    return re.search(r"back end (.*)", found.stderr)[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_auto_is_the_default(command):
    """train, sample, evaluate and validate take --backend, auto by default, and their help says so."""
    (option,) = (p for p in cli.main.commands[command].params if p.name == "backend")
    assert option.default == "auto"
    assert re.search(r"--backend TEXT .*auto.* \[default: auto\]", " ".join(invoke(command, "--help").stdout.split()))


def test_the_plan_says_back_end_and_reason(tmp_path, monkeypatch):
    """A training names its back end; one that auto chose with the reason, one that the user named without."""
    folder = make_run(tmp_path / "run", epochs=1)
    assert plan(folder, "--dry-run").startswith("numpy (auto: about 0 s on NumPy, ")
    assert plan(folder, "--dry-run", "--backend", "numpy") == "numpy"
    assert plan(folder, "--dry-run", "--backend", "numba") == "numba"
    make_dear(monkeypatch)
    assert re.match(r"numba \(auto: about \d+ s on NumPy, .*\)$", plan(folder, "--dry-run"))
    assert plan(folder, "--dry-run", "--backend", "numpy") == "numpy"
    assert not (folder / "results").exists()
    assert plan(folder).startswith("numba (auto: ")
    assert checkpoint.read(rundir.resolve(folder).checkpoint)[1]["backend"] == "numba"


@pytest.mark.parametrize(
    "command, options", [("sample", ("-n", 40)), ("evaluate", ("--evaluations", 64)), ("validate", ("-n", 40))]
)
def test_commands_say_when_auto_leaves_numpy(run, monkeypatch, command, options):
    """sample, evaluate and validate print on stderr that auto took numba, and why; the same on stdout as on a back end
    that was named, to rounding; and nothing where NumPy does it."""
    plain, named = (invoke(command, run, *options, *backend) for backend in ((), ("--backend", "numba")))
    make_dear(monkeypatch)
    chosen = invoke(command, run, *options)
    assert plain.exit_code == named.exit_code == chosen.exit_code == 0
    assert "back end" not in plain.stderr + named.stderr
    said = r"^back end numba \(auto: about 1000000 s on NumPy, \d+ s on Numba and 1 s, to load its kernels; no GPU\)$"
    assert re.search(said, chosen.stderr, re.MULTILINE)
    assert chosen.stdout == named.stdout
    numbers = [[float(x) for x in re.findall(r"\d+(?:\.\d+)?", found.stdout)] for found in (chosen, plain)]
    np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1.1e-4)


def test_the_loaded_model_computes_where_it_was_told(run, monkeypatch):
    """The rule is asked about the work in hand: the rows and steps of sample, the evaluations of evaluate; and its
    answer is followed."""
    asked = []
    for name in ("for_sampling", "for_evaluation"):
        monkeypatch.setattr(
            auto, name, lambda model, *sizes, name=name: asked.append((name, *sizes)) or auto.Choice("numba", "a test")
        )
    used = []
    for module, name in ((sample, "draw"), (evaluate, "bound")):
        inner = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda model, *a, inner=inner, **o: used.append(model.ops.name) or inner(model, *a, **o)
        )
    for words in (
        ("sample", "-n", 7),
        ("sample", "-n", 7, "--steps", 5),
        ("validate", "-n", 9),
        ("evaluate", "--evaluations", 77),
    ):
        assert invoke(words[0], run, *words[1:]).exit_code == 0
    assert asked == [("for_sampling", 7, 20), ("for_sampling", 7, 5), ("for_sampling", 9, 20), ("for_evaluation", 77)]
    assert used == ["numba"] * 4


# Resume
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(**settings): results of a run on Numba from beginning to end; made once for each settings."""
    made: dict[str, Path] = {}

    def whole(**values) -> Path:
        if repr(values) not in made:
            folder = make_run(tmp_path_factory.mktemp("undisturbed") / "run", **values)
            assert invoke("train", folder, "--backend", "numba").exit_code == 0
            made[repr(values)] = newest(folder)
        return made[repr(values)]

    return whole


def interrupt(monkeypatch, step: int) -> None:
    """Ctrl-C during the call in which an optimiser step is taken."""
    original = Training.advance

    def with_signal(self, count):
        before, losses = self.optimizer.taken, original(self, count)
        if before < step <= self.optimizer.taken:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(Training, "advance", with_signal)


SETTINGS = [
    {},
    {"num_sample_steps": 3, "save_every_n_epochs": 2, "pi": "data"},
    {"steps_per_epoch": 300, "save_every_n_epochs": 4, "predict": "x_prev", "select": "best", "epochs": 4},
]


@pytest.mark.parametrize("values", SETTINGS, ids=["plain", "pi-of-each-bit", "x_prev"])
@pytest.mark.parametrize("percent", [1, 50, 70])
def test_interrupted_on_numba_and_resumed(tmp_path, undisturbed, monkeypatch, values, percent):
    """Ctrl-C in a run on Numba, and --resume with auto, which by itself would take NumPy: it goes on on Numba, says
    why, and ends bit for bit as a run that was left alone, however many steps each call took."""
    folder = make_run(tmp_path / "run", **values)
    total = values.get("epochs", 6) * values.get("steps_per_epoch", 10)
    step = max(1, total * percent // 100)
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        stopped = invoke("train", folder, "--backend", "numba")
    assert stopped.exit_code == 130 and "--resume" in stopped.stderr
    meta = checkpoint.read(list(rundir.checkpoints(newest(folder)).values())[-1])[1]
    assert meta["backend"] == "numba" and step <= meta["step"] < total
    assert plan(folder, "--resume") == "numba (auto: the training began on it)"
    same_training(newest(folder), undisturbed(**values))


# Runs `train` on Numba in this process and is killed when a file of the given number is about to take its name, or has
# taken it.
KILLED = """
import os, signal, sys
from bdiff_np import cli, evaluate
from bdiff_np.runfolder import looking
from bdiff_np.runfolder import conclude
from bdiff_np.show import pictures
from bdiff_np.diffusion.bernoulli_family import Bernoulli

conclude.EVALUATIONS = looking.VAL_EVALUATIONS = 1 << 7
pictures.draw, Bernoulli.floor, os.fsync = (lambda *_: None), (lambda *_: None), (lambda _: None)
folder, left, how, replace = sys.argv[1], int(sys.argv[2]), sys.argv[3], os.replace

def fatal(source, target):
    global left
    if str(target).startswith(folder):
        left -= 1
    if left == 0 and how == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = fatal
cli.main(["train", folder, "--backend", "numba"])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("number, how", [(8, "before"), (14, "after")])
def test_killed_on_numba_and_resumed(tmp_path, undisturbed, number, how):
    """SIGKILL around a file's renaming in a run on Numba, and --resume with auto: the end is that of an undisturbed
    run."""
    folder = make_run(tmp_path / "run")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, folder, str(number), how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 1 <= len(rundir.checkpoints(newest(folder))) < 6
    assert plan(folder, "--resume") == "numba (auto: the training began on it)"
    same_training(newest(folder), undisturbed())


@pytest.fixture
def half(tmp_path, monkeypatch):
    """half(backend): a run folder whose training was interrupted in the middle."""

    def begun(backend: str) -> Path:
        folder = make_run(tmp_path / "half")
        with monkeypatch.context() as patch:
            interrupt(patch, 35)
            assert invoke("train", folder, "--backend", backend).exit_code == 130
        return folder

    return begun


def rewrite(folder: Path, change) -> None:
    """Changes what the newest checkpoint says beside its arrays."""
    path = list(rundir.checkpoints(newest(folder)).values())[-1]
    tensors, meta = checkpoint.read(path)
    change(meta)
    checkpoint.write(path, tensors, {k: v for k, v in meta.items() if k not in ("format", "crc32")})


def test_checkpoint_of_before_there_were_back_ends(half, tmp_path, monkeypatch):
    """One that does not name its back end was made on NumPy, and goes on there though auto would take Numba, to the
    same end."""
    expected = make_run(tmp_path / "expected")
    assert plan(expected, "--backend", "numpy") == "numpy"
    folder = half("numpy")
    rewrite(folder, lambda meta: meta.pop("backend"))
    make_dear(monkeypatch)
    assert plan(folder, "--resume") == "numpy (auto: the training began on it)"
    same_training(newest(folder), newest(expected))


@pytest.mark.parametrize("begun, named", [("numba", "numpy"), ("numpy", "numba")])
def test_a_named_back_end_is_taken(half, begun, named):
    """--resume --backend NAME goes on there, wherever the run was begun, and the new checkpoints say so."""
    folder = half(begun)
    assert plan(folder, "--resume", "--backend", named) == named
    assert checkpoint.read(rundir.resolve(folder).checkpoint)[1]["backend"] == named
    more = "--set", "training.epochs=7"
    assert plan(folder, "--resume", "--backend", "auto", *more).startswith(f"{named} ")


def test_resume_without_the_back_end_it_was_begun_on(half, monkeypatch):
    """A run of Numba's on a machine without Numba goes on on NumPy, and says that it will not be bit for bit."""
    folder, load = half("numba"), models.load_ops

    def without(backend):
        if backend == "numba":
            raise InputError("--backend numba: Numba cannot be imported")
        return load(backend)

    monkeypatch.setattr(models, "load_ops", without)
    monkeypatch.setattr(numba_backend, "find_spec", lambda _: None)
    found = invoke("train", folder, "--resume")
    assert found.exit_code == 0
    assert "--backend numba: Numba cannot be imported; going on with numpy, not bit for bit\n" in found.stderr
    assert "back end numpy (auto: Numba is not installed; no GPU)" in found.stderr and "from step" in found.stderr


def test_resume_without_a_checkpoint(half):
    """A run that has no checkpoint yet begins anew on what auto takes."""
    folder = half("numba")
    for path in rundir.checkpoints(newest(folder)).values():
        path.unlink()
    assert plan(folder, "--resume").startswith("numpy (auto: about 0 s on NumPy")


# Imports
# ----------------------------------------------------------------------------------------------------------------------

STAGES = """
import ast, sys
import bdiff_np
found = {}

def look(stage):
    found[stage] = [name for name in ("numba", "llvmlite") if name in sys.modules]

look("import")
from bdiff_np import cli
from bdiff_np.runfolder import looking
from bdiff_np.runfolder import conclude
from bdiff_np.show import pictures
from bdiff_np.diffusion.bernoulli_family import Bernoulli

conclude.EVALUATIONS = looking.VAL_EVALUATIONS = 1 << 7
pictures.draw = lambda *_: None
look("import run")
for words in ast.literal_eval(sys.argv[1]):
    try:
        cli.main(words)
    except SystemExit as end:
        assert not end.code, (words, end.code)
    look(" ".join(words))
print(found)
"""


def test_numba_is_loaded_only_to_compute(tmp_path):
    """No command that computes on NumPy loads Numba or llvmlite, whether the user named NumPy or auto chose it, and
    neither do import and help. The same probe sees both once a command computes on Numba."""
    folder = str(make_run(tmp_path / "run", epochs=1, num_examples=1, T=4))
    commands = [
        ["--help"], ["train", "--help"], ["train", folder, "--dry-run"], ["train", folder, "--backend", "numpy"],
        ["train", folder], ["train", folder, "--resume"], ["sample", folder, "--backend", "numpy"], ["sample", folder],
        ["validate", folder, "-n", "5"], ["evaluate", folder, "--evaluations", "99"], ["check-net", folder], ["sample",
        folder, "--backend", "numba"],
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STAGES, repr(commands)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = list(ast.literal_eval(done.stdout.splitlines()[-1]).values())
    assert found == [[]] * 13 + [["numba", "llvmlite"]]


def test_numpy_alone(monkeypatch):
    """Without Numba, a command that names it gets a sentence with what to install, and the other back end is there."""
    for name in [
        m
        for m in sys.modules
        if m == "bdiff_np.backends.numba_ops" or m.startswith("bdiff_np.kernels") and "numba" in m
    ]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("backends.numba_ops", "kernels.dense.dense_numba"):
        monkeypatch.delattr(f"bdiff_np.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(
        InputError, match="--backend numba: Numba is not installed; pip install numba, or take --backend numpy"
    ):
        models.load_ops("numba")
    assert models.load_ops("numpy") is numpy_ops
