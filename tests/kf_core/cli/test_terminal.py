"""A run is worth what it made: a terminal that is gone, full or poor in letters changes nothing of that."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from kf_core.cli.main import main
from kf_core.cli.terminal import Forgiving
from kf_core.media.playback import probe

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX shells and devices")


class Full(io.TextIOWrapper):
    """A stream to a disk that is full."""

    def __init__(self, problem: BaseException) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.problem = problem

    def write(self, _: str) -> int:
        raise self.problem

    def flush(self) -> None:
        raise self.problem


@pytest.mark.parametrize(
    "problem", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space"), ValueError("I/O operation on closed file")]
)
def test_what_cannot_be_said_ends_nothing(problem):
    stream = Forgiving(Full(problem))
    print("hello", file=stream, flush=True)
    for _ in tqdm(range(3), file=stream, mininterval=0):
        pass
    assert stream.lost is problem


def test_letters_that_a_code_page_lacks_are_written_by_their_numbers():
    bytes_said = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(bytes_said, encoding="cp1252", write_through=True))
    print("😀 名 é \udce9", file=stream)
    assert bytes_said.getvalue() == b"\\U0001f600 \\u540d \xe9 \\udce9" + os.linesep.encode()


def test_a_stream_that_is_not_there_takes_everything():
    stream = Forgiving(None)
    print("hello", file=stream, flush=True)
    assert stream.lost is None


@posix
@pytest.mark.parametrize("to", ["2>&-", "<&- >&- 2>&-", "> /dev/full 2>&1", "2>&1 | true"])
def test_a_whole_film_ends_in_0_wherever_it_is_said(files, to):
    """One process each: what closes a stream is the shell."""
    name = "😀 名: 100%.mp4"
    words = [sys.executable, "-m", "kf_core", *files.words(name, duration=0.5)]
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {to}', "bash", *words],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    assert probe(files.folder / name).frames == 8 and not (files.folder / f"{name}.resume").exists()
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@posix
@pytest.mark.parametrize(("to", "status"), [("> /dev/full", 1), ("| true", 0), ("", 0)])
def test_an_answer_that_reaches_nobody_is_none_but_a_reader_may_leave(files, to, status):
    words = [sys.executable, "-m", "kf_core", "inspect", str(files.folder / "tiny.safetensors"), "--names"]
    run = ["bash", "-c", f'set -o pipefail; "$@" {to}', "bash", *words]
    done = subprocess.run(run, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert ("could not be written (No space" in done.stderr) == bool(status)


def test_the_streams_are_as_they_were_when_a_command_has_ended(files, capsys):
    before = sys.stdout, sys.stderr
    assert main(["inspect", str(files.folder / "none.safetensors")]) == 1
    assert (sys.stdout, sys.stderr) == before and "does not exist" in capsys.readouterr().err
