"""Which model a target means, and what a model does: rows that depend on seed and number alone, scores that belong to a
row."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import numpy as np
import pytest
from tiny import HEARTBEATS, TRAIN, D, invoke, make_run, model, newest

import bdiff_np
from bdiff_np import evaluate, rng
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion import bernoulli
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.runfolder import checkpoint, conclude, rundir
from bdiff_np.runfolder.files import write_whole
from bdiff_np.show import pictures
from bdiff_np.train import Training

# Targets
# ----------------------------------------------------------------------------------------------------------------------


def results(run, name: str, epochs=(1, 2, 10), chosen=None):
    """A results folder with empty files for checkpoints."""
    folder = run / "results" / name
    (folder / "checkpoints").mkdir(parents=True)
    for epoch in epochs:
        rundir.checkpoint_path(folder, epoch).write_bytes(b"")
    if chosen is not None:
        rundir.write_json(folder / "results.json", {"chosen_epoch": chosen})
    return folder


def test_checkpoint_target(tmp_path):
    """A checkpoint stands for itself; its results and run are known by the folders it lies in."""
    folder = results(tmp_path / "x", "d_01_02_2026_t_03_04_05")
    path = rundir.checkpoint_path(folder, 2)
    assert rundir.resolve(path) == rundir.Source(path, folder.resolve(), (tmp_path / "x").resolve(), "checkpoint")
    assert rundir.resolve(str(path)) == rundir.resolve(path)


def test_checkpoint_elsewhere(tmp_path):
    """A copy outside of any results folder, or under another name, has neither results nor run."""
    for name in ("model_epoch_2.safetensors", "checkpoints/best.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert rundir.resolve(path) == rundir.Source(path, None, None, "checkpoint")


def test_results_target(tmp_path):
    """A results folder stands for its last checkpoint, in the order of numbers: 10 comes after 2."""
    folder = results(tmp_path / "x", "d_01_02_2026_t_03_04_05")
    found = rundir.resolve(folder)
    assert found == rundir.Source(rundir.checkpoint_path(folder, 10), folder, (tmp_path / "x").resolve(), "results")


def test_results_target_elsewhere(tmp_path):
    """A results folder that was moved out of its run has no run."""
    folder = results(tmp_path / "x", "d_01_02_2026_t_03_04_05").rename(tmp_path / "kept")
    assert rundir.resolve(folder) == rundir.Source(rundir.checkpoint_path(folder, 10), folder, None, "results")


@pytest.mark.parametrize("relative", [".", "results/d_01_02_2026_t_03_04_05"])
def test_relative_targets(tmp_path, monkeypatch, relative):
    """Names relative to the working folder, the working folder itself included, mean the same checkpoint."""
    folder = results(tmp_path / "x", "d_01_02_2026_t_03_04_05")
    monkeypatch.chdir(tmp_path / "x")
    found = rundir.resolve(relative)
    assert (
        found.checkpoint.resolve() == rundir.checkpoint_path(folder, 10).resolve()
        and found.run.resolve() == (tmp_path / "x").resolve()
    )
    monkeypatch.chdir(folder)
    assert rundir.resolve(".").run == (tmp_path / "x").resolve()


NAMES = [  # oldest first
    "d_12_31_2024_t_23_59_59", "d_02_01_2025_t_00_00_00", "d_11_30_2025_t_23_00_00", "d_12_01_2025_t_01_00_00",
    "d_12_01_2025_t_01_00_09", "d_12_01_2025_t_01_00_09_2", "d_12_01_2025_t_01_00_09_10", "d_12_01_2025_t_01_01_00",
    "d_01_01_2026_t_00_00_00",
]  # fmt: skip


@pytest.mark.parametrize("count", range(1, len(NAMES) + 1))
def test_newest_is_by_the_time_in_the_name(tmp_path, monkeypatch, count):
    """Year before month before day, a second one of one second after the first; never the time of the file or the
    alphabet."""
    for name in reversed(NAMES[:count]):  # so that the newest by name is the oldest on the disk
        results(tmp_path / "runs" / "x", name)
    for name in ("d_99", "d_12_01_2099", "d_12_01_2099_t_01_00_00_old", "backup_d_12_01_2099_t_01_00_00"):
        results(tmp_path / "runs" / "x", name)
    (tmp_path / "runs" / "x" / "results" / "d_12_31_2099_t_00_00_00").write_text("a file")
    assert [r.name for r in rundir.all_results(tmp_path / "runs" / "x")] == NAMES[:count]
    assert rundir.resolve(tmp_path / "runs" / "x").results.name == NAMES[count - 1]
    assert rundir.resolve(tmp_path / "runs" / "x").named == "run"
    monkeypatch.chdir(tmp_path)
    found = rundir.resolve(None)
    assert found.results.name == NAMES[count - 1] and found.named == "nothing" and found.run.name == "x"


def test_no_target_looks_at_all_runs(tmp_path, monkeypatch):
    """Of all runs under runs/, the one trained last; one that has no checkpoint yet does not count."""
    for k, name in enumerate(NAMES):
        results(tmp_path / "runs" / f"run{9 - k}", name, epochs=() if k == len(NAMES) - 1 else (1,))
    monkeypatch.chdir(tmp_path)
    assert rundir.resolve(None).results.name == NAMES[-2]


def test_results_without_a_checkpoint_are_passed_over(tmp_path):
    """A training that was killed before its first checkpoint does not hide the one before it."""
    older = results(tmp_path, NAMES[0])
    results(tmp_path, NAMES[1], epochs=())
    assert rundir.resolve(tmp_path).results == older


@pytest.mark.parametrize("chosen, epoch", [(2, 2), (None, 10), (10, 10), (7, 10)])
def test_chosen_epoch(tmp_path, chosen, epoch):
    """results.json's chosen_epoch is the checkpoint that counts, if it is there; else the last."""
    folder = results(tmp_path, NAMES[0], chosen=chosen)
    for target in (folder, tmp_path):
        assert rundir.resolve(target).checkpoint == rundir.checkpoint_path(folder, epoch)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"chosen_epoch"', "\x00", '{"chosen_epoch": "2"}'])
