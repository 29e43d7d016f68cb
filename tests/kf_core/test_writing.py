"""What a disk says no with is a true sentence, and a result is whole or not there."""

import errno
import os
import sys

import pytest

from kf_core.errors import KnotForcingError
from kf_core.writing import beside, replacing, sync, unwritable, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENAMETOOLONG, "its name is too long for that disk. Give a shorter name"),
        (errno.EROFS, "that disk can only be read. Choose a place on another disk"),
        (errno.EACCES, "this account may not write there"),
        (errno.EPERM, "this account may not write there"),
        (errno.EISDIR, "it is a folder"),
        (errno.ENOTDIR, "a part of its path is a file"),
        (errno.ENOSPC, "the disk is full. Make room"),
        (errno.EDQUOT, "used up its share of the disk. Make room"),
        (errno.EFBIG, "a file may not become larger"),
        (errno.EIO, "the disk reports an error"),
        (errno.ESTALE, "the network drive does not know the file any more"),
        (errno.ELOOP, "its links lead in a circle"),
        (errno.ENXIO, "it is a pipe or a device"),
        (errno.EMFILE, "too many files are open"),
        (errno.ERANGE, os.strerror(errno.ERANGE)),  # of what nobody thought, the system's own words
    ],
)
def test_each_reason_has_its_own_sentence(tmp_path, number, sentence):
    said = str(unwritable(tmp_path / "a.mp4", OSError(number, os.strerror(number))))
    assert said.startswith(f"{tmp_path / 'a.mp4'} cannot be written: ") and sentence in said and said.endswith(".")


@posix
def test_the_sentence_is_true_of_what_really_happens(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "no" / "where.txt")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, sentence in {
        "no/such/a.txt": f"the folder {tmp_path / 'no' / 'such'} does not exist",
        "file/a.txt": "a part of its path is a file",
        "x" * 300: "its name is too long",
        "circle/a.txt": "its links lead in a circle",
        "link.txt": "does not exist",
        ".": "it is a folder",
    }.items():
        with pytest.raises(KnotForcingError, match=sentence):
            write_text(tmp_path / name, "text")


def test_a_result_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as fresh:
        fresh.write_text("half of the n")
        raise RuntimeError("out of memory")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_new_file_keeps_the_ending_by_which_libraries_know_what_to_write(tmp_path):
    (tmp_path / "a.new.png").write_text("somebody's")
    with replacing(tmp_path / "a.png") as fresh:
        assert fresh.suffix == ".png"
        fresh.write_text("x")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.png": "x"} | {"a.new.png": "somebody's"}


@posix
def test_a_link_stays_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "x"
    reading, writing = os.pipe()
    os.write(writing, b"")
    write_text(tmp_path.__class__(f"/dev/fd/{writing}"), "y") if os.path.exists(f"/dev/fd/{writing}") else os.write(writing, b"y")
    assert os.read(reading, 10) == b"y"
    os.close(reading)
    os.close(writing)


def test_a_name_that_is_too_long_with_its_ending_is_shortened_and_stays_its_own(tmp_path):
    assert beside(tmp_path / "a.mp4", ".resume") == tmp_path / "a.mp4.resume"
    for letter, count in (("x", 246), ("名", 82), ("😀", 61)):
        long, other = tmp_path / (letter * count + ".mp4"), tmp_path / (letter * (count - 1) + "y.mp4")
        state = beside(long, ".resume")
        assert len(os.fsencode(state.name)) <= 255 - 16 and state.name.endswith(".resume") and state.parent == tmp_path
        assert state == beside(long, ".resume") != beside(other, ".resume")
        state.touch()
        beside(state, ".lock").touch()


def test_only_disks_that_cannot_wait_are_taken_at_their_word(tmp_path, monkeypatch):
    with (tmp_path / "a").open("wb") as file:
        for number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            monkeypatch.setattr("os.fsync", lambda _, number=number: (_ for _ in ()).throw(OSError(number, "")))
            sync(file)
        monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        with pytest.raises(OSError):
            sync(file)
