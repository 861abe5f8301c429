"""A network of the user's own: it trains, it is checked, and its file is executed only out of a folder that the user
named."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest
from tiny import NET, TRAIN, D, build, invoke, make_run, model, newest, settings

import bdiff_np
from bdiff_np import config, evaluate
from bdiff_np.diffusion import Task
from bdiff_np.diffusion.bernoulli import make_chain
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.nets.custom import CustomNet, load_class
from bdiff_np.runfolder import checkpoint, conclude, opening, rundir
from bdiff_np.show import pictures
from bdiff_np.train import Training

CHAIN = make_chain("paper", 20, 0.25)
TASK = Task("bernoulli", D, D, D, CHAIN), {"pi": CHAIN.pi}
MARK = "import pathlib\nwith open(pathlib.Path(r'{}'), 'a') as mark:\n    mark.write('executed ')\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with the network NET, trained, and a mark that is written whenever its file is executed from now
    on."""
    patch = pytest.MonkeyPatch()
    patch.setattr(conclude, "EVALUATIONS", 1 << 7)
    patch.setattr(pictures, "draw", lambda *_: None)
    folder = make_run(
        tmp_path_factory.mktemp("own") / "runs" / "mine", NET, epochs=3, steps_per_epoch=60, num_sample_steps=10
    )
    assert invoke("train", folder).exit_code == 0
    patch.undo()
    mark = folder.parent.parent / "mark"
    with open(newest(folder) / "reverse_model.py", "a") as file:
        file.write(MARK.format(mark))
    return folder, mark


def executed(mark) -> bool:
    """Whether the file was executed since the last question."""
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


# Training and use
# ----------------------------------------------------------------------------------------------------------------------


def test_it_trains(trained):
    """The network in 30 lines takes the bound from 6.49 bits, that of independent bits, to below 4.5; its weights are
    the checkpoint's."""
    folder, _ = trained
    m = Model.load(folder)
    assert isinstance(m.net, CustomNet) and list(m.params) == ["W1", "b1", "W2", "b2"]
    assert evaluate.bound(m, TRAIN, evaluations=1 << 12).bits_per_sequence < 4.5
    tensors, meta = checkpoint.read(rundir.resolve(folder).checkpoint)
    assert meta["net"] == "reverse_model.py" and all(np.array_equal(m.params[n], tensors[f"ema/{n}"]) for n in m.params)


def test_its_file_is_kept_with_the_results(tmp_path, monkeypatch):
    """The results folder holds the file byte for byte, as it was when the training began, line ends and all."""
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    folder = make_run(tmp_path / "run", epochs=1)
    content = NET.replace("\n", "\r\n").encode() + b"# \xc3\xa9\r\n"
    (folder / "reverse_model.py").write_bytes(content)
    assert invoke("train", folder).exit_code == 0
    assert (newest(folder) / "reverse_model.py").read_bytes() == content


@pytest.mark.parametrize("place", ["run", "results"])
def test_named_folder_is_trusted(trained, place):
    """sample, evaluate, validate and bdiff_np.load execute the results' copy when the run folder or the results folder
    is named."""
    folder, mark = trained
    target = folder if place == "run" else newest(folder)
    assert len(invoke("sample", target, "-n", 4).stdout.splitlines()) == 4 and executed(mark)
    assert '"bits_per_sequence"' in invoke("evaluate", target, "--json", "--evaluations", 100).stdout and executed(mark)
    assert invoke("validate", target, "-n", 10).exit_code == 0 and executed(mark)
    assert bdiff_np.load(target).sample(2).shape == (2, D) and executed(mark)


def test_the_run_folders_own_file_is_not_executed_for_its_results(trained):
    """Results belong to the copy beside them: a file in the run folder that was changed since is not even read."""
    folder, mark = trained
    own = (folder / "reverse_model.py").read_text()
    (folder / "reverse_model.py").write_text("raise RuntimeError('the wrong file')\n")
    assert invoke("sample", folder, "-n", 1).exit_code == 0 and executed(mark)
    (folder / "reverse_model.py").write_text(own)


