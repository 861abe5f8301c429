"""The census of samples against counting by hand, one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdiff_np.data.bits import Bits
from bdiff_np.data.census import RowCensus
from bdiff_np.data.generators import make_rule

RULES = {
    "heartbeat": lambda row, k: (
        len(row) >= k and any(row == "".join("01"[i % k == p] for i in range(len(row))) for p in range(k))
    ),
    "repeating": lambda row, k: len(row) % k == 0 and row == row[:k] * (len(row) // k),
    "multiples": lambda row, k: int(row, 2) % k == 0,
}
PARAMETER = {"heartbeat": "period", "repeating": "block", "multiples": "k"}


def packed(rows: list[str], D: int) -> Bits:
    return Bits.from_array(np.array([[int(c) for c in row] for row in rows], np.uint8).reshape(len(rows), D))


def by_hand(samples, train, val, valid=None) -> dict:
    """The same figures from strings. `valid`: all rows that obey the rule."""
    n = len(samples)
    kind = ["train" if row in train else "val" if row in (val or []) else "other" for row in samples]
    found = {name: kind.count(name) / n if n else 0.0 for name in ("train", "val", "other")}
    found |= {
        "n": n,
        "distinct": len(set(samples)),
        "train_rows": len(set(train)),
        "train_found": len(set(train) & set(samples)),
    }
    only_val = {row for row in (val or []) if row not in train}
    found |= {"val_rows": len(only_val), "val_found": len(only_val & set(samples))}
    if valid is not None:
        found["valid"] = sum(row in valid for row in samples) / n if n else 0.0
        found["valid_unseen"] = sum(row in valid and k == "other" for row, k in zip(samples, kind)) / n if n else 0.0
        found |= {"valid_found": len({row for row in samples if row in valid}), "valid_rows": len(valid)}
    return found


@st.composite
def cases(draw):
    """Few bits, so that samples, train and val overlap and repeat; D from 1, and over the edge of a byte."""
    D = draw(st.sampled_from([1, 2, 3, 4, 6, 9]))
    pool = draw(st.lists(st.text("01", min_size=D, max_size=D), min_size=1, max_size=6))
    some = st.lists(st.sampled_from(pool), max_size=12)
    train, val = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=5)), draw(st.none() | some)
    name = draw(st.none() | st.sampled_from(sorted(RULES)))
    k = draw(st.sampled_from([d for d in range(1, D + 1) if D % d == 0])) if name else 0
    return D, draw(some), train, val, name, k


@given(cases())
@settings(max_examples=300, deadline=None)
def test_census_is_counting_by_hand(case):
    """Duplicates count as often as they occur in shares and once in coverage; a row in both files is train's; no
    samples are no shares."""
    D, samples, train, val, name, k = case
    rule = make_rule(name, **{PARAMETER[name]: k}) if name else None
    valid = {row for row in (f"{i:0{D}b}" for i in range(2**D)) if RULES[name](row, k)} if name else None
    inputs = packed(samples, D), packed(train, D), packed(val, D) if val is not None else None
    before = [rows.packed.copy() for rows in inputs if rows is not None]
    found = RowCensus(*inputs[1:], rule)(inputs[0])
    assert found == by_hand(samples, train, val, valid)
    assert not samples or found["train"] + found["val"] + found["other"] == pytest.approx(1, abs=1e-12)
    for rows, kept in zip((rows for rows in inputs if rows is not None), before):
        np.testing.assert_array_equal(rows.packed, kept)


def test_census_of_a_worked_example():
    """All four kinds of sample at once, in figures that can be checked by eye."""
    # twice a training row, a held-out one, valid but unseen, invalid
    samples = ["0101", "0101", "1010", "1111", "0001"]
    found = RowCensus(packed(["0101", "0000"], 4), packed(["1010", "0101"], 4), make_rule("repeating", block=2))(
        packed(samples, 4)
    )
    assert found == {
        "n": 5, "distinct": 4, "train": 0.4, "val": 0.2, "other": 0.4, "train_found": 1, "train_rows": 2,
        "val_found": 1, "val_rows": 1, "valid": 0.8, "valid_unseen": 0.2, "valid_found": 3, "valid_rows": 4,
    }  # fmt: skip


def test_census_is_plain_numbers():
    """What goes into results.json is int and float, not NumPy's, which json refuses."""
    found = RowCensus(packed(["01"], 2), None, make_rule("multiples", k=1))(packed(["01"], 2))
    assert {type(value) for value in found.values()} == {int, float}
