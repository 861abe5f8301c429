"""Points: arrays and files, every fault with its place, moments, and what is known of rows."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdiff_np.data import points_files, read_file, read_run, source
from bdiff_np.data.points import Points
from bdiff_np.errors import InputError

X = np.array([[1.5, -2.0], [3.0, 4e-9], [0.1, 1e25]])


def refused(call, *arguments) -> str:
    with pytest.raises(InputError) as fault:
        call(*arguments)
    return str(fault.value)


def file(tmp_path: Path, content: str | bytes, name: str = "f.csv") -> Path:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


# Arrays
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f8", "i1", "u8", "?", "O", "U8"])
def test_of_any_real_dtype(kind):
    x = np.array([[1, 0], [3, 1]])
    rows = Points.from_array(x.astype(kind))
    assert rows.array.dtype == np.float64 and rows.D == 2 and len(rows) == 2 and rows.nbytes == 32
    np.testing.assert_array_equal(rows.array, x.astype(bool) if kind == "?" else x)


def test_of_lists_frames_and_masks():
    assert Points.from_array([[1, 2.5]]).all().tolist() == [[1, 2.5]]
    frame = Points.from_array(pandas.DataFrame({"x": [1, 2], "y": [0.5, 3]}))
    assert frame.form == {"names": ["x", "y"]} and frame.all().tolist() == [[1, 0.5], [2, 3]]
    masked = Points.from_array(np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), "mine")
    assert masked.first_missing == "mine:1:2" and np.isnan(masked.all()[0, 1])


def test_nothing_that_is_given_is_written_or_kept():
    x = X.copy()
    rows = Points.from_array(x)
    x[:] = 7
    rows.take(slice(0, 2))[:] = 8
    rows.take(np.array([0]))[:] = 8
    np.testing.assert_array_equal(rows.array, X)


ARRAYS = [
    (np.ones(3), r"shape \(3,\).*X.reshape\(-1, 1\)"),
    (np.float64(3), r"shape \(\)"),
    (np.ones((2, 2, 2)), r"shape \(2, 2, 2\).*reshape\(len\(X\), -1\)"),
    (np.ones((3, 0)), "D >= 1"),
    (np.ones((2, 2)) * 1j, "complex.*X.real"),
    (np.array([["2020-01-01"]], "M8[D]"), "dtype datetime64"),
    ([[1, 2], [3]], "not of one length"),
    (None, "None; give rows"),
    ("train.csv", "'train.csv'; give rows"),
    ([[1, 2], [3, np.inf]], "^mine:2:2: inf is not finite"),
    ([[1, 2], [-2e30, 3]], r"^mine:2:1: -2e\+30 is beyond 1e\+30; give the column in another unit"),
    ([["a", 2]], "^mine:1:1: 'a' is no number"),
    (np.array([[1, "2,5"]], object), "^mine:1:2: '2,5' is no number; write a decimal point, 2.5"),
]


@pytest.mark.parametrize("array, says", ARRAYS, ids=str)
def test_arrays_that_are_no_points(array, says):
    with pytest.raises(InputError, match=says):
        Points.from_array(array, "mine")


# Files
# ----------------------------------------------------------------------------------------------------------------------

FILES = [
    ("1,2\n3,4\n", [[1, 2], [3, 4]], {}),
    ("1,2\r\n 3 , 4e0\r\n\r\n\n", [[1, 2], [3, 4]], {}),
    ("1;.5\n-3;4.\n", [[1, 0.5], [-3, 4]], {"separator": ";"}),
    ("1\t2\n", [[1, 2]], {"separator": "\t"}),
    ("  1   2\n-30 4\n", [[1, 2], [-30, 4]], {"separator": " "}),
    ("1\n2", [[1], [2]], {}),
    ("x,y\n1,2\n", [[1, 2]], {"names": ["x", "y"]}),
    ('"a b";c\n"1";2\n', [[1, 2]], {"names": ["a b", "c"], "separator": ";"}),
    ("# made by hand\n# a b\n1 2\n", [[1, 2]], {"names": ["a", "b"], "separator": " "}),
    ("sep=;\nx;y\n1;2\n", [[1, 2]], {"names": ["x", "y"], "separator": ";"}),
    (",x,y\n0,.5,2\n1,3,4\n", [[0.5, 2], [3, 4]], {"names": ["x", "y"]}),  # pandas with its index
    ("0,1\n1.5,2\n", [[1.5, 2]], {}),  # pandas with numbered columns
    ("0,1\n2,3\n", [[0, 1], [2, 3]], {}),
    ("1,?\nNA,2\n", [[1, np.nan], [np.nan, 2]], {}),
]


@pytest.mark.parametrize("text, array, form", FILES, ids=str)
def test_text(tmp_path, text, array, form):
    for content in (
        text.encode(),
        codecs.BOM_UTF8 + text.encode(),
        text.encode("utf-16"),
        gzip.compress(text.encode()),
    ):
        rows = Points.read(file(tmp_path, content))
        np.testing.assert_array_equal(rows.array, array)
        assert rows.form == form and Points.check_form(rows.form, rows.D) is None


FAULTS = [
    ("1,2\n3,abc\n", "2:3: 'abc' is no number; write one, or leave the column out"),
    ("1,2\n3\n", "2:1: this row has 1 cell, those above it 2"),
    ("1,2\n3,4,5\n", "2:5: this row has 3 cells, those above it 2"),
    ("1 2\n3 4\n5 6 7\n", "3:5: this row has 3 cells"),
    ("1,2\n3,inf\n", "2:3: inf is not finite"),
    ("1,2\n3,-Infinity\n", "2:3: -Infinity is not finite"),
    ("1,2\n  4e30,1\n", r"2:3: 4e30 is beyond 1e\+30"),
    ("1;2\n3,5;4\n", "2:1: '3,5' is no number; write a decimal point, 3.5"),
    ("1,2\n\n3,4\n", "2:1: a blank line between rows; delete it"),
    ("1,2\n3,1_0\n", "2:3: '1_0' is no number"),
    ("1,2\n3,0x1\n", "2:3: '0x1' is no number"),
    ("a,b,c\n1,2\n", "1:1: the header has 3 names, the row below it 2 cells"),
    ("x,y\n", "holds names of columns and no points below them"),
    ("", "holds no points"),
    ("\n\n", "holds no points"),
    ('{"x": 1}', "1:1: looks like JSON"),
    (b"PAR1xxx", "is a Parquet"),
    (b"1,2\n3,\xe9\n", "2:1: is not UTF-8"),
    (b"\x93NUMPY\x01", "is not a whole .npy"),
]


@pytest.mark.parametrize("content, says", FAULTS, ids=str)
def test_faults_of_text(tmp_path, content, says):
    path = file(tmp_path, content)
    assert re.match(f"{re.escape(str(path))}:? ?{says}", refused(Points.read, path)), refused(Points.read, path)


def test_faults_far_down_are_found_across_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PART", 64)
    lines = [f"{k},{k + 0.5}" for k in range(200)]
    rows = Points.read(file(tmp_path, "x,y\n" + "\n".join(lines) + "\n\n\n"))
    np.testing.assert_array_equal(rows.array, [[k, k + 0.5] for k in range(200)])
    for line, content, says in [
        (150, "1,", ""),
        (150, "1,b", "152:3: 'b'"),
        (150, "", "152:1: a blank line"),
        (199, "7", "201:1"),
    ]:
        path = file(tmp_path, "x,y\n" + "\n".join([*lines[:line], content, *lines[line + 1 :]]) + "\n")
        if says:
            assert f"{path}:{says}" in refused(Points.read, path)
        else:
            assert Points.read(path).first_missing == f"{path}:152:3"


@pytest.mark.parametrize("ending", points_files.ENDINGS)
def test_round_trips(tmp_path, ending):
    """Written numbers are read back exactly, with names and separator; a file of one point or one coordinate too."""
    for form in ({}, {"names": ["x", "y 2"]}, {"names": ["x", "y"], "separator": ";"}):
        rows = Points.from_array(X)
        rows.form = form
        rows.write(tmp_path / f"rows{ending}")
        back = Points.read(tmp_path / f"rows{ending}")
        np.testing.assert_array_equal(back.array, X)
        assert ending == ".npy" or ".txt" in ending or back.form.get("names") == form.get("names")
    Points.from_array([[3.25]]).write(tmp_path / f"one{ending}")
    assert Points.read(tmp_path / f"one{ending}").all().tolist() == [[3.25]]
    Points.check_out(tmp_path / f"rows{ending}")
    assert "ending is not one of points" in refused(Points.check_out, "rows.png")


def test_missing_values_survive_a_file(tmp_path):
    rows = Points.from_array([[1, np.nan], [np.nan, 2]])
    rows.write(tmp_path / "a.csv")
    assert Points.read(tmp_path / "a.csv").first_missing == f"{tmp_path / 'a.csv'}:1:5"
    rows.write(tmp_path / "a.npy")
    assert Points.read(tmp_path / "a.npy").first_missing == f"{tmp_path / 'a.npy'}:1:2"
    assert (
        rows.select(np.array([0])).first_missing
        and not Points.from_array(X).join(rows.select(np.array([], int))).first_missing
    )


def test_npy_faults(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[{}]], object), allow_pickle=True)
    assert "not a whole .npy array of numbers" in refused(Points.read, tmp_path / "o.npy")
    np.save(tmp_path / "v.npy", np.ones((3, 2)))
    file(tmp_path, (tmp_path / "v.npy").read_bytes()[:-4], "v.npy")
    assert "v.npy: " in refused(Points.read, tmp_path / "v.npy")
    assert "does not begin as .npy does" in refused(Points.read, file(tmp_path, "1,2\n", "t.npy"))
    np.save(tmp_path / "w.npy", np.array([[1, 2], [3, -np.inf]]))
    assert f"{tmp_path / 'w.npy'}:2:2: -inf is not finite" == refused(Points.read, tmp_path / "w.npy").split(";")[0]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1 2\n3 x\n")))
    assert refused(Points.read, "-").startswith("standard input:2:3: 'x'")


@given(st.text(alphabet='01.e-+,; \t\n\r"#nax_', max_size=40))
def test_any_text_is_read_or_refused(text):
    """With a sentence and a place; what is read is written and read back as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "opened", lambda path: io.BytesIO(text.encode()))
        try:
            reading = points_files.read("f")
        except InputError as fault:
            assert str(fault).startswith("f")
            return
    written: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points_files, "write_whole", lambda path, data: written.append(bytes(data)))
        points_files.write("x.csv", reading.array, reading.form)
        patch.setattr(source, "opened", lambda path: io.BytesIO(written[0]))
        np.testing.assert_array_equal(points_files.read("x.csv").array, reading.array)