@pytest.mark.parametrize("command", [("sample", "-n", 1), ("evaluate", "--evaluations", 10), ("validate", "-n", 2)])
def test_checkpoint_is_not_trusted(trained, command):
    """A bare checkpoint executes nothing, though the file lies two folders up: exit code 2 and a sentence with the
    folder to trust."""
    folder, mark = trained
    path = rundir.resolve(folder).checkpoint
    found = invoke(command[0], path, *command[1:])
    assert found.exit_code == 2 and found.stdout == "" and not executed(mark)
    assert (
        found.stderr.strip().startswith(f"{path}: its network is a reverse_model.py")
        and str(newest(folder).resolve()) in found.stderr
    )
    with pytest.raises(InputError, match="executed only from a folder that you name"):
        bdiff_np.load(str(path))
    assert not executed(mark)


def test_copied_checkpoint_is_not_trusted(trained, tmp_path):
    """Nor is one that lies elsewhere, with a reverse_model.py right beside it."""
    folder, mark = trained
    path = tmp_path / "model_epoch_3.safetensors"
    shutil.copyfile(rundir.resolve(folder).checkpoint, path)
    (tmp_path / "reverse_model.py").write_text(MARK.format(mark) + NET)
    found = invoke("sample", path)
    assert found.exit_code == 2 and "executed only from a folder that you name" in found.stderr and not executed(mark)


def test_no_target_is_not_trust(trained, monkeypatch):
    """The newest results under runs/ execute nothing when the user named no folder."""
    folder, mark = trained
    monkeypatch.chdir(folder.parent.parent)
    found = invoke("sample")
    assert (
        found.exit_code == 2
        and found.stdout == ""
        and "executed only from a folder that you name" in found.stderr
        and not executed(mark)
    )
    assert os.path.join("runs", "mine", "results") in found.stderr.splitlines()[-1]


def test_built_in_network_executes_no_file(trained, tmp_path, monkeypatch):
    """The reverse_model.py that stands beside the results of a built-in network is never executed, whatever is in
    it."""
    _, mark = trained
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    folder = make_run(tmp_path / "run", epochs=1)
    assert invoke("train", folder).exit_code == 0
    with open(newest(folder) / "reverse_model.py", "a") as file:
        file.write(MARK.format(mark))
    for target in (folder, newest(folder), rundir.resolve(folder).checkpoint):
        assert invoke("sample", target, "-n", 1).exit_code == 0
    assert not executed(mark)


def test_missing_file_of_a_run(trained, tmp_path):
    """Results whose reverse_model.py was taken away say so."""
    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    (newest(copy) / "reverse_model.py").unlink()
    found = invoke("sample", copy)
    assert found.exit_code == 2 and f"{newest(copy) / 'reverse_model.py'}: missing" in found.stderr


def test_changed_shapes(trained, tmp_path):
    """Results whose reverse_model.py has other shapes than the checkpoint say so."""
    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    (newest(copy) / "reverse_model.py").write_text(NET.replace("alpha_bar, 6", "alpha_bar, 5"))
    found = invoke("sample", copy)
    assert found.exit_code == 2 and "does not fit the network" in found.stderr and "W1" in found.stderr


def test_init_depends_on_the_seed(tmp_path):
    """The generator handed to init is made from the seed alone."""
    (tmp_path / "reverse_model.py").write_text(NET)
    net = CustomNet(tmp_path / "reverse_model.py", *TASK)
    first, again, other = net.init(1), net.init(1), net.init(2)
    np.testing.assert_array_equal(first["W1"], again["W1"])
    assert not np.array_equal(first["W1"], other["W1"])


def test_gradients_are_views_of_one_buffer(tmp_path):
    """backward's dict is copied into the flat buffer that the optimiser reads, each under its name, in the order of
    `shapes`."""
    (tmp_path / "reverse_model.py").write_text(
        NET.replace('{"W1": ops.matmul(x.T, dz), "b1": db1,', '{"b1": db1, "W1": ops.matmul(x.T, dz),')
    )
    m = build(settings(), D, np.asarray(0.25), code=tmp_path / "reverse_model.py")
    m.params.fill(m.net.init(0))
    x_t, t = TRAIN.all(), np.array([1, 10, 20])
    logits, tape = m.net.forward(m.ops, m.params, x_t, t)
    assert logits.dtype == np.float32
    grads = m.net.backward(m.ops, m.params, tape, np.ones_like(logits))
    assert list(grads) == list(m.params) and grads.flat.size == m.params.flat.size
    np.testing.assert_array_equal(grads["b2"], np.full(D, 3))
    np.testing.assert_array_equal(grads["W2"], tape[1].T @ np.ones((3, D), np.float32))


