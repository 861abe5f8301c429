"""Tables as people have them: what is understood, what is asked about, and that samples go back the way rows came."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import good, invoke
from hypothesis import given, settings
from hypothesis import strategies as st

from bdiff_np.data import find_file, read_file, refuse_missing
from bdiff_np.data.bits import Bits
from bdiff_np.data.bits_words import BITS, MISSING
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.errors import InputError

ROWS = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.uint8)


def lines(separator=",", zero="0", one="1", end="\n", head="", index="") -> str:
    """ROWS as a table. index : "{}" for an index column, number in place of the braces"""
    words = np.array([zero, one])[ROWS]
    body = [index.format(k) + separator.join(row) for k, row in enumerate(words)]
    return end.join([head, *body] if head else body) + end


READ = {
    "floats": (lines(zero="0.0", one="1.0"), {}, ""),
    "floats of savetxt": (lines(" ", "0.000000000000000000e+00", "1.000000000000000000e+00"), {}, ""),
    "header": (lines(head="a,b,c,d"), {"names": ["a", "b", "c", "d"]}, "header with 4 names"),
    "header in quotes": (lines(head='"a","b, c","d ""e""",f'), {"names": ["a", "b, c", 'd "e"', "f"]}, "header"),
    "header and mark": ("\ufeff" + lines(head="a,b,c,d"), {"names": ["a", "b", "c", "d"]}, "header with 4 names"),
    "numbers of pandas": (lines(head="0,1,2,3"), {"names": ["0", "1", "2", "3"]}, "header"),
    "booleans": (lines(zero="FALSE", one="TRUE"), {"words": [["FALSE", "TRUE"]]}, "TRUE = 1, FALSE = 0"),
    "python": (lines(zero="False", one="True", head="a,b,c,d"), {"words": [["False", "True"]]}, "True = 1"),
    "words": (lines(zero='"no"', one='"yes"'), {"words": [["no", "yes"]]}, "yes = 1, no = 0"),
    "letters": (lines(zero="N", one="Y"), {"words": [["N", "Y"]]}, "Y = 1"),
    "spins": (lines(zero="-1", one="1"), {"words": [["-1", "1"]]}, "1 = 1, -1 = 0"),
    "bytes": (lines(zero="0", one="255"), {"words": [["0", "255"]]}, "255 = 1, 0 = 0"),
    "quotes": (lines(zero='"0"', one='"1"'), {}, ""),
    "semicolons": (lines(";"), {"separator": ";"}, "semicolons between the columns"),
    "decimal commas": (lines(";", "0,0", "1,0"), {"separator": ";"}, "semicolons"),
    "tabs": (lines("\t", head="a\tb\tc\td"), {"separator": "\t"}, "tabs"),
    "bars": (lines("|"), {"separator": "|"}, "bars"),
    "index": (lines(head=",a,b,c,d", index="{},"), {"index": ""}, "header with 4 names; column 1 left out as an index"),
    "a frame of pandas": (lines(head=",0,1,2,3", index="{},"), {"index": "", "names": ["0", "1", "2", "3"]}, "index"),
    "an index by its name": (lines(head="PassengerId,a,b,c,d", index="9{}7,"), {"index": "PassengerId"}, "index"),
    "index without a header": (lines(index="{},"), {}, "column 1 left out as an index"),
    "names of rows": (lines(head="id,a,b,c,d", index="S0{},"), {"index": "id"}, "column 1 left out as an index"),
    "R": (lines(" ", head='"a" "b" "c" "d"', index='"{}" '), {"names": ["a", "b", "c", "d"]}, "column 1 left out"),
    "commas at the ends": (lines(end=",\n"), {}, "a comma at each line's end passed over"),
    "commas below a header": (lines(end=",\n").join(["a,b,c,d\n", ""]), {"names": ["a", "b", "c", "d"]}, "a comma at"),
    "header of savetxt": ("# a,b,c,d\n" + lines(), {"names": ["a", "b", "c", "d"]}, "header with 4 names"),
    "header of genetics": (
        "##by hand\n" + lines("\t", head="#id\ta\tb\tc\td", index="S{}\t"), {"index": "id"}, "column 1 left out",
    ),
    "the separator of Excel": ("sep=;\n" + lines(";"), {"separator": ";"}, "semicolons"),
    "quoted tabs": (lines("\t", '"0"', '"1"', head='"a"\t"b"\t"c"\t"d"'), {"separator": "\t"}, "tabs"),
    "blanks and names": (lines(" ", head="aa bb cc dd"), {"names": ["aa", "bb", "cc", "dd"]}, "header with 4 names"),
    "many comments": ("# note\n" * 70 + lines(), {}, "70 comment lines passed over"),
    "a row commented out": ("#1,0,1,0\n" + lines(), {}, "1 comment line passed over"),
    "names of rows, columns numbered": (lines(head="id,0,1,2,3", index="r{},"), {"index": "id"}, "column 1 left out"),
    "comments": ("# made by hand\n# twice\n" + lines(" "), {}, "2 comment lines passed over"),
    "wide characters": (lines(head="ä,ö,ü,ß", end="\r\n").encode("utf-16"), {"names": ["ä", "ö", "ü", "ß"]}, "header"),
    "gzip by another name": (gzip.compress(lines().encode()), {}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_is_unambiguous_is_read(tmp_path, case, capsys):
    content, form, says = READ[case]
    path = tmp_path / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = read_file(Bits, path)
    np.testing.assert_array_equal(rows.all(), ROWS)
    assert form.items() <= rows.form.items() and not rows.first_missing
    told = capsys.readouterr().err
    assert told.count("\n") == bool(says) and says in told and (not says or told.startswith(f"{path}: "))


@pytest.mark.parametrize("case", READ)
def test_samples_go_back_as_rows_came(tmp_path, case):
    """Written in the form that was read, and read again: the same rows, names and words."""
    content, _, _ = READ[case]
    path = tmp_path / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = Bits.read(path)
    back = tmp_path / ("back.tsv" if rows.form.get("separator") == "\t" else "back.csv")
    samples = Bits.from_array(ROWS[::-1])
    samples.form = rows.form
    samples.write(back)
    again = Bits.read(back)
    np.testing.assert_array_equal(again.all(), ROWS[::-1])
    assert again.form == rows.form


def test_columns_of_different_words(tmp_path):
    path = tmp_path / "survey.csv"
    path.write_text("smoker,sex_known,answer\nyes,1,TRUE\nno,0,FALSE\nYes,1,TRUE\n")
    rows = Bits.read(path)
    assert rows.all().tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert rows.form["words"] == [["no", "Yes"], ["0", "1"], ["FALSE", "TRUE"]]


REFUSED = {
    "two words": ("sex\nmale\nfemale\nmale\n", "2:1", "either could be the 1"),
    "1 and 2": ("a,b\n1,1\n2,1\n1,2\n", "3:1", "column 1 (a): its column holds '2' and '1', and either"),
    "counts": ("0,1,2\n1,1,0\n0,0,1\n", "1:5", "the value 2 is not a bit"),
    "spins and bits": ("0,1\n-1,1\n0,1\n", "2:1", "the value -1 is not a bit beside"),
    "half a header": ("a,0,1\n0,1,1\n1,1,0\n", "1:1", "or is line 1 a header?"),
    "a header alone": ("a,b,c\n", "1:1", "a header and no row"),
    "an index alone": ("id\nx1\nx2\nx3\n", "2:1", "not a bit"),
    "two indices": ("id,name,q\n1,x,0\n2,y,1\n3,z,1\n", "2:3", "'x' is not a bit"),
    "open quote": ('0,1\n"0,1\n0,1\n', "2:1", "not closed in its line"),
    "quote after the end": ('0,1\n"0"x,1\n', "2:3", "text follows a closing quotation mark"),
    "real numbers": ("".join(f"{k / 7},{k / 11}\n" for k in range(1, 500)), "2:1", "is not a bit"),
    "baskets": ("1 2 4\n3\n2 5\n", "2:1", "if each line is a list of items"),
    "baskets of one length": ("1 2 4\n3 4 6\n2 5 6\n", "2:1", "if each line is a list of items"),
    "baskets of 0 and 1": ("0 1\n0 1\n1 0\n", "1:1", "rows of bits, or lists of numbers"),
    "baskets of one or two": ("0 1\n1\n0\n1\n", "1:1", "if each line is a list of items"),
    "a mark for holes": ("0,1,-1\n1,0,1\n1,1,1\n", "1:5", "the value -1 is not a bit beside"),
    "holes alone": ("0,1,-1\n1,0,-1\n", "1:5", "a table of 0 and 1: one pair of numbers"),
    "one letter": ("a,sex\n0,F\n1,F\n", "2:3", "alone in its column"),
    "one sign": ("a,b\n0,-\n1,-\n", "2:3", "alone in its column"),
    "bits in one cell": ("0000000000,0\n0000000111,1\n0000001110,0\n", "2:1", "column 1 (0000000000)"),
    "blanks in a cell": ("1 0, 1\n0 1, 1\n", "2:1", "column 1 (1 0)"),
    "a code for holes": ("a,b\n9,1\n0,1\n1,0\n", "2:1", "the value 9 is not a bit"),
    "one odd word": ("a,b\nyes,1\nmaybe,0\n", "3:1", "'maybe' is not a bit"),
    "names over one cell": ("a,b\n1\n0\n", "1:2", "several names above lines of one cell"),
    "lists below": ("1 1 1\n1 11\n", "1:1", "rows of bits, or lists of numbers"),
    "ages": ("age,q\n31,0\n45,1\n52,1\n", "2:1", "if column 1 numbers the rows, write a header that calls it id"),
    "deviates": ("x,q\n0.31,0\n-1.2,1\n0.52,1\n", "2:1", "is not a bit"),
    "baskets of 10 and 11": ("1 10 11\n10 11 1\n", "1:1", "rows of bits, or lists of numbers"),
    "libsvm": ("1 3:1 5:1\n0 2:1 4:1\n", "2:3", "is not a bit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_asked_about(tmp_path, case):
    content, place, says = REFUSED[case]
    path = tmp_path / "train.txt"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Bits.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{place}: ") and says in message and "\n" not in message, message


@pytest.mark.parametrize("word", ["", "NA", "nan", "?", '""', "N/A"])
@pytest.mark.parametrize("head", ["", "a,b,c\n"])
def test_missing_values_are_read_and_named(tmp_path, word, head):
    path = tmp_path / "train.csv"
    path.write_text(f"{head}0,1,1\n1,{word},0\n1,0,1\n")
    rows = Bits.read(path)
    assert np.unpackbits(rows.missing, axis=1, count=3).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    with pytest.raises(
        InputError, match=rf"train.csv:{2 + bool(head)}:3: column 2.*: a value is missing.*family bernoulli"
    ):
        refuse_missing(FAMILY, rows)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_table_is_read_back(data):
    """Any shape, words, separator, header and index: read as what was written, whatever stands in the names."""
    D, N = data.draw(st.integers(1, 6)), data.draw(st.integers(4, 8))
    bits = np.array(data.draw(st.lists(st.lists(st.integers(0, 1), min_size=D, max_size=D), min_size=N, max_size=N)))
    pair = data.draw(st.sampled_from([("0", "1"), ("no", "yes"), ("FALSE", "TRUE"), ("-1", "1"), ("0", "255")]))
    form = {"words": [list(pair)], "separator": data.draw(st.sampled_from([",", ";", "\t", "|"]))}
    names = (
        st.text(st.characters(categories=["L", "Zs", "P"]), min_size=2)
        .map(str.strip)
        .filter(lambda x: len(x) > 1 and x[0] != "#")
    )
    odd = (*BITS, *MISSING)
    if data.draw(st.booleans()):
        form["names"] = data.draw(st.lists(names.filter(lambda x: x.lower() not in odd), min_size=D, max_size=D))
        if data.draw(st.booleans()):
            form["index"] = data.draw(st.sampled_from(["", "id"]))
    from bdiff_np.data.bits_files import _read_text, table

    text = table(bits, form)
    reading = _read_text(io.BytesIO(text.encode()), "given")
    np.testing.assert_array_equal(np.unpackbits(reading.packed, axis=1, count=reading.D), bits)
    assert reading.form.get("names") == form.get("names")


def test_one_name_with_a_separator_in_it():
    """Quoted, so that it is not taken for several."""
    from bdiff_np.data.bits_files import _read_text, table

    text = table(np.array([[0], [1], [0]]), {"names": ["a;b"], "separator": ","})
    assert _read_text(io.BytesIO(text.encode()), "given").form["names"] == ["a;b"]


# Arrays and other formats
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, form",
    [
        (ROWS.astype(float), {}),
        (ROWS.astype(np.float16), {}),
        (ROWS * 255, {"words": [["0", "255"]]}),
        (2 * ROWS.astype(np.int8) - 1, {"words": [["-1", "1"]]}),
        (2.0 * ROWS - 1, {"words": [["-1", "1"]]}),
        (ROWS.reshape(5, 2, 2), {"shape": [2, 2]}),
        (ROWS.reshape(5, 1, 2, 2), {"shape": [2, 2]}),
        (np.array(["no", "yes"])[ROWS], {"words": [["no", "yes"]]}),
        (ROWS.astype(object), {}),
        (ROWS.tolist(), {}),
        ([[bool(x) for x in row] for row in ROWS], {}),
    ],
)
def test_arrays(tmp_path, array, form):
    rows = Bits.from_array(array)
    np.testing.assert_array_equal(rows.all(), ROWS)
    assert rows.form == form
    if isinstance(array, np.ndarray) and array.dtype.kind in "iuf":
        np.save(tmp_path / "train.npy", array)
        np.savez(tmp_path / "train.npz", X=array, names=np.array(["a"]))
        for name in ("train.npy", "train.npz"):
            np.testing.assert_array_equal(Bits.read(tmp_path / name).all(), ROWS)


def test_the_shape_of_images_is_kept(tmp_path):
    np.save(tmp_path / "train.npy", np.zeros((3, 2, 4), bool))
    from bdiff_np.config import schema

    section = schema().sections["data"]()
    assert read_file(Bits, tmp_path / "train.npy").with_file(section).shape == (2, 4)
    assert Bits.from_array(ROWS).with_file(section).shape is None


def test_missing_numbers():
    array = ROWS.astype(float)
    array[2, 1] = np.nan
    assert Bits.from_array(array, "X").first_missing == "X:3:2"
    with pytest.raises(InputError, match="X:1:2: the value 255 is not a bit beside 0"):
        Bits.from_array(np.array([[0, 255], [1, 0]]), "X")


def test_an_archive_of_several_arrays_is_asked_about(tmp_path):
    np.savez(tmp_path / "train.npz", a=ROWS, b=ROWS)
    with pytest.raises(InputError, match=r"which array are the rows\? There is a \(5, 4\), b \(5, 4\)"):
        Bits.read(tmp_path / "train.npz")


def test_scipy_and_matlab(tmp_path):
    sparse, scipy_io = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.io")
    for kind in (sparse.csr_matrix, sparse.coo_array, sparse.lil_matrix):
        np.testing.assert_array_equal(Bits.from_array(kind(ROWS)).all(), ROWS)
    sparse.save_npz(tmp_path / "train.npz", sparse.csr_matrix(ROWS))
    scipy_io.savemat(tmp_path / "train.mat", {"spikes": ROWS, "note": "by hand"})
    for name in ("train.npz", "train.mat"):
        np.testing.assert_array_equal(Bits.read(tmp_path / name).all(), ROWS)


def test_data_frames_and_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS.astype(bool), columns=list("abcd"))
    frame["b"] = np.array(["no", "yes"])[ROWS[:, 1]]
    frame["c"] = ROWS[:, 2].astype(float)
    rows = Bits.from_array(frame)
    np.testing.assert_array_equal(rows.all(), ROWS)
    assert rows.form["names"] == list("abcd") and rows.form["words"][1] == ["no", "yes"]
    frame.loc[3, "c"] = np.nan
    assert Bits.from_array(frame, "X").first_missing == "X:4:3"
    with pytest.raises(InputError, match=r"X:1:1 \(column 'a'\): "):
        Bits.from_array(frame.assign(a=["u", "v", "w", "u", "v"]), "X")
    pytest.importorskip("pyarrow")
    frame.fillna(1.0).set_index(pandas.Index(list("vwxyz"))).to_parquet(tmp_path / "train.parquet")
    rows = Bits.read(tmp_path / "train.parquet")
    np.testing.assert_array_equal(rows.all(), ROWS)
    assert rows.form["names"] == list("abcd") and "index left out" in rows.understood


def test_any_number_of_spellings(tmp_path):
    """0.0, 0.00, 0.000, ... are all 0, however many there are."""
    path = tmp_path / "train.csv"
    path.write_text("".join(f"0,1.{'0' * k}\n1,0.{'0' * k}\n" for k in range(400)))
    np.testing.assert_array_equal(Bits.read(path).all(), [[0, 1], [1, 0]] * 400)


def test_what_is_masked_is_missing():
    masked = np.ma.array(ROWS, mask=np.eye(5, 4))
    assert Bits.from_array(masked, "X").first_missing == "X:1:1"
    assert Bits.from_array(np.ma.array(ROWS.astype(object), mask=np.eye(5, 4)), "X").first_missing == "X:1:1"
    fixed, values = Bits.check_known(np.ma.array([1, 0, 1], mask=[0, 1, 1]), 2, 3)
    assert fixed.tolist() == [[True, False, False]] * 2 and (values[:, 0] == 1).all()


def test_a_wild_index_of_a_sparse_matrix_is_refused(tmp_path):
    pytest.importorskip("scipy.sparse")
    for index in (10**5, 5, -3):
        np.savez(
            tmp_path / "x.npz", format="csr", shape=np.array([2, 4]), data=np.ones(2),
            indices=np.array([0, index]), indptr=np.array([0, 1, 2]),
        )  # fmt: skip
        with pytest.raises(InputError, match="x.npz: is not a whole .npz"):
            Bits.read(tmp_path / "x.npz")


def test_frames_keep_the_order_and_parquet_its_index(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    form = Bits.from_array(frame).form
    np.testing.assert_array_equal(Bits.from_array(frame[[3, 1, 0, 2]]).in_form(form, "X").all(), ROWS)
    pytest.importorskip("pyarrow")
    named = frame.set_axis(list("abcd"), axis=1).set_index(pandas.Index([0, 1, 1, 0, 1], name="flag"))
    named.to_parquet(tmp_path / "x.parquet")
    assert Bits.read(tmp_path / "x.parquet").form["names"] == list("abcd")


def test_genotypes(tmp_path):
    bed_reader = pytest.importorskip("bed_reader")
    copies = np.array([[0, 1, 2], [2, 1, 0]], np.float32)
    bed_reader.to_bed(tmp_path / "train.bed", copies, properties={"sid": ["rs1", "rs2", "rs3"]})
    rows = Bits.read(tmp_path / "train.bed")
    assert rows.all().tolist() == [[0, 0, 1, 0, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert rows.form["names"][:2] == ["rs1>=1", "rs1>=2"] and "two bits" in rows.understood


def test_haplotypes(tmp_path):
    (tmp_path / "train.hap").write_text("0 1 1\n1 0 0\n")
    assert Bits.read(tmp_path / "train.hap").all().tolist() == [[0, 1], [1, 0], [1, 0]]
    (tmp_path / "train.haps.gz").write_bytes(gzip.compress(b"1 rs1 10 A G 0 1 1\n1 rs2 20 C T 1 0 0\n"))
    rows = Bits.read(tmp_path / "train.haps.gz")
    assert rows.all().tolist() == [[0, 1], [1, 0], [1, 0]] and rows.form["names"] == ["rs1", "rs2"]
    (tmp_path / "train.hap").write_text("0 1 1\n1 0\n")
    with pytest.raises(InputError, match="one line a variant"):
        Bits.read(tmp_path / "train.hap")


@pytest.mark.parametrize("module, name", [("scipy", "x.mat"), ("pyarrow", "x.parquet"), ("bed_reader", "x.bed")])
def test_without_the_library_the_command_that_installs_it(tmp_path, monkeypatch, module, name):
    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r'pip install "bdiff_np\[(mat|parquet|plink)\]"'):
        Bits.read(tmp_path / name)


@pytest.mark.parametrize("name, says", [("x.xlsx", "save the sheet as CSV"), ("x.vcf.gz", "bcftools convert")])
def test_formats_that_are_not_read_have_a_way_out(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=says):
        Bits.read(tmp_path / name)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"PK\x03\x04" + b"x" * 60, "perhaps an Excel workbook"),
        (b"PAR1" + b"x" * 60, "name it .parquet"),
        (b"[[0, 1], [1, 0]]", "looks like JSON"),
        (b"<html></html>", "looks like HTML"),
        ("fumá;sí\n1;0\n".encode("latin-1"), "save the file as CSV in UTF-8"),
        ("0,1\n1,0\n".encode("utf-16-le"), "save the file as UTF-8"),
        (b'"a\nb",c\n1,0\n', "line break"),
    ],
)
def test_files_of_another_kind_have_a_way_out(tmp_path, content, says):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(InputError, match=says):
        Bits.read(tmp_path / "train.csv")


