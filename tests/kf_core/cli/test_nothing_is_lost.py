"""Nothing that was made is ever lost: a video is not written over, is continued, and survives a kill, Ctrl-C and a full disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from kf_core.errors import KnotForcingError
from kf_core.media.playback import probe

from .commands import made, refusal, write_voice

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and file size limits")
THREE_HOURS = 3 * 3600 * 16000 * 2  # bytes of sound


def write_three_silent_hours(path: Path) -> None:
    """A sparse file: hours of sound that take no room."""
    write_voice(path, 0.0)
    header = bytearray(path.read_bytes())
    header[4:8], header[40:44] = (36 + THREE_HOURS).to_bytes(4, "little"), THREE_HOURS.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, len(header) + THREE_HOURS)


def test_a_video_that_is_there_is_not_written_over_by_mistake(files, capsys):
    assert files.animate(duration=0.5) == 0
    before = (files.folder / "out.mp4").read_bytes()
    assert "is there already" in refusal(files, capsys)
    assert (files.folder / "out.mp4").read_bytes() == before
    assert files.animate(overwrite=True) == 0 and probe(files.folder / "out.mp4").frames == 24


def test_a_video_of_another_recipe_is_not_continued(files, capsys):
    assert files.animate(duration=0.5) == 0
    assert "begun with another" in refusal(files, capsys, resume=True, seed=8)
    assert probe(files.folder / "out.mp4").frames == 8


def test_a_finished_video_is_continued_when_more_is_asked_for(files):
    assert files.animate("whole.mp4", quiet=True) == 0
    assert files.animate(duration=0.7, quiet=True) == 0 and probe(files.folder / "out.mp4").frames == 12
    assert files.animate(resume=True, quiet=True) == 0 and files.animate(resume=True, quiet=True) == 0
    assert probe(files.folder / "out.mp4").frames == 24
    lost = (made(files.folder / "out.mp4") - made(files.folder / "whole.mp4")).square().mean((1, 2, 3)).sqrt()
    assert lost.max() < 0.06  # other fragments, other losses; the next frame is 0.1 away


def test_kept_latents_are_read_again(files):
    assert files.animate("a.mp4", spool=files.folder / "kept", quiet=True) == 0
    (kept,) = (files.folder / "kept").iterdir()
    before = kept.stat().st_size
    assert files.animate("b.mp4", spool=files.folder / "kept", quiet=True) == 0 and kept.stat().st_size == before
    assert torch.equal(made(files.folder / "a.mp4"), made(files.folder / "b.mp4"))


def wait_for(process: subprocess.Popen, path: Path, count: int, seconds: float = 600) -> None:
    """Until `count` frames are in the file."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        assert process.poll() is None, process.stderr.read()
        try:
            if probe(path).frames >= count:
                return
        except KnotForcingError:
            time.sleep(0.1)
        time.sleep(0.05)
    raise AssertionError(f"{count} frames were not there after {seconds} s")


def bytes_read(process: psutil.Process) -> int:
    """All that it has read so far, wherever the bytes came from; 0 where the system does not count it (macOS)."""
    return getattr(process.io_counters(), "read_chars", 0) if hasattr(process, "io_counters") else 0


@pytest.mark.slow
def test_three_hours_start_at_once_and_survive_a_kill(files):
    out = files.folder / "out.mp4"
    write_three_silent_hours(files.folder / "voice.wav")
    process = files.subprocess("out.mp4")
    watched = psutil.Process(process.pid)
    try:
        wait_for(process, out, 12)
        assert bytes_read(watched) < 1.5 * THREE_HOURS, "it plays when the voice was read once, for its name; its programs included"
        wait_for(process, out, 120)
        read = bytes_read(watched)
        wait_for(process, out, 500)
        assert bytes_read(watched) - read < THREE_HOURS / 10, "and goes on without reading far ahead"
    finally:
        process.kill()
        process.wait()
    there = probe(out).frames
    assert there >= 500 and len(made(out)) == there
    seconds = (there + 20) / 16
    assert files.animate(resume=True, duration=seconds, quiet=True) == 0
    facts = probe(out)
    assert facts.frames == there + 20 and abs(facts.sound_seconds - facts.seconds) < 1e-3
    assert files.animate("whole.mp4", duration=seconds, quiet=True) == 0
    assert torch.equal(made(out), made(files.folder / "whole.mp4"))


def test_ctrl_c_while_pytorch_is_loaded_ends_without_a_traceback(files):
    (files.folder / "torch.py").write_text("raise KeyboardInterrupt\n")  # what Python does at that moment
    path = os.pathsep.join([str(files.folder), str(Path(__file__).parents[3])])
    words = [sys.executable, "-m", "kf_core", *files.words()]
    ended = subprocess.run(words, cwd=files.folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "Stopped.\n")


def test_ctrl_c_before_the_first_frame_names_no_file_that_is_not_there(files, monkeypatch, capsys):
    handlers = []

    def asks_at_once(number, handler):
        handlers.append(handler)
        if len(handlers) == 1:
            handler(number, None)

    monkeypatch.setattr(signal, "signal", asks_at_once)
    assert files.animate() == 130
    said = capsys.readouterr().err
    assert said.rstrip().endswith(f"Stopped before there was an image. {files.folder / 'out.mp4'} was not begun.")
    assert not (files.folder / "out.mp4").exists()


def test_going_on_with_a_whole_video_says_that_nothing_was_left_to_draw(files, capsys):
    assert files.animate(duration=0.5) == 0 and "whole already" not in capsys.readouterr().out
    assert files.animate(duration=0.5, resume=True) == 0
    assert "nothing: the video was whole already" in capsys.readouterr().out


@posix
@pytest.mark.slow
def test_ctrl_c_finishes_the_file_and_says_how_to_go_on(files):
    out = files.folder / "out.mp4"
    process = files.subprocess("out.mp4", duration=600)
    wait_for(process, out, 12)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "can be played. Continue with:" in said and said.rstrip().endswith("--resume")
    facts = probe(out)
    assert abs(facts.sound_seconds - facts.seconds) < 1e-3 and (files.folder / "out.mp4.resume").exists()
    assert files.animate(resume=True, duration=facts.seconds + 1, quiet=True) == 0
    assert probe(out).frames == facts.frames + 16


@posix
@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_made_plays(files):
    import resource

    words = [sys.executable, "-m", "kf_core", *files.words(duration=600, quiet=True)]

    def limit():
        return resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    done = subprocess.run(words, cwd=Path(__file__).parents[3], preexec_fn=limit, capture_output=True, text=True, timeout=600)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Note: ")]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "a file may not become larger" in lines[0] or "Make room" in lines[0]
    assert len(made(files.folder / "out.mp4")) >= 9  # the first chunk at least; on a slow machine the state is the first that does not fit