def test_a_run_folder(tmp_path, capsys):
    """.npy is preferred; the columns of held-out rows are put in the order of training's."""
    file(tmp_path, "x,y\n1,2\n3,4\n", "train.csv")
    file(tmp_path, "y,x\n5,6\n", "val.csv")
    train, val = read_run(Points, tmp_path)
    assert val is not None and val.all().tolist() == [[6, 5]] and val.form["names"] == ["x", "y"]
    assert "columns put in order by name" in capsys.readouterr().err
    wrong = file(tmp_path, "y,z\n5,6\n", "w.csv")
    assert "there is no column 'x', column 'z' is not one of them" in refused(read_file, Points, wrong, train.form)
    (tmp_path / "empty").mkdir()
    assert "has no train.npy (nor .csv, .txt, .tsv, .gz)" in refused(read_run, Points, tmp_path / "empty")


@pytest.mark.parametrize(
    "form, says",
    [({"names": ["x"]}, "1 names for 2"), ({"separator": "|"}, "separator"), ({"words": []}, "words"), ([], "form")],
)
def test_forms_that_are_none(form, says):
    assert says in Points.check_form(form, 2)


# Figures
# ----------------------------------------------------------------------------------------------------------------------


def test_moments_and_covariance():
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1e-200, 1e25] + [1e3, 0, 1]
    mean, sd = Points.from_array(x).moments()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sd, x.std(0) + [0, (x[:, 1] / 1e-200).std() * 1e-200, 0], rtol=1e-9)
    y = x[:, [0, 2]] / [1, 1e25]
    np.testing.assert_allclose(Points.from_array(y).covariance(), np.cov(y.T, bias=True), rtol=1e-12)


