"""Reading and writing rows: round trips, and every fault with its place."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bdiff_np.data import Data, find_file, refuse_missing
from bdiff_np.data.bits import Bits
from bdiff_np.data.bits_files import ENDINGS, WRITTEN, text
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole


def examples(number: int) -> settings:
    """So many examples, all of which write into the same folder: each writes its file anew."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


bit_arrays = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 40)), elements=st.integers(0, 1))


def fault(path: Path) -> str:
    """The message of the fault, with the folder's name taken off."""
    with pytest.raises(InputError) as caught:
        Bits.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(f"{path.parent}{os.sep}")


# Rows
# ----------------------------------------------------------------------------------------------------------------------


@given(bit_arrays, st.sampled_from([np.uint8, np.int8, np.int64, np.uint64, np.bool_, np.dtype(">i2")]), st.booleans())
def test_rows_hold_the_bits(bits, dtype, transposed):
    """Packing loses nothing, whatever the dtype and memory order; means and keys are those of the bits."""
    array = bits.astype(dtype)
    rows = Bits.from_array(np.asfortranarray(array) if transposed else array)
    assert len(rows) == len(bits) and rows.D == bits.shape[1] and rows.packed.nbytes == len(bits) * -(-rows.D // 8)
    np.testing.assert_array_equal(rows.all(), bits)
    assert rows.all().dtype == np.uint8
    index = np.arange(len(bits))[::-2]
    np.testing.assert_array_equal(rows.take(index), bits[index])
    np.testing.assert_array_equal(rows.take(slice(1, 3)), bits[1:3])
    np.testing.assert_allclose(rows.mean(), bits.mean(axis=0), rtol=1e-15)
    assert len(np.unique(rows.keys())) == len(np.unique(bits, axis=0)) == len({key.tobytes() for key in rows.keys()})
    assert np.isin(rows.keys()[:1], Bits.from_array(bits[::-1]).keys()).all()


def test_rows_larger_than_a_chunk(monkeypatch):
    """Chunks of the size of a few rows give the same rows, means and places of faults."""
    monkeypatch.setattr("bdiff_np.data.bits_arrays.CHUNK", 30)
    bits = np.random.default_rng(0).integers(0, 2, (100, 9))
    rows = Bits.from_array(bits)
    np.testing.assert_array_equal(rows.all(), bits)
    np.testing.assert_allclose(rows.mean(), bits.mean(axis=0), rtol=1e-15)
    bits[77, 3] = -1
    with pytest.raises(InputError, match="^samples:78:4: the value -1 is not a bit"):
        Bits.from_array(bits, "samples")


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((5, 0), np.uint8), "shape"),
        (np.zeros((5, 4, 0), np.uint8), "shape"),
        (np.full((2, 2), 0.5), "rows:1:1: the value 0.5 is not a bit"),
        (np.zeros((2, 2), complex), "complex128"),
        ([[0, 1], [1]], "not of one length"),
        (np.array([["0", "x"]]), "rows:1:2: 'x' is not a bit"),
    ],
)
def test_rows_refuse_other_arrays(array, message):
    with pytest.raises(InputError, match=message):
        Bits.from_array(array)


# Round trips
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", WRITTEN)
@examples(15)
@given(bits=bit_arrays)
def test_what_is_written_is_read(tmp_path, ending, bits):
    path = tmp_path / f"rows{ending}"
    Bits.from_array(bits).write(path)
    np.testing.assert_array_equal(Bits.read(path).all(), bits)
    assert os.listdir(tmp_path) == [path.name]


@examples(100)
@given(
    bits=bit_arrays,
    between=st.sampled_from(["", " ", ",", ", ", "\t", " , "]),
    line_end=st.sampled_from(["\n", "\r\n", " \n", "  \r\n"]),
    last=st.sampled_from(["", "\n", "\r\n", "\n\n \n", "  "]),
    mark=st.booleans(),
    packed=st.booleans(),
)
def test_every_way_of_writing_is_read(tmp_path, bits, between, line_end, last, mark, packed):
    lines = line_end.join(between.join(map(str, row)) for row in bits)
    data = b"\xef\xbb\xbf" * mark + (lines + last).encode()
    path = tmp_path / ("rows.data.gz" if packed else "rows.data")
    path.write_bytes(gzip.compress(data) if packed else data)
    np.testing.assert_array_equal(Bits.read(path).all(), bits)


@given(bit_arrays, st.sampled_from(["", ",", " "]))
def test_text(bits, separator):
    assert text(bits, separator) == "".join(separator.join(map(str, row)) + "\n" for row in bits)


