"""Rules against enumeration of all 2^D rows, splits, and the shipped example rows."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bdiff_np.data.bits import Bits
from bdiff_np.data.bits_files import text
from bdiff_np.data.generators import MOST_ROWS, RULES, Heartbeat, Multiples, Repeating, generate, make_rule
from bdiff_np.errors import InputError

RUNS = Path(__file__).parent.parent / "runs"


def obeys(rule, row):
    """The rules once more, from their description and one row at a time."""
    string = "".join(map(str, row))
    if isinstance(rule, Heartbeat):
        return any(
            string == "".join("01"[j % rule.period == phase] for j in range(len(row))) for phase in range(rule.period)
        )
    if isinstance(rule, Repeating):
        return string == string[: rule.block] * (len(row) // rule.block)
    return int(string, 2) % rule.k == 0


CASES = [
    *((Heartbeat(period), D) for D in (1, 2, 5, 7, 8) for period in range(1, D + 1)),
    *((Repeating(block), D) for D in (1, 4, 6, 8, 9) for block in range(1, D + 1) if D % block == 0),
    *((Multiples(k), D) for D in (1, 3, 8, 10) for k in (1, 2, 3, 5, 7, 64, 255, 256, 10_000)),
]


@pytest.mark.parametrize("rule, D", CASES, ids=str)
def test_rule_is_its_enumeration(rule, D):
    """valid, rows and count say the same as going through all 2^D rows."""
    every = np.array(list(product((0, 1), repeat=D)), dtype=np.uint8)
    truth = np.array([obeys(rule, row) for row in every])
    np.testing.assert_array_equal(rule.valid(every), truth)
    np.testing.assert_array_equal(rule.valid(every.astype(bool)), truth)
    rows = rule.rows(D)
    assert rows.dtype == np.uint8 and rows.shape == (rule.count(D), D) and rule.count(D) == truth.sum()
    np.testing.assert_array_equal(np.unique(rows, axis=0), every[truth])


LONG = [(Multiples(7), 64), (Multiples(2**62), 130), (Repeating(40), 80), (Repeating(100), 300), (Heartbeat(90), 200)]


@pytest.mark.parametrize("rule, D", LONG, ids=str)
def test_long_rows_are_drawn_without_a_list(rule, D):
    """Different valid rows, also where their number passes 64 bits and where nearly all of them are drawn."""
    n = min(90, rule.count(D))
    train, val = generate(rule, D, num_rows=n, val_fraction=0.1)
    bits = np.concatenate([train.all(), val.all()])
    assert len(val) == round(0.1 * n) and rule.valid(bits).all() and len(np.unique(bits, axis=0)) == n


def test_draws_reach_the_whole_range():
    """Rows of a rule too large to list are drawn from all of it: the mean number is in the middle."""
    train, _ = generate(Multiples(1), 100, num_rows=4000, val_fraction=0)
    np.testing.assert_allclose(train.mean(), 0.5, atol=5 * 0.5 / np.sqrt(4000))
    rest, _ = generate(Multiples(3), 26, num_rows=MOST_ROWS // 64, val_fraction=0)
    assert len(np.unique(rest.keys())) == MOST_ROWS // 64


@pytest.mark.parametrize("fraction", [0, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("rule, D", [(Heartbeat(30), 64), (Repeating(6), 12), (Multiples(5), 9)], ids=str)
def test_split_is_disjoint_and_complete(rule, D, fraction):
    train, val = generate(rule, D, val_fraction=fraction, seed=3)
    held = round(fraction * rule.count(D))
    assert (len(val) if val else 0) == held
    bits = np.concatenate([train.all(), val.all()]) if val else train.all()
    np.testing.assert_array_equal(np.unique(bits, axis=0), np.unique(rule.rows(D), axis=0))
    assert len(bits) == rule.count(D)
    again, _ = generate(rule, D, val_fraction=fraction, seed=3)
    other, _ = generate(rule, D, val_fraction=fraction, seed=4)
    assert text(again.all()) == text(train.all()) != text(other.all())


def test_hold_out_names_rows():
    train, val = generate(Heartbeat(5), 20, hold_out=[4, 4])
    assert text(val.all()) == "00010000100001000010\n"
    assert train.all().argmax(axis=1).tolist() == [0, 1, 2, 4]
    train, val = generate(Multiples(3), 4, hold_out=[1, 6])
    assert text(val.all()) == "0000\n1111\n" and len(train) == 4
    assert generate(Heartbeat(5), 20, hold_out=[])[1] is None


def test_multiples_of_5_in_full():
    """All 209716 of them; the 20 ones, which the reference's files lack, are there."""
    train, val = generate(Multiples(5), 20)
    assert (len(train), len(val)) == (199230, 10486)
    assert np.isin(np.void(b"\xff\xff\xf0"), np.concatenate([train.keys(), val.keys()]))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_rule("hartbeat", period=5), "there is no rule 'hartbeat'; did you mean 'heartbeat'"),
        (lambda: make_rule("xyz"), "there are heartbeat, repeating, multiples"),
        (lambda: make_rule("heartbeat", block=5), "heartbeat: takes period, not block"),
        (lambda: make_rule("heartbeat"), "heartbeat: takes period, not nothing"),
        (lambda: make_rule("heartbeat", period=0), "heartbeat: period is 0; it must be a whole number, at least 1"),
        (lambda: make_rule("multiples", k=2.5), "multiples: k is 2.5; it must be a whole number"),
        (lambda: make_rule("multiples", k=True), "multiples: k is True"),
        (lambda: make_rule("multiples", k=2**62 + 1), "multiples: k is 4611686018427387905"),
        (lambda: generate(Heartbeat(30), 20), "heartbeat: the period 30 is longer than a row of 20 bits"),
        (lambda: Heartbeat(30).valid(np.zeros((2, 20), np.uint8)), "the period 30 is longer"),
        (lambda: generate(Repeating(7), 20), "repeating: a row of 20 bits is not a whole number of blocks of 7"),
        (lambda: generate(Heartbeat(3), -5), "heartbeat: length is -5"),
        (lambda: generate(Multiples(3), 0), "multiples: length is 0"),
        (lambda: generate(Multiples(3), 100), r"about 2\^98 rows of length 100 are valid, .*num_rows in Python\)"),
        (lambda: generate(Heartbeat(5), 20, val_fraction=1.0), "val_fraction is 1.0"),
        (lambda: generate(Heartbeat(5), 20, val_fraction=float("nan")), "val_fraction is nan"),
        (lambda: generate(Heartbeat(2), 20, val_fraction=0.9), "all 2 rows would be held out"),
        (lambda: generate(Heartbeat(2), 20, hold_out=[1, 2]), "all 2 rows would be held out"),
        (lambda: generate(Heartbeat(5), 20, hold_out=[6]), "hold_out is 6; it must be a whole number, from 1 to 5"),
        (lambda: generate(Heartbeat(5), 20, hold_out=[0]), "hold_out is 0"),
        (lambda: generate(Heartbeat(5), 20, hold_out=[1], num_rows=3), "num_rows cannot be given"),
        (lambda: generate(Heartbeat(5), 20, num_rows=6), "num_rows is 6; it must be a whole number, from 1 to 5"),
        (lambda: generate(Heartbeat(5), 20, seed=-1), "seed is -1"),
        (lambda: generate(Heartbeat(5), 20, seed=2**64), "seed is 18446744073709551616"),
    ],
)
def test_faults(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_every_rule_can_be_made():
    for name, rule in RULES.items():
        made = make_rule(name, **{field.name: 5 for field in dataclasses.fields(rule)})
        assert made.name == name and isinstance(made, rule)


@pytest.mark.parametrize(
    "folder, rule, D, choice, counts",
    [
        ("heartbeat_len_20_per_5", Heartbeat(5), 20, {"hold_out": [4]}, (4, 1)),
        ("heartbeat_paper", Heartbeat(5), 20, {}, (5, 0)),
        ("heartbeat_len_64_per_32", Heartbeat(32), 64, {"hold_out": [4, 21]}, (30, 2)),
        ("repeating_patterns_len_20_per_10", Repeating(10), 20, {}, (973, 51)),
    ],
)
def test_shipped_rows_are_those_of_the_command(folder, rule, D, choice, counts):
    train, val = generate(rule, D, **choice)
    assert (len(train), len(val) if val else 0) == counts
    assert text(Bits.read(RUNS / folder / "train.txt").all()) == text(train.all())
    if val:
        assert text(Bits.read(RUNS / folder / "val.txt").all()) == text(val.all())
    else:
        assert not (RUNS / folder / "val.txt").exists()
