"""Why a file cannot be written: the true cause and what to do about it, before the work and after it."""

from __future__ import annotations

import errno
import os

import pytest

from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import check_folder, write_whole

OBSTACLES = {
    "no folder": ("none/x.txt", ", there is no folder {0}/none; make it first"),
    "no folder above": ("none/two/x.txt", ", there is no folder {0}/none/two; make it first"),
    "a file above": ("file/x.txt", ": {0}/file is a file, not a folder; name another place"),
    "a file far above": ("file/two/x.txt", ": {0}/file is a file, not a folder; name another place"),
    "a link to nowhere": (
        "link", ", there is no folder {0}/gone, where the link {0}/link leads; make it first, or mend the link",
    ),
    "a folder that leads nowhere": (
        "way/x.txt", ", there is no folder {0}/gone/folder, where the link {0}/way leads; make it first, or mend the "
        "link",
    ),
    "a long name": ("x" * 300, ": File name too long; take a shorter name"),
    "a long folder": ("x" * 300 + "/x.txt", ": File name too long; take a shorter name"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OBSTACLES)
def test_why_a_file_cannot_be_written(tmp_path, kind):
    """The true cause, before work and after it alike, and the fix; nothing is left behind."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "x.txt")
    (tmp_path / "way").symlink_to(tmp_path / "gone" / "folder")
    before = sorted(tmp_path.rglob("*"))
    name, expected = OBSTACLES[kind]
    for attempt in (lambda path: write_whole(path, b"x"), check_folder):
        with pytest.raises(InputError) as caught:
            attempt(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: cannot be written" + expected.format(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path):
    """It is made where the link leads."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    check_folder(tmp_path / "link")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "target").read_bytes() == b"x" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "code, expected",
    [
        (errno.ENOSPC, "No space left on device; free some space or name another place"),
        (errno.EROFS, "Read-only file system; name another place"),
        (errno.EACCES, "Permission denied; free it or name another place"),
        (errno.ENOENT, "No such file or directory; free it or name another place"),
    ],
)
def test_the_systems_own_words(tmp_path, monkeypatch, code, expected):
    """Where all of the way is there, the system says why; an earlier file stays, and no temporary."""
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError) as caught:
        write_whole(path, b"new")
    assert str(caught.value) == f"{path}: cannot be written: {expected}"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"] and path.read_text() == "old"


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch):
    """Said before the work."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=f"the folder {tmp_path} is not writable; free it or name another place"):
        check_folder(tmp_path / "x.txt")
