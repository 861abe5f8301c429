"""Checkpoints: what is written is read back bit for bit, and a damaged file never is."""

from __future__ import annotations

import errno
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from bdiff_np.errors import InputError
from bdiff_np.runfolder import checkpoint

META = {
    "step": 123,
    "epoch": 4,
    "D": 20,
    "net": "mlp",
    "config": {"lr": 1e-3, "hidden": [8, 8]},
    "best": None,
    "loss_sum": 1 / 3,  # another last digit is another number
}


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "params/dense0/W": generator.normal(size=(3, 4)).astype(np.float32),
        "params/dense0/b": np.array([0.0, -0.0, np.inf, np.nan], np.float32),
        "m": generator.normal(size=5),
        "pi": np.asarray(0.2),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_epoch_4.safetensors"


def fault(path) -> str:
    """The message of the fault, which begins with the file."""
    with pytest.raises(InputError) as caught:
        checkpoint.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_round_trip_is_exact(path):
    """Every bit, dtype and shape comes back, of numbers without axes, empty arrays, nan and -0 too; and the
    description, floats exactly."""
    checkpoint.write(path, tensors(), META)
    found, meta = checkpoint.read(path)
    same(found, tensors())
    assert {name: meta[name] for name in META} == META and meta["format"] == checkpoint.FORMAT


@pytest.mark.parametrize(
    "view", ["transposed", "every other", "reversed", "broadcast", "fortran", "slice of a flat buffer"]
)
def test_strided_arrays(path, view):
    """An array that does not lie in one piece is stored by its values, which safetensors on its own gets wrong."""
    base = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    array = {
        "transposed": base.T, "every other": base[::2, 1::3], "reversed": base[::-1, ::-1],
        "broadcast": np.broadcast_to(base[0], (4, 8)), "fortran": np.asfortranarray(base),
        "slice of a flat buffer": base.reshape(-1)[5:17].reshape(3, 4),
    }[view]  # fmt: skip
    checkpoint.write(path, {"W": array}, {})
    np.testing.assert_array_equal(checkpoint.read(path)[0]["W"], array)


def test_write_leaves_its_arguments(path):
    """Neither the arrays nor the description are changed."""
    given, meta = tensors(), dict(META)
    checkpoint.write(path, given, meta)
    same(given, tensors())
    assert meta == META


descriptions = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4))


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)), descriptions)
@examples(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_anything(tmp_path, array, meta):
    """Any float32 array and any JSON description come back."""
    path = tmp_path / "any.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # slow, and not what this is about
        checkpoint.write(path, {"x": array}, {"own": meta})
    found, described = checkpoint.read(path)
    same(found, {"x": array})
    assert described["own"] == meta


def test_same_content_same_bytes(tmp_path):
    """The order in which tensors and description were put together does not show in the file."""
    for name, turn in (("a", 1), ("b", -1)):
        checkpoint.write(tmp_path / name, dict(list(tensors().items())[::turn]), dict(list(META.items())[::turn]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_checksum_sees_names_shapes_and_bits():
    """It changes with one bit, with a name, with a shape and with a dtype of the same bytes; not with the order or the
    strides."""
    base = {"a": np.arange(6, dtype=np.float32), "b": np.ones(2)}
    flipped = base["a"].copy()
    flipped.view(np.uint8)[9] ^= 1
    others = [
        {**base, "a": flipped}, {"c": base["a"], "b": base["b"]}, {**base, "a": base["a"].reshape(2, 3)},
        {**base, "a": base["a"].view(np.int32)}, {"a": base["a"]}, {**base, "b": -base["b"]},
    ]  # fmt: skip
    sums = [checkpoint.checksum(t, {}) for t in (base, *others)]
    assert len(set(sums)) == len(sums)
    assert checkpoint.checksum({"b": base["b"], "a": np.repeat(base["a"], 2)[::2]}, {}) == sums[0]


# Damage
# ----------------------------------------------------------------------------------------------------------------------


def test_any_flipped_bit_is_noticed(path):
    """Whatever byte of the file is changed, header and description included, reading it is a fault that names the
    file."""
    checkpoint.write(path, tensors(), META)
    whole = bytearray(path.read_bytes())
    missed = []
    for position in range(len(whole)):
        damaged = whole.copy()
        damaged[position] ^= 1 << (position % 2 * 7)
        path.write_bytes(damaged)
        try:
            checkpoint.read(path)
            missed.append((position, bytes(whole[max(0, position - 12) : position + 6])))
        except InputError as caught:
            assert str(caught).startswith(f"{path}: ")
    assert not missed, f"{len(missed)} changes of {len(whole)} went unnoticed, such as {missed[:3]}"


def test_truncated(path):
    """A file that ends too early, at any length, or goes on too long is a fault."""
    checkpoint.write(path, tensors(), META)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, *range(len(whole) - 20, len(whole))):
        path.write_bytes(whole[:length])
        assert "another checkpoint" in fault(path)
    path.write_bytes(whole + b"\0")
    assert "another checkpoint" in fault(path)


def test_not_a_safetensors_file(path):
    """Text, a pickle, a huge announced header: each is a sentence, not a crash."""
    for content in (
        b"hello, world\n" * 9,
        b"\x80\x04\x95" + bytes(50),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
    ):
        path.write_bytes(content)
        assert "not a checkpoint" in fault(path)


def test_foreign_safetensors(path):
    """A safetensors file of another program is named as such, with and without metadata."""
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(save({"x": np.zeros(3)}, metadata=metadata))
        assert "not a checkpoint of bdiff_np" in fault(path)


@pytest.mark.parametrize("text", ["", "no json", "[]", "3", "null", "{}", '{"format": 1}'])
def test_description_that_cannot_be_read(path, text):
    """A description that is no JSON, no object, or lacks what every checkpoint has."""
    path.write_bytes(save({"x": np.zeros(3)}, metadata={checkpoint.KEY: text}))
    assert "damaged" in fault(path)


def test_other_format(path):
    """A checkpoint of a later version says which version it has and which is read here."""
    for number in (0, checkpoint.FORMAT + 1, 99):
        text = json.dumps({"format": number, "crc32": 0})
        path.write_bytes(save({"x": np.zeros(3)}, metadata={checkpoint.KEY: text}))
        assert fault(path).startswith(f"has format {number}, this version reads 1 to {checkpoint.FORMAT}; use")


def test_missing(tmp_path, path):
    """A missing file, a folder and a pipe are no checkpoints; none is waited for."""
    assert fault(path) == "no such checkpoint"
    assert fault(tmp_path) == "is a folder, not a file; remove it, or put the file in its place"
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert fault(path) == "is a pipe or a device, not a file; remove it, or put the file in its place"


# Whole or not at all
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(path, monkeypatch, broken, error):
    """When the disk is full or the user interrupts, the earlier checkpoint is whole and no temporary is left."""
    checkpoint.write(path, tensors(), META)
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        checkpoint.write(path, {"x": np.zeros(9)}, META)
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{path}: ") and "No space left" in str(caught.value)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_the_file_is_on_the_disk_before_it_takes_its_name(path, monkeypatch):
    """The bytes are complete and synced in the file that os.replace is given; before that the name does not exist."""
    synced, seen = [], []
    fsync, replace = os.fsync, os.replace

    def note_fsync(number):
        synced.append(os.fstat(number).st_ino)
        fsync(number)

    def note_replace(source, target):
        seen.append((os.stat(source).st_ino in synced, os.path.getsize(source), path.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    checkpoint.write(path, tensors(), META)
    assert seen == [(True, path.stat().st_size, False)] and os.listdir(path.parent) == [path.name]
