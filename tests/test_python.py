"""The package from Python: fit, load, save, pickles, threads, and what is said of wrong arguments."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import bdiff_np
from bdiff_np.errors import seed_of
from bdiff_np.train import Training

ROOT = Path(__file__).resolve().parent.parent
X = np.repeat(np.random.default_rng(0).integers(0, 2, (60, 1)), 6, axis=1)
SMALL = {"T": 10, "hidden": [8], "epochs": 2, "steps_per_epoch": 10, "warmup_steps": 5, "backend": "numpy"}


@pytest.fixture(scope="module")
def model() -> bdiff_np.Model:
    return bdiff_np.fit(X, seed=1, **SMALL)


def test_the_page(tmp_path, monkeypatch):
    """docs/python.md, line by line, as one program."""
    page = (ROOT / "docs" / "python.md").read_text()
    monkeypatch.chdir(tmp_path)
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=_path())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fit(hiden=...): unknown key; did you mean hidden?\n" and re.search(
        r"seed \d+\n", done.stderr
    )


def _path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_public_names():
    assert sorted(bdiff_np.__all__) == ["InputError", "Model", "__version__", "fit", "load"]
    assert [name for name in dir(bdiff_np) if not name.startswith("__")] == ["InputError", "Model", "fit", "load"]
    for name in bdiff_np.__all__:
        assert getattr(bdiff_np, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        bdiff_np.fitt  # noqa: B018


@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, lambda x: x.astype(float), lambda x: x.astype(bool)])
def test_fit_is_the_same_whatever_holds_the_bits(model, make):
    np.testing.assert_array_equal(bdiff_np.fit(make(X), seed=1, **SMALL).params.flat, model.params.flat)


def test_fit_takes_frames_and_sparse_matrices(model):
    pandas, sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    frame = pandas.DataFrame(X, columns=[f"q{k}" for k in range(6)])
    fitted = bdiff_np.fit(frame, seed=1, **SMALL)
    assert fitted.form["names"] == list(frame.columns)
    for other in (fitted, bdiff_np.fit(sparse.csr_matrix(X), seed=1, **SMALL)):
        np.testing.assert_array_equal(other.params.flat, model.params.flat)
    np.testing.assert_array_equal(fitted.score(frame[frame.columns[::-1]]), fitted.score(X))


def test_fit_is_the_training_of_a_run_folder(model, tmp_path):
    from conftest import train

    run = tmp_path / "run"
    run.mkdir()
    np.save(run / "train.npy", X)
    trained = train(
        run, "--backend", "numpy", "--seed", 1,
        *(word for key, value in SMALL.items() if key != "backend"
          for word in ("--set", f"{'model' if key in ('T', 'hidden') else 'training'}.{key}={value}")),
    )  # fmt: skip
    np.testing.assert_array_equal(bdiff_np.load(trained.run).params.flat, model.params.flat)


def test_fit_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    bdiff_np.fit(X, val=X[:5], seed=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options, says",
    [
        ({"hiden": [3]}, r"^fit\(hiden=...\): unknown key; did you mean hidden\?$"),
        ({"hidden": [0]}, r"^fit\(hidden=...\): entry 1 must be a whole number, at least 1"),
        ({"lr": "fast"}, r"^fit\(lr=...\): must be a number"),
        ({"lr": object()}, r"^fit\(lr=...\): "),
        ({"seed": -1}, "^seed is -1; give a whole number, at least 0$"),
        ({"seed": 2.0}, "^seed is 2.0; give a whole number"),
        ({"backend": "abacus"}, "back end 'abacus' is not part of this version"),
        ({"val": X[:, :4]}, "val: rows have 4 bits, those of X have 6"),
        ({"val": 2 * X}, "val:1:1: "),
        ({"select": "best"}, r"^fit\(select=...\): best needs held-out rows: give val=$"),
        ({"patience": 3}, r"^fit\(patience=...\): needs 30 held-out rows"),
        ({"shape": [2, 4]}, r"^fit\(shape=...\): "),
        ({"rule": {"name": "heartbeat", "period": 9}}, r"^fit\(rule=...\): "),
    ],
)
def test_wrong_settings_are_named(options, says):
    with pytest.raises(bdiff_np.InputError, match=says) as caught:
        bdiff_np.fit(X, **{**SMALL, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows, says",
    [
        (0.5 * X, "^X:1:1: the value 0.5 is not a bit"),
        ([[0, 1], [1]], "^X: the rows are not of one length"),
        (np.zeros((0, 5)), "^X: holds no bits"),
        (X[0], r"^X: the array has shape \(6,\)"),
        ("train.txt", "^X: "),
        (None, "^X: "),
        (np.where(X, np.nan, 0.0), r"^X:\d:1: a value is missing, and the family bernoulli needs all of them"),
    ],
)
def test_wrong_rows_are_named(rows, says):
    with pytest.raises(bdiff_np.InputError, match=says):
        bdiff_np.fit(rows, **SMALL)


def test_saved_and_loaded(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    np.testing.assert_array_equal(bdiff_np.load(path).sample(20, seed=3), model.sample(20, seed=3))
    first = path.read_bytes()
    bdiff_np.load(path).save(path)
    assert path.read_bytes() == first
    with pytest.raises(bdiff_np.InputError, match="add the ending"):
        model.save(tmp_path / "m.npz")
    with pytest.raises(bdiff_np.InputError, match="nowhere"):
        model.save(tmp_path / "nowhere" / "m.safetensors")


def test_pickled_and_copied(model):
    rows = model.sample(20, seed=3)
    for twin in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.sample(20, seed=3), rows)
        assert twin.form == model.form and twin.ops is model.ops
    twin.params.flat[:] = 0  # a copy shares no weights
    np.testing.assert_array_equal(model.sample(20, seed=3), rows)


def test_a_fresh_seed_is_said(model, capsys):
    rows = [model.sample(40), model.sample(40)]
    seeds = [int(line.removeprefix("seed ")) for line in capsys.readouterr().err.splitlines()]
    assert len(set(seeds)) == 2
    for seed, drawn in zip(seeds, rows):
        np.testing.assert_array_equal(model.sample(40, seed=seed), drawn)


@pytest.mark.parametrize("value", [-1, 2**63 - 1, 1.5, 3.0, True, "7", float("nan"), np.float64(2), [1]])
def test_seeds_that_are_none(value, model):
    with pytest.raises(
        bdiff_np.InputError, match="^seed is .*; give a whole number, at (least 0|most 9223372036854775806)$"
    ):
        model.sample(1, seed=value)


@pytest.mark.parametrize("value", [0, 2**63 - 2, np.int64(5), np.uint8(5)])
def test_seeds(value, model):
    assert seed_of(value) == value and model.sample(1, seed=value).shape == (1, 6)


def test_numbers_that_are_none(model):
    for call in (
        lambda: model.sample(2.0, seed=0), lambda: model.sample(-1, seed=0), lambda: model.sample(None, seed=0),
        lambda: model.sample(2, seed=0, steps=-1), lambda: model.sample(2, seed=0, steps=2.5),
        lambda: model.score(X, evaluations=0), lambda: model.score(X, evaluations=1e3),
    ):  # fmt: skip
        with pytest.raises(
            bdiff_np.InputError, match="^(n|steps|evaluations) is .*; give a whole number, at least [01]$"
        ):
            call()


def test_auto_takes_the_back_end_that_suits_each_call(model, tmp_path, monkeypatch, capsys):
    from bdiff_np.backends import auto

    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = bdiff_np.load(path)
    assert loaded.auto and not bdiff_np.load(path, backend="numpy").auto
    asked = []
    monkeypatch.setattr(
        auto, "for_sampling", lambda m, n, steps: asked.append(n) or auto.Choice("numpy", "it is small")
    )
    loaded.sample(7, seed=0)
    assert asked == [7] and capsys.readouterr().err == ""


def test_score_says_what_it_understood(model, capsys):
    """Rows of -1 alone, which `known` would take for what is to be drawn, are rows of 0."""
    low, zero = -np.ones((1, model.D), int), np.zeros((1, model.D), int)
    bits = model.score(low, seed=0)
    assert capsys.readouterr().err == "rows: 1 = 1, -1 = 0\n"
    assert (bits == model.score(zero, seed=0)).all() and capsys.readouterr().err == ""


def test_held_out_rows_are_said(capsys):
    """Of 600 rows or more, in a line; not where they are given, nor of fewer."""
    many = np.repeat(X, 12, axis=0)[:700]
    bdiff_np.fit(many, seed=1, **SMALL)
    said = "700 rows: 665 to train on, 35 held out (chosen by the seed; val= gives others)"
    assert [line for line in capsys.readouterr().err.splitlines() if "held out" in line] == [said]
    for rows, val in ((many, X[:5]), (X, None)):
        bdiff_np.fit(rows, val, seed=1, **SMALL)
        assert "held out" not in capsys.readouterr().err


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGHUP"])
def test_fit_dies_of_the_signals_that_kill(signal_name):
    """They do in fit what they do everywhere else in the program that calls it."""
    if not hasattr(signal, signal_name):
        pytest.skip(f"needs {signal_name}")
    program = f"""