# check-net
# ----------------------------------------------------------------------------------------------------------------------


def test_check_net_passes_a_right_one(tmp_path):
    """Every parameter is listed as ok, exit code 0; the built-in network too."""
    found = invoke("check-net", make_run(tmp_path / "own", NET))
    assert found.exit_code == 0 and [line.split()[0] for line in found.stdout.splitlines() if line.endswith(" ok")] == [
        "W1",
        "b1",
        "W2",
        "b2",
    ]
    assert "all 4 gradients are right" in found.stdout
    assert invoke("check-net", make_run(tmp_path / "built-in")).exit_code == 0


@pytest.mark.parametrize(
    "right, wrong, name",
    [
        ("ops.matmul(x.T, dz)", "1.001 * ops.matmul(x.T, dz)", "W1"),
        ('"b1": db1', '"b1": -db1', "b1"),
        ("ops.matmul(h.T, dlogits)", "ops.matmul(h.T, dlogits) / len(x)", "W2"),
        ("dlogits.sum(0)}", "0 * dlogits.sum(0)}", "b2"),
    ],
)
def test_check_net_names_the_wrong_gradient(tmp_path, right, wrong, name):
    """Exit code 1, the parameter marked WRONG, the others ok, and the file named."""
    folder = make_run(tmp_path / "run", NET.replace(right, wrong))
    found = invoke("check-net", folder)
    marked = {line.split()[0]: line.split()[-1] for line in found.stdout.splitlines()[1:-1]}
    assert found.exit_code == 1 and marked == {n: "WRONG" if n == name else "ok" for n in ("W1", "b1", "W2", "b2")}
    assert found.stdout.splitlines()[-1] == f"{folder / 'reverse_model.py'}: the gradient is wrong for {name}"


# Faults of the contract
# -----------------------------------------------------------------------------------------------------------------

LINES = NET.splitlines()
BROKEN = LINES.index("    def forward(self, ops, params, x_t, t):") + 1  # counted from 1

