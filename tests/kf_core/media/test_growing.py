"""Laws of a film's file: what was there stays until there is something better, and a file that is not ours any more is left alone."""

import errno
import os
import sys

import pytest

from kf_core.errors import KnotForcingError
from kf_core.media.fragments import write_fragment
from kf_core.media.video import VideoWriter

from .test_video import FPS, RATE, SIZE, frames, numbers

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows neither removes nor renames what is open")


def writer(path, **words) -> VideoWriter:
    return VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, **words)


def test_the_old_file_stays_until_the_first_fragment_is_whole(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.mp4", []
    path.write_bytes(b"the old film")
    path.chmod(0o640)

    def watched(*words) -> None:
        seen.append(path.read_bytes())
        write_fragment(*words)
        seen.append(path.read_bytes())

    monkeypatch.setattr("kf_core.media.video.write_fragment", watched)
    with writer(path) as video:
        assert path.read_bytes() == b"the old film"
        video.write(frames(0, 5))
        assert seen == [b"the old film"] * 2 and numbers(path) == list(range(5))
        video.write(frames(5, 5))
    assert numbers(path) == list(range(10)) and [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert sys.platform == "win32" or path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("is_there", [True, False])
def test_a_film_that_cannot_be_begun_leaves_all_as_it_was(tmp_path, monkeypatch, is_there):
    path = tmp_path / "a.mp4"
    if is_there:
        path.write_bytes(b"the old film")

    def full(file, *_) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kf_core.media.video.write_fragment", full)
    with pytest.raises(KnotForcingError, match="cannot be begun: the disk is full") as refusal, writer(path) as video:
        video.write(frames(0, 5))
    assert ("is as it was" in str(refusal.value)) == is_there
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.mp4", b"the old film")] * is_there


@posix
def test_a_link_stays_and_the_film_is_where_it_leads(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "film.mp4", tmp_path / "a.mp4"
    link.symlink_to(target)
    for count in (5, 3):  # to a place where nothing is, and over what is there
        with writer(link) as video:
            video.write(frames(0, count))
        assert link.is_symlink() and numbers(target) == list(range(count))
    with writer(link, resume=True) as video:
        video.write(frames(3, 3))
    assert link.is_symlink() and numbers(target) == list(range(6))
    assert [file.name for file in target.parent.iterdir()] == ["film.mp4"]


@posix
def test_another_name_of_the_old_file_keeps_what_was_in_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"the old film")
    os.link(tmp_path / "a.mp4", tmp_path / "kept.mp4")
    with writer(tmp_path / "a.mp4") as video:
        video.write(frames(0, 5))
    assert (tmp_path / "kept.mp4").read_bytes() == b"the old film"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path, is_there):
    path = tmp_path / "a.mp4"
    if is_there:
        path.write_bytes(b"the old film")
    with pytest.raises(KnotForcingError, match="has put a file at .*a.mp4 meanwhile. It was not touched"), writer(path) as video:
        (tmp_path / "fresh").write_bytes(b"somebody's")
        os.replace(tmp_path / "fresh", path)
        video.write(frames(0, 5))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.mp4", b"somebody's")]


def test_what_may_be_written_but_gets_no_new_name_is_written_where_it_lies(tmp_path, monkeypatch):
    """So does Windows treat a film that is being watched."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old film" * 10_000)
    monkeypatch.setattr(
        "kf_core.media.growing.put_in_place", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "in use"))
    )
    with writer(path) as video:
        video.write(frames(0, 5))
        video.write(frames(5, 5))
    assert numbers(path) == list(range(10)) and [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def removed(path) -> None:
    path.unlink()


def moved(path) -> None:
    path.rename(path.with_name("elsewhere.mp4"))


def replaced(path) -> None:
    path.with_name("fresh").write_bytes(b"somebody's")
    os.replace(path.with_name("fresh"), path)


def added_to(path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path) -> None:
    os.truncate(path, 1000)


@posix
@pytest.mark.parametrize(
    ("happens", "sentence"),
    [
        (removed, "was deleted or replaced while it was made, and the 0.3 s made so far went with it"),
        (moved, "was moved or replaced .* the 0.3 s made so far are in the file that was moved.* Move it back and continue"),
        (replaced, "was deleted or replaced"),
        (added_to, "Another program has written into .*a.mp4"),
        (cut, "Another program has written into .*a.mp4"),
    ],
)
def test_a_file_that_is_not_as_it_was_left_ends_the_recording_and_is_not_touched(tmp_path, happens, sentence):
    path = tmp_path / "a.mp4"
    with pytest.raises(KnotForcingError, match=sentence), writer(path) as video:
        video.write(frames(0, 5))
        happens(path)
        after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        video.write(frames(5, 5))
    if happens is moved:  # it is ours, and so it is finished as a film that was stopped
        assert not path.exists() and numbers(path.with_name("elsewhere.mp4")) == list(range(5))
    else:
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == after


@posix
def test_two_that_go_on_with_one_film_do_not_mix_in_it(tmp_path):
    path = tmp_path / "a.mp4"
    with writer(path) as video:
        video.write(frames(0, 5))
    with pytest.raises(KnotForcingError, match="Another program has written into"), writer(path, resume=True) as one:
        with writer(path, resume=True) as other:
            other.write(frames(5, 5))
        one.write(frames(5, 5))
    assert numbers(path) == list(range(10))


def test_a_disk_that_tells_no_files_apart_ends_nothing(tmp_path, monkeypatch):
    with writer(tmp_path / "a.mp4") as video, monkeypatch.context() as strange:
        strange.setattr("os.path.samestat", lambda *_: False)
        for start in (0, 5):
            video.write(frames(start, 5))
    assert numbers(tmp_path / "a.mp4") == list(range(10))


def test_a_disk_that_cannot_say_when_it_has_the_bytes_is_taken_at_its_word(tmp_path, monkeypatch):
    def no_sync(_) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", no_sync)
    with writer(tmp_path / "a.mp4") as video:
        for start in (0, 5):
            video.write(frames(start, 5))
    assert numbers(tmp_path / "a.mp4") == list(range(10))


@posix
@pytest.mark.parametrize("resume", [True, False])
def test_a_pipe_or_a_device_is_no_place_for_a_film(tmp_path, resume):
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/dev/full")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(KnotForcingError, match="is a pipe or a device"):
            writer(tmp_path / name, resume=resume)