def test_damaged_results_do_not_hide_the_checkpoints(tmp_path, text):
    """With a results.json that cannot be read it is not known which epoch counts: a checkpoint must be named, or the
    file removed."""
    folder = results(tmp_path, NAMES[0])
    (folder / "results.json").write_text(text)
    with pytest.raises(InputError, match="results.json: damaged .* so remove it, or name a checkpoint"):
        rundir.resolve(tmp_path)
    assert rundir.resolve(rundir.checkpoint_path(folder, 2)).named == "checkpoint"
    (folder / "results.json").unlink()
    assert rundir.resolve(tmp_path).checkpoint == rundir.checkpoint_path(folder, 10)


def test_targets_that_mean_nothing(tmp_path, monkeypatch):
    """No such place, a folder without results, no runs at all: each with what to do."""
    monkeypatch.chdir(tmp_path)
    for target, words in (
        (tmp_path / "no", "is no such"),
        (tmp_path, f"python cli.py train {tmp_path}"),
        (None, "train a run first"),
    ):
        with pytest.raises(InputError, match=words):
            rundir.resolve(target)
    results(tmp_path / "runs" / "x", NAMES[0], epochs=())
    with pytest.raises(InputError, match="no results yet"):
        rundir.resolve(None)


def test_new_results(tmp_path):
    """The folder is named by the time, month before day; more of one second are numbered, and no folder is ever
    reused."""
    now = datetime(2026, 3, 9, 4, 5, 6)
    made = [rundir.new_results(tmp_path, now) for _ in range(12)]
    assert [m.name for m in made[:3]] == [
        "d_03_09_2026_t_04_05_06",
        "d_03_09_2026_t_04_05_06_2",
        "d_03_09_2026_t_04_05_06_3",
    ]
    assert rundir.all_results(tmp_path) == made and all((m / "checkpoints").is_dir() for m in made)