# Where the bytes come from
# ----------------------------------------------------------------------------------------------------------------------


def test_names_of_the_density_suite(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"nltcs.{split}.data").write_text("0,1\n")
    assert find_file(Bits, tmp_path, "val").name == "nltcs.valid.data"
    assert find_file(Bits, tmp_path, "test").name == "nltcs.test.data"
    (tmp_path / "train.txt").write_text("01\n")  # the plain name comes first
    assert find_file(Bits, tmp_path, "train").name == "train.txt"


@pytest.mark.parametrize("fill", [b"\0", b"0", b"x\n"])
def test_a_bomb_of_gzip_is_refused_at_its_start(tmp_path, fill):
    path = tmp_path / "train.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(256):
            file.write(fill * ((1 << 20) // len(fill)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"train.txt.gz:[12]:1: "):
        Bits.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20


def test_a_file_by_another_name_is_named(tmp_path):
    (tmp_path / "Survey.CSV").write_text("0,1\n")
    with pytest.raises(InputError, match="if Survey.CSV are the rows, call it train.csv"):
        find_file(Bits, tmp_path, "train")


def test_a_row_that_could_be_names_is_said(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("0,1\n1,0\n1,1\n")
    assert len(read_file(Bits, tmp_path / "train.csv")) == 3
    assert "line 1 (0, 1) read as a row, not as names" in capsys.readouterr().err


def test_columns_are_put_in_the_order_of_training(tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n0,1\n0,0\n")
    (tmp_path / "val.csv").write_text("b,a\n1,0\n")
    form = Bits.read(tmp_path / "train.csv").form
    assert read_file(Bits, tmp_path / "val.csv", form).all().tolist() == [[0, 1]]
    (tmp_path / "val.csv").write_text("a,c\n1,0\n")
    with pytest.raises(
        InputError,
        match="val.csv: its columns are not those of the training rows: there is no column 'b', column 'c' is not",
    ):
        read_file(Bits, tmp_path / "val.csv", form)


# Through the commands
# ----------------------------------------------------------------------------------------------------------------------


def test_from_a_spreadsheet_and_back(tmp_path):
    """A header, quoted yes and no, an index column: trained on, and samples written under the same header."""
    run = tmp_path / "survey"
    run.mkdir()
    bits = np.random.default_rng(0).integers(0, 2, (40, 4))
    words = [[f'"{k}"', *(f'"{["no", "yes"][bit]}"' for bit in row)] for k, row in enumerate(bits)]
    head = '"","smokes","drinks","sleeps","moves"'
    (run / "train.csv").write_text("\n".join([head, *map(",".join, words)]) + "\n")
    options = ("model.T=10", "model.hidden=[8]", "training.epochs=1", "training.steps_per_epoch=5")
    trained = good("train", run, *(word for option in options for word in ("--set", option)))
    assert "header with 4 names; column 1 left out as an index; yes = 1, no = 0" in trained.stderr
    out = tmp_path / "x.csv"
    good("sample", run, "-n", 3, "--out", out)
    lines = out.read_text().splitlines()
    assert lines[0] == ",smokes,drinks,sleeps,moves" and len(lines) == 4
    assert all(
        line.split(",")[0] == str(k) and set(line.split(",")[1:]) <= {"no", "yes"} for k, line in enumerate(lines[1:])
    )
    read = Bits.read(out).all()
    assert good("sample", run, "-n", 3).stdout == Bits.text(read)
    assert good("sample", run, "-n", 3, "--out", "-").stdout == Bits.text(read)
    bound = good("evaluate", run, "--data", out, "--evaluations", 100)
    assert "header with 4 names" in bound.stderr


def test_a_column_with_a_name_of_two_words(tmp_path):
    (tmp_path / "train.csv").write_text("has cat\n1\n0\n0\n1\n")
    rows = Bits.read(tmp_path / "train.csv")
    assert rows.all().tolist() == [[1], [0], [0], [1]] and rows.form["names"] == ["has cat"]


def test_frames_of_pandas(tmp_path):
    """As to_csv writes them by default, whatever the dtype: an index without a name, columns numbered from 0."""
    pandas = pytest.importorskip("pandas")
    bits = np.random.default_rng(0).integers(0, 2, (30, 2))
    for dtype in (int, float, bool):
        for separator in (",", "\t", ";"):
            pandas.DataFrame(bits.astype(dtype)).to_csv(tmp_path / "train.csv", sep=separator)
            np.testing.assert_array_equal(Bits.read(tmp_path / "train.csv").all(), bits)


def test_words_of_columns_agree(tmp_path):
    """A letter alone is read where its pair is seen elsewhere; the columns of each pair are named."""
    (tmp_path / "train.csv").write_text("a,b,c\nY,Y,0\nN,Y,1\n")
    rows = Bits.read(tmp_path / "train.csv")
    assert rows.all().tolist() == [[1, 1, 0], [0, 1, 1]] and "Y = 1, N = 0 in columns a, b" in rows.understood
    with pytest.raises(InputError, match="X:1:2: the value -1 in a table of 0 and 1"):
        Bits.from_array(np.array([[0, -1], [1, 1]], object), "X")


def test_missing_values_reach_no_training(tmp_path):
    run = tmp_path / "holes"
    run.mkdir()
    (run / "train.csv").write_text("a,b\n0,1\n,1\n1,0\n")
    result = invoke("train", run)
    assert result.exit_code == 2 and f"{run / 'train.csv'}:3:1: column 1 (a): a value is missing" in result.stderr
    assert [p.name for p in run.iterdir()] == ["train.csv"]


def test_standard_input(trained, tmp_path):
    import subprocess

    rows = (trained.run / "train.txt").read_bytes()
    root = Path(__file__).resolve().parent.parent
    for content in (rows, gzip.compress(rows)):
        command = [sys.executable, root / "cli.py", "evaluate", trained.results, "--data", "-", "--evaluations", "64"]
        done = subprocess.run([*command, "--backend", "numpy"], input=content, capture_output=True)
        assert done.returncode == 0 and b"rows of standard input" in done.stdout, done.stderr
    refused = subprocess.run([*command, "--backend", "numpy"], input=b"\0" * 100, capture_output=True)
    assert refused.returncode == 2 and refused.stderr.count(b"\n") <= 2 and b"standard input" in refused.stderr