def test_a_constant_axis_has_no_scale(tmp_path):
    rows = read_file(Points, file(tmp_path, "x,height\n1,3.5\n2,3.5\n"))
    assert refused(rows.moments) == f"{tmp_path / 'f.csv'}: column 2 ('height') is always 3.5; leave it out"
    assert (
        refused(Points.from_array([[1.0, 2.0]]).moments) == "rows: all rows are the same; give two at least that differ"
    )


def test_rows_that_are_something_else(tmp_path):
    """Digits of bits are no numbers; a column that is named as an index, and counts, is one; another that counts is
    named on stderr; digits on a terminal show how rows differ."""
    assert "looks like a row of bits; set model.family to bernoulli" in refused(
        read_file, Points, file(tmp_path, "00010000100001\n00100001000010\n")
    )
    assert read_file(Points, file(tmp_path, "id,x\n0,.5\n1,3\n2,5\n")).array.tolist() == [[0.5], [3], [5]]
    counted = read_file(Points, file(tmp_path, "t,x\n0,.5\n1,3\n2,5\n"))
    assert counted.D == 2 and "column 1 numbers the rows" in counted.understood
    assert Points.text(np.array([[1e6 + 0.1], [1e6 + 0.2]])) == "1000000.1\n1000000.2\n"


def test_text_and_summary():
    assert Points.text(X) == "  1.5    -2\n    3 4e-09\n  0.1 1e+25\n"
    assert Points.text(np.empty((0, 2))) == ""
    rows = Points.from_array([[0.0, 1], [2, 5]])
    assert rows.summary(rows.all() + 1) == "mean and sd 2 4, 1 2; in train 1 3, 1 2"
    assert rows.summary(np.empty((0, 2))) == ""
    assert (
        Points.from_array(np.zeros((2, 5))).summary(np.ones((1, 5))).startswith("mean and sd 1 1 1 ..., 0 0 0 ...; in")
    )