def test_groups_of_bits_and_empty_text(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("  0110 1001\n0000 1111  \n")
    assert text(Bits.read(path).all()) == "01101001\n00001111\n"
    assert text(np.zeros((0, 5), np.uint8)) == ""


# Faults
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, place, says",
    [
        (b"0101\n0121\n", "2:3", "'2'"),
        (b"0101\n01 2 1\n", "2:4", "'2'"),
        (b"bits\n0101\n", "1:1", "'b'"),
        (b"0101\n01-1\n", "2:3", "'-'"),
        (b"\xef\xbb\xbf01x1\n", "1:3", "'x'"),
        ("0101\n01é1\n".encode(), "2:3", "'é'"),
        (b"0101\n01\xff1\n", "2:3", "byte 0xff is not text"),
        ("0101\n0110".encode("utf-16"), None, ""),
        (b"0101\n01\x001\n", "2:3", "'\\x00'"),
        (b"0101\r0101\r0101\r", "1:5", "'\\r'"),
        (b"0101\n010\n0101\n", "2:4", "length 3, but line 1 has length 4"),
        (b"0101\r\n0 1 0  \r\n0101\r\n", "2:6", "length 3, but line 1 has length 4"),
        (b"0101\n0101\n010101\n", "3:5", "length 6, but line 1 has length 4"),
        (b"010\n01010\n", "2:4", "length 5, but line 1 has length 3"),
        (b"01\n0\n011\n", "2:2", "length 1, but line 1 has length 2"),
        (b"0101\n0101", None, ""),
        (b"", "1:1", "empty"),
        (b"\xef\xbb\xbf", "1:1", "empty"),
        (b"\n \r\n\n", "1:1", "empty"),
        (b"\n0101\n", "1:1", "blank line"),
        (b"0101\n\n0101\n", "2:1", "blank line"),
        (b"0101\r\n0101\r\n \t\r\n0101\r\n", "3:1", "blank line"),
        (b"0,1,1,\n0,1,1,\n", None, ""),
        (b"0,1,1\n0,11\n", "2:3", "2 cells, but line 1 has 3"),
        (b"0,1,1\n0,1 1,0\n", "2:3", "'1 1' is not a bit"),
        (b"0,1,10\n", "1:5", "10 is not a bit"),
        (b"0,1,1\n0,1,0.5\n", "2:5", "the value 0.5 is not a bit"),
        (b"011\n0,1,1\n", "2:3", "3 cells, but line 1 has 1"),
    ],
)
@pytest.mark.parametrize("ending", [".txt", ".csv.gz"])
def test_a_fault_has_its_place(tmp_path, data, place, says, ending):
    path = tmp_path / f"train{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    if place is None:
        assert len(Bits.read(path)) == 2
    else:
        message = fault(path)
        assert message.startswith(f"train{ending}:{place}: ") and says in message


