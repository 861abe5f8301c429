"""Results in words: each sentence says the number it was given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bdiff_np import config
from bdiff_np.data.bits import Bits, BitsSettings, Multiples
from bdiff_np.data.bits_examples import make_data
from bdiff_np.data.census import RowCensus
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.errors import InputError
from bdiff_np.evaluate import Bound
from bdiff_np.model import Model
from bdiff_np.runfolder import opening, rundir
from bdiff_np.runfolder.rows import rows_to_evaluate
from bdiff_np.show import report

BOUND = Bound(
    bits_per_sequence=2.34567, nats_per_sequence=1.62589, standard_error_bits=0.01234, k_minus_null_bits=-1.5,
    n_sequences=4, floor_bits=2.3, floor_standard_error_bits=0.002, bound="learned", steps=20,
)  # fmt: skip


def test_bound_in_words():
    assert report.bound(BOUND, "train rows", FAMILY) == (
        "bound      2.3457 +- 0.0123 bits/sequence (1.6259 nats), 4 train rows, T = 20, last step learned\n"
        "floor      2.3000 +- 0.0020 bits: the least that any reverse chain with independent bits within a step "
        "can reach\n"
        "K - L_null -1.5000 bits gained over a model that knows the process alone"
    )


def test_bound_without_a_floor_and_with_an_exact_one():
    """No floor, no line; a floor without an error, no +-; the paper's bound is called so."""
    bare = dataclasses.replace(BOUND, floor_bits=None, floor_standard_error_bits=None, bound="paper")
    first, second = report.bound(bare, "rows of x", FAMILY).splitlines()
    assert first.endswith("4 rows of x, T = 20, last step fixed, as in the paper") and second.startswith("K - L_null")
    exact = dataclasses.replace(BOUND, floor_standard_error_bits=0.0)
    assert report.bound(exact, "rows", FAMILY).splitlines()[1].startswith("floor      2.3000 bits: ")


CENSUS = {
    "n": 200, "distinct": 9, "train": 0.5, "val": 0.125, "other": 0.375, "train_found": 3, "train_rows": 4,
    "val_found": 1, "val_rows": 2,
}  # fmt: skip


def test_census_in_words():
    census, rule = (
        RowCensus(Bits.from_array(np.eye(4, dtype=int))),
        {"valid": 0.75, "valid_unseen": 0.1, "valid_found": 6, "valid_rows": 8},
    )
    assert census.words(CENSUS | rule).splitlines() == [
        "samples    200: 50.00% training rows (3 of 4 different ones)",
        "           12.50% held-out rows (1 of 2)",
        "           10.00% valid but in neither file, 25.00% invalid; 6 of 8 valid rows drawn",
    ]
    assert census.words(CENSUS | {"val_rows": 0}).splitlines() == [
        "samples    200: 50.00% training rows (3 of 4 different ones)",
        "           37.50% others; 9 different rows in all",
    ]


def test_plan_and_ending(trained):
    """Sizes, parameters and steps of what is going to be done; rate and how to go on of what was."""
    job = opening.prepare(trained.run, config.load(trained.results / "config.yaml"), backend="numpy")
    size = sum(int(np.prod(shape)) for shape in job.training.model.net.shapes.values())
    assert report.plan(job) == (
        f"{trained.run}: 4 rows of 10 bits, 1 held out; T = 20, {size} parameters, back end numpy\n"
        "3 epochs of 60 steps, 4 rows x 16 timesteps each"
    )
    job.training.optimizer.taken, job.seconds, job.wall_seconds = 90, 4.0, 5.0
    assert report.ending(job, "early stop") == "early stop after 0 epochs, 90 steps in 4.0 s (22 steps/s), 5.0 s in all"
    assert report.ending(job, "interrupted").endswith(f"; go on with: python cli.py train {trained.run} --resume")
    assert ", from step 90" in report.plan(job)


@pytest.mark.parametrize(
    "split, name, rows, population",
    [
        ("train", "train rows", 4, 4),
        ("val", "val rows", 1, 5),
        ("all", "train and val rows", 5, 5),
        (None, "val rows", 1, 5),
    ],
)
def test_rows_to_evaluate(trained, split, name, rows, population):
    """The rows of a split, and all different rows that the law is known to give: with train's, those in view."""
    found = rundir.resolve(trained.run)
    said, chosen, every = rows_to_evaluate(Model.open(found), found, None, split)
    assert (said, len(chosen)) == (name, rows)
    assert every.shape == (population, 10) and len(np.unique(every, axis=0)) == population and (every.sum(1) == 2).all()


def test_rows_of_a_file_to_evaluate(trained, tmp_path):
    """Repeated rows stay repeated; the law's rows are each counted once, those of train.txt among them."""
    found = rundir.resolve(trained.checkpoint(3))  # a checkpoint in its place knows its run
    (tmp_path / "x.txt").write_text("0001000010\n1000010000\n" * 2)
    said, chosen, every = rows_to_evaluate(Model.open(found), found, tmp_path / "x.txt", None)
    assert said == f"rows of {tmp_path / 'x.txt'}"
    np.testing.assert_array_equal(chosen.all(), Bits.read(tmp_path / "x.txt").all())
    assert every.shape == (5, 10)


def test_known_population():
    """None without a rule; with one, every different row of both files once, as bits; None where rows break the rule or
    come unequally often."""
    train, val = (
        Bits.from_array(np.array([[1, 0], [1, 0], [0, 1], [0, 1]])),
        Bits.from_array(np.array([[1, 1], [0, 1]])),
    )
    rule = lambda k: BitsSettings(rule=Multiples(k=k))  # noqa: E731
    assert Bits.population(rule(2), train) is None
    assert Bits.population(rule(1), Bits.from_array(np.array([[1, 0], [1, 0], [0, 1]]))) is None
    assert Bits.population(BitsSettings(), train, val) is None
    assert sorted(map(tuple, Bits.population(rule(1), train, None).tolist())) == [(0, 1), (1, 0)]
    assert sorted(map(tuple, Bits.population(rule(1), train, val).tolist())) == [(0, 1), (1, 0), (1, 1)]


def test_make_data_says_what_it_made(tmp_path):
    said = make_data(tmp_path / "x", "multiples", {"k": 3}, 4, force=False, val_fraction=0.5, seed=0)
    assert (
        said
        == f"{tmp_path / 'x'}: 3 rows in train.txt, 3 in val.txt, settings in config.yaml\ntrain it:  python cli.py "
        f"train {tmp_path / 'x'}"
    )
    assert make_data(tmp_path / "x", "multiples", {"k": 3}, 4, force=True, val_fraction=0).splitlines()[0] == (
        f"{tmp_path / 'x'}: 6 rows in train.txt, no val.txt"  # the settings were there
    )
    with pytest.raises(InputError, match="--force"):
        make_data(tmp_path / "x", "multiples", {"k": 3}, 4, force=False)