LOADING = {
    "no class": ("import numpy as np\n", ": defines no class ReverseModel"),
    "not a class": ("ReverseModel = 3\n", ": defines no class ReverseModel"),
    "empty": ("", ": defines no class ReverseModel"),
    "syntax": (NET.replace("def forward(self, ops, params, x_t, t):", "def forward(self"), f":{BROKEN}: SyntaxError: "),
    "import": (
        "import numpy as np\n\nimport no_such_module_at_all\n" + NET,
        ":3: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "exception": ("import json\n\n\ndef f():\n    return json.loads('{')\n\n\nf()\n", ":5: JSONDecodeError: "),
    "not text": (b"\xff\xfe\x00 class", ":"),
    **{
        f"no {name}": (
            NET.replace(f"def {name}(", f"def {name}_(").replace(f"self.{name} =", "self.other ="),
            f": class ReverseModel has no `{name}`",
        )
        for name in ("init", "forward", "backward")
    },
    "no shapes": (
        NET.replace("self.alpha_bar, H = alpha_bar, 6", "self.alpha_bar = alpha_bar")
        .replace("self.shapes = ", "shapes = ")
        .replace("H", "6"),
        ": class ReverseModel has no `shapes`",
    ),
    "constructor arguments": (NET.replace("D, T, alpha_bar)", "D, T, alpha_bar, heads)"), ": TypeError"),
    "constructor fails": (
        NET.replace("self.alpha_bar, H = alpha_bar, 6", "self.alpha_bar, H = alpha_bar, 1 // 0"),
        ":7: ZeroDivisionError: ",
    ),
    "shapes no dict": (
        NET.replace('self.shapes = {"W1": (D + 1, H), "b1": (H,), "W2": (H, D), "b2": (D,)}', "self.shapes = [(D, D)]"),
        ": ",
    ),
}


@pytest.mark.parametrize("kind", LOADING)
def test_file_that_cannot_be_used(tmp_path, kind):
    """An InputError that begins with the file, and the line where there is one; `train` says it with exit code 2 and
    leaves no results."""
    content, expected = LOADING[kind]
    path = tmp_path / "reverse_model.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        CustomNet(path, *TASK)
    assert str(caught.value).startswith(f"{path}{expected}"), str(caught.value)
    folder = make_run(tmp_path / "run")
    shutil.copyfile(path, folder / "reverse_model.py")
    found = invoke("train", folder)
    assert (
        found.exit_code == 2
        and found.stderr.startswith(f"{folder / 'reverse_model.py'}{expected}")
        and not (folder / "results").exists()
    )


RUNNING = {
    "init wrong shape": (
        "return start",
        'return {**start, "W1": np.ones((6, 9))}',
        "init returned shape (6, 9) for parameter 'W1'",
    ),
    "init lacks one": (
        "return start",
        'del start["b2"]\n        return start',
        "init returned nothing for parameter 'b2'",
    ),
    "init has another": (
        "return start",
        'return {**start, "b3": 0}',
        "init returned 'b3', which `shapes` does not have",
    ),
    "init no dict": ("return start", "return list(start.values())", "init returned list, expected a dict"),
    "forward transposed": (
        'return ops.matmul(h, params["W2"]) + params["b2"], (x',
        'return (ops.matmul(h, params["W2"]) + params["b2"]).T, (x',
        "forward returned an output of shape (8, 3), expected (3, 8)",
    ),
    "forward one column": (
        'return ops.matmul(h, params["W2"]) + params["b2"], (x',
        'return (ops.matmul(h, params["W2"]) + params["b2"])[:, :1], (x',
        "forward returned an output of shape (3, 1), expected (3, 8)",
    ),
    "backward wrong shape": (
        '"b1": db1',
        '"b1": db1[None]',
        "backward returned shape (1, 6) for parameter 'b1', `shapes` says (6,)",
    ),
    "backward would broadcast": (
        "dlogits.sum(0)}",
        "dlogits.sum()}",
        "backward returned shape () for parameter 'b2', `shapes` says (8,)",
    ),
    "backward lacks one": ('"b1": db1, ', "", "backward returned nothing for parameter 'b1'"),
    "backward has another": (
        '"b1": db1',
        '"b1": db1, "bias": db1',
        "backward returned 'bias', which `shapes` does not have",
    ),
    "backward no dict": ('return {"W1"', 'return None and {"W1"', "backward returned NoneType, expected a dict"),
    "forward no tape": ('+ params["b2"], (x, h, tape)', '+ params["b2"]', ": forward "),
}


@pytest.mark.parametrize("kind", RUNNING)
def test_network_that_breaks_the_contract(tmp_path, kind):
    """What init, forward or backward return amiss is an InputError that begins with the file, with method, parameter
    and both shapes."""
    right, wrong, expected = RUNNING[kind]
    assert NET.count(right) == 1
    folder = make_run(tmp_path / "run", NET.replace(right, wrong), batch_size=3)
    found = invoke("train", folder)
    assert found.exit_code == 2 and "Traceback" not in found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{folder / 'reverse_model.py'}") and expected in last, last


def at(text: str, code: str) -> int:
    """The line, counted from 1, on which a text stands."""
    return code[: code.index(text)].count("\n") + 1


FORWARD, BACKWARD = "h, tape = ops.activate(", "x, h, inner = tape"
OUT = 'return ops.matmul(h, params["W2"]) + params["b2"], (x'
RAISING = {
    "init raises": ("start = {", "raise KeyError('W9')\n        start = {", "raise KeyError", "KeyError: 'W9'"),
    "init exits": ("start = {", "raise SystemExit(3)\n        start = {", "raise SystemExit", "SystemExit: 3"),
    "forward raises": (FORWARD, f"1 // 0\n        {FORWARD}", "1 // 0", "ZeroDivisionError: "),
    "forward exits": (FORWARD, f"import sys; sys.exit()\n        {FORWARD}", "import sys", "SystemExit"),
    "forward recurses": (
        FORWARD, f"self.forward(ops, params, x_t, t)\n        {FORWARD}", "x = np.concatenate", "RecursionError: ",
    ),
    "forward of two lines": (
        FORWARD, f"raise OSError('one\\ntwo')\n        {FORWARD}", "raise OSError", "OSError: one two",
    ),
    "forward has no words": (
        FORWARD, f"raise type('Odd', (Exception,), {{'__str__': None}})\n        {FORWARD}", "raise type", "Odd: ",
    ),
    "forward asks for more": ("params, x_t, t):", "params, x_t, t, more):", "def forward", "TypeError: "),
    "forward gives None": (OUT, "return None  # (x", "def forward", "forward returned NoneType, expected a pair"),
    "forward is complex": (OUT, OUT.replace("],", "] + 0j,"), "def forward", "(ndarray), not real"),
    "forward gives objects": (
        OUT, OUT.replace('params["b2"]', 'params["b2"].astype(object)'), "def forward", "type object (ndarray), not",
    ),
    "forward gives ragged lists": (OUT, "return [[1], [1, 2]], (x", "def forward", "ValueError: "),
    "forward is nan": (OUT, OUT.replace('params["b2"]', "np.nan"), None, "forward returns values that are not finite"),
    "forward writes to x_t": (
        FORWARD, f"x_t[:] = 0\n        {FORWARD}", None, "forward writes to its input `x_t`",
    ),
    "forward writes to t": (FORWARD, f"t += 0 * t + 1\n        {FORWARD}", None, "forward writes to its input `t`"),
    "forward writes to params": (
        FORWARD, f"params['b2'][:] += 1\n        {FORWARD}", None, "forward writes to its input `params`",
    ),
    "backward writes to dout": (
        BACKWARD, f"{BACKWARD}\n        dlogits *= 2", None, "backward writes to its input `dout`",
    ),
    "backward raises": (BACKWARD, "x, h = tape", "x, h = tape", "ValueError: too many values to unpack"),
    "backward is complex": ('"b1": db1', '"b1": 1j * db1', "def backward", "type complex"),
    "backward gives None": ('"b1": db1', '"b1": None', "def backward", "type object (NoneType), not real numbers"),
    "backward is infinite": ('"b1": db1', '"b1": db1 + np.inf', None, "backward returns values that are not finite"),
    "init is nan": ("return start", 'return {**start, "b1": start["b1"] + np.nan}', "def init", "not finite for"),
    "init is text": ("return start", 'return {**start, "b1": "zeros"}', "def init", "type <U5 (str), not real"),
    "shapes is no shape": ('"b1": (H,)', '"b1": H', None, "`shapes` says 6 for 'b1', expected a tuple of whole"),
    "shapes is negative": ('"b1": (H,)', '"b1": (-H,)', None, "`shapes` says (-6,) for 'b1', expected"),
    "shapes is of fractions": ('"b1": (H,)', '"b1": (H / 2,)', None, "`shapes` says (3.0,) for 'b1', expected"),
    "shapes has numbers for names": ('"b1": (H,)', '7: (H,)', None, "`shapes` has the name 7"),
    "shapes is empty": ('{"W1": (D + 1, H), "b1": (H,), "W2": (H, D), "b2": (D,)}', "{}", None, "`shapes` is empty"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["train", "dry run", "check-net"])
@pytest.mark.parametrize("kind", RAISING)
def test_every_fault_of_the_users_code_is_a_sentence(tmp_path, kind, command):
    """One line with the file, the line within it, the exception's type and words, exit code 2, before there is a
    results folder: of training, a dry run and check-net alike."""
    right, wrong, place, expected = RAISING[kind]
    assert NET.count(right) == 1
    code = NET.replace(right, wrong)
    folder = make_run(tmp_path / "run", code, batch_size=3)
    words = {"train": ["train", folder], "dry run": ["train", folder, "--dry-run"], "check-net": ["check-net", folder]}
    found = invoke(*words[command])
    assert found.exit_code == 2 and found.stdout == "" and not (folder / "results").exists()
    (line,) = found.stderr.strip().splitlines()
    where = f"{folder / 'reverse_model.py'}" + (f":{at(place, code)}" if place else "")
    assert line.startswith(f"{where}: ") and expected in line, line


@pytest.mark.parametrize("command", ["sample", "evaluate", "validate"])
@pytest.mark.parametrize("fault", ["1 // 0", "raise SystemExit(1)", "x_t[:] = 0"])
def test_faults_of_the_kept_file(trained, tmp_path, command, fault):
    """The copy in the results fails when it is used: the same sentence, with the copy's name."""
    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    code = NET.replace(FORWARD, f"{fault}\n        {FORWARD}")
    (newest(copy) / "reverse_model.py").write_text(code)
    found = invoke(command, copy)
    assert found.exit_code == 2 and found.stdout == ""
    where = "" if "x_t" in fault else f":{at(fault, code)}"
    _, line = found.stderr.strip().splitlines()  # after which checkpoint is used
    assert line.startswith(f"{newest(copy) / 'reverse_model.py'}{where}: "), line


CODINGS = {
    "no coding line": (b"", ":3: SyntaxError: "),
    "coding line": (b"# -*- coding: latin-1 -*-\n", None),
    "unknown coding": (b"# -*- coding: latin-99 -*-\n", ": SyntaxError: "),
}


@pytest.mark.parametrize("kind", CODINGS)
def test_source_that_is_not_utf8(tmp_path, monkeypatch, kind):
    """A file in Latin-1 is read where its coding line says so, trains and goes on; without one, it is a sentence with
    the line."""
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    first, expected = CODINGS[kind]
    folder = make_run(tmp_path / "run", NET, epochs=1, steps_per_epoch=2)
    (folder / "reverse_model.py").write_bytes(first + b"\n\nCAFE = 'caf\xe9'\n" + NET.encode())
    found = invoke("train", folder)
    if expected is None:
        assert found.exit_code == 0, found.stderr
        assert invoke("train", folder, "--resume").exit_code == 0
        assert invoke("sample", folder, "-n", 1).exit_code == 0
        return
    assert found.exit_code == 2 and not (folder / "results").exists()
    assert found.stderr.startswith(f"{folder / 'reverse_model.py'}{expected}"), found.stderr


def test_source_with_null_bytes(tmp_path):
    """They are named with their line."""
    (tmp_path / "reverse_model.py").write_bytes(b"import numpy\n\0\n")
    with pytest.raises(InputError, match=r"reverse_model\.py(:2)?: (SyntaxError|ValueError): "):
        load_class(tmp_path / "reverse_model.py")


def test_a_syntax_error_of_another_file_has_no_line_of_this_one(tmp_path, monkeypatch):
    """The line named is that of the import."""
    (tmp_path / "other_module_of_mine.py").write_text("\n\n\n\n\n\ndef f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reverse_model.py").write_text("import numpy\nimport other_module_of_mine\n")
    with pytest.raises(InputError, match=r"reverse_model\.py:2: SyntaxError: "):
        load_class(tmp_path / "reverse_model.py")


def test_what_it_prints_is_no_result(trained, tmp_path):
    """Prints of the file and of its methods go to stderr: stdout holds the rows alone."""
    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    code = "print('loading')\n" + NET.replace(FORWARD, f"print('forward')\n        {FORWARD}")
    (newest(copy) / "reverse_model.py").write_text(code)
    found = invoke("sample", copy, "-n", 3)
    assert found.stdout == invoke("sample", trained[0], "-n", 3).stdout
    assert found.stderr.count("loading\n") == 1 and "forward\n" in found.stderr


def test_numpys_errors_stay_as_they_were(tmp_path):
    """A file that makes NumPy raise on overflow does so for itself alone."""
    before = np.geterr()
    (tmp_path / "reverse_model.py").write_text("import numpy\nnumpy.seterr(all='raise')\n" + NET)
    CustomNet(tmp_path / "reverse_model.py", *TASK).init(0)
    assert np.geterr() == before


LATE = "self.count = getattr(self, 'count', 0) + 1; assert self.count < {}, 'late'"


@pytest.mark.parametrize("late", [8, 35])
def test_a_fault_in_the_middle_of_training(tmp_path, monkeypatch, late):
    """One sentence with file and line, exit code 2; what was trained until then is kept, named, and gone on from once
    the file is mended: to the very weights of a training without the fault."""
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    values = {"epochs": 2, "steps_per_epoch": 10, "num_val_samples": 0, "num_examples": 1, "sample_steps": 5}
    code = NET.replace(BACKWARD, f"{LATE.format(late if late < 10 else 14)}\n        {BACKWARD}")
    if late > 10:  # in the bound after an epoch
        code = NET.replace(FORWARD, f"{LATE.format(late)}\n        {FORWARD}")
    folder = make_run(tmp_path / "run", code, **values)
    found = invoke("train", folder)
    assert found.exit_code == 2 and "Traceback" not in found.stderr
    line = found.stderr.strip().splitlines()[-1]
    kept = list(rundir.checkpoints(newest(folder)).values())[-1]
    assert line.startswith(f"{folder / 'reverse_model.py'}:{at('self.count', code)}: AssertionError: late; training ")
    assert f"the last good checkpoint is {kept}; mend {newest(folder) / 'reverse_model.py'} and go on" in line
    (newest(folder) / "reverse_model.py").write_text(NET)
    assert invoke("train", folder, "--resume").exit_code == 0
    other = make_run(tmp_path / "other", NET, **values)
    assert invoke("train", other).exit_code == 0
    tensors = [checkpoint.read(rundir.checkpoints(newest(f))[2])[0] for f in (folder, other)]
    assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


FINITE = "assert all(np.isfinite(w).all() for w in params.values()), 'no number'"


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_fault_for_weights_that_are_no_numbers(tmp_path, monkeypatch, epochs):
    """They are not saved: one sentence, with the last good checkpoint or nothing left behind."""
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    code = NET.replace(FORWARD, f"{FINITE}\n        {FORWARD}")
    values = {"lr": 1e30, "weight_decay": 1.0, "warmup_steps": 0, "lr_schedule": "constant"}
    if epochs:
        values = {"lr": 0.01, "epochs": 3}
        step = Training.step

        def overflow(self):
            loss = step(self)
            if self.optimizer.taken == 12:
                self.model.params.flat[0] = np.inf
            return loss

        monkeypatch.setattr(Training, "step", overflow)
    folder = make_run(tmp_path / "run", code, **values)
    found = invoke("train", folder)
    assert found.exit_code == 2 and "Traceback" not in found.stderr
    line = found.stderr.strip().splitlines()[-1]
    assert line.startswith(
        f"{folder / 'reverse_model.py'}:{at('isfinite', code)}: AssertionError: no number; training "
    )
    assert "are not finite numbers; " in line and "Start anew with a lower training.lr" in line
    if epochs:
        kept = rundir.checkpoint_path(newest(folder), 1)
        assert f"the last good checkpoint is {kept}." in line and list(rundir.checkpoints(newest(folder))) == [1]
    else:
        assert "there is no checkpoint yet, and nothing is left behind." in line and not (folder / "results").exists()


def test_the_rehearsal_leaves_no_trace(tmp_path):
    """What the object counts between calls is as if it had not been; a dry run leaves no folder."""
    code = NET.replace(BACKWARD, f"{LATE.format(2)}\n        {BACKWARD}")
    folder = make_run(tmp_path / "run", code)
    job = opening.prepare(folder, config.load(folder / "config.yaml"), backend="numpy").training
    assert not hasattr(job.model.net.inner, "count")
    job.step()
    assert job.model.net.inner.count == 1
    assert invoke("train", folder, "--dry-run").exit_code == 0 and not (folder / "results").exists()


def test_load_class_gives_the_class(tmp_path):
    """Each load executes the file anew, so that two runs in one process do not share a module."""
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "reverse_model.py").write_text(f"class ReverseModel:\n    number = {number}\n")
    assert [load_class(tmp_path / f"{n}" / "reverse_model.py").number for n in (1, 2)] == [1, 2]


def test_an_edited_file_is_never_stale(tmp_path, monkeypatch):
    """What is executed is what the file says, though edited within a tick of its clock and to the same length; no
    bytecode is left."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "reverse_model.py"
    for number in (1, 2):
        path.write_text(f"class ReverseModel:\n    number = {number}\n")
        os.utime(path, (10**9, 10**9))
        assert load_class(path).number == number
    assert os.listdir(tmp_path) == ["reverse_model.py"]


def test_own_network_has_the_built_in_ones_start(tmp_path):
    """With a last layer of zeros its bound is that of the fresh built-in network: the skip is not the network's
    affair."""
    (tmp_path / "reverse_model.py").write_text(NET)
    m = build(settings(), D, np.asarray(0.25), code=tmp_path / "reverse_model.py")
    m.params.fill(m.net.init(0))
    own, built_in = (evaluate.bound(x, TRAIN, evaluations=1 << 9).bits_per_sequence for x in (m, model()))
    assert own == built_in