@examples(400)
@given(
    data=st.data(),
    bits=hnp.arrays(np.uint8, st.tuples(st.integers(3, 8), st.integers(2, 20)), elements=st.integers(0, 1)),
)
def test_one_wrong_byte_never_passes_unseen(tmp_path, data, bits):
    """After any change of one byte, the message names that byte's line, or the rows differ from the true ones in that
    very bit at most."""
    separator = data.draw(st.sampled_from(["", ",", " "]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    whole = text(bits, separator).replace("\n", end).encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255) | st.sampled_from(list(b"01, \t\r\n")))
    assume(place or byte != ord("#"))  # a comment, which is said
    path = tmp_path / "train.txt"
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    stride = (1 + len(separator)) * (bits.shape[1] - 1) + 1 + len(end)
    line, column = divmod(place, stride)
    try:
        rows = Bits.read(path)
        refuse_missing(FAMILY, rows)
        read = rows.all()
    except InputError as refused:
        named = str(refused)
        places = (
            [f"train.txt:{line + 1}:"]
            + [f"train.txt:{line + 2}:"] * (byte == ord("\n"))
            + ["but line 1 has"] * (line == 0)
            + ["or lists of numbers"]  # two columns of 0 and 1, each once in each row: asked about
        )
        assert any(name in named for name in places)
    else:
        assert read.shape == bits.shape
        wrong = np.argwhere(read != bits).tolist()
        assert wrong in ([], [[line, column // (1 + len(separator))]])
        assert bool(wrong) == (byte in b"01" and whole[place] in b"01" and byte != whole[place])


def test_damaged_gzip(tmp_path):
    path = tmp_path / "train.txt.gz"
    whole = gzip.compress(b"0101\n" * 1000)
    for data in (whole[:-9], whole[:15], whole[:20] + b"\x00\xff" + whole[22:], whole + b"x"):
        path.write_bytes(data)
        assert fault(path).startswith("train.txt.gz: is not gzip, or damaged (")


def test_faults_of_npy(tmp_path):
    path = tmp_path / "train.npy"

    def says(array, message):
        np.save(path, array)
        assert message in fault(path)

    wrong = np.zeros((10, 4), np.uint8)
    wrong[6, 2] = 7
    says(wrong, "train.npy:7:3: the value 7 is not a bit")
    says(np.array([[0, 1], [1, -3]]), "train.npy:2:2: the value -3")
    says(np.array([[False, True]]).view(np.uint8) * np.uint8(2), "train.npy:1:2: the value 2")
    says(np.full((3, 4), 0.5), "train.npy:1:1: the value 0.5 is not a bit")
    says(np.zeros(3, np.uint8), "shape (3,)")
    says(np.zeros((0, 3), np.uint8), "train.npy: ")
    np.save(path, np.array([[object()]], dtype=object), allow_pickle=True)
    assert "train.npy: is not a whole .npy array" in fault(path)
    np.save(path, np.zeros((10, 4), np.uint8))
    whole = path.read_bytes()
    for data in (b"", b"0101\n", whole[:5], whole[:60], whole[:-1], whole + b"\0"):
        path.write_bytes(data)
        assert fault(path).startswith("train.npy: ")


@examples(100)
@given(place=st.integers(0, 137), byte=st.integers(0, 255))
def test_a_wrong_byte_in_npy_is_refused_or_harmless(tmp_path, place, byte):
    path = tmp_path / "train.npy"
    bits = np.tile(np.array([0, 1], np.uint8), (5, 1))
    np.save(path, bits)
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    try:
        read = Bits.read(path).all()
    except InputError:
        return
    if place < 128:
        assert sorted(read.ravel()) == sorted(bits.ravel())  # a header can turn the order, not the bits
    else:
        assert np.argwhere(read != bits).tolist() in ([], [[(place - 128) // 2, place % 2]])


def test_files_that_are_not_there(tmp_path):
    assert fault(tmp_path / "train.txt") == "train.txt: there is no such file"
    assert fault(tmp_path / "train.npy") == "train.npy: there is no such file"
    for name in ("folder.txt", "folder.npy"):
        (tmp_path / name).mkdir()
        assert "is a folder" in fault(tmp_path / name)


# A run folder
# ----------------------------------------------------------------------------------------------------------------------


def test_find_file(tmp_path):
    with pytest.raises(InputError, match="no such run folder.*cli.py data"):
        find_file(Bits, tmp_path / "none", "train")
    with pytest.raises(InputError, match="has no train.txt .*cli.py data heartbeat"):
        find_file(Bits, tmp_path, "train")
    assert find_file(Bits, tmp_path, "val") is None
    for ending in ENDINGS:
        path = tmp_path / f"train{ending}"
        path.write_bytes(b"")
        assert find_file(Bits, tmp_path, "train") == path
        path.unlink()
    (tmp_path / "val.txt").write_bytes(b"")
    (tmp_path / "val.npy").write_bytes(b"")
    with pytest.raises(InputError, match="val.txt and val.npy both claim"):
        find_file(Bits, tmp_path, "val")


# Files written whole
# ----------------------------------------------------------------------------------------------------------------


def test_a_kind_of_data_need_not_read_what_is_known():
    """The default refuses, with what works instead."""
    with pytest.raises(InputError, match="--known: what is known of values can be said in Python alone"):
        type("Values", (Data,), {"elements": "values"}).read_known("1", 1)


def test_write_whole_replaces(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, b"old")
    write_whole(str(path), memoryview(b"new"))
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("act", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_write_whole_leaves_the_old_file(tmp_path, monkeypatch, act, error):
    path = tmp_path / "a.json"
    write_whole(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, act, fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_write_whole_says_why_not(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        write_whole(tmp_path / "none" / "a", b"")
    with pytest.raises(InputError, match="is a folder"):
        write_whole(tmp_path, b"")


@pytest.mark.skipif(os.name != "posix", reason="links, permissions and pipes of POSIX")
def test_write_whole_on_posix(tmp_path):
    """Permissions follow the umask, a link is followed, a device is written to."""
    true, link = tmp_path / "true", tmp_path / "link"
    link.symlink_to(true)
    before = os.umask(0o027)
    try:
        write_whole(link, b"new")
    finally:
        os.umask(before)
    assert link.is_symlink() and true.read_bytes() == b"new" and true.stat().st_mode & 0o777 == 0o640
    read, write = os.pipe()
    write_whole(f"/dev/fd/{write}", b"to the pipe")
    assert os.read(read, 100) == b"to the pipe"
    os.close(read)
    os.close(write)