def test_fingerprint_and_join():
    a, b = Points.from_array(X), Points.from_array(X[::-1])
    assert a.fingerprint() == Points.from_array(X.copy()).fingerprint() != b.fingerprint()
    assert a.fingerprint() != Points.from_array(X.reshape(2, 3)).fingerprint()
    np.testing.assert_array_equal(a.join(b).all(), np.concatenate([X, X[::-1]]))
    np.testing.assert_array_equal(a.select(np.array([2, 0])).all(), X[[2, 0]])


def test_known():
    fixed, values = Points.check_known(np.array([0.5, np.nan]), 3, 2)
    assert fixed.tolist() == [[True, False]] * 3 and values.shape == (3, 2)
    fixed, _ = Points.check_known(np.ma.array([[1, 2]], mask=[[1, 0]]), 1, 2)
    assert fixed.tolist() == [[False, True]]
    for text in ("0.5,?", "0.5 ?", " 5e-1 ; ? "):
        np.testing.assert_array_equal(Points.read_known(text, 2), [0.5, np.nan])
    assert "--known: is of 1 coordinates, the points have 2" in refused(Points.read_known, "1", 2)
    assert "--known: entry 2 is 'y'" in refused(Points.read_known, "1,y", 2)
    assert "shape (3,)" in refused(Points.check_known, np.zeros(3), 4, 2)
    assert "not numbers" in refused(Points.check_known, ["a", "b"], 1, 2)
    assert "up to 1e+30" in refused(Points.check_known, [np.inf, 1], 1, 2)