# Loading
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a trained model."""
    patch = pytest.MonkeyPatch()
    patch.setattr(conclude, "EVALUATIONS", 1 << 7)
    patch.setattr(pictures, "draw", lambda *_: None)
    folder = make_run(
        tmp_path_factory.mktemp("model") / "run", epochs=2, steps_per_epoch=60, num_sample_steps=10, pi="data", ema=0.9
    )
    assert invoke("train", folder).exit_code == 0
    patch.undo()
    return folder


def test_loaded_model_is_the_averaged_one(trained):
    """Weights are the checkpoint's moving average, chain and network those of its configuration, whatever config.yaml
    says now."""
    last = rundir.checkpoint_path(newest(trained), 2)
    tensors, _ = checkpoint.read(last)
    m = bdiff_np.load(trained)
    for name, array in m.params.items():
        np.testing.assert_array_equal(array, tensors[f"ema/{name}"])
    assert any(not np.array_equal(array, tensors[f"params/{name}"]) for name, array in m.params.items())
    assert m.D == D and m.chain.T == 20
    np.testing.assert_array_equal(m.chain.pi, np.clip(TRAIN.mean(), 1 / 6, 5 / 6))
    for target in (newest(trained), last, str(last)):
        np.testing.assert_array_equal(bdiff_np.load(target).params.flat, m.params.flat)


def test_scalar_law_is_loaded_as_one(tmp_path):
    """A stationary law that is one number comes back as one, so that the loaded model computes as the trained one
    did."""
    m = model(pi=0.25)
    path = tmp_path / "model.safetensors"
    meta = {"step": 0, "epoch": 0, "D": D, "net": "mlp", "config": m.config.model_dump(mode="json")}
    checkpoint.write(path, Training(m, TRAIN).tensors(), meta)
    loaded = bdiff_np.load(path)
    assert loaded.chain.pi.shape == () and loaded.chain.pi == 0.25
    assert loaded.kernels().table.shape == m.kernels().table.shape


def test_unknown_names_in_a_configuration():
    """A family or network that this version lacks is a fault that lists those there are; a module that is no network is
    none."""
    for values, words in (
        ({"family": "poisson"}, "bernoulli"),
        *(({"net": n}, "mlp") for n in ("transformer", "layers", "custom")),
    ):
        with pytest.raises(InputError, match=words):
            model(**values)


def test_checkpoint_of_another_network(tmp_path, trained):
    """Tensors that the configuration's network does not have are a fault that names the file."""
    tensors, meta = checkpoint.read(rundir.checkpoint_path(newest(trained), 2))
    tensors["ema/dense0/b"] = tensors["ema/dense0/b"][:-1]
    checkpoint.write(
        tmp_path / "other.safetensors", tensors, {k: v for k, v in meta.items() if k not in ("format", "crc32")}
    )
    with pytest.raises(InputError, match="other.safetensors: does not fit the network"):
        bdiff_np.load(tmp_path / "other.safetensors")


def test_configuration_of_another_version(tmp_path, trained):
    """A checkpoint whose configuration has a setting that this version does not know is a sentence that names the file,
    not a traceback."""
    tensors, meta = checkpoint.read(rundir.checkpoint_path(newest(trained), 2))
    meta["config"]["model"]["heads"] = 8
    checkpoint.write(
        tmp_path / "newer.safetensors", tensors, {k: v for k, v in meta.items() if k not in ("format", "crc32")}
    )
    with pytest.raises(InputError, match="newer.safetensors"):
        bdiff_np.load(tmp_path / "newer.safetensors")


# Sampling
# ----------------------------------------------------------------------------------------------------------------------


def test_rows_do_not_depend_on_how_many(trained):
    """Row i is the same for every n and every batch size: it depends on the seed and i alone."""
    m = Model.load(trained)
    whole = m.sample(300, seed=3)
    assert whole.shape == (300, D) and whole.dtype == np.uint8 and set(np.unique(whole)) == {0, 1}
    for n in (0, 1, 2, 299):
        np.testing.assert_array_equal(m.sample(n, seed=3), whole[:n])
    from bdiff_np import sample

    for batch in (1, 7, 150):
        np.testing.assert_array_equal(sample.draw(m, 40, seed=3, batch=batch), whole[:40])


def test_seeds_and_steps_give_other_rows(trained):
    """Another seed gives other rows, fewer steps other rows again, and the seed decides those as well; rows among
    themselves differ."""
    m = Model.load(trained)
    rows = [m.sample(200, seed=1), m.sample(200, seed=2), m.sample(200, seed=1, steps=5)]
    assert len({r.tobytes() for r in rows}) == 3
    np.testing.assert_array_equal(m.sample(200, seed=1, steps=5), rows[2])
    np.testing.assert_array_equal(m.sample(200, seed=1, steps=20), rows[0])
    assert all(len(np.unique(r, axis=0)) > 10 for r in rows)


def test_untrained_model_draws_its_stationary_law():
    """The rows of a fresh network are independent bits of probability pi, one for each bit."""
    pi = np.array([0.1, 0.5, 0.9, 0.3, 0.3, 0.7, 0.05, 0.95])
    rows = model(pi=pi).sample(4000, seed=1)
    assert (np.abs(rows.mean(0) - pi) < 4 * np.sqrt(pi * (1 - pi) / 4000)).all()
    correlations = np.corrcoef(rows.T)[~np.eye(D, dtype=bool)]
    assert np.abs(correlations).max() < 4.5 / 4000**0.5


@pytest.mark.parametrize("steps", [0, 21])
def test_steps_that_cannot_be_taken(steps):
    """The number of steps lies between 1 and T; a model of x_(t-1) takes all or none out."""
    with pytest.raises(InputError, match="choose 1 to 20"):
        model().sample(1, steps=steps)
    with pytest.raises(InputError, match="x_prev"):
        model(predict="x_prev").sample(1, steps=5)


# Scores
# ----------------------------------------------------------------------------------------------------------------------