import os, signal, numpy as np, bdiff_np
from bdiff_np.train import Training
step = Training.step
Training.step = lambda self: [step(self), os.kill(os.getpid(), signal.{signal_name})][0]
bdiff_np.fit(np.eye(4, dtype=int), T=5, hidden=[4], epochs=1, backend="numpy")
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=_path())
    assert done.returncode == -getattr(signal, signal_name) and done.stdout == "" and "finishing" not in done.stderr


def test_ctrl_c_ends_fit_after_the_step(monkeypatch, capsys):
    step = Training.step
    monkeypatch.setattr(Training, "step", lambda self: [step(self), os.kill(os.getpid(), signal.SIGINT)][0])
    assert bdiff_np.fit(X, seed=1, **SMALL).sample(2, seed=0).shape == (2, 6)
    assert "\nCtrl-C: finishing the step (again to leave at once)\n" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_fit_lets_go_of_its_lock(monkeypatch, fails):
    """As tests under -W error::ResourceWarning ask for."""
    if fails:
        monkeypatch.setattr(Training, "step", lambda self: 1 / 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
            bdiff_np.fit(X, seed=1, **SMALL)
        gc.collect()
    assert not [each for each in caught if each.category is ResourceWarning]


def test_training_in_a_thread(model):
    made = []
    thread = threading.Thread(target=lambda: made.append(bdiff_np.fit(X, seed=1, **SMALL)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(made[0].params.flat, model.params.flat)


def test_clamping_warns_where_it_is_asked_for(model):
    """The warning names the line of the user, so that Python's filter shows it once for each such line."""
    known = np.array([1, -1, -1, -1, -1, -1])
    with pytest.warns(UserWarning, match='method "rejection"') as caught:
        clamped = model.sample(3, seed=0, known=known)
    assert caught[0].filename == __file__ and (clamped[:, 0] == 1).all()
    exact = model.sample(30, seed=0, known=known, method="rejection")
    free = model.sample(2000, seed=0)
    np.testing.assert_array_equal(exact, free[free[:, 0] == 1][:30])
    several = model.sample(30, seed=0, known=np.tile(known, (30, 1)), method="rejection")
    np.testing.assert_array_equal(several, exact)


def test_a_share_is_held_out_unless_told_otherwise(capsys):
    many = np.tile(X, (11, 1))  # 660 rows
    bdiff_np.fit(2 * many - 1, seed=1, **SMALL)
    said = capsys.readouterr().err
    assert "X: 1 = 1, -1 = 0\n" in said and "660 rows: 627 to train on, 33 held out" in said
    bdiff_np.fit(many, val="none", seed=1, **SMALL)
    assert "held out" not in capsys.readouterr().err
    with pytest.raises(bdiff_np.InputError, match=r"^fit\(val=...\): must be one of auto, none"):
        bdiff_np.fit(many, val="some.csv", **SMALL)


def test_a_model_in_short(model):
    assert repr(model).startswith("Model(6 bits, family bernoulli, T = 10, ") and len(repr(model)) < 120