def test_score_belongs_to_the_row(trained):
    """A row's score depends neither on its place nor on the other rows: in another order the scores are in that order,
    to rounding."""
    m = Model.load(trained)
    rows = np.random.default_rng(0).integers(0, 2, (9, D)).astype(np.uint8)
    scores = m.score(rows, evaluations=300)
    order = np.random.default_rng(1).permutation(9)
    assert scores.shape == (9,) and scores.dtype == np.float64
    np.testing.assert_allclose(m.score(rows[order], evaluations=300), scores[order], rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([m.score(row[None], evaluations=300) for row in rows]), scores, rtol=1e-5)
    np.testing.assert_allclose(m.score(np.repeat(rows, 2, axis=0), evaluations=300)[::2], scores, rtol=1e-5)


def test_score_is_the_bound_of_a_row(trained):
    """The mean score of rows is near their bound, and that of each row near the bound of it alone, within 4 standard
    errors of both."""
    m = Model.load(trained)
    for rows in (TRAIN.all(), HEARTBEATS, HEARTBEATS[3:]):
        found = evaluate.bound(m, Bits.from_array(rows), evaluations=1 << 15)
        several = [m.score(rows, seed=seed, evaluations=500).mean() for seed in range(8)]
        error = np.hypot(np.std(several, ddof=1) / 8**0.5, found.standard_error_bits)
        assert np.mean(several) == pytest.approx(found.bits_per_sequence, abs=4 * error)
        assert error < 0.05 * found.bits_per_sequence


def test_score_is_its_definition(trained):
    """T / E times the sum of the KLs of E steps, plus the prior's, in bits: the float64 definition agrees to 1e-5."""
    m, E = Model.load(trained), 50
    steps, words = rng.stratified_t(rng.Key(3, rng.EVAL_TIME, 0), E, 20), rng.draws(rng.Key(3, rng.EVAL_NOISE, 0), E, D)
    expected = []
    for row in HEARTBEATS:
        x0 = np.tile(row, (E, 1))
        x_t = bernoulli.q_sample(m.chain, x0, steps, words)
        logits = m.output(x_t, steps) + bernoulli.evidence(m.chain, "x0", x_t, steps)
        nats = (
            20 / E * bernoulli.kl(m.chain, "x0", logits, x0, x_t, steps)[0].sum()
            + bernoulli.prior_kl(m.chain, row[None])[0]
        )
        expected.append(nats / np.log(2))
    np.testing.assert_allclose(m.score(HEARTBEATS, seed=3, evaluations=E), expected, rtol=1e-5)


def test_score_tells_data_from_noise(trained):
    """Each training row scores lower, that is likelier, than each row with half of its bits flipped."""
    m = Model.load(trained)
    noise = TRAIN.all() ^ np.array([1, 1, 0, 1, 0, 0, 1, 0], np.uint8)
    assert m.score(TRAIN.all(), evaluations=500).max() < m.score(noise, evaluations=500).min()


def test_score_of_a_fresh_model():
    """With nothing learned, a row costs what independent bits of the stationary law cost, exactly in expectation: -log2
    pi(row)."""
    rows = HEARTBEATS
    expected = -2 * np.log2(0.25) - 6 * np.log2(0.75)
    many = np.array([model().score(rows, seed=seed, evaluations=200) for seed in range(16)])
    assert (np.abs(many.mean(0) - expected) < 4 * many.std(0, ddof=1) / 4).all()


def test_score_of_another_width():
    """Rows of another length are a fault that says both lengths."""
    with pytest.raises(InputError, match=f"{D + 1} bits, the model was trained on rows of {D}"):
        model().score(np.zeros((2, D + 1), np.uint8))


def test_inputs_are_not_written(trained):
    """Sampling and scoring leave the model's weights and the caller's rows alone."""
    m = Model.load(trained)
    weights, rows = m.params.flat.copy(), HEARTBEATS.copy()
    m.sample(5)
    m.score(rows, evaluations=50)
    np.testing.assert_array_equal(m.params.flat, weights)
    np.testing.assert_array_equal(rows, HEARTBEATS)


def test_moved_run_folder(trained, tmp_path):
    """A run folder that was copied to another place, under another name, loads and samples as before."""
    shutil.copytree(trained, tmp_path / "elsewhere")
    np.testing.assert_array_equal(Model.load(tmp_path / "elsewhere").sample(5, 0), Model.load(trained).sample(5, 0))
    write_whole(newest(tmp_path / "elsewhere") / "results.json", json.dumps({"chosen_epoch": 1}).encode())
    assert not np.array_equal(Model.load(tmp_path / "elsewhere").params.flat, Model.load(trained).params.flat)
